"""The video miniature end to end: its films, its verdict against the reference rows, and its page."""

import json
from pathlib import Path

import pytest

from r1mm.judge.statistics import wilson
from r1mm.recipe_files import RECIPES, load_expected, load_recipe
from r1mm.report.page import SAMPLES
from tests.command import reproduce

pytestmark = pytest.mark.timeout(1800)
FOLDER = RECIPES / "video-mini"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    result = reproduce(FOLDER, runs)
    assert result.returncode in (0, 3, 4), result.stderr
    return runs / "video-mini" / "as-fixed-seed1"


@pytest.mark.whole
def test_the_default_variant_reproduces_our_reference_rows(run: Path) -> None:
    verdict = json.loads((run / "verdict.json").read_text())
    outcomes = {claim["id"]: claim["outcome"] for claim in verdict["claims"]}
    assert set(outcomes.values()) == {"reproduced"}, outcomes


@pytest.mark.whole
def test_the_page_shows_the_films(run: Path) -> None:
    # Eight samples with their key frames, and a sheet of each set that the model is shown; none of the blind control.
    shown = [task for task in load_recipe(FOLDER / "recipe.yaml").tasks.values() if not task.blind]
    assert (run / "report.html").read_text().count("data:image/") == SAMPLES + len(shown)


def test_three_seeds_gain_beyond_their_intervals_and_look() -> None:
    recipe = load_recipe(FOLDER / "recipe.yaml")
    rows = [row for row in load_expected(FOLDER / "expected.yaml", recipe).reference_rows if row.variant == "as-fixed"]
    assert len({row.seed for row in rows}) >= 3
    for row in rows:
        base, trained = (row.results["ood"][condition] for condition in ("base-think", "trained-think"))
        blind = row.results["ood-blind"]["trained-think"]
        assert wilson(trained.right, trained.n).low > wilson(base.right, base.n).high
        assert 100 * (trained.right / trained.n - base.right / base.n) >= 15
        assert wilson(trained.right, trained.n).low > wilson(blind.right, blind.n).high
