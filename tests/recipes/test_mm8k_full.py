"""open-r1-multimodal's recipe end to end with tiny stand-ins for its assets, in the real schema."""

import json
import os
from pathlib import Path

import pytest

from r1mm.evaluate.lmms import VARIABLE
from tests.command import reproduce
from tests.lmms_picture_assets import MATHVISTA, MMMU, mathvista_prompts, mmmu_prompts
from tests.mm8k_assets import SIZES, make_mm8k_assets, row, small_mm8k, write_benchmarks

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]
LONG = (784, 784)  # 28 x 28 tokens, more than the 256 of a small recipe's prompt


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row(i, SIZES[i % 4]) for i in range(8)]
    rows[5] = row(5, LONG)
    rows[6] = row(6, SIZES[2], solution="<think>Nobody gave an answer.</think>")
    return make_mm8k_assets(tmp_path_factory.mktemp("assets"), rows)


@pytest.fixture(scope="module")
def runs(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = small_mm8k(tmp_path_factory.mktemp("recipes"), over_long="drop")
    runs = tmp_path_factory.mktemp("runs")
    for variant in ("released", "ours"):
        result = reproduce(recipe, runs, "--assets", assets, "--gpus", "cpu", "--variant", variant)
        assert result.returncode == 0, result.stderr
        assert "1 of the 8 prompts looked at have more than max_prompt_length 256 tokens and are dropped" in (
            result.stderr
        )
    return runs / "small8k"


def test_each_way_of_asking_has_a_base_evaluation_of_its_own(runs: Path) -> None:
    asked = {}
    for base in ("base-seed0-released", "base-seed0"):
        for condition in ("think", "direct"):
            lines = (runs / base / "generations" / f"base-{condition}-seen.jsonl").read_text().splitlines()
            asked[base, condition] = json.loads(lines[0])["prompt"]
    question = "How many items are there in the image?\nChoices:\nA. 0\nB. 1"
    assert asked["base-seed0-released", "think"] == f"{question}\n"
    assert asked["base-seed0", "think"].endswith("final answer in <answer> </answer> tags.")
    assert asked["base-seed0-released", "direct"] == asked["base-seed0", "direct"]


def test_what_was_dropped_is_listed_and_recorded(runs: Path) -> None:
    for run in ("released-seed1", "ours-seed1"):
        (listed,) = json.loads((runs / run / "stages" / "grpo" / "over-long.json").read_text())
        assert listed["item"] == "train-000005"
        assert listed["tokens"] > 28 * 28
        record = json.loads((runs / run / "stages" / "grpo" / "record.json").read_text())
        assert "stages/grpo/over-long.json" in record["outputs"]
        assert len((runs / run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_step_over_an_image_of_as_many_pixels_as_it_may_have(tmp_path: Path) -> None:
    make_mm8k_assets(tmp_path / "assets", [row(0, SIZES[0]), row(1, (1536, 1536))])
    smaller = {"train.num_generations": 2, "train.max_steps": 1}
    recipe = small_mm8k(tmp_path / "recipes", tested=1, max_prompt_length=8192, **smaller)
    change = ("--assets", tmp_path / "assets", "--gpus", "cpu", "--variant", "head")
    result = reproduce(recipe, tmp_path / "runs", *change)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs" / "small8k" / "head-seed1"
    assert not (run / "stages" / "grpo" / "over-long.json").exists()
    (step,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert step["num_tokens"] > 2 * 54 * 54  # two completions, each behind all tokens of its image


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no environment; `make test-evaluator` does")
def test_its_benchmarks_are_asked_by_lmms_eval(tmp_path: Path) -> None:
    write_benchmarks(make_mm8k_assets(tmp_path / "assets", [row(i, SIZES[i]) for i in range(4)]))
    recipe = small_mm8k(tmp_path / "recipes", tested=None, **{"train.max_steps": 1})
    result = reproduce(recipe, tmp_path / "runs", "--assets", tmp_path / "assets", "--gpus", "cpu")
    assert result.returncode == 0, result.stderr
    runs = tmp_path / "runs" / "small8k"

    def asked(home: str, condition: str, task: str) -> list[str]:
        lines = (runs / home / "generations" / f"{condition}-{task}.jsonl").read_text().splitlines()
        return [json.loads(line)["prompt"] for line in lines]

    base = "base-seed0-released"
    without_words = [mmmu_prompts(case)[0].replace("Think first.\n", "") for case in MMMU]
    assert asked(base, "base-think", "mmmu-val") == without_words
    assert asked(base, "base-direct", "mmmu-val") == [mmmu_prompts(case)[1] for case in MMMU]
    assert asked(base, "base-direct", "mathvista-mini") == [mathvista_prompts(case)[1] for case in MATHVISTA]
    for task in ("mmmu-val", "mathvista-mini"):
        assert asked("released-seed1", "trained-think", task) == asked(base, "base-think", task)


def test_by_itself_the_recipe_refuses_a_prompt_that_is_too_long(assets: Path, tmp_path: Path) -> None:
    recipe = small_mm8k(tmp_path / "recipes")
    result = reproduce(recipe, tmp_path / "runs", "--assets", assets, "--gpus", "cpu", "--variant", "head")
    assert result.returncode == 2
    (said,) = [line for line in result.stderr.splitlines() if "1 of the 8 prompts" in line]
    assert all(word in said for word in ("r1mm: error: ", "train-000005 (", "over-long.json", "over_long: drop"))
    assert "stage assets refused its input" in result.stderr  # before hours of evaluation
