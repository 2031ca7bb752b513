"""Questions about scenes are worded as CLEVR's are, and their answers are true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from r1mm.mini.questions import ATTRIBUTES, KINDS, Noun, ask, compare, write_questions
from r1mm.mini.scenes import CLEVR_LIKE, Scene, sample_scene

SHARES = {"count": 0.5, "compare": 0.2, "more": 0.2, "color": 0.1}
THINGS = [
    {"size": "large", "color": "red", "material": "metal", "shape": "cube"},
    {"size": "small", "color": "red", "material": "rubber", "shape": "cube"},
    {"size": "small", "color": "blue", "material": "rubber", "shape": "sphere"},
]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(CLEVR_LIKE, 1 + i % 6, np.random.default_rng([3, i]), f"s_{i}.png") for i in range(60)]


@pytest.mark.parametrize(
    ("attributes", "words", "count"),
    [
        ({}, "things", 3),
        ({"color": "red"}, "red things", 2),
        ({"shape": "cube"}, "cubes", 2),
        ({"shape": "sphere", "size": "small"}, "small spheres", 1),
        ({"material": "metal", "color": "blue"}, "blue metal things", 0),
        ({"shape": "bus"}, "buses", 0),
    ],
)
def test_a_noun_names_what_has_its_attributes(attributes: dict[str, str], words: str, count: int) -> None:
    noun = Noun(attributes)
    assert noun.words() == words
    assert noun.count(THINGS) == count


@pytest.mark.parametrize(("how", "answers"), [("greater", "yes no no"), ("less", "no no yes"), ("same", "no yes no")])
def test_numbers_are_compared(how: str, answers: str) -> None:
    assert [compare(how, *pair) for pair in ((2, 1), (2, 2), (1, 2))] == answers.split()


def test_a_question_about_one_attribute_of_a_known_scene() -> None:
    objects: list[dict[str, str]] = [THINGS[0]] * 2
    asked = {ask(objects, "count", np.random.default_rng(seed)) for seed in range(200)}  # type: ignore[arg-type]
    assert ("How many red cubes are there?", "2") in asked
    assert ("What number of metal things are there?", "2") in asked
    # Nothing is blue, and no object is the only one of its kind, so that no colour can be asked.
    assert {answer for _, answer in asked} == {"0", "2"}
    assert ask(objects, "color", np.random.default_rng(0))[0].startswith("Are there")  # type: ignore[arg-type]


def test_the_file_has_clevrs_form_and_every_kind(scenes: list[Scene], tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.json", scenes, 5, SHARES, seed=4)
    questions = json.loads(path.read_text())["questions"]
    assert [one["question_index"] for one in questions] == list(range(len(scenes) * 5))
    assert [one["image_filename"] for one in questions] == [s["image_filename"] for s in scenes for _ in range(5)]
    for i, scene in enumerate(scenes):
        own = [one for one in questions if one["image_index"] == i]
        assert len({one["question"] for one in own}) == 5
        for one in own:
            if one["question"].startswith("What color"):
                assert one["answer"] in {thing["color"] for thing in scene["objects"]}
    asking = Counter(
        "count" if one["question"].startswith(("How many", "What number")) else one["question"].split()[0]
        for one in questions
    )
    assert asking["count"] / len(questions) == pytest.approx(SHARES["count"], abs=0.08)
    assert set(asking) == {"count", "Is", "Are", "What"}
    counts = [one["answer"] for one in questions if one["question"].startswith("How many")]
    assert len(set(counts)) >= 4
    assert counts.count("0") < len(counts) / 2
    yes = Counter(one["answer"] for one in questions if one["question"].startswith("Is the number"))
    assert set(yes) == {"yes", "no"}


def test_an_items_questions_depend_on_seed_and_place_alone(scenes: list[Scene], tmp_path: Path) -> None:
    def made(some: list[Scene], seed: int) -> list[dict[str, object]]:
        path = write_questions(tmp_path / "q.json", some, 3, SHARES, seed)
        questions: list[dict[str, object]] = json.loads(path.read_text())["questions"]
        return questions

    assert made(scenes[:4], 1) == made(scenes, 1)[:12]
    assert made(scenes[:4], 1) != made(scenes[:4], 2)


def test_kinds_and_attributes_are_clevrs() -> None:
    assert set(SHARES) == set(KINDS)
    assert set(ATTRIBUTES) == set(THINGS[0])
