"""A plan as a user sees it."""

import json
from pathlib import Path

import pytest

from r1mm.cli import main
from r1mm.plan import Layout, Plan, make_plan
from tests.unit.plan.laid import TWO_B, recipe

SHOWN = ("8xA100-80G", "1xH100-80G", "4xA100-40G", "2x8xH100", "1x24G")


@pytest.mark.parametrize("spec", SHOWN)
def test_a_plan_comes_back_from_json_as_it_was(spec: str) -> None:
    plan = make_plan(recipe(), TWO_B, spec)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Layout.model_validate_json(plan.layout.model_dump_json()) == plan.layout
    assert plan.peak <= plan.device_memory
    always = sum(plan.memory["always"].values())
    assert plan.peak == pytest.approx(always + sum(plan.memory[plan.peak_phase].values()), abs=0.1)


def test_the_verb_prints_a_table_or_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "r1v-clevr-2b", "--gpus", "4xA100-40G"]) == 0
    text = capsys.readouterr().out
    for word in ("KV cache", "vision tower", "departures from upstream's layout", "assumption", "2,208,985,600"):
        assert word in text
    (tmp_path / "config.json").write_text(json.dumps(TWO_B))
    options = ["--gpus", "8xA100-80G", "--variant", "as-published", "--model", str(tmp_path), "--image", "480x320"]
    assert main(["plan", "r1v-clevr-2b", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["layout"]["sharding"] == "ddp"
    assert shown["variant"] == "as-published"


def test_the_verb_shows_every_training(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", "r1v-clevr-2b-distilled", "--variant", "after-sft", "--gpus", "8xH100"]
    assert main(given) == 0
    text = capsys.readouterr().out
    assert text.index("supervised fine-tuning") < text.index("GRPO")
    assert main([*given, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["training"], shown["sft"]["training"]) == ("grpo", "sft")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "8xA100-8OG"], "did you mean"),
        (["--gpus", "3xH100"], "cannot be split exactly"),
        (["--model", "nowhere"], "nowhere/config.json cannot be read"),
        (["--variant", "as-fixd"], "did you mean 'as-fixed'"),
    ],
)
def test_the_verb_refuses_in_one_line(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    assert main(["plan", "r1v-clevr-2b", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("r1mm: error: ")
    assert words in error
    assert error.count("\n") == 1
