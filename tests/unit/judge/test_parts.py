"""Claims about the parts of a gain: their value, their interval, reference rows, several seeds."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from r1mm.expected import Expected, Measured, ReferenceRow
from r1mm.judge.form import decompose, parsing_by_item
from r1mm.judge.seeds import judge_seeds
from r1mm.judge.statistics import mean_over_items
from r1mm.judge.verdict import judge
from r1mm.recipe import Condition
from tests.outputs import SOURCE, Scored, claim, outputs

N = 200


def read(parsed: int, right: int, seed: int = 0) -> list[Scored]:
    """`parsed` of N outputs have an answer, `right` of them the right one."""
    made = [Scored(f"i{k}", parsed=None if k >= parsed else 2 if k < right else 3, correct=k < right) for k in range(N)]
    order = random.Random(seed).sample(range(N), N)
    return [replace(made[k], item=f"i{place}") for place, k in enumerate(order)]


def run(base: tuple[int, int], trained: tuple[int, int], seed: int = 1) -> dict[Condition, Sequence[Scored]]:
    return {**outputs(0, 0), "base-think": read(*base), "trained-think": read(*trained, seed=seed)}


def row(seed: int, base: tuple[int, int], trained: tuple[int, int]) -> ReferenceRow:
    results: dict[Condition, Measured] = {
        condition: Measured(n=N, right=right, unparsed=N - parsed, format=parsed, direct=0, mean_tokens=9.0)
        for condition, (parsed, right) in (("base-think", base), ("trained-think", trained))
    }
    return ReferenceRow(
        who="us", variant="v", seed=seed, hardware="2 cores", code="x", source=SOURCE, results={"set": results}
    )


def test_the_mean_over_items_is_the_part_and_its_spread_that_of_new_items() -> None:
    chance = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(400):
        marks = []
        for p, a in ((0.5, 0.6), (0.9, 0.7)):
            draws = chance.random(300)
            marks.append(np.stack([draws < p, draws < p * a], axis=1).astype(float))
        values = parsing_by_item(*marks)
        part = decompose(marks[0].mean(axis=0), marks[1].mean(axis=0))[0]
        assert values.mean() == pytest.approx(float(part), abs=1e-12)
        found.append(float(part))
        errors.append(math.sqrt(mean_over_items(values.tolist()).variance))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.1)


@pytest.mark.parametrize(
    ("base", "trained", "parsing"),
    [((0, 0), (160, 80), 40.0), ((160, 80), (0, 0), -40.0), ((0, 0), (0, 0), 0.0), ((N, 50), (N, 150), 0.0)],
)
def test_where_nothing_can_be_read_or_all(base: tuple[int, int], trained: tuple[int, int], parsing: float) -> None:
    stated = [claim("parsing", "near", parsing, 20.0), claim("answering", "near", 0.0, 90.0)]
    expected = Expected(recipe="some-recipe", claims=stated, reference_rows=[])
    found = judge(
        expected, recipe="some-recipe", size="full", variant="v", seed=1, base_seed=None,
        outputs={"set": run(base, trained)},
    ).claims  # fmt: skip
    gain = 100 * (trained[1] - base[1]) / N
    assert found[0].value == pytest.approx(parsing, abs=1e-9)
    assert found[0].value + found[1].value == pytest.approx(gain)


def judged(claims: list[Any], rows: Sequence[ReferenceRow] = ()) -> Any:
    expected = Expected(recipe="some-recipe", claims=claims, reference_rows=[*rows])
    return judge(
        expected, recipe="some-recipe", size="full", variant="v", seed=1, base_seed=None,
        outputs={"set": run((100, 60), (190, 152))},
    ).claims  # fmt: skip


def test_claims_by_hand() -> None:
    # Parsing: (0.95 - 0.5) x (0.6 + 0.8) / 2; answering: (0.8 - 0.6) x (0.5 + 0.95) / 2.
    parsing, answering, little = judged(
        [claim("parsing", "at_least", 20.0), claim("answering", "near", 14.0, 10.0), claim("answering", "at_most", 5.0)]
    )
    assert (parsing.value, answering.value) == (pytest.approx(31.5), pytest.approx(14.5))
    assert (parsing.unit, parsing.outcome, answering.outcome) == ("points", "reproduced", "reproduced")
    assert little.outcome == "not reproduced"
    assert parsing.words.startswith("gain by parsing 31.5 points (90 % interval 2")
    assert parsing.interval.low < 31.5 < parsing.interval.high


def test_reference_rows_are_taken_apart_too() -> None:
    rows = [row(seed, (100, 60), (190, right)) for seed, right in enumerate((150, 152, 154))]
    (near,) = judged([claim("parsing", "near", None, 12.0)], rows)
    assert near.reference == pytest.approx(31.5, abs=0.1)
    assert (near.n_reference_rows, near.outcome) == (3, "reproduced")


def test_several_seeds() -> None:
    runs = {seed: {"set": run((100, 60), (190, right), seed)} for seed, right in ((1, 150), (2, 152), (3, 154))}
    expected = Expected(recipe="some-recipe", claims=[claim("parsing", "at_least", 20.0)], reference_rows=[])
    found = judge_seeds(expected, recipe="some-recipe", size="full", variant="v", runs=runs)
    parts = [found.estimates["set"][metric] for metric in ("parsing", "answering", "gain")]
    assert parts[0].by_seed == pytest.approx([31.26, 31.5, 31.74], abs=0.01)
    assert parts[0].value + parts[1].value == pytest.approx(parts[2].value)
    assert parts[0].interval.low < parts[0].bootstrap.low < 31.5 < parts[0].bootstrap.high < parts[0].interval.high
    assert found.claims[0].outcome == "reproduced"
