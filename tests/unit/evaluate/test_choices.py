import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.choices import letter_of_truth, parse_letter, parse_letter_leniently
from r1mm.evaluate.scoring import score, truth_of

READ = {
    # strict and lenient
    "<answer>B</answer>": ("B", "B"),
    "<answer>\n (C) </answer>": ("C", "C"),
    "<answer>B. the red one</answer>": ("B", "B"),
    "<answer>D: red</answer>": ("D", "D"),
    "<think>\nA man walks. Option C?\n</think>\n<answer>B.</answer>": ("B", "B"),
    "<answer>A</answer> or <answer>B</answer>": ("A", "A"),
    "B": ("B", "B"),
    "B.\nIt is red.": ("B", "B"),
    # lenient alone
    "<answer>option C</answer>": (None, "C"),
    "<answer>C red</answer>": (None, "C"),
    "<think>A or B</think> It is the red one. The answer is (D).": (None, "D"),
    "<answer>B</answ": (None, "B"),
    "I think that a man falls, so B": (None, "B"),
    # neither
    "<answer>A man in red</answer>": (None, None),
    "<answer>Blue</answer>": (None, None),
    "<answer>I do not know</answer>": (None, None),
    "<think>It is B": (None, None),
    "<answer>b</answer>": (None, None),
    "": (None, None),
}


@pytest.mark.parametrize("text", READ)
def test_the_letter_is_read(text: str) -> None:
    assert (parse_letter(text), parse_letter_leniently(text)) == READ[text]


def test_the_truth_is_one_letter() -> None:
    assert [letter_of_truth(text) for text in ("<answer>B.</answer>", " C ", "(A)", "B. red", "red", "b")] == [
        *("B", "C", None, None, None, None)
    ]
    with pytest.raises(BadInput, match=r"item 3: the truth 'red' is not the letter of an option, as in"):
        truth_of("choice", "red", "item 3")


def test_an_output_has_its_marks() -> None:
    thought = "<think>\nThe red one.\n</think>\n<answer>B.</answer>"
    output = score("choice", item="1", prompt="Which?", completion=thought, tokens=9, truth="B")
    assert (output.parsed, output.correct, output.lenient, output.format, output.direct) == (
        "B",
        True,
        True,
        True,
        False,
    )
    bare = score("choice", item="1", prompt="Which?", completion="<answer>C</answer>", tokens=3, truth="B")
    assert (bare.parsed, bare.correct, bare.lenient, bare.format, bare.direct) == ("C", False, False, False, True)
