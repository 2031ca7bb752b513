"""Supervised fine-tuning: the loss and gradient of an accumulated step beside plain torch, and steps that are whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from r1mm.data.load import read_examples
from r1mm.errors import BadInput
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import load_recipe
from r1mm.sourced import Setting, values
from r1mm.train.settings import sft_config
from r1mm.train.sft import FineTuner, WholeSteps, build_fine_tuner, long_examples, steps_of
from tests.tiny import tiny_sft_recipe, write_examples
from tests.unit.train.on_and_off import save_base


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, a base model, and ten pictures with thoughts of one to four words."""
    place = tmp_path_factory.mktemp("sft")
    recipe = load_recipe(tiny_sft_recipe(place) / "recipe.yaml")
    assert recipe.prompts.train
    tokenizer = build_tokenizer([recipe.prompts.train.value], PALETTE)
    save(build_model(values(recipe.model), tokenizer, 0), build_processor(tokenizer, 112), place / "base")
    write_examples(place / "train.parquet")
    save_base("qwen2_5_vl", place / "2.5")
    return place


def recipe_of(world: Path, **changes: Any) -> Recipe:
    recipe = resolve(load_recipe(world / "tiny" / "recipe.yaml"), "sft").recipe
    assert recipe.sft_examples
    made = {key: Setting(value=value, source="our choice: for a test") for key, value in changes.items()}
    return recipe.model_copy(update={"sft_examples": recipe.sft_examples.model_copy(update=made)})


def examples(world: Path) -> Dataset:
    return read_examples([world / "train.parquet"], world / ".cache", "train")


def tuner(world: Path, recipe: Recipe, base: str = "base") -> FineTuner:
    return build_fine_tuner(recipe, model=world / base, dataset=examples(world), seed=1, folder=world / "sft")


@dataclass(frozen=True)
class Plain:
    """What one row teaches, summed over its learnt tokens: cross entropy, its gradient, the number of tokens."""

    loss: float
    gradient: torch.Tensor
    tokens: int


def in_plain_torch(base: Path, rows: list[dict[str, Any]], answer_only: bool) -> list[Plain]:
    """Each row by itself, nothing padded: transformers' own model, tower included, and a softmax over all logits.

    The text is written out by hand.
    """
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(base)
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    found = []
    for row in rows:
        user = f"{pad}{row['problem']}" if answer_only else f"{row['problem']}{pad}"
        answer = f"{row['thinking']}\n\n{row['solution']}<|im_end|>"
        asked = f"{system}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
        text = f"{asked}{answer}\n" + ("" if answer_only else "<|im_start|>assistant\n")
        inputs = processor(text=[text], images=[[row["image"]]], return_tensors="pt")
        ids = inputs["input_ids"][0]
        taught = ids != processor.image_token_id
        if answer_only:
            first = len(processor(text=[asked], images=[[row["image"]]])["input_ids"][0])
            taught &= torch.arange(len(ids)) >= first
            taught[first + len(processor.tokenizer(answer)["input_ids"]) :] = False
        taught[0] = False  # nothing comes before it that could foretell it
        log_probs = model(**inputs).logits[0, :-1].log_softmax(-1)
        loss = -log_probs.gather(1, ids[1:, None])[taught[1:], 0].sum()
        model.zero_grad()
        loss.backward()
        found.append(Plain(loss.item(), gradient_of(model), int(taught.sum())))
    return found


def gradient_of(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().double() for _, p in sorted(model.named_parameters()) if p.grad is not None])


def mean_of(rows: list[Plain]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the mean over all tokens of several rows."""
    tokens = sum(row.tokens for row in rows)
    return sum(row.loss for row in rows) / tokens, torch.stack([row.gradient for row in rows]).sum(0) / tokens


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


OURS = {"image": "first", "open_turn": False, "loss": "answer"}


@pytest.mark.parametrize(
    ("base", "changes", "answer_only"),
    [("base", {}, False), ("base", OURS, True), ("2.5", {}, False)],
    ids=["as-published", "ours", "as-published, Qwen2.5-VL"],
)
def test_an_accumulated_step_is_that_of_plain_torch(
    world: Path, base: str, changes: dict[str, Any], answer_only: bool
) -> None:
    trainer = tuner(world, recipe_of(world, **changes), base)
    loader = trainer.get_train_dataloader()
    order = list(trainer._get_train_sampler())[:4]
    batches, learnt = trainer.get_batch_samples(iter(loader), 2, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.train()
    loss = sum(trainer.training_step(trainer.model, batch, learnt).item() for batch in batches)
    data = examples(world)
    rows = in_plain_torch(world / base, [data[row] for row in order], answer_only)
    expected, gradient = mean_of(rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert apart(gradient_of(trainer.model), gradient) < 1e-5
    assert int(learnt) == sum(row.tokens for row in rows)
    # R1-V's trl 0.14 and transformers 4.49 took the mean of its passes' means, in which a pass of few tokens counts as
    # much as one of many: another gradient.
    of_passes = torch.stack([mean_of(rows[:2])[1], mean_of(rows[2:])[1]]).mean(0)
    assert apart(of_passes, gradient) > 1e-3


def test_a_step_is_the_same_rows_however_it_is_laid_out() -> None:
    sampler = WholeSteps(10, 4, seed=3)
    first = list(sampler)
    assert len(first) == len(set(first)) == len(sampler) == 8
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert list(sampler) == second
    assert list(WholeSteps(10, 4, seed=4)) == second  # as transformers counts: seed and epoch add up


def test_the_length_of_a_run(world: Path) -> None:
    recipe = recipe_of(world)
    assert steps_of(recipe, 10) == 4  # two epochs of two whole steps of four
    with pytest.raises(BadInput, match="there are 3 examples to learn from, one step needs 4"):
        steps_of(recipe, 3)
    own = {key: setting for key, setting in recipe.sft.items() if key != "num_train_epochs"}
    limited = recipe.model_copy(update={"sft": {**own, "max_steps": Setting(value=7, source="our choice: for a test")}})
    assert steps_of(limited, 10) == 7


def test_settings_reach_the_trainer(world: Path, tmp_path: Path) -> None:
    arguments = sft_config(recipe_of(world), tmp_path, 5, 4)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 2)
    assert (arguments.learning_rate, arguments.max_steps, arguments.seed) == (1e-3, 4, 5)
    assert (arguments.bf16, arguments.gradient_checkpointing, arguments.use_cpu) == (False, False, True)
    assert arguments.get_warmup_steps(arguments.max_steps) == 1
    trainer = tuner(world, recipe_of(world))
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert type(trainer.model.model.visual.blocks[0].attn).__name__ == "BatchedVisionAttention"


def test_what_is_left_out_is_listed(world: Path) -> None:
    recipe = recipe_of(world, too_long="skip")
    assert long_examples(recipe, world / "base", examples(world)) == {}
    short = {**recipe.sft, "max_length": Setting(value=52, source="our choice: for a test")}
    found = long_examples(recipe.model_copy(update={"sft": short}), world / "base", examples(world))
    assert found
    assert set(found) < {f"train-{i:06d}" for i in range(10)}
    assert min(found.values()) > 52
