"""How many seeds of 200 items tell 82.5 from 74: simulated, judged as the verdict judges, printed as Markdown.

    python benchmarks/verdict_power.py

As it stands for r1v-clevr-2b (SuperCLEVR-200); --items 754 --published 38.72 --other 30.63 --margin 5 is r1v-geoqa-7b.
A share of wrongly refused codes above 5 % ends the program with status 1, except where one seed meets a seed spread:
its interval knows nothing of it, and the table shows what that costs.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from r1mm.judge.power import ITEM_CORRELATION, SEEDS, SPREADS, power_markdown, power_table
from r1mm.judge.statistics import ONE_SIDED


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=float, default=82.5, help="published accuracy in percent (default 82.5)")
    parser.add_argument("--other", type=float, default=74.0, help="the accuracy to tell it from (default 74)")
    parser.add_argument("--margin", type=float, default=8.0, help="margin of the claim in points (default 8)")
    parser.add_argument("--items", type=int, default=200, help="items of the test set (default 200)")
    parser.add_argument("--sets", type=int, default=2000, help="simulated sets of runs for each number (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    parser.add_argument(
        "--correlation",
        type=float,
        default=ITEM_CORRELATION,
        help=f"latent correlation of two seeds on one item (default {ITEM_CORRELATION})",
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.correlation < 1:
        parser.error(f"--correlation {given.correlation} is no correlation of two different seeds; give 0 to below 1")
    cells = power_table(
        published=given.published,
        other=given.other,
        margin=given.margin,
        n=given.items,
        seeds=SEEDS,
        spreads=SPREADS,
        sets=given.sets,
        seed=given.seed,
        correlation=given.correlation,
    )
    print(power_markdown(cells, published=given.published, other=given.other, margin=given.margin, n=given.items))
    allowed = 100 * (ONE_SIDED + 3 * math.sqrt(ONE_SIDED * (1 - ONE_SIDED) / given.sets))
    return 1 if any(cell.wrong > allowed for cell in cells if cell.seeds > 1 or cell.spread == 0) else 0


if __name__ == "__main__":
    sys.exit(main())
