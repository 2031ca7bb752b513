"""GRPO of a tiny model on 1 and 2 CPU processes, one thread each: the same step, laid out in two ways.

What `distributed.in_processes` starts must be importable by its processes, so this is a module of its own.
"""

import json
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from r1mm.data.counting import load_counting, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import VISION_TOKENS, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png, render
from r1mm.mini.scenes import CLEVR_LIKE, sample_scene
from r1mm.plan import Layout
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting, values
from r1mm.train.distributed import in_processes, needs_launch
from r1mm.train.grpo import build_trainer

# Of accelerate's and TRL's own exchanges: rewards, lengths, metrics, texts.
_COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "barrier")
_TRIALS = 20


def spread(processes: int, completions: int, at_once: int) -> Layout:
    """A step of `completions` over `processes` of this machine's cores, `at_once` a pass and process."""
    return Layout(
        gpus="cpu",
        device="cpu",
        nodes=1,
        processes=processes,
        completions_per_device=at_once,
        accumulation=completions // processes // at_once,
        sharding="ddp",
        offload=False,
        gradient_checkpointing=False,
        generation="transformers",
        vllm_gpus=0,
        vllm_memory=None,
    )


def recipe_of(tokens: int, steps: int) -> Recipe:
    """r1v-clevr-2b's 16 prompts x 8 completions, each of exactly `tokens`, so that every process has the same to do."""

    def ours(value: Any) -> Setting[Any]:
        return Setting(value=value, source="our choice: for a benchmark")

    recipe = resolve(load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml"), "as-fixed").recipe
    changes = {
        "max_steps": steps,
        "max_completion_length": tokens,
        "generation_kwargs": {"min_new_tokens": tokens},
        "save_steps": 10**6,
    }
    return recipe.model_copy(update={"train": recipe.train | {key: ours(value) for key, value in changes.items()}})


def make_world(place: Path, prompts: int) -> Path:
    """The miniature's model with random weights and `prompts` rendered images below `place`."""
    mini = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    full = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    tokenizer = build_tokenizer([full.prompts.train.value], PALETTE)
    save(build_model(values(mini.model), tokenizer, 0), build_processor(tokenizer, 112), place / "base")
    rng = np.random.default_rng(0)
    counts = [1 + number % 6 for number in range(prompts)]
    pngs = [encode_png(render(sample_scene(CLEVR_LIKE, count, rng, "scene.png"), 112)) for count in counts]
    write_counting(place / "train.parquet", pngs, QUESTIONS["train"], counts)
    return place


class _Watch(TrainerCallback):
    """Seconds of each step, those that its process had a core, and those in which an exchange was under way."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.exchanging = 0.0
        self._began = self._worked = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers reads a step's rows before this: from the second step on the clock runs since the last one's end.
        if not self.steps:
            self._start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        worked = time.process_time() - self._worked
        self.steps.append({"step": time.perf_counter() - self._began, "worked": worked, "exchange": self.exchanging})
        self._start()

    def _start(self) -> None:
        self._began, self._worked, self.exchanging = time.perf_counter(), time.process_time(), 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model.register_comm_hook(None, self._summed)

    def _summed(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        # Waiting where DDP would go on: gradients come in few buckets here, the last of which nothing overlaps.
        with self.timed():
            done = allreduce_hook(state, bucket)
            done.wait()
        return done

    @contextmanager
    def timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.exchanging += time.perf_counter() - began

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timed():
                return function(*args, **kwargs)

        return timed


def _sum_alone(numbers: int) -> float:
    """The fewest seconds that summing `numbers` float32 numbers over all processes takes, with nobody late."""
    tensor, taken = torch.zeros(numbers), []
    for _ in range(_TRIALS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        taken.append(time.perf_counter() - began)
    return min(taken)


def train_here(recipe: Recipe, world: Path, folder: Path, layout: Layout) -> None:
    """Train in this process, as one of `layout`'s; the first leaves what it measured in `folder`."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    trainer = build_trainer(
        recipe,
        model=world / "base",
        dataset=load_counting(world / "train.parquet"),
        seed=1,
        folder=folder,
        suppressed=lambda tokenizer: tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)),
        layout=layout,
    )
    watch = _Watch()
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    if layout.processes > 1:
        for name in _COLLECTIVES:
            setattr(dist, name, watch.around(getattr(dist, name)))
    trainer.train()
    numbers = sum(weights.numel() for weights in trainer.model.parameters() if weights.requires_grad)
    alone = _sum_alone(numbers) if layout.processes > 1 else 0.0
    if trainer.is_world_process_zero():
        found = {"steps": watch.steps, "gradient_bytes": 4 * numbers, "sum_alone": alone}
        (folder / "measured.json").write_text(json.dumps(found), encoding="utf-8")


def measure(processes: int, completions: int, at_once: int, tokens: int, steps: int, place: Path) -> dict[str, Any]:
    """A run of `steps` steps in `processes`, the world below `place`: what `train_here` left.

    One process is started without the launcher, as the GRPO stage does.  RuntimeError when it fails.
    """
    layout, recipe = spread(processes, completions, at_once), recipe_of(tokens, steps)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        folder = Path(scratch)
        if needs_launch(layout):
            in_processes(layout, train_here, recipe, place / "world", folder, layout)
        else:
            alone = multiprocessing.get_context("spawn").Process(
                target=train_here, args=(recipe, place / "world", folder, layout)
            )
            alone.start()
            alone.join()
            if alone.exitcode:
                raise RuntimeError(f"the run in one process ended with {alone.exitcode}; its error stands above")
        found: dict[str, Any] = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
        return found
