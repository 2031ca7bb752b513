"""Intervals and tests against known values, and the calibration of the verdict by simulation."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, multinomial, norm, t, ttest_1samp, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from r1mm.errors import BadInput
from r1mm.judge import statistics
from r1mm.judge.statistics import Interval, Measurement

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "verdict_rates.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verdict_rates", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["verdict_rates"] = module
    spec.loader.exec_module(module)
    return module


def matched(only_first: int, only_second: int, n: int) -> tuple[list[bool], list[bool]]:
    same = [index % 2 == 0 for index in range(n - only_first - only_second)]
    return [True] * only_first + [False] * only_second + same, [False] * only_first + [True] * only_second + same


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 29), (81, 263), (15, 148), (200, 200)])
def test_wilson_and_exact_share_match_scipy(right: int, n: int) -> None:
    for ours, method in (
        (statistics.wilson(right, n, 0.95), "wilson"),
        (statistics.exact_share(right, n, 0.95), "exact"),
    ):
        theirs = binomtest(right, n).proportion_ci(0.95, method=method)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_matches_newcombes_published_example() -> None:
    interval = statistics.wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17:857, table I
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_exact_share_bounds_are_one_sided_binomial_tests() -> None:
    interval = statistics.exact_share(150, 200)
    assert binomtest(150, 200, interval.low, alternative="greater").pvalue == pytest.approx(0.05)
    assert binomtest(150, 200, interval.high, alternative="less").pvalue == pytest.approx(0.05)


@pytest.mark.parametrize(("right", "n"), [(1, 0), (5, 4), (-1, 4)])
def test_impossible_shares_are_refused(right: int, n: int) -> None:
    with pytest.raises(BadInput, match=f"{right} right of {n} items"):
        statistics.wilson(right, n)


def test_mcnemar_matches_hand_computation() -> None:
    # 3 against 12 discordant pairs: 2 * P(X <= 3), X binomial(15, 1/2), = 2 * 576 / 32768.
    assert statistics.mcnemar(*matched(12, 3, 40)) == pytest.approx(2 * 576 / 2**15)
    assert statistics.mcnemar(*matched(3, 12, 40)) == pytest.approx(2 * 576 / 2**15)
    assert statistics.mcnemar(*matched(0, 0, 40)) == 1.0


def test_discordant_counts_each_way() -> None:
    assert statistics.discordant([True, True, False, False], [True, False, True, False]) == (1, 1)
    assert statistics.discordant(*matched(12, 3, 40)) == (12, 3)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_unpaired_outcomes_are_refused(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(BadInput, match="cannot be paired"):
        statistics.paired_difference(first, second)


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(40, 20, 160), (1, 7, 21), (30, 0, 200)])
def test_paired_limits_solve_the_score_equation(only_first: int, only_second: int, n: int) -> None:
    """The restricted likelihood is maximised numerically here, in closed form there."""
    value, interval = statistics.paired_difference(*matched(only_first, only_second, n), 0.90)
    assert value == pytest.approx((only_first - only_second) / n)
    for limit, sign in ((interval.low, 1), (interval.high, -1)):
        low, high = max(0.0, -limit), (1 - limit) / 2

        def minus_log_likelihood(q: float, limit: float = limit) -> float:
            cells = (q + limit, q, 1 - 2 * q - limit)
            counts = (only_first, only_second, n - only_first - only_second)
            return -sum(count * math.log(max(cell, 1e-300)) for count, cell in zip(counts, cells, strict=True) if count)

        q = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        error = math.sqrt(n * (2 * q + limit - limit**2))
        corrected = sign * (only_first - only_second - n * limit) - 1
        assert corrected / error == pytest.approx(norm.ppf(0.95), abs=1e-3)


@pytest.mark.parametrize("only_first", range(3, 25))
def test_paired_interval_excludes_zero_when_corrected_mcnemar_is_significant(only_first: int) -> None:
    p = statsmodels_mcnemar([[0, only_first], [6, 0]], exact=False, correction=True).pvalue
    _, interval = statistics.paired_difference(*matched(only_first, 6, 60))
    # Edwards' correction takes the absolute difference, so it says nothing about differences below one pair.
    excludes = interval.low > 0 or interval.high < 0
    assert excludes == (p < 0.05 and abs(only_first - 6) > 1)


def test_paired_interval_is_antisymmetric_and_within_bounds() -> None:
    _, one = statistics.paired_difference(*matched(9, 2, 25))
    _, other = statistics.paired_difference(*matched(2, 9, 25))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert statistics.paired_difference(*matched(10, 0, 10))[1].high == 1.0
    _, none = statistics.paired_difference(*matched(0, 0, 10))
    assert none.low == pytest.approx(-none.high)
    assert none.high < 1


@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.1), (0.1, 0.1), (0.1, 0.3), (0.3, 0.5), (-0.2, 0.3)])
def test_paired_lower_bound_errs_in_at_most_five_percent(difference: float, discordance: float) -> None:
    """Every table of 50 items, weighted by its probability: the share whose lower bound passes the truth."""
    n, cells = 50, ((discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance)
    tables = [(b, c, n - b - c) for b in range(n + 1) for c in range(n + 1 - b)]
    weights = multinomial.pmf(tables, n, cells)
    wrong = sum(
        weight
        for (b, c, _), weight in zip(tables, weights, strict=True)
        if weight > 1e-9 and statistics.paired_difference(*matched(b, c, n), 0.90)[1].low > difference
    )
    assert wrong <= 0.05


def test_variances_match_simulation() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(400, 0.7, 20_000)
    assert np.mean([statistics.share_variance(int(k), 400) for k in right[:500]]) == pytest.approx(
        float(np.var(right / 400)), rel=0.05
    )
    tables = rng.multinomial(400, [0.3, 0.1, 0.6], 20_000)
    found = np.mean([statistics.gain_variance(*matched(int(b), int(c), 400)) for b, c, _ in tables[:300]])
    assert found == pytest.approx(float(np.var((tables[:, 0] - tables[:, 1]) / 400)), rel=0.05)
    assert statistics.share_variance(0, 10) > 0
    assert statistics.gain_variance(*matched(0, 0, 10)) > 0


def test_ratio_bounds_are_one_sided_t_tests() -> None:
    rng = np.random.default_rng(1)
    base = np.exp(rng.normal(3.0, 0.5, 60))
    trained = base * np.exp(rng.normal(-0.3, 0.3, 60))
    ratio, interval, variance = statistics.ratio_of_means(trained.tolist(), base.tolist())
    assert ratio == pytest.approx(trained.mean() / base.mean())
    assert ttest_1samp(trained - interval.low * base, 0, alternative="greater").pvalue == pytest.approx(0.05)
    assert ttest_1samp(trained - interval.high * base, 0, alternative="less").pvalue == pytest.approx(0.05)
    residual = ttest_rel(trained, ratio * base)
    assert math.sqrt(variance) == pytest.approx(
        (residual.confidence_interval(0.9).high - np.mean(trained - ratio * base)) / t.ppf(0.95, 59) / base.mean()
    )


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([5.0], [4.0], "two items or more"),
        ([5.0, 6.0], [4.0], "two items or more"),
        ([5.0, 6.0], [0.0, 0.0], "at least one token"),
        ([5.0, 6.0], [1.0, 90.0], "too uncertain"),
    ],
)
def test_ratios_without_an_interval_are_refused(first: list[float], second: list[float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        statistics.ratio_of_means(first, second)


def found(value: float = 10.0, variance: float = 4.0) -> Measurement:
    return Measurement(value, Interval(low=value - 3.5, high=value + 3.0), variance)


def test_difference_from_rows_is_a_prediction_interval() -> None:
    rows = [2.0, 8.0, 14.0]  # mean 8, variance 36, above the run's item variance of 4
    difference = statistics.difference_from_reference(found(), 100, reference=None, rows=rows, row_items=[100] * 3)
    half = t.ppf(0.95, 2) * math.sqrt(36 * (1 + 1 / 3))
    assert difference.value == pytest.approx(2.0)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((2 - half, 2 + half))
    assert difference.standard_errors() == pytest.approx(
        {"items": 2.0, "seeds": math.sqrt(32), "reference": math.sqrt(12)}
    )
    assert difference.degrees == 2


def test_items_are_the_floor_of_the_spread_among_rows() -> None:
    difference = statistics.difference_from_reference(found(), 100, reference=None, rows=[8, 8, 8], row_items=[100] * 3)
    assert difference.interval.high - difference.value == pytest.approx(t.ppf(0.95, 2) * math.sqrt(4 * (1 + 1 / 3)))
    assert difference.seeds == 0


def test_rows_on_another_number_of_items_get_the_cautious_sum() -> None:
    difference = statistics.difference_from_reference(
        found(), 100, reference=None, rows=[2, 8, 14], row_items=[400, 50, 400]
    )
    half = t.ppf(0.95, 2) * math.sqrt(4 + 36 + 36 / 3 + 4 * 100 / 50)
    assert difference.interval.high - difference.value == pytest.approx(half)


def test_a_given_reference_is_a_fixed_number() -> None:
    alone = statistics.difference_from_reference(found(), 100, reference=7.0)
    assert (alone.interval.low, alone.interval.high) == pytest.approx((-0.5, 6.0))
    assert alone.degrees is None
    assert alone.seeds == 0
    spread = statistics.difference_from_reference(found(), 100, reference=7.0, rows=[2, 8, 14], row_items=[100] * 3)
    assert spread.value == pytest.approx(3.0)
    assert spread.interval.high - 3.0 == pytest.approx(t.ppf(0.95, 2) * math.sqrt(4 + 36))
    assert spread.reference == 0


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(BadInput, match="no reference value and 1 reference rows"):
        statistics.difference_from_reference(found(), 100, reference=None, rows=[8.0], row_items=[100])
    with pytest.raises(BadInput, match="2 rows have 1 item counts"):
        statistics.difference_from_reference(found(), 100, reference=None, rows=[8.0, 9.0], row_items=[100])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1, 1, "inside"), (-3, 1, "unclear"), (-1, 3, "unclear"), (-5, 5, "unclear"), (3, 4, "above"), (-4, -3, "below")],
)
def test_place(low: float, high: float, expected: str) -> None:
    assert statistics.place(Interval(low=low, high=high), -2, 2) == expected


def test_wrong_verdicts_at_the_edge_stay_within_five_percent(benchmark: ModuleType) -> None:
    repeats = 1500
    settings = [
        benchmark.Setting("near", "accuracy", 800, rows=5, row_n=800, spread=0.03, margin=0.3, offset=0.3),
        benchmark.Setting("near", "accuracy", 200, rows=3, row_n=200, spread=0.03, margin=0.3, offset=-0.3),
        benchmark.Setting("near", "accuracy", 800, margin=0.12, offset=-0.12),
        benchmark.Setting("at_least", "accuracy", 200),
        benchmark.Setting("at_most", "gain", 200),
        benchmark.Setting("at_most", "length_ratio", 200),
    ]
    for setting in settings:
        rates = benchmark.rates(setting, repeats, seed=7)
        assert rates["inside"] <= benchmark.allowed(repeats), setting
        assert rates["below"] + rates["above"] <= benchmark.allowed(repeats), setting


def test_a_run_like_its_rows_is_found_so(benchmark: ModuleType) -> None:
    setting = benchmark.Setting("near", "accuracy", 800, rows=5, row_n=800, margin=0.12)
    assert benchmark.rates(setting, 300, seed=7)["inside"] > 0.95
