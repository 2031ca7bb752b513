import pytest

from r1mm.evaluate.expressions import (
    expression_of_truth,
    is_bare_answer,
    is_right,
    is_right_leniently,
    parse_expression,
    parse_expression_leniently,
)


@pytest.mark.parametrize(
    ("output", "truth", "strict", "lenient"),
    [
        ("So the angle is 140 degrees. <answer>140°</answer>", "140°", True, True),
        ("<answer>140</answer>", "140°", False, True),  # a number that touches a tag is not seen
        ("<answer> 140 </answer>", "140°", True, True),
        ("<answer>$\\frac{12}{5}$</answer>", "\\frac{12}{5}", True, True),
        ("The ratio is 2.4", "\\frac{12}{5}", True, True),
        ("It is 3 or perhaps 4", "4", True, True),  # the last number
        ("It is 4 or perhaps 3", "4", False, False),
        ("First 5, then 6. <answer>5</answer>", "5", False, True),  # strict reads the 6
        ("First 5, then 6. <answer>5</answer>", "6", True, True),  # what is right strictly is right leniently
        ("<answer>5 or 6", "6", True, True),  # cut within its answer
        ("I cannot tell.", "4", False, False),
        ("", "4", False, False),
        ("The height is $\\sqrt{3}$", "√{3}", False, False),  # a truth that math-verify does not read
        ("The area is 8", "8√{3}", True, True),  # and one of which it reads the first number only
    ],
)
def test_upstreams_rule_and_the_lenient_one(output: str, truth: str, strict: bool, lenient: bool) -> None:
    assert (is_right(output, truth), is_right_leniently(output, truth)) == (strict, lenient)


def test_what_was_read() -> None:
    assert parse_expression("It is 140 degrees") == "140"
    assert (parse_expression("<answer>140</answer>"), parse_expression_leniently("<answer>140</answer>")) == (
        None,
        "140",
    )
    assert parse_expression("none") is None


def test_bare_answers_and_truths() -> None:
    assert is_bare_answer("<answer>140°</answer>\n")
    assert not is_bare_answer("<think>x</think><answer>140°</answer>")
    assert not is_bare_answer("<answer>1</answer><answer>2</answer>")
    assert [expression_of_truth(text) for text in ("<answer> 140° </answer>", " 3cm", "")] == ["140°", "3cm", None]
