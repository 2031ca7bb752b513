"""What lmms-eval wrote, read back: lines recorded from lmms-eval 0.7.3, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.lmms_samples import check_total, letter_leniently, letter_of, read_samples
from r1mm.evaluate.thoughts import without_thoughts

# Of tests/recipes/test_lmms.py's model: six items as they are, and two outputs of a model taught with other positions.
RECORDED = Path(__file__).parent / "samples" / "lmms-longvideobench.jsonl"
THOUGHT = "<think>\nBlue moves.\n\nAfter that none does.\n</think>\n<answer>C</answer>"


@pytest.mark.parametrize(
    ("text", "now", "thoughts_too", "to_blank_line"),
    [
        ("C", "C", "C", "C"),
        (THOUGHT, "C", "B", "B"),
        ("<think>\nred\n\nblue\n</think>\n<answer>D</answer>", "D", "D", None),
        ("Based on the clip, the answer is D.", "B", "B", "B"),
        ("Best option: D", "D", "D", "D"),
        ("the second one", None, None, None),
        ("<think>A man never stops", "A", "A", "A"),
        ("a thought </think> E", "E", "E", "E"),
        ("F", None, None, None),
    ],
)
def test_the_letter_that_lmms_eval_reads(
    text: str, now: str | None, thoughts_too: str | None, to_blank_line: str | None
) -> None:
    assert letter_of(text) == now
    assert letter_of(text, thoughts=True) == thoughts_too
    assert letter_of(text, to_blank_line=True) == to_blank_line


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<answer>B</answer>", "B"),
        ("<answer> B. a cat </answer>", "B"),
        ("<answer>A</answer> no: <answer>D</answer>", "D"),
        ("Based on the clip, the answer is D.", "D"),
        ("A man waves", None),
        ("(C) a cat", "C"),
        ("B: red", "B"),
        ("<think>it is C.</think> so D", "D"),
        ("<think>it is C.", None),
        ("**E**", "E"),
        ("CD", None),
    ],
)
def test_the_letter_that_a_benevolent_reader_finds(text: str, letter: str | None) -> None:
    assert letter_leniently(text) == letter


def test_thoughts_are_taken_away_as_lmms_eval_does() -> None:
    assert without_thoughts("a <think>b</think> c <think>d</think> e") == "a  c  e"
    assert without_thoughts("<think>never closed") == "<think>never closed"
    assert without_thoughts("</think> first <think> open") == "</think> first <think> open"


def test_outputs_recorded_from_lmms_eval() -> None:
    outputs = read_samples(RECORDED)
    assert [output.item for output in outputs[:6]] == [f"item-{i}" for i in range(6)]
    assert [output.truth for output in outputs] == list("BABABBAB")
    assert [output.parsed for output in outputs] == list("BABABACB")
    assert [output.correct for output in outputs] == [True] * 5 + [False, False, True]
    # "Certainly" answers C for lmms-eval; a benevolent reader sees the A in its tag.
    assert [output.lenient for output in outputs] == [True] * 5 + [False, True, True]
    assert [output.format for output in outputs] == [True] * 6 + [False, False]
    assert all("\n\n" in output.completion and "</answer>" in output.completion for output in outputs)
    # What lmms-eval 0.3.0 would have read of the same six texts: the B of "Before", in the thoughts.
    assert {letter_of(output.completion, thoughts=True, to_blank_line=True) for output in outputs[:6]} == {"B"}


def row(name: str, text: str, letter: str, truth: str = "C", **changes: Any) -> dict[str, Any]:
    whole = {
        "doc_id": 0,
        "target": "2",
        "input": "Which?\nA. red\nB. blue\n",
        "filtered_resps": text,
        "lvb_acc": {"id": name, "answer": truth, "parsed_pred": letter},
    }
    return {**whole, **changes}


def samples(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_an_output_has_lmms_evals_mark_and_the_whole_text(tmp_path: Path) -> None:
    thinking = row("a", "<answer>C</answer>", "C", resps=[THOUGHT])
    guessed, talking = row("b", "the third", "C"), row("c", "Based on it: C.", "B")
    path = samples(tmp_path, thinking, guessed, talking)
    first, second, third = read_samples(path, lambda texts: [len(text) for text in texts])
    assert (first.completion, first.tokens, first.parsed) == (THOUGHT, len(THOUGHT), "C")
    assert (first.correct, first.lenient, first.format, first.direct) == (True, True, True, False)
    assert (second.parsed, second.correct, second.lenient) == (None, True, True)  # a lucky draw counts, as published
    assert (third.parsed, third.correct, third.lenient) == ("B", False, True)
    check_total([first, second, third], {"results": {"t": {"lvb_acc,none": 0.66667, "alias": "t"}}}, "here")
    with pytest.raises(BadInput, match=r"total is .*0\.5.*3 items give 0\.66667"):
        check_total([first, second, third], {"results": {"t": {"lvb_acc,none": 0.5}}}, "here")
    with pytest.raises(BadInput, match="total is missing"):
        check_total([first], {"results": {}}, "here")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no items"),
        ([row("a", "C", "C"), row("a", "C", "C")], r"samples\.jsonl:2: item 'a' stands there twice"),
        ([row("a", "C", "D")], r"lmms-eval read 'D' out of 'C', r1mm knows its rule to give 'C'"),
        ([row("a", "C", "C", lvb_acc=1.0)], r"none of the metrics that r1mm can read item by item \(lvb_acc\)"),
        ([row("a", "C", "C", lvb_acc={"id": "a"})], r"lvb_acc has no text 'answer' \(found None\)"),
        ([row("a", "C", "C", resps=["C", "D"])], r"has no single output"),
        ([row("a", "C", "C", input=None)], r"has no text input"),
    ],
)
def test_what_is_no_samples_file(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_samples(samples(tmp_path, *rows))
