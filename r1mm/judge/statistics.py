"""Intervals and tests on evaluated items, and the comparison of one run with reference rows.

Shares are in 0..1 here and intervals are in the unit of their value; percent begins in `r1mm.judge.verdict`.  scipy and
statsmodels do the arithmetic wherever they have it.  Three uncertainties stay apart: which items were drawn, how far
one seed lies from another, and how well the reference itself is known.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_test
from statsmodels.stats.proportion import proportion_confint

from r1mm.errors import BadInput
from r1mm.sourced import Strict

# All verdicts are one-sided tests at 5 %: the two ends of a 90 % interval.
ONE_SIDED = 0.05
TEST_LEVEL = 1 - 2 * ONE_SIDED

Place = Literal["below", "inside", "above", "unclear"]
Source = Literal["items", "seeds", "reference"]


class Interval(Strict):
    """A confidence interval, ends included, in the unit of its value."""

    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The interval in a unit `factor` times smaller, such as percent for shares with 100."""
        return Interval(low=self.low * factor, high=self.high * factor)

    def shifted(self, by: float) -> "Interval":
        """The interval of the value plus `by`."""
        return Interval(low=self.low + by, high=self.high + by)


class Measurement(NamedTuple):
    """A metric of one run: its value, its 90 % interval and its variance, both over items."""

    value: float
    interval: Interval
    variance: float

    def scaled(self, factor: float) -> "Measurement":
        """The measurement in a unit `factor` times smaller."""
        return Measurement(self.value * factor, self.interval.scaled(factor), self.variance * factor**2)


class Difference(Strict):
    """A value minus its reference, with an interval and the standard error of each uncertainty, all in one unit.

    `seeds` and `reference` are zero where no reference rows say anything about them; `degrees` is None then.
    """

    value: float
    interval: Interval
    items: float
    seeds: float
    reference: float
    degrees: int | None

    def standard_errors(self) -> dict[Source, float]:
        """The three uncertainties by name."""
        return {"items": self.items, "seeds": self.seeds, "reference": self.reference}


def _share_interval(right: int, n: int, level: float, method: str) -> Interval:
    if n < 1 or not 0 <= right <= n:
        raise BadInput(f"{right} right of {n} items is no share; give at least one item and 0 <= right <= n")
    low, high = proportion_confint(right, n, alpha=1 - level, method=method)
    return Interval(low=max(0.0, float(low)), high=min(1.0, float(high)))


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of the share right / n, for display.

    Raises BadInput for no items or an impossible count.  Source: Wilson 1927, JASA 22:209; statsmodels.
    """
    return _share_interval(right, n, level, "wilson")


def exact_share(right: int, n: int, level: float = TEST_LEVEL) -> Interval:
    """Clopper and Pearson's interval of the share right / n, for tests: neither end is wrong more often than stated.

    Wilson's interval keeps its level two-sided only: one of its ends errs too often near 0 and 1 (Cai 2005, J. Stat.
    Plan. Inference 131:63).  Raises BadInput as `wilson`.  Source: Clopper & Pearson 1934; statsmodels ("beta").
    """
    return _share_interval(right, n, level, "beta")


def share_variance(right: int, n: int) -> float:
    """Variance of a share over items (share squared), with two items added to each side so that it is never zero.

    Source: Agresti & Coull 1998, The American Statistician 52:119.
    """
    share = (right + 2) / (n + 4)
    return share * (1 - share) / (n + 4)


def share(right: int, n: int) -> Measurement:
    """The share right / n with its exact interval.  Raises BadInput as `wilson`."""
    interval = exact_share(right, n)
    return Measurement(right / n, interval, share_variance(right, n))


def discordant(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """How many matched items only the first has right, and how many only the second.

    Raises BadInput when the two are empty or differ in length.
    """
    if len(first) != len(second) or not first:
        raise BadInput(f"{len(first)} and {len(second)} outcomes cannot be paired; give one of each for every item")
    pairs = list(zip(first, second, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided p of McNemar's exact test that both are right equally often.

    Raises BadInput as `discordant`.  Source: McNemar 1947, Psychometrika 12:153; statsmodels.
    """
    only_first, only_second = discordant(first, second)
    return float(mcnemar_test([[0, only_first], [only_second, 0]], exact=True).pvalue)


def _lower_score_limit(only_first: int, only_second: int, n: int, z: float) -> float:
    """The smallest difference that Tango's score test, corrected for continuity, does not refuse."""
    observed = only_first - only_second

    def excess(difference: float) -> float:
        # q: the restricted maximum-likelihood share of items that only the second has right (Tango 1998).
        linear = (2 * n - observed) * difference - (only_first + only_second)
        constant = -only_second * difference * (1 - difference)
        q = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * q + difference * (1 - difference))
        return observed - n * difference - 1 - z * math.sqrt(max(0.0, variance))

    if excess(-1.0) <= 0:
        return -1.0
    return float(brentq(excess, -1.0, observed / n, xtol=1e-9))


def paired_difference(first: Sequence[bool], second: Sequence[bool], level: float = 0.95) -> tuple[float, Interval]:
    """Share right of `first` minus share right of `second` on matched items, and its interval (shares, -1..1).

    Tango's score interval with a correction for continuity of one discordant pair: at a difference of zero it is
    McNemar's test as corrected by Edwards 1948.  Without the correction an end errs in up to 6.7 % of cases where it
    says 5 % (200 items, all tables enumerated); with it in at most 5 % unless all items are discordant.  Raises
    BadInput as `discordant`.
    Source: Tango 1998, Statistics in Medicine 17:891.
    """
    only_first, only_second = discordant(first, second)
    n, z = len(first), float(ndtri((1 + level) / 2))
    low = _lower_score_limit(only_first, only_second, n, z)
    high = -_lower_score_limit(only_second, only_first, n, z)
    return (only_first - only_second) / n, Interval(low=low, high=high)


def gain_variance(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Variance over items of a paired difference of shares (share squared), never zero.

    Half a pair is added to each cell of the two-by-two table.  Raises BadInput as `discordant`.  Source: Agresti & Min
    2005, Statistics in Medicine 24:729.
    """
    only_first, only_second = discordant(first, second)
    n = len(first) + 2
    return ((only_first + only_second + 1) - (only_first - only_second) ** 2 / n) / n**2


def gain(first: Sequence[bool], second: Sequence[bool]) -> Measurement:
    """Share right of `first` minus share right of `second` on matched items.  Raises BadInput as `discordant`."""
    difference, interval = paired_difference(first, second, TEST_LEVEL)
    return Measurement(difference, interval, gain_variance(first, second))


def ratio_of_means(first: Sequence[float], second: Sequence[float]) -> Measurement:
    """mean(first) / mean(second) on matched items.

    Fieller's interval: the ratios r for which a t test (n - 1 degrees of freedom) does not refuse that first - r *
    second has mean zero.  It keeps 5 % at each end for skewed lengths, where a symmetric delta-method interval errs in
    6 to 9 % at one of them (50 log-normal items, simulated).  The variance is the delta method's.  Raises BadInput for
    fewer than two items, a mean of zero below, or lengths below so uneven that no interval is bounded.  Source: Fieller
    1954, J. R. Stat. Soc. B 16:175.
    """
    if len(first) != len(second) or len(first) < 2:
        raise BadInput(f"{len(first)} and {len(second)} lengths give no ratio with an interval; give two items or more")
    n = len(first)
    above, below = float(np.mean(first)), float(np.mean(second))
    if below <= 0:
        raise BadInput(f"the mean length to divide by is {below:g}; give outputs with at least one token")
    (above_error, shared_error), (_, below_error) = np.cov(first, second) / n
    squared = float(stdtrit(n - 1, 1 - ONE_SIDED)) ** 2
    # The ends solve leading * r^2 - 2 * middle * r + constant = 0.
    leading = below**2 - squared * below_error
    middle = above * below - squared * shared_error
    constant = above**2 - squared * above_error
    if leading <= 0:
        raise BadInput(f"over {n} items the mean length to divide by, {below:g}, is too uncertain; give more items")
    half = math.sqrt(max(0.0, middle**2 - leading * constant))
    ratio = above / below
    variance = float(above_error - 2 * ratio * shared_error + ratio**2 * below_error) / below**2
    interval = Interval(low=float(middle - half) / float(leading), high=float(middle + half) / float(leading))
    return Measurement(ratio, interval, max(0.0, variance))


def mean_over_items(values: Sequence[float]) -> Measurement:
    """The mean of a value per item, such as linearised shares (`form.parts_by_item`).

    As `crossed.crossed` has it for one seed: half an item is added to either extreme of -1 and 1, so that the variance
    is never zero, and to both ends of Student's interval half the largest step that one item makes, for continuity.
    How often it errs for the parts of a gain: `form.known`.  Raises BadInput for fewer than two items.
    """
    n = len(values)
    if n < 2:
        raise BadInput(f"{n} items give no mean with an interval; give two or more")
    total, squares, size = float(np.sum(values)), float(np.square(values).sum()), n + 2
    mean, variance = total / n, ((squares + 1) / size - (total / size) ** 2) / size
    step = max(1.0, float(np.abs(values).max())) / n
    half = float(stdtrit(n - 1, 1 - ONE_SIDED)) * math.sqrt(variance) + step / 2
    return Measurement(mean, Interval(low=mean - half, high=mean + half), variance)


def shown_sign(interval: Interval) -> int:
    """+1 or -1 when the whole interval lies on that side of zero, else 0."""
    return (interval.low > 0) - (interval.high < 0)


def mean_interval(rows: Sequence[float]) -> Interval:
    """Student's 90 % interval of the mean of two or more rows, each row one seed."""
    values = np.asarray(rows, dtype=np.float64)
    half = float(stdtrit(len(rows) - 1, 1 - ONE_SIDED)) * float(values.std(ddof=1)) / math.sqrt(len(rows))
    return Interval(low=float(values.mean()) - half, high=float(values.mean()) + half)


def difference_from_reference(
    found: Measurement,
    n: int,
    *,
    reference: float | None,
    rows: Sequence[float] = (),
    row_items: Sequence[int] = (),
) -> Difference:
    """`found` in a new run on `n` items, minus `reference` (None: the mean of `rows`), with a 90 % interval.

    Each of the J `rows` is one seed, measured on as many items as `row_items` says.  The model is that of random
    effects: a run is the mean over seeds, plus its seed's deviation (variance tau^2), plus its items' deviation
    (variance s^2).  With S^2 the variance among the rows,

        interval = difference -+ t(J - 1) * sqrt(s^2 + tau^2 + u^2)

    For the mean of rows with as many items as the run, it is taken that all were measured on the recipe's one pinned
    set: S^2 then holds seeds and items, tau^2 = max(0, S^2 - s^2), and u^2 = (s^2 + tau^2) / J.  This is the prediction
    interval for one more draw, exact for normal draws even where items are shared and their noise cancels, and wider
    than that when S^2 < s^2.  In all other cases the rows may share items among themselves and S^2 may hold no item
    noise at all: tau^2 = S^2, nothing subtracted, and u^2 = S^2 / J + s^2 n / min(row_items), or 0 for a `reference`,
    which is a fixed number.  With fewer than two rows nothing estimates tau^2: the interval is that of `found` less
    the reference, items only.

    Raises BadInput when neither a reference nor two rows are given.  Sources: Higgins, Thompson & Spiegelhalter 2009,
    J. R. Stat. Soc. A 172:137 (prediction from random effects; for studies of unequal precision their t has J - 2
    degrees); Hahn & Meeker 1991, Statistical Intervals (one future observation of a normal sample: t with J - 1).
    """
    count = len(rows)
    if count != len(row_items):
        raise BadInput(f"{count} rows have {len(row_items)} item counts; give one count for each row")
    if reference is None and count < 2:
        raise BadInput(f"no reference value and {count} reference rows; give a value, or two rows or more")
    value, own, variance = found
    items = math.sqrt(variance)
    if reference is not None and count < 2:
        interval = own.shifted(-reference)
        return Difference(
            value=value - reference, interval=interval, items=items, seeds=0.0, reference=0.0, degrees=None
        )
    among = float(np.var(rows, ddof=1))
    centre = float(np.mean(rows)) if reference is None else reference
    if reference is not None:
        seeds, unknown = among, 0.0
    elif all(of_row == n for of_row in row_items):
        seeds = max(0.0, among - variance)
        unknown = (variance + seeds) / count
    else:
        seeds, unknown = among, among / count + variance * n / min(row_items)
    half = float(stdtrit(count - 1, 1 - ONE_SIDED)) * math.sqrt(variance + seeds + unknown)
    return Difference(
        value=value - centre,
        interval=Interval(low=value - centre - half, high=value - centre + half),
        items=items,
        seeds=math.sqrt(seeds),
        reference=math.sqrt(unknown),
        degrees=count - 1,
    )


def place(interval: Interval, low: float = -math.inf, high: float = math.inf) -> Place:
    """Where an interval shows its value to be: within low to high, wholly below or above it, or unclear.

    With a 90 % interval, "inside" is two one-sided tests at 5 % each.  Source: Schuirmann 1987, J. Pharmacokinet.
    Biopharm. 15:657.
    """
    if interval.high < low:
        return "below"
    if interval.low > high:
        return "above"
    return "inside" if low <= interval.low and interval.high <= high else "unclear"
