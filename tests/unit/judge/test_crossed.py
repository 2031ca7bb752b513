"""Seeds crossed with items: the interval's parts by hand, its calibration by simulation, and the bootstraps."""

import math

import numpy as np
import pytest
from scipy.stats import beta, t

from r1mm.errors import BadInput
from r1mm.judge import crossed
from r1mm.judge.power import simulate
from r1mm.judge.statistics import paired_difference


def table(rights: list[int], n: int = 200) -> list[list[float]]:
    return [[float(k < right) for k in range(n)] for right in rights]


def test_parts_are_the_variances_of_seed_and_item_means() -> None:
    differences = [[1.0, 0.0, -1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, -1.0, 1.0]]
    found, seeds, items = crossed.over_seeds(differences, shares=False)
    by_seed = [0.25, 0.5, 0.25]
    assert found.value == pytest.approx(1 / 3)
    assert seeds == pytest.approx(math.sqrt(np.var(by_seed, ddof=1) / 3))
    by_item = [2 / 3, 2 / 3, -2 / 3, 2 / 3, 1.0, -1.0]  # half an item at either extreme counts as two of weight a half
    weights = [1, 1, 1, 1, 0.5, 0.5]
    mean = np.average(by_item, weights=weights) * 5 / 6
    variance = (np.average(np.square(by_item), weights=weights) * 5 / 6 - mean**2) / 6
    assert items == pytest.approx(math.sqrt(variance))
    half = math.hypot(t.ppf(0.95, 3) * items + 0.5 / 4, t.ppf(0.95, 2) * seeds)
    assert found.interval.high - found.value == pytest.approx(half)


def test_a_share_without_seed_spread_has_an_exact_interval_of_its_effective_items() -> None:
    found, seeds, _ = crossed.over_seeds(table([150, 150, 150]), shares=True)
    assert seeds == 0.0
    effective = 0.75 * 0.25 / ((152 / 204) * (52 / 204) / 204)
    assert found.interval.low == pytest.approx(beta.ppf(0.05, 0.75 * effective, 0.25 * effective + 1))
    assert found.interval.high == pytest.approx(beta.ppf(0.95, 0.75 * effective + 1, 0.25 * effective))


@pytest.mark.parametrize("right", [0, 200])
def test_all_right_or_wrong_still_has_an_interval(right: int) -> None:
    found, _, _ = crossed.over_seeds(table([right, right]), shares=True)
    assert 0.005 < found.interval.high - found.interval.low < 0.05
    assert 0.0 <= found.interval.low <= found.value <= found.interval.high <= 1.0


def test_seeds_that_lie_apart_widen_the_interval() -> None:
    close, _, _ = crossed.over_seeds(table([148, 150, 152]), shares=True)
    apart, _, _ = crossed.over_seeds(table([130, 150, 170]), shares=True)
    assert apart.value == close.value
    assert apart.interval.high - apart.interval.low > 2 * (close.interval.high - close.interval.low)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.04), (3, 0.02), (5, 0.0)])
def test_either_end_errs_in_at_most_five_percent(seeds: int, spread: float) -> None:
    sets = 1000
    tables = simulate(
        np.random.default_rng(3), sets=sets, seeds=seeds, n=200, mean=0.825, spread=spread, correlation=0.5
    )
    found = crossed.crossed(tables, shares=True)
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / sets)
    assert float(np.mean(found.low > 0.825)) <= allowed
    assert float(np.mean(found.high < 0.825)) <= allowed


def test_the_percentile_bootstrap_is_too_narrow_for_two_seeds() -> None:
    tables = simulate(np.random.default_rng(3), sets=150, seeds=2, n=200, mean=0.825, spread=0.04, correlation=0.5)
    missed = sum(
        not interval.low <= 0.825 <= interval.high
        for interval in (crossed.hierarchical_bootstrap(one.tolist(), 0.9, resamples=200) for one in tables)
    )
    judged = crossed.crossed(tables, shares=True)
    ours = int(np.sum((judged.low > 0.825) | (judged.high < 0.825)))
    assert missed > 15 > ours  # 10 % of 150


def test_the_hierarchical_bootstrap_is_seeded_and_knows_both_sources() -> None:
    values = table([130, 150, 170])
    found = crossed.hierarchical_bootstrap(values, 0.9)
    assert found == crossed.hierarchical_bootstrap(values, 0.9)
    assert found == crossed.hierarchical_bootstrap([row[::-1] for row in values], 0.9)
    assert found != crossed.hierarchical_bootstrap(values, 0.9, seed=1)
    items_only = crossed.hierarchical_bootstrap([values[1]], 0.9)
    assert found.high - found.low > 1.3 * (items_only.high - items_only.low)
    # Over one seed it is the bootstrap of a share: its standard error is that of a binomial.
    assert items_only.high - items_only.low == pytest.approx(2 * 1.645 * math.sqrt(0.75 * 0.25 / 200), rel=0.1)


def test_the_paired_bootstrap_agrees_with_tango() -> None:
    ours = [True] * 100 + [False] * 100
    theirs = [True] * 70 + [False] * 30 + [True] * 10 + [False] * 90
    bootstrap = crossed.paired_bootstrap(ours, theirs, 0.95)
    _, tango = paired_difference(ours, theirs, 0.95)
    assert bootstrap == crossed.paired_bootstrap(ours[::-1], theirs[::-1], 0.95)
    assert bootstrap.low == pytest.approx(tango.low, abs=0.015)
    assert bootstrap.high == pytest.approx(tango.high, abs=0.015)
    assert tango.low < bootstrap.low < 0.1 < bootstrap.high < tango.high  # Tango's is corrected for continuity
    same = crossed.paired_bootstrap(ours, ours, 0.95)
    assert (same.low, same.high) == (0.0, 0.0)


def test_what_is_not_crossed_is_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \(1, 3\) is not crossed"):
        crossed.over_seeds([[1.0, 0.0, 1.0]], shares=True)
    with pytest.raises(BadInput, match="cannot be paired"):
        crossed.paired_bootstrap([True], [], 0.95)
