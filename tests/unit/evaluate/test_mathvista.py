"""MathVista's answers: read by rules, compared as MathVista does."""

import pytest

from r1mm.evaluate import mathvista
from r1mm.evaluate.asked import Asked

CHOICE = Asked(kind="letter", options=("3/11", "8/11", "6/11", "3/5"))
WORDS = Asked(kind="letter", options=("shortage", "surplus"))
INTEGER, LIST = Asked(kind="integer"), Asked(kind="list")
ONE, TWO = Asked(kind="float", precision=1), Asked(kind="float", precision=2)


@pytest.mark.parametrize(
    ("asked", "text", "strict", "lenient"),
    [
        # The five examples that MathVista gives the language model that it has answers extracted by.
        (INTEGER, "The number missing in the sequence is 14.", "14", "14"),
        (ONE, "The fraction of females is 0.6, which means that six out of ten females face the camera.", "0.6", "0.6"),
        (TWO, "Luca needs $1.45 to buy a sour apple candy and a butterscotch candy.", "1.45", "1.45"),
        (LIST, "The line graph saw its maximum peak between 2007 and 2008.", None, "[2007, 2008]"),
        (CHOICE, "The correct answer is (B) 8/11.", "B", "B"),
        # Forms of the answer.
        (CHOICE, "<think>A, or C?</think>\n<answer>\nB\n</answer>", "B", "B"),
        (CHOICE, "<answer>8/11</answer>", "B", "B"),
        (CHOICE, "<answer>8 / 11.</answer>", "B", "B"),
        (CHOICE, "8/1 1", "B", "B"),  # no option: the nearest, as MathVista takes it
        (CHOICE, "A or B", None, "B"),
        (CHOICE, "It could be any of these, for nothing in the picture says how many there are of them.", None, None),
        (WORDS, "At a price of $790, there is a surplus of 1,300 units.", "B", "B"),
        (WORDS, "<answer>surpluss</answer>", "B", "B"),
        (INTEGER, "<answer> 1,234 cm^2</answer>", "1234", "1234"),
        (INTEGER, "6.7", "6", "6"),  # cut, as MathVista does
        (INTEGER, "There are two.", "2", "2"),
        (INTEGER, "5 + 6 = 11", "11", "11"),
        (INTEGER, "3 of 14", None, "14"),
        (INTEGER, "none", None, None),
        (INTEGER, "\u22125", "-5", "-5"),
        (INTEGER, "<think>14", None, None),
        (ONE, "\\boxed{1.25}", "1.2", "1.2"),
        (TWO, "1/3", "0.33", "0.33"),
        (TWO, "1/0", None, None),
        (LIST, "<answer>[1,2.5]</answer>", "[1, 2.5]", "[1, 2.5]"),
        (LIST, "[1, 2] or [2, 1]", None, "[1, 2, 2, 1]"),
        (Asked(kind="text"), "<answer> north </answer>", "north", "north"),
    ],
)
def test_what_is_read(asked: Asked, text: str, strict: str | None, lenient: str | None) -> None:
    assert mathvista.parse(asked, text) == strict
    assert mathvista.parse_leniently(asked, text) == lenient


@pytest.mark.parametrize(
    ("asked", "text", "truth", "strict", "lenient"),
    [
        (INTEGER, "14.0", "14", True, True),
        (ONE, "1.24", "1.2", True, True),
        (ONE, "1.3", "1.2", False, False),
        (TWO, "0.6", "0.60", False, True),  # MathVista compares texts
        (LIST, "[7,8]", "[7, 8]", True, True),
        (LIST, "7 and 8", "[7, 8]", False, True),
        (CHOICE, "D", "D", True, True),
        (Asked(kind="letter", options=("yes", "no", "yes")), "C", "A", True, True),  # the same option twice
        (Asked(kind="text"), "North", "north", False, True),
    ],
)
def test_what_is_right(asked: Asked, text: str, truth: str, strict: bool, lenient: bool) -> None:
    assert mathvista.is_right(asked, text, truth) == strict
    assert mathvista.is_right_leniently(asked, text, truth) == lenient


@pytest.mark.parametrize(("one", "other", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("a", "a", 0)])
def test_the_edit_distance(one: str, other: str, distance: int) -> None:
    assert mathvista.edit_distance(one, other) == mathvista.edit_distance(other, one) == distance


def test_an_answer_alone() -> None:
    assert all(mathvista.is_bare(asked, text) for asked, text in ((CHOICE, "(B)"), (ONE, "-1.5"), (LIST, "[1]")))
    assert not any(mathvista.is_bare(asked, text) for asked, text in ((CHOICE, "8/11"), (ONE, "1.5 m"), (LIST, "1")))


def test_what_no_item_can_ask_for() -> None:
    for broken in ({"kind": "letter"}, {"kind": "integer", "options": ("1", "2")}, {"kind": "date"}):
        with pytest.raises(ValueError, match="kind"):
            Asked.model_validate(broken)
    with pytest.raises(ValueError, match="27 options, and 26 letters"):
        Asked(kind="letter", options=("x",) * 27)
