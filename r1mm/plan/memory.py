"""Memory of one device, part by part, in bytes: a prediction from the model's shape, not a measurement.

What autograd keeps per token is counted on transformers 5.23's own layers with sdpa attention under a padding mask
(keys and values repeated to all heads), fused operations aside; `tests/unit/plan/test_memory.py` counts it again on
the real layers.  TRL 1.16 scores completions through a fused head, so that the logits never exist as a whole: tiles of
4,096 tokens x 32,768 entries of the vocabulary, and in the backward pass a float32 gradient of the whole head.

Parts that live at the same time form a phase; the peak is what always stands, plus the largest phase.
"""

import math
from dataclasses import dataclass

from r1mm.plan.layout import Layout, Work
from r1mm.plan.shapes import Shape

_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32768  # trl==1.16.0: kernels/chunked_logprob.py, trainer/utils.py
_ZERO_3_LIVE = 10**9  # deepspeed's stage3_max_live_parameters
_ZERO_3_PIECE = 10**9  # deepspeed's sub_group_size, in parameters of one device
_ZERO_BUCKET = 5 * 10**8  # deepspeed's reduce_bucket_size, of which stage 2 holds two while it overlaps
_SAMPLING_COPIES = 4  # of the last position's logits in float32: raw, after top-k, sorted, probabilities
_OPTIMIZER_STEP = 4  # bytes per parameter: torch's foreach AdamW makes one more copy in float32
CONTEXT = 1.25 * 2**30  # CUDA context, kernels and cuBLAS workspaces of a process
COMMUNICATION = 0.75 * 2**30  # NCCL's buffers, where there is more than one process
FRAGMENTATION = 0.06  # of all tensors
_PROCESS = 1.5 * 2**30  # a Python process with torch, transformers and TRL on a CPU
VLLM_OVERHEAD = 2.0 * 2**30  # vLLM's activations, CUDA graphs and workspaces beside weights and cache


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.  `standing` always, `phases` one at a time, each part by its name; `host` per node."""

    standing: dict[str, float]
    phases: dict[str, dict[str, float]]
    host: float

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> float:
        """The most that is needed at once."""
        return sum(self.standing.values()) + sum(self.phases[self.peak_phase].values())


def layer_bytes(shape: Shape, work: Work) -> int:
    """Saved for the backward pass of one decoder layer, per token (norms, queries, keys, values, output, gated MLP)."""
    wide, inner = shape.width, shape.inner
    per_token = {
        "bfloat16": 24 * wide + 8 * inner,
        "autocast": 34 * wide + 8 * inner,
        "float32": 40 * wide + 16 * inner,
    }[work.precision]
    return per_token + 4 * shape.heads + 8


def passing_bytes(shape: Shape, work: Work) -> int:
    """Alive at once per token in a decoder layer without gradients: three inner values of the MLP, the norms."""
    wide, inner = shape.width, shape.inner
    return {
        "bfloat16": 10 * wide + 6 * inner,
        "autocast": 14 * wide + 6 * inner,
        "float32": 16 * wide + 12 * inner,
    }[work.precision]


def layer_input_bytes(shape: Shape, work: Work) -> int:
    """Kept of one decoder layer per token under gradient checkpointing: its input."""
    return shape.width * (2 if work.precision == "bfloat16" else 4)


def block_bytes(shape: Shape, work: Work) -> int:
    """Saved for the backward pass of one block of the vision tower, per patch."""
    wide, inner = shape.tower.width, shape.tower.inner
    if shape.tower.gated:
        per_patch = {
            "bfloat16": 30 * wide + 8 * inner,
            "autocast": 36 * wide + 8 * inner,
            "float32": 52 * wide + 16 * inner,
        }[work.precision]
    else:
        per_patch = {
            "bfloat16": 22 * wide + 6 * inner,
            "autocast": 26 * wide + 6 * inner,
            "float32": 44 * wide + 12 * inner,
        }[work.precision]
    # Beside the sums of the attention, the norms' means and scales (RMSNorm has no mean).
    statistics = 8 if shape.tower.gated or work.precision == "bfloat16" else 16
    return per_patch + 4 * shape.tower.heads + statistics


def cache_bytes(shape: Shape, work: Work) -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.layers * shape.key_value_width * (4 if work.precision == "float32" else 2)


def tile_bytes(shape: Shape, work: Work, tokens: int, *, cuda: bool) -> int:
    """The fused head's tile of logits; on a CPU what of it is used, and four float32 copies made without Triton."""
    rows = min(tokens, _TILE_TOKENS)
    if cuda:
        return rows * _TILE_VOCABULARY * (4 if work.precision == "float32" else 2)
    return rows * min(_TILE_VOCABULARY, shape.vocabulary) * 4 * 5


def prompts_of(completions: int, work: Work, layout: Layout) -> int:
    """Different prompts, and so images, among `completions` of one device that are scored together, at most.

    The rows of a group stand side by side, in generation as in micro-batches (`r1mm.train.grouped`).  A group is cut
    where its size and a pass's, or a device's, do not divide one another.
    """

    def groups(rows: int) -> int:
        divided = rows % work.group == 0 or work.group % rows == 0
        return math.ceil(rows / work.group) + (0 if divided else 1)

    on_device, in_pass = groups(layout.generated), groups(completions)
    cut = layout.generated % work.group and work.group % layout.generated
    return min(completions, on_device, in_pass + (1 if cut else 0))


def images_of(completions: int, work: Work, layout: Layout) -> int:
    """Images that the tower encodes for `completions` of one device: each different one once, stock TRL every copy."""
    return prompts_of(completions, work, layout) if work.grouped else completions


def _states(shape: Shape, work: Work, layout: Layout) -> dict[str, float]:
    """Weights, gradients, optimizer and reference of one device before offloading."""
    parameters, processes = shape.parameters, layout.processes
    weight = 2 if work.precision == "bfloat16" else 4
    everywhere = 1 / processes
    third = everywhere if layout.sharding == "zero-3" else 1.0
    second = everywhere if layout.sharding != "ddp" else 1.0
    # Under DeepSpeed a float32 master stands beside the weights, whatever their type; gradients add up in the weights'
    # type (deepspeed: runtime/engine.py, get_data_types), but on the host in float32.
    optimizer = 8 if layout.sharding == "ddp" else 12
    return {
        "weights": weight * parameters * third,
        "gradients": (4 if layout.offload else weight) * parameters * second,
        "optimizer": optimizer * parameters * second,
        "reference": weight * parameters * third if work.reference else 0.0,
    }


def _passes(shape: Shape, work: Work, layout: Layout, tokens: int, *, sees: bool) -> dict[str, float]:
    """What any pass of one micro-batch without gradients needs while it runs, `tokens` in all; `sees` its images."""
    cuda = layout.device == "cuda"
    scored = layout.completions_per_device * (work.completion_tokens if cuda else work.tokens)
    weight = 2 if work.precision == "bfloat16" else 4
    parts = {
        "activations": float(tokens * passing_bytes(shape, work)),
        "logits": float(tile_bytes(shape, work, scored, cuda=cuda)),
        "gathered weights": float(weight * min(shape.parameters, _ZERO_3_LIVE)) if _gathers(layout) else 0.0,
        "autocast copies": 2.0 * shape.parameters if work.precision == "autocast" else 0.0,
    }
    if sees:
        patches = work.image_tokens * shape.tower.merge**2
        images = images_of(layout.completions_per_device, work, layout)
        parts["vision tower"] = float(images * patches * block_bytes(shape, work))
    return parts


def _gathers(layout: Layout) -> bool:
    return layout.sharding == "zero-3" and (layout.processes > 1 or layout.offload)


def _generation(shape: Shape, work: Work, layout: Layout) -> dict[str, float]:
    """TRL makes all of a device's completions in one call, and under ZeRO-3 gathers the whole model for it."""
    if layout.generation != "transformers":
        return {}
    patches = work.image_tokens * shape.tower.merge**2
    weight = 2 if work.precision == "bfloat16" else 4
    sequences = layout.generated
    # The rows of a group get copies of one prompt's cache (`r1mm.train.grouped`); stock TRL runs each row's prompt.
    prefilled = prompts_of(sequences, work, layout) if work.grouped else sequences
    return {
        "KV cache": float(sequences * work.tokens * cache_bytes(shape, work)),
        "activations": float(prefilled * work.prompt_tokens * passing_bytes(shape, work)),
        "logits": float(sequences * shape.vocabulary * 4 * _SAMPLING_COPIES),
        "vision tower": float(images_of(sequences, work, layout) * patches * block_bytes(shape, work)),
        "gathered weights": float(weight * shape.parameters) if _gathers(layout) else 0.0,
        "autocast copies": 2.0 * shape.parameters if work.precision == "autocast" else 0.0,
    }


def _update(shape: Shape, work: Work, layout: Layout) -> dict[str, float]:
    """Forward and backward of one micro-batch."""
    tokens = layout.completions_per_device * work.tokens
    parts = _passes(shape, work, layout, tokens, sees=work.images_in_logprobs)
    kept = layer_input_bytes(shape, work) if layout.gradient_checkpointing else layer_bytes(shape, work)
    # Beside what all layers keep, one layer's worth of gradients; with checkpointing also that layer computed anew.
    at_work = (2 if layout.gradient_checkpointing else 1) * layer_bytes(shape, work)
    parts["activations"] = float(tokens * (shape.layers * kept + at_work))
    if "vision tower" in parts:
        tower = shape.tower
        of_one = parts["vision tower"]
        patches = images_of(layout.completions_per_device, work, layout) * work.image_tokens * tower.merge**2
        entering = patches * tower.width * (2 if work.precision == "bfloat16" else 4)
        kept_blocks = tower.depth * (entering if layout.gradient_checkpointing else of_one)
        parts["vision tower"] = kept_blocks + (2 if layout.gradient_checkpointing else 1) * of_one
    scored = layout.completions_per_device * (work.completion_tokens if layout.device == "cuda" else work.tokens)
    weight = 2 if work.precision == "bfloat16" else 4
    # The head's gradient adds up in float32, is then cast to the weights' type, and the hidden states have one too.
    parts["logits"] += scored * shape.width * 4 + shape.head_parameters * (4 + weight)
    return parts


def predict(shape: Shape, work: Work, layout: Layout, device_memory: float) -> Memory:
    """Memory of one device of `device_memory` bytes under `layout`."""
    states = _states(shape, work, layout)
    host = 0.0
    if layout.offload:
        # DeepSpeed keeps weights, masters, moments, gradients and the reference in the host's memory.
        host = sum(states.values()) * layout.processes / layout.nodes
        states = dict.fromkeys(states, 0.0)
    gradients = states.pop("gradients")
    cuda = layout.device == "cuda"
    patches = work.image_tokens * shape.tower.merge**2
    # For generation and again for the log-probs; what is not generated is made once.
    made = 1.0 if layout.generation == "none" else 2.0
    standing = {
        **states,
        "DDP buckets": 4.0 * shape.parameters if layout.sharding == "ddp" and layout.processes > 1 else 0.0,
        # Of the whole step, in float32, once per group or completion.
        "pixels": made * images_of(layout.generated, work, layout) * patches * shape.tower.patch_values * 4,
        "context and communication": (CONTEXT + (COMMUNICATION if layout.processes > 1 else 0)) if cuda else _PROCESS,
    }
    if layout.vllm_memory is not None:
        standing["vLLM"] = layout.vllm_memory * device_memory
    tokens = layout.completions_per_device * work.tokens
    share = 1 / layout.processes if layout.sharding != "ddp" else 1.0
    stepping = 0.0 if layout.offload or not cuda else _OPTIMIZER_STEP * shape.parameters * share
    buckets = {"ddp": 0, "zero-2": 2, "zero-3": 1}[layout.sharding] * 2.0 * _ZERO_BUCKET
    before: dict[str, dict[str, float]] = {
        "generation": _generation(shape, work, layout),
        "reference": _passes(shape, work, layout, tokens, sees=work.images_in_reference) if work.reference else {},
    }
    phases: dict[str, dict[str, float]] = {
        **(before if work.training == "grpo" else {}),
        "update": {"gradients": gradients, "ZeRO buckets": buckets, **_update(shape, work, layout)},
        "optimizer step": {
            "gradients": gradients,
            "float32 gradients": _float32_gradients(shape, work, layout),
            "optimizer": stepping,
        },
    }
    for parts in phases.values():
        parts["fragmentation"] = FRAGMENTATION * (
            sum(parts.values()) + sum(standing[name] for name in ("weights", "optimizer", "reference", "pixels"))
        )
    return Memory(_present(standing), {name: _present(parts) for name, parts in phases.items()}, host)


def _float32_gradients(shape: Shape, work: Work, layout: Layout) -> float:
    """The copy that DeepSpeed's step makes of bfloat16 gradients: stage 2 of all, stage 3 piece by piece."""
    if layout.offload or layout.sharding == "ddp" or work.precision != "bfloat16":
        return 0.0
    share = shape.parameters / layout.processes
    return 4.0 * (share if layout.sharding == "zero-2" else min(share, _ZERO_3_PIECE))


def _present(parts: dict[str, float]) -> dict[str, float]:
    return {name: size for name, size in parts.items() if size > 0}


def vllm_bytes(shape: Shape, work: Work, sequences: int) -> float:
    """What a vLLM engine needs to run `sequences` at once: bfloat16 weights, their cache, and its own."""
    cache = sequences * work.tokens * 2 * shape.layers * shape.key_value_width * 2
    return 2.0 * shape.parameters + cache + VLLM_OVERHEAD
