import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_house import ROOT


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One counted step of 2 prompts x 2 completions of 3 tokens: stock TRL and r1mm in turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setattr(sys, "argv", ["step.py", "--prompts", "2", "--group", "2", "--check-only", "--tokens", "3"])
        import step

        options = step.parse()
        place: Path = tmp_path_factory.mktemp("step")
        return step.measure(options, 3, step.build_world(options, place), place)


def found_wrong(images: dict[str, int], rows: int = 4, prompts: int = 2, group: int = 2) -> list[str]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from step_table import complaints
    finally:
        sys.path.pop(0)
    return complaints(images, prompts=prompts, group=group, rows=rows)


def test_both_sides_sample_the_same(runs: dict[str, Any]) -> None:
    assert runs["equal_completions"] == 1.0
    assert runs["work"]["longest_tokens"] == [3]


def test_sharing_is_seen_where_it_is_and_missed_where_it_is_not(runs: dict[str, Any]) -> None:
    shared, stock = (runs["sides"][name]["images"] for name in ("r1mm", "stock"))
    assert found_wrong(shared) == []
    assert stock == {"pixels": 8, "generation": 4, "reference": 4, "policy": 4}
    assert len(found_wrong(stock)) == 4


def test_a_count_of_nothing_is_no_sharing() -> None:
    assert len(found_wrong({})) == 4
    assert len(found_wrong({"pixels": 2, "generation": 2, "reference": 2, "policy": 0})) == 1


def test_a_group_that_is_cut_into_passes_comes_once_in_each() -> None:
    counts = {"pixels": 2, "generation": 2, "reference": 4, "policy": 4}
    assert found_wrong(counts, rows=1) == []
    assert len(found_wrong(counts, rows=2)) == 2
    # Three groups of four in passes of six: the second is cut in two.
    assert found_wrong({"pixels": 3, "generation": 3, "reference": 4, "policy": 4}, 6, prompts=3, group=4) == []
    assert len(found_wrong({"pixels": 3, "generation": 3, "reference": 5, "policy": 4}, 6, prompts=3, group=4)) == 1


def test_every_pass_does_what_it_is_called(runs: dict[str, Any]) -> None:
    stock, ours = (runs["sides"][name]["operations"] for name in ("stock", "r1mm"))
    passes = ("generation: tower", "reference: tower", "policy: tower", "policy: tower backward")
    for phase in passes:
        assert stock[phase] == 2 * ours[phase] > 0  # groups of two
    assert stock["policy: tower"] == stock["reference: tower"]
    # A backward pass multiplies twice for every product; the patches themselves need no gradient.
    assert 1.5 < stock["policy: tower backward"] / stock["policy: tower"] <= 2
    for phase in ("reference: rest", "policy: forward", "policy: backward"):
        assert stock[phase] >= ours[phase] > 0
    assert ours["pre-processing"] == ours["rewards"] == ours["other and idle"] == 0
