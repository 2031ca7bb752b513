"""Clips in GRPO: policy and reference over a video, as Open-R1-Video computed them.

TRL 1.16 has no way for a clip through GRPO.  One travels unharmed when it is carried as an image whose grid has t > 1,
with video placeholders in its prompt; here it becomes a clip again, inside the model.

Positions are given explicitly: transformers 4.49, with which the models were trained, lets the text after a clip start
at max(t, h, w) of the merged grid; transformers 5.23 starts it at max(h, w), inside a clip that is longer than high and
wide.

Open-R1-Video clamps the KL's log-ratio to +-11 (`Wang-Xiaodong1899/Open-R1-Video@50eb65f`, its GRPO trainer); TRL does
not, and neither do we: a token would have to be e^11 times as likely to one of policy and reference as to the other.
`r1mm fidelity` reports the largest log-ratio met.
"""

import functools
from typing import Any

import torch

from r1mm.recipe import Setting, Variant
from r1mm.train.grouped import plain_network, position_deltas
from r1mm.train.grpo import R1Trainer

CLAMP = 11.0  # upstream's bound of |log reference - log policy| in the KL; not applied here

_SCRIPT = "Wang-Xiaodong1899/Open-R1-Video@50eb65f:qwen-7b.sh"

# What Open-R1-Video sets otherwise than R1-V's flagship recipe; all else is R1-V's, whose trainer it took over.
OPEN_R1_VIDEO = Variant(
    description="Open-R1-Video's training, clips in both log-prob passes.",
    upstream="Wang-Xiaodong1899/Open-R1-Video@50eb65f",
    overrides={
        "factors.images_in_logprobs": Setting[Any](
            value="both", source="Wang-Xiaodong1899/Open-R1-Video#10 (clips given to the reference model, 35e2b27)"
        ),
        "prompts.train": Setting[Any](
            value="{question} Output the thinking process in <think> </think> and final answer in <answer> </answer> "
            "tags, i.e., <think> reasoning process here </think><answer> answer here </answer>. ",
            source="Wang-Xiaodong1899/Open-R1-Video@50eb65f:question template of its training (a blank at the end)",
        ),
        "sharding": Setting[Any](value="zero-3", source=f"{_SCRIPT} (scripts/zero3_offload.json, with offload)"),
        "prompts_per_step": Setting[Any](value=4, source=f"{_SCRIPT} (4 GPUs x 1 prompt x 1 accumulation step)"),
        "max_prompt_length": Setting[Any](value=8192, source=f"{_SCRIPT} (max_prompt_length)"),
        "train.beta": Setting[Any](value=0.1, source=f"{_SCRIPT} (beta)"),
        "train.num_generations": Setting[Any](value=8, source="trl==0.14.0:trl/trainer/grpo_config.py (default)"),
        "train.max_completion_length": Setting[Any](
            value=256, source="trl==0.14.0:trl/trainer/grpo_config.py (default)"
        ),
        "train.learning_rate": Setting[Any](value=1.0e-6, source=f"{_SCRIPT} (learning_rate)"),
        "train.temperature": Setting[Any](
            value=1.0, source="Wang-Xiaodong1899/Open-R1-Video@50eb65f:GRPO trainer (1 written into its code)"
        ),
        "train.top_k": Setting[Any](
            value=50, source="transformers==4.49.0:generation/configuration_utils.py (default in effect)"
        ),
    },
)


def clip_positions(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    grids: torch.Tensor,
    *,
    video_token: int,
    merge: int,
) -> torch.Tensor:
    """Positions of every token in time, height and width, (3, B, T), for sequences of text and clips.

    `input_ids` and `attention_mask` are (B, T), padded on either side; `grids` (clips, 3) are the clips' patches in
    time, height and width, in the order in which they stand; `merge` patches a side are one token.  Text counts on by
    one in all three; a clip starts where the text before it ends, and the text after it at max(t, h, w) of its merged
    grid (`transformers==4.49.0:models/qwen2_vl/modeling_qwen2_vl.py`, get_rope_index).  Padding is 0.

    Raises ValueError when the placeholders are not those of the clips.
    """
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    waiting = [(t, h // merge, w // merge) for t, h, w in grids.tolist()]
    for row, (ids, mask) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
        is_clip = (ids[mask] == video_token).tolist()
        parts: list[torch.Tensor] = []
        at = start = 0
        while at < len(is_clip):
            length = is_clip[at:].index(not is_clip[at]) if (not is_clip[at]) in is_clip[at:] else len(is_clip) - at
            if is_clip[at]:
                t, h, w = waiting.pop(0) if waiting else (0, 0, 0)
                if t * h * w != length:
                    raise ValueError(f"row {row} has {length} placeholders where a clip of {t} x {h} x {w} is due")
                parts.append(torch.cartesian_prod(*map(torch.arange, (t, h, w))).T + start)
                start += max(t, h, w)
            else:
                parts.append(torch.arange(length).expand(3, -1) + start)
                start += length
            at += length
        if parts:
            positions[:, row, mask] = torch.cat(parts, dim=1).to(positions)
    if waiting:
        raise ValueError(f"{len(waiting)} clips of {len(grids)} have no placeholders")
    return positions


def carry_clips(network: Any) -> None:
    """Let a Qwen2-VL model take what comes to it as images for clips, at the positions it was trained with; in place.

    It holds wherever the model is called: generation, reference and policy passes.
    """
    inner, config = network.model, network.config
    forward = inner.forward

    @functools.wraps(forward)
    def with_clips(*args: Any, pixel_values: Any = None, image_grid_thw: Any = None, **inputs: Any) -> Any:
        if pixel_values is not None:
            inputs |= {"pixel_values_videos": pixel_values, "video_grid_thw": image_grid_thw}
        # `generate` encodes before it calls the model, by the method for images; that for clips does the same.
        encoded = inputs.get("mm_encoder_outputs")
        if encoded and "image" in encoded:
            inputs["mm_encoder_outputs"] = {"video": encoded["image"]}
        return forward(*args, **inputs)

    def positions(
        input_ids: torch.Tensor, *_: Any, attention_mask: torch.Tensor, **grids: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        clips = grids.get("video_grid_thw")
        found = clip_positions(
            input_ids,
            attention_mask,
            grids["image_grid_thw"] if clips is None else clips,
            video_token=config.video_token_id,
            merge=config.vision_config.spatial_merge_size,
        )
        return found, position_deltas(found, attention_mask)

    inner.forward, inner.get_rope_index = with_clips, positions


class VideoTrainer(R1Trainer):
    """R1Trainer whose images are clips: an "image" is a clip's patches with a grid of t >= 1, its prompt holds
    `<|video_pad|>`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for network in (self.model, self.ref_model):
            if network is not None:
                carry_clips(plain_network(network))
