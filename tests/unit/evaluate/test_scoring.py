from pathlib import Path
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.scoring import Output, Truth, read_outputs, score, summary, truth_of
from r1mm.rundir import write_jsonl


def counted(completion: str, truth: Truth = 3, item: str = "a") -> Output:
    return score("counting", item=item, prompt="p", completion=completion, tokens=3, truth=truth)


def test_marks_of_an_output() -> None:
    thinking = counted("<think>\nx\n</think>\n<answer>\n 3\n</answer>")
    assert (thinking.correct, thinking.lenient, thinking.format, thinking.direct) == (True, True, True, False)
    bare = counted("<answer>2</answer>")
    assert (bare.parsed, bare.correct, bare.lenient, bare.format, bare.direct) == (2, False, False, False, True)
    listed = counted("<answer>C. 3</answer>")
    assert (listed.parsed, listed.correct, listed.lenient) == (None, False, True)
    angle = score("math", item="a", prompt="p", completion="<answer>65°</answer>", tokens=3, truth="65°")
    assert (angle.parsed, angle.correct, angle.lenient, angle.direct) == (None, False, True, True)


def test_truths() -> None:
    assert truth_of("counting", "<answer> 3 </answer>", "x") == 3
    assert truth_of("counting", 3, "x") == 3
    assert truth_of("math", "<answer> 65° </answer>", "x") == "65°"
    assert truth_of("math", 65, "x") == "65"
    for wrong in ("many", 3.5, None, True, ["3"]):
        with pytest.raises(BadInput, match=r"row 7: the truth .* is not a whole number"):
            truth_of("counting", wrong, "row 7")
    with pytest.raises(BadInput, match="row 7: the truth '' is not text"):
        truth_of("math", "", "row 7")


def test_outputs_are_read_as_they_were_written(tmp_path: Path) -> None:
    outputs = [
        counted("<answer>3</answer>"),
        score("math", item="b", prompt="p", completion="65", tokens=1, truth="65°"),
        score("math", item="c", prompt="p", completion="65", tokens=1, truth="65"),  # text that looks like a number
    ]
    assert read_outputs(write_jsonl(tmp_path / "o.jsonl", (o.model_dump() for o in outputs))) == outputs


def test_outputs_from_before_the_lenient_mark_are_read(tmp_path: Path) -> None:
    outputs = [counted("<answer>C. 3</answer>"), counted("none", item="b")]
    rows: list[dict[str, Any]] = [output.model_dump(exclude={"lenient"}) for output in outputs]
    assert read_outputs(write_jsonl(tmp_path / "o.jsonl", rows)) == outputs


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "o.jsonl", [counted("x").model_dump(), {"item": "b"}])
    with pytest.raises(BadInput, match=r"o\.jsonl:2: prompt: Field required"):
        read_outputs(path)
    with pytest.raises(BadInput, match="holds no outputs"):
        read_outputs(write_jsonl(tmp_path / "empty.jsonl", []))


def test_summary_counts_both_rules() -> None:
    texts = ("<answer>3</answer>", "<answer>C. 3</answer>", "<answer>C. 4</answer>", "none")
    outputs = [counted(text, item=str(i)) for i, text in enumerate(texts)]
    assert summary("counting", outputs) == {
        **{"n": 4, "right": 1, "accuracy": 25.0, "unparsed": 3, "lenient_right": 2, "lenient_accuracy": 50.0},
        **{"recovered": 2, "format": 0, "bare": 1},
    }
