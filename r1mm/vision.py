"""Qwen2-VL's vision tower computed the short way: same weights, same numbers up to rounding.

The tower projects patches by a 3-D convolution whose kernel equals its stride, which is a matrix product; without
flash attention it attends image by image in a loop, which for images of one size is one batched call.  Parameter names
and module hooks stay as they were.  `benchmarks/vision.py` measures what each saves.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    VisionAttention,
    apply_rotary_pos_emb_vision,
)


class PatchProjection(nn.Conv3d):
    """A Conv3d over whole patches: input (patches, channels, time, height, width) of exactly one kernel's size."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(patches, channels, time, height, width) to (patches, embed, 1, 1, 1)."""
        projected = nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return projected.view(*projected.shape, 1, 1, 1)


class BatchedVisionAttention(VisionAttention):
    """Attention within each image; images of one size are one batch, others take the library's way."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(patches of all images, embed) to the same; `cu_seqlens` are the images' boundaries, (images + 1,)."""
        lengths = cu_seqlens.diff()
        if position_embeddings is None or not bool((lengths == lengths[0]).all()):
            whole: torch.Tensor = super().forward(
                hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
            return whole
        images = lengths.numel()
        query, key, value = self.qkv(hidden_states).view(len(hidden_states), 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (
            part.view(images, -1, self.num_heads, part.shape[-1]).transpose(1, 2) for part in (query, key, value)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        projected: torch.Tensor = self.proj(attended.transpose(1, 2).reshape(len(hidden_states), -1))
        return projected


def shorten_vision_tower(model: Any) -> None:
    """Swap the parts of a Qwen2-VL model, in place; Qwen2.5-VL's tower is another, and stays as it is.

    A model that runs flash attention keeps its own attention, which is one call already.  Raises ValueError when the
    tower is not built as expected.
    """
    if model.config.model_type != "qwen2_vl":
        return
    tower = model.model.visual
    projection = tower.patch_embed.proj
    if not isinstance(projection, nn.Conv3d) or projection.kernel_size != projection.stride:
        raise ValueError(f"expected a Conv3d whose kernel is its stride, found {projection}")
    projection.__class__ = PatchProjection
    if tower.config._attn_implementation == "sdpa":
        for block in tower.blocks:
            block.attn.__class__ = BatchedVisionAttention


def position_deltas(positions: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """By how much the next position of a row is off its number of tokens, (B, 1), from (3, B, T) and (B, T)."""
    return positions.amax((0, 2))[:, None] + 1 - attention_mask.sum(1, keepdim=True)
