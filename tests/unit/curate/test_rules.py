from pathlib import Path

import pytest

from r1mm.curate.pictures import Seen
from r1mm.curate.rules import RULES, Original, check, parts_of, upstream_keeps
from r1mm.endpoint.attached import PictureFile

GOOD = Seen(PictureFile(Path("a.png"), "0" * 64, "image/png"))
# As Geo170K and MathV360K put questions and answers.
CHOICE = Original(
    "First perform reasoning, then finally select the question from the choices in the following format: Answer: xxx.\n"
    "Question: Lines a and b are parallel. What is angle 2?\nChoices:\nA: 32°\nB: 68°\nC: 58°\nD: 34°",
    "Angle 2 is 90° - 32°, therefore it is 58°.\nAnswer: C",
)
COUNT = Original(
    "Hint: Please answer the question and provide the final answer at the end.\nQuestion: How many bars are there?",
    "The answer is 7",
)
PROBLEM = "Lines a and b are parallel; find angle 2.\nA: 32°\nB: 68°\nC: 58°\nD: 34°"


def wrote(problem: str, answer: str, thoughts: str = "90 - 32 = 58.") -> str:
    return f"<problem>{problem}</problem>\n<think>{thoughts}</think>\n<answer>{answer}</answer>"


def broken(response: str, original: Original, picture: Seen = GOOD) -> dict[str, str]:
    return check(parts_of(response), original, picture)


@pytest.mark.parametrize(
    ("response", "original"),
    [
        (wrote(PROBLEM, "C"), CHOICE),
        (wrote(PROBLEM, "(C) 58°", "So the answer is C."), CHOICE),
        (wrote(PROBLEM, "58 degrees"), CHOICE),
        (wrote("Find angle 2 in degrees.", "58"), CHOICE),  # without options its value is the answer
        (wrote("Find angle 2.\n(A) 58° (B) 68° (C) 32°", "A"), CHOICE),  # another order, another letter
        (wrote("Count the bars step by step.", "7", "Three and four: the answer is 7."), COUNT),
        (f"<think>What do they want?</think>\n{wrote('Count the bars.', '7')}\n", COUNT),
        (wrote("Is the bar longer?", "Yes"), Original("Is cyan above red?", "The answer is yes")),
        (wrote("Which one is it?", "B"), Original("Choose the option.", "The answer is B")),  # options in the picture
        (wrote("The share?", "0.5"), Original("Which fraction?", "The answer is 1/2")),
        (wrote("A bar has 7 parts; add none. How many?", "7"), Original("7 parts and 0?", "The answer is 7")),
    ],
)
def test_what_can_be_compared_and_is_right_passes(response: str, original: Original) -> None:
    assert broken(response, original) == {}


@pytest.mark.parametrize(
    ("rules", "response", "original", "words"),
    [
        # What upstream's published filter keeps, that asks for none of this.
        # Issue 9 of open-r1-multimodal: thoughts that come to C, and the answer A.
        ("differs thoughts-differ", wrote(PROBLEM, "A", "So the answer is C."), CHOICE, "A '32°' instead of C '58°'"),
        # Its second case: what was found is none of the choices.
        ("differs not-an-option", wrote(PROBLEM, "60°"), CHOICE, "'60°' is none of '32°', '68°'"),
        ("differs", wrote("Count the bars.", "8"), COUNT, "'8' instead of '7'"),
        ("options-lost", wrote("Find angle 2.", "C"), CHOICE, "answer C, and no options in the problem"),
        ("options-alike", wrote(PROBLEM.replace("34", "58.0"), "C"), CHOICE, "options C, D say the same"),
        ("thoughts-differ", wrote("Count the bars.", "7", "So the answer is 8."), COUNT, "thoughts state '8.'"),
        ("giveaway", wrote("The 7 bars are to be counted.", "7"), COUNT, "7 is in the problem"),
        ("answer-label", wrote("Count. **answer** :", "7"), COUNT, "'answer** :' in the problem"),
        (
            "unverifiable no-truth",
            wrote("Its shape?", "a cylinder"),
            Original("What is its shape?", "The answer is Cylindrical"),
            "free text: 'Cylindrical'",
        ),
        (
            "unverifiable no-truth",
            wrote("The roots?", "2 and 3"),
            Original("Solve it.", "The answer is x = 2 or x = 3"),
            "several answers",
        ),
        (
            "unverifiable",
            wrote("Find the angle.", "90°"),
            Original("Prove that the angle is right.", "It follows. The answer is 90°"),
            "asks for a proof",
        ),
        (
            "unverifiable",
            wrote("How many sides?", "3"),
            Original("Describe the picture.", "A triangle ABC.\nBeside it stands a circle."),
            "no answer is stated in",
        ),
        # What it does not.
        ("answer-label", wrote("Count. Answer: ?", "7"), COUNT, "'Answer:' in the problem"),
        ("empty", wrote("", "", ""), COUNT, "nothing in <problem>, <think>, <answer>"),
        ("form", "Question: Count.\nAnswer: 7", COUNT, "not one <problem>"),
        ("form", f"{wrote('Count.', '7')}\nThe picture shows bars.", COUNT, "nothing after them"),
        ("form", wrote("Count.", "7", "One <answer>6</answer> or"), COUNT, "not one <problem>"),
    ],
)
def test_a_broken_rule_is_named_with_what_was_seen(rules: str, response: str, original: Original, words: str) -> None:
    found = broken(response, original)
    assert " ".join(found) == rules
    assert words in " ".join(found.values())
    kept = upstream_keeps(parts_of(response), GOOD)
    assert kept == (rules not in ("empty", "form") and "Answer:" not in response.partition("</problem>")[0])


def test_a_picture_has_its_own_rules() -> None:
    small = GOOD._replace(fault="small-image", why="27 x 90")
    assert broken(wrote("Count.", "7"), COUNT, small) == {"small-image": "27 x 90"}
    assert list(broken("", Original("Describe it.", "So it is."), small)) == ["form", "small-image", "unverifiable"]
    assert not upstream_keeps(parts_of(wrote("Count.", "7")), small)
    assert set(RULES) >= {"image", "small-image"}


def test_a_solution_is_upstreams() -> None:
    parts = parts_of(wrote(" Count. ", " 7 ", "\nOne.\nTwo.\n"))
    assert parts is not None
    assert (parts.problem, parts.solution) == ("Count.", "<think>One.\nTwo.</think>\n\n<answer>7</answer>")
