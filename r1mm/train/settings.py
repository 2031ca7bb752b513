"""A recipe's `train:` section as TRL's `GRPOConfig`, laid out as its plan says, and what r1mm sets for every run."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from trl import GRPOConfig

from r1mm.errors import BadInput
from r1mm.plan import Layout
from r1mm.recipe import Recipe
from r1mm.sourced import values
from r1mm.train.rollout import generation_kwargs_for, vllm_fields

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


def weights_dtype(recipe: Recipe, layout: Layout | None) -> Literal["float32", "bfloat16"]:
    """What a policy's weights are held in.

    An AdamW step of 1e-6 is lost in bfloat16's eight bits, so weights are bfloat16 only under ZeRO, which keeps
    float32 masters; under DDP they are float32, and `bf16` is autocast, as upstream's script had it.  A full recipe
    that ZeRO shards is bfloat16 also where it names float32: deepspeed casts it.  On a CPU all is float32.

    Raises BadInput for bfloat16 without ZeRO.
    """
    if recipe.miniature or layout is None:
        if recipe.train.get("bf16") and recipe.train["bf16"].value:
            raise BadInput(
                f"recipe {recipe.name}: train.bf16 is true without a layout; a miniature trains in float32: remove it"
            )
        return "float32"
    wanted, sharding = recipe.weights_dtype, recipe.sharding
    if wanted and sharding and wanted.value == "bfloat16" and sharding.value == "ddp":
        raise BadInput(
            f"recipe {recipe.name}: weights_dtype bfloat16 with sharding ddp; AdamW at learning rate "
            f"{recipe.train['learning_rate'].value} would lose its updates: write float32, or sharding zero-2"
        )
    if layout.device == "cpu" or layout.sharding == "ddp" or not _in_bfloat16(recipe, layout):
        return "float32"
    return "bfloat16"


def _in_bfloat16(recipe: Recipe, layout: Layout) -> bool:
    return layout.device == "cuda" and "bf16" in recipe.train and bool(recipe.train["bf16"].value)


def deepspeed_config(recipe: Recipe, layout: Layout) -> dict[str, Any] | None:
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
        "bf16": {"enabled": _in_bfloat16(recipe, layout)},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "steps_per_print": 10**9,  # r1mm shows its own progress
    }


def layout_fields(recipe: Recipe, layout: Layout) -> dict[str, Any]:
    """A layout in the names of TRL's `GRPOConfig`.

    Raises BadInput when it is not the recipe's prompts x group completions a step.
    """
    prompts, group = recipe.prompts_per_step.value, recipe.train["num_generations"].value
    batch = layout.processes * layout.completions_per_device * layout.accumulation
    if batch != prompts * group:
        raise BadInput(
            f"recipe {recipe.name}: {layout.processes} processes x {layout.completions_per_device} completions x "
            f"{layout.accumulation} accumulation = {batch} completions per step, but prompts_per_step {prompts} x "
            f"num_generations {group} = {prompts * group}; let `r1mm plan` lay it out"
        )
    fields: dict[str, Any] = {
        "per_device_train_batch_size": layout.completions_per_device,
        "gradient_accumulation_steps": layout.accumulation,
        "gradient_checkpointing": layout.gradient_checkpointing,
        "deepspeed": deepspeed_config(recipe, layout),
        "bf16": _in_bfloat16(recipe, layout),
    }
    if layout.gradient_checkpointing:
        fields["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if layout.sharding == "ddp" and layout.processes > 1:
        fields["ddp_backend"] = "gloo" if layout.device == "cpu" else "nccl"
        # Log-probs of the text alone leave the vision tower without gradients, which DDP would wait for.
        fields["ddp_find_unused_parameters"] = recipe.factors.images_in_logprobs.value == "none"
    fields["use_vllm"] = layout.generation != "transformers"
    if layout.generation != "transformers":
        assert recipe.max_prompt_length is not None  # a full recipe has one
        longest = recipe.max_prompt_length.value + recipe.train["max_completion_length"].value
        mode: Literal["colocate", "server"] = "colocate" if layout.generation == "vllm-colocate" else "server"
        fields |= vllm_fields(mode, longest=longest, memory=layout.vllm_memory, server=os.environ.get(SERVER_VARIABLE))
    return fields


def grpo_config(
    recipe: Recipe, output_dir: Path, seed: int, suppressed_tokens: list[int], layout: Layout | None = None
) -> GRPOConfig:
    """TRL's settings for one run.  `suppressed_tokens` are never sampled.  A full recipe needs its plan's `layout`.

    Raises BadInput when TRL refuses a value, the layout is not the recipe's batch, or weights would lose updates.
    """
    if (layout is None) != recipe.miniature:
        raise BadInput(
            f"recipe {recipe.name}: a {recipe.size} recipe "
            + ("has its layout in train:; give none" if layout else "needs a layout; make one with `r1mm plan`")
        )
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
