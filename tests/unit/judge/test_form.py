"""The parts of a gain add up, are what their formula says, and have intervals that hold them."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest

from r1mm.errors import BadInput
from r1mm.judge.form import decompose, form_effect, form_score


@dataclass(frozen=True)
class Read:
    item: str
    parseable: bool = True
    right: bool = False
    forced: str | None = "tag"
    forced_right: bool = False


def made(parseable: int, right: int, forced_right: int, n: int = 200, seed: int = 0) -> list[Read]:
    """So many of `n`; those without the form that are right by force come first among those without it."""
    outputs = [
        Read(
            item=f"i{k}",
            parseable=k < parseable,
            right=k < right,
            forced="tag" if k < parseable + forced_right - right else None,
            forced_right=k < right or parseable <= k < parseable + forced_right - right,
        )
        for k in random.Random(seed).sample(range(n), n)
    ]
    return [Read(**{**vars(one), "item": f"i{k}"}) for k, one in enumerate(outputs)]


def shares(p: float, right: float) -> np.ndarray:
    return np.array([p, right])


@pytest.mark.parametrize(
    ("before", "after", "parsing", "answering"),
    [
        ((0.5, 0.3), (1.0, 0.6), 0.3, 0.0),  # 60 % of what can be read, both times
        ((1.0, 0.3), (1.0, 0.6), 0.0, 0.3),
        ((0.5, 0.2), (1.0, 0.6), 0.5 * (0.4 + 0.6) / 2, 0.2 * (0.5 + 1.0) / 2),
        ((1.0, 0.5), (0.5, 0.45), -0.5 * (0.5 + 0.9) / 2, 0.4 * 1.5 / 2),  # less is read, of that more is right
        ((0.0, 0.0), (0.8, 0.4), 0.4, 0.0),  # before nothing could be read: all of it is parsing
        ((0.8, 0.4), (0.0, 0.0), -0.4, 0.0),
        ((0.0, 0.0), (0.0, 0.0), 0.0, 0.0),
    ],
)
def test_parts_by_hand(
    before: tuple[float, float], after: tuple[float, float], parsing: float, answering: float
) -> None:
    found = decompose(shares(*before), shares(*after))
    assert found == (pytest.approx(parsing), pytest.approx(answering))


def test_parts_add_up_to_the_gain_and_turn_round_with_it() -> None:
    grid = [0.0, 0.1, 0.35, 0.9, 1.0]
    states = [(p, p * a) for p, a in itertools.product(grid, grid)]
    for before, after in itertools.product(states, states):
        parsing, answering = decompose(shares(*before), shares(*after))
        assert parsing + answering == pytest.approx(after[1] - before[1], abs=1e-12)
        back = decompose(shares(*after), shares(*before))
        assert back == (pytest.approx(-parsing, abs=1e-12), pytest.approx(-answering, abs=1e-12))
    many = decompose(np.array([states[3], states[7]]), np.array([states[20], states[24]]))
    assert many[0][1] == pytest.approx(decompose(shares(*states[7]), shares(*states[24]))[0])


def test_a_split_by_hand() -> None:
    # The counts of upstream's recorded outputs on SuperCLEVR-200, read as `evaluate.readings` does.
    readings = {
        "base-think": made(155, 96, 99),
        "base-direct": made(200, 170, 170),
        "trained-think": made(200, 165, 165, seed=1),
    }
    found = form_effect("set", readings)
    base = found.scores["base-think"]
    assert (base.n, base.parseable, base.found, base.forced) == (200, 77.5, 79.0, 49.5)
    assert base.answering == pytest.approx(100 * 96 / 155)
    assert base.answering_interval.low < base.answering < base.answering_interval.high
    assert list(found.scores) == list(readings)
    assert found.gain.points == pytest.approx(34.5)
    assert found.forced.points == pytest.approx(33.0)
    assert found.parsing.points == pytest.approx(100 * 0.225 * (96 / 155 + 0.825) / 2)
    assert found.parsing.points + found.answering.points == pytest.approx(found.gain.points)
    for part in (found.gain, found.parsing, found.answering, found.forced):
        assert part.interval.low < part.points < part.interval.high
    assert found == form_effect("set", {name: list(reversed(outputs)) for name, outputs in readings.items()})


def test_items_are_drawn_in_pairs() -> None:
    # The same items cannot be read before and after: the share is uncertain, its change is not.
    before, after = made(100, 50, 50), made(100, 50, 50)
    found = form_effect("set", {"base-think": before, "trained-think": after})
    assert (found.parsing.points, found.parsing.interval.low, found.parsing.interval.high) == (0.0, 0.0, 0.0)
    other = form_effect("set", {"base-think": before, "trained-think": made(100, 50, 50, seed=1)})
    assert other.parsing.points == pytest.approx(0.0)
    assert other.parsing.interval.low < -2 < 2 < other.parsing.interval.high


def test_the_interval_of_the_parts_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    wanted = decompose(shares(0.6, 0.3), shares(0.9, 0.6))
    held = np.zeros(2)
    for _ in range(150):
        readings = {}
        for condition, p, right in (("base-think", 0.6, 0.3), ("trained-think", 0.9, 0.6)):
            draws = chance.random(150)
            readings[condition] = [Read(f"i{k}", draw < p, draw < right) for k, draw in enumerate(draws)]
        found = form_effect("set", readings)
        for i, part in enumerate((found.parsing, found.answering)):
            held[i] += part.interval.low <= 100 * wanted[i] <= part.interval.high
    assert (held / 150 > 0.88).all()  # 95 % by its name; 150 draws are 3.6 points of two standard errors


def test_what_cannot_be_taken_apart_is_refused() -> None:
    one, two = made(2, 1, 1, n=2), made(3, 1, 1, n=3)
    with pytest.raises(BadInput, match="split 'set' needs readings of trained-think, one of each item; it has 0"):
        form_effect("set", {"base-think": one})
    with pytest.raises(BadInput, match="needs readings of base-think, one of each item; it has 4"):
        form_effect("set", {"base-think": one * 2, "trained-think": one})
    with pytest.raises(BadInput, match="base-think has 2 items and trained-think 3, not the same"):
        form_effect("set", {"base-think": one, "trained-think": two})
    with pytest.raises(BadInput, match=r"no outputs to read \(0 records\)"):
        form_score([])
    nothing = form_score(made(0, 0, 0))
    assert (nothing.parseable, nothing.answering, nothing.answering_interval) == (0.0, None, None)
