"""The choice of a layout: the recipe's own where it fits, else the nearest that does, else a refusal.

A step's completions never change.  What may change is how they are spread over devices and time, and every departure
from upstream's layout is a `Deviation` with its reason.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from r1mm.errors import BadInput
from r1mm.plan.duration import LENGTHS, StepTime, step_time
from r1mm.plan.explain import OF_GPU, Deviation, assumptions, deviations, upstream_layout
from r1mm.plan.hardware import GIB, GPUS, Gpu, Machine, parse_gpus
from r1mm.plan.layout import Layout, Work, exact_splits, work_of
from r1mm.plan.memory import Memory, predict, vllm_bytes
from r1mm.plan.shapes import Shape, read_shape
from r1mm.recipe import Recipe
from r1mm.sourced import Strict
from r1mm.training_parts import Sharding, Training

_STAGES: tuple[Sharding, ...] = ("ddp", "zero-2", "zero-3")
_OF_RAM = 0.85  # of a machine's memory that a CPU run may take
_OF_VLLM_SERVER = 0.9  # vLLM's own default share of a GPU that is its alone
_VLLM_STEP = 0.05  # vLLM's share of a GPU is rounded up to a multiple of this


class Plan(Strict):
    """A recipe's training laid out on given devices.  Sizes in GiB per device, times in seconds or hours, money in
    dollars.

    `completions_per_step` are examples in supervised fine-tuning.
    `memory` by phase and part; phase `always` stands beside each other one.  `hours` with completions of the assumed
    lengths, `hours_at_most` with every completion at its limit; both estimates, for the training stage alone.
    """

    recipe: str
    training: Training = "grpo"  # older plans are of nothing else
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


def _generation(
    recipe: Recipe, machine: Machine, training: Training
) -> Literal["none", "transformers", "vllm-colocate", "vllm-server"]:
    if training == "sft":
        return "none"
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
    split = f"{work.completions} {work.rows} per step"
    if work.training == "grpo":
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
    """Rows at a time that divide a process's share: the recipe's group, or upstream's examples, then ever fewer."""
    divisors = [count for count in range(per_process, 0, -1) if per_process % count == 0]
    return divisors if machine.cpu else [count for count in divisors if count <= (work.at_once or work.group)]


def _ways(recipe: Recipe, work: Work, machine: Machine, processes: int) -> list[tuple[Sharding, bool]]:
    """Sharding and offloading, the recipe's own first and then what needs less."""
    if machine.cpu:
        return [("ddp", False)]
    own: Sharding = recipe.kept_in(work.training)[0] or "ddp"
    # One process has nobody to share with: only the host's memory helps it.
    more = _STAGES[_STAGES.index(own) + 1 :] if processes > 1 else ()
    return [(own, False), *((stage, False) for stage in more), ("zero-3", True)]


def _candidates(recipe: Recipe, shape: Shape, work: Work, machine: Machine) -> Iterator[list[Layout]]:
    """Layouts in groups, the preferred group first; within a group the recipe's own way, then by predicted time."""
    generation = _generation(recipe, machine, work.training)
    processes, aside = _processes(work, machine, generation)
    per_process = work.completions // processes
    share = None
    mean, longest = LENGTHS[work.training]
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
            i: step_time(shape, work.under(sharding), layout, machine, mean=mean, longest=longest).total
            for i, layout in enumerate(layouts)
        }
        yield [layouts[i] for i in sorted(times, key=lambda i: (i > 0, times[i]))]


def _usable(machine: Machine) -> float:
    return machine.gpu.memory * GIB * (_OF_RAM if machine.cpu else OF_GPU)


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
    on_gpus = replace(work, precision=work_of(recipe, shape, training=work.training).precision)
    counts = [count for count in exact_splits(work.completions, 64) if count <= 8 or count % 8 == 0]
    machines = [
        Machine(max(1, count // 8), min(count, 8), gpu)
        for gpu in GPUS.values()
        for count in (*counts, *_with_server(recipe, counts, work.training))
    ]
    for machine in sorted(machines, key=lambda one: (one.devices * one.gpu.memory, one.devices)):
        try:
            layout, _, _ = _fitting(recipe, shape, on_gpus, machine)
        except BadInput:
            continue
        if layout:
            return machine.name + (" with the optimizer in the host's memory" if layout.offload else "")
    return None


def _with_server(recipe: Recipe, counts: list[int], training: Training) -> list[int]:
    server = _generation(recipe, Machine(1, 1, Gpu("any", 1, 1, 1, 1, None)), training) == "vllm-server"
    return [count + 1 for count in counts if count < 8] if server else []


def _refusal(recipe: Recipe, shape: Shape, work: Work, machine: Machine, layout: Layout, memory: Memory) -> BadInput:
    count = layout.completions_per_device
    tried = [
        *([layout.sharding] if layout.device == "cuda" else []),
        *(["weights and optimizer in the host's memory"] if layout.offload else []),
        *(["gradient checkpointing"] if layout.gradient_checkpointing else []),
        f"{count} {work.rows if count > 1 else work.rows[:-1]} at a time",
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


def default_gpus(recipe: Recipe) -> str:
    """What is planned for when nothing is said: upstream's GPUs, as many as can train; a CPU for a miniature."""
    training = recipe.trainings[-1]
    if (upstream := upstream_layout(recipe, training)) is None:
        return "cpu"
    machine, accumulation = upstream
    if training == "sft" or _generation(recipe, machine, training) == "vllm-server" or machine.nodes > 1:
        return machine.name
    return replace(machine, gpus=recipe.grpo.prompts_per_step // accumulation).name


def _rounded(parts: dict[str, float], unit: float = 1.0, digits: int = 2) -> dict[str, float]:
    return {name: round(value / unit, digits) for name, value in parts.items()}


def make_plan(
    recipe: Recipe,
    model_config: dict[str, Any],
    gpus: str,
    *,
    training: Training | None = None,
    image: tuple[int, int] | None = None,
    price: float | None = None,
) -> Plan:
    """A training of `recipe` (one variant of it, resolved) with the model of `model_config` (a config.json) on `gpus`.

    `training`: one of the recipe's, its last where it is not said.
    `image` is (width, height) of the training images where known, `price` dollars per GPU and hour.  Raises BadInput
    for GPUs that are unknown, that cannot hold the run (naming the smallest that can), or over which a step cannot be
    split exactly; and for a model that is no Qwen2-VL.
    """
    training = training or recipe.trainings[-1]
    machine = parse_gpus(gpus)
    if recipe.miniature and not machine.cpu:
        raise BadInput(f"recipe {recipe.name} is a miniature, which trains on the CPU ({gpus!r}); write --gpus cpu")
    shape = read_shape(model_config)
    work = work_of(recipe, shape, image, training)
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

    expected = seconds(*LENGTHS[training])
    hours = expected.total * work.steps / 3600
    at_most = seconds(work.completion_tokens, work.completion_tokens).total * work.steps / 3600
    hourly = price if price is not None else machine.gpu.price
    return Plan(
        recipe=recipe.name,
        training=training,
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
        assumptions=assumptions(work, shape, layout, machine, hourly, price is not None),
        deviations=deviations(recipe, work, layout, machine),
    )
