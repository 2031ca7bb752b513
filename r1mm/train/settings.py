"""A recipe's `train:` section as TRL's `GRPOConfig`, and what r1mm sets itself for every run."""

from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from r1mm.errors import BadInput
from r1mm.recipe import Recipe, values


def run_fields(output_dir: Path, seed: int, *, miniature: bool) -> dict[str, Any]:
    """What every trainer of r1mm sets by itself (`recipe_files.OURS` refuses these names in a recipe).

    A miniature trains on the CPU also where there is a GPU: its numbers are a CPU's.
    """
    return {
        "output_dir": str(output_dir),
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a non-finite loss is an error, not a figure to smooth over
        "report_to": [],
        "disable_tqdm": True,  # r1mm shows its own progress
        "use_cpu": miniature,
        "dataloader_pin_memory": torch.cuda.is_available() and not miniature,
        "save_strategy": "steps",
    }


def grpo_config(recipe: Recipe, output_dir: Path, seed: int, suppressed_tokens: list[int]) -> GRPOConfig:
    """TRL's settings for one run.  `suppressed_tokens` are never sampled.

    Raises BadInput when TRL refuses a value.
    """
    fields = values(recipe.train)
    generation = {**fields.pop("generation_kwargs", {}), "suppress_tokens": suppressed_tokens}
    try:
        return GRPOConfig(
            **fields,
            **run_fields(output_dir, seed, miniature=recipe.miniature),
            generation_kwargs=generation,
            model_init_kwargs={"dtype": "bfloat16" if fields.get("bf16") else "float32"},
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"recipe {recipe.name}: TRL refuses the train settings: {error}") from error
