"""The R1-V miniature end to end: a fresh run, its verdict against the reference rows, and its page in a browser."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from r1mm.data.counting import load_counting
from r1mm.judge.verdict import EXIT_STATUS
from r1mm.mini.language import VISION_TOKENS
from r1mm.recipe import resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting
from r1mm.train.grpo import build_trainer, train_grpo
from tests.recipes.browser import chromium, screenshot

pytestmark = pytest.mark.timeout(3600)


def run_variant(runs: Path, variant: str) -> Path:
    """Run one variant to its end; the directory of the run."""
    command = [
        sys.executable,
        "-m",
        "r1mm",
        "reproduce",
        "r1v-mini",
        "--variant",
        variant,
        "--runs",
        str(runs),
        "--json",
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode in (0, 3, 4), "the run did not end with a verdict"
    verdict = json.loads(result.stdout)["verdicts"][0]
    assert result.returncode == EXIT_STATUS[verdict["outcome"]]
    return runs / "r1v-mini" / f"{variant}-seed1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def default_run(runs: Path) -> Path:
    return run_variant(runs, "images-fixed")


def test_the_default_variant_reproduces_our_reference_rows(default_run: Path) -> None:
    verdict = json.loads((default_run / "verdict.json").read_text())
    outcomes = {claim["id"]: claim["outcome"] for claim in verdict["claims"]}
    # Our rows lie 3 to 6 points above this threshold; another machine's run may be too close to tell, not refute it.
    assert outcomes.pop("images-fixed-gain-id") in ("reproduced", "inconclusive")
    assert outcomes == {
        "images-fixed-gain-ood": "reproduced",
        "images-fixed-length": "reproduced",
        "images-fixed-format": "reproduced",
        "images-fixed-gain-near": "reproduced",
    }


def test_every_output_is_kept_with_its_item(default_run: Path) -> None:
    verdict = json.loads((default_run / "verdict.json").read_text())
    base = default_run.parent / "base-seed1"
    for split in ("id", "ood"):
        for condition, root in (("base-think", base), ("base-direct", base), ("trained-think", default_run)):
            lines = (root / "generations" / f"{condition}-{split}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            assert [row["item"] for row in rows] == [f"{split}-{i:06d}" for i in range(len(rows))]
            assert len(rows) >= 400
            assert sum(row["correct"] for row in rows) == verdict["scores"][split][condition]["right"]


def test_metrics_hold_every_step(default_run: Path) -> None:
    rows = [json.loads(line) for line in (default_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 101))
    for key in (
        *("rewards/accuracy_reward/mean", "rewards/format_reward/mean", "completions/mean_length"),
        *("completions/clipped_ratio", "kl", "step_time"),
    ):
        assert all(isinstance(row[key], float) for row in rows), key


def test_the_report_opens_in_a_browser(default_run: Path, tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("no Chromium on this machine, and none could be installed")
    picture = tmp_path / "report.png"
    screenshot(default_run / "report.html", picture, 1200, 2000)
    with Image.open(picture) as image:
        assert image.width == 1200
        # A page that did not render is one colour; a rendered one holds text, bars and photographs.
        assert len(image.convert("RGB").resize((300, 500)).getcolors(maxcolors=200_000) or []) > 500


@pytest.mark.whole
def test_twenty_steps_are_those_of_stock_trl(
    default_run: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    family = default_run.parent
    recipe = resolve(load_recipe(RECIPES / "r1v-mini" / "recipe.yaml"), "images-fixed").recipe
    ours = "our choice: for a comparison with TRL as it is"
    stock = {"grouped_images": Setting(value=False, source=ours)}
    stock["train"] = recipe.train | {key: Setting(value=20, source=ours) for key in ("max_steps", "save_steps")}
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads.value)
    try:
        trainer = build_trainer(
            recipe.model_copy(update=stock),
            model=family / "base-seed1" / "stages" / "warm-start" / "model",
            dataset=load_counting(family / "assets" / "stages" / "assets" / "train.parquet"),
            seed=1,
            folder=tmp_path,
            suppressed=lambda tokenizer: tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)),
        )
        train_grpo(trainer, tmp_path, tmp_path / "metrics.jsonl")
    finally:
        torch.set_num_threads(threads)
    theirs, grouped = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:20]]
        for folder in (tmp_path, default_run)
    )
    assert len(theirs) == len(grouped) == 20
    largest = 0.0
    for stock_step, step in zip(theirs, grouped, strict=True):
        # Rewards and lengths are those of the same completions; the rest are sums in another order.
        for name, value in stock_step.items():
            if name != "step_time":
                assert step[name] == pytest.approx(value, rel=1e-5, abs=1e-7), (step["step"], name)
        largest = max(largest, abs(step["grad_norm"] / stock_step["grad_norm"] - 1))
    record_property("largest relative difference of the gradient's norm", largest)


@pytest.mark.whole
@pytest.mark.usefixtures("default_run")
def test_the_fixed_code_keeps_the_thinking_and_gains_less(runs: Path) -> None:
    verdict = json.loads((run_variant(runs, "as-fixed") / "verdict.json").read_text())
    outcomes = {claim["id"]: claim["outcome"] for claim in verdict["claims"]}
    assert outcomes.pop("as-fixed-gain") in ("reproduced", "inconclusive")  # as our own row is
    assert outcomes == {"as-fixed-format": "reproduced"}
