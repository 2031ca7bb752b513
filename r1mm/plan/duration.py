"""Time of one optimizer step in seconds: an estimate from assumptions about a device, not a measurement.

A step is a list of `Part`s: what a device has to compute, how many layers' kernels are started one after the other,
what is read and sent.  None of that depends on the device's speed.  `Speeds` turns it into seconds.

For GPUs two numbers carry the estimate.  A decoding step of transformers takes a millisecond per layer, because the
processor that starts the kernels is slower than the GPU: with it upstream's 8 x A100 at 18 seconds a step
(Deep-Agent/R1-V#39, 100 steps in 30 minutes) comes out at 16 calls one after the other of about 38 tokens each, which
is what its published curve of completion lengths shows on average.  Passes over whole sequences run at a third of the
peak, as such models commonly do.  The few times that upstream's users reported do not determine either number;
`tests/unit/plan/test_duration.py` sets them beside what this model says of upstream's own way of generating.  No GPU
has been measured for them.

A CPU's speeds are fitted to measurements, see `CPU_SPEEDS`.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

from r1mm.plan.hardware import Machine, link_of
from r1mm.plan.layout import Layout, Work
from r1mm.plan.memory import cache_bytes, images_of, prompts_of
from r1mm.plan.shapes import Shape, Tower
from r1mm.training_parts import Training

HOST_OPTIMIZER = 1.0e9  # parameters a second that DeepSpeed's CPU Adam updates on one node
HOST_LINK = 25.0  # GB/s between a GPU and the host's memory
_OPTIMIZER_BYTES = 28  # read and written per parameter: weight, gradient and two moments; all but the gradient back

# Completion lengths: what thinking models of upstream's family wrote.  The mean follows from the 51.6 s a step of
# 4 x A800 (Deep-Agent/R1-V#39, 17,500 steps in 251 hours) by the decoding time above.
MEAN_TOKENS = 110
LONGEST_TOKENS = 330  # of the completions of one call, three times the mean
# Tokens that an example of supervised fine-tuning teaches, and the longest of those that are padded to one length: an
# assumption about R1's thoughts on a CLEVR question, which were not counted.
LENGTHS: dict[Training, tuple[int, int]] = {"grpo": (MEAN_TOKENS, LONGEST_TOKENS), "sft": (500, 800)}

Phase = Literal["generation", "reference", "update", "exchange", "other"]
Kind = Literal["forward", "backward", "decoding"]
Bound = Literal["operations", "kernel starts", "memory", "link", "host"]


@dataclass(frozen=True)
class Speeds:
    """What a device reaches of its data sheet, and what it costs to keep it busy.  Times in seconds.

    `utilisation` of the peak in forward passes over whole sequences, `backward_utilisation` in backward ones,
    `decoding_utilisation` while decoding;
    `pass_latency` and `layer_latency` to start one layer's kernels in a pass, in a decoding step; `bandwidth_used` of
    the memory's peak; `per_patch_decoded` and `per_patch_made` on the host to decode an image and to make its pixels,
    per patch of 14 x 14; `per_step` for rewards, logging and loading.  `overlapped`: kernels are started while others
    run, as on a GPU, so that the longer of the two counts; else both add up.
    """

    utilisation: float
    backward_utilisation: float
    decoding_utilisation: float
    pass_latency: float
    layer_latency: float
    bandwidth_used: float
    per_patch_decoded: float
    per_patch_made: float
    per_step: float
    overlapped: bool


_DECODED, _MADE = 10e-6, 15e-6  # measured: 7.6 and 11 ms for a PNG of 480 x 320 (748 patches) on one core
GPU_SPEEDS = Speeds(
    utilisation=0.33,
    backward_utilisation=0.33,
    decoding_utilisation=0.33,
    pass_latency=1.0e-3,
    layer_latency=1.0e-3,
    bandwidth_used=0.7,
    per_patch_decoded=_DECODED,
    per_patch_made=_MADE,
    per_step=1.5,
    overlapped=True,
)
VLLM_LATENCY = 0.12e-3  # seconds per layer of a decoding step through vLLM, which replays CUDA graphs
# Of two cores with the miniature's model: `benchmarks/scaling.py fit` on steps of 8 and 80 tokens, stock and grouped,
# while other work ran; the median steps of 24 and 48 tokens, which it has not seen, it misses by 2 to 31 %.
CPU_SPEEDS = Speeds(
    utilisation=0.183,
    backward_utilisation=0.237,
    decoding_utilisation=0.70,
    pass_latency=1.1e-5,
    layer_latency=7.6e-3,
    bandwidth_used=0.7,
    per_patch_decoded=4.6e-5,
    per_patch_made=8.3e-8,
    per_step=0.097,
    overlapped=False,
)


@dataclass(frozen=True)
class Part:
    """What one device does in one part of a step, one part after the other.

    `operations` (two per multiplication and addition); `starts`, layers whose kernels are started one after the other;
    `read` bytes of its memory, `sent` bytes over the link to its neighbours; `patches_decoded` and `patches_made` on
    the host; `whole_steps`, what is paid once a step; `fixed` seconds that no speed of the device changes.  `kind` says
    which utilisation and which latency hold.
    """

    phase: Phase
    name: str
    operations: float = 0.0
    starts: float = 0.0
    read: float = 0.0
    sent: float = 0.0
    patches_decoded: float = 0.0
    patches_made: float = 0.0
    whole_steps: float = 0.0
    fixed: float = 0.0
    kind: Kind = "forward"


@dataclass(frozen=True)
class StepTime:
    """Seconds of the phases of one optimizer step."""

    generation: float
    reference: float
    update: float
    exchange: float
    other: float

    @property
    def total(self) -> float:
        """All of it; nothing is taken to overlap."""
        return self.generation + self.reference + self.update + self.exchange + self.other


def speeds_of(machine: Machine) -> Speeds:
    """What this module takes a machine to reach."""
    return CPU_SPEEDS if machine.cpu else GPU_SPEEDS


# --- what a step has to do


def tower_flops(tower: Tower, images: int, patches: int, slices: int = 1) -> float:
    """Of the tower's forward pass over `images` of `patches` each, every patch attending to its whole image.

    In a clip it attends to its own pair of frames, one of `slices`.
    """
    block = 4 * tower.width**2 + (3 if tower.gated else 2) * tower.width * tower.inner
    merged = tower.width * tower.merge**2
    per_patch = (
        tower.patch_values * tower.width + tower.depth * block + (merged**2 + merged * tower.out) / tower.merge**2
    )
    attention = tower.depth * 2 * patches / slices * tower.width
    return 2.0 * images * patches * (per_patch + attention)


def pass_flops(shape: Shape, sequences: int, tokens: int, scored: int) -> float:
    """Of the language model's forward pass: `sequences` of `tokens`, `scored` of them through the head."""
    matrices = shape.layers * (shape.layer_parameters - 2 * shape.width)
    attention = shape.layers * 2 * 2 * sequences * tokens**2 * shape.width / 2  # causal: half of the square
    return 2.0 * (matrices * sequences * tokens + shape.head_parameters * sequences * scored) + float(attention)


def _decoding(shape: Shape, work: Work, sequences: int, context: int, steps: int) -> Part:
    """`steps` decoding steps of `sequences` sequences with `context` tokens each behind them."""
    # Under autocast a step reads float32 weights, writes bfloat16 ones and reads those.
    per_weight = 2 if work.precision == "bfloat16" else 8 if work.precision == "autocast" else 4
    language = shape.parameters - shape.tower.parameters
    attention = shape.layers * 2 * 2 * sequences * context * shape.width
    return Part(
        "generation",
        "decoding",
        operations=steps * (pass_flops(shape, sequences, 1, 1) + attention),
        starts=steps * shape.layers,
        read=steps * (per_weight * language + sequences * context * cache_bytes(shape, work)),
        kind="decoding",
    )


def _generation(shape: Shape, work: Work, layout: Layout, mean: int, longest: int) -> list[Part]:
    """One call for all completions of a device; every sequence waits for the longest."""
    patches, tower = work.image_tokens * shape.tower.merge**2, shape.tower
    vllm = layout.generation != "transformers"
    sequences = -(-work.completions // (layout.vllm_gpus or layout.processes))
    different = -(-sequences // work.group) if layout.vllm_gpus else prompts_of(layout.generated, work, layout)
    encoded = different if vllm or work.grouped else sequences
    prefilled = different if work.grouped and not vllm else sequences
    generating = work if not vllm else _in_bfloat16(work)
    return [
        Part("generation", "tower", tower_flops(tower, encoded, patches, work.slices), tower.depth),
        Part("generation", "prefill", pass_flops(shape, prefilled, work.prompt_tokens, 1), shape.layers),
        _decoding(shape, generating, sequences, work.prompt_tokens + mean, longest),
    ]


def step_parts(shape: Shape, work: Work, layout: Layout, *, mean: int, longest: int) -> list[Part]:
    """One step of one device whose completions, or examples, have `mean` tokens to score, the longest `longest`.

    Both are cut at the recipe's limit.  With `work.grouped` a device encodes each of its different images once per
    pass and makes its pixels once, and transformers prefills each different prompt once; without, once per completion.
    vLLM keeps the features of images that it has met, but is taken to prefill every completion's prompt.
    """
    mean, longest = min(mean, work.completion_tokens), min(longest, work.completion_tokens)
    patches = work.image_tokens * shape.tower.merge**2
    tower = shape.tower
    parts: list[Part] = []

    vllm = layout.generation in ("vllm-colocate", "vllm-server")
    if layout.generation != "none":
        parts += _generation(shape, work, layout, mean, longest)

    # Scoring: rows are padded to the longest completion of the batch.
    n, times = layout.completions_per_device, layout.accumulation
    of_tower = times * tower_flops(tower, images_of(n, work, layout), patches, work.slices)
    of_text = times * pass_flops(shape, n, work.prompt_tokens + longest, longest)
    tower_starts, text_starts = times * tower.depth, times * shape.layers

    def passes(
        phase: Phase, suffix: str, count: int = 1, started: int = 1, kind: Kind = "forward", *, sees: bool
    ) -> None:
        if sees:
            parts.append(Part(phase, f"tower{suffix}", count * of_tower, started * tower_starts, kind=kind))
        parts.append(Part(phase, f"language{suffix}", count * of_text, started * text_starts, kind=kind))

    if work.reference:
        passes("reference", "", sees=work.images_in_reference)
    if vllm and work.rescored:
        passes("reference", ", vLLM's completions scored again", sees=work.images_in_logprobs)
    passes("update", " forward", sees=work.images_in_logprobs)
    # A backward pass computes twice what a forward one does, started without Python in the time of one (measured on a
    # CPU: 29 and 39 ms for the miniature's tower).  With checkpointing the forward pass is computed anew before it.
    again = int(layout.gradient_checkpointing)
    passes("update", " backward", 2 + again, 1 + again, "backward", sees=work.images_in_logprobs)
    if not layout.offload:
        own = shape.parameters / (layout.processes if layout.sharding != "ddp" else 1)
        parts.append(Part("update", "optimizer", read=_OPTIMIZER_BYTES * own))

    parts += _exchanges(shape, work, layout)

    # TRL decodes an image for every completion, and makes its pixels for generation and for the log-probs.
    decoded = images_of(layout.generated, work, layout)
    made = decoded if work.grouped else 2 * decoded
    parts.append(Part("other", "pre-processing", patches_decoded=decoded * patches, patches_made=made * patches))
    parts.append(Part("other", "rewards, logging", whole_steps=1))
    return parts


def _in_bfloat16(work: Work) -> Work:
    """The work as vLLM does it."""
    return replace(work, precision="bfloat16")


def _exchanges(shape: Shape, work: Work, layout: Layout) -> list[Part]:
    """Gradients and weights over the links between GPUs, or to the host and back."""
    model = (2.0 if work.precision == "bfloat16" else 4.0) * shape.parameters
    generating = 0.0 if layout.generation == "none" else 1.0
    passes = 3.0 if work.reference else 2.0
    parts = []
    if layout.processes > 1:
        # Around a ring each device sends a whole sum nearly twice: once in pieces to add up, once in pieces that are.
        # Sharded weights are gathered for generation, and for each micro-batch's reference, forward and backward
        # pass, after which its gradients are scattered: once each.
        if layout.sharding == "zero-3":
            parts.append(Part("exchange", "weights gathered", sent=(generating + passes * layout.accumulation) * model))
            parts.append(Part("exchange", "gradients scattered", sent=layout.accumulation * model))
        else:
            parts.append(Part("exchange", "gradients summed", sent=2.0 * model))
    if layout.offload:
        there_and_back = (generating + (passes + 1.0) * layout.accumulation) * model / layout.processes
        parts.append(Part("exchange", "weights and gradients, host", fixed=there_and_back / (HOST_LINK * 1e9)))
        parts.append(Part("exchange", "optimizer, host", fixed=shape.parameters / HOST_OPTIMIZER / layout.nodes))
    return parts


# --- what it takes a machine


def seconds_of(part: Part, machine: Machine, speeds: Speeds, *, vllm: bool = False) -> tuple[float, Bound]:
    """Seconds of a part on one of the machine's devices, and what of it they are spent on, mostly."""
    decoding = part.kind == "decoding"
    utilisation = {
        "forward": speeds.utilisation,
        "backward": speeds.backward_utilisation,
        "decoding": speeds.decoding_utilisation,
    }[part.kind]
    latency = VLLM_LATENCY if decoding and vllm else speeds.layer_latency if decoding else speeds.pass_latency
    needs: dict[Bound, float] = {
        "kernel starts": part.starts * latency,
        "operations": part.operations / (utilisation * machine.gpu.tflops * 1e12),
        "memory": part.read / (speeds.bandwidth_used * machine.gpu.bandwidth * 1e9),
    }
    # Computing and reading go on at once anywhere; kernels are started beside that only on a GPU.
    busy = max(needs["operations"], needs["memory"])
    seconds = max(needs["kernel starts"], busy) if speeds.overlapped else needs["kernel starts"] + busy
    needs["link"] = part.sent / (link_of(machine) * 1e9)
    needs["host"] = (
        part.fixed
        + part.patches_decoded * speeds.per_patch_decoded
        + part.patches_made * speeds.per_patch_made
        + part.whole_steps * speeds.per_step
    )
    return seconds + needs["link"] + needs["host"], max(needs, key=lambda what: needs[what])


def decode_seconds(shape: Shape, work: Work, machine: Machine, sequences: int, context: int, *, vllm: bool) -> float:
    """One decoding step of `sequences` sequences with `context` tokens each behind them."""
    part = _decoding(shape, _in_bfloat16(work) if vllm else work, sequences, context, 1)
    return seconds_of(part, machine, speeds_of(machine), vllm=vllm)[0]


def step_time(
    shape: Shape,
    work: Work,
    layout: Layout,
    machine: Machine,
    *,
    mean: int,
    longest: int,
    speeds: Speeds | None = None,
) -> StepTime:
    """One step whose completions have `mean` tokens, the longest of a call `longest`; both are cut at the limit.

    `speeds` in place of those that this module takes the machine to reach.
    """
    known = speeds or speeds_of(machine)
    vllm = layout.generation in ("vllm-colocate", "vllm-server")
    phases = {field.name: 0.0 for field in fields(StepTime)}
    for part in step_parts(shape, work, layout, mean=mean, longest=longest):
        phases[part.phase] += seconds_of(part, machine, known, vllm=vllm)[0]
    return StepTime(**phases)
