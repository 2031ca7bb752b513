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
from r1mm.evaluate.lmms import VARIABLE, Evaluator, evaluate_lmms, find_evaluator, lay_out_model
from r1mm.evaluate.lmms_questions import clip_questions
from r1mm.evaluate.lmms_samples import letter_of
from r1mm.evaluate.lmms_tasks import LmmsSettings
from r1mm.evaluate.scoring import Output
from tests.lmms_assets import SIZE, TEMPLATE, TEXTS, make_checkpoint, write_clips, write_items

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
