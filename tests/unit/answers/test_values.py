import pytest

from r1mm.answers.values import plain, same_value, split_unit, value_of


@pytest.mark.parametrize(
    "pairs",
    [
        "40 = 40° | 40 degrees = 40^\\circ | 22°30' = 22.5° | π/3 = 60° | 60° = \\frac{\\pi}{3} rad | sin 30° = 1/2",
        "300 cm = 3 m | 12 cm^2 = 12cm² | 12 square centimeters = 12 cm^{2} | 5cm^2^ = 5 cm² | 36 km/h = 10 m/s",
        "2√(15)米 = 2\\sqrt{15} m | 16π平方米 = 16\\pi | 20海里 = 20 nautical miles | (√{3}+1)小时 = \\sqrt3+1 hours",
        "1,234 = 1234 | $1{,}234$ = 1234 | 12 500 = 12500 | 12 items = 12 | five = 5 | about 12.5 cm = 12.5",
        "1/2 = 0.5 | \\frac{12}{5} = 2.4 | 22½ = 22.5 | 2 1/2 = 2.5 | 2\\frac{1}{2} = 2.5 | 1 in 4 = 25%",
        "\u22125 = -5 | minus 5 = -5 | \u0664\u0662 = 42 | \uff15 = 5 | 40% = 0.4 | 40\\% = 40 | 10:4 = 5 to 2",
        "√{3} = \\sqrt{3} | 8√{3} = 8\\sqrt3 | 6*sqrt(3) = 6√3 | 2 pi = 2π | \\tan 60^\\circ = √3",
        "\\boxed{\\frac{3}{4}} = 0.75 | 2, 3 = 3 and 2 | [1,5) = 1 ≤ x < 5 | P(2, 3) = (2,3) | 3 or -3 = ±3",
        "6√3 = 10.39 | 5/13 = 0.385",  # truths that were rounded
    ],
)
def test_equal(pairs: str) -> None:
    for given, truth in (pair.split(" = ") for pair in pairs.split(" | ")):
        assert same_value(given, truth), (given, truth)


def test_a_name_before_an_equal_sign_is_none_of_the_value() -> None:
    assert same_value("x = 5", "5")
    assert same_value("\u2220CED = 180° - 40° = 140°", "140°")
    assert same_value("x=3 or x=-3", "±3")
    assert same_value("y = 2x + 1", "y=1+2x")
    assert same_value("2x+1", "y=2x+1")


@pytest.mark.parametrize(
    "pairs",
    [
        "5 = -5 | 3 m = 3cm | 12 cm^2 = 12 cm | 140 cm = 140° | 2:5 = 5:2 | (3, 2) = (2, 3) | (1, 5] = [1, 5)",
        "10.39 = 6√3 | 0.33 = 1/3 | 0.333 = 1/3 | 0.9 = 1",  # rounded answers to exact truths
        "5 or 6 = 5 | 3, 4, 5 = 5 | 3 = -3, 3",
        "the triangle has sides 3, 4 and 5 = 5 | B. 40 = 40 | b) 40 = 40 | B = 5",  # prose, marks and names
        "0/0 = 0 | \\frac{1}{0} = 0 | {{{ = 1 | \\sqrt{ = 1",  # nothing that could be worked out
    ],
)
def test_not_equal(pairs: str) -> None:
    for given, truth in (pair.split(" = ") for pair in pairs.split(" | ")):
        assert not same_value(given, truth), (given, truth)


def test_nothing_is_equal_to_nothing() -> None:
    assert not same_value("", "")
    assert not same_value("", "5")
    assert not same_value("5", "")


def test_one_writing() -> None:
    assert plain("\\boxed{\\text{B}}") == "B"
    assert plain("**\uff22** \uff12\uff15°") == "B 25°"
    assert plain("$5²$ and $\\left(1{,}000\\right)$") == "5^{2} and (1000 )"
    assert plain("\\boxed{\\frac{1}{2}} or \\boxed{\\frac{1}{3}}") == "\\frac{1}{3}"  # the last


def test_a_unit_is_told_from_a_factor() -> None:
    assert split_unit("4πcm")[0] == "4\\pi"
    assert split_unit("4πcm")[1].kind == "length 1"
    assert split_unit("5 items")[1].kind == ""
    assert split_unit("12 h")[1].kind == "time"
    assert split_unit("12h")[1].kind == ""  # a height, twelve times
    assert value_of("1" * 300) is None  # no dataset's answer
    assert value_of("isosceles triangle") is None
    assert value_of("x") is None  # a name
    assert value_of("2x") == ("2x", split_unit("2x")[1])
