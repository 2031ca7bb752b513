"""A full recipe at tiny size, laid out on CPU processes: real settings, a tiny model, fixed completions.

What `distributed.in_processes` calls must be importable by its processes, so it stands here and not in a test.
"""

import json
import math
import os
import random
import signal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1mm.data.counting import load_counting, write_counting
from r1mm.data.load import read_examples
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import VISION_TOKENS, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png
from r1mm.plan import Layout
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting, values
from r1mm.train import grpo
from tests.tiny import tiny_recipe


def laid_out(
    processes: int,
    completions_per_device: int,
    accumulation: int,
    sharding: Literal["ddp", "zero-2", "zero-3"] = "ddp",
    **more: Any,
) -> Layout:
    """A layout on this machine's cores, or what `more` makes of it."""
    fields: dict[str, Any] = {
        "gpus": "cpu",
        "device": "cpu",
        "nodes": 1,
        "processes": processes,
        "completions_per_device": completions_per_device,
        "accumulation": accumulation,
        "sharding": sharding,
        "offload": False,
        "gradient_checkpointing": False,
        "generation": "transformers",
        "vllm_gpus": 0,
        "vllm_memory": None,
    }
    return Layout(**fields | more)


def full_recipe(variant: str = "as-fixed", **train: Any) -> Recipe:
    """The real recipe of 16 prompts x 8 completions, with some `train:` settings changed."""
    recipe = resolve(load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml"), variant).recipe
    return recipe.model_copy(update={"train": recipe.train | {key: _ours(value) for key, value in train.items()}})


def small_recipe(variant: str = "as-fixed", **train: Any) -> Recipe:
    """The real recipe with 4 prompts x 4 completions of 12 tokens, and a rate that moves a tiny model."""
    small = {"num_generations": 4, "max_completion_length": 12, "learning_rate": 1e-3, "save_steps": 2}
    return full_recipe(variant, **small | train).model_copy(update={"prompts_per_step": _ours(4)})


def _ours(value: Any) -> Setting[Any]:
    return Setting(value=value, source="our choice: for a test of the machinery")


def make_world(place: Path, items: int = 16) -> Path:
    """A tiny base model and `items` noisy pictures below `place`."""
    mini = load_recipe(tiny_recipe(place) / "recipe.yaml")
    tokenizer = build_tokenizer([full_recipe().prompts.train.value], PALETTE)
    save(build_model(values(mini.model), tokenizer, 0), build_processor(tokenizer, 112), place / "base")
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(items)]
    write_counting(place / "train.parquet", pngs, QUESTIONS["train"], [1 + i % 4 for i in range(items)])
    return place


def suppressed(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    return ids


class FixedRollouts(grpo.R1Trainer):
    """The trainer with completions that follow from a row's place in the step, and a reference a little off.

    A reference equal to the policy gives KL no gradient.
    """

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        tokenizer = self.processing_class.tokenizer
        completions = []
        for row in range(len(prompt_ids)):
            chance = random.Random(f"{self.state.global_step} {self.accelerator.process_index * len(prompt_ids) + row}")
            thoughts = " ".join(chance.choices(("red", "green", "blue"), k=chance.randint(1, 9)))
            answer = f"<answer> {chance.randint(1, 4)} </answer>"
            text = f"<think> {thoughts} </think> {answer}" if chance.random() < 0.6 else answer
            completions.append([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        return completions, None

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: Any, mask: Any, kept: int, *rest: Any, **more: Any
    ) -> Any:
        logps, *others = super()._get_per_token_logps_and_entropies(model, ids, mask, kept, *rest, **more)
        if model is self.ref_model:
            logps = logps + 0.3 * torch.sin(ids[:, -kept:].float())
        return logps, *others


class WithoutGradient(FixedRollouts):
    """The second process's gradients of the second step are no numbers, its loss is as ever."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().compute_loss(*args, **kwargs)
        if self.state.global_step == 1 and self.args.process_index == 1:
            loss = loss + torch.sqrt((loss - loss.detach()).abs())  # 0, of infinite slope
        return loss


class EndsInTheMiddle(TrainerCallback):
    """SIGKILL for the second process, in the middle of the step after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == self.step and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train_here(
    recipe: Recipe,
    world: Path,
    folder: Path,
    layout: Layout,
    trainer_class: type[grpo.R1Trainer] = FixedRollouts,
    killed_after: int | None = None,
) -> None:
    """Train in this process, as one of `layout`'s; `killed_after` a step, one of several is."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    grpo.R1Trainer = trainer_class  # type: ignore[misc]
    trainer = grpo.build_trainer(
        recipe,
        model=world / "base",
        dataset=load_counting(world / "train.parquet"),
        seed=1,
        folder=folder,
        suppressed=suppressed,
        layout=layout,
    )
    if killed_after is not None:
        trainer.add_callback(EndsInTheMiddle(killed_after))
    grpo.train_grpo(trainer, folder, folder / "metrics.jsonl")


def tuning_recipe(variant: str = "as-published", **sft: Any) -> Recipe:
    """The real recipe of fine-tuning with 16 examples a step, and some `sft:` settings changed."""
    recipe = resolve(load_recipe(RECIPES / "r1v-clevr-2b-sft" / "recipe.yaml"), variant).recipe
    changed = recipe.sft | {key: _ours(value) for key, value in sft.items()}
    return recipe.model_copy(update={"sft": changed, "examples_per_step": _ours(16)})


def tune_here(recipe: Recipe, world: Path, folder: Path, layout: Layout, killed_after: int | None = None) -> None:
    """Fine-tune in this process on `world`'s examples, as `train_here` trains."""
    from r1mm.train.sft import build_fine_tuner, fine_tune

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    examples = read_examples([world / "examples.parquet"], world / ".cache", "train")
    trainer = build_fine_tuner(recipe, model=world / "base", dataset=examples, seed=1, folder=folder, layout=layout)
    if killed_after is not None:
        trainer.add_callback(EndsInTheMiddle(killed_after))
    fine_tune(trainer, folder, folder / "metrics.jsonl")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, by step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """||one - other|| / ||other|| over all tensors, in double precision."""
    assert one.keys() == other.keys()
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    whole = sum(float(tensor.double().square().sum()) for tensor in other.values())
    return math.sqrt(apart / whole)
