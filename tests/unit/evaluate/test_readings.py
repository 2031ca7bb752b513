import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from r1mm.evaluate.readings import Reading, Unread, counts, question_of, read_output, readings_of
from r1mm.evaluate.recorded import read_recorded
from r1mm.evaluate.scoring import Output, Scorer, Truth, score

THINK = "{question} Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
DIRECT = "{question}\nAnswer with the option's letter from the given choices directly.\n"
QUESTIONS: dict[Scorer, str] = {
    "counting": "How many items are there?",
    "choice": "Which colour moves?\nA. red\nB. blue\nC. green\nD. no colour",
    "math": "Find angle 2.\nChoices:\nA: 30°\nB: 40°",
}
TRUTHS: dict[Scorer, Truth] = {"counting": 3, "choice": "B", "math": "40°"}


def reading(scorer: Scorer, completion: str, template: str = THINK, item: str = "a") -> Reading:
    return read_output(scorer, output(scorer, completion, template, item), template)


def output(scorer: Scorer, completion: str, template: str = THINK, item: str = "a") -> Output:
    prompt = template.format(question=QUESTIONS[scorer])
    return score(scorer, item=item, prompt=prompt, completion=completion, tokens=3, truth=TRUTHS[scorer])


@pytest.mark.parametrize(
    ("scorer", "completion", "parseable", "right", "forced", "forced_right"),
    [
        ("counting", "<think>\na\n</think>\n<answer> 3 </answer>", True, True, "tag", True),
        ("counting", "<answer>4</answer>", True, False, "tag", False),
        ("counting", "<think>a</think><answer>There are 3 items.</answer>", False, False, "tag", True),
        ("counting", "<think>a</think><answer>C. 3</answer>", False, False, "tag", True),
        ("counting", "<think>a</think><answer>3", False, False, "open tag", True),
        ("counting", "<think>a</think> The answer is three.", False, False, "statement", True),
        ("counting", "3", False, False, "bare", True),  # the prompt asks for the tag
        ("counting", "One is red.\nSo I see 2 and 1, together 3", False, False, "last words", True),
        ("counting", "<answer> </answer>\nSo there are 3", False, False, "bare", True),
        ("counting", "<think>1, 2, 3", False, False, None, False),
        ("counting", "<think>3</think>", False, False, None, False),
        ("counting", "<answer>3</answer><answer>4</answer>", False, False, "tag", False),
        ("choice", "<think>a</think><answer>B. blue</answer>", True, True, "tag", True),
        ("choice", "<think>a</think><answer>C</answer>", True, False, "tag", False),
        ("choice", "<think>a</think><answer>blue</answer>", False, False, "tag", True),
        ("choice", "<think>a</think><answer>(B) red</answer>", False, False, "tag", False),  # contradicts itself
        ("choice", "<think>a</think><answer>A or B</answer>", False, False, "tag", False),
        ("choice", "<think>a</think>I am sure.\nIt must be option B here", False, False, "last words", True),
        ("choice", "<think>a</think>I am sure.\nNothing is said.", False, False, None, False),
        ("math", "<think>a</think><answer>40°</answer>", True, True, "tag", True),
        ("math", "<think>a</think><answer>(B)</answer>", True, True, "tag", True),
        ("math", "<think>a</think><answer>30°</answer>", True, False, "tag", False),
        ("math", "<think>a</think><answer>The angle is 40 degrees.</answer>", True, True, "tag", True),  # the option's
        ("math", "First 140.\nThen that leaves some 40°", False, False, "last words", True),
        ("math", "<think>a</think><answer>unknown</answer>", False, False, None, False),
    ],
)  # fmt: skip
def test_outputs_read_both_ways(
    scorer: Scorer, completion: str, parseable: bool, right: bool, forced: str | None, forced_right: bool
) -> None:
    assert reading(scorer, completion) == Reading("a", parseable, right, forced, forced_right)


def test_where_no_tag_is_asked_for_a_bare_answer_is_in_form() -> None:
    assert reading("choice", "B", DIRECT) == Reading("a", True, True, "bare", True)
    assert reading("choice", "B. blue", DIRECT) == Reading("a", True, True, "bare", True)
    assert reading("choice", "<answer>B</answer>", DIRECT) == Reading("a", True, True, "tag", True)
    assert reading("choice", "The answer is B.", DIRECT) == Reading("a", False, False, "statement", True)


def test_the_question_is_told_from_the_instructions() -> None:
    assert question_of(THINK.format(question="x = ? {5}"), THINK) == "x = ? {5}"
    assert question_of("another prompt", THINK) == "another prompt"
    assert question_of("another prompt", None) == "another prompt"
    assert question_of("ab", "a{question}ab") == "ab"  # too short to have both
    # Else the last option would be "no colour Output the thinking process ...", and its text no option's.
    said = "<think>a</think><answer>no colour</answer>"
    assert reading("choice", said).forced == "tag"
    assert read_output("choice", output("choice", said)).forced is None


def test_another_reader_is_asked_about_outputs_without_an_answer_alone() -> None:
    texts = {
        "a": "<think>a</think><answer>B</answer>",
        "b": "<think>a</think>The sky's colour moves.",
        "c": "<think>a</think>No idea.",
        "d": "<think>a</think>Grass moves.",
    }
    asked: list[Unread] = []

    def reader(unread: Sequence[Unread]) -> Mapping[str, str]:
        asked.extend(unread)
        return {"b": "blue", "d": "C"}  # as a person reads them

    outputs = [output("choice", text, item=item) for item, text in texts.items()]
    found = readings_of("choice", outputs, THINK, reader)
    assert [one.item for one in asked] == ["b", "c", "d"]
    assert asked[0] == Unread("b", QUESTIONS["choice"], texts["b"])
    assert [(one.parseable, one.forced, one.forced_right) for one in found] == [
        *((True, "tag", True), (False, "asked", True), (False, None, False), (False, "asked", False))
    ]
    assert readings_of("choice", outputs, THINK)[1:] == [Reading(item, False, False, None, False) for item in "bcd"]


def test_counts() -> None:
    texts = ["<answer>3</answer>", "<answer>4</answer>", "The answer is 3.", "<think>"]
    assert counts([reading("counting", text) for text in texts]) == {
        "parseable": 2,
        "parseable_right": 1,
        "found_by_force": 3,
        "right_by_force": 2,
    }


def test_recorded_outputs_keep_their_accuracy_in_form() -> None:
    # For counting the form is upstream's own rule.
    path = Path(__file__).parent / "samples" / "counting.json"
    outputs = read_recorded(path, "counting").outputs
    found = readings_of("counting", outputs)
    assert len(outputs) == len(json.loads(path.read_text())["results"])
    assert [one.right for one in found] == [one.correct for one in outputs]
    unlike = [o for o, one in zip(outputs, found, strict=True) if one.parseable != (o.parsed is not None)]
    assert [one.completion.count("</answer>") for one in unlike] == [2]  # tags that disagree
    assert all(one.forced_right >= one.right for one in found)
