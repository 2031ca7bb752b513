"""Time of one optimizer step in seconds: an estimate from assumptions, not a measurement.

Two numbers carry it.  A decoding step of transformers takes a millisecond per layer, because the processor that starts
the kernels is slower than the GPU: with it upstream's 8 x A100 at 18 seconds a step (Deep-Agent/R1-V#39, 100 steps in
30 minutes) comes out at 16 calls one after the other of about 38 tokens each, which is what its published curve of
completion lengths shows on average.  Passes over whole sequences run at a third of the peak, as such models commonly
do.  The few times that upstream's users reported do not determine either number; `tests/unit/test_plan.py` sets them
beside what this model says of upstream's own way of generating.
"""

from dataclasses import dataclass

from r1mm.plan.hardware import Machine, link_of
from r1mm.plan.layout import Layout, Work
from r1mm.plan.memory import cache_bytes, images_of
from r1mm.plan.shapes import Shape

UTILISATION = 0.33  # of the peak, in passes over whole sequences
LAYER_LATENCY = 1.0e-3  # seconds per layer of a decoding step through transformers
VLLM_LATENCY = 0.12e-3  # seconds per layer of a decoding step through vLLM, which replays CUDA graphs
PASS_LATENCY = 1.0e-3  # seconds per layer of a forward pass, however small the batch
BANDWIDTH_USED = 0.7  # of the memory's peak, while decoding
HOST_OPTIMIZER = 1.0e9  # parameters a second that DeepSpeed's CPU Adam updates on one node
HOST_LINK = 25.0  # GB/s between a GPU and the host's memory
PER_STEP = 1.5  # seconds: images decoded and processed, rewards, logging

# Completion lengths: what thinking models of upstream's family wrote.  The mean follows from the 51.6 s a step of
# 4 x A800 (Deep-Agent/R1-V#39, 17,500 steps in 251 hours) by the decoding time above.
MEAN_TOKENS = 110
LONGEST_TOKENS = 330  # of the completions of one call, three times the mean


@dataclass(frozen=True)
class StepTime:
    """Seconds of the parts of one optimizer step."""

    generation: float
    reference: float
    update: float
    exchange: float
    other: float

    @property
    def total(self) -> float:
        """All of it; nothing is taken to overlap."""
        return self.generation + self.reference + self.update + self.exchange + self.other


def decode_seconds(shape: Shape, work: Work, machine: Machine, sequences: int, context: int, *, vllm: bool) -> float:
    """One decoding step of `sequences` sequences with `context` tokens each behind them."""
    # Under autocast a step reads float32 weights, writes bfloat16 ones and reads those.
    per_weight = 2 if vllm or work.precision == "bfloat16" else 8 if work.precision == "autocast" else 4
    language = shape.parameters - shape.tower.parameters
    read = per_weight * language + sequences * context * cache_bytes(shape, work)
    latency = shape.layers * (VLLM_LATENCY if vllm else LAYER_LATENCY)
    return float(max(latency, read / (BANDWIDTH_USED * machine.gpu.bandwidth * 1e9)))


def pass_flops(shape: Shape, sequences: int, tokens: int, scored: int, patches: int) -> float:
    """Of one forward pass: `sequences` of `tokens`, `scored` of them through the head, `patches` through the tower."""
    matrices = shape.layers * (shape.layer_parameters - 2 * shape.width)
    attention = shape.layers * 2 * 2 * sequences * tokens**2 * shape.width / 2  # causal: half of the square
    return 2.0 * (
        matrices * sequences * tokens + shape.head_parameters * sequences * scored + shape.tower.parameters * patches
    ) + float(attention)


def step_time(shape: Shape, work: Work, layout: Layout, machine: Machine, *, mean: int, longest: int) -> StepTime:
    """One step whose completions have `mean` tokens, the longest of a call `longest`; both are cut at the limit."""
    mean, longest = min(mean, work.completion_tokens), min(longest, work.completion_tokens)
    speed = UTILISATION * machine.gpu.tflops * 1e12
    per_image = work.image_tokens * shape.tower.merge**2
    depth = shape.layers + shape.tower.depth
    vllm = layout.generation != "transformers"
    makers = layout.vllm_gpus or layout.processes
    sequences = -(-work.completions // makers)
    images = images_of(layout.generated, work, layout)
    prefill = pass_flops(shape, sequences, work.prompt_tokens, 1, images * per_image) / speed
    decoding = longest * decode_seconds(
        shape, work, machine, sequences, work.prompt_tokens + mean, vllm=vllm
    )  # every sequence of a call waits for the longest
    n = layout.completions_per_device
    patches = images_of(n, work, layout) * per_image if work.images_in_logprobs else 0
    # Rows are padded to the longest completion of the batch.
    forward = pass_flops(shape, n, work.prompt_tokens + longest, longest, patches) / speed
    latency = depth * PASS_LATENCY
    forwards_of_update = 4 if layout.gradient_checkpointing else 3
    reference = layout.accumulation * max(forward, latency) if work.reference else 0.0
    if vllm and work.rescored:
        reference += layout.accumulation * max(forward, latency)
    return StepTime(
        generation=prefill + decoding,
        reference=reference,
        update=layout.accumulation * forwards_of_update * max(forward, latency),
        exchange=_exchange(shape, work, layout, machine),
        other=PER_STEP,
    )


def _exchange(shape: Shape, work: Work, layout: Layout, machine: Machine) -> float:
    """Gradients and weights over the links between GPUs, or to the host and back."""
    weight = 2 if work.precision == "bfloat16" else 4
    model = weight * shape.parameters
    seconds = 0.0
    if layout.processes > 1:
        # Gradients once a step; sharded weights are gathered for generation, and for each micro-batch's reference,
        # forward and backward pass, after which its gradients are scattered.
        times = 2.0 if layout.sharding != "zero-3" else 1.0 + 4.0 * layout.accumulation
        seconds += times * model / (link_of(machine) * 1e9)
    if layout.offload:
        seconds += (1.0 + 4.0 * layout.accumulation) * model / layout.processes / (HOST_LINK * 1e9)
        seconds += shape.parameters / HOST_OPTIMIZER / layout.nodes
    return seconds
