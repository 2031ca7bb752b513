"""The scorer `answer`: what an item asks for, and its marks, which are those of the readings that take a gain apart."""

import json
from pathlib import Path

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.answered import asked_and_truth
from r1mm.evaluate.asked import Asked
from r1mm.evaluate.readings import read_output
from r1mm.evaluate.recorded import score_recorded
from r1mm.evaluate.scoring import Output, rescored, score, summary
from r1mm.evaluate.scoring import asked_and_truth as of_item
from r1mm.evaluate.tasks import KnownTask

THINK = "{question}\nOutput the thinking process in <think> </think> and final answer in <answer> </answer> tags."
BARS = "Which bar is the highest?\nA. the first\nB. the second\nC. the third"
ANGLE = "What is the size of the angle?"
# What is asked, with its solution as the dataset writes it.
ITEMS = {
    "letter": (BARS, "<think>It is the second.</think>\n\n<answer>B</answer>"),
    "degrees": (ANGLE, "<answer>120°</answer>"),
    "fraction": ("What fraction is shaded?", "<think>Of 6 parts 2.</think>\n\n<answer> 1/3 </answer>"),
    "number": ("How many cells?", "<answer>12</answer>"),
    "word": ("What triangle is it?", "<answer>isosceles</answer>"),
    "letter in the picture": ("Which of them?", "<answer>C</answer>"),
}


def made(item: str, completion: str) -> Output:
    problem, solution = ITEMS[item]
    asked, truth = of_item("answer", problem, solution, "here")
    prompt = THINK.format(question=problem)
    return score("answer", item=item, prompt=prompt, completion=completion, tokens=3, truth=truth, asked=asked)


def test_an_item_asks_for_what_its_truth_is() -> None:
    options = ("the first", "the second", "the third")
    assert asked_and_truth(*ITEMS["letter"], "here") == (Asked(kind="letter", options=options), "B")
    assert asked_and_truth(BARS, "<answer>the second</answer>", "here") == (Asked(kind="letter", options=options), "B")
    for item, truth in (("degrees", "120°"), ("fraction", "1/3"), ("number", "12")):
        assert asked_and_truth(*ITEMS[item], "here") == (Asked(kind="value"), truth)
    # Where the picture holds the options, a letter is all there is.
    assert asked_and_truth("Which of them?", "<answer>C</answer>", "here") == (Asked(kind="text"), "C")
    with pytest.raises(BadInput, match="here: the solution ' ' holds no answer"):
        of_item("answer", ANGLE, " ", "here")
    with pytest.raises(
        BadInput, match="here: the truth '<think>ab</think>' would itself not be read as one right answ"
    ):
        of_item("answer", ANGLE, "<think>ab</think>", "here")


@pytest.mark.parametrize(
    ("item", "completion", "parsed", "correct", "lenient"),
    [
        ("letter", "<think>\na\n</think>\n<answer>B</answer>", "B", True, True),
        ("letter", "<answer>B. the second</answer>", "B", True, True),
        ("letter", "<answer>C</answer>", "C", False, False),
        ("letter", "<answer>the second</answer>", "B", True, True),  # as the reward `answer` has it
        ("letter", "<answer>It must be the second, I think, or so.</answer>", "B", True, True),
        ("letter", "<answer>B. the third</answer>", None, False, False),  # contradicts itself
        ("letter", "<think>\na\n</think>\nThe answer is B.", None, False, True),
        ("degrees", "<think>a</think><answer>120°</answer>", "120°", True, True),
        ("degrees", "<answer>120</answer>", "120", True, True),
        ("degrees", "<answer>60°</answer>", "60°", False, False),
        ("degrees", "<think>\na\n</think>\nThe answer is 120°.", None, False, True),
        ("degrees", "<think>\nThe rays open to 120°.", None, False, False),  # thoughts are no answer
        ("fraction", "<answer>2/6</answer>", "2/6", True, True),
        ("fraction", "<answer>1/2</answer>", "1/2", False, False),
        ("fraction", "<answer>1/3</answer><answer>1/2</answer>", None, False, False),
        ("number", "<answer>12", None, False, True),
        ("number", "12", None, False, True),  # the prompt asks for the tag
        ("number", "<answer>There are 12 of them.</answer>", None, False, True),  # more than a value
        ("word", "<answer>Isosceles</answer>", "Isosceles", True, True),
        ("word", "<answer>equilateral</answer>", "equilateral", False, False),
        ("letter in the picture", "<answer>C</answer>", "C", True, True),
        ("letter in the picture", "<answer>D</answer>", "D", False, False),
        ("letter in the picture", "<think>\na\n</think>\nThe answer is (C).", None, False, True),
    ],
)
def test_marks(item: str, completion: str, parsed: str | None, correct: bool, lenient: bool) -> None:
    found = made(item, completion)
    assert (found.parsed, found.correct, found.lenient) == (parsed, correct, lenient)
    # The marks that claims rest on are the readings that a page shows.
    reading = read_output("answer", found, THINK)
    assert (reading.parseable, reading.right, reading.forced_right) == (parsed is not None, correct, lenient)


def test_a_written_output_is_scored_again_without_its_item() -> None:
    outputs = [made("letter", "<answer>B</answer>"), made("fraction", "<think>\na\n</think>\nThe answer is 1/3.")]
    again = [rescored("answer", Output.model_validate_json(one.model_dump_json()), "here") for one in outputs]
    assert again == outputs
    assert summary("answer", outputs) == {
        **{"n": 2, "right": 1, "accuracy": 50.0, "unparsed": 1, "lenient_right": 2, "lenient_accuracy": 100.0},
        **{"recovered": 1, "format": 0, "bare": 1},
    }
    with pytest.raises(BadInput, match="the scorer answer needs of each output what was asked for"):
        rescored("answer", outputs[0].model_copy(update={"asked": None}), "here")


def test_recorded_outputs_are_held_against_a_prompts_file(tmp_path: Path) -> None:
    outputs = [made(item, f"<answer>{truth}</answer>") for item, truth in (("letter", "B"), ("fraction", "1/2"))]
    lines = [one.model_dump_json() for one in outputs]
    rows = [
        {"image_path": f"{item}.png", "question": ITEMS[item][0], "ground_truth": ITEMS[item][1]}
        for item in ("letter", "fraction")
    ]
    path, prompts, theirs = tmp_path / "o.jsonl", tmp_path / "p.jsonl", tmp_path / "r1v.json"
    path.write_text("\n".join(lines) + "\n")
    prompts.write_text("\n".join(map(json.dumps, rows)) + "\n")
    task = KnownTask("mixed", "answer", 2, None)
    found = score_recorded(path, task, prompts)
    assert (found["right"], found["unparsed"], found["parseable_right"]) == (1, 0, 1)
    # The JSON of R1-V's scripts says what was asked, so that it can be read by these rules too.
    said = [{"question": row, "model_output": one.completion} for row, one in zip(rows, outputs, strict=True)]
    theirs.write_text(json.dumps(said))
    assert score_recorded(theirs, task, prompts)["right"] == 1
    rows[1]["ground_truth"] = "<answer>2/3</answer>"
    prompts.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(BadInput, match="item 'fraction' has the truth '1/3', the prompts file '2/3'"):
        score_recorded(path, task, prompts)
