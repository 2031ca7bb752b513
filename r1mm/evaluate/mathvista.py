"""How the answer to a MathVista question is read and compared: MathVista's own comparison, behind an extractor of ours.

MathVista has a language model (GPT-4) read the answer out of an output, and compares what that finds:
lupantech/MathVista@f5b0b1f:evaluation/extract_answer.py and calculate_score.py, and the same in
lmms-eval==0.7.3:tasks/mathvista/mathvista_evals.py.  Here rules read it, so that the same output gets the same mark
everywhere and for nothing.  The comparison is MathVista's: an integer is cut to one, a number with decimal places is
rounded to the item's precision, a text that is no option stands for the option nearest to it by edit distance, and then
both sides must be the same text.

lmms-eval 0.7.3 itself marks every number with decimal places wrong: the hub's dataset holds the precision as a float,
by which Python's round() refuses to round, and what is refused counts as no answer.  Here it is a whole number, as in
MathVista's own files.

Where the answer is looked for: by the rules of `r1mm.answers.places` in their order, last words included, as a language
model would.  The first whose words say one answer of the item's form counts.  What says two (`2 or 3`, another option's
text beside a letter) is no answer, and neither is what breaks off within its thoughts.
"""

import re
from collections.abc import Iterator

from r1mm.answers.judging import interpret, readings_alone
from r1mm.answers.places import found_by_rule
from r1mm.answers.values import NUMBER_WORDS
from r1mm.evaluate import choices
from r1mm.evaluate.asked import Asked, literal_list
from r1mm.evaluate.counting import answering_part

# Whole or decimal, with thousands' commas, an exponent, or as a fraction; no part of a word, an index or a power.
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_^.,])-?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)(?:\s?/\s?\d+)?"
    r"(?![A-Za-z_]*\d)"
)
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-"})
_WORD = re.compile(rf"(?<![A-Za-z-])({'|'.join(NUMBER_WORDS)})(?![A-Za-z-])", re.IGNORECASE)
_LIST = re.compile(r"\[[^\[\]]*\]")
_BARE = re.compile(r"<answer>[^<]*</answer>")


def _numbers(text: str) -> list[float]:
    text = text.replace("$", " ").translate(_MINUS)
    found = []
    for written in _NUMBER.findall(text):
        over, line, under = written.replace(",", "").partition("/")
        if line and not float(under):
            continue
        found.append(float(over) / float(under) if line else float(over))
    return found


def _number(asked: Asked, value: float) -> str:
    """A number as MathVista writes it to compare it."""
    if asked.kind == "integer":
        return str(int(value))
    return str(round(value, asked.precision or 0))


def _all_numbers(asked: Asked, text: str) -> list[float]:
    """The numbers of a text: in digits and, where an integer is asked for, in words; `one` only where there is none."""
    found = _numbers(text)
    words = [word.lower() for word in _WORD.findall(text)] if asked.kind == "integer" else []
    return [*found, *(float(NUMBER_WORDS.index(word)) for word in words if not found or word != "one")]


def _one_number(asked: Asked, text: str) -> str | None:
    """The number that a text says as a whole, or after its verb or equal sign; None where it says several, or none."""
    for reading in readings_alone(text):
        found = _all_numbers(asked, reading)
        if len(found) == 1:
            return _number(asked, found[0])
    return None


def _one_list(text: str, *, bare: bool = False) -> str | None:
    """The one list of a text as Python writes it, or, `bare`, its numbers without brackets."""
    written = _LIST.findall(text)
    listed = literal_list(written[0]) if len(written) == 1 else None
    if listed is not None:
        return str(listed)
    numbers = _numbers(text) if bare else []
    return str([int(one) if one.is_integer() else one for one in numbers]) if len(numbers) > 1 else None


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's: how many characters to insert, delete or replace to make one text the other."""
    row = list(range(len(other) + 1))
    for number, mine in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, theirs in enumerate(other, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (mine != theirs))
    return row[-1]


def _nearest(asked: Asked, text: str) -> str | None:
    """The option nearest to a text; None for a text more than twice as long as any, to which none is near."""
    if not text or len(text) > 2 * max(map(len, asked.options)):
        return None
    distances = [edit_distance(text, option) for option in asked.options]
    return asked.letters[distances.index(min(distances))]


def _letter(asked: Asked, text: str, *, nearest: bool) -> str | None:
    options = asked.by_letter
    meant = interpret(text, options, asked.letters)
    if meant.letter or meant.fault:
        return meant.letter
    return _nearest(asked, text.strip()) if nearest else None


def _answers(asked: Asked, completion: str) -> Iterator[str | None]:
    """What each rule's words say, in the order of the rules."""
    for found in found_by_rule(completion, forced=True):
        (text,) = found.texts
        if asked.kind == "letter":
            yield _letter(asked, text, nearest=found.rule in ("tag", "open tag", "bare"))
        elif asked.kind == "list":
            yield _one_list(text)
        elif asked.kind == "text":
            yield text.strip() or None
        else:
            yield _one_number(asked, text)


def parse(asked: Asked, completion: str) -> str | None:
    """The answer of an output in the form in which MathVista compares it; None where the rules find none.

    Of options the letter.
    """
    return next((answer for answer in _answers(asked, completion) if answer is not None), None)


def parse_leniently(asked: Asked, completion: str) -> str | None:
    """What a benevolent reader would take an output to answer with.

    What the strict rules find stands.  Else, in what the last tag holds or in the last sentence after the thoughts, the
    last of several numbers, a letter that stands alone, or the numbers of a list without its brackets.
    """
    found = parse(asked, completion)
    if found is not None or asked.kind == "text":
        return found
    if asked.kind == "letter":
        letter = choices.parse_letter_leniently(completion)
        return letter if letter and letter in asked.letters else None
    part = answering_part(completion)
    if asked.kind == "list":
        return _one_list(part, bare=True)
    numbers = _all_numbers(asked, part)
    return _number(asked, numbers[-1]) if numbers else None


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _same(asked: Asked, found: str | None, truth: str) -> bool:
    """MathVista's comparison: the same text, or of options the same option."""
    if asked.kind == "letter":
        return asked.same_option(found, truth)
    return found is not None and found.strip() == truth.strip()


def is_right(asked: Asked, completion: str, truth: str) -> bool:
    """Whether the answer that the rules find is the truth as MathVista compares them."""
    return _same(asked, parse(asked, completion), truth)


def is_right_leniently(asked: Asked, completion: str, truth: str) -> bool:
    """Right, or what a benevolent reader finds is: the same option, number (`0.6` for `0.60`), list, or text but for
    case."""
    found = parse_leniently(asked, completion)
    if _same(asked, found, truth):
        return True
    if found is None or asked.kind == "letter":
        return False
    numbers = _as_number(found), _as_number(truth)
    if None not in numbers:
        return numbers[0] == numbers[1]
    listed = literal_list(found), literal_list(truth)
    if None not in listed:
        return listed[0] == listed[1]
    return found.casefold().strip() == truth.casefold().strip()


def is_bare(asked: Asked, completion: str) -> bool:
    """Whether an output is an answer and nothing else: a tag, or without one a letter, number or list alone."""
    text = completion.strip()
    if _BARE.fullmatch(text):
        return True
    if asked.kind == "letter":
        return re.fullmatch(r"\(?[A-Z]\)?\.?", text) is not None
    if asked.kind == "list":
        return _LIST.fullmatch(text) is not None
    return _NUMBER.fullmatch(text) is not None if asked.kind != "text" else bool(text) and "\n" not in text
