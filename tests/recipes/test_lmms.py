"""A tiny Qwen2-VL through the real lmms-eval, on the CPU and without a network.

Needs lmms-eval's own environment, which R1MM_EVALUATOR_PYTHON names; `make test-evaluator` makes it and runs these.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from r1mm.errors import StageFailed
from r1mm.evaluate import lmms, lmms_questions
from r1mm.evaluate.lmms import VARIABLE, Evaluator, evaluate_lmms, find_evaluator, lay_out_model
from r1mm.evaluate.lmms_questions import clip_questions, picture_questions
from r1mm.evaluate.lmms_samples import letter_of
from r1mm.evaluate.lmms_tasks import LmmsSettings
from r1mm.evaluate.mmmu import is_one_of, letter_by_rule, open_candidates
from r1mm.evaluate.scoring import Output
from tests.lmms_assets import SIZE, TEMPLATE, TEXTS, make_checkpoint, write_clips, write_items
from tests.lmms_picture_assets import (
    DIRECT,
    MATHVISTA,
    MMMU,
    THINK,
    make_picture_checkpoint,
    mathvista_prompts,
    mathvista_rows,
    mmmu_prompts,
    mmmu_rows,
    thinking,
    write_mathvista,
    write_mmmu,
)

pytestmark = [
    pytest.mark.whole,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        VARIABLE not in os.environ, reason=f"{VARIABLE} names no environment; `make test-evaluator` does"
    ),
]
SETTINGS = LmmsSettings(max_new_tokens=40, frames=16, min_pixels=SIZE**2, max_pixels=SIZE**2, dtype="float32")


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return find_evaluator()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, evaluator: Evaluator) -> Path:
    folder = tmp_path_factory.mktemp("a folder, with a comma=")
    make_checkpoint(folder / "checkpoint")
    write_items(folder, evaluator.python)
    return folder


def evaluated(evaluator: Evaluator, world: Path, folder: Path) -> list[Output]:
    return evaluate_lmms(
        evaluator=evaluator,
        questions=clip_questions(
            evaluator.tasks, "longvideobench_val_v", world / "lvb_val.json", world / "videos", TEMPLATE, SETTINGS
        ),
        model_folder=world / "checkpoint",
        settings=SETTINGS,
        folder=folder,
        title="lmms-eval",
        device="cpu",
        slice_items=4,
    )


@pytest.fixture(scope="module")
def outputs(evaluator: Evaluator, world: Path) -> list[Output]:
    return evaluated(evaluator, world, world / "work")


def test_every_item_is_asked_with_its_clip_and_marked(world: Path, outputs: list[Output]) -> None:
    rows = json.loads((world / "lvb_val.json").read_text())
    assert [output.item for output in outputs] == [row["id"] for row in rows]
    assert [output.truth for output in outputs] == ["AB"[row["correct_choice"]] for row in rows]
    # The model can tell them apart by the clip alone; the last item's truth is wrong on purpose.
    assert [output.correct for output in outputs] == [True] * 5 + [False]
    assert {output.parsed for output in outputs} == {"A", "B"}
    assert all(output.prompt == "Is it bright?\nA. bright\nB. dark\nThink first.\n" for output in outputs)


def test_no_answer_is_cut_short(world: Path, outputs: list[Output]) -> None:
    from r1mm.processor import load_processor

    tokenizer = load_processor(world / "checkpoint").tokenizer
    for output in outputs:
        assert output.parsed is not None
        assert output.completion == TEXTS[output.parsed]  # both its paragraphs
        assert output.tokens == len(tokenizer(output.completion)["input_ids"])
        assert output.format
        assert not output.direct
        assert letter_of(output.completion, thoughts=True, to_blank_line=True) == "B"  # what 0.3.0 would have read


def test_what_is_done_is_not_done_again(evaluator: Evaluator, world: Path, outputs: list[Output]) -> None:
    assert sorted(path.name for path in (world / "work").glob("slice-*")) == ["slice-0000", "slice-0001"]
    assert evaluated(replace(evaluator, python=Path("/bin/false")), world, world / "work") == outputs
    shutil.rmtree(world / "work" / "slice-0001")
    with pytest.raises(StageFailed, match=r"lmms-eval gave no results \(status 1\)"):
        evaluated(replace(evaluator, python=Path("/bin/false")), world, world / "work")
    assert evaluated(evaluator, world, world / "work") == outputs
    assert json.loads((world / "work" / "evaluator.json").read_text())["packages"]["lmms-eval"] == "0.7.3"


def test_a_clip_that_cannot_be_read_ends_it_with_its_name(evaluator: Evaluator, world: Path, tmp_path: Path) -> None:
    for name in ("checkpoint", "lvb_val.json", "videos"):
        source = world / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path / name)
    broken = json.loads((tmp_path / "lvb_val.json").read_text())[2]["video_path"]
    (tmp_path / "videos" / broken).write_bytes(b"no clip at all" * 100)
    with pytest.raises(StageFailed, match=rf"could not read a clip or image.*{broken}"):
        evaluated(evaluator, tmp_path, tmp_path / "work")


def test_it_ends_with_the_process_that_started_it(evaluator: Evaluator, world: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from r1mm.evaluate.lmms import find_evaluator\n"
        "from tests.recipes.test_lmms import evaluated\n"
        "evaluated(find_evaluator(), Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    starter = subprocess.Popen([sys.executable, "-c", code, str(world), str(tmp_path / "work")], env=environment)
    try:
        while not (children := psutil.Process(starter.pid).children(recursive=True)) or not any(
            "config.yaml" in child.cmdline() for child in children
        ):
            assert starter.poll() is None
            time.sleep(0.2)
        time.sleep(2)  # past its own start
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        assert not psutil.wait_procs(children, timeout=20)[1]
    finally:
        starter.kill()


def test_a_model_is_loaded_in_the_dtype_asked_for_and_its_text_stands_behind_the_clip(
    evaluator: Evaluator, world: Path, tmp_path: Path
) -> None:
    # Eight steps in time of one merged row and column: the text goes on after the eighth, not after the first.
    code = """
import json, sys, torch
from transformers import AutoConfig, Qwen2VLForConditionalGeneration
config = AutoConfig.from_pretrained(sys.argv[1])
model = Qwen2VLForConditionalGeneration.from_pretrained(sys.argv[1], dtype="auto")
ids = torch.tensor([[0, config.vision_start_token_id, *[config.video_token_id] * 8, config.vision_end_token_id, 0]])
positions, _ = model.model.get_rope_index(ids, video_grid_thw=torch.tensor([[8, 2, 2]]))
print(json.dumps([positions[:, 0, -2:].tolist(), sorted({str(weight.dtype) for weight in model.parameters()})]))
"""
    lay_out_model(world / "checkpoint", tmp_path / "model", "bfloat16")  # saved in float32
    said = subprocess.run(
        [str(evaluator.python), "-I", "-c", code, str(tmp_path / "model")], capture_output=True, text=True, check=True
    ).stdout
    places, dtypes = json.loads(said)
    assert places == [[10, 11]] * 3
    assert dtypes == ["torch.bfloat16"]


def test_the_clips_of_these_tests_are_clips(evaluator: Evaluator, tmp_path: Path) -> None:
    write_clips(evaluator.python, {tmp_path / "grey.mp4": 128})
    code = "import decord, sys; r = decord.VideoReader(sys.argv[1]); print(len(r), r[3].asnumpy().mean())"
    said = subprocess.run(
        [str(evaluator.python), "-I", "-c", code, str(tmp_path / "grey.mp4")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(said[0]) == 16
    assert abs(float(said[1]) - 128) < 4


PICTURES = LmmsSettings(max_new_tokens=40, min_pixels=SIZE**2, max_pixels=SIZE**2, dtype="float32")


def beside(evaluator: Evaluator, folder: Path, code: str, *arguments: str) -> str:
    """What code prints in the evaluator's interpreter, with our functions beside it as `lmms_beside`."""
    shutil.copy(Path(lmms_questions.__file__).with_name("lmms_beside.py"), folder)
    ran = subprocess.run(
        [str(evaluator.python), "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        | {"API_TYPE": "dummy", "OPENAI_API_KEY": ""},
    )
    return ran.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    make_picture_checkpoint(folder / "checkpoint")
    write_mmmu(folder / "mmmu")
    write_mathvista(folder / "mathvista")
    return folder


def shown(evaluator: Evaluator, gallery: Path, task: str, template: str) -> list[Output]:
    folder = "mmmu" if task == "mmmu_val" else "mathvista"
    paths = sorted((gallery / folder).rglob("*.parquet"))
    return evaluate_lmms(
        evaluator=evaluator,
        questions=picture_questions(evaluator.tasks, task, paths, template, PICTURES),
        model_folder=gallery / "checkpoint",
        settings=PICTURES,
        folder=gallery / f"work-{folder}",
        title=task,
        device="cpu",
        slice_items=7,
    )


def test_mmmus_questions_are_asked_with_all_their_pictures_and_marked(evaluator: Evaluator, gallery: Path) -> None:
    outputs = shown(evaluator, gallery, "mmmu_val", THINK)
    assert [output.prompt for output in outputs] == [mmmu_prompts(case)[0] for case in MMMU]
    # It tells items apart by their pictures alone: by the one, by the order of two, by the last of seven.
    assert [output.completion for output in outputs] == [thinking(case.says) for case in MMMU]
    assert [output.correct for output in outputs] == [case.right for case in MMMU]
    assert [output.asked and output.asked.options for output in outputs] == [case.options for case in MMMU]
    assert all(output.format and output.tokens > 5 for output in outputs)
    written = json.loads((gallery / "work-mmmu" / "evaluator.json").read_text())
    assert (written["items"], written["images_shown"], written["most_images_of_an_item"]) == (10, 26, 7)
    assert written["right_by_its_own_marks"] < sum(case.right for case in MMMU)  # it does not look into a tag


def test_mathvistas_answers_are_kept_and_no_model_is_asked_to_read_them(evaluator: Evaluator, gallery: Path) -> None:
    outputs = shown(evaluator, gallery, "mathvista_testmini_format", DIRECT)
    assert [output.prompt for output in outputs] == [mathvista_prompts(case)[1] for case in MATHVISTA]
    assert [output.completion for output in outputs] == [case.says for case in MATHVISTA]
    assert [output.correct for output in outputs] == [case.right for case in MATHVISTA]
    log = "".join(path.read_text() for path in sorted((gallery / "work-mathvista").rglob("log.txt")))
    assert "Server evaluation failed" not in log
    assert "API key" not in log


def test_each_template_is_filled_by_lmms_evals_own_functions(evaluator: Evaluator, tmp_path: Path) -> None:
    code = """
import json, yaml, lmms_beside
from pathlib import Path
from lmms_eval.utils import load_yaml_config
asked = []
for task, maker, rows in json.loads(sys.argv[1]):
    stock = load_yaml_config(str(next(Path(sys.argv[2]).rglob(task + ".yaml"))))["lmms_eval_specific_kwargs"]["default"]
    for row in rows:
        for template in json.loads(sys.argv[3]):
            asked.append(getattr(lmms_beside, maker)(row, {**stock, "template": template}))
print(json.dumps(asked))
"""
    picture = ("image_", "decoded_image")
    mmmu = [{key: value for key, value in row.items() if not key.startswith(picture)} for row in mmmu_rows()]
    vista = [{key: value for key, value in row.items() if not key.startswith(picture)} for row in mathvista_rows()]
    jobs = [("mmmu_val", "mmmu_text", mmmu), ("mathvista_testmini_format", "mathvista_text", vista)]
    said = beside(evaluator, tmp_path, code, json.dumps(jobs), str(evaluator.tasks), json.dumps([THINK, DIRECT]))
    wanted = [mmmu_prompts(case) for case in MMMU] + [mathvista_prompts(case) for case in MATHVISTA]
    assert json.loads(said) == [prompt for pair in wanted for prompt in pair]


def test_mmmus_rules_are_those_of_lmms_eval(evaluator: Evaluator, tmp_path: Path) -> None:
    code = """
import json, random
from lmms_eval.tasks.mmmu import utils
random.choice = lambda choices: None
letters, opens = json.loads(sys.argv[1])
info = utils.get_multi_choice_info
read = [utils.parse_multi_choice_response(text, *reversed(info(options))) for text, options in letters]
marks = [utils.eval_open(truth, utils.parse_open_response(text)) for text, truth in opens]
print(json.dumps([read, marks]))
"""
    options = (("red", "blue", "green"), ("4", "40", "400", "4000"), ("A cat", "the DNA", "", "dna"), ("yes", "no"))
    texts = [
        *("B", "(B)", "B.", " B ", "b", "B: blue", "(A) or (C)", "A or B", "A. B. C.", "Answer: C", "'D'", "E", ""),
        *("<answer>B</answer>", "the option is B, not A", "It is blue, I think, and not red at all", "The DNA is C"),
        *("the cat sat on the mat with DNA", "I would say that it is 400 or so", "neither of these seems to be right"),
        *("C\\nB", "(C) because (A) is wrong", "A man is in the red house now", "GREEN is what I see in it here"),
    ]
    answers = [
        *(
            "40",
            "It is 40.",
            "the answer is 40 m",
            "x = 1,234.5",
            "so 3\\nthus 4",
            "1e3",
            "-5",
            "",
            "is",
            "f",
            "F",
            ".5",
        ),
        *(
            "could be Tampa, Florida",
            "the final result is 0.333",
            "is :",
            "2 = 3 = 4",
            "answer 1,000,000 dollars",
            "7:30",
        ),
    ]
    truths = [
        "40",
        "1234.5",
        "4",
        "1000",
        "-5",
        "f",
        "Tampa",
        "['Tampa', 'Florida']",
        "0.33",
        "1000000",
        "24/7",
        "0.5",
        "",
    ]
    letters = [(text, one) for text in texts for one in options]
    opens = [(text, truth) for text in answers for truth in truths]
    read, marks = json.loads(beside(evaluator, tmp_path, code, json.dumps([letters, opens])))
    assert [letter_by_rule(text, one) for text, one in letters] == read
    assert [is_one_of(open_candidates(text), [truth]) for text, truth in opens] == marks
    assert 0.2 < sum(letter is not None for letter in read) / len(read) < 0.9
    assert any(marks)


def test_what_a_recipe_says_of_pictures_and_of_the_system_turn_is_what_its_model_has(
    evaluator: Evaluator, gallery: Path, tmp_path: Path
) -> None:
    lay_out_model(gallery / "checkpoint", tmp_path / "model", "float32")
    (tmp_path / "system.txt").write_text('First think, then "answer": a=1, <b>.')
    code = """
import io, json, os, runpy
os.chdir(sys.argv[1])
runpy.run_module = lambda *given, **named: None
exec(sys.argv[2])
from lmms_eval.models.simple.qwen2_vl import Qwen2_VL, process_vision_info
from PIL import Image
import lmms_beside
ours = Qwen2_VL(pretrained="model", device="cpu", device_map="cpu", min_pixels=3136, max_pixels=2359296)
grids = []
for width, height in ((4000, 3000), (1536, 1536), (300, 200), (30, 40)):
    turn = {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (width, height)),
        "min_pixels": ours.min_pixels, "max_pixels": ours.max_pixels}]}
    images, _ = process_vision_info([[turn]])
    _, high, wide = ours.processor.image_processor(images=images, return_tensors="pt")["image_grid_thw"][0].tolist()
    grids.append([wide * 14, high * 14])
doc = {"question": "<image 2> or <image 1>?", "question_type": "open", "options": "[]"}
doc |= {f"image_{number}": Image.new("L", (number, 1)) for number in (1, 2)}
print(json.dumps([ours.system_prompt, grids, [one.size[0] for one in lmms_beside.mmmu_first_visual(doc)]]))
"""
    said = json.loads(beside(evaluator, tmp_path, code, str(tmp_path), lmms._START))
    system, grids, first = said
    assert system == 'First think, then "answer": a=1, <b>.'
    assert grids == [[1764, 1316], [1512, 1512], [308, 196], [56, 84]]
    assert all(3136 <= wide * high <= 2359296 for wide, high in grids)
    assert first == [1]
