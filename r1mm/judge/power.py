"""How many seeds tell one accuracy from another: simulated runs, judged as `judge_seeds` judges them.

Seeds and items are crossed: each item has a difficulty that all seeds share, each seed a true accuracy of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, ndtri

from r1mm.errors import BadInput
from r1mm.judge.crossed import Crossed, Table, crossed
from r1mm.judge.statistics import ONE_SIDED

SEEDS = (1, 2, 3, 5, 8)
SPREADS = (0.0, 2.0, 4.0)
# Latent correlation of two seeds' outcomes on one item: both runs start from one model.  Half is our assumption.
ITEM_CORRELATION = 0.5


class Power(NamedTuple):
    """One cell of the table; shares of simulated sets of runs, in percent.

    `told`: the true accuracy is `other`, and `published` is shown to lie above it.  `wrong`: the true accuracy is
    `published`, and is shown to lie below itself (at most 5).  `reproduced`: the true accuracy is `published`, and is
    shown to lie within the margin.
    """

    seeds: int
    spread: float
    told: float
    wrong: float
    reproduced: float


def simulate(
    rng: np.random.Generator, *, sets: int, seeds: int, n: int, mean: float, spread: float, correlation: float
) -> Table:
    """Tables of right and wrong (sets, seeds, n) as 1 and 0; `mean` and the seeds' standard deviation as shares."""
    truth = np.clip(mean + spread * rng.standard_normal((sets, seeds, 1)), 1e-4, 1 - 1e-4)
    items, own = rng.standard_normal((sets, 1, n)), rng.standard_normal((sets, seeds, n))
    right: Table = (np.sqrt(correlation) * items + np.sqrt(1 - correlation) * own < ndtri(truth)).astype(np.float64)
    return right


def judged(tables: Table) -> Crossed:
    """The 90 % interval of each table's mean: over seeds and items, or over items alone where there is one seed."""
    if tables.shape[-2] > 1:
        return crossed(tables, shares=True)
    n = tables.shape[-1]
    right = tables[..., 0, :].sum(axis=-1)
    low = np.where(right > 0, betaincinv(np.maximum(right, 1), n - right + 1, ONE_SIDED), 0.0)
    high = np.where(right < n, betaincinv(right + 1, np.maximum(n - right, 1), 1 - ONE_SIDED), 1.0)
    nothing = np.zeros_like(low)
    return Crossed(mean=right / n, low=low, high=high, seeds=nothing, items=nothing)


def power_table(
    *,
    published: float = 82.5,
    other: float = 74.0,
    margin: float = 8.0,
    n: int = 200,
    seeds: Sequence[int] = SEEDS,
    spreads: Sequence[float] = SPREADS,
    sets: int = 2000,
    seed: int = 0,
    correlation: float = ITEM_CORRELATION,
) -> list[Power]:
    """For each number of seeds and each seed spread (standard deviation, points): how often `published` is told from
    `other` (both in percent) on `n` items, and how often it is found again.  `sets` simulated sets of runs for each.

    Raises BadInput where nothing would be simulated.
    """
    if sets < 1 or n < 2 or not seeds or min(seeds) < 1:
        raise BadInput(f"{sets} sets of {list(seeds)} seeds on {n} items simulate nothing; give 1 or more of each")
    rng = np.random.default_rng(seed)
    cells = []
    for count in seeds:
        for spread in spreads:
            found = {
                mean: judged(
                    simulate(
                        rng, sets=sets, seeds=count, n=n, mean=mean / 100, spread=spread / 100, correlation=correlation
                    )
                )
                for mean in (other, published)
            }
            told, at = found[other], found[published]
            inside = (100 * at.low >= published - margin) & (100 * at.high <= published + margin)
            cells.append(
                Power(
                    seeds=count,
                    spread=spread,
                    told=100 * float(np.mean(100 * told.high < published)),
                    wrong=100 * float(np.mean(100 * at.high < published)),
                    reproduced=100 * float(np.mean(inside)),
                )
            )
    return cells


def power_markdown(cells: Sequence[Power], *, published: float, other: float, margin: float, n: int) -> str:
    """The table as Markdown: seeds down, spreads across, and in each cell `told`, `reproduced` and `wrong`."""
    spreads = list(dict.fromkeys(cell.spread for cell in cells))
    lines = [
        f"| seeds of {n} items | " + " | ".join(f"spread {spread:g} points" for spread in spreads) + " |",
        "|---:|" + "---|" * len(spreads),
    ]
    for count in dict.fromkeys(cell.seeds for cell in cells):
        row = [next(cell for cell in cells if (cell.seeds, cell.spread) == (count, spread)) for spread in spreads]
        shown = " | ".join(f"{cell.told:.0f} % / {cell.reproduced:.0f} % (wrong {cell.wrong:.1f} %)" for cell in row)
        lines.append(f"| {count} | {shown} |")
    lines += [
        "",
        f"Each cell: how often {published:g} is shown to lie above a code that truly gives {other:g} / how often one "
        f"that truly gives {published:g} is found within {margin:g} points of it (in brackets: how often it is "
        "wrongly shown to lie below).",
    ]
    return "\n".join(lines)
