"""Claims about the parts of a gain: their value, their interval, where they cannot be known, several seeds."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected
from r1mm.judge.claims import ClaimResult
from r1mm.judge.form import (
    FEWEST_EACH,
    FEWEST_READ,
    FormEffect,
    decompose,
    form_effect,
    form_words,
    marks,
    parts_by_item,
)
from r1mm.judge.seeds import judge_seeds
from r1mm.judge.statistics import mean_over_items
from r1mm.judge.verdict import judge
from r1mm.recipe import Condition
from tests.outputs import claim, outputs, scored

N = 200


@dataclass(frozen=True)
class Read:
    item: str
    parseable: bool
    right: bool
    forced: str | None = "tag"
    forced_right: bool = False


Readings = dict[Condition, Sequence[Read]]


def read(parseable: int, right: int, seed: int = 0) -> list[Read]:
    """`parseable` of N outputs can be read, `right` of them are right."""
    order = random.Random(seed).sample(range(N), N)
    return [Read(f"i{place:03d}", k < parseable, k < right) for k, place in enumerate(order)]


def readings(base: tuple[int, int], trained: tuple[int, int], seed: int = 1) -> Readings:
    return {"base-think": read(*base), "trained-think": read(*trained, seed=seed)}


def scores(given: Readings) -> dict[Condition, Any]:
    """The outputs that go with readings."""
    rights = {
        condition: [one.right for one in sorted(found, key=lambda one: one.item)] for condition, found in given.items()
    }
    made = {condition: scored(right) for condition, right in rights.items()}
    named = {
        condition: [replace(one, item=f"i{k:03d}") for k, one in enumerate(side)] for condition, side in made.items()
    }
    direct = [replace(one, item=f"i{k:03d}") for k, one in enumerate(outputs(0, 0)["base-direct"])]
    return {**named, "base-direct": direct}


def judged(claims: Sequence[Claim], given: Readings, with_readings: bool = True) -> list[ClaimResult]:
    expected = Expected(recipe="some-recipe", claims=[*claims], reference_rows=[])
    return judge(
        expected, recipe="some-recipe", size="full", variant="v", seed=1, base_seed=None,
        outputs={"set": scores(given)}, readings={"set": given} if with_readings else None,
    ).claims  # fmt: skip


HAND = readings((100, 60), (190, 152))


def test_the_mean_over_items_is_the_part_and_its_spread_that_of_new_items() -> None:
    chance = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(400):
        both = []
        for p, a in ((0.5, 0.6), (0.9, 0.7)):
            draws = chance.random(300)
            both.append(np.stack([draws < p, draws < p * a], axis=1).astype(float))
        wanted = decompose(both[0].mean(axis=0), both[1].mean(axis=0))
        values = parts_by_item(*both)
        for one, part in zip(values, wanted, strict=True):
            assert one.mean() == pytest.approx(float(part), abs=1e-12)
        found.append(float(wanted[0]))
        errors.append(math.sqrt(mean_over_items(values[0].tolist()).variance))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.1)


def test_claims_by_hand() -> None:
    # Parsing: (0.95 - 0.5) x (0.6 + 0.8) / 2; answering: (0.8 - 0.6) x (0.5 + 0.95) / 2.
    parsing, answering, little = judged(
        [
            claim("parsing", "at_least", 20.0),
            claim("answering", "near", 14.0, 10.0),
            claim("answering", "at_most", 5.0),
        ],
        HAND,
    )
    assert (parsing.value, answering.value) == (pytest.approx(31.5), pytest.approx(14.5))
    assert (parsing.unit, parsing.outcome, answering.outcome) == ("points", "reproduced", "reproduced")
    assert little.outcome == "not reproduced"
    assert parsing.words.startswith("gain by parsing 31.5 points (90 % interval 2")
    assert parsing.interval.low < 31.5 < parsing.interval.high
    # The page's figures are these.
    shown = form_effect("set", HAND)
    assert (shown.parsing.points, shown.answering.points) == (pytest.approx(31.5), pytest.approx(14.5))


@pytest.mark.parametrize(
    ("base", "trained"),
    [
        ((0, 0), (160, 80)),
        ((160, 80), (0, 0)),
        ((0, 0), (0, 0)),
        ((FEWEST_READ - 1, 40), (160, 80)),
        ((160, 80), (FEWEST_READ - 1, 40)),
        ((160, FEWEST_EACH - 1), (160, 80)),
        ((160, 160 - FEWEST_EACH + 1), (160, 80)),
    ],
)
def test_where_too_little_can_be_read_nothing_is_decided(base: tuple[int, int], trained: tuple[int, int]) -> None:
    given = readings(base, trained)
    stated = [
        claim("answering", "at_most", 5.0),
        claim("answering", "at_least", 5.0),
        claim("parsing", "near", 0.0, 9.0),
    ]
    found = judged(stated, given)
    assert [one.outcome for one in found] == ["inconclusive"] * 3
    assert (found[0].interval.low, found[0].interval.high) == (-100.0, 100.0)
    effect = form_effect("set", given)
    gain = 100 * (trained[1] - base[1]) / N
    assert effect.parsing.points + effect.answering.points == pytest.approx(gain)
    assert (effect.parsing.interval.low, effect.answering.interval.high) == (-100.0, 100.0)
    said = form_words("set", effect)
    assert "what of it is parsing is not known, for on one side fewer than 50 outputs can be read, or" in said
    assert "explains" not in said


def test_where_all_can_be_read_all_is_answering_and_not_without_doubt() -> None:
    (parsing,) = judged([claim("parsing", "at_most", 5.0)], readings((N, 50), (N, 150)))
    assert parsing.value == 0.0
    assert parsing.interval.high - parsing.interval.low > 1.0


def test_the_items_read_both_times_are_the_same_items() -> None:
    # Ten come into form, all of them right; of the hundred that were, nothing changes.
    before = [Read(f"i{k:03d}", k < 100, k < 50) for k in range(N)]
    after = [Read(f"i{k:03d}", k < 110, k < 50 or 100 <= k < 110) for k in range(N)]
    effect = form_effect("set", {"base-think": before, "trained-think": after})
    assert effect.both is not None
    assert (effect.both_n, effect.both.points) == (100, 0.0)
    assert effect.answering.interval.low > 0  # those that came are easier than those that were
    assert "On the 100 items that can be read both times the difference is +0.0 (" in form_words("set", effect)
    nothing = form_effect("set", readings((0, 0), (160, 80)))
    assert (nothing.both_n, nothing.both) == (0, None)


def test_no_zero_has_a_sign() -> None:
    effect = form_effect("set", readings((N, 100), (N, 40), seed=0))
    said = form_words("set", effect)
    assert "-0.0" not in said
    assert "-0 %" not in said
    assert FormEffect.model_validate_json(effect.model_dump_json()) == effect


def test_parts_need_readings_and_have_no_reference_rows() -> None:
    with pytest.raises(BadInput, match="parsing on split 'set': there are readings of 0 of 1 runs"):
        judged([claim("parsing", "near", 0.0, 9.0)], HAND, with_readings=False)
    with pytest.raises(BadInput, match="no reference value and 0 reference rows"):
        judged([claim("parsing", "near", None, 9.0)], HAND)


def test_several_seeds() -> None:
    each: Mapping[int, Readings] = {
        seed: readings((100, 60), (190, right), seed) for seed, right in ((1, 150), (2, 152), (3, 154))
    }
    expected = Expected(recipe="some-recipe", claims=[claim("parsing", "at_least", 20.0)], reference_rows=[])
    whole: dict[str, Any] = {"recipe": "some-recipe", "size": "full", "variant": "v"}
    runs = {seed: {"set": scores(one)} for seed, one in each.items()}
    found = judge_seeds(expected, **whole, runs=runs, readings={seed: {"set": one} for seed, one in each.items()})
    parsing, answering, gain = (found.estimates["set"][metric] for metric in ("parsing", "answering", "gain"))
    assert parsing.by_seed == pytest.approx([31.26, 31.5, 31.74], abs=0.01)
    assert parsing.value + answering.value == pytest.approx(gain.value)
    assert parsing.interval.low < parsing.bootstrap.low < 31.5 < parsing.bootstrap.high < parsing.interval.high
    assert found.claims[0].outcome == "reproduced"
    bare = Expected(recipe="some-recipe", claims=[], reference_rows=[])
    assert "parsing" not in judge_seeds(bare, **whole, runs=runs).estimates["set"]
    # One seed of which too little can be read leaves all open.
    short = readings((100, 60), (FEWEST_READ - 1, 40))
    runs[3], mixed = {"set": scores(short)}, {**{seed: {"set": one} for seed, one in each.items()}, 3: {"set": short}}
    found = judge_seeds(expected, **whole, runs=runs, readings=mixed)
    assert found.claims[0].outcome == "inconclusive"


def test_marks() -> None:
    assert marks([Read("a", True, True), Read("b", True, False), Read("c", False, False)]).tolist() == [
        *([1.0, 1.0], [1.0, 0.0], [0.0, 0.0])
    ]
