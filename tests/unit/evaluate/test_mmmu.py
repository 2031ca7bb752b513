"""MMMU's answers by MMMU's rules; tests/recipes/test_lmms.py holds the rules against lmms-eval's own."""

import pytest

from r1mm.evaluate import mmmu
from r1mm.evaluate.asked import Asked

CHOICE = Asked(kind="letter", options=("a red house", "a blue car", "4", "neither of both"))
OPEN = Asked(kind="text")


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("B", "B", "B"),
        ("The answer is (B), not (A)", "A", "A"),  # the last in brackets, as MMMU has it
        ("A or B", "B", "B"),
        ("<think>It is A.</think>\n<answer>C</answer>", "C", "C"),
        ("<think>It is A.</think> D", "D", "D"),
        ("<think>It is A", "A", "A"),  # MMMU's rule looks at thoughts that never end
        ("I can see a blue car and nothing else", "B", "B"),
        ("<answer> 4 </answer>", None, "C"),  # an option's words alone count only among more than five
        ("**B**", None, "B"),
        ("E", None, None),
        ("", None, None),
    ],
)
def test_a_letter(text: str, strict: str | None, lenient: str | None) -> None:
    assert mmmu.parse(CHOICE, text) == strict
    assert mmmu.parse_leniently(CHOICE, text) == lenient
    assert mmmu.is_right(CHOICE, text, "B") == (strict == "B")
    assert mmmu.is_right_leniently(CHOICE, text, "B") == (lenient == "B")


@pytest.mark.parametrize(
    ("text", "truth", "strict", "lenient"),
    [
        ("62.6", "62.6", True, True),
        ("The power is 62.60 W.", "62.6", True, True),
        ("<think>7</think><answer>1,000 m</answer>", "1000", True, True),
        ("<think>1000</think><answer>7</answer>", "1000", False, False),
        ("It is in tampa, near the bay", "['Tampa', 'Florida']", True, True),
        ("the answer is 0.2857", "0.286", True, True),  # both are rounded to two places
        ("the answer is 0.27", "0.286", False, False),
        ("x", "x", True, True),
        ("a fox", "x", False, False),  # a single letter counts where it stands alone
        ("1/4", "0.25", False, True),
        ("", "7", False, False),
        ("<answer></answer>", "", False, False),
    ],
)
def test_an_open_answer(text: str, truth: str, strict: bool, lenient: bool) -> None:
    assert mmmu.is_right(OPEN, text, truth) == strict
    assert mmmu.is_right_leniently(OPEN, text, truth) == lenient


def test_an_answer_alone() -> None:
    assert all(mmmu.is_bare(CHOICE, text) for text in ("B", "(B).", " <answer>anything</answer> "))
    assert not any(mmmu.is_bare(CHOICE, text) for text in ("B: blue", "<think></think><answer>B</answer>", ""))
    assert mmmu.is_bare(OPEN, "two words")
    assert not mmmu.is_bare(OPEN, "two\nlines")
