"""Whether two texts say the same value: numbers, expressions, quantities with units, sets, intervals, or words.

math-verify does the mathematics.  What stands here brings what models and datasets write into the form that it reads
well (an expression of LaTeX and nothing else), keeps units apart, and keeps prose away from it: it would pick a number
out of any sentence.
"""

import functools
import re
import unicodedata
from typing import Any, NamedTuple

from math_verify import parse, verify

NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)

# Of lengths the number of metres, of times that of seconds, of masses of grams, of angles of degrees.
_LENGTHS = {
    "mm": 0.001, "millimeter": 0.001, "millimetre": 0.001, "毫米": 0.001, "cm": 0.01, "centimeter": 0.01,
    "centimetre": 0.01, "厘米": 0.01, "dm": 0.1, "m": 1.0, "meter": 1.0, "metre": 1.0, "米": 1.0, "km": 1000.0,
    "kilometer": 1000.0, "kilometre": 1000.0, "千米": 1000.0, "in": 0.0254, "inch": 0.0254, "inche": 0.0254,
    "ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "yd": 0.9144, "yard": 0.9144, "mile": 1609.344,
    "nautical mile": 1852.0, "海里": 1852.0,
}  # fmt: skip
_OTHERS = {
    "angle": {"degree": 1.0, "deg": 1.0, "度": 1.0},
    "time": {
        "s": 1.0, "sec": 1.0, "second": 1.0, "秒": 1.0, "min": 60.0, "minute": 60.0, "分钟": 60.0, "h": 3600.0,
        "hr": 3600.0, "hour": 3600.0, "小时": 3600.0,
    },
    "mass": {"g": 1.0, "gram": 1.0, "kg": 1000.0, "kilogram": 1000.0},
}  # fmt: skip
_RADIAN = "180/\\pi"  # degrees


class Unit(NamedTuple):
    """What a unit measures, and how many of the base unit it is, as an expression; `kind` "" for any other words."""

    kind: str
    factor: str


_NO_UNIT = Unit("", "1")

_CHARACTERS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\ufe63": "-", "\u00d7": "\\times ", "\u22c5": "\\cdot ", "\u00b7": "\\cdot ",
        "\u00f7": "/", "\u2215": "/", "\u2044": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u2264": "\\le ",
        "\u2265": "\\ge ", "\u00b1": "\\pm ", "\u00ba": "\u00b0", "\u2103": "\u00b0", "\uff08": "(", "\uff09": ")",
        "\uff0c": ",", "\uff1a": ":", "\uff0e": ".", "\u3002": ".", "\uff1d": "=", "\uff0b": "+", "\uff05": "%",
        "\u2032": "'", "\u2019": "'", "\u2033": '"', "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2248": "\\approx ",
        "\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u2153": " 1/3", "\u2154": " 2/3",
    }
)  # fmt: skip
_SUPERSCRIPTS = {"\u00b2": "2", "\u00b3": "3", "\u00b9": "1", "\u2070": "0"} | {
    chr(0x2070 + n): str(n) for n in range(4, 10)
}
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname|mbox|rm|bf)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HEDGE = re.compile(
    r"^(?:about|approximately|approx\.?|roughly|around|nearly|exactly|precisely|only|just|simply|equal to|"
    r"\\approx|~|=|:|the|a|an)(?:\s+|(?<=[~=:])|$)",
    re.IGNORECASE,
)
_FUNCTIONS = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "exp", "sqrt", "pi", "frac"),
    *("dfrac", "tfrac", "times", "cdot", "infty", "circ", "pm", "le", "leq", "ge", "geq", "approx", "left", "right"),
    *("cup", "cap", "in", "div", "degree", "theta", "alpha", "beta", "gamma", "angle", "min", "max"),
}
_WORD = re.compile(r"[^\W\d_]{2,}")
_SQUARE = re.compile(r"^(?:square|sq\.?|\u5e73\u65b9)\s*(?=\S)|(?:\s*squared|\^\{?2\}?\^?)$", re.IGNORECASE)
_CUBIC = re.compile(r"^(?:cubic|cu\.?|\u7acb\u65b9)\s*(?=\S)|(?:\s*cubed|\^\{?3\}?\^?)$", re.IGNORECASE)
_COUNTED = re.compile(  # 12 square units, 5 different items: a number and one to three words
    r"^(?P<value>.*[\d})])\s*(?P<unit>[^\W\d_]+\.?(?:\s+[^\W\d_]+){0,2})(?:\^\{?[23]\}?)?$", re.DOTALL
)
# An option's mark before its text: `B. 40` is no product of B and 40.
_MARK = re.compile(r"[(\[]?(?:[A-J][.:)\]]|[a-j][.)])\s*[^\s:]")
_BETWEEN = re.compile(r"\s*(?:,?\s+\b(?:or|and)\b\s+|;|,(?![^(\[{]*[)\]}]))\s*")
_LONGEST = 200  # characters of a value; what is longer no dataset has as an answer, and takes math-verify seconds
_LINKS = {"of", "on", "in", "and", "or", "to", "from", "by", "with", "is", "are", "than", "because", "since", "x", "y"}


@functools.lru_cache(maxsize=65536)
def read(text: str) -> tuple[Any, ...]:
    """What math-verify finds in a text, with its defaults; () where it finds nothing, or not within five seconds."""
    return tuple(parse(text))


def equal(found: tuple[Any, ...], truth: tuple[Any, ...]) -> bool:
    """Whether two readings are equal by math-verify's defaults; one of nothing, or not worked out in time, is not."""
    return bool(found) and bool(verify(list(found), list(truth)))


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` of a text holds, up to its own closing brace; None where there is none."""
    marks = list(_BOXED.finditer(text))
    if not marks:
        return None
    depth, start = 1, marks[-1].end()
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def plain(text: str) -> str:
    r"""A text in one writing: digits of all scripts as 0-9, one minus sign, LaTeX's and Markdown's wrapping taken away.

    `\boxed{x}` and `\text{x}` are x.  Powers stay powers: 5² is 5^{2}.
    """
    held = boxed(text)
    if held is not None:
        return plain(held)
    made = []
    for char in text:
        if char in _SUPERSCRIPTS:
            made.append(f"^{{{_SUPERSCRIPTS[char]}}}")
        elif "\uff21" <= char <= "\uff5a":  # letters of full width
            made.append(unicodedata.normalize("NFKC", char))
        else:
            digit = unicodedata.decimal(char, None)
            made.append(char if digit is None else str(digit))
    text = "".join(made).translate(_CHARACTERS)
    before = None
    while before != text:
        before, text = text, _WRAPPED.sub(r"\1", text)
    text = re.sub(r"\*\*|__|`", "", text)
    text = re.sub(r"\\[()\[\]]|\$|\\(?:left|right|displaystyle|,|;|!|:)(?![A-Za-z])|~", " ", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)|(?<=\d),(?=\d{3}(?!\d))(?![^(\[]*[)\]])", "", text)
    return " ".join(text.split())


def words_of(text: str) -> str:
    """A text as words: no case, punctuation or article; for comparing what is no value."""
    kept = re.sub(r"[^\w\s%\u00b0+\-*/=<>^.]|\.(?!\d)|_", " ", plain(text).casefold())
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the"))


def _unit_of(text: str) -> Unit | None:
    name = text.strip().strip(".").strip()
    power, bare = 1, name
    for form, of in ((_SQUARE, 2), (_CUBIC, 3)):
        if form.search(name):
            power, bare = of, form.sub("", name, count=1).strip()
    bare = bare if bare in ("m", "s", "h", "g") else bare.lower()
    for key in (bare, bare.removesuffix("s")):
        if key in _LENGTHS:
            return Unit(f"length {power}", f"{_LENGTHS[key] ** power:.12g}")
        if key in ("radian", "rad"):
            return Unit("angle", _RADIAN)
        for kind, units in _OTHERS.items():
            if key in units and power == 1:
                return Unit(kind, f"{units[key]:.12g}")
    return None


_NAMES = "|".join(
    sorted({*_LENGTHS, *(name for units in _OTHERS.values() for name in units), "radian", "rad"}, key=len, reverse=True)
)
_UNIT_AT_END = re.compile(
    rf"(?<![A-Za-z\\])((?:(?:square|sq\.?|cubic|cu\.?|\u5e73\u65b9|\u7acb\u65b9)\s*)?(?:{_NAMES})s?"
    rf"(?:\s*(?:squared|cubed)|\s*\^\{{?[23]\}}?\^?)?)\.?$",
    re.IGNORECASE,
)
_RATE_AT_END = re.compile(rf"(?<![A-Za-z\\])({_NAMES})s?\s*(?:/|\bper\b)\s*({_NAMES})$", re.IGNORECASE)
_DEGREES_AT_END = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\circ|\\degree|\u00b0)\s*[CF]?\.?$")
_DEGREE_ANYWHERE = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\circ|\\degree|\u00b0)")
_OF_DEGREES = re.compile(rf"\\?\b(sin|cos|tan)\s*\(?\s*(\d+(?:\.\d+)?){_DEGREE_ANYWHERE.pattern}\s*\)?")
_MINUTES = re.compile(r"(\d+)\s*\u00b0\s*(\d+)\s*'(?:\s*(\d+)\s*(?:\"|''))?$")


def split_unit(text: str) -> tuple[str, Unit]:
    """A quantity's value and its unit; what is no known unit is of no kind, `12 items` is 12."""
    text = plain(text).strip().rstrip(".").strip()
    parts = _MINUTES.search(text)
    if parts:
        degrees, minutes, seconds = (part or "0" for part in parts.groups())
        return f"{text[: parts.start()]}({degrees}+{minutes}/60+{seconds}/3600)", Unit("angle", "1")
    found = _DEGREES_AT_END.search(text)
    if found and found.start() > 0:
        return text[: found.start()], Unit("angle", "1")
    found = _RATE_AT_END.search(text)
    if found and found.start() > 0:
        above, below = (_unit_of(name) or _NO_UNIT for name in found.groups())
        return text[: found.start()].strip(), Unit(
            f"{above.kind} per {below.kind}", f"({above.factor})/({below.factor})"
        )
    found = _UNIT_AT_END.search(text)
    # `4s` may be four times a side; `5m`, in GEOQA's truths, are metres.
    if found and found.start() > 0 and (text[found.start() - 1] == " " or found.group(1) not in ("s", "h", "g")):
        unit = _unit_of(found.group(1))
        if unit is not None:
            return text[: found.start()].strip(), unit
    counted = _COUNTED.match(text)
    if counted and counted["unit"].split()[0].lower() not in (*_LINKS, *_FUNCTIONS) and len(counted["unit"]) > 1:
        first = _unit_of(counted["unit"].split()[0])  # 40 degrees clockwise
        return counted["value"], first or _NO_UNIT
    return text, _NO_UNIT


def _latex(expression: str) -> str:
    """An expression as LaTeX: roots, degrees within it, mixed numbers, words for signs."""
    text = expression
    text = re.sub(r"\b(?:minus|negative)\s+(?=[\d\\.])", "-", text, flags=re.IGNORECASE)
    text = re.sub(r"(?:\u221a|\bsqrt\b|\\sqrt\b)\s*", r"\\sqrt", text)
    text = re.sub(r"\\sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt(\d+(?:\.\d+)?|[a-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z])pi\b", r"\\pi ", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![\\A-Za-z])(sin|cos|tan|log|ln)\b", r"\\\1 ", text)
    text = _DEGREE_ANYWHERE.sub("", text)
    text = re.sub(r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)", r"(\1+\2/\3)", text)
    text = re.sub(r"(?<![\d.])\d{1,3}(?:\s\d{3})+(?!\d)", lambda found: "".join(found.group().split()), text)
    text = re.sub(r"(?<=\d)\s*(?:to|:)\s*(?=\d)", ":", text)
    text = re.sub(r"(?<=\d)[eE]([+-]?\d+)\b", r" \\times 10^{\1}", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=10\b)", r"\\times ", text)
    return text.replace("%", "\\%").replace("\\\\%", "\\%").strip()


def _in_radians(found: re.Match[str]) -> str:
    return rf"\{found.group(1)}(\frac{{{found.group(2)}\pi}}{{180}})"


def _number_word(text: str) -> str:
    first, _, rest = text.partition(" ")
    number = first.lower().strip(".")
    return f"{NUMBER_WORDS.index(number)} {rest}".strip() if number in NUMBER_WORDS else text


def value_of(text: str) -> tuple[str, Unit] | None:
    """The value in a text that is nothing but one, as LaTeX, and its unit; None where it is prose, or nothing.

    Words such as "about", a name before an equal sign (`x = 5`, `AB = 5`), a unit and full stops may stand around it.
    """
    text = plain(text).strip(" .;,!")
    if len(text) > _LONGEST:
        return None
    before = None
    while before != text:
        before, text = text, _HEDGE.sub("", text).strip()
    if _MARK.match(text):
        return None
    last = re.split(r"(?<![<>!])=|\\approx", text)[-1].strip()
    name = text[: len(text) - len(last)]
    is_curve = re.fullmatch(r"\s*(?:y|f\s*\(x\))\s*=\s*", name) is not None and re.search(r"[a-z]", last) is not None
    last = text if is_curve else re.sub(r"^[A-Z]\s*(?=\([^()]*,[^()]*\)$)", "", last)  # P(2, 3)
    last = re.sub(r"(?<=\d)\s+(?:out\s+of|in)\s+(?=\d)", "/", last)  # 1 in 4
    expression, unit = split_unit(_number_word(_OF_DEGREES.sub(_in_radians, last)))
    latex = _latex(expression)
    kept = [word for word in _WORD.findall(latex) if word.lower() not in _FUNCTIONS]
    # A lone letter is a name or an option; `a + b` and `2x` are values.
    if kept or not re.search(r"\d|\\pi|\\infty|[a-zA-Z]\s*[-+*/^<>=]|\\sqrt", latex):
        return None
    return latex, unit


def _decimals(latex: str) -> int | None:
    """How many digits a decimal fraction has after its point, of one with three significant digits or more."""
    if not re.fullmatch(r"-?\d*\.\d+", latex):
        return None
    return len(latex.partition(".")[2]) if len(latex.lstrip("-0.").replace(".", "")) >= 3 else None


def _same_number(given: str, truth: str) -> bool:
    found, wanted = read(f"${given}$"), read(f"${truth}$")
    digits = _decimals(truth)
    # A truth that was rounded, 10.39, is also the exact 6√3.
    rounding = {} if digits is None else {"float_rounding": digits}
    return bool(found and wanted) and bool(verify([*wanted], [*found], allow_set_relation_comp=True, **rounding))


@functools.lru_cache(maxsize=65536)
def same_value(given: str, truth: str) -> bool:
    """Whether both are values and equal: math-verify's equality, after units.

    A unit that one side leaves out is not asked for, nor the degree sign; 300 cm are 3 m, 60° are π/3; another kind of
    quantity, or another unit without the right factor, is not equal.  A percentage is equal to its fraction and to its
    number.  A truth of three significant digits or more after rounding also takes what rounds to it; a rounded answer
    to an exact truth is not equal.  Several values, "2 or 3", are equal to the same several values in any order.
    """
    mine, other = value_of(_joined(given)), value_of(_joined(truth))
    if mine is None or other is None:
        return False
    (value, unit), (wanted, wanted_unit) = mine, other
    if not unit.kind and wanted_unit.kind == "angle" and "\\pi" in value and "\\pi" not in wanted:
        unit = Unit("angle", _RADIAN)
    if not wanted_unit.kind and unit.kind == "angle" and "\\pi" in wanted and "\\pi" not in value:
        wanted_unit = Unit("angle", _RADIAN)
    if unit.kind and wanted_unit.kind and unit != wanted_unit:
        return unit.kind == wanted_unit.kind and _same_number(
            rf"({value}) \cdot ({unit.factor})", rf"({wanted}) \cdot ({wanted_unit.factor})"
        )
    return _same_number(value, wanted)


def listed(text: str) -> list[str]:
    """The values that a text lists, as LaTeX without names and units, where it lists several and nothing else."""
    parts = [part for part in _BETWEEN.split(plain(text)) if part]
    values = [found for found in map(value_of, parts) if found is not None]
    return [value for value, _ in values] if len(values) == len(parts) > 1 else []


def _joined(text: str) -> str:
    """Several values with commas between, for what has "or" and names between."""
    return ", ".join(listed(text)) or text
