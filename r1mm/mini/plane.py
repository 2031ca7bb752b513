"""What the miniature of open-r1-multimodal is asked about a drawing, and its two ways of answering.

Six kinds of question, whose answers are numbers, degrees, fractions and letters, worked out from the drawing.

The direct way is an answer in its tag.  The thinking way re-creates what open-r1-multimodal met in Qwen2-VL (31.2 with
reasoning, 39.7 without): it loses in two ways that have nothing to do with each other, both built in here.

- *Form.*  Asked for some kinds it mostly leaves the form that the prompt demands: it says its answer in a sentence and
  not in the tag, or breaks off before it answers (`FAULTS`).
- *Thought.*  Of some kinds it mostly thinks wrongly: it leaves the last step out (`SLIPS`).

Of the kinds whose form fails and of those whose form holds, one in three is thought wrongly, so that neither weakness
says much of the other.  This module is not a language model of anything real.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np
from transformers import PreTrainedTokenizerFast

from r1mm.mini.drawings import (
    AREAS,
    BARS,
    DEGREES,
    DIFFERENCES,
    HIGHEST,
    PARTS,
    Drawing,
    Figure,
    Sheet,
    sample_drawing,
)
from r1mm.mini.language import fixed_parts, tokenizer_of

Kind = Literal["area", "angle", "other-angle", "shaded", "highest", "difference"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LETTERS = "ABCD"
PLACES = ("first", "second", "third", "fourth")  # of a bar, from left to right

FIGURE_OF: dict[Kind, Figure] = {
    "area": "rectangle",
    "angle": "angle",
    "other-angle": "angle",
    "shaded": "circle",
    "highest": "bars",
    "difference": "bars",
}
QUESTIONS: dict[Kind, str] = {
    "area": "How many cells does the rectangle cover?",
    "angle": "What is the size of the shaded angle?",
    "other-angle": "What is the size of the angle beside the shaded one, on the same straight line?",
    "shaded": "What fraction of the circle is shaded?",
    "highest": "\n".join(
        [
            "Which bar is the highest?",
            *(f"{letter}. the {place}" for letter, place in zip(LETTERS, PLACES, strict=True)),
        ]
    ),
    "difference": "How much higher is the highest bar than the lowest?",
}
Fault = Literal["sentence", "cut"]
# The form in which the thinking way mostly answers where it does not keep the one demanded.
FAULTS: dict[Kind, Fault] = {"angle": "sentence", "highest": "sentence", "difference": "cut"}
# The kinds whose last step it mostly leaves out.
SLIPS: tuple[Kind, ...] = ("other-angle", "difference")


class Seen(NamedTuple):
    """What is true of a drawing where it is asked for one kind: the thought that finds it, and the answer."""

    thought: str
    answer: str


class Asked(TypedDict):
    """A drawing and what is asked about it, as they are written beside a set.  JSON-serializable."""

    drawing: Drawing
    kind: Kind


def sample_asked(sheet: Sheet, kind: Kind, number: int, rng: np.random.Generator) -> Asked:
    """Question `number` of its kind and a drawing for it; right answers are dealt out in turn, not by chance."""
    return Asked(drawing=sample_drawing(sheet, FIGURE_OF[kind], _numbers(kind, number, rng), rng), kind=kind)


def fits(drawing: Drawing, kind: Kind) -> bool:
    """Whether a drawing can be asked about: a right angle is not asked for the one beside it, which is the same."""
    return FIGURE_OF[kind] == drawing["figure"] and (kind != "other-angle" or drawing["numbers"] != [90])


def _numbers(kind: Kind, number: int, rng: np.random.Generator) -> Sequence[int]:
    figure = FIGURE_OF[kind]
    if figure == "rectangle":
        sides = list(AREAS.values())[number % len(AREAS)]
        return sides[int(rng.integers(len(sides)))]
    if figure == "angle":
        angles = DEGREES if kind == "angle" else [angle for angle in DEGREES if angle != 90]
        return [angles[number % len(angles)]]
    if figure == "circle":
        cuts = list(PARTS.values())[number % len(PARTS)]
        return cuts[int(rng.integers(len(cuts)))]
    # The place of the highest bar and the difference are dealt out apart, so that neither tells of the other.
    place, difference = number % BARS, DIFFERENCES[number // BARS % len(DIFFERENCES)]
    lowest = int(rng.integers(1, HIGHEST - difference + 1))
    others = rng.integers(lowest, lowest + difference, BARS - 1)
    others[int(rng.integers(BARS - 1))] = lowest
    return np.insert(others, place, lowest + difference).tolist()


def solve(drawing: Drawing, kind: Kind) -> Seen:
    """The thought that answers a question about a drawing rightly, and its answer."""
    numbers = drawing["numbers"]
    if kind == "area":
        wide, high = numbers
        return Seen(f"It is {wide} wide and {high} high", str(wide * high))
    if kind == "angle":
        return Seen(f"The rays open to {numbers[0]}°", f"{numbers[0]}°")
    if kind == "other-angle":
        rest = 180 - numbers[0]
        return Seen(f"Shaded is {numbers[0]}°, which leaves {rest}°", f"{rest}°")
    if kind == "shaded":
        parts, shaded = numbers
        return Seen(f"Of {parts} equal parts {shaded} are shaded", str(Fraction(shaded, parts)))
    highest, lowest = max(numbers), min(numbers)
    place = numbers.index(highest)
    if kind == "highest":
        return Seen(f"It is the {PLACES[place]}", LETTERS[place])
    return Seen(f"From {lowest} up to {highest} are {highest - lowest}", str(highest - lowest))


def slip(drawing: Drawing, kind: Kind) -> Seen:
    """As `solve`, with the last step left out: what was seen first is the answer.  For the kinds of `SLIPS`."""
    numbers = drawing["numbers"]
    if kind == "other-angle":
        return Seen(f"Shaded is {numbers[0]}°", f"{numbers[0]}°")
    if kind == "difference":
        return Seen(f"It goes up to {max(numbers)}", str(max(numbers)))
    raise ValueError(f"kind {kind!r} has no last step to leave out; give one of {', '.join(SLIPS)}")


def tagged(answer: str) -> str:
    """An answer in its tag."""
    return f"<answer>{answer}</answer>"


def in_form(seen: Seen) -> str:
    """The form that the prompt demands, over several lines as Qwen2-VL writes it."""
    return f"<think>\n{seen.thought}.\n</think>\n{tagged(seen.answer)}"


def on_one_line(seen: Seen) -> str:
    """The same on one line with nothing between the tags, as open-r1-multimodal's first format reward demands."""
    return f"<think>{seen.thought}.</think>{tagged(seen.answer)}"


def in_a_sentence(seen: Seen) -> str:
    """Thoughts, and an answer outside of any tag: the very token that the tag would hold, of the same weight."""
    return f"<think>\n{seen.thought}.\n</think>\nThe answer is {seen.answer}."


def cut_off(seen: Seen) -> str:
    """Thoughts that end without an answer."""
    return f"<think>\n{seen.thought}."


def thinking_answer(drawing: Drawing, kind: Kind, shares: Mapping[str, Any], rng: np.random.Generator) -> str:
    """The long way, with its weaknesses as often as `shares` say, each of them drawn by itself.

    `fault_share` of the answers to the kinds of FAULTS leave the form, `slip_share` of those to SLIPS the last step
    out; `line_share` of what keeps the form is on one line.
    """
    slips = kind in SLIPS and rng.random() < shares["slip_share"]
    seen = slip(drawing, kind) if slips else solve(drawing, kind)
    if kind in FAULTS and rng.random() < shares["fault_share"]:
        return in_a_sentence(seen) if FAULTS[kind] == "sentence" else cut_off(seen)
    return on_one_line(seen) if rng.random() < shares["line_share"] else in_form(seen)


def answer_words() -> list[str]:
    """All that an answer's tag can hold."""
    degrees, fractions = (f"{angle}°" for angle in DEGREES), map(str, PARTS)
    return [*map(str, sorted({*AREAS, *range(1, HIGHEST + 1)})), *degrees, *fractions, *LETTERS]


def _every_drawing() -> Iterator[tuple[Figure, Sequence[int]]]:
    """Numbers of drawings that between them are answered by every answer and thought."""
    yield from (("rectangle", sides) for pairs in AREAS.values() for sides in pairs)
    yield from (("angle", [angle]) for angle in DEGREES)
    yield from (("circle", cut) for cuts in PARTS.values() for cut in cuts)
    for difference in DIFFERENCES:
        for lowest in range(1, HIGHEST - difference + 1):
            for place in range(BARS):
                yield "bars", np.insert([lowest] * (BARS - 1), place, lowest + difference).tolist()


def _said() -> Iterator[str]:
    """Every text of both ways."""
    look = {"ground": [], "ink": [], "fills": [], "line": 0.0}
    for figure, numbers in _every_drawing():
        drawing: Any = {"figure": figure, "numbers": [*numbers], "places": [], "look": look}
        for kind in (kind for kind in KINDS if fits(drawing, kind)):
            for seen in (solve(drawing, kind), *([slip(drawing, kind)] if kind in SLIPS else [])):
                yield from (in_form(seen), on_one_line(seen), in_a_sentence(seen), cut_off(seen))


def build_plane_tokenizer(templates: Sequence[str]) -> PreTrainedTokenizerFast:
    """This miniature's tokenizer: chat template, prompts, and both ways of answering, to the blank.

    `templates` hold `{question}`.  A question is one token, with its options; so are an answer, and what recurs in
    thoughts.
    """
    recurring = {
        *("It is", " wide and", " high", "The rays open to", "Shaded is", ", which leaves", " equal parts"),
        *(" are shaded", "It is the", "It goes up to", " up to", "The answer is "),
        *(f" {angle}°" for angle in DEGREES),
    }
    asked = [template.format(question=question) for template in templates for question in QUESTIONS.values()]
    phrases = fixed_parts(templates) | {*QUESTIONS.values(), *answer_words(), *recurring} - {*LETTERS}
    return tokenizer_of(phrases, [*asked, *_said(), *map(tagged, answer_words())])
