"""Supervised fine-tuning as R1-V ran it, on TRL's trainer.

TRL does the loss: the mean over all tokens that a step's examples teach.  This module adds the examples as a recipe
says they are made (`examples.py`), steps that are the same on any number of devices, and exact resumption.
(`supervised.py` makes a miniature's base model and is another thing.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl import SFTTrainer

from r1mm.errors import BadInput
from r1mm.plan import Layout
from r1mm.processor import load_processor
from r1mm.recipe import Recipe
from r1mm.sourced import values
from r1mm.train.checkpoints import ResumesExactly, save_trained, train_resumably
from r1mm.train.examples import ExampleCollator, example_lengths, too_long
from r1mm.train.grouped import plain_network
from r1mm.train.settings import sft_config
from r1mm.training_parts import SftExamples
from r1mm.vision import shorten_vision_tower

_SHOWN = {"loss": "loss", "mean_token_accuracy": "accuracy"}


class WholeSteps(Sampler[int]):
    """The rows in an order of their own in every epoch, without those that would not fill a last step.

    A step is then the same rows however many devices share it, and a run of E epochs has E x (rows // step) steps.
    """

    def __init__(self, rows: int, step: int, seed: int) -> None:
        self.rows, self.step, self.seed, self.epoch = rows, step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before an epoch, also when it goes on in the middle of one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows - self.rows % self.step

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        yield from order[: len(self)].tolist()


class FineTuner(ResumesExactly, SFTTrainer):
    """TRL's SFTTrainer over whole steps.  `base`: the checkpoint it starts from, whose processor is kept."""

    def __init__(self, *args: Any, base: Path, rows_of_step: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.base = base
        self.rows_of_step = rows_of_step
        # Of Qwen2.5-VL transformers says that it does not.  TRL divides by the tokens of the step itself; not told how
        # many they are it would take the mean of the passes' means.
        self.model_accepts_loss_kwargs = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's figures without its count of tokens, which begins anew where a run goes on."""
        self._metrics["train"].pop("num_tokens", None)
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return WholeSteps(len(self.train_dataset), self.rows_of_step, self.args.seed)


def _examples(recipe: Recipe) -> SftExamples:
    assert recipe.sft_examples  # of a recipe that runs it
    return recipe.sft_examples


def long_examples(recipe: Recipe, model: Path, dataset: Dataset) -> dict[str, int]:
    """The items of a set (columns thinking, problem, solution, image, item) that are left out, with their tokens.

    Raises BadInput where the recipe leaves none out and some are longer than its `sft.max_length`.
    """
    settings, processor = _examples(recipe), load_processor(model, limits=values(recipe.processor))
    lengths = example_lengths(dataset, settings, processor)
    long = too_long(lengths, recipe.sft["max_length"].value, settings.too_long.value)
    items = dataset["item"][:]
    return {items[row]: lengths[row] for row in long}


def steps_of(recipe: Recipe, rows: int) -> int:
    """Optimizer steps over `rows` examples.  Raises BadInput where there are too few for one."""
    step = recipe.rows_of_step("sft")
    if rows < step:
        raise BadInput(f"there are {rows} examples to learn from, one step needs {step}; give a larger set")
    if "max_steps" in recipe.sft:
        return int(recipe.sft["max_steps"].value)
    return int(recipe.sft["num_train_epochs"].value) * (rows // step)


def build_fine_tuner(
    recipe: Recipe, *, model: Path, dataset: Dataset, seed: int, folder: Path, layout: Layout | None = None
) -> FineTuner:
    """The trainer of one run, as the recipe sets it, over `dataset`: columns thinking, problem, solution, image.

    A full recipe needs its plan's `layout`; in each of its processes, as `distributed.in_processes` starts them.
    Raises BadInput for a dataset smaller than one step.
    """
    processor = load_processor(model, limits=values(recipe.processor))
    trainer = FineTuner(
        model=str(model),
        args=sft_config(recipe, folder, seed, steps_of(recipe, len(dataset)), layout),
        data_collator=ExampleCollator(_examples(recipe), processor),
        train_dataset=dataset,
        processing_class=processor,
        base=model,
        rows_of_step=recipe.rows_of_step("sft"),
    )
    shorten_vision_tower(plain_network(trainer.model))
    return trainer


def fine_tune(trainer: FineTuner, folder: Path, metrics: Path) -> None:
    """Train to the end; the model and its processor are left in `folder`/model, a line per step in `metrics`.

    Goes on from the newest complete checkpoint in `folder`.  Raises BadInput for a damaged checkpoint, StageFailed for
    a gradient that is not finite.
    """
    train_resumably(trainer, folder, metrics, "SFT", _SHOWN)
    save_trained(trainer, folder, trainer.base)
