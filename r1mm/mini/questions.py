"""Questions about a miniature's scenes, worded as CLEVR words them, with answers worked out from the scene.

They come in the form of CLEVR's questions files, so that a miniature passes through the code that reads those.  Not
CLEVR's generator: these name one or two attributes, where CLEVR chains relations.  Wording and synonyms are those of
facebookresearch/clevr-dataset-gen@9742828:question_generation (CLEVR_1.0_templates/zero_hop.json,
compare_integer.json, synonyms.json).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np

from r1mm.distill_parts import QuestionKind
from r1mm.mini.scenes import CLEVR_LIKE, SUPERCLEVR_LIKE, Scene, SceneObject, World
from r1mm.rundir import write_text

KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)
ATTRIBUTES = ("size", "color", "material", "shape")  # in the order in which CLEVR names them


def _values(world: World) -> dict[str, tuple[str, ...]]:
    return {
        "size": tuple(world.sizes),
        "color": tuple(world.colors),
        "material": world.materials,
        "shape": world.shapes,
    }


_CLEVR = _values(CLEVR_LIKE)
# Of both worlds.
VALUES = {name: tuple(dict.fromkeys([*_CLEVR[name], *_values(SUPERCLEVR_LIKE)[name]])) for name in ATTRIBUTES}
SYNONYMS = {
    **{"big": "large", "tiny": "small", "ball": "sphere", "block": "cube"},
    **{"metallic": "metal", "shiny": "metal", "matte": "rubber"},
}
ANYTHING = ("thing", "object", "item")  # nouns that name no shape

COUNT_PHRASES = ("How many {one} are there?", "What number of {one} are there?")
COMPARE_PHRASES = {
    "greater": "Is the number of {one} greater than the number of {other}?",
    "less": "Is the number of {one} less than the number of {other}?",
    "same": "Is the number of {one} the same as the number of {other}?",
}
MORE_PHRASES = {"greater": "Are there more {one} than {other}?", "less": "Are there fewer {one} than {other}?"}
COLOR_PHRASE = "What color is the {one}?"

_SHOWN_SHARE = 0.8  # of the nouns: made from an object of the scene, so that most counts are not 0
_ATTEMPTS = 20


class Question(TypedDict):
    """A question in the form of CLEVR's questions files, as far as the distillation reads them."""

    image_filename: str
    image_index: int
    question_index: int
    question: str
    answer: str


@dataclass(frozen=True)
class Noun:
    """What a question asks about: objects with some attributes, `small metal cubes`; none name all, `things`."""

    attributes: Mapping[str, str]

    def holds(self, thing: Mapping[str, object]) -> bool:
        """Whether an object is one of those named."""
        return all(thing[attribute] == value for attribute, value in self.attributes.items())

    def count(self, things: Iterable[Mapping[str, object]]) -> int:
        """How many of `things` are named."""
        return sum(map(self.holds, things))

    def words(self, *, plural: bool = True) -> str:
        """The noun in CLEVR's words and order."""
        named = {"shape": "thing", **self.attributes}
        shape = named.pop("shape")
        return " ".join([*(named[a] for a in ATTRIBUTES if a in named), plural_of(shape) if plural else shape])


def plural_of(noun: str) -> str:
    """`cubes`, `buses`."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def compare(how: str, one: int, other: int) -> str:
    """`yes` or `no` to whether one number is `greater` or `less` than the other, or the `same`."""
    return "yes" if {"greater": one > other, "less": one < other, "same": one == other}[how] else "no"


def write_questions(
    path: Path, scenes: Sequence[Scene], per_image: int, shares: Mapping[QuestionKind, float], seed: int
) -> Path:
    """Write a questions file about `scenes`: `per_image` questions each, of kinds in these shares (which sum to 1).

    A scene's questions depend on `seed` and its place alone, and no two of them are the same.
    """
    kinds, weights = zip(*shares.items(), strict=True)
    questions: list[Question] = []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, index])
        asked: dict[str, str] = {}
        for text, answer in _ask_on(scene["objects"], kinds, weights, rng):
            asked.setdefault(text, answer)
            if len(asked) == per_image:
                break
        for text, answer in asked.items():
            questions.append(
                Question(
                    image_filename=scene["image_filename"],
                    image_index=index,
                    question_index=len(questions),
                    question=text,
                    answer=answer,
                )
            )
    return write_text(path, json.dumps({"questions": questions}))


def _ask_on(
    objects: Sequence[SceneObject], kinds: Sequence[QuestionKind], weights: Sequence[float], rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Questions and answers without end, of kinds drawn by weight; some may come again."""
    while True:
        yield ask(objects, kinds[int(rng.choice(len(kinds), p=weights))], rng)


def ask(objects: Sequence[SceneObject], kind: QuestionKind, rng: np.random.Generator) -> tuple[str, str]:
    """A question of one kind about a scene's objects, and its answer as CLEVR writes it: `3`, `yes`, `red`.

    A colour is asked of what only one object is; where none was found, another kind is asked instead (`more`).
    """
    if kind == "color":
        for _ in range(_ATTEMPTS):
            thing = objects[int(rng.integers(len(objects)))]
            noun = _noun_of(thing, ("size", "material", "shape"), rng)
            if noun.count(objects) == 1:
                return COLOR_PHRASE.format(one=noun.words(plural=False)), thing["color"]
        kind = "more"
    one = _noun(objects, rng)
    if kind == "count":
        phrase = COUNT_PHRASES[rng.integers(len(COUNT_PHRASES))]
        return phrase.format(one=one.words()), str(one.count(objects))
    other = _noun(objects, rng)
    while other == one:
        other = _noun(objects, rng)
    phrases = COMPARE_PHRASES if kind == "compare" else MORE_PHRASES
    how = list(phrases)[rng.integers(len(phrases))]
    text = phrases[how].format(one=one.words(), other=other.words())
    return text, compare(how, one.count(objects), other.count(objects))


def _noun(objects: Sequence[SceneObject], rng: np.random.Generator) -> Noun:
    if rng.random() < _SHOWN_SHARE:
        return _noun_of(objects[int(rng.integers(len(objects)))], ATTRIBUTES, rng)
    return _noun_of({name: str(rng.choice(values)) for name, values in _CLEVR.items()}, ATTRIBUTES, rng)


def _noun_of(thing: Mapping[str, object], among: Sequence[str], rng: np.random.Generator) -> Noun:
    """A noun that names `thing` by one or two of the attributes `among`."""
    chosen = rng.permutation(len(among))[: rng.integers(1, 3)]
    return Noun({among[i]: str(thing[among[i]]) for i in sorted(chosen.tolist())})
