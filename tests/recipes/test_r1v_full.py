"""The flagship recipe end to end with tiny stand-ins for its assets, in upstream's layout: all its own stages."""

import json
from pathlib import Path

import pytest

from r1mm.manifest import cores
from tests.command import content, refused, reproduce
from tests.local_assets import make_local_assets
from tests.tiny import small_full_recipe

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_full_recipe(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_local_assets(tmp_path_factory.mktemp("assets"), train=16, items=7)


@pytest.fixture(scope="module")
def finished(recipe: Path, assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    result = reproduce(recipe, runs, "--assets", assets, "--gpus", "cpu")
    assert result.returncode == 0, result.stderr
    return runs / "small" / "as-fixed-seed1"


def test_it_ends_in_a_verdict_that_says_it_is_not_comparable(finished: Path) -> None:
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["comparable"] is False
    assert any("model" in reason for reason in verdict["why_not"])
    assert verdict["outcome"] == "not judged"
    assert set(verdict["scores"]) == {"superclevr-200", "cogent-vala", "cogent-valb"}
    assert all(score["n"] == 7 for by in verdict["scores"].values() for score in by.values())
    assert "not comparable" in (finished / "report.html").read_text()


def test_the_schedule_is_the_first_part_of_the_long_one(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-6 * (1 - step / 8750) for step in range(4)])


def test_the_manifest_names_what_every_asset_was(finished: Path) -> None:
    manifest = json.loads((finished.parent / "assets" / "manifest.json").read_text())
    assert manifest["assets"]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["plan"]["layout"]["device"] == "cpu"
    assert manifest["stages"]["grpo"]["threads"] == min(4, cores())  # the recipe says 4


def test_another_start_changes_nothing(recipe: Path, assets: Path, finished: Path) -> None:
    before = content(finished)
    result = reproduce(recipe, finished.parent.parent, "--assets", assets, "--gpus", "cpu")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 7
    assert content(finished) == before


def test_gpus_that_are_not_here_are_refused(recipe: Path, assets: Path, finished: Path) -> None:
    refused(
        reproduce(recipe, finished.parent.parent, "--assets", assets, "--gpus", "1x24G", "--launch", "local"), "gpus"
    )


def test_without_assets_and_network_it_says_what_to_do(recipe: Path, tmp_path: Path) -> None:
    result = reproduce(recipe, tmp_path, "--gpus", "cpu", HF_ENDPOINT="http://127.0.0.1:9")
    refused(result, "hub", "--assets")
