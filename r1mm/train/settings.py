"""A recipe's `train:` and `sft:` sections as TRL's `GRPOConfig` and `SFTConfig`, laid out as its plan says, and what
r1mm sets for every run."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from trl import GRPOConfig, SFTConfig

from r1mm.errors import BadInput
from r1mm.plan import Layout
from r1mm.recipe import Recipe
from r1mm.sourced import values
from r1mm.train.rollout import generation_kwargs_for, vllm_fields
from r1mm.training_parts import Training

# The address of a vLLM server that other machines or GPUs run (`rollout.server_command`), http://host:port.
SERVER_VARIABLE = "R1MM_ROLLOUT_SERVER"


def run_fields(output_dir: Path, seed: int, *, cpu: bool) -> dict[str, Any]:
    """What every trainer of r1mm sets by itself (`recipe_files.OURS` refuses these names in a recipe).

    `cpu`: a miniature trains on the CPU also where there is a GPU, since its numbers are a CPU's.
    """
    return {
        "output_dir": str(output_dir),
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a non-finite loss is an error, not a figure to smooth over
        "report_to": [],
        "disable_tqdm": True,  # r1mm shows its own progress
        "use_cpu": cpu,
        "dataloader_pin_memory": torch.cuda.is_available() and not cpu,
        "save_strategy": "steps",
    }


def weights_dtype(recipe: Recipe, layout: Layout | None, training: Training = "grpo") -> Literal["float32", "bfloat16"]:
    """What the trained weights are held in.

    An AdamW step of 1e-6 is lost in bfloat16's eight bits, so weights are bfloat16 only under ZeRO, which keeps
    float32 masters; under DDP they are float32, and `bf16` is autocast, as upstream's script had it.  A full recipe
    that ZeRO shards is bfloat16 also where it names float32: deepspeed casts it.  On a CPU all is float32.

    Raises BadInput for bfloat16 without ZeRO.
    """
    settings = recipe.settings_of(training)
    if recipe.miniature or layout is None:
        if settings.get("bf16") and settings["bf16"].value:
            section = "sft" if training == "sft" else "train"
            raise BadInput(
                f"recipe {recipe.name}: {section}.bf16 is true without a layout; a miniature trains in float32: "
                "remove it"
            )
        return "float32"
    if recipe.kept_in(training) == ("ddp", "bfloat16"):
        raise BadInput(
            f"recipe {recipe.name}: weights_dtype bfloat16 with sharding ddp; AdamW at learning rate "
            f"{settings['learning_rate'].value} would lose its updates: write float32, or sharding zero-2"
        )
    if layout.device == "cpu" or layout.sharding == "ddp" or not _in_bfloat16(recipe, layout, training):
        return "float32"
    return "bfloat16"


def _in_bfloat16(recipe: Recipe, layout: Layout, training: Training) -> bool:
    settings = recipe.settings_of(training)
    return layout.device == "cuda" and "bf16" in settings and bool(settings["bf16"].value)


def deepspeed_config(recipe: Recipe, layout: Layout, training: Training = "grpo") -> dict[str, Any] | None:
    """deepspeed's settings for a layout's ZeRO stage; None under DDP.

    As upstream's (Deep-Agent/R1-V@bbbbe3d:src/r1-v/local_scripts/zero3.json): no offload unless the plan needs it,
    weights gathered in 16 bits when saved, clipping and batch as the trainer's.  It names no `data_types`, so that
    gradients add up in the weights' type (deepspeed==0.19.8: runtime/engine.py, get_data_types).
    """
    if layout.sharding == "ddp":
        return None
    zero: dict[str, Any] = {
        "stage": 2 if layout.sharding == "zero-2" else 3,
        "overlap_comm": layout.device == "cuda",
        "contiguous_gradients": True,
    }
    if layout.sharding == "zero-3":
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if layout.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": layout.device == "cuda"}
        if layout.sharding == "zero-3":
            zero["offload_param"] = {"device": "cpu", "pin_memory": layout.device == "cuda"}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": _in_bfloat16(recipe, layout, training)},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "steps_per_print": 10**9,  # r1mm shows its own progress
    }


def layout_fields(recipe: Recipe, layout: Layout, training: Training = "grpo") -> dict[str, Any]:
    """A layout in TRL's names.  Raises BadInput when it does not hold the recipe's step."""
    rows, what = recipe.rows_of_step(training), "completions" if training == "grpo" else "examples"
    batch = layout.processes * layout.completions_per_device * layout.accumulation
    if batch != rows:
        raise BadInput(
            f"recipe {recipe.name}: {layout.processes} processes x {layout.completions_per_device} {what} x "
            f"{layout.accumulation} accumulation = {batch} {what} per step, but the recipe has {rows}; let `r1mm plan` "
            "lay it out"
        )
    fields: dict[str, Any] = {
        "per_device_train_batch_size": layout.completions_per_device,
        "gradient_accumulation_steps": layout.accumulation,
        "gradient_checkpointing": layout.gradient_checkpointing,
        "deepspeed": deepspeed_config(recipe, layout, training),
        "bf16": _in_bfloat16(recipe, layout, training),
    }
    if layout.gradient_checkpointing:
        fields["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if layout.sharding == "ddp" and layout.processes > 1:
        fields["ddp_backend"] = "gloo" if layout.device == "cpu" else "nccl"
        # Log-probs of the text alone leave the vision tower without gradients, which DDP would wait for.
        blind = training == "grpo" and recipe.grpo.factors.images_in_logprobs.value == "none"
        fields["ddp_find_unused_parameters"] = blind
    return fields | (_generation_fields(recipe, layout) if training == "grpo" else {})


def _generation_fields(recipe: Recipe, layout: Layout) -> dict[str, Any]:
    fields: dict[str, Any] = {"use_vllm": layout.generation != "transformers"}
    if layout.generation != "transformers":
        assert recipe.max_prompt_length is not None  # a full recipe has one
        longest = recipe.max_prompt_length.value + recipe.train["max_completion_length"].value
        mode: Literal["colocate", "server"] = "colocate" if layout.generation == "vllm-colocate" else "server"
        fields |= vllm_fields(mode, longest=longest, memory=layout.vllm_memory, server=os.environ.get(SERVER_VARIABLE))
    return fields


def _check_layout(recipe: Recipe, layout: Layout | None) -> None:
    if (layout is None) != recipe.miniature:
        raise BadInput(
            f"recipe {recipe.name}: a {recipe.size} recipe "
            + ("has its layout in its settings; give none" if layout else "needs a layout; make one with `r1mm plan`")
        )


def grpo_config(
    recipe: Recipe, output_dir: Path, seed: int, suppressed_tokens: list[int], layout: Layout | None = None
) -> GRPOConfig:
    """TRL's settings for one run.  `suppressed_tokens` are never sampled.  A full recipe needs its plan's `layout`.

    Raises BadInput when TRL refuses a value, the layout is not the recipe's batch, or weights would lose updates.
    """
    _check_layout(recipe, layout)
    fields = values(recipe.train) | (layout_fields(recipe, layout) if layout else {})
    backend: Literal["transformers", "vllm"] = "vllm" if fields.get("use_vllm") else "transformers"
    generation = {**fields.pop("generation_kwargs", {}), **generation_kwargs_for(backend, suppressed_tokens)}
    try:
        return GRPOConfig(
            **fields,
            **run_fields(output_dir, seed, cpu=recipe.miniature if layout is None else layout.device == "cpu"),
            generation_kwargs=generation,
            model_init_kwargs={"dtype": weights_dtype(recipe, layout)},
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"recipe {recipe.name}: TRL refuses the train settings: {error}") from error


def sft_config(recipe: Recipe, output_dir: Path, seed: int, steps: int, layout: Layout | None = None) -> SFTConfig:
    """TRL's settings for one run of `steps` steps of supervised fine-tuning.  A full recipe needs its plan's `layout`.

    Raises BadInput when TRL refuses a value, the layout is not the recipe's batch, or weights would lose updates.
    """
    _check_layout(recipe, layout)
    dtype = weights_dtype(recipe, layout, "sft")
    # Of the recipe's own, not TRL's: no example is cut (`r1mm.train.examples`), and an epoch is whole steps.
    lengths = ("max_length", "max_steps", "num_train_epochs")
    own = {key: value for key, value in values(recipe.sft).items() if key not in lengths}
    fields = {"bf16": False} | own | (layout_fields(recipe, layout, "sft") if layout else {})
    try:
        return SFTConfig(
            **fields,
            **run_fields(output_dir, seed, cpu=recipe.miniature if layout is None else layout.device == "cpu"),
            max_steps=steps,
            max_length=None,
            remove_unused_columns=False,
            model_init_kwargs={"dtype": dtype},
        )
    except (TypeError, ValueError) as error:
        raise BadInput(f"recipe {recipe.name}: TRL refuses the sft settings: {error}") from error
