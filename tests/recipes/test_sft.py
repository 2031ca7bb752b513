"""Supervised fine-tuning as a stage: tiny recipes to their verdicts, a kill, and the same step on two processes."""

import importlib.util
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1mm.errors import StageFailed
from r1mm.plan import Layout
from r1mm.train.distributed import in_processes
from tests.command import failed, files, r1mm, refused, reproduce, start
from tests.laid_out import laid_out, make_world, relative_difference, rows, tune_here, tuning_recipe
from tests.local_assets import make_local_assets
from tests.tiny import small_tuned_recipe, tiny_sft_recipe, write_examples

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (docker/locks/sharding.txt)"
)
VARIANTS = ("sft-grpo", "sft", "grpo")
MADE = Path("tiny", "assets", "stages", "distill", "dataset", "data", "train-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Steps 5 and 10 of 12 are sealed: in the middle of an epoch of two steps, and at the end of one.
    return tiny_sft_recipe(tmp_path_factory.mktemp("recipes"), {"sft.num_train_epochs": 6, "sft.save_steps": 5})


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs after all three variants of one base model."""
    runs = tmp_path_factory.mktemp("runs")
    assert r1mm("stage", "assets", recipe, "--runs", runs).returncode == 0
    write_examples(runs / MADE)
    result = reproduce(recipe, runs, "--variant", "all")
    assert result.returncode == 0, result.stderr
    return runs


def model(runs: Path, variant: str, stage: str) -> bytes:
    return (runs / "tiny" / f"{variant}-seed1" / "stages" / stage / "model" / "model.safetensors").read_bytes()


def test_each_variant_has_the_stages_that_it_trains_by(finished: Path) -> None:
    for variant in VARIANTS:
        root = finished / "tiny" / f"{variant}-seed1"
        stages = json.loads((root / "manifest.json").read_text())["stages"]
        assert [stage for stage in stages if stage in ("sft", "grpo")] == variant.split("-")
        assert (root / "metrics.jsonl").is_file() == ("grpo" in stages)
        assert {name: stages[name]["threads"] for name in variant.split("-")} == dict.fromkeys(variant.split("-"), 2)
    steps = [json.loads(line) for line in (tuned(finished) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert 0 < steps[-1]["mean_token_accuracy"] < 1
    assert json.loads((tuned(finished) / "left-out.json").read_text()) == []


def tuned(runs: Path, variant: str = "sft") -> Path:
    return runs / "tiny" / f"{variant}-seed1" / "stages" / "sft"


def test_grpo_starts_from_the_fine_tuned_model(finished: Path) -> None:
    base = (finished / "tiny" / "base-seed1" / "stages" / "warm-start" / "model" / "model.safetensors").read_bytes()
    assert model(finished, "sft-grpo", "sft") == model(finished, "sft", "sft") != base
    first = {}
    for variant in ("sft-grpo", "grpo"):
        line, *_ = (finished / "tiny" / f"{variant}-seed1" / "metrics.jsonl").read_text().splitlines()
        first[variant] = json.loads(line)
        assert first[variant]["kl"] == 0  # the reference is what it starts from
    assert first["sft-grpo"]["completions/mean_length"] != first["grpo"]["completions/mean_length"]
    record = json.loads((finished / "tiny" / "sft-grpo-seed1" / "stages" / "grpo" / "record.json").read_text())
    assert "stage.sft" in record["inputs"]
    alone = json.loads((finished / "tiny" / "grpo-seed1" / "stages" / "grpo" / "record.json").read_text())
    assert "stage.sft" not in alone["inputs"]
    # Beside the weights, what the base model has: the same processor.
    left = {path.name for path in (tuned(finished) / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "processor_config.json"} <= left
    assert not list((finished / "tiny").rglob("checkpoint-*"))


def test_pages_say_how_each_was_trained(finished: Path) -> None:
    words = {
        "sft-grpo": "supervised fine-tuning, then GRPO",
        "sft": "supervised fine-tuning",
        "grpo": "GRPO",
    }
    for variant, said in words.items():
        page = (finished / "tiny" / f"{variant}-seed1" / "report.html").read_text()
        assert f"<dt>Trained by</dt><dd>{said}</dd>" in page
        assert ("Token accuracy" in page) == ("sft" in variant)
        assert ("KL to the starting model" in page) == ("grpo" in variant)
    alone = (finished / "tiny" / "sft-seed1" / "report.html").read_text()
    assert "GRPO" not in alone
    assert "Accuracy reward" not in alone
    together = (finished / "tiny" / "comparison-seed1.html").read_text()
    assert "Token accuracy" in together
    assert "images_in_logprobs" not in together
    assert all(said in together for said in words.values())


def test_the_answer_is_over_variants_of_both_trainings(recipe: Path, finished: Path) -> None:
    result = r1mm("answer", recipe, "--runs", finished, "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert {verdict["variant"] for verdict in answer["verdicts"]} == set(VARIANTS)


def test_a_stage_that_a_variant_does_not_have_is_refused(recipe: Path, finished: Path) -> None:
    before = files(finished)
    refused(
        r1mm("stage", "sft", recipe, "--variant", "grpo", "--runs", finished),
        "recipe tiny has no stage sft under variant grpo",
    )
    assert files(finished) == before


def test_a_kill_while_it_is_fine_tuned_changes_nothing(recipe: Path, finished: Path, tmp_path: Path) -> None:
    for shared in ("assets", "base-seed1"):
        shutil.copytree(finished / "tiny" / shared, tmp_path / "tiny" / shared)
    metrics = tuned(tmp_path) / "metrics.jsonl"
    process = start("reproduce", recipe, "--variant", "sft", "--runs", tmp_path)
    try:
        while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 7):
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    time.sleep(1)  # the stage dies with its parent, and its lock goes with it
    assert not (tuned(tmp_path) / "model").exists(), "it was fine-tuned before the kill came"
    assert (tuned(tmp_path) / "checkpoint-5" / "sealed.json").is_file()
    result = reproduce(recipe, tmp_path, "--variant", "sft")
    assert result.returncode == 0, result.stderr
    whole, again = ({p.relative_to(at): p.read_bytes() for p in kept(at)} for at in (tuned(finished), tuned(tmp_path)))
    assert again == whole


def test_fine_tuning_that_diverges_stops_before_the_update(finished: Path, tmp_path: Path) -> None:
    for shared in ("assets", "base-seed1"):
        shutil.copytree(finished / "tiny" / shared, tmp_path / "runs" / "tiny" / shared)
    wild = tiny_sft_recipe(tmp_path / "wild", {"sft.learning_rate": 1e30, "sft.max_grad_norm": 1e30})
    result = r1mm("stage", "sft", wild, "--runs", tmp_path / "runs")
    failed(result, "is not finite; stopped before the update")
    assert not (tuned(tmp_path / "runs", "sft-grpo") / "model").exists()


def kept(stage: Path) -> list[Path]:
    """What a stage leaves that carries no time."""
    return [stage / "metrics.jsonl", stage / "left-out.json", *sorted((stage / "model").iterdir())]


def test_examples_that_are_not_there_are_asked_for(recipe: Path, finished: Path, tmp_path: Path) -> None:
    for shared in ("assets", "base-seed1"):
        shutil.copytree(finished / "tiny" / shared, tmp_path / "tiny" / shared)
    (tmp_path / MADE).unlink()
    refused(r1mm("stage", "sft", recipe, "--runs", tmp_path), "set distilled: there is no train-*.parquet in")


def test_examples_longer_than_the_limit_are_refused_or_left_out(finished: Path, tmp_path: Path) -> None:
    for shared in ("assets", "base-seed1"):
        shutil.copytree(finished / "tiny" / shared, tmp_path / "runs" / "tiny" / shared)
    stops = tiny_sft_recipe(tmp_path / "stops", {"sft.max_length": 55})
    refused(
        r1mm("stage", "sft", stops, "--runs", tmp_path / "runs"), "examples have more than sft.max_length 55 tokens"
    )
    shutil.rmtree(tmp_path / "runs" / "tiny" / "sft-grpo-seed1")
    skips = tiny_sft_recipe(tmp_path / "skips", {"sft.max_length": 55, "sft_examples.too_long": "skip"})
    result = r1mm("stage", "sft", skips, "--runs", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    out = json.loads((tuned(tmp_path / "runs", "sft-grpo") / "left-out.json").read_text())
    assert 0 < len(out) < 10
    assert all(row["tokens"] > 55 for row in out)
    assert f"{len(out)} examples are too long and left out" in result.stderr


# --- on two processes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_world(tmp_path_factory.mktemp("world"))
    write_examples(place / "examples.parquet", 34)
    return place


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The gradient of one step of 16 examples, taken at once."""
    return gradient(world, tmp_path_factory.mktemp("whole"), laid_out(1, 16, 1))


RATE = 1e4


def gradient(world: Path, folder: Path, layout: Layout) -> dict[str, torch.Tensor]:
    """What one step of plain SGD, at a rate so large that it drowns rounding, changed the weights by."""
    changes = {"optim": "sgd", "learning_rate": RATE, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    recipe = tuning_recipe(**changes, warmup_steps=0, max_steps=1)
    own = {key: setting for key, setting in recipe.sft.items() if key != "num_train_epochs"}
    in_processes(layout, tune_here, recipe.model_copy(update={"sft": own}), world, folder, layout)
    base, after = (load_file(place / "model.safetensors") for place in (world / "base", folder / "model"))
    return {name: (after[name] - base[name]) / -RATE for name in base}


@pytest.mark.parametrize(
    ("layout", "tolerance"),
    [
        (laid_out(1, 4, 4, gradient_checkpointing=True), 1e-6),
        (laid_out(2, 4, 2), 1e-6),
        pytest.param(laid_out(2, 4, 2, "zero-2"), 1e-5, marks=needs_deepspeed),
        pytest.param(laid_out(2, 2, 4, "zero-3"), 1e-5, marks=needs_deepspeed),
    ],
    ids=["accumulated", "ddp", "zero-2", "zero-3"],
)
def test_a_layout_gives_the_gradient_of_the_whole_step(
    world: Path, whole: dict[str, torch.Tensor], tmp_path: Path, layout: Layout, tolerance: float
) -> None:
    assert relative_difference(gradient(world, tmp_path, layout), whole) <= tolerance


@needs_deepspeed
def test_a_killed_process_under_zero_2_goes_on_to_the_same_weights(world: Path, tmp_path: Path) -> None:
    layout = laid_out(2, 4, 2, "zero-2")
    recipe = tuning_recipe(num_train_epochs=2, save_steps=2, learning_rate=1e-3)  # two steps an epoch
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    in_processes(layout, tune_here, recipe, world, unbroken, layout)
    with pytest.raises(StageFailed, match="process 1 of 2: ended by SIGKILL"):
        in_processes(layout, tune_here, recipe, world, broken, layout, 3)
    assert [path.name for path in broken.glob("checkpoint-*")] == ["checkpoint-2"]
    in_processes(layout, tune_here, recipe, world, broken, layout)
    expected, found = (load_file(at / "model" / "model.safetensors") for at in (unbroken, broken))
    assert all(weights.equal(expected[name]) for name, weights in found.items())
    assert rows(unbroken) == rows(broken)
    assert len(rows(broken)) == 4


# --- full recipes from a folder of assets

TRAIN_R1 = Path("datasets", "MMInstruction", "Clevr_CoGenT_TrainA_R1", "data", "train-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_local_assets(tmp_path_factory.mktemp("assets"), train=4, items=5)
    write_examples(folder / TRAIN_R1)
    return folder


def test_the_recipe_of_fine_tuning_runs_from_a_folder_of_assets(assets: Path, tmp_path: Path) -> None:
    recipe = small_tuned_recipe(tmp_path / "recipes")
    result = reproduce(recipe, tmp_path / "runs", "--assets", assets, "--gpus", "cpu")
    assert result.returncode == 0, result.stderr
    root = tmp_path / "runs" / "small" / "as-published-seed1"
    verdict = json.loads((root / "verdict.json").read_text())
    assert (verdict["comparable"], verdict["outcome"]) == (False, "not judged")
    assert {claim["id"] for claim in verdict["claims"]} >= {"as-published-accuracy", "as-published-no-gain"}
    assert list(verdict["recorded"]["superclevr-200"]) == ["base-think minus recorded base-think"]
    manifest = json.loads((root / "manifest.json").read_text())
    assert "plan" not in manifest
    assert manifest["plan-sft"]["completions_per_step"] == 4
    assert len((root / "stages" / "sft" / "metrics.jsonl").read_text().splitlines()) == 2
    page = (root / "report.html").read_text()
    assert "4 examples a step" in page
    assert "sft_examples.system" in page
    assert "GRPO" not in page.replace("Qwen2-VL-2B after GRPO", "").replace("bar R1-V", "")


def test_the_recipe_of_both_trainings_runs_from_a_folder_of_assets(assets: Path, tmp_path: Path) -> None:
    smaller = {
        **{"prompts_per_step": 2, "train.max_steps": 2, "train.num_generations": 4, "train.save_steps": 2},
        "train.max_completion_length": 8,
    }
    recipe = small_tuned_recipe(tmp_path / "recipes", "r1v-clevr-2b-distilled", smaller)
    result = reproduce(recipe, tmp_path / "runs", "--assets", assets, "--gpus", "cpu", "--variant", "after-sft")
    assert result.returncode == 0, result.stderr
    root = tmp_path / "runs" / "small" / "after-sft-seed1"
    manifest = json.loads((root / "manifest.json").read_text())
    assert (manifest["plan"]["training"], manifest["plan-sft"]["training"]) == ("grpo", "sft")
    assert {"sft", "grpo"} <= manifest["stages"].keys()
    page = (root / "report.html").read_text()
    assert "4 examples a step" in page
    assert "8 completions a step" in page
