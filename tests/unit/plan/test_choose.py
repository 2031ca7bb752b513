"""The layout that is chosen: the batch kept exactly, departures listed, what cannot fit refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.plan import default_gpus, make_plan, parse_gpus
from r1mm.plan.duration import tower_flops
from r1mm.plan.hardware import GIB, GPUS
from r1mm.plan.layout import exact_splits, work_of
from r1mm.plan.shapes import config_of_repo, read_shape
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, all_recipes, load_recipe
from tests.unit.plan.laid import TWO_B, recipe, tiny_config


@pytest.mark.parametrize("variant", ["as-published", "as-fixed", "as-fixed+vllm"])
def test_a_step_is_kept_exactly_on_every_number_of_gpus(variant: str) -> None:
    chosen = recipe(variant)
    for gpus in range(1, 65):
        if 128 % gpus:
            with pytest.raises(BadInput, match="cannot be split exactly.*1, 2, 4, 8, 16, 32, 64, 128"):
                make_plan(chosen, TWO_B, f"{gpus}xH200-141G")
            continue
        layout = make_plan(chosen, TWO_B, f"{gpus}xH200-141G").layout
        assert layout.processes * layout.completions_per_device * layout.accumulation == 128
        # What TRL asks for beside: whole groups in what all processes generate together (trl==1.16.0, GRPOConfig).
        assert layout.processes * layout.generated % 8 == 0
        assert layout.processes == gpus


def test_trl_takes_the_split_of_a_group_over_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """64 processes of two completions: fewer than a group each.  TRL's own check, with its count of processes set."""
    from trl import GRPOConfig

    layout = make_plan(recipe(), TWO_B, "64xH100").layout
    assert (layout.completions_per_device, layout.accumulation) == (2, 1)

    def config(per_device: int) -> Any:
        return GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=layout.accumulation,
            num_generations=8,
            use_cpu=True,
        )

    monkeypatch.setattr(GRPOConfig, "world_size", 64)
    assert config(layout.completions_per_device).generation_batch_size == 128
    monkeypatch.setattr(GRPOConfig, "world_size", 3)
    with pytest.raises(ValueError, match="divisible by num_generations"):
        config(1)


def test_upstreams_own_layout_is_kept_where_it_fits() -> None:
    published = make_plan(recipe("as-published"), TWO_B, "8xA100-80G")
    fixed = make_plan(recipe("as-fixed"), TWO_B, "8xA100-80G")
    assert (published.layout.sharding, fixed.layout.sharding) == ("ddp", "zero-3")
    for plan in (published, fixed):
        assert plan.layout.completions_per_device * plan.layout.accumulation == 16
        assert not plan.layout.offload
        assert not plan.layout.gradient_checkpointing
    assert fixed.deviations == []
    # 8 x 2 would take 75.6 of 80 GiB: too near to rely on a prediction.
    assert (published.layout.completions_per_device, fixed.layout.completions_per_device) == (4, 8)
    assert {item.changes_numbers for item in published.deviations} <= {"no", "rounding"}


def test_every_departure_is_listed_with_its_reason() -> None:
    plan = make_plan(recipe("as-published"), TWO_B, "4xA100-40G")
    found = {item.setting: item for item in plan.deviations}
    assert plan.layout.sharding == "zero-2"
    assert (found["sharding"].upstream, found["sharding"].ours) == ("ddp", "zero-2")
    assert (found["weights"].upstream, found["weights"].ours) == ("float32", "bfloat16")
    assert found["GPUs"].upstream == "8xA100-80G"
    assert all(item.reason for item in plan.deviations)
    assert {item.setting for item in plan.deviations if item.changes_numbers == "yes"} == {"weights"}
    assert ("gradient checkpointing" in found) == plan.layout.gradient_checkpointing
    alone = make_plan(recipe("as-fixed"), TWO_B, "1x24G")
    assert alone.layout.offload
    assert alone.host_memory > 40
    assert "weights and optimizer" in {item.setting for item in alone.deviations}


def test_vllm_only_where_the_recipe_asks_for_it() -> None:
    assert make_plan(recipe(), TWO_B, "8xA100-80G").layout.generation == "transformers"
    colocated = make_plan(recipe("as-fixed+vllm"), TWO_B, "8xA100-80G").layout
    assert colocated.generation == "vllm-colocate"
    # 4.1 GiB of weights, 16 x 795 x 28 KiB = 0.34 GiB of cache and 2 GiB of its own: 6.5 of 80, rounded up to 0.1.
    assert colocated.vllm_memory == 0.1
    whole = recipe("as-fixed+vllm").model_dump()
    whole["train"]["vllm_mode"]["value"] = "server"
    served = Recipe.model_validate(whole)
    five = make_plan(served, TWO_B, "5xA100-80G").layout
    assert (five.processes, five.vllm_gpus, five.generation, five.vllm_memory) == (4, 1, "vllm-server", None)
    nodes = make_plan(served, TWO_B, "2x8xH100").layout
    assert (nodes.nodes, nodes.processes, nodes.vllm_gpus) == (1, 8, 8)
    with pytest.raises(BadInput, match="a GPU each"):
        make_plan(served, TWO_B, "1xH100")


def test_what_cannot_fit_is_refused_with_the_smallest_that_can() -> None:
    seven = config_of_repo("Qwen/Qwen2-VL-7B-Instruct")
    with pytest.raises(BadInput) as refused:
        make_plan(recipe("as-published"), seven, "1x24G")
    text = str(refused.value)
    assert re.match(
        r"1x24G: r1v-clevr-2b \(8\.29 billion parameters\) needs at least \d+\.\d GiB per GPU even with zero-3", text
    )
    assert "1 completion at a time" in text
    smallest = re.search(r"The smallest that fits: --gpus (\S+)", text)
    assert smallest
    assert make_plan(recipe("as-published"), seven, smallest[1])
    memory = parse_gpus(smallest[1])
    for gpu in GPUS.values():  # nothing of less memory takes it
        if gpu.memory < memory.devices * memory.gpu.memory:
            with pytest.raises(BadInput):
                make_plan(recipe("as-published"), seven, f"1x{gpu.name}")


def test_a_2b_model_is_refused_on_an_ordinary_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    seen = psutil.virtual_memory()
    monkeypatch.setattr("psutil.virtual_memory", lambda: seen._replace(total=16 * GIB))
    with pytest.raises(
        BadInput, match=r"cpu: r1v-clevr-2b .* of memory even with .*13\.6 of 16\.0 GiB.*smallest that fits"
    ):
        make_plan(recipe(), TWO_B, "cpu")
    monkeypatch.setattr("psutil.virtual_memory", lambda: seen._replace(total=512 * GIB))
    assert make_plan(recipe(), TWO_B, "cpu").layout.device == "cpu"


def test_a_tiny_stand_in_fits_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    seen = psutil.virtual_memory()
    for memory, expected in ((256, (128, 1)), (8, None)):
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: seen._replace(total=memory * GIB))
        plan = make_plan(recipe("as-fixed+vllm"), tiny_config(), "cpu")
        got = plan.layout
        assert (got.device, got.processes, got.generation, got.sharding) == ("cpu", 1, "transformers", "ddp")
        assert got.completions_per_device * got.accumulation == 128
        assert expected is None or (got.completions_per_device, got.accumulation) == expected
        assert plan.cost is None


def test_a_miniature_is_planned_for_the_cpu_alone() -> None:
    mini = resolve(load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")).recipe
    assert make_plan(mini, tiny_config(), "cpu").layout.completions_per_device == 128
    with pytest.raises(BadInput, match="write --gpus cpu"):
        make_plan(mini, tiny_config(), "1xH100")


def test_hours_and_cost_are_the_steps_times_the_price() -> None:
    plan = make_plan(recipe(), TWO_B, "8xA100-80G", price=2.0)
    assert plan.hours == pytest.approx(plan.step_seconds["total"] * 100 / 3600, abs=1e-3)
    assert plan.cost == pytest.approx(plan.hours * 8 * 2.0, abs=0.01)
    assert plan.hours <= plan.hours_at_most
    assert any("assumption" in text for text in make_plan(recipe(), TWO_B, "8xA100-80G").assumptions)
    assert make_plan(recipe(), TWO_B, "1x24G").cost is None  # nobody sells "24G"


def test_a_clip_is_its_pairs_of_frames() -> None:
    video = resolve(load_recipe(RECIPES / "video-7b" / "recipe.yaml")).recipe
    seven = config_of_repo("Qwen/Qwen2-VL-7B-Instruct")
    shape = read_shape(seven)
    work = work_of(video, shape)
    assert (work.slices, work.image_tokens, work.prompt_tokens) == (8, 8 * 196, 8 * 196 + 320)
    assert work_of(video, shape, (28 * 10, 28 * 5)).image_tokens == 8 * 50
    assert work_of(video, shape, (1920, 1080)).image_tokens == 8 * 196
    first = resolve(load_recipe(RECIPES / "video-7b" / "recipe.yaml"), "as-published-18feb").recipe
    assert work_of(first, shape).images_in_logprobs  # the policy's passes see the clip
    # A patch attends to its own pair of frames.
    tower, patches = shape.tower, 8 * 784
    assert tower_flops(tower, 1, patches, 8) == pytest.approx(8 * tower_flops(tower, 1, 784))
    assert tower_flops(tower, 1, patches, 8) < 0.8 * tower_flops(tower, 1, patches)
    alone = {item.setting: item for item in make_plan(video, seven, "1xH100-80G").deviations}
    assert "weights and optimizer" not in alone  # upstream's script keeps them on the host too
    eight = {item.setting: item for item in make_plan(video, seven, "8xH100-80G").deviations}
    assert (eight["weights and optimizer"].upstream, eight["weights and optimizer"].ours) == (
        *("in the host's memory", "on the GPU"),
    )
    assert (eight["gradient checkpointing"].upstream, eight["gradient checkpointing"].ours) == ("on", "off")


@pytest.mark.parametrize(
    "folder", [path.parent for path in sorted(RECIPES.glob("*/recipe.yaml"))], ids=lambda path: path.name
)
def test_every_full_recipe_is_planned_for_its_own_hardware(folder: Path) -> None:
    whole = load_recipe(folder / "recipe.yaml")
    if whole.miniature:
        return
    for variant in whole.variants:
        chosen = resolve(whole, variant).recipe
        assert chosen.hardware is not None
        asset = chosen.assets["model"]
        assert asset.kind == "model"
        for training in chosen.trainings:
            plan = make_plan(chosen, config_of_repo(asset.repo), default_gpus(chosen), training=training)
            assert (plan.training, plan.completions_per_step) == (training, chosen.rows_of_step(training))


def tuned() -> Recipe:
    return resolve(load_recipe(RECIPES / "r1v-clevr-2b-sft" / "recipe.yaml")).recipe


def test_fine_tuning_is_laid_out_as_grpo_is() -> None:
    plan = make_plan(tuned(), TWO_B, "8xA100-80G")
    layout = plan.layout
    assert (layout.processes, layout.completions_per_device, layout.accumulation) == (8, 4, 4)  # upstream's own
    assert (layout.sharding, layout.generation, layout.vllm_gpus) == ("zero-2", "none", 0)
    assert set(plan.memory) == {"always", "update", "optimizer step"}
    assert "reference" not in plan.memory["always"]
    assert plan.step_seconds["generation"] == plan.step_seconds["reference"] == 0
    # All fits without computing anything twice, even were every example as long as the recipe lets it be.
    assert [item.setting for item in plan.deviations] == ["gradient checkpointing"]
    alone = make_plan(tuned(), TWO_B, "1xH100-80G")
    assert alone.layout.gradient_checkpointing
    assert {item.setting: item.ours for item in alone.deviations}["examples per device x accumulation"] == "4 x 32"
    with pytest.raises(BadInput, match=r"3xH100-80G: 128 examples per step cannot be split exactly over 3 GPUs"):
        make_plan(tuned(), TWO_B, "3xH100-80G")


def test_the_work_of_fine_tuning_by_hand() -> None:
    shape = read_shape(TWO_B)
    work = work_of(tuned(), shape, training="sft")
    # 37,800 rows in whole steps of 128; an image of 480 x 320 takes 187 of 4,096 tokens, and all others are learnt.
    assert (work.steps, work.completions, work.image_tokens, work.tokens) == (295, 128, 187, 4096)
    assert work.completion_tokens == 4096 - 187
    ours = resolve(load_recipe(RECIPES / "r1v-clevr-2b-sft" / "recipe.yaml"), "ours").recipe
    answer = work_of(ours, shape, training="sft")
    assert (answer.tokens, answer.completion_tokens) == (4096, 4096 - 187 - 96)
    unknown = tuned()
    assets = {**unknown.assets, "train": unknown.assets["train"].model_copy(update={"repo": "somebody/else"})}
    with pytest.raises(BadInput, match="how many rows train has is not known"):
        work_of(unknown.model_copy(update={"assets": assets}), shape, training="sft")


def test_two_trainings_have_two_plans() -> None:
    both = resolve(load_recipe(RECIPES / "r1v-clevr-2b-distilled" / "recipe.yaml"), "after-sft").recipe
    assert make_plan(both, TWO_B, "8xA100-80G").training == "grpo"
    first = make_plan(both, TWO_B, "8xA100-80G", training="sft")
    assert (first.layout.sharding, first.completions_per_step) == ("zero-2", 128)


def test_a_reference_that_sees_no_image_is_planned_without_its_tower() -> None:
    whole = load_recipe(RECIPES / "mm8k-2b" / "recipe.yaml")
    sees = {}
    for variant in whole.variants:
        work = work_of(resolve(whole, variant).recipe, read_shape(TWO_B))
        assert work.prompt_tokens == 8192
        sees[variant] = (work.images_in_logprobs, work.images_in_reference)
    assert sees == {"released": (False, False), "head": (True, False), "ours": (True, True)}
    hours = [make_plan(resolve(whole, variant).recipe, TWO_B, "8xH100-80G").hours for variant in sees]
    assert hours == sorted(set(hours))


@pytest.mark.parametrize("model", ["2b", "7b"])
def test_prompts_of_8192_tokens_fit_one_gpu_and_eight(model: str) -> None:
    chosen = resolve(load_recipe(RECIPES / f"mm8k-{model}" / "recipe.yaml")).recipe
    shape = config_of_repo(f"Qwen/Qwen2-VL-{model.upper()}-Instruct")
    eight, one = (make_plan(chosen, shape, f"{gpus}xH100-80G") for gpus in (8, 1))
    for plan in (eight, one):
        assert plan.completions_per_step == 64
        assert plan.peak < GPUS["H100-80G"].memory
    # Upstream took 10 hours, with vision and prompt of every completion, and every log-prob, on its own.
    assert 1 < eight.hours < 10 < 4 * one.hours


def test_exact_splits() -> None:
    assert exact_splits(128, 20) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    "folder", [f for f in all_recipes() if not load_recipe(f / "recipe.yaml").miniature], ids=lambda f: f.name
)
def test_the_readmes_plans_are_those_of_the_program(folder: Path) -> None:
    recipe = resolve(load_recipe(folder / "recipe.yaml")).recipe
    model = recipe.assets["model"]
    assert model.kind == "model"
    rows = re.findall(
        r"^\| (\S*\dx\S+) \| ([\dx ]+) \| .*? \| ([\d.]+) of ", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert rows
    for gpus, split, peak in rows:
        plan = make_plan(recipe, config_of_repo(model.repo), gpus)
        layout = plan.layout
        assert split == f"{layout.processes} x {layout.completions_per_device} x {layout.accumulation}", gpus
        assert float(peak) == round(plan.peak, 1), gpus
