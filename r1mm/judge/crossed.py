"""Several seeds on the same items: estimates whose interval holds both, and bootstraps as a cross-check.

A table of values has the shape (S, n): S seeds by n items, every seed on the same items, so that seeds and items are
crossed.  The model is v[s, i] = mean + seed_s + item_i + rest; what a claim speaks of is the mean over seeds and items
that were not drawn.  Everything here is in the unit of the table (shares in 0..1).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, stdtrit
from scipy.stats import bootstrap

from r1mm.errors import BadInput
from r1mm.judge.statistics import ONE_SIDED, Interval, Measurement, discordant

Table = npt.NDArray[np.float64]
RESAMPLES = 2000
BOOTSTRAP_SEED = 0


class Crossed(NamedTuple):
    """Of one or many tables: mean, ends of the 90 % interval, and standard errors over seeds and over items."""

    mean: Table
    low: Table
    high: Table
    seeds: Table
    items: Table


def _share_limits(mean: Table, variance: Table, n: int) -> tuple[Table, Table]:
    """One-sided 5 % limits of a share from its variance: Clopper and Pearson's at the effective number of items.

    Source: Korn & Graubard 1998, Survey Methodology 24:193.
    """
    spread = mean * (1 - mean)
    effective = np.where(spread > 0, spread / variance, float(n))
    right = mean * effective
    wrong = effective - right
    tiny = 1e-9
    low = np.where(right > tiny, betaincinv(np.maximum(right, tiny), wrong + 1, ONE_SIDED), 0.0)
    high = np.where(wrong > tiny, betaincinv(right + 1, np.maximum(wrong, tiny), 1 - ONE_SIDED), 1.0)
    return low, high


def crossed(tables: npt.ArrayLike, *, shares: bool) -> Crossed:
    """Mean and 90 % interval of tables (..., S, n) with S >= 2, over seeds and items.

    The seeds' part is A = variance among the seed means / S, with S - 1 degrees of freedom; the items' part B is that
    of the item means / n.  Each end lies sqrt(a^2 + b^2) from the mean, a = t(S - 1) sqrt(A), b the distance to the
    end of an interval over items alone (method of variance estimates recovery).  A holds some of the noise that is in
    B too, so the interval is rather wide; nothing is subtracted, because with two to five seeds the narrower
    candidates err too often: at a seed spread of 4 points and 200 items, 2 seeds, one end of the percentile
    bootstrap's interval is wrong in 8 to 15 % of cases, of Satterthwaite's (Hillis 2007) in 5 to 8 %, of this in at
    most 3 % (benchmarks/verdict_rates.py).

    `shares`: the values are 0 or 1; b is then that of an exact interval, and two items are added to each side of B
    (Agresti & Coull 1998).  Else the values are differences of two such; half an item is added to either extreme
    (Agresti & Min 2005), and half a pair to b, for continuity.  Raises BadInput for fewer than two seeds or items.
    Sources: Zou & Donner 2008, Statistics in Medicine 27:1693; Graybill & Wang 1980, JASA 75:869.
    """
    table = np.asarray(tables, dtype=np.float64)
    if table.ndim < 2 or min(table.shape[-2:]) < 2:
        raise BadInput(f"a table of shape {table.shape} is not crossed; give two seeds or more on two items or more")
    count, n = table.shape[-2:]
    by_seed, by_item = table.mean(axis=-1), table.mean(axis=-2)
    mean = by_seed.mean(axis=-1)
    among_seeds = by_seed.var(axis=-1, ddof=1) / count
    total, squares = by_item.sum(axis=-1), (by_item**2).sum(axis=-1)
    if shares:
        size = n + 4
        among_items = ((squares + 2) / size - ((total + 2) / size) ** 2) / size
        low, high = _share_limits(mean, among_items, n)
        below, above = mean - low, high - mean
    else:
        size = n + 2
        among_items = ((squares + 1) / size - (total / size) ** 2) / size
        below = above = float(stdtrit(n - 1, 1 - ONE_SIDED)) * np.sqrt(among_items) + 0.5 / n
    by_spread = float(stdtrit(count - 1, 1 - ONE_SIDED)) ** 2 * among_seeds
    return Crossed(
        mean=mean,
        low=mean - np.sqrt(below**2 + by_spread),
        high=mean + np.sqrt(above**2 + by_spread),
        seeds=np.sqrt(among_seeds),
        items=np.sqrt(among_items),
    )


def over_seeds(table: Sequence[Sequence[float]], *, shares: bool) -> tuple[Measurement, float, float]:
    """One table's mean with its 90 % interval and variance, and its standard errors over seeds and over items.

    Raises BadInput as `crossed`.
    """
    values = np.asarray(table, dtype=np.float64)
    found = crossed(values[:, np.lexsort(values)], shares=shares)  # so that no order of the items shows in a last digit
    low, high = float(found.low), float(found.high)
    if shares:
        low, high = max(0.0, low), min(1.0, high)
    seeds, items = float(found.seeds), float(found.items)
    return Measurement(float(found.mean), Interval(low=low, high=high), seeds**2 + items**2), seeds, items


def hierarchical_bootstrap(
    table: Sequence[Sequence[float]], level: float, *, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Percentile interval of the mean of a table (S, n): each replicate draws S seeds anew, and n items once for all.

    A cross-check, not what is judged with: with few seeds it is too narrow (see `crossed`), with one it holds no seed
    spread at all.  The same `seed` gives the same interval.
    """
    values = np.asarray(table, dtype=np.float64)
    values = values[:, np.lexsort(values)]  # the interval does not depend on the order of the items
    count, n = values.shape
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(count, np.full(count, 1 / count), resamples) / count
    items = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
    means = ((seeds @ values) * items).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


def paired_bootstrap(first: Sequence[bool], second: Sequence[bool], level: float) -> Interval:
    """Percentile interval of the share right of `first` minus that of `second`, items resampled in pairs (seeded).

    A cross-check of `statistics.paired_difference`: no width at all where no pair is discordant.  Raises BadInput as
    `statistics.discordant`.  Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13; scipy.
    """
    discordant(first, second)
    # Sorted, so that the interval does not depend on the order of the items.
    differences = np.sort(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
    if len(differences) < 2 or np.ptp(differences) == 0:
        return Interval(low=float(differences[0]), high=float(differences[0]))
    found: Any = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=500,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return Interval(low=float(found.confidence_interval.low), high=float(found.confidence_interval.high))
