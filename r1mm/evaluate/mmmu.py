"""How the answer to an MMMU question is read and compared: MMMU's own rules, and a lenient one of ours.

Source of the rules: MMMU-Benchmark/MMMU@51ce7f3:eval/eval_utils.py, as lmms-eval==0.7.3:tasks/mmmu/utils.py and
tasks/_task_utils/mmmu_mcq_utils.py have them.  Two things are ours, for outputs that think were not foreseen there:

- Where there is an `<answer>` tag, what it holds is read, as lmms-eval's mmmu_val_reasoning does before it asks a
  judge; the rule for letters sees none in `<answer>B</answer>` as it stands.
- MMMU gives a text without a letter one by chance.  Here it stays without an answer, and is wrong.

An open question's truth may be a list, of which one is enough.  The hub's dataset has it as text, and lmms-eval
compares with that text; here it is read as the list that MMMU's own answer file has (eval/answer_dict_val.json).
"""

import re
from collections.abc import Sequence

from r1mm.evaluate import choices, expressions
from r1mm.evaluate.asked import Asked, literal_list
from r1mm.evaluate.thoughts import tagged_answer, without_thoughts

Candidate = str | float

_ENDS = ",.!?;:'"  # taken from both ends, one after the other
_FORMS = ("({})", "{} ", "{}.")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_BARE = re.compile(r"<answer>[^<]*</answer>|\(?[A-Z]\)?\.?")


def letter_by_rule(text: str, options: Sequence[str]) -> str | None:
    """The letter that MMMU reads out of a text; None where it would draw one.

    The first form that any letter has counts: in brackets, before a blank, before a full stop; of several letters the
    last, except that only letters between blanks have a place outside of brackets, and of those without the first.  In
    a text of more than five words an option's own words count too.
    """
    for mark in _ENDS:
        text = text.strip(mark)
    text = f" {text} "
    named = {chr(ord("A") + number): option for number, option in enumerate(options)}
    for form in _FORMS:
        found = [letter for letter in named if form.format(letter) in text]
        if found:
            place = "({})" if form == "({})" else " {} "
            return max(found, key=lambda letter: text.rfind(place.format(letter)))
    if len(text.split()) > 5:
        lower = text.lower()
        found = [letter for letter, option in named.items() if option.lower() in lower]
        if found:
            return max(found, key=lambda letter: lower.rfind(named[letter].lower()))
    return None


def _shortest_tail(line: str, indicators: Sequence[str]) -> str:
    """What follows the last of an indicator's places in a line, the shortest of all indicators; "" without any."""
    shortest = ""
    for indicator in indicators:
        if indicator in line:
            tail = line.rpartition(indicator)[2].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
    return shortest


def _plain(text: str) -> list[Candidate]:
    """A number, rounded to two places, or a text in lower case; of a single character both ways it may stand alone."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def open_candidates(text: str) -> set[Candidate]:
    """What a text may be taken to answer an open question with: ends of its lines, and the numbers in them."""
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    keys = []
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        tail = _shortest_tail(line, (*_INDICATORS, "=") if last else _INDICATORS)
        if tail and tail not in _TRIVIAL:
            keys.append(tail)
    keys = keys or [text]
    numbers = [found for key in keys for pattern in _NUMBERS for found in pattern.findall(key)]
    return {candidate for part in (*keys, *numbers) for candidate in _plain(part)}


def is_one_of(candidates: set[Candidate], truths: Sequence[str]) -> bool:
    """Whether a candidate is a truth: equal as a number, or as a text one that holds the truth's."""
    wanted = [plain for truth in truths for plain in _plain(truth)]
    texts = [one for one in wanted if isinstance(one, str)]
    return any(
        any(text in candidate for text in texts) if isinstance(candidate, str) else candidate in wanted
        for candidate in candidates
    )


def _truths(truth: str) -> list[str]:
    listed = literal_list(truth)
    return [truth] if listed is None else [str(one) for one in listed]


def _part(completion: str) -> str:
    tagged = tagged_answer(completion)
    return without_thoughts(completion) if tagged is None else tagged


def parse(asked: Asked, completion: str) -> str | None:
    """The answer that MMMU's rules read, as text; None for a letter that they would draw, and for an empty answer."""
    part = _part(completion)
    if asked.kind == "letter":
        return letter_by_rule(part, asked.options)
    return part or None


def is_right(asked: Asked, completion: str, truth: str) -> bool:
    """Whether MMMU's rules find the truth in an output."""
    if asked.kind == "letter":
        return asked.same_option(parse(asked, completion), truth)
    part = _part(completion)
    return bool(part) and is_one_of(open_candidates(part), _truths(truth))


def parse_leniently(asked: Asked, completion: str) -> str | None:
    """What a benevolent reader would take an output to answer with: what MMMU's rules find, else a lone letter."""
    found = parse(asked, completion)
    if found is None and asked.kind == "letter":
        letter = choices.parse_letter_leniently(completion)
        return letter if letter and letter in asked.letters else asked.letter_of(_part(completion))
    return found


def is_right_leniently(asked: Asked, completion: str, truth: str) -> bool:
    """Right by MMMU's rules or by a benevolent reader's; an open answer also where math-verify holds it equal."""
    if is_right(asked, completion, truth):
        return True
    if asked.kind == "letter":
        return asked.same_option(parse_leniently(asked, completion), truth)
    return any(expressions.is_right_leniently(completion, one) for one in _truths(truth))


def is_bare(asked: Asked, completion: str) -> bool:
    """Whether an output is an answer and nothing else: a tag, or a letter or a line without one."""
    text = completion.strip()
    if _BARE.fullmatch(text):
        return True
    return asked.kind != "letter" and bool(text) and "<" not in text and "\n" not in text
