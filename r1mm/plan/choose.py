"""The choice of a layout: the recipe's own where it fits, else the nearest that does, else a refusal.

A step's completions never change.  What may change is how they are spread over devices and time, and every departure
from upstream's layout is a `Deviation` with its reason.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from r1mm.errors import BadInput
from r1mm.plan.duration import (
    HOST_LINK,
    LONGEST_TOKENS,
    MEAN_TOKENS,
    VLLM_LATENCY,
    StepTime,
    speeds_of,
    step_time,
)
from r1mm.plan.hardware import GIB, GPUS, PRICES_OF, Gpu, Machine, parse_gpus
from r1mm.plan.layout import Layout, Sharding, Work, exact_splits, work_of
from r1mm.plan.memory import FRAGMENTATION, Memory, predict, vllm_bytes
from r1mm.plan.shapes import Shape, read_shape
from r1mm.recipe import Recipe
from r1mm.sourced import Strict

_STAGES: tuple[Sharding, ...] = ("ddp", "zero-2", "zero-3")
_OF_GPU = 0.9  # of a GPU's memory that a predicted peak may take: a prediction is not a measurement
_OF_RAM = 0.85  # of a machine's memory that a CPU run may take
_OF_VLLM_SERVER = 0.9  # vLLM's own default share of a GPU that is its alone
_VLLM_STEP = 0.05  # vLLM's share of a GPU is rounded up to a multiple of this


class Deviation(Strict):
    """Where a layout departs from upstream's.

    `changes_numbers`: no (the same values), rounding (the same sums in another order or type), yes.
    """

    setting: str
    upstream: str
    ours: str
    reason: str
    changes_numbers: Literal["no", "rounding", "yes"]


class Plan(Strict):
    """A recipe laid out on given devices.  Sizes in GiB per device, times in seconds or hours, money in dollars.

    `memory` by phase and part; phase `always` stands beside each other one.  `hours` with completions of the assumed
    lengths, `hours_at_most` with every completion at its limit; both estimates, for the training stage alone.
    """

    recipe: str
    completions_per_step: int
    parameters: int
    layout: Layout
    memory: dict[str, dict[str, float]]
    peak: float
    peak_phase: str
    device_memory: float
    host_memory: float
    step_seconds: dict[str, float]
    hours: float
    hours_at_most: float
    hourly: float | None  # dollars per hour of all devices
    cost: float | None
    cost_at_most: float | None
    assumptions: list[str]
    deviations: list[Deviation]


def _generation(recipe: Recipe, machine: Machine) -> Literal["transformers", "vllm-colocate", "vllm-server"]:
    settings = {key: setting.value for key, setting in recipe.train.items()}
    if machine.cpu or not settings.get("use_vllm"):
        return "transformers"
    return "vllm-server" if settings.get("vllm_mode") == "server" else "vllm-colocate"


def _processes(work: Work, machine: Machine, generation: str) -> tuple[int, int]:
    """Training processes, and GPUs for a vLLM server.  Raises BadInput where a step cannot be split exactly."""
    devices = machine.devices
    if generation == "vllm-server":
        # The server takes a node of several, else what the largest exact split of the others leaves over.
        if machine.nodes > 1:
            devices -= machine.gpus
        else:
            devices = max(exact_splits(work.completions, devices - 1), default=0)
    aside = machine.devices - devices
    split = f"{work.prompts} prompts x {work.group} completions = {work.completions} per step"
    if devices < 1:
        raise BadInput(
            f"{machine.name}: a vLLM server and training need a GPU each; give 2 or more, or vllm_mode colocate"
        )
    if work.completions % devices:
        known = exact_splits(work.completions, work.completions)
        near = sorted(known, key=lambda count: abs(count - devices))[:1]
        raise BadInput(
            f"{machine.name}: {split} cannot be split exactly over {devices} GPUs; numbers of training GPUs that do: "
            f"{', '.join(map(str, known))}; nearest {near[0]}"
        )
    return devices, aside


def _micro_batches(per_process: int, work: Work, machine: Machine) -> list[int]:
    """Completions at a time that divide a process's share: the recipe's group first, then ever fewer."""
    divisors = [count for count in range(per_process, 0, -1) if per_process % count == 0]
    return divisors if machine.cpu else [count for count in divisors if count <= work.group]


def _ways(recipe: Recipe, work: Work, machine: Machine, processes: int) -> list[tuple[Sharding, bool]]:
    """Sharding and offloading, the recipe's own first and then what needs less."""
    if machine.cpu:
        return [("ddp", False)]
    own: Sharding = recipe.sharding.value if recipe.sharding else "ddp"
    # One process has nobody to share with: only the host's memory helps it.
    more = _STAGES[_STAGES.index(own) + 1 :] if processes > 1 else ()
    return [(own, False), *((stage, False) for stage in more), ("zero-3", True)]


def _candidates(recipe: Recipe, shape: Shape, work: Work, machine: Machine) -> Iterator[list[Layout]]:
    """Layouts in groups, the preferred group first; within a group the recipe's own way, then by predicted time."""
    generation = _generation(recipe, machine)
    processes, aside = _processes(work, machine, generation)
    per_process = work.completions // processes
    share = None
    if generation == "vllm-colocate":
        needed = vllm_bytes(shape, work, per_process) / (machine.gpu.memory * GIB)
        share = round(math.ceil(needed / _VLLM_STEP) * _VLLM_STEP, 2)
    for sharding, offload in _ways(recipe, work, machine, processes):
        layouts = [
            Layout(
                gpus=machine.name,
                device="cpu" if machine.cpu else "cuda",
                nodes=processes // machine.gpus if aside and machine.nodes > 1 else machine.nodes,
                processes=processes,
                completions_per_device=count,
                accumulation=per_process // count,
                sharding=sharding,
                offload=offload,
                gradient_checkpointing=checkpointing,
                generation=generation,
                vllm_gpus=aside,
                vllm_memory=share,
            )
            for checkpointing in (False, True)
            for count in _micro_batches(per_process, work, machine)
        ]
        times = {
            i: step_time(shape, work.under(sharding), layout, machine, mean=MEAN_TOKENS, longest=LONGEST_TOKENS).total
            for i, layout in enumerate(layouts)
        }
        yield [layouts[i] for i in sorted(times, key=lambda i: (i > 0, times[i]))]


def _usable(machine: Machine) -> float:
    return machine.gpu.memory * GIB * (_OF_RAM if machine.cpu else _OF_GPU)


def _fitting(recipe: Recipe, shape: Shape, work: Work, machine: Machine) -> tuple[Layout | None, Layout, Memory]:
    """The preferred layout that fits, or None with the one that needs least."""
    least: tuple[Layout, Memory] | None = None
    for group in _candidates(recipe, shape, work, machine):
        for layout in group:
            memory = predict(shape, work.under(layout.sharding), layout, machine.gpu.memory * GIB)
            if memory.peak <= _usable(machine):
                return layout, layout, memory
            if least is None or memory.peak <= least[1].peak:
                least = layout, memory
    assert least is not None  # there is always one way, of one completion at a time
    return None, *least


def _smallest(recipe: Recipe, shape: Shape, work: Work) -> str | None:
    """The machine of least memory that the recipe fits, among the known GPUs in numbers up to 64."""
    on_gpus = replace(work, precision=work_of(recipe, shape).precision)
    counts = [count for count in exact_splits(work.completions, 64) if count <= 8 or count % 8 == 0]
    machines = [
        Machine(max(1, count // 8), min(count, 8), gpu)
        for gpu in GPUS.values()
        for count in (*counts, *_with_server(recipe, counts))
    ]
    for machine in sorted(machines, key=lambda one: (one.devices * one.gpu.memory, one.devices)):
        try:
            layout, _, _ = _fitting(recipe, shape, on_gpus, machine)
        except BadInput:
            continue
        if layout:
            return machine.name + (" with the optimizer in the host's memory" if layout.offload else "")
    return None


def _with_server(recipe: Recipe, counts: list[int]) -> list[int]:
    server = _generation(recipe, Machine(1, 1, Gpu("any", 1, 1, 1, 1, None))) == "vllm-server"
    return [count + 1 for count in counts if count < 8] if server else []


def _refusal(recipe: Recipe, shape: Shape, work: Work, machine: Machine, layout: Layout, memory: Memory) -> BadInput:
    tried = [
        *([layout.sharding] if layout.device == "cuda" else []),
        *(["weights and optimizer in the host's memory"] if layout.offload else []),
        *(["gradient checkpointing"] if layout.gradient_checkpointing else []),
        f"{layout.completions_per_device} completion{'s' if layout.completions_per_device > 1 else ''} at a time",
    ]
    smallest = None if recipe.miniature else _smallest(recipe, shape, work)
    where = "of memory" if machine.cpu else "per GPU"
    there = f"{_usable(machine) / GIB:.1f} of {machine.gpu.memory:.1f} GiB may be planned with"
    return BadInput(
        f"{machine.name}: {recipe.name} ({shape.parameters / 1e9:.2f} billion parameters) needs at least "
        f"{memory.peak / GIB:.1f} GiB {where} even with {', '.join(tried)}, most of it in the phase "
        f"'{memory.peak_phase}'; {there}. "
        + (f"The smallest that fits: --gpus {smallest}" if smallest else "No known GPU in numbers up to 64 fits it")
    )


def _upstream(recipe: Recipe) -> tuple[Machine, int] | None:
    """Upstream's machine and accumulation: each of its scripts takes one prompt per training GPU and pass.

    GPUs beyond the largest exact split are those that generated (4 train, a fifth runs vLLM).
    """
    if recipe.hardware is None:
        return None
    machine = parse_gpus(recipe.hardware.value)
    training = exact_splits(recipe.grpo.prompts_per_step, machine.devices)[-1]
    return machine, recipe.grpo.prompts_per_step // training


def default_gpus(recipe: Recipe) -> str:
    """What is planned for when nothing is said: upstream's GPUs, as many as can train; a CPU for a miniature."""
    if (upstream := _upstream(recipe)) is None:
        return "cpu"
    machine, accumulation = upstream
    if _generation(recipe, machine) == "vllm-server" or machine.nodes > 1:
        return machine.name
    return replace(machine, gpus=recipe.grpo.prompts_per_step // accumulation).name


def _deviations(recipe: Recipe, work: Work, layout: Layout, machine: Machine) -> list[Deviation]:
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

    if upstream := _upstream(recipe):
        theirs, accumulation = upstream
        add("GPUs", theirs.name, machine.name, "what is at hand", "rounding")
        fewer = layout.completions_per_device not in (work.group, work.completions // layout.processes)
        add(
            "completions per device x accumulation",
            f"{work.group} x {accumulation}",
            f"{layout.completions_per_device} x {layout.accumulation}",
            f"the same {work.completions} completions per step on {layout.processes} "
            f"process{'es' if layout.processes > 1 else ''}{', fewer at a time to fit the memory' if fewer else ''}",
            "rounding",
        )
    if recipe.sharding:
        why = "a CPU run has one process" if machine.cpu else f"{recipe.sharding.value} does not fit"
        add("sharding", recipe.sharding.value, layout.sharding, why, "rounding")
    if recipe.weights_dtype and work.under(layout.sharding) != work:
        why = "deepspeed keeps the float32 weights as masters and computes with bfloat16 copies, not under autocast"
        add("weights", recipe.weights_dtype.value, "bfloat16", why, "yes")
    if recipe.weights_dtype and machine.cpu:
        add("weights", recipe.weights_dtype.value, "float32", "a CPU computes in float32", "rounding")
    if machine.cpu and recipe.train.get("bf16") and recipe.train["bf16"].value:
        add("products", "bfloat16", "float32", "a CPU computes in float32", "rounding")
    theirs_on = {key: setting.value for key, setting in recipe.upstream_layout.items()}
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
        "as many completions at a time do not fit otherwise; the same values are computed twice"
        if layout.gradient_checkpointing
        else "all fits without it; the same values, computed once",
        "no",
    )
    if machine.cpu and recipe.train.get("use_vllm") and recipe.train["use_vllm"].value:
        add("generation", "vllm", "transformers", "vLLM is for GPUs", "rounding")
    return found


def _assumptions(
    work: Work, shape: Shape, layout: Layout, machine: Machine, price: float | None, given: bool
) -> list[str]:
    gpu, speeds = machine.gpu, speeds_of(machine)
    vllm = layout.generation != "transformers"
    latency = VLLM_LATENCY if vllm else speeds.layer_latency
    narrow = layout.sharding != "ddp" and work.under(layout.sharding).precision == "bfloat16"
    gradients = "bfloat16, as deepspeed has it where upstream's zero3.json says nothing" if narrow else "float32"
    seen = "clip" if work.slices > 1 else "image"
    found = [
        f"memory: {work.prompt_tokens} prompt tokens ({work.image_tokens} of the {seen}) and {work.completion_tokens} "
        "of the completion for every row, an upper bound; attention by sdpa, keys and values repeated to all heads",
        f"memory: {100 * FRAGMENTATION:.0f} % of tensors lost to fragmentation, {100 * (1 - _OF_GPU):.0f} % of a "
        f"GPU kept free; gradients add up in {gradients}",
        f"time: an estimate, {'fitted to another machine' if machine.cpu else 'not measured'}: passes at "
        f"{100 * speeds.utilisation:.0f} % of {gpu.tflops:g} peak TFLOP/s, decoding at {1000 * latency:.3g} ms per "
        f"layer or {100 * speeds.bandwidth_used:.0f} % of {gpu.bandwidth:g} GB/s, "
        + ("whichever is slower" if speeds.overlapped else "one after the other"),
        f"time: an image is made{'' if vllm else ', prefilled'} and encoded once "
        + ("per group and device" if work.grouped else "per completion, as TRL does by itself")
        + ("; vLLM prefills it per completion" if vllm else ""),
        f"time: completions of {min(MEAN_TOKENS, work.completion_tokens)} tokens on average, the longest of a call "
        f"{min(LONGEST_TOKENS, work.completion_tokens)}; at most: all at {work.completion_tokens}",
        f"time: {work.steps} steps of training alone, without loading, saving and evaluation",
    ]
    if layout.offload:
        found.append(f"the host has the memory named above free, and {HOST_LINK:g} GB/s to each GPU")
    if price is not None:
        source = "as given" if given else f"assumption, typical on-demand price of {PRICES_OF}; --price sets another"
        found.append(f"cost: ${price:.2f} per GPU and hour ({source})")
    return found


def _rounded(parts: dict[str, float], unit: float = 1.0, digits: int = 2) -> dict[str, float]:
    return {name: round(value / unit, digits) for name, value in parts.items()}


def make_plan(
    recipe: Recipe,
    model_config: dict[str, Any],
    gpus: str,
    *,
    image: tuple[int, int] | None = None,
    price: float | None = None,
) -> Plan:
    """`recipe` (one variant of it, resolved) with the model of `model_config` (a config.json) on `gpus`.

    `image` is (width, height) of the training images where known, `price` dollars per GPU and hour.  Raises BadInput
    for GPUs that are unknown, that cannot hold the run (naming the smallest that can), or over which a step cannot be
    split exactly; and for a model that is no Qwen2-VL.
    """
    machine = parse_gpus(gpus)
    if recipe.miniature and not machine.cpu:
        raise BadInput(f"recipe {recipe.name} is a miniature, which trains on the CPU ({gpus!r}); write --gpus cpu")
    shape = read_shape(model_config)
    work = work_of(recipe, shape, image)
    if machine.cpu:
        work = replace(work, precision="float32")
    fitting, least, memory = _fitting(recipe, shape, work, machine)
    if fitting is None:
        raise _refusal(recipe, shape, work, machine, least, memory)
    layout = fitting
    if layout.vllm_gpus:
        needed = vllm_bytes(shape, work, -(-work.completions // layout.vllm_gpus)) / GIB
        if needed > _OF_VLLM_SERVER * machine.gpu.memory:
            raise BadInput(
                f"{machine.name}: the vLLM server needs {needed:.1f} GiB on each of its GPUs and takes at most "
                f"{_OF_VLLM_SERVER:.0%} of {machine.gpu.memory:.1f}; give GPUs of more memory"
            )

    def seconds(mean: int, longest: int) -> StepTime:
        return step_time(shape, work.under(layout.sharding), layout, machine, mean=mean, longest=longest)

    expected = seconds(MEAN_TOKENS, LONGEST_TOKENS)
    hours = expected.total * work.steps / 3600
    at_most = seconds(work.completion_tokens, work.completion_tokens).total * work.steps / 3600
    hourly = price if price is not None else machine.gpu.price
    return Plan(
        recipe=recipe.name,
        completions_per_step=work.completions,
        parameters=shape.parameters,
        layout=layout,
        memory={
            "always": _rounded(memory.standing, GIB),
            **{name: _rounded(parts, GIB) for name, parts in memory.phases.items()},
        },
        peak=round(memory.peak / GIB, 2),
        peak_phase=memory.peak_phase,
        device_memory=round(machine.gpu.memory, 2),
        host_memory=round(memory.host / GIB, 2),
        step_seconds=_rounded({**vars(expected), "total": expected.total}),
        hours=round(hours, 3),
        hours_at_most=round(at_most, 3),
        hourly=None if hourly is None else hourly * machine.devices,
        cost=None if hourly is None else round(hours * hourly * machine.devices, 2),
        cost_at_most=None if hourly is None else round(at_most * hourly * machine.devices, 2),
        assumptions=_assumptions(work, shape, layout, machine, hourly, price is not None),
        deviations=_deviations(recipe, work, layout, machine),
    )
