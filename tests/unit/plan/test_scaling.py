"""The page of arithmetic is what the code prints, and a fit finds the speeds that its measurements were made with."""

import copy
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.plan.duration import CPU_SPEEDS, step_parts
from r1mm.plan.shapes import read_shape
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import values
from tests.unit.plan.laid import TWO_B, layout, tiny_config, work

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
FASTER = dataclasses.replace(
    CPU_SPEEDS, utilisation=0.31, backward_utilisation=0.37, decoding_utilisation=0.05, pass_latency=2e-3, per_step=0.09
)


@pytest.fixture(scope="module")
def scaling() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import scaling

        return scaling
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_page_is_what_the_code_prints(scaling: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main(["page"]) == 0
    assert capsys.readouterr().out == (BENCHMARKS / "SCALING.md").read_text(), (
        "python benchmarks/scaling.py page > benchmarks/SCALING.md"
    )


def measured(fit: Any, lengths: list[int]) -> dict[str, Any]:
    """A file as `step.py --json` writes it, of a machine that is exactly as fast as FASTER says."""
    config = tiny_config()
    runs: list[dict[str, Any]] = []
    found: dict[str, Any] = {"date": "2026-01-01", "device": "cpu", "ceiling_tflops": 0.1, "runs": runs}
    for tokens in lengths:
        run: dict[str, Any] = {
            "size": "mini",
            "config": config,
            "settings": {"prompts": 16, "group": 8, "rows": 128, "accumulation": 1, "gradient_checkpointing": False},
            "work": {"prompt_tokens": 50, "image_tokens": 16, "mean_tokens": [tokens], "longest_tokens": [tokens]},
            "sides": {},
        }
        for side in ("stock", "r1mm"):
            run["sides"][side] = {"seconds": {"step": [0.0], **{name: [1.0] for name in fit.PART_OF}}, "operations": {}}
        runs.append(run)
    for point, taken in zip(
        fit.points_of(found), [side for run in runs for side in run["sides"].values()], strict=True
    ):
        foretold = point.foretold(FASTER)
        for name, part in fit.PART_OF.items():
            taken["seconds"][name] = [foretold[part] / list(fit.PART_OF.values()).count(part)]
    return found


def test_a_fit_finds_the_speeds_and_foretells_what_it_did_not_see(scaling: Any) -> None:
    fit = scaling.scaling_fit
    seen, unseen = fit.split(fit.points_of(measured(fit, [8, 24, 80, 160])), [24, 160])
    found = fit.fit(seen, CPU_SPEEDS)
    assert found.backward_utilisation == pytest.approx(FASTER.backward_utilisation, rel=0.1)
    assert found.utilisation == pytest.approx(FASTER.utilisation, rel=0.1)
    assert fit.missed(unseen, found).worst_step < 0.03
    assert fit.missed(unseen, CPU_SPEEDS).worst_step > 0.1


def test_the_verb_fails_when_a_held_out_step_is_missed(
    scaling: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(scaling.scaling_fit, [8, 24, 80])
    (tmp_path / "step.json").write_text(json.dumps(found))
    assert scaling.main(["fit", str(tmp_path / "step.json"), "--hold-out", "24"]) == 0
    assert "utilisation=0.3" in capsys.readouterr().out
    slower = copy.deepcopy(found)
    for side in slower["runs"][1]["sides"].values():
        side["seconds"] = {name: [2 * value for value in taken] for name, taken in side["seconds"].items()}
    (tmp_path / "step.json").write_text(json.dumps(slower))
    assert scaling.main(["fit", str(tmp_path / "step.json"), "--hold-out", "24"]) == 1
    assert "NOT FORETOLD" in capsys.readouterr().err
    assert scaling.main(["fit", str(tmp_path / "step.json"), "--hold-out", "60"]) == 2
    found["runs"][0]["sides"]["stock"]["seconds"]["a coffee"] = [1.0]
    with pytest.raises(BadInput, match="of which the plan knows nothing"):
        scaling.scaling_fit.points_of(found)


def test_operations_are_those_that_torch_counts() -> None:
    """A forward pass of the miniature's own model, tower and language model, within a twentieth."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from r1mm.mini.datasets import PALETTE
    from r1mm.mini.language import build_tokenizer
    from r1mm.mini.model import build_model
    from r1mm.plan.duration import pass_flops, tower_flops

    mini = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    model = build_model(values(mini.model), build_tokenizer([mini.prompts.train.value], PALETTE), 0)
    shape = read_shape(model.config.to_dict())
    model.set_attn_implementation("eager")  # torch does not count the CPU's fused attention
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model.visual(torch.randn(2 * 64, 1176), torch.tensor([[1, 8, 8]] * 2))
    assert tower_flops(shape.tower, 2, 64) == pytest.approx(counter.get_total_flops(), rel=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.full((3, 40), 7), logits_to_keep=5)
    assert pass_flops(shape, 3, 40, 5) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_group_is_prefilled_and_encoded_once_where_it_is_shared() -> None:
    """8 processes of 16 completions in two passes: two prompts each."""
    shape = read_shape(TWO_B)

    def operations(**changes: Any) -> dict[tuple[str, str], float]:
        placed = changes.pop("placed", layout())
        parts = step_parts(shape, work(**changes), placed, mean=60, longest=60)
        return {(part.phase, part.name): part.operations for part in parts}

    ours, stock = operations(), operations(grouped=False)
    assert stock["generation", "prefill"] == 8 * ours["generation", "prefill"]
    assert stock["generation", "tower"] == 8 * ours["generation", "tower"]
    # The rows of a group stay in one pass.
    assert stock["reference", "tower"] == 8 * ours["reference", "tower"]
    assert stock["update", "tower backward"] == 8 * ours["update", "tower backward"]
    for same in (("generation", "decoding"), ("reference", "language"), ("update", "language backward")):
        assert stock[same] == ours[same]
    vllm = layout(generation="vllm-colocate")
    assert operations(placed=vllm, grouped=False)["generation", "tower"] == ours["generation", "tower"]
    assert operations(placed=vllm)["generation", "prefill"] == stock["generation", "prefill"]
    blind = operations(images_in_logprobs=False, images_in_reference=False)
    assert not [part for phase, part in blind if part.startswith("tower") and phase != "generation"]
    half = operations(images_in_reference=False)
    assert ("reference", "tower") not in half
    assert half["update", "tower backward"] == ours["update", "tower backward"]
