"""How often the verdict is wrong: simulated runs whose true value lies exactly at the edge of a claim.

    python benchmarks/verdict_rates.py --repeats 20000 --seed 0

For `near`, runs and reference rows are drawn with a seed spread and binomial items, and the run's true value lies one
margin above or below that of the rows; for `at_least` and `at_most` it lies on the threshold.  A share of "reproduced"
above 5 % by more than three Monte Carlo standard errors ends the program with status 1.  The last column is the power:
the share of "reproduced" when run and rows have the same true value (`near`), or when the run lies 12 points on the
claimed side.  Accuracy and gain are shares of `n` items; length_ratio has correlated log-normal lengths; parsing and
answering are the parts of a gain in which one of the two factors changes.

Two tables follow (`--table seeds` prints them alone).  Over several seeds: how often either end of the 90 % interval is
wrong, which is what a verdict at the margin errs by, for the interval that is judged with and for two that were left
out because they err too often with few seeds.  The base gate: how often a harness whose score truly lies at the margin
is stopped, and passed.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from tqdm import tqdm

from r1mm.judge.crossed import crossed
from r1mm.judge.form import known, parts_by_item
from r1mm.judge.power import simulate
from r1mm.judge.statistics import (
    ONE_SIDED,
    Interval,
    Measurement,
    Place,
    difference_from_reference,
    gain,
    mean_over_items,
    place,
    ratio_of_means,
    share,
)

REFERENCE = {"accuracy": 0.6, "gain": 0.2, "length_ratio": 0.8, "parsing": 0.2, "answering": 0.2}
# Share of items that only the base model has right: it makes the two sides of a gain discordant both ways.
ONLY_BASE_RIGHT = 0.11


@dataclass(frozen=True)
class Setting:
    """One simulated situation; spread, margin and offset (true value less that of the reference) as shares.

    Of the parts of a gain, `read` is the share of the base model's outputs that can be read, `right` the trained one's
    accuracy among those.
    """

    test: Literal["near", "at_least", "at_most"]
    metric: Literal["accuracy", "gain", "length_ratio", "parsing", "answering"]
    n: int
    rows: int = 0
    row_n: int = 0
    spread: float = 0.0
    margin: float = 0.0
    offset: float = 0.0
    read: float = 1.0
    right: float = 0.8


def draw_run(setting: Setting, mean: float, rng: np.random.Generator) -> Measurement:
    """One new run on `setting.n` items, its seed's true value drawn around `mean`."""
    n, true = setting.n, mean + setting.spread * rng.standard_normal()
    if setting.metric == "accuracy":
        return share(int(rng.binomial(n, min(max(true, 0.0), 1.0))), n)
    if setting.metric == "gain":
        trained, base, _ = rng.multinomial(n, _gain_cells(true))
        return gain(
            [True] * trained + [False] * (n - trained),
            [False] * trained + [True] * base + [False] * (n - trained - base),
        )
    if setting.metric in ("parsing", "answering"):
        return _draw_part(setting, true, rng)
    common, *own = rng.normal(0.0, 0.4, (3, n))
    return ratio_of_means((np.exp(common + own[0]) * true).tolist(), np.exp(common + own[1]).tolist())


def _draw_part(setting: Setting, true: float, rng: np.random.Generator) -> Measurement:
    """A run in which more can be read, and as many of those are right, or all can be read, and more is right."""
    read, right, n, by_parsing = setting.read, setting.right, setting.n, setting.metric == "parsing"
    before = (read, right if by_parsing else right - 2 * true / (read + 1))
    after = (read + true / right if by_parsing else 1.0, right)
    marks = [np.stack([d < p, d < p * a], axis=1).astype(float) for p, a in (before, after) for d in [rng.random(n)]]
    found = mean_over_items(parts_by_item(*marks)[0 if by_parsing else 1].tolist())
    return found if known(*marks) else found._replace(interval=Interval(low=-1.0, high=1.0))


def _gain_cells(gain_share: float) -> list[float]:
    both_ways = max(ONLY_BASE_RIGHT, -gain_share)
    trained = min(gain_share + both_ways, 1.0 - both_ways)
    return [trained, both_ways, 1.0 - trained - both_ways]


def draw_row(setting: Setting, rng: np.random.Generator) -> float:
    """One reference row: the same at the reference's true value, as a share only."""
    true, n = REFERENCE[setting.metric] + setting.spread * rng.standard_normal(), setting.row_n
    if setting.metric == "accuracy":
        return float(rng.binomial(n, min(max(true, 0.0), 1.0))) / n
    trained, base, _ = rng.multinomial(n, _gain_cells(true))
    return float(trained - base) / n


def draw_place(setting: Setting, rng: np.random.Generator) -> Place:
    """What the verdict makes of one run: "inside" is "reproduced"."""
    reference = REFERENCE[setting.metric]
    found = draw_run(setting, reference + setting.offset, rng)
    if setting.test == "at_least":
        return place(found.interval, low=reference)
    if setting.test == "at_most":
        return place(found.interval, high=reference)
    difference = difference_from_reference(
        found,
        setting.n,
        reference=None if setting.rows else reference,
        rows=[draw_row(setting, rng) for _ in range(setting.rows)],
        row_items=[setting.row_n] * setting.rows,
    )
    return place(difference.interval, -setting.margin, setting.margin)


def rates(setting: Setting, repeats: int, seed: int) -> dict[Place, float]:
    """The share of each place among `repeats` runs."""
    rng = np.random.default_rng(seed)
    count = Counter(draw_place(setting, rng) for _ in range(repeats))
    return {
        "below": count["below"] / repeats,
        "inside": count["inside"] / repeats,
        "above": count["above"] / repeats,
        "unclear": count["unclear"] / repeats,
    }


def allowed(repeats: int) -> float:
    """The largest share that `repeats` runs may show when the true one is 5 %: three standard errors more."""
    return ONE_SIDED + 3 * math.sqrt(ONE_SIDED * (1 - ONE_SIDED) / repeats)


def all_settings() -> list[Setting]:
    """Every situation in the table, with the true value not yet set."""
    near = [
        Setting("near", metric, n, rows, n, spread, margin)
        for metric in ("accuracy", "gain")
        for n in (200, 800)
        for rows in (3, 5)
        for spread in (0.0, 0.03)
        for margin in (0.12, 0.3)
    ]
    unequal = [Setting("near", "accuracy", n, 5, row_n, 0.03, 0.3) for n, row_n in ((200, 800), (800, 200))]
    no_rows = [Setting("near", metric, n, margin=0.12) for metric in ("accuracy", "gain") for n in (200, 800)]
    parts = [
        Setting(test, metric, n, margin=margin, read=read, right=right)
        for test, margin in (("near", 0.12), ("at_least", 0.0), ("at_most", 0.0))
        for metric in ("parsing", "answering")
        for n, read, right in ((200, 0.3, 0.8), (200, 0.5, 0.8), (800, 0.08, 0.8), (800, 0.3, 0.95), (800, 0.5, 0.8))
    ]
    sides = [
        Setting(test, metric, n)
        for test in ("at_least", "at_most")
        for metric in ("accuracy", "gain", "length_ratio")
        for n in (200, 800)
    ]
    return [*near, *unequal, *no_rows, *sides, *parts]


def edges(setting: Setting) -> list[Setting]:
    """The situations in which "reproduced" is wrong: the true value at the edge of the claim."""
    if setting.test != "near":
        return [setting]
    return [replace(setting, offset=setting.margin), replace(setting, offset=-setting.margin)]


def well_inside(setting: Setting) -> Setting:
    """The situation in which "reproduced" is right."""
    return replace(setting, offset={"near": 0.0, "at_least": 0.12, "at_most": -0.12}[setting.test])


@dataclass(frozen=True)
class SeedSetting:
    """Several seeds on the same items; mean and spread (standard deviation of the seeds' true values) as shares.

    Of parsing and answering, `mean` is the share of the trained model's outputs that can be read.
    """

    metric: Literal["accuracy", "gain", "parsing", "answering"]
    seeds: int
    spread: float
    mean: float
    n: int = 200


Ends = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
BASE_SHARE = 0.48
BASE_READ, BASE_RIGHT, TRAINED_RIGHT = 0.5, 0.6, 0.75  # of the parts: shares readable, and right among those
SETS = 2000  # of seeds, at most, for each row of the second table


def seeds_truth(setting: SeedSetting) -> float:
    """What the tables of a setting are draws of."""
    gained = {"parsing": (setting.mean - BASE_READ) * (BASE_RIGHT + TRAINED_RIGHT) / 2}
    gained["answering"] = (TRAINED_RIGHT - BASE_RIGHT) * (BASE_READ + setting.mean) / 2
    return gained.get(setting.metric, setting.mean - (BASE_SHARE if setting.metric == "gain" else 0.0))


def draw_parts(setting: SeedSetting, sets: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Tables (sets, seeds, n) of a gain's parts, item by item: both what can be read and what is right have seeds."""

    def marks(read: float, right: float, seeds: int, spread: float) -> npt.NDArray[np.float64]:
        shared = {"sets": sets, "seeds": seeds, "n": setting.n, "spread": spread, "correlation": 0.5}
        can = simulate(rng, mean=read, **shared)
        return np.stack([can, can * simulate(rng, mean=right, **shared)], axis=-1)

    before = marks(BASE_READ, BASE_RIGHT, 1, 0.0)
    after = marks(setting.mean, TRAINED_RIGHT, setting.seeds, setting.spread)
    part = ("parsing", "answering").index(setting.metric)
    return np.array([[parts_by_item(b[0], one)[part] for one in a] for b, a in zip(before, after, strict=True)])


def draw_tables(setting: SeedSetting, sets: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Tables (sets, seeds, n): right or wrong, that less the right or wrong of the one base model, or a part of it."""
    if setting.metric in ("parsing", "answering"):
        return draw_parts(setting, sets, rng)
    tables = simulate(
        rng, sets=sets, seeds=setting.seeds, n=setting.n, mean=setting.mean, spread=setting.spread, correlation=0.5
    )
    if setting.metric == "accuracy":
        return tables
    # The base model's outcomes on the same items, unrelated to the trained model's: the widest paired difference.
    return tables - (rng.random((sets, 1, setting.n)) < BASE_SHARE)


def satterthwaite(tables: npt.NDArray[np.float64]) -> Ends:
    """The seeds' and the items' variance added, with Hillis' degrees of freedom (2007): left out."""
    found = crossed(tables, shares=False)
    count = tables.shape[-2]
    variance = found.seeds**2 + found.items**2
    degrees = np.minimum((count - 1) * variance**2 / np.maximum(found.seeds**4, 1e-18), 1e6)
    half = stdtrit(degrees, 1 - ONE_SIDED) * np.sqrt(variance)
    return found.mean - half, found.mean + half


def percentile(tables: npt.NDArray[np.float64], rng: np.random.Generator, resamples: int = 400) -> Ends:
    """The hierarchical bootstrap's percentile interval, for all tables at once: a candidate that was left out."""
    sets, count, n = tables.shape
    drawn = np.empty((resamples, sets))
    for k in range(resamples):
        seeds = rng.multinomial(count, np.full(count, 1 / count), sets) / count
        items = rng.multinomial(n, np.full(n, 1 / n), sets) / n
        drawn[k] = (np.einsum("rs,rsn->rn", seeds, tables) * items).sum(axis=1)
    low, high = np.quantile(drawn, [ONE_SIDED, 1 - ONE_SIDED], axis=0)
    return low, high


def wrong_ends(ends: Ends, truth: float) -> float:
    """The larger share of intervals that lie wholly on one side of the truth."""
    return max(float(np.mean(ends[0] > truth)), float(np.mean(ends[1] < truth)))


def seed_settings() -> list[SeedSetting]:
    """Every situation of the second table."""
    return [
        SeedSetting(metric, seeds, spread, mean)
        for metric, means in (
            *(("accuracy", (0.74, 0.825, 0.95)), ("gain", (0.825,))),
            *(("parsing", (0.8,)), ("answering", (0.8,))),
        )
        for mean in means
        for seeds in (2, 3, 5, 8)
        for spread in (0.0, 0.02, 0.04)
    ]


def judged_ends(tables: npt.NDArray[np.float64], setting: SeedSetting) -> Ends:
    """The interval that the verdict judges with."""
    found = crossed(tables, shares=setting.metric == "accuracy")
    return found.low, found.high


def gate_rates(margin: float, changed: float, repeats: int, seed: int, n: int = 200) -> dict[Place, float]:
    """A harness whose base score truly lies `margin` above the recorded one; `changed` of the items turn wrong."""
    rng = np.random.default_rng(seed)
    count: Counter[Place] = Counter()
    for _ in range(repeats):
        better, worse, _ = rng.multinomial(n, [margin + changed, changed, 1 - margin - 2 * changed])
        same = n - better - worse
        ours = [True] * better + [False] * worse + [True] * same
        found = gain(ours, [False] * better + [True] * worse + [True] * same)
        count[place(found.interval, -margin, margin)] += 1
    return {"below": count["below"] / repeats, "inside": count["inside"] / repeats, "above": count["above"] / repeats}


def print_seeds_and_gate(repeats: int, seed: int) -> float:
    """The second and third table; returns the worst wrong share of what is judged with."""
    print(
        f"\n{'metric':10}{'mean':>7}{'seeds':>7}{'spread':>8}{'an end of ours wrong %':>24}"
        f"{'Satterthwaite %':>17}{'bootstrap %':>13}"
    )
    worst = 0.0
    sets = min(repeats, SETS)
    for setting in tqdm(seed_settings(), unit="setting", disable=None):
        rng = np.random.default_rng(seed)
        tables = draw_tables(setting, sets, rng)
        truth = seeds_truth(setting)
        wrong = wrong_ends(judged_ends(tables, setting), truth)
        others = wrong_ends(satterthwaite(tables), truth), wrong_ends(percentile(tables[:500], rng, 200), truth)
        worst = max(worst, wrong)
        tqdm.write(
            f"{setting.metric:10}{100 * setting.mean:>7g}{setting.seeds:>7}{100 * setting.spread:>8g}"
            f"{100 * wrong:>24.2f}"
            f"{100 * others[0]:>17.2f}{100 * others[1]:>13.1f}"
        )
    print(f"\n{'gate margin':13}{'turned wrong %':>16}{'stopped at the margin %':>26}{'passed at the margin %':>25}")
    for margin, changed in ((0.08, 0.0), (0.08, 0.05), (0.08, 0.15), (0.05, 0.05)):
        found = gate_rates(margin, changed, sets, seed)
        worst = max(worst, found["above"] + found["below"], found["inside"])
        print(
            f"{100 * margin:<13g}{100 * changed:>16g}{100 * (found['above'] + found['below']):>26.2f}"
            f"{100 * found['inside']:>25.2f}"
        )
    error = 100 * math.sqrt(ONE_SIDED * (1 - ONE_SIDED) / sets)
    print(
        f"worst share of wrong ends, stops and passes: {100 * worst:.2f} % (Monte Carlo standard error at 5 %: "
        f"{error:.2f} %, allowed up to {100 * allowed(sets):.2f} %)"
    )
    return worst


def print_runs(repeats: int, seed: int) -> float:
    """The first table; returns the worst share of wrong "reproduced"."""
    print(
        f"{'test':9}{'metric':13}{'n':>5}{'read %':>7}{'J':>3}{'row n':>7}{'spread':>8}{'margin':>8}"
        f"{'reproduced at the edge %':>27}{'refused at the edge %':>24}{'power %':>9}"
    )
    worst = 0.0
    for setting in tqdm(all_settings(), unit="setting", disable=None):
        wrong = [rates(edge, repeats, seed) for edge in edges(setting)]
        power = rates(well_inside(setting), repeats, seed)["inside"]
        worst = max([worst, *(rate["inside"] for rate in wrong)])
        inside = " / ".join(f"{100 * rate['inside']:.2f}" for rate in wrong)
        outside = " / ".join(f"{100 * (rate['below'] + rate['above']):.2f}" for rate in wrong)
        tqdm.write(
            f"{setting.test:9}{setting.metric:13}{setting.n:>5}{100 * setting.read:>7g}{setting.rows:>3}"
            f"{setting.row_n or '-':>7}{100 * setting.spread:>8g}{100 * setting.margin:>8g}"
            f"{inside:>27}{outside:>24}{100 * power:>9.1f}"
        )
    error = 100 * math.sqrt(ONE_SIDED * (1 - ONE_SIDED) / repeats)
    print(
        f'worst share of wrong "reproduced": {100 * worst:.2f} % (Monte Carlo standard error at 5 %: {error:.2f} %, '
        f"allowed up to {100 * allowed(repeats):.2f} %)"
    )
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20_000, help="simulated runs for each rate (default 20000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    parser.add_argument(
        "--table", choices=("runs", "seeds", "all"), default="all", help="what to simulate (default all)"
    )
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats} simulates nothing; give 1 or more")
    runs = 0.0 if given.table == "seeds" else print_runs(given.repeats, given.seed)
    seeds = 0.0 if given.table == "runs" else print_seeds_and_gate(given.repeats, given.seed)
    return 1 if runs > allowed(given.repeats) or seeds > allowed(min(given.repeats, SETS)) else 0


if __name__ == "__main__":
    sys.exit(main())
