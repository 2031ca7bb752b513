"""Questions have one right letter that their text does not tell; both ways of answering can be written and read."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from r1mm.mini.choices import (
    KINDS,
    LETTERS,
    QUESTIONS,
    Asked,
    Choice,
    Kind,
    ask,
    build_choice_tokenizer,
    choice_of,
    direct_answer,
    kinds_for,
    letter_words,
    nearest_first,
    right_answer,
    sample_asked,
    seen_words,
    thinking_answer,
)
from r1mm.mini.language import cut_short
from r1mm.mini.motion import PALETTE, WORLDS, Film
from r1mm.train.rewards import gives_letter, is_accurate, matches_format

# Open-R1-Video's own template, with the blank at its end, and the direct one of the miniatures.
TEMPLATES = [
    "{question} Output the thinking process in <think> </think> and final answer in <answer> </answer> tags, i.e., "
    "<think> reasoning process here </think><answer> answer here </answer>. ",
    "{question} Answer in <answer> </answer> tags.",
]
EACH = 48  # each letter beside each colour, direction and number equally often


@pytest.fixture(scope="module")
def asked() -> dict[Kind, list[Asked]]:
    return {
        kind: [
            sample_asked(WORLDS["clevr-like"], kind, i, np.random.default_rng([k, i]), filename=f"{kind}{i}.mp4")
            for i in range(EACH)
        ]
        for k, kind in enumerate(KINDS)
    }


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_choice_tokenizer(TEMPLATES)


def film_of(colors: dict[str, float], *movers: tuple[str, float, float]) -> Film:
    """Solids by colour and distance from the camera; movers by direction, and by where their way along x leads."""
    objects = [{"color": color, "3d_coords": [0.0, y, 0.5]} for color, y in colors.items()]
    scene = {"image_filename": "", "objects": objects, "appearance": {"camera": {"position": [0.0, -9.0, 7.0]}}}
    paths = [
        {"object": i, "direction": way, "path": [(x, objects[i]["3d_coords"][1]) for x in np.linspace(start, end, 8)]}
        for i, (way, start, end) in enumerate(movers)
    ]
    return {"scene": scene, "movers": paths, "frames": 8}  # type: ignore[typeddict-item]


def test_the_right_letter_is_true_of_the_film(asked: dict[Kind, list[Asked]]) -> None:
    for kind, some in asked.items():
        for one in some:
            choice, film = choice_of(one), one["film"]
            assert len(set(choice.options)) == 4
            assert choice.answer == right_answer(film, kind)
            lines = choice.problem.split("\n")
            assert lines[0] == QUESTIONS[kind]
            assert f"{choice.letter}. {right_answer(film, kind)}" in lines[1:]
            assert choice.solution == f"<answer>{choice.letter}.</answer>"
            assert kind == "count" or len(film["movers"]) == 1
            if kind == "color":  # to have seen a colour is not enough
                assert {item["color"] for item in film["scene"]["objects"]} <= set(choice.options)


def test_letters_and_answers_are_dealt_out_evenly(asked: dict[Kind, list[Asked]]) -> None:
    for kind, some in asked.items():
        choices = [choice_of(one) for one in some]
        assert Counter(choice.letter for choice in choices) == dict.fromkeys(LETTERS, EACH // 4)
        assert len(set(Counter(choice.answer for choice in choices).values())) == 1, kind
        assert Counter(len(one["film"]["movers"]) for one in some) == (
            dict.fromkeys(range(4), EACH // 4) if kind == "count" else {1: EACH}
        )


def test_the_options_do_not_tell_which_colour_is_right() -> None:
    # Over many questions asked anew: given that two colours stand side by side, each is right as often as the other.
    rng = np.random.default_rng(5)
    film = film_of({"red": 0, "blue": 1}, ("left", 1, -1))
    right: Counter[str] = Counter()
    for _ in range(3000):
        one, other = (str(color) for color in rng.permutation(PALETTE)[:2])
        film["scene"]["objects"][0]["color"], film["scene"]["objects"][1]["color"] = one, other
        choice = ask(film, "color", rng)
        if {"green", "purple"} <= set(choice.options):
            right[choice.answer] += 1
    total = sum(right.values())
    assert total > 1000
    # 4 standard deviations of a quarter of a thousand draws.
    assert right["green"] / total == pytest.approx(0.25, abs=0.055)
    assert right["purple"] / total == pytest.approx(0.25, abs=0.055)


def test_asked_anew_the_truth_stays_and_the_letter_goes_round() -> None:
    rng, film = np.random.default_rng(0), film_of({"red": 0, "blue": 1}, ("left", 1, -1))
    choices = [ask(film, "color", rng) for _ in range(200)]
    assert {choice.answer for choice in choices} == {"red"}
    assert set(Counter(choice.letter for choice in choices)) == set(LETTERS)
    assert len({choice.options for choice in choices}) > 50
    assert {ask(film, "direction", rng, "C").letter for _ in range(10)} == {"C"}


def test_a_film_is_asked_only_what_does_not_tell(asked: dict[Kind, list[Asked]]) -> None:
    assert kinds_for(asked["color"][0], KINDS) == ["color", "direction"]
    assert kinds_for(asked["direction"][0], ["direction", "count"]) == ["direction"]
    one_mover = next(one for one in asked["count"] if len(one["film"]["movers"]) == 1)
    assert kinds_for(one_mover, KINDS) == ["count"]
    with pytest.raises(ValueError, match="2 solids move"):
        right_answer(film_of({"red": 0, "blue": 1}, ("left", 1, -1), ("left", 1, -1)), "color")


@pytest.mark.parametrize(
    ("kind", "solids"), [("color", (2, 5)), ("color", (3, 2)), ("count", (1, 2)), ("color", (0, 2))]
)
def test_solids_that_cannot_be_asked_about_are_refused(kind: Kind, solids: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="solids is"):
        sample_asked(WORLDS["clevr-like"], kind, 0, np.random.default_rng(0), solids=solids)


def test_the_short_way_says_what_moves() -> None:
    film = film_of({"red": 3, "blue": 1, "green": 2}, ("away", -1, -1.1), ("left", 1, -1))
    count = Choice("count", ("3", "2", "1", "0"), "B")
    assert direct_answer(film, count) == " red away blue left<answer>B. 2</answer>"
    still = film_of({"red": 3, "blue": 1})
    assert direct_answer(still, Choice("count", ("3", "2", "1", "0"), "D")) == " nothing<answer>D. 0</answer>"


def test_the_thinking_way_looks_at_one_picture() -> None:
    film = film_of({"red": 3, "blue": 1, "green": 2, "cyan": 4}, ("away", -1, -1.1))
    assert nearest_first(film) == ["blue", "green", "red", "cyan"]
    color = Choice("color", ("cyan", "red", "green", "blue"), "B")
    assert thinking_answer(film, color) == ("<think>\nThe nearest is blue.\n</think>\n<answer>D. blue</answer>")
    count = Choice("count", ("3", "2", "1", "0"), "C")
    assert (
        thinking_answer(film, count) == "<think>\nFirst blue, second green, third red.\n</think>\n<answer>A. 3</answer>"
    )
    direction = Choice("direction", ("away", "left", "right", "towards"), "A")
    assert thinking_answer(film, direction) == "<think>\nThe red goes left.\n</think>\n<answer>B. left</answer>"


def test_the_thinking_way_is_weak_and_not_worthless(asked: dict[Kind, list[Asked]]) -> None:
    for kind, some in asked.items():
        right = [
            choice_of(one).say(choice_of(one).answer) in thinking_answer(one["film"], choice_of(one)) for one in some
        ]
        assert 0.15 <= sum(right) / len(right) <= 0.6, kind


def test_rewards_read_both_ways(asked: dict[Kind, list[Asked]]) -> None:
    for one in itertools.chain(*(some[:4] for some in asked.values())):
        choice = choice_of(one)
        thought = thinking_answer(one["film"], choice)
        assert matches_format(thought, "full")
        assert not matches_format(thought, "prefix")
        short = re.fullmatch(
            r"( nothing|(?: \w+ \w+)+)<answer>([A-D])\. (\w+)</answer>", direct_answer(one["film"], choice)
        )
        assert short is not None
        assert short[2] == choice.letter
        assert gives_letter(short[0], choice.solution)
        said = re.fullmatch(r"<think>\n.*\n</think>\n<answer>([A-D])\. (\w+)</answer>", thought)
        assert said is not None
        assert choice.options[LETTERS.index(said[1])] == said[2]
        # What math-verify makes of a trace with numbers in it: nothing that passes for the letter.
        assert not is_accurate(thought, choice.solution)


def test_every_text_survives_the_round_trip(asked: dict[Kind, list[Asked]], tokenizer: PreTrainedTokenizerFast) -> None:
    rng = np.random.default_rng(0)
    for one in itertools.chain(*asked.values()):
        choice = choice_of(one)
        thought = thinking_answer(one["film"], choice)
        texts = [*(template.format(question=choice.problem) for template in TEMPLATES), thought]
        texts += [direct_answer(one["film"], choice), cut_short(thought, rng)]
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_questions_and_options_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    choice = Choice("direction", ("left", "away", "towards", "right"), "A")
    tokens = tokenizer.tokenize(TEMPLATES[0].format(question=choice.problem))
    lines = [QUESTIONS["direction"], "A. left", "B. away", "C. towards", "D. right"]
    assert tokens[:9] == [token for line in lines for token in (line, "\n")][:9]
    assert len(tokens) < 30
    # The very token of the question: what is right can be copied.
    film = film_of({"red": 0, "blue": 1}, ("left", 1, -1))
    assert tokenizer.tokenize(direct_answer(film, choice)) == [" red", " left", "<answer>", "A. left", "</answer>"]
    assert {*letter_words(), *seen_words()} <= set(tokenizer.get_vocab())
