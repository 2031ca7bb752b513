import random

import pytest

from r1mm.answers.judging import LETTERS, Truth, interpret, judge_completion, truth_of
from r1mm.errors import BadInput

ANGLE = "Find angle 2.\nChoices:\nA: 30°\nB: 40°\nC: 50°\nD: 140°"
SHAPE = "What is it? (A) isosceles triangle (B) right triangle (C) equilateral triangle (D) triangle"
OPEN = "Find angle 2."


def verdict(problem: str, truth: str, answer: str) -> tuple[bool, str]:
    return judge_completion(f"<think>a</think>\n<answer>{answer}</answer>", f"<answer>{truth}</answer>", problem)


def each(texts: str) -> list[str]:
    return texts.split(" | ")


LETTERS_RIGHT = [
    *each(
        "B | b | (B) | [B] | (b) | B. | B: | (B | 'B' | **B** | \uff22 | \\text{B} | $B$ | Option B | option b | b) 40°"
    ),
    *each("Choice B: 40° | B. 40° | (B)40° | B 40° | B (40°) | 40° (B) | 40°, i.e. option B | 40° \u2014 option B"),
    *each(
        "angle 2 = 40°, so the answer is B | I think it's B | Therefore B | B is correct | B because of the parallels"
    ),
    *each("B, not A | The answer is (B) 40°. | \\boxed{B: 40^\\circ} | \u9009B | Answer: B"),
]
VALUES_RIGHT = [
    *each("40 | 40° | 40 degrees | $40^{\\circ}$ | \u22202 = 180° \u2212 140° = 40° | \u2248 40° | 40.0° | 2π/9"),
    *each("Angle 2 is equal to 40°. | It measures 40°, not 50°."),
]


@pytest.mark.parametrize("truth", ["B", "(B)", "B. 40°", "40°", "The answer is B"])
@pytest.mark.parametrize(("answers", "by"), [(LETTERS_RIGHT, "letter"), (VALUES_RIGHT, "value")])
def test_right_by_letter_and_by_value(truth: str, answers: list[str], by: str) -> None:
    assert {answer: verdict(ANGLE, truth, answer) for answer in answers} == dict.fromkeys(answers, (True, by))


@pytest.mark.parametrize(
    ("answers", "by"),
    [
        (each("A | 50° | 45 | Not B | It is not 40° | It can't be 40° | 4 | -40° | ABCD | 400 | ?"), "another answer"),
        (each("A or B | B or C | A/B | A, B | both A and B | It is either A or B. | (A) or (B)"), "two answers"),
        (each("B. 50° | A. 40° | a) 40° | 40° (C) | B. 45° | Option B: 140 degrees"), "contradiction"),
        (["", " ", "$ $"], "no answer"),
    ],
)
def test_wrong_and_why(answers: list[str], by: str) -> None:
    assert {answer: verdict(ANGLE, "B", answer) for answer in answers} == dict.fromkeys(answers, (False, by))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("equilateral triangle", True),
        ("It is an equilateral triangle.", True),
        ("The triangle is equilateral.", True),
        ("C. equilateral triangle", True),
        ("(C) right triangle", False),
        ("isosceles triangle", False),
        ("a right triangle or an equilateral triangle", False),
        ("It is not equilateral", False),
        ("triangle", False),
    ],
)
def test_by_an_options_text(answer: str, right: bool) -> None:
    assert verdict(SHAPE, "C", answer)[0] is right


def test_options_that_only_the_picture_shows() -> None:
    assert verdict(OPEN, "B", "B") == (True, "letter")
    assert verdict(OPEN, "B", "Figure B") == (True, "letter")
    assert verdict(OPEN, "B", "B. 40°") == (True, "letter")
    assert verdict(OPEN, "B", "C") == (False, "another answer")
    assert verdict(OPEN, "B", "40°") == (False, "another answer")
    assert verdict(OPEN, "B. 40°", "40°") == (True, "value")
    assert verdict(OPEN, "B. 40°", "B. 50°") == (False, "contradiction")


def test_without_options() -> None:
    assert verdict(OPEN, "40°", "The angle has 40 degrees.") == (True, "value")
    assert verdict(OPEN, "40°", "C. 40°") == (True, "value")  # of options that are not known
    assert verdict(OPEN, "40°", "3 (cm) or so") == (False, "another answer")
    assert verdict(OPEN, "0.25", "0.25 (25%)") == (True, "value")
    assert verdict(OPEN, "5/13", "5/13 ≈ 0.385") == (True, "value")
    assert verdict(OPEN, "140°", "40° or 140°") == (False, "two answers")
    assert verdict(OPEN, "140°", "Angle 1 is 40 and angle 2 is 140") == (True, "value")  # after the last verb
    assert verdict(OPEN, "140°", "One has 40 degrees and one 140") == (False, "another answer")
    assert verdict(OPEN, "Yes", "yes, it is") == (True, "text")
    assert verdict(OPEN, "Yes", "yes and no") == (False, "another answer")
    assert verdict(OPEN, "No", "No, it is not") == (True, "text")


def test_options_that_are_values_are_not_found_as_words() -> None:
    lengths = "How long? (A) 3 cm (B) 4 cm (C) 5 cm (D) 6 cm"
    assert verdict(lengths, "C", "5 cm") == (True, "value")
    assert verdict(lengths, "C", "two cm and 5 more cm and 9 cm") == (False, "another answer")
    assert verdict(lengths, "C", "It cannot be 5 cm") == (False, "another answer")


def test_signs_and_remarks() -> None:
    sides = "Which is right? (A) AB = CD (B) AB > CD"
    assert verdict(sides, "A", "AB=CD") == (True, "text")
    assert verdict(sides, "A", "AB>CD") == (False, "another answer")
    assert verdict(ANGLE, "B", "B: 40° (180° - 140°)") == (True, "letter")
    assert verdict(ANGLE, "B", "B: 30° (210° - 180°)") == (False, "contradiction")
    assert verdict(OPEN, "0.001", "1e-3") == (True, "value")


def test_a_truth_of_several_letters_is_taken_as_it_is() -> None:
    assert verdict(ANGLE, "A and C", "A and C") == (True, "text")
    assert verdict(ANGLE, "A and C", "A and B") == (False, "two answers")
    assert verdict(ANGLE, "A and C", "A") == (False, "another answer")
    parts = "(a) Find x. (b) Find y."  # no options, but in their form
    assert verdict(parts, "(a) 5, (b) 6", "(a) 5, (b) 6") == (True, "text")


def test_every_tag_has_to_be_right() -> None:
    def of_tags(*answers: str) -> tuple[bool, str]:
        text = "".join(f"<answer>{answer}</answer>" for answer in answers)
        return judge_completion(text, "B", ANGLE)

    assert of_tags("B", "40°") == (True, "letter")
    assert of_tags("A", "B") == (False, "two answers")
    assert of_tags("A", "C") == (False, "another answer")


def test_truths() -> None:
    assert truth_of("<think>x</think>\n\n<answer>B</answer>", ANGLE) == Truth("B", "40°")
    assert truth_of("40 degrees", ANGLE) == Truth("B", "40°")
    assert truth_of("B. 50°", ANGLE) == Truth("B", None)  # a wrong row: its letter is what is compared
    assert truth_of("60°", ANGLE) == Truth(None, "60°")  # none of the options
    assert truth_of("B", OPEN) == Truth("B", None)
    assert truth_of("x", OPEN) == Truth(None, "x")
    assert truth_of("Sheffield", OPEN) == Truth(None, "Sheffield")
    for empty in ("", "<answer> </answer>"):
        with pytest.raises(BadInput, match="holds no answer; correct the dataset"):
            truth_of(empty, ANGLE)


def test_what_a_policy_samples_never_ends_a_run() -> None:
    chance = random.Random(0)
    pieces = [
        "B",
        "(",
        ")",
        "\\boxed{",
        "}",
        "$",
        "40",
        "°",
        " or ",
        "\n",
        "<answer>",
        "</answer>",
        "\\frac{1}",
        "²",
        "٣",
    ]
    pieces += [
        "</think>",
        "<think>",
        "=",
        "≈",
        "%",
        "\\",
        "^",
        "{",
        "the answer is ",
        "not ",
        "√",
        ",",
        ".",
        "½",
        "\ud800",
    ]
    for _ in range(300):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 12)))
        for problem in (ANGLE, OPEN):
            assert judge_completion(text, "40°", problem).by
    assert interpret("B", {}, LETTERS).letter == "B"
