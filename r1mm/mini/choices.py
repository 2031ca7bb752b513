"""What the video miniature is asked about a film, with four lettered options, and its two ways of answering.

Three kinds of question: which colour moves, in which direction, and how many move.  A letter is right by chance in one
of four, and nothing in a question's text says which: letters, and what stands beside the right one, are dealt out
before a film is made to fit them.

The two ways re-create what Open-R1-Video met in Qwen2-VL-7B (53.33 without reasoning, 41.89 with): the direct way says
what moves, then the option, and is as good as the eyes behind it; the thinking way goes over several lines and is weak
by construction, because its thoughts look at one picture (see `thinking_answer`).  A reward for the right letter alone
can therefore gain, by thinking less or by thinking better; a reward for the format stands against the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np
from transformers import PreTrainedTokenizerFast

from r1mm.mini.language import fixed_parts, tokenizer_of
from r1mm.mini.motion import DIRECTIONS, FRAME_SIZE, FRAMES, PALETTE, Film, sample_film, scene_at
from r1mm.mini.scenes import World

Kind = Literal["color", "direction", "count"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LETTERS = "ABCD"
MOST_MOVERS = 3

QUESTIONS: dict[Kind, str] = {
    "color": "What colour is the solid that moves?",
    "direction": "In which direction does the solid move?",
    "count": "How many solids move?",
}
_ANSWERS: dict[Kind, tuple[str, ...]] = {
    "color": PALETTE,
    "direction": tuple(DIRECTIONS),
    "count": tuple(map(str, range(MOST_MOVERS + 1))),
}
_ORDINALS = ("First", "second", "third")
_NOTHING = " nothing"  # that moves


@dataclass(frozen=True)
class Choice:
    """A question about a film, its four options in the order of their letters, and the letter of the right one."""

    kind: Kind
    options: tuple[str, ...]
    letter: str

    @property
    def problem(self) -> str:
        """The question with its options, a line each."""
        return "\n".join([QUESTIONS[self.kind], *map(_option, LETTERS, self.options)])

    @property
    def solution(self) -> str:
        """The truth in the form of open-r1-video-4k: a letter and a full stop in the tag."""
        return f"<answer>{self.letter}.</answer>"

    @property
    def answer(self) -> str:
        """What stands beside the right letter."""
        return self.options[LETTERS.index(self.letter)]

    def say(self, option: str) -> str:
        """The answer that chooses an option, in the tag: its letter, and what stands beside it."""
        return f"<answer>{_option(LETTERS[self.options.index(option)], option)}</answer>"


class Asked(TypedDict):
    """A film and what is asked about it, as they are written beside a set.  JSON-serializable."""

    film: Film
    kind: Kind
    options: list[str]
    letter: str


def _option(letter: str, option: str) -> str:
    return f"{letter}. {option}"


def sample_asked(
    world: World,
    kind: Kind,
    number: int,
    rng: np.random.Generator,
    *,
    solids: tuple[int, int] = (2, 4),
    filename: str = "",
    frames: int = FRAMES,
    size: int = FRAME_SIZE,
) -> Asked:
    """Question `number` of its kind, and a film of `solids` (fewest, most) for it.

    `number` deals out letters and right answers in turn, so that both occur equally often; the rest is by chance.
    Raises ValueError for a number of solids that cannot be asked about, and as `sample_film` does.
    """
    fewest, most = solids
    if not 1 <= fewest <= most <= len(LETTERS) or (kind == "count" and most < MOST_MOVERS):
        raise ValueError(
            f"solids is {solids}; pass (fewest, most) from 1 to {len(LETTERS)}, and for the kind 'count' at least "
            f"{MOST_MOVERS} as most"
        )
    letter, answers = LETTERS[number % len(LETTERS)], _ANSWERS[kind]
    answer = answers[number // len(LETTERS) % len(answers)]
    movers = int(answer) if kind == "count" else 1
    standing = int(rng.integers(max(fewest, movers), most + 1)) - movers
    colors = _shuffled(PALETTE, rng)[: movers + standing]
    directions = [str(rng.choice(tuple(DIRECTIONS))) for _ in range(movers)]
    if kind == "color":
        colors = [answer, *(color for color in _shuffled(PALETTE, rng) if color != answer)][: 1 + standing]
    elif kind == "direction":
        directions = [answer]
    film = sample_film(world, colors, directions, rng, filename=filename, frames=frames, size=size)
    choice = ask(film, kind, rng, letter)
    return Asked(film=film, kind=kind, options=list(choice.options), letter=choice.letter)


def choice_of(asked: Asked) -> Choice:
    """The question that was asked about a film."""
    return Choice(asked["kind"], tuple(asked["options"]), asked["letter"])


def kinds_for(asked: Asked, kinds: Sequence[Kind]) -> list[Kind]:
    """Which of `kinds` can be asked about a film without the question telling which answer is given more often.

    A film made for colour may be asked for direction and the other way round, but not how many move, for one would be
    right more often than the other numbers; a film made for counting is asked for that alone.
    """
    wanted: tuple[Kind, ...] = ("count",) if asked["kind"] == "count" else ("color", "direction")
    return [kind for kind in wanted if kind in kinds]


def ask(film: Film, kind: Kind, rng: np.random.Generator, letter: str | None = None) -> Choice:
    """A question about a film: fresh options in a fresh order, the right one at `letter` where that is given.

    The colours of all solids of the film are among the options, so that to have seen a colour is not enough.
    """
    answer, options = right_answer(film, kind), list(_ANSWERS[kind])
    if kind == "color":
        shown = [item["color"] for item in film["scene"]["objects"]]
        options = [*shown, *(color for color in _shuffled(PALETTE, rng) if color not in shown)][: len(LETTERS)]
    place = int(rng.integers(len(LETTERS))) if letter is None else LETTERS.index(letter)
    others = _shuffled([option for option in options if option != answer], rng)
    return Choice(kind, (*others[:place], answer, *others[place:]), LETTERS[place])


def right_answer(film: Film, kind: Kind) -> str:
    """What is true of a film.  Raises ValueError where colour or direction are asked of other than one mover."""
    if kind == "count":
        return str(len(film["movers"]))
    if len(film["movers"]) != 1:
        raise ValueError(f"{len(film['movers'])} solids move; ask for {kind!r} only where exactly one does")
    mover = film["movers"][0]
    return mover["direction"] if kind == "direction" else film["scene"]["objects"][mover["object"]]["color"]


def _shuffled(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))]


def direct_answer(film: Film, choice: Choice) -> str:
    """The short way: what moves, and where to, then the right option, as ` red left<answer>B. red</answer>`.

    The option is said as it stands in the question, and is one token there and here.  What is seen and what can be
    chosen then add up to the answer, where a bare letter is a product of the two: told the colour in words, the tiny
    model was right in 99.8 % after 6,400 examples, and with bare letters still by chance after 12,800.
    What moves is said first because a word says more of a film than a letter does: every example then teaches to see,
    whatever it asks (recipes/video-mini/README.md).
    """
    objects = film["scene"]["objects"]
    moving = {objects[mover["object"]]["color"]: mover["direction"] for mover in film["movers"]}
    seen = "".join(f" {color} {moving[color]}" for color in PALETTE if color in moving)
    return f"{seen or _NOTHING}{choice.say(choice.answer)}"


def nearest_first(film: Film) -> list[str]:
    """The colours of a film's solids in the middle picture, from the nearest to the camera to the farthest."""
    scene = scene_at(film, film["frames"] // 2)
    camera = np.array(scene["appearance"]["camera"]["position"])
    away = [float(np.linalg.norm(np.array(item["3d_coords"]) - camera)) for item in scene["objects"]]
    return [scene["objects"][i]["color"] for i in np.argsort(away, kind="stable")]


def thinking_answer(film: Film, choice: Choice) -> str:
    """The long way, over several lines as Qwen2-VL writes it, and led astray by what one picture shows.

    Asked for the colour it takes the nearest solid for the mover; asked how many move it counts all solids, of which it
    knows three; asked for the direction it says to which side the way leans, and never near or far.  Each ends with the
    option that it thought of: what is wrong is the thought, not the answer after it.
    """
    colors = nearest_first(film)
    if choice.kind == "color":
        thought, found = f"The nearest is {colors[0]}", colors[0]
    elif choice.kind == "count":
        counted = colors[:MOST_MOVERS]
        thought = ", ".join(f"{ordinal} {color}" for ordinal, color in zip(_ORDINALS, counted, strict=False))
        found = str(len(counted))
    else:
        mover = film["movers"][0]
        found = "left" if mover["path"][-1][0] < mover["path"][0][0] else "right"
        thought = f"The {film['scene']['objects'][mover['object']]['color']} goes {found}"
    return f"<think>\n{thought}.\n</think>\n{choice.say(found)}"


def letter_words() -> list[str]:
    """The words of the vocabulary that are an option with its letter: all that an answer's tag can hold."""
    return [_option(letter, option) for letter in LETTERS for answers in _ANSWERS.values() for option in answers]


def seen_words() -> list[str]:
    """The words that say what moves and where to."""
    return [*(f" {word}" for word in (*PALETTE, *DIRECTIONS)), _NOTHING]


def build_choice_tokenizer(templates: Sequence[str]) -> PreTrainedTokenizerFast:
    """The video miniature's tokenizer: chat template, prompts, and both ways of answering, to the blank.

    `templates` hold `{question}`.  A question, and an option with its letter, are one token each.
    """
    phrases = fixed_parts(templates) | set(QUESTIONS.values()) | set(letter_words())
    asked = "\n".join([*QUESTIONS.values(), *letter_words()])
    said = "".join(f" {color}" for color in PALETTE)
    seen = "".join(seen_words())
    thoughts = [
        f"<think>\nThe nearest is{said}.\n</think>\n<answer></answer>",
        f"The{said} goes{seen}.",
        f"{_ORDINALS[0]}{said}" + "".join(f", {ordinal}{said}" for ordinal in _ORDINALS[1:MOST_MOVERS]),
    ]
    return tokenizer_of(phrases, [*(template.format(question=asked) for template in templates), *thoughts])
