"""The tiny model's vocabulary holds all that is distilled, and the other miniature's stays as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from r1mm.data.counting import solution_text
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import PALETTE, warm_start_examples
from r1mm.mini.language import build_tokenizer
from r1mm.mini.questions import write_questions
from r1mm.mini.reasoner import ENDINGS, MISTAKES, reply
from r1mm.mini.scenes import CLEVR_LIKE, SUPERCLEVR_LIKE, sample_scene
from r1mm.mini.traces import DESCRIBE, build_trace_tokenizer, traced_examples
from r1mm.recipe_files import RECIPES, load_recipe
from tests.unit.mini.test_reasoner import habits_of

RECIPE = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
TEMPLATES = [getattr(RECIPE.prompts, name).value for name in ("train", "evaluation", "direct")]
COUNT_ALL = "How many items are there in the described scene?"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_trace_tokenizer(TEMPLATES, PALETTE)


def test_r1v_minis_tokenizer_is_what_it_was() -> None:
    made = build_tokenizer(TEMPLATES, PALETTE).backend_tokenizer.to_str()
    assert (
        hashlib.sha256(made.encode()).hexdigest() == "66b698fb62735335ca02efcf24dc8a71305a59276649fb17a4a2e6f702dd060c"
    )


def test_questions_and_thoughts_survive_the_round_trip(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    habits = habits_of(dict.fromkeys(MISTAKES, 0.1), {name: 1 / len(ENDINGS) for name in ENDINGS}, rechecks=0.2)
    scenes = [
        sample_scene(world, 1 + i % 10, np.random.default_rng([i]), f"{i}.png")
        for i in range(20)
        for world in (CLEVR_LIKE, SUPERCLEVR_LIKE)
    ]
    write_questions(tmp_path / "q.json", scenes, 6, {"count": 0.6, "compare": 0.4}, 1)
    questions = json.loads((tmp_path / "q.json").read_text())["questions"]
    questions += [{"image_index": i, "question": COUNT_ALL, "answer": len(s["objects"])} for i, s in enumerate(scenes)]
    traces = 0
    for one in questions:
        lines = (
            f"A {thing['size']} {thing['color']} {thing['material']} {thing['shape']} rotated 1.0° located at 3D "
            f"coordinates (1, 2, 3) and pixel coordinates ({thing['pixel_coords'][0]:.0f}, 4, 5)\n"
            for thing in scenes[one["image_index"]]["objects"]
        )
        said = reply(f"Scene Description:\n{''.join(lines)}\nQuestion:\n{one['question']}", habits, 1, 300)
        assert said.ending is not None, one["question"]
        texts = [one["question"], one["question"].replace("described scene", "image")]
        if "<think>" in said.text and "</think>" in said.text:
            thoughts = said.text.partition("</think>")[0].replace("scene description", "image")
            texts.append(f"{thoughts}</think>\n\n{solution_text(one['answer'])}")
            traces += 1
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert traces > 150


def test_what_recurs_is_one_token_and_questions_share_their_parts(tokenizer: PreTrainedTokenizerFast) -> None:
    thought = "Going through the image from left to right. First red cube, second blue sphere. So 2."
    assert tokenizer.tokenize(thought) == [
        "Going through the image from left to right.",
        *(" First", " red", " cube", ", second", " blue", " sphere", ".", " So", " 2", "."),
    ]
    described, evaluated = (tokenizer.tokenize(text) for text in (COUNT_ALL, QUESTIONS["evaluation"]))
    assert described == ["How many", " items", " are there", " in the described scene", "?"]
    assert evaluated == ["How many", " different", " items", " are there", " in the image", "?"]
    asked = "Is the number of red things less than the number of cubes?"
    assert tokenizer.tokenize(asked) == [
        *("Is the number of", " red", " things", " less than the number of", " cubes", "?")
    ]


def test_some_of_the_warm_start_describes_the_picture_truly(tokenizer: PreTrainedTokenizerFast) -> None:
    scenes = [sample_scene(CLEVR_LIKE, 1 + i % 6, np.random.default_rng([i]), f"{i}.png") for i in range(12)]
    settings = {key: setting.value for key, setting in RECIPE.warm_start.items()}
    settings |= {"max_steps": 20, "describe_share": 0.4}
    named = {name: getattr(RECIPE.prompts, name).value for name in ("train", "evaluation", "direct")}
    examples = list(traced_examples(scenes, named, settings, seed=1))
    assert examples == list(traced_examples(scenes, named, settings, seed=1))
    described = [example for example in examples if example.prompt == DESCRIBE]
    assert len(described) / len(examples) == pytest.approx(0.4, abs=0.05)
    for example in described:
        things = sorted(scenes[example.item]["objects"], key=lambda thing: thing["pixel_coords"][0])
        opener, listed = example.response.split(" First ")
        assert opener == "Going through the image from left to right."
        names = [" ".join(part.split()[-2:]) for part in listed.removesuffix(".").split(", ")]
        assert names == [f"{thing['color']} {thing['shape']}" for thing in things]
        assert tokenizer.decode(tokenizer(example.response)["input_ids"]) == example.response
    # The others are those of the miniature without traces.
    plain = list(warm_start_examples(scenes, named, settings, seed=1))
    assert [one for one in examples if one.prompt != DESCRIBE] == [
        one for one, other in zip(plain, examples, strict=True) if other.prompt != DESCRIBE
    ]
