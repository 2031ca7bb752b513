"""Whether an answer is the right one: by the letter of an option, by what stands beside it, or by its value.

Upstream compares no letters (EvolvingLMMs-Lab/open-r1-multimodal@232b7ba:src/open_r1/grpo.py: math-verify on the whole
completion, else the text of the tag), so that `(B) 40°` for the solution `B` is wrong and a number in the thoughts can
be right.  The rules here are ours:

- Letter, text and value say the same: with a truth of `B` or `40°`, and `B: 40°` among the options, all of `B`, `(b)`,
  `Option B`, `40 degrees`, `B. 40°` and "the angle is 40°" are right.
- What disagrees with itself is wrong: a letter beside another option's text or beside a value that is not its option's.
- What does not choose is wrong: `A or B`, two values for a truth of one, two options' texts.
- Where options are not in the text (they are in the picture), a letter is compared with a letter.
- Prose is read for a statement ("the answer is ..."), for what stands after its last verb or equal sign, for the one
  option whose text it holds, or for its only number; of several numbers none is taken.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from r1mm.answers.options import find_options
from r1mm.answers.places import found_by_rule, sentences, statement
from r1mm.answers.values import listed, plain, same_value, value_of, words_of
from r1mm.errors import BadInput

By = Literal["letter", "text", "value", "another answer", "no answer", "two answers", "contradiction"]
Fault = Literal["no answer", "two answers", "contradiction"]
LETTERS = "ABCDEFGHIJ"

_TAGS = re.compile(r"</?(?:think|answer)>")
_IN_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NOT_MEANT = re.compile(
    r"(?:\b(?i:not|neither|nor|except|rather than|instead of)|n't)\s+(?:options?\s+|choices?\s+)?\(?[A-J]\b\)?"
    r"|\(?\b[A-J]\b\)?\s+is\s+(?:wrong|incorrect|not)\b"
)
_NAMED = r"(?i:options?|choices?|letter|answer|alternative)\s*(?i:is|:|=)?\s*[\"'(]?"
_LAST = r"([A-J])[.!]?$"
_NO_THING = "".join(
    rf"(?<!{thing}\s)"
    for thing in ("angle", "point", "line", "side", "vertex", "circle", "triangle", "segment", "than")
)
_CLAIMS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![A-Za-z])[(\[]([A-Ja-j])[)\]]",  # (B), anywhere
        rf"\b{_NAMED}([A-J])(?![A-Za-z'])",  # option B
        r"\b(?i:option|choice)\s+\(?([a-j])(?![A-Za-z'])",
        r"\b(?i:figure|diagram|graph|picture|image|statement|shape|curve)\s+([A-J])(?![A-Za-z'])",
        r"^([A-J])(?=\s*(?:[.:)\],\u3001\uff0e]|$|[-\u2013\u2014]\s))",  # B. 40
        r"^[(\[]([A-J])$",  # (B
        r"^([A-J])\s+(?=[-\d\\\u221a(])",  # B 40, B (40)
        r"^([A-J])(?=\s+(?i:because|since|as)\b)",
        r"\b([A-J])\s+is\s+(?:the\s+)?(?:correct|right|answer|best)\b",
        rf"(?:\b(?i:is|be|are|but|choose|pick|select|chose|therefore|thus|hence|so)|[:=,;'\u2019\u2192\u9009]s?)\s*{_LAST}",
        rf"(?<=\s){_NO_THING}(?![AI]){_LAST}",  # ... that gives B.
        r"^([a-j])[.):]?(?=\s|$)(?!\s*[a-z])",  # b) 40; not `a man`
    )
)
_EACH_OTHER = re.compile(
    r"(?:^|\b(?:either|both|is|are|be)\s+)\(?([A-J])\)?\s*(?:/|,|;|&|\band\b)\s*\(?([A-J])\b\)?"
    r"|\b([A-J])\)?\s+or\s+\(?([A-J])\b"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|equals?(?:\s+to)?|measures?|gives?|becomes?|has|have|totals?|makes?)\b"
    r"|(?<![<>!])=|:(?!\s*\d)|\\approx"
)
_DENIES = re.compile(r"\b(?:not|cannot|never|neither|nor)\b|n't\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:/\d+)?(?:\s*(?:\u00b0|%|\\%|\\pi\b))?(?![\w])")
_AROUND = re.compile(r"\s*([=<>+*/])\s*")  # a sign and the blanks around it
_POLAR = {"yes", "no", "true", "false"}


class Truth(NamedTuple):
    """A right answer: the letter of its option, its text, or both."""

    letter: str | None
    text: str | None


class Meaning(NamedTuple):
    """What an answer says: a letter, a text beside it or alone, or why it says nothing that could be right."""

    letter: str | None = None
    text: str = ""
    by: By = "text"
    fault: Fault | None = None


class Verdict(NamedTuple):
    """Whether an answer is right, and by what."""

    right: bool
    by: By


def same(given: str, truth: str) -> bool:
    """Whether two texts say the same: in the same words, or as equal values."""
    mine, other = (_AROUND.sub(r"\1", plain(text).casefold().strip(" .;,!")) for text in (given, truth))
    if mine == other:
        return bool(mine)
    if not re.search(r"\d", mine + other) and words_of(given) == words_of(truth):
        return bool(words_of(given))
    return same_value(given, truth)


def _core(text: str) -> str:
    """The part of an answer's text that answers: after "the answer is", else all of it; one line, unwrapped."""
    text = _TAGS.sub(" ", text)
    stated = statement(text)
    # "40°, not 50°": what is refused after a comma is not answered.
    core = re.sub(r"(?<=\S),\s*(?:and\s+|but\s+)?not\s+[^,.;]*\.?$", "", plain(text if stated is None else stated))
    return core.strip(" ;,!\"'")


def _predicate(text: str) -> str:
    """What stands after the last verb or equal sign of the last sentence."""
    parts = sentences(text)
    return _VERB.split(parts[-1])[-1].strip(" .;,!") if parts else ""


def readings_alone(text: str) -> list[str]:
    """The readings of a text as one answer: whole, without its mark, before "≈", after its verb, its only number.

    What follows in brackets is left out where it has no number (`3 (cm)`) or says the same (`0.25 (25%)`).  A text that
    denies something is read as a whole alone.
    """
    unmarked = re.sub(r"^[(\[]?(?:[A-J][.:)\]]|[a-j][.)])\s*", "", text)
    unmarked = re.sub(r"\s*[,;]?\s*\([A-J]\)\.?$", "", unmarked)
    found = [text, unmarked]
    if not _DENIES.search(text):
        found += [unmarked.rpartition("\\approx")[0], _predicate(text)]
        extra = re.fullmatch(r"(.+?)\s*\(([^()]*)\)\.?", text)
        if extra and (not re.search(r"\d", extra.group(2)) or same_value(*extra.groups())):
            found.append(extra.group(1))
        numbers = _NUMBER.findall(text) if value_of(text) is None else []
        found += numbers if len(numbers) == 1 else []
    return [one for one in dict.fromkeys(found) if one]


def _held(text: str, options: Mapping[str, str]) -> list[str]:
    """The options in words whose own words, those that not all options have, a text holds; of nested ones the longest.

    None where the text denies something that no option denies.
    """
    words = {letter: set(words_of(option).split()) for letter, option in options.items()}
    shared = set.intersection(*words.values()) if words else set()
    said = set(words_of(text).split())
    if _DENIES.search(text) and not any(map(_DENIES.search, options.values())):
        return []
    held = {
        letter: all_words - shared
        for letter, all_words in words.items()
        if all_words and value_of(options[letter]) is None and (all_words - shared or all_words) <= said
    }
    return [letter for letter, own in held.items() if not any(own < other for other in held.values())]


def _matches(text: str, options: Mapping[str, str]) -> list[str]:
    """The options whose text or value a text gives."""
    for one in readings_alone(text):
        exact = [letter for letter, option in options.items() if option and same(one, option)]
        if exact:
            return exact
    return _held(text, options)


def _claimed(text: str, letters: Collection[str]) -> set[str]:
    """The letters that a text chooses."""
    meant = _NOT_MEANT.sub(" ", text).strip()
    found = {claim.upper() for pattern in _CLAIMS for claim in pattern.findall(meant)}
    several = _EACH_OTHER.search(meant)
    if several:
        found |= set(filter(None, several.groups()))
    return found & set(letters)


def _beside(text: str, letter: str) -> str:
    """A text without the letter that it chooses and what links the two."""
    lower = rf"{letter.lower()}(?=[.):\]]|$)"
    mark = rf"(?:\b{_NAMED})?[(\[]?(?<![A-Za-z])(?:{letter}|{lower})(?![A-Za-z])[)\]]?\s*[.:,\u3001-]*\s*"
    rest = re.sub(mark, " ", text, count=1).strip(" .,;:-\"'")
    return re.sub(
        r"^(?:which|that|is|so|with|i\.e\.|=)\s+|[\s,;]*\b(?:which\s+is|so|i\.e\.|option|choice|is)$", "", rest
    ).strip()


def interpret(text: str, options: Mapping[str, str], letters: Collection[str]) -> Meaning:
    """What the text of an answer says.  `letters`: those that can be chosen; empty where there is nothing to choose."""
    core = _core(text)
    if not core:
        return Meaning(fault="no answer")
    whole = [letter for letter, option in options.items() if option and same(core, option)]
    if len(whole) == 1 and core.upper() not in options:
        return Meaning(whole[0], core, "value" if value_of(core) else "text")
    claimed = _claimed(core, letters)
    if len(claimed) > 1:
        return Meaning(fault="two answers")
    if claimed:
        (letter,) = claimed
        beside = _beside(core, letter)
        option = options.get(letter)
        # `C: 24 (2 x 12)`: beside a letter what stands in brackets is a remark.
        if beside and option and not same(beside.partition("(")[0], option):
            said = _matches(beside, options)
            if (said and letter not in said) or (not said and value_of(beside) is not None):
                return Meaning(fault="contradiction")
        return Meaning(letter, beside, "letter")
    said = _matches(core, options)
    if len(said) > 1:
        return Meaning(fault="two answers")
    if said:
        return Meaning(said[0], core, "value" if value_of(options[said[0]]) else "text")
    return Meaning(None, core, "text")


@functools.lru_cache(maxsize=65536)
def truth_of(solution: str, problem: str) -> Truth:
    """The truth in a solution: what its last `<answer>` holds, or all of it; by letter and text where it has options.

    A truth that is an option's text or value has that option's letter too.  Raises BadInput for an empty solution.
    """
    tags = _IN_TAG.findall(solution)
    text = plain(tags[-1] if tags else solution).strip(" ;,")
    if not text:
        raise BadInput(f"the solution {solution!r} holds no answer; correct the dataset")
    options = _options(problem)
    letters = options or (LETTERS if re.match(r"[(\[]?[A-J](?:[.:)\]]|$)", text) else "")
    meant = interpret(text, options, letters)
    if meant.fault == "contradiction":  # the letter is what such sets were made from
        (letter,) = _claimed(_core(text), letters)
        return Truth(letter, None)
    if meant.letter is None:
        return Truth(None, text)
    return Truth(meant.letter, options.get(meant.letter) or meant.text or None)


@functools.lru_cache(maxsize=4096)
def _options(problem: str) -> dict[str, str]:
    return find_options(problem)


def _polar(text: str) -> str | None:
    """The yes, no, true or false that a text says: its first word, or the only one where nothing is denied."""
    words = words_of(text).split()
    said = set(words) & _POLAR
    if {"yes", "no"} <= said or {"true", "false"} <= said:
        return None
    if words and words[0] in _POLAR:
        return words[0]
    return said.pop() if len(said) == 1 and "not" not in words else None


def judge(answer: str, truth: Truth, options: Mapping[str, str]) -> Verdict:
    """Whether the text of an answer is the truth, and by what."""
    meant = interpret(answer, options, options or (LETTERS if truth.letter else ""))
    if meant.fault:
        # A truth of several letters is right when it is given as it is.
        whole = meant.fault == "two answers" and not truth.letter and same(_core(answer), truth.text or "")
        return Verdict(True, "text") if whole else Verdict(False, meant.fault)
    if meant.letter and truth.letter:
        if meant.letter != truth.letter:
            return Verdict(False, "another answer")
        unlike = not options and truth.text and value_of(meant.text) is not None and not same(meant.text, truth.text)
        return Verdict(False, "contradiction") if unlike else Verdict(True, meant.by)
    text = options.get(meant.letter, "") if meant.letter else meant.text
    if truth.text is None or not text:
        return Verdict(False, "another answer")
    if truth.text.casefold() in _POLAR:
        right = _polar(text) == truth.text.casefold()
        return Verdict(right, "text" if right else "another answer")
    if any(same(one, truth.text) for one in readings_alone(text)):
        return Verdict(True, "value" if value_of(truth.text) is not None else "text")
    several = value_of(truth.text) is not None and len(listed(text)) > 1
    return Verdict(False, "two answers" if several else "another answer")


@functools.lru_cache(maxsize=65536)
def judge_completion(completion: str, solution: str, problem: str) -> Verdict:
    """Whether an output answers a problem rightly, read by the rules of `places` up to a bare answer.

    Of several tags each has to be right.  Raises BadInput for a solution that holds no answer.
    """
    truth, options = truth_of(solution, problem), _options(problem)
    found = next(found_by_rule(completion), None)
    if found is None:
        return Verdict(False, "no answer")
    verdicts = [judge(text, truth, options) for text in found.texts]
    if all(verdict.right for verdict in verdicts):
        return verdicts[0]
    if any(verdict.right for verdict in verdicts):
        return Verdict(False, "two answers")
    return verdicts[-1]
