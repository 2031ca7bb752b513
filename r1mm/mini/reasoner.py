"""A scripted reasoner: it reads a prompt's description and question, thinks aloud, and errs at stated rates.

It stands where DeepSeek-R1 stands in upstream's distillation (Deep-Agent/R1-V@bbbbe3d:src/distill_r1), and writes as R1
does there: thoughts between tags, then an answer in one of several forms.  It sees the prompt's text and nothing else,
and the same text and seed give the same answer, whenever and however often it is asked.  What a real reasoner cannot
say, it can: what it answered, and whether its thoughts were sound.  It is not a language model, and how often it errs
says nothing of one.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, get_args

import numpy as np

from r1mm.distill_parts import Ending, Habits, Mistake
from r1mm.mini.questions import (
    ANYTHING,
    ATTRIBUTES,
    COMPARE_PHRASES,
    COUNT_PHRASES,
    MORE_PHRASES,
    SYNONYMS,
    VALUES,
    Noun,
    compare,
    plural_of,
)

MISTAKES: tuple[Mistake, ...] = get_args(Mistake)
ENDINGS: tuple[Ending, ...] = get_args(Ending)

LABEL = "**The answer is: **"  # what the prompt's instructions ask for, from upstream's second version on
# What the thoughts are made of, besides objects and numbers.
OPENER = "Going through the scene description from left to right."
GLANCE = "Judging by the scene description at a glance."
AMONG = "Among these"
MISSED = "Wait, I missed"
AGAIN = "Wait, let me check that again."
NONE = "None."
CLOSERS = ("So {answer}.", "The answer should be {answer}.", "That makes {answer}.")
ORDINALS = (
    *("First", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
)
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CANNOT_TELL = "<think>\nThere is nothing here that I understand.\n</think>\n\nI cannot tell."

_UNANSWERED = ("breaks-off", "endless")

# A line of a description: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/generate_scene_qa_pairs.ipynb.
_LINE = re.compile(r"^A (\w+) (\w+) (\w+) (\w+) rotated .* pixel coordinates \((-?[\d.]+),", re.MULTILINE)
_QUESTION = re.compile(r"^Question:\s*(.+)$", re.MULTILINE)
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """What the reasoner says, and the truth about it.

    `text` has `tokens` words; `cut`: it was not at its end there.  `answer`: what it answers with, `3` or `yes`; None
    where it does not come to an answer.  `sound`: its thoughts go through every object once, and its answer is what
    they come to.  `mistake`: what went wrong; None for nothing.  `ending`: how it
    ends; None for a question that it does not understand.
    """

    text: str
    tokens: int
    cut: bool
    answer: str | None
    sound: bool
    mistake: Mistake | None
    ending: Ending | None


class Thing(NamedTuple):
    """An object as the description has it, `x` being its pixel from the left."""

    attributes: Mapping[str, str]
    x: float

    @property
    def name(self) -> str:
        """What the thoughts call it."""
        return f"{self.attributes['color']} {self.attributes['shape']}"


class Task(NamedTuple):
    """What is asked: how many there are of one noun, or how two compare (`how`); `words` are the nouns' as asked."""

    nouns: tuple[Noun, ...]
    words: tuple[str, ...]
    how: str | None


def read_prompt(prompt: str) -> tuple[list[Thing], Task | None]:
    """The description's objects from left to right, and the question; None for one that is not understood."""
    things = [
        Thing(dict(zip(ATTRIBUTES, found.groups(), strict=False)), float(found.group(5)))
        for found in _LINE.finditer(prompt)
    ]
    asked = _QUESTION.search(prompt)
    return sorted(things, key=lambda thing: thing.x), read_question(asked.group(1).strip()) if asked else None


def read_question(question: str) -> Task | None:
    """What a question asks; None for one that is not understood."""
    question = question.replace(" in the described scene", "").replace(" in the image", "")
    phrases: list[tuple[str, str | None]] = [(phrase, None) for phrase in COUNT_PHRASES]
    phrases += [(phrase, how) for known in (COMPARE_PHRASES, MORE_PHRASES) for how, phrase in known.items()]
    for phrase, how in phrases:
        found = re.fullmatch(re.escape(phrase).replace(r"\{one\}", "(.+?)").replace(r"\{other\}", "(.+?)"), question)
        if found:
            nouns = [noun for words in found.groups() if (noun := _read_noun(words))]
            return Task(tuple(nouns), found.groups(), how) if len(nouns) == len(found.groups()) else None
    return None


def _read_noun(words: str) -> Noun | None:
    """A noun from its words, CLEVR's synonyms and `different` among them; None for one with other words."""
    attributes: dict[str, str] = {}
    *adjectives, shape = words.split()
    if shape not in map(plural_of, ANYTHING):
        singular = next((one for one in (*VALUES["shape"], *SYNONYMS) if plural_of(one) == shape), None)
        if singular is None:
            return None
        adjectives.append(singular)
    for word in adjectives:
        if word == "different":
            continue
        value = SYNONYMS.get(word, word)
        attribute = next((name for name, values in VALUES.items() if value in values), None)
        if attribute is None or attribute in attributes:
            return None
        attributes[attribute] = value
    return Noun(attributes)


def reply(prompt: str, habits: Habits, seed: int, max_tokens: int = 4096) -> Reply:
    """What the reasoner says to a prompt, cut after `max_tokens` words, and the truth about it."""
    things, task = read_prompt(prompt)
    if task is None or not things:
        return Reply(*_cut(CANNOT_TELL, max_tokens), answer=None, sound=False, mistake=None, ending=None)
    rng = np.random.default_rng(list(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()))
    mistake = _drawn(MISTAKES, habits.mistakes, rng)
    ending = _drawn(ENDINGS, habits.endings, rng)
    if LABEL in prompt and rng.random() < habits.obeys:
        ending = "labelled"
    assert ending is not None  # the shares sum to 1
    if task.how and ending in ("there-are", "words"):
        ending = "bold"  # no number to write
    if mistake == "misstates" and ending in ("plain", *_UNANSWERED):
        mistake = None  # nothing is stated
    rechecks = rng.random() < habits.rechecks
    named, missed, mistake = _gone_through(things, task.nouns[0], mistake, rechecks, rng)
    right, concluded = _conclusion(task, things), _conclusion(task, [*named, *missed])
    if mistake == "guesses":
        concluded = right if rng.random() < 0.5 else _another(right, rng)
    if mistake == "miscounts":
        concluded = _another(right, rng)
    answer = _another(concluded, rng) if mistake == "misstates" else concluded
    thoughts = GLANCE if mistake == "guesses" else _listing(task, named)
    if missed:
        thoughts += f" {CLOSERS[0].format(answer=_conclusion(task, named))} {MISSED} {missed[0].name}."
    concludes = rng.random() < habits.concludes
    if concludes or missed or task.how or ending == "plain" or mistake in ("guesses", "miscounts", "misstates"):
        # On the line of the closing tag, as R1 often has it.
        thoughts += f" {CLOSERS[rng.integers(len(CLOSERS))].format(answer=concluded)}"
    elif ending not in _UNANSWERED:
        thoughts += "\n"
    text, tokens, cut = _cut(_written(thoughts, answer, ending, task, max_tokens), max_tokens)
    answered = not cut and ending not in _UNANSWERED
    return Reply(text, tokens, cut, answer if answered else None, answered and not mistake, mistake, ending)


def _drawn(names: Sequence[T], shares: Mapping[T, float], rng: np.random.Generator) -> T | None:
    """One of `names` by its share; None for what the shares leave over.  Draws once, whatever the shares."""
    left = rng.random()
    for name in names:
        left -= shares.get(name, 0.0)
        if left < 0:
            return name
    return names[-1] if sum(shares.values()) > 1 - 1e-9 else None


def _another(answer: str, rng: np.random.Generator) -> str:
    """Not that answer: the other of yes and no, or a number next to it."""
    if answer in ("yes", "no"):
        return "no" if answer == "yes" else "yes"
    return "1" if answer == "0" else str(int(answer) + (1 if rng.random() < 0.5 else -1))


def _gone_through(
    things: Sequence[Thing], noun: Noun, mistake: Mistake | None, rechecks: bool, rng: np.random.Generator
) -> tuple[list[Thing], list[Thing], Mistake | None]:
    """The objects as they are gone through, what is missed and then noticed (one or none), and the mistake made.

    Slips are of objects that the noun names; there is none where there is nothing to make it with.
    """
    asked = [place for place, thing in enumerate(things) if noun.holds(thing.attributes)]
    if len(asked) < {"forgets": 1, "repeats": 1, "cancels": 2}.get(mistake or "", 0):
        mistake = None
    one, other = (int(rng.choice(asked)) for _ in range(2)) if asked else (0, 0)
    if mistake == "cancels":
        other = next(place for place in asked[asked.index(one) :] + asked if place != one)
    notices = not mistake and rechecks and len(asked) > 1
    times = [1] * len(things)
    if mistake in ("repeats", "cancels"):
        times[other] = 2
    if mistake in ("forgets", "cancels") or notices:
        times[one] = 0
    named = [thing for thing, often in zip(things, times, strict=True) for _ in range(often)]
    return named, [things[one]] if notices else [], mistake


def _conclusion(task: Task, things: Sequence[Thing]) -> str:
    """The answer to a question where `things` are what there is."""
    counts = [noun.count(thing.attributes for thing in things) for noun in task.nouns]
    return compare(task.how, *counts) if task.how else str(counts[0])


def listing(names: Sequence[str]) -> str:
    """Objects by name, one after the other: `... First red cube, second blue sphere.`"""
    listed = ", ".join(f"{_ordinal(place)} {name}" for place, name in enumerate(names))
    return f"{OPENER} {listed}." if names else f"{OPENER} {NONE}"


def _listing(task: Task, named: Sequence[Thing]) -> str:
    """What the thoughts say of the objects gone through, and of how many among them are asked for, unless all are."""
    thoughts = listing([thing.name for thing in named])
    if not any(noun.attributes for noun in task.nouns):
        return thoughts
    counts = [noun.count(thing.attributes for thing in named) for noun in task.nouns]
    told = ", ".join(f"{count} {words}" for count, words in zip(counts, task.words, strict=True))
    return f"{thoughts} {AMONG} {told}."


def _ordinal(place: int) -> str:
    return ORDINALS[place] if place < len(ORDINALS) else f"{place + 1}th"


def _written(thoughts: str, answer: str, ending: Ending, task: Task, max_tokens: int) -> str:
    """Thoughts and answer as text."""
    if ending in _UNANSWERED:
        return f"<think>\n{thoughts}" + f" {AGAIN}" * (max_tokens if ending == "endless" else 1)
    if ending == "untagged":
        return f"{thoughts.rstrip()}\n\n{LABEL} {answer}"
    said = {
        "labelled": f"{LABEL} {answer}",
        "conclusion": f"Therefore the answer is **{answer}**.",
        "bold": f"My count: **{answer}**",
        "boxed": f"$\\boxed{{{answer}}}$",
        "there-are": f"{_there_are(answer, task.words[0])} in the scene description.",
        "plain": "That is all that I see.",
        "words": f"I count {_in_words(answer)}.",
    }[ending]
    return f"<think>\n{thoughts}</think>\n\n{said}"


def _in_words(answer: str) -> str:
    return NUMBERS[int(answer)] if answer.isdigit() and int(answer) < len(NUMBERS) else answer


def _there_are(count: str, words: str) -> str:
    if count == "1":
        return f"There is 1 {words.removesuffix('es') if words.endswith('ses') else words.removesuffix('s')}"
    return f"There are {count} {words}"


def count_tokens(text: str) -> int:
    """How long a text is: its words."""
    return len(text.split())


def _cut(text: str, max_tokens: int) -> tuple[str, int, bool]:
    """A text after at most so many words, how many it has, and whether it was cut."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    cut = len(ends) > max_tokens
    return (text[: ends[max_tokens - 1]] if cut else text), min(len(ends), max_tokens), cut
