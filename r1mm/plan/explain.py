"""What a plan tells of a layout: every departure from upstream's, and what it assumes."""

from typing import Literal

from r1mm.plan.duration import HOST_LINK, LENGTHS, VLLM_LATENCY, speeds_of
from r1mm.plan.hardware import PRICES_OF, Machine, parse_gpus
from r1mm.plan.layout import Layout, Work, exact_splits
from r1mm.plan.memory import FRAGMENTATION
from r1mm.plan.shapes import Shape
from r1mm.recipe import Recipe
from r1mm.sourced import Strict
from r1mm.training_parts import Training

OF_GPU = 0.9  # of a GPU's memory that a predicted peak may take: a prediction is not a measurement


class Deviation(Strict):
    """Where a layout departs from upstream's.

    `changes_numbers`: no (the same values), rounding (the same sums in another order or type), yes.
    """

    setting: str
    upstream: str
    ours: str
    reason: str
    changes_numbers: Literal["no", "rounding", "yes"]


def upstream_layout(recipe: Recipe, training: Training) -> tuple[Machine, int] | None:
    """Upstream's machine and accumulation: its scripts for GRPO take one prompt per training GPU and pass.

    GPUs beyond the largest exact split are those that generated (4 train, a fifth runs vLLM).
    """
    if recipe.hardware is None:
        return None
    machine = parse_gpus(recipe.hardware.value)
    if training == "sft":
        assert recipe.sft_layout  # a full recipe has one
        return machine, recipe.rows_of_step("sft") // (machine.devices * recipe.sft_layout.examples_per_device.value)
    devices = exact_splits(recipe.grpo.prompts_per_step, machine.devices)[-1]
    return machine, recipe.grpo.prompts_per_step // devices


def deviations(recipe: Recipe, work: Work, layout: Layout, machine: Machine) -> list[Deviation]:
    """Where a layout departs from upstream's."""
    found: list[Deviation] = []

    def add(
        setting: str, upstream: object, ours: object, reason: str, changes: Literal["no", "rounding", "yes"]
    ) -> None:
        if upstream != ours:
            found.append(
                Deviation(
                    setting=setting, upstream=str(upstream), ours=str(ours), reason=reason, changes_numbers=changes
                )
            )

    at_once = work.at_once or work.group
    if upstream := upstream_layout(recipe, work.training):
        theirs, accumulation = upstream
        add("GPUs", theirs.name, machine.name, "what is at hand", "rounding")
        fewer = layout.completions_per_device not in (at_once, work.completions // layout.processes)
        add(
            f"{work.rows} per device x accumulation",
            f"{at_once} x {accumulation}",
            f"{layout.completions_per_device} x {layout.accumulation}",
            f"the same {work.completions} {work.rows} per step on {layout.processes} "
            f"process{'es' if layout.processes > 1 else ''}{', fewer at a time to fit the memory' if fewer else ''}",
            "rounding",
        )
    sharding, dtype = recipe.kept_in(work.training)
    settings = recipe.settings_of(work.training)
    if sharding:
        why = "a CPU run has one process" if machine.cpu else f"{sharding} does not fit"
        add("sharding", sharding, layout.sharding, why, "rounding")
    if dtype and work.under(layout.sharding) != work:
        why = "deepspeed keeps the float32 weights as masters and computes with bfloat16 copies, not under autocast"
        add("weights", dtype, "bfloat16", why, "yes")
    if dtype and machine.cpu:
        add("weights", dtype, "float32", "a CPU computes in float32", "rounding")
    if machine.cpu and settings.get("bf16") and settings["bf16"].value:
        add("products", "bfloat16", "float32", "a CPU computes in float32", "rounding")
    theirs_on = {key: setting.value for key, setting in recipe.upstream_layout.items()}
    if work.training == "sft":
        known = recipe.sft_layout is not None and recipe.sft_layout.gradient_checkpointing.value
        theirs_on = {"gradient_checkpointing": known}
    if not machine.cpu:
        where = ("on the GPU", "in the host's memory")
        add(
            "weights and optimizer",
            where[theirs_on.get("offload", False)],
            where[layout.offload],
            "nothing else fits; DeepSpeed's CPU Adam updates them"
            if layout.offload
            else "they fit there, and nothing waits for the host; DeepSpeed's CPU Adam computes the same",
            "rounding",
        )
    known = theirs_on.get("gradient_checkpointing", False)
    add(
        "gradient checkpointing",
        "on" if known else "off (in its 2B command; the recipe sets none)" if layout.gradient_checkpointing else "off",
        "on" if layout.gradient_checkpointing else "off",
        f"as many {work.rows} at a time do not fit otherwise; the same values are computed twice"
        if layout.gradient_checkpointing
        else "all fits without it; the same values, computed once",
        "no",
    )
    if machine.cpu and settings.get("use_vllm") and settings["use_vllm"].value:
        add("generation", "vllm", "transformers", "vLLM is for GPUs", "rounding")
    return found


def _images_once(work: Work, vllm: bool) -> str:
    return (
        f"time: an image is made{'' if vllm else ', prefilled'} and encoded once "
        + ("per group and device" if work.grouped else "per completion, as TRL does by itself")
        + ("; vLLM prefills it per completion" if vllm else "")
    )


def assumptions(
    work: Work, shape: Shape, layout: Layout, machine: Machine, price: float | None, given: bool
) -> list[str]:
    """What memory, time and cost were worked out from."""
    gpu, speeds = machine.gpu, speeds_of(machine)
    vllm = layout.generation in ("vllm-colocate", "vllm-server")
    latency = VLLM_LATENCY if vllm else speeds.layer_latency
    narrow = layout.sharding != "ddp" and work.under(layout.sharding).precision == "bfloat16"
    gradients = "bfloat16, as deepspeed has it where upstream's zero3.json says nothing" if narrow else "float32"
    seen = "clip" if work.slices > 1 else "image"
    tuning = work.training == "sft"
    mean, longest = (min(count, work.completion_tokens) for count in LENGTHS[work.training])
    found = [
        f"memory: {work.prompt_tokens} prompt tokens ({work.image_tokens} of the {seen}) and {work.completion_tokens} "
        f"{'that are learnt' if tuning else 'of the completion'} for every row, an upper bound; attention by sdpa, "
        "keys and values repeated to all heads",
        f"memory: {100 * FRAGMENTATION:.0f} % of tensors lost to fragmentation, {100 * (1 - OF_GPU):.0f} % of a "
        f"GPU kept free; gradients add up in {gradients}",
        f"time: an estimate, {'fitted to another machine' if machine.cpu else 'not measured'}: passes at "
        f"{100 * speeds.utilisation:.0f} % of {gpu.tflops:g} peak TFLOP/s, "
        + (
            f"or {1000 * speeds.pass_latency:.3g} ms per layer, "
            if tuning
            else f"decoding at {1000 * latency:.3g} ms per layer or {100 * speeds.bandwidth_used:.0f} % of "
            f"{gpu.bandwidth:g} GB/s, "
        )
        + ("whichever is slower" if speeds.overlapped else "one after the other"),
        *([] if tuning else [_images_once(work, vllm)]),
        f"time: {work.rows} of {mean} tokens on average, the longest of a {'pass' if tuning else 'call'} {longest}; "
        f"at most: all at {work.completion_tokens}",
        f"time: {work.steps} steps of training alone, without loading, saving and evaluation",
    ]
    if layout.offload:
        found.append(f"the host has the memory named above free, and {HOST_LINK:g} GB/s to each GPU")
    if price is not None:
        source = "as given" if given else f"assumption, typical on-demand price of {PRICES_OF}; --price sets another"
        found.append(f"cost: ${price:.2f} per GPU and hour ({source})")
    return found
