"""The bridge to lmms-eval up to its start and after its end; tests/recipes/test_lmms.py runs the real thing between."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.evaluate.lmms import (
    LOCK,
    VARIABLE,
    VERSION,
    Evaluator,
    evaluate_lmms,
    find_evaluator,
    lay_out_model,
)
from r1mm.evaluate.lmms_items import read_items
from r1mm.evaluate.lmms_questions import clip_questions
from r1mm.evaluate.lmms_tasks import LmmsSettings, split_template, stock_task, task_file

# The form of lmms_eval/tasks/longvideobench/longvideobench_val_v.yaml.
STOCK = """
dataset_path: longvideobench/LongVideoBench
dataset_kwargs: {token: True, cache_dir: datasets/longvideobench, video: True}
task: longvideobench_val_v
test_split: validation
doc_to_visual: !function utils.longvideobench_doc_to_visual_v
doc_to_target: "correct_choice"
generation_kwargs: {max_new_tokens: 32, temperature: 0, do_sample: False}
lmms_eval_specific_kwargs:
  default: {pre_prompt: "", post_prompt: "Answer with the option's letter.", kept: True}
"""
TEMPLATE = "Watch. {question}\nThink, then answer.\n"
SETTINGS = LmmsSettings(max_new_tokens=8, frames=16, min_pixels=3136, max_pixels=3136, dtype="bfloat16")


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    tasks = tmp_path / "tasks"
    (tasks / "longvideobench").mkdir(parents=True)
    (tasks / "longvideobench" / "longvideobench_val_v.yaml").write_text(STOCK)
    return Evaluator(Path(sys.executable), "3.11", {"lmms-eval": VERSION}, tasks)


def item(name: str, **changes: Any) -> dict[str, Any]:
    whole = {
        "id": name,
        "question": "Who waves?",
        "candidates": ["A man", "A cat"],
        "correct_choice": 1,
        "video_path": "clip.mp4",
        "duration_group": 15,
        "question_category": "E2O",
    }
    return {**whole, **changes}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "clip.mp4").write_bytes(b"not looked into here")
    path = folder / "lvb_val.json"
    path.write_text(json.dumps(rows))
    return path


def test_no_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(
        BadInput, match=r"R1MM_EVALUATOR_PYTHON is not set.*make image-evaluator.*docker/locks/evaluator"
    ):
        find_evaluator()


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_what_is_named_is_no_python(monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setenv(VARIABLE, python)
    with pytest.raises(BadInput, match=rf"R1MM_EVALUATOR_PYTHON={python} is no Python that starts"):
        find_evaluator()


def test_our_own_environment_has_no_lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    with pytest.raises(BadInput, match=rf"has lmms-eval not at all, {VERSION} is needed"):
        find_evaluator()


def test_the_lock_pins_the_version_whose_ways_are_known() -> None:
    assert f"\nlmms-eval=={VERSION} \\\n" in LOCK.read_text()


def test_our_task_is_the_stock_one_with_our_items_and_prompt(evaluator: Evaluator) -> None:
    stock, content = stock_task(evaluator.tasks, "longvideobench_val_v")
    ours = task_file(stock, content, TEMPLATE, replace(SETTINGS, max_new_tokens=512))
    assert ours["include"] == str(stock)
    assert ours["task"] != content["task"]
    assert ours["dataset_kwargs"] == {"data_files": {"validation": "items.jsonl"}}
    assert ours["lmms_eval_specific_kwargs"]["default"] == {
        "pre_prompt": "Watch. ",
        "post_prompt": "Think, then answer.\n",
        "kept": True,
    }
    assert ours["generation_kwargs"] == {"max_new_tokens": 512, "temperature": 0, "do_sample": False, "until": []}
    assert yaml.safe_load(yaml.safe_dump(ours)) == ours


@pytest.mark.parametrize("name", ["longvideobench_val_x", "../secret", "longvideobench_val_*"])
def test_a_task_that_lmms_eval_does_not_have(evaluator: Evaluator, name: str) -> None:
    with pytest.raises(BadInput, match="has no task"):
        stock_task(evaluator.tasks, name)


@pytest.mark.parametrize("template", ["no field\n", "{question} goes on in its line"])
def test_a_template_that_lmms_eval_cannot_write(template: str) -> None:
    with pytest.raises(BadInput, match=r"puts a line break after the question"):
        split_template(template)


def test_items_of_both_published_forms_are_the_same(tmp_path: Path) -> None:
    listed = read_items(written(tmp_path, item("a"), item("b", correct_choice=0)), tmp_path)
    columns = {f"option{i}": text for i, text in enumerate(["A man", "A cat", "N/A", "N/A", "N/A"])}
    rows = [
        {**item("a"), **columns, "candidates": None},
        {**item("b", correct_choice=0), **columns, "candidates": None},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_items(tmp_path / "items.jsonl", tmp_path) == listed
    assert [row["id"] for row in listed] == ["a", "b"]
    assert [listed[0][f"option{i}"] for i in range(5)] == ["A man", "A cat", "N/A", "N/A", "N/A"]
    assert listed[0]["video_path"] == str(tmp_path / "clip.mp4")


def test_a_clip_may_be_a_link_into_the_hubs_cache(tmp_path: Path) -> None:
    path = written(tmp_path, item("a"))
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "clip.mp4").unlink()
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "blob")
    assert read_items(path, tmp_path)[0]["video_path"] == str(tmp_path / "clip.mp4")


def test_items_from_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    listed = read_items(written(tmp_path, item("a"), item("b")), tmp_path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([item("a"), item("b")]), tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet", tmp_path) == listed
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"bad\.parquet is not readable parquet"):
        read_items(tmp_path / "bad.parquet", tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": None}, r"lvb_val\.json:2: has no text question \(found None\)"),
        ({"candidates": ["one"]}, r"lvb_val\.json:2: has the options \['one'\]; an item has two to five"),
        ({"candidates": list("ABCDEF")}, r"an item has two to five"),
        ({"correct_choice": 2}, r"correct_choice is 2, the number of an option from 0 to 1"),
        ({"correct_choice": True}, r"correct_choice is True"),
        ({"video_path": "lost.mp4"}, r"the clip of item 'b', .*lost\.mp4, is not there; fetch it"),
        ({"video_path": "empty.mp4"}, r"empty\.mp4, is empty"),
        ({"video_path": "../clip.mp4"}, r"video_path '\.\./clip\.mp4' leads out of"),
        ({"video_path": "/etc/passwd"}, r"video_path '/etc/passwd' leads out of"),
        ({"video_path": "clip.webm"}, r"clip\.webm is no \.mp4, \.avi or \.mov"),
        ({"id": "a"}, r"lvb_val\.json:2: item 'a' stands there twice"),
    ],
)
def test_items_that_cannot_be_asked(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "clip.webm").write_bytes(b"x")
    with pytest.raises(BadInput, match=words):
        read_items(written(tmp_path, item("a"), item("b", **changes)), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [("[]", "holds no items"), ('{"a": 1}', "holds no list"), ("{", "is not readable JSON")]
)
def test_files_that_hold_no_items(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "lvb_val.json").write_text(content)
    with pytest.raises(BadInput, match=words):
        read_items(tmp_path / "lvb_val.json", tmp_path)


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        ({"model_type": "qwen3_vl"}, "model.safetensors", r"holds a model of type 'qwen3_vl'"),
        ({"model_type": "qwen2_vl"}, "pytorch_model.bin", r"holds no weights as safetensors"),
    ],
)
def test_a_checkpoint_that_is_not_evaluated(
    evaluator: Evaluator, tmp_path: Path, config: dict[str, Any], weights: str, words: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    (model / weights).touch()
    with pytest.raises(BadInput, match=words):
        evaluate_lmms(
            evaluator=evaluator,
            questions=clip_questions(
                evaluator.tasks,
                "longvideobench_val_v",
                written(tmp_path, item("a")),
                tmp_path,
                TEMPLATE,
                SETTINGS,
            ),
            model_folder=model,
            settings=SETTINGS,
            folder=tmp_path / "out",
            title="none",
            device="cpu",
        )
    assert not (tmp_path / "out").exists()


def test_a_model_is_laid_out_in_one_dtype_whatever_it_was_saved_in(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", "torch_dtype": "float32"}))
    (saved / "model.safetensors").write_bytes(b"weights")
    lay_out_model(saved, tmp_path / "laid", "bfloat16")
    assert json.loads((tmp_path / "laid" / "config.json").read_text()) == {
        "model_type": "qwen2_vl",
        "dtype": "bfloat16",
    }
    assert (tmp_path / "laid" / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((saved / "config.json").read_text())["torch_dtype"] == "float32"
