import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from safetensors.torch import load_file

from r1mm.data.counting import load_counting, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.errors import BadInput, StageFailed
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import VISION_TOKENS, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png
from r1mm.recipe import resolve
from r1mm.recipe_files import OURS, load_recipe
from r1mm.sourced import Setting
from r1mm.train.grpo import R1Trainer, build_trainer
from r1mm.train.settings import run_fields
from tests.tiny import tiny_recipe


def suppressed(tokenizer: Any) -> list[int]:
    return tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, a recipe and four noisy pictures."""
    place = tmp_path_factory.mktemp("grpo")
    recipe = load_recipe(tiny_recipe(place) / "recipe.yaml")
    tokenizer = build_tokenizer([recipe.prompts.train.value], PALETTE)
    settings = {key: setting.value for key, setting in recipe.model.items()}
    save(build_model(settings, tokenizer, 0), build_processor(tokenizer, 112), place / "base")
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(4)]
    write_counting(place / "sets" / "train.parquet", pngs, QUESTIONS["train"], [1, 2, 3, 4])
    return place


def trainer_of(folder: Path, variant: str, *, grouped: bool = True) -> R1Trainer:
    recipe = resolve(load_recipe(folder / "tiny" / "recipe.yaml"), variant).recipe
    return build_trainer(
        recipe.model_copy(update={"grouped_images": Setting(value=grouped, source="our choice: for a test")}),
        model=folder / "base",
        dataset=load_counting(folder / "sets" / "train.parquet"),
        seed=1,
        folder=folder / variant,
        suppressed=suppressed,
    )


def generated(trainer: R1Trainer) -> dict[str, Any]:
    """One generation batch with rewards and advantages, as TRL prepares it."""
    trainer.create_optimizer_and_scheduler(num_training_steps=4)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


@pytest.fixture(scope="module")
def seeing(folder: Path) -> R1Trainer:
    return trainer_of(folder, "images-fixed")


@pytest.fixture(scope="module")
def batch(seeing: R1Trainer) -> dict[str, Any]:
    return generated(seeing)


def log_probs(trainer: R1Trainer, batch: dict[str, Any], pixels: torch.Tensor) -> torch.Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            ids,
            mask,
            batch["completion_ids"].size(1),
            pixel_values=pixels,
            image_grid_thw=batch["image_grid_thw"],
            num_images=batch["num_images"],
            mm_token_type_ids=batch["mm_token_type_ids"],
        )
    return logps


def test_log_probs_see_the_images_or_do_not(folder: Path, seeing: R1Trainer, batch: dict[str, Any]) -> None:
    blind = trainer_of(folder, "as-published")
    pixels = batch["pixel_values"]
    assert not log_probs(seeing, batch, pixels).allclose(log_probs(seeing, batch, pixels.flip(0)))
    assert log_probs(blind, batch, pixels).equal(log_probs(blind, batch, pixels.flip(0)))


def test_text_alone_gives_the_tower_no_gradient(folder: Path) -> None:
    blind = trainer_of(folder, "as-published")
    inputs = generated(blind)
    inputs["advantages"] = torch.linspace(-1, 1, len(inputs["advantages"]))
    blind.compute_loss(blind.model, inputs).backward()
    assert all(p.grad is None or not p.grad.any() for p in blind.model.model.visual.parameters())
    assert any(p.grad is not None and p.grad.any() for p in blind.model.model.language_model.parameters())


def test_vision_tokens_are_never_sampled(seeing: R1Trainer, batch: dict[str, Any]) -> None:
    assert seeing.generation_config.suppress_tokens == [3, 4, 5, 6, 7]
    assert not torch.isin(batch["completion_ids"], torch.tensor([3, 4, 5, 6, 7])).any()


def test_settings_reach_the_trainer(seeing: R1Trainer) -> None:
    arguments = seeing.args
    assert (arguments.beta, arguments.loss_type, arguments.scale_rewards) == (0.04, "grpo", "group")
    assert (arguments.use_bias_correction_kl, arguments.top_k, arguments.temperature) == (False, 50, 1.0)
    assert (arguments.num_iterations, arguments.bf16, arguments.gradient_checkpointing) == (1, False, False)
    assert arguments.trust_remote_code is False
    assert {p.dtype for p in seeing.model.parameters()} == {torch.float32}
    assert seeing.ref_model is not None
    assert {p.dtype for p in seeing.ref_model.parameters()} == {torch.float32}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_groups(
    folder: Path, seeing: R1Trainer, batch: dict[str, Any], bad: float
) -> None:
    advantages = batch["advantages"].clone()
    advantages[5] = bad
    with pytest.raises(StageFailed, match=r"step 1: the loss is .*; stopped before the update"):
        seeing.compute_loss(seeing.model, {**batch, "advantages": advantages})
    saved = json.loads((folder / "images-fixed" / "nonfinite-step-1.json").read_text())
    assert [len(group["completions"]) for group in saved["groups"]] == [4, 4]
    assert all(group["reference_logps_finite"] == [True] * 4 for group in saved["groups"])
    # The rows come shuffled: the bad one stands in the group of its image.
    offending = [group for group in saved["groups"] if repr(bad) in group["advantages"]]
    assert len(offending) == 1
    images = load_file(folder / "images-fixed" / "nonfinite-step-1.safetensors")
    pixels = batch["pixel_values"].split(batch["image_grid_thw"].prod(-1).tolist())
    assert torch.equal(images[f"image-{offending[0]['image']}"], pixels[batch["group"][5]])
    assert len(images) == len(pixels) == 2


def test_the_groups_are_told_apart_where_every_row_brings_its_image(folder: Path) -> None:
    trainer = trainer_of(folder, "images-fixed", grouped=False)
    inputs = generated(trainer)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)  # as ZeRO gives them
    inputs["advantages"][0] = float("nan")
    with pytest.raises(StageFailed, match="the loss is nan"):
        trainer.compute_loss(trainer.model, inputs)
    saved = json.loads((folder / "images-fixed" / "nonfinite-step-1.json").read_text())
    assert [len(group["completions"]) for group in saved["groups"]] == [4, 4]
    assert len(load_file(folder / "images-fixed" / "nonfinite-step-1.safetensors")) == 2


def test_a_recipe_may_not_set_what_every_run_sets(tmp_path: Path) -> None:
    assert run_fields(tmp_path, 1, cpu=True).keys() <= OURS


def test_the_weights_of_a_checkpoint_come_back(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of(folder, "images-fixed")
    saved = {name: weights.clone() for name, weights in trainer.model.state_dict().items()}
    trainer.model.save_pretrained(tmp_path)
    with torch.no_grad():
        for weights in trainer.model.parameters():
            weights.add_(1.0)
    trainer._load_from_checkpoint(str(tmp_path))
    for name, weights in trainer.model.state_dict().items():
        assert weights.equal(saved[name]), name


def test_a_dataset_smaller_than_a_step_is_refused(folder: Path) -> None:
    dataset = load_counting(folder / "sets" / "train.parquet").select([0])
    recipe = load_recipe(folder / "tiny" / "recipe.yaml")
    with pytest.raises(BadInput, match="the training set has 1 items, one step needs 2"):
        build_trainer(recipe, model=folder / "base", dataset=dataset, seed=1, folder=folder, suppressed=suppressed)


def test_the_problem_reaches_a_reward_that_asks_for_it(folder: Path) -> None:
    # Through TRL's own hands, which drop and keep columns by rules of theirs.
    pngs = [load_counting(folder / "sets" / "train.parquet")[0]["image"]] * 4
    dataset = Dataset.from_dict(
        {
            "image": pngs,
            "problem": ["How many?\nA. 1\nB. 2", "How many?\nA. 2\nB. 1"] * 2,
            "solution": ["<answer>2</answer>"] * 4,
        }
    ).cast_column("image", Image())
    recipe = resolve(load_recipe(folder / "tiny" / "recipe.yaml"), "images-fixed").recipe
    rewards = Setting[list[str]](value=["answer"], source="our choice: for a test")
    trainer = build_trainer(
        recipe.model_copy(update={"rewards": rewards}),
        model=folder / "base",
        dataset=dataset,
        seed=1,
        folder=folder / "answers",
        suppressed=suppressed,
    )
    rows = [trainer.train_dataset[i] for i in range(4)]
    completions = [[{"role": "assistant", "content": "<think>two</think><answer>B</answer>"}]] * 4
    prompts = [row["prompt"] for row in rows]
    found = trainer._calculate_rewards(rows, prompts, completions, [[1]] * 4)
    assert found.squeeze(1).tolist() == [1.0, 0.0, 1.0, 0.0]
