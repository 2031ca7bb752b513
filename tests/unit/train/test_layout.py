"""A full recipe's settings as a layout has them: weights, schedule, processor limits, prompts, processes."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, get_linear_schedule_with_warmup

from r1mm.data.counting import load_counting
from r1mm.errors import BadInput, StageFailed
from r1mm.plan import Layout
from r1mm.recipe import Recipe
from r1mm.sourced import Setting
from r1mm.train.distributed import needs_launch, node_rank
from r1mm.train.grpo import R1Trainer, build_trainer
from r1mm.train.prompt_length import lengths_by_item
from r1mm.train.settings import deepspeed_config, grpo_config, layout_fields, weights_dtype
from tests.laid_out import full_recipe, laid_out, make_world, suppressed

EIGHT_GPUS = laid_out(8, 8, 2, "zero-3", device="cuda")
ONE_GPU = laid_out(1, 8, 16, device="cuda", gradient_checkpointing=True)
CPU = laid_out(1, 8, 16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def with_setting(recipe: Recipe, **values: Any) -> Recipe:
    changes = {key: Setting(value=value, source="our choice: for a test") for key, value in values.items()}
    return recipe.model_copy(update=changes)


@pytest.mark.parametrize(
    ("variant", "layout", "dtype", "bf16"),
    [
        ("as-fixed", EIGHT_GPUS, "bfloat16", True),
        ("as-fixed", ONE_GPU, "float32", True),  # no ZeRO, no float32 masters
        ("as-fixed", CPU, "float32", False),
        ("as-published", laid_out(8, 8, 2, device="cuda"), "float32", True),
    ],
)
def test_weights_are_bfloat16_only_where_zero_keeps_float32_masters(
    variant: str, layout: Layout, dtype: str, bf16: bool
) -> None:
    recipe = full_recipe(variant)
    assert weights_dtype(recipe, layout) == dtype
    assert layout_fields(recipe, layout)["bf16"] is bf16


def test_bfloat16_without_zero_is_refused() -> None:
    recipe = with_setting(full_recipe(), sharding="ddp")
    with pytest.raises(BadInput, match="weights_dtype bfloat16 with sharding ddp"):
        weights_dtype(recipe, ONE_GPU)


def test_an_update_of_bfloat16_weights_would_be_lost() -> None:
    """The trap itself: what the rule above is for."""
    weights = torch.nn.Parameter(torch.full((4,), 0.02, dtype=torch.bfloat16))
    weights.grad = torch.ones_like(weights)
    before = weights.detach().clone()
    torch.optim.AdamW([weights], lr=1e-6, weight_decay=0.0).step()
    assert weights.equal(before)


def test_a_layout_in_the_trainer_s_words(tmp_path: Path) -> None:
    fields = layout_fields(full_recipe(), EIGHT_GPUS)
    assert (fields["per_device_train_batch_size"], fields["gradient_accumulation_steps"]) == (8, 2)
    config = deepspeed_config(full_recipe(), EIGHT_GPUS)
    assert config is not None
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    assert config["bf16"] == {"enabled": True}
    assert "offload_optimizer" not in config["zero_optimization"]
    assert layout_fields(full_recipe("as-published"), laid_out(8, 8, 2, device="cuda"))["ddp_find_unused_parameters"]
    with pytest.raises(BadInput, match=r"8 processes x 8 completions x 1 accumulation = 64 .* recipe has 128"):
        layout_fields(full_recipe(), laid_out(8, 8, 1))
    with pytest.raises(BadInput, match="a full recipe needs a layout"):
        grpo_config(full_recipe(), tmp_path, 1, [])


def trainer_of(world: Path, folder: Path, recipe: Recipe) -> R1Trainer:
    return build_trainer(
        recipe, model=world / "base", dataset=load_counting(world / "train.parquet"), seed=1, folder=folder,
        suppressed=suppressed, layout=CPU,
    )  # fmt: skip


def test_the_first_hundred_steps_of_a_longer_schedule(world: Path, tmp_path: Path) -> None:
    trainer = trainer_of(world, tmp_path, full_recipe())
    weights = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.AdamW([weights], lr=1e-6)
    expected = get_linear_schedule_with_warmup(theirs, num_warmup_steps=0, num_training_steps=8750)
    trainer.create_optimizer_and_scheduler(num_training_steps=trainer.args.max_steps)
    resumed = trainer_of(world, tmp_path, full_recipe())
    for step in range(100):
        assert trainer.lr_scheduler.get_last_lr()[0] == expected.get_last_lr()[0]
        for part in (trainer.optimizer, theirs):
            part.step()
        trainer.lr_scheduler.step()
        expected.step()
        if step == 49:
            state = trainer.lr_scheduler.state_dict()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.9886e-6, abs=5e-11)
    resumed.create_optimizer_and_scheduler(num_training_steps=resumed.args.max_steps)
    resumed.lr_scheduler.load_state_dict(state)
    for _ in range(50):
        resumed.optimizer.step()
        resumed.lr_scheduler.step()
    assert resumed.lr_scheduler.get_last_lr() == trainer.lr_scheduler.get_last_lr()


def test_limits_on_images_hold_in_training_and_prompts_are_measured_with_them(world: Path, tmp_path: Path) -> None:
    recipe = full_recipe()
    small = recipe.model_copy(
        update={"processor": {"max_pixels": Setting(value=56 * 56, source="our choice: for a test")}}
    )
    trainer = trainer_of(world, tmp_path, small)
    assert trainer.processing_class.image_processor.size["longest_edge"] == 56 * 56
    dataset = load_counting(world / "train.parquet")
    template = recipe.prompts.train.value
    lengths = lengths_by_item(dataset, template, trainer.processing_class)
    made = trainer.processing_class(
        text=[
            trainer.processing_class.apply_chat_template(trainer.train_dataset[0]["prompt"], add_generation_prompt=True)
        ],
        images=[trainer.train_dataset[0]["image"]],
    )
    assert lengths[0] == len(made["input_ids"][0])
    assert set(lengths_by_item(dataset, template, trainer.processing_class, most=5)) == {0, 4, 8, 12}
    whole = lengths_by_item(dataset, template, AutoProcessor.from_pretrained(world / "base"))
    assert whole[0] == lengths[0] + 12  # 112 x 112: 16 merged patches, not 4
    with pytest.raises(BadInput, match=r"16 of the 16 prompts .* 40 tokens, the longest: \w+ \(\d+\)"):
        trainer_of(world, tmp_path, with_setting(recipe, max_prompt_length=40))


def test_a_longer_prompt_than_was_looked_at_stops_the_run(world: Path, tmp_path: Path) -> None:
    trainer = trainer_of(world, tmp_path, full_recipe(max_completion_length=4))
    trainer.longest_prompt = 20
    trainer.create_optimizer_and_scheduler(num_training_steps=1)
    trainer.current_gradient_accumulation_steps = 16
    trainer.model.train()
    with pytest.raises(StageFailed, match=r"step 1: a prompt has \d+ tokens, more than max_prompt_length 20"):
        trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def test_nodes_are_told_apart_by_the_environment() -> None:
    two = laid_out(16, 8, 1, device="cuda", nodes=2)
    assert node_rank(CPU, {}) == 0
    assert node_rank(two, {"MASTER_ADDR": "a", "MASTER_PORT": "29500", "NODE_RANK": "1"}) == 1
    with pytest.raises(BadInput, match="2 nodes: MASTER_PORT, NODE_RANK not set"):
        node_rank(two, {"MASTER_ADDR": "a"})
    with pytest.raises(BadInput, match="NODE_RANK must be a whole number from 0 to 1, is '2'"):
        node_rank(two, {"MASTER_ADDR": "a", "MASTER_PORT": "29500", "NODE_RANK": "2"})
    with pytest.raises(BadInput, match="MASTER_PORT must be"):
        node_rank(two, {"MASTER_ADDR": "a", "MASTER_PORT": "x", "NODE_RANK": "0"})


def test_what_needs_processes_of_its_own() -> None:
    assert not needs_launch(CPU)
    assert needs_launch(laid_out(2, 8, 8))
    assert needs_launch(laid_out(1, 8, 16, "zero-2"))


def test_a_recipe_travels_to_its_processes() -> None:
    recipe = full_recipe()
    assert pickle.loads(pickle.dumps(recipe)) == recipe
