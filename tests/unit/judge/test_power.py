"""The power table: sizes that statistics dictates, and what seeds buy."""

import math

import pytest

from r1mm.errors import BadInput
from r1mm.judge.power import Power, power_markdown, power_table

CELLS = {
    (cell.seeds, cell.spread): cell for cell in power_table(seeds=(1, 3, 8), spreads=(0.0, 4.0), sets=400, margin=8.0)
}


def test_one_seed_without_spread_is_an_exact_test_of_a_share() -> None:
    from scipy.stats import beta, binom

    told = sum(binom.pmf(k, 200, 0.74) for k in range(200) if beta.ppf(0.95, k + 1, 200 - k) < 0.825)
    assert CELLS[1, 0.0].told == pytest.approx(100 * told, abs=300 * math.sqrt(told * (1 - told) / 400))


def test_more_seeds_tell_more_and_a_spread_tells_less() -> None:
    assert CELLS[8, 0.0].told > 99
    assert CELLS[3, 4.0].told < CELLS[8, 4.0].told
    assert CELLS[3, 4.0].told < CELLS[3, 0.0].told
    assert CELLS[3, 0.0].reproduced < CELLS[8, 0.0].reproduced


def test_wrong_verdicts_stay_within_five_percent_but_for_one_seed_with_a_spread() -> None:
    allowed = 100 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 400))
    assert all(cell.wrong <= allowed for cell in CELLS.values() if cell.seeds > 1 or cell.spread == 0)
    assert CELLS[1, 4.0].wrong > allowed


def test_it_is_seeded_and_printed() -> None:
    assert power_table(seeds=(2,), spreads=(2.0,), sets=50) == power_table(seeds=(2,), spreads=(2.0,), sets=50)
    cells = [Power(1, 0.0, 90.0, 3.5, 80.0), Power(1, 2.0, 85.0, 8.25, 69.0)]
    lines = power_markdown(cells, published=82.5, other=74.0, margin=8.0, n=200).splitlines()
    assert lines[0] == "| seeds of 200 items | spread 0 points | spread 2 points |"
    assert lines[2] == "| 1 | 90 % / 80 % (wrong 3.5 %) | 85 % / 69 % (wrong 8.2 %) |"


def test_nothing_to_simulate_is_refused() -> None:
    with pytest.raises(BadInput, match=r"0 sets of \[1\] seeds"):
        power_table(seeds=(1,), sets=0)
