"""MMMU and MathVista up to lmms-eval's start and after its end; tests/recipes/test_lmms.py runs the real thing between.

What came back was recorded from lmms-eval 0.7.3 in those tests.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.evaluate.lmms_picture_samples import check_picture_total, read_picture_samples
from r1mm.evaluate.lmms_pictures import Pictures, read_pictures, write_pictures
from r1mm.evaluate.lmms_questions import picture_questions
from r1mm.evaluate.lmms_tasks import LmmsSettings, picture_task, task_text
from r1mm.evaluate.readings import read_output
from r1mm.evaluate.scoring import read_outputs, rescored, score, summary, truth_of
from r1mm.rundir import write_jsonl
from tests.lmms_picture_assets import (
    MATHVISTA,
    MMMU,
    mathvista_rows,
    mmmu_rows,
    write_mathvista,
    write_mmmu,
    write_parquet,
)

SAMPLES = Path(__file__).parent / "samples"
SETTINGS = LmmsSettings(max_new_tokens=8, min_pixels=3136, max_pixels=2359296, dtype="bfloat16")
STOCK = """
dataset_path: AI4Math/MathVista
dataset_kwargs: {token: True}
task: mathvista_testmini_format
test_split: testmini
doc_to_text: !function utils.mathvista_doc_to_text
generation_kwargs: {max_new_tokens: 16384}
lmms_eval_specific_kwargs: {default: {shot_type: format-prompt, shot: 0}, phi3v: {shot_type: solution}}
"""


def mmmu(folder: Path) -> Pictures:
    return read_pictures("mmmu", write_mmmu(folder))


def test_items_of_both_benchmarks(tmp_path: Path) -> None:
    ours = mmmu(tmp_path)
    assert [item.images for item in ours.items] == [len(case.pictures) for case in MMMU]
    assert [item.truth for item in ours.items] == [case.answer for case in MMMU]
    assert [item.asked.options for item in ours.items] == [case.options for case in MMMU]
    assert [item.asked.kind for item in ours.items] == ["letter"] * 6 + ["text"] * 4
    others = read_pictures("mathvista", write_mathvista(tmp_path)).items
    assert [item.name for item in others] == [str(number) for number in range(1, 11)]
    kinds = ["letter"] * 4 + ["integer"] * 2 + ["float"] * 3 + ["list"]
    assert [item.asked.kind for item in others] == kinds
    assert [item.asked.precision for item in others] == [None] * 6 + [1, 1, 2, None]
    assert [item.truth for item in others[:4]] == ["B", "A", "B", "A"]  # the letter of the option that is the answer


def test_a_slice_is_written_as_the_datasets_library_reads_it(tmp_path: Path) -> None:
    import datasets

    path = write_pictures(mmmu(tmp_path).first(8), 5, 2, tmp_path / "items.parquet")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == ["validation_Art_6", "validation_Math_7"]
    assert [loaded[1][f"image_{number}"].getpixel((0, 0))[0] for number in range(1, 8)] == [40] * 6 + [210]
    assert loaded[0]["image_3"] is None
    written = write_pictures(read_pictures("mathvista", write_mathvista(tmp_path)), 0, 10, tmp_path / "vista.parquet")
    rows = pyarrow.parquet.read_table(written).to_pylist()
    assert [row["precision"] for row in rows] == [case.precision for case in MATHVISTA]
    assert [row["choices"] for row in rows] == [list(case.options) or None for case in MATHVISTA]
    assert "metadata" not in rows[0]


READ = {"id": "validation_Art_1"}
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (0, lambda row: {**row, "answer": "C"}, r"the answer 'C' is none of the letters A, B of its options"),
        (0, lambda row: {**row, "options": "[]"}, r"a multiple-choice question with the options '\[\]'"),
        (2, lambda row: {**row, "image_2": None}, r"names <image 2> and has no image_2"),
        (2, lambda row: {**row, "question": "<image 8>?"}, r"names <image 8> and has no image_8"),
        (8, lambda row: {**row, "question_type": "essay"}, r"question_type is 'essay'"),
        (8, lambda row: {**row, "answer": " "}, r"has no text answer"),
        (1, lambda row: {**row, "id": "validation_Art_1"}, r"item 'validation_Art_1' stands there twice"),
    ],
)
def test_mmmu_items_that_cannot_be_asked(tmp_path: Path, number: int, change: Change, words: str) -> None:
    rows = mmmu_rows()
    rows[number] = change(rows[number])
    images = tuple(f"image_{place}" for place in range(1, 8))
    with pytest.raises(BadInput, match=words):
        read_pictures("mmmu", [write_parquet(tmp_path / "mmmu.parquet", rows, images)])


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (0, lambda row: {**row, "answer": "black"}, r":1: the answer 'black' is none of the choices"),
        (0, lambda row: {**row, "choices": ["one"]}, r"with the choices \['one'\]; it needs two or more"),
        (
            4,
            lambda row: {**row, "answer_type": "text"},
            r":5: answer_type is 'text' with precision None; .* know integer",
        ),
        (6, lambda row: {**row, "precision": 3.0}, r"answer_type is 'float' with precision 3\.0"),
        (6, lambda row: {**row, "decoded_image": None}, r"has no decoded_image"),
        (6, lambda row: {**row, "question_type": "essay"}, r"question_type is 'essay'"),
        (6, lambda row: {key: value for key, value in row.items() if key != "answer"}, r"has no text answer"),
    ],
)
def test_mathvista_items_that_cannot_be_asked(tmp_path: Path, number: int, change: Change, words: str) -> None:
    rows = mathvista_rows()
    rows[number] = change(rows[number])
    with pytest.raises(BadInput, match=words):
        read_pictures("mathvista", [write_parquet(tmp_path / "vista.parquet", rows, ("decoded_image",))])


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"bad\.parquet is not readable parquet"):
        read_pictures("mmmu", [tmp_path / "bad.parquet"])
    with pytest.raises(BadInput, match=r"has no column id, options, image_1; give the benchmark's own"):
        read_pictures("mmmu", write_mathvista(tmp_path))
    with pytest.raises(BadInput, match="no file: holds no items"):
        read_pictures("mmmu", [])


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: f"!{loader.construct_scalar(node)}")


def test_our_task_is_the_stock_one_with_our_items_prompt_and_no_marks(tmp_path: Path) -> None:
    stock = tmp_path / "tasks" / "mathvista" / "mathvista_testmini_format.yaml"
    stock.parent.mkdir(parents=True)
    stock.write_text(STOCK)
    paths = write_mathvista(tmp_path)
    questions = picture_questions(tmp_path / "tasks", stock.stem, paths, "{prompt}", SETTINGS, limit=4)
    questions.write(tmp_path / "slice", 1, 2)
    assert sorted(path.name for path in (tmp_path / "slice").iterdir()) == [
        *("items.parquet", "lmms_beside.py", "task.yaml")
    ]
    ours = yaml.load((tmp_path / "slice" / "task.yaml").read_text(), Loader=_Loader)
    assert list(ours).index("doc_to_text") < list(ours).index("include")  # loaded first, as the stock task needs it
    assert ours["doc_to_text"] == "!lmms_beside.mathvista_text"
    assert ours["process_results"] == "!lmms_beside.mathvista_kept"
    assert [metric["metric"] for metric in ours["metric_list"]] == ["r1mm_kept"]
    assert ours["task"] == questions.task == "mathvista_testmini_format_r1mm"
    assert ours["dataset_kwargs"] == {"data_files": {"testmini": "items.parquet"}}
    assert ours["generation_kwargs"] == {"max_new_tokens": 8, "temperature": 0, "do_sample": False, "until": []}
    assert ours["lmms_eval_specific_kwargs"] == {
        "default": {"shot_type": "format-prompt", "shot": 0, "template": "{prompt}"}
    }
    assert questions.names == ["1", "2", "3", "4"]
    assert questions.about["images_shown"] == 4


def test_the_first_picture_alone_is_another_task(tmp_path: Path) -> None:
    content = {"task": "mmmu_val", "test_split": "validation"}
    for images, named in (("all", None), ("first", "lmms_beside.mmmu_first_visual")):
        settings = LmmsSettings(**{**vars(SETTINGS), "images": images})
        ours = picture_task("mmmu", Path("stock.yaml"), content, "{question}", settings)
        assert ours.get("doc_to_visual") == named
        assert "process_results" not in ours  # MMMU's own marks are held against ours
        assert "!function" in task_text(ours)
    for template in ("no field", "{question} {prompt}"):
        with pytest.raises(BadInput, match=r"must hold one of \{prompt\}"):
            picture_task("mmmu", Path("stock.yaml"), content, template, SETTINGS)


def test_mmmus_answers_recorded_from_lmms_eval(tmp_path: Path) -> None:
    outputs, right = read_picture_samples("mmmu", SAMPLES / "lmms-mmmu.jsonl", mmmu(tmp_path).items)
    assert [output.correct for output in outputs] == [case.right for case in MMMU]
    assert [output.parsed for output in outputs[:7]] == ["A", "B", "A", "B", "A", None, "bright"]
    assert right == 6  # lmms-eval's own: it draws letters, and compares with a list as a text
    check_picture_total("mmmu", 10, right, {"results": {"t": {"mmmu_acc,none": 0.6}}}, "here")
    with pytest.raises(BadInput, match=r"lmms-eval's total is \[0\.5\], its 10 items give 0\.6"):
        check_picture_total("mmmu", 10, right, {"results": {"t": {"mmmu_acc,none": 0.5}}}, "here")
    assert summary("mmmu", outputs)["right"] == sum(case.right for case in MMMU)
    readings = [read_output("mmmu", output) for output in outputs]
    assert [reading.forced_right for reading in readings] == [case.right for case in MMMU]


def test_mathvistas_answers_recorded_from_lmms_eval(tmp_path: Path) -> None:
    items = read_pictures("mathvista", write_mathvista(tmp_path)).items
    path = SAMPLES / "lmms-mathvista.jsonl"
    outputs, right = read_picture_samples("mathvista", path, items, lambda texts: [len(text) for text in texts])
    assert right is None
    assert [output.correct for output in outputs] == [case.right for case in MATHVISTA]
    assert [output.tokens for output in outputs] == [len(case.says) for case in MATHVISTA]
    assert [output.parsed for output in outputs] == [
        *("B", "A", "B", None, "14", None, "1.2", "0.5", "0.61", "[2007, 2008]")
    ]
    check_picture_total("mathvista", 10, None, {"results": {"t": {"r1mm_kept,none": 10}}}, "here")
    with pytest.raises(BadInput, match="total is missing"):
        check_picture_total("mathvista", 10, None, {"results": {}}, "here")


def test_outputs_carry_what_was_asked_and_are_scored_again_without_the_dataset(tmp_path: Path) -> None:
    outputs, _ = read_picture_samples("mmmu", SAMPLES / "lmms-mmmu.jsonl", mmmu(tmp_path).items)
    path = write_jsonl(tmp_path / "outputs.jsonl", (output.model_dump() for output in outputs))
    again = read_outputs(path)
    assert again == outputs
    assert [rescored("mmmu", output, "here") for output in again] == outputs
    plain = score("choice", item="a", prompt="", completion="B", tokens=1, truth="B")
    assert "asked" not in plain.model_dump()  # outputs of other tasks are written as before
    with pytest.raises(BadInput, match=r"the scorer mmmu needs of each output what was asked for"):
        rescored("mmmu", plain, "here")
    with pytest.raises(BadInput, match=r"the truth 'F' is not one of A, B"):
        truth_of("mmmu", "F", "here", outputs[0].asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mmmu_acc": 1.0}, r":1: has no mmmu_acc with the item's id, but doc_id"),
        ({"mmmu_acc": {"id": "another"}}, r"did not answer the 10 items that were asked"),
        ({"mmmu_acc": {**READ, "parsed_pred": ["A", "B"]}}, r":1: mmmu_acc has no single parsed_pred"),
        (
            {"resps": "(B) red", "filtered_resps": "(B) red", "mmmu_acc": {**READ, "parsed_pred": ["A"]}},
            r"lmms-eval read 'A' out of '\(B\) red', r1mm knows MMMU's rule to give 'B'",
        ),
        ({"input": None}, r":1: has no text input"),
    ],
)
def test_what_is_no_samples_file(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = [json.loads(line) for line in (SAMPLES / "lmms-mmmu.jsonl").read_text().splitlines()]
    path = write_jsonl(tmp_path / "samples.jsonl", [{**rows[0], **change}, *rows[1:]])
    with pytest.raises(BadInput, match=words):
        read_picture_samples("mmmu", path, mmmu(tmp_path).items)
