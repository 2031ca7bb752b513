"""Qwen2-VL's vision tower computed the short way: same weights, same numbers up to rounding.

The tower projects patches by a 3-D convolution whose kernel equals its stride, which is a matrix product; without
flash attention it attends image by image in a loop, which for images of one size is one batched call; and a batch of
GRPO holds every image once per completion of its group, where once is enough.  Parameter names and module hooks stay
as they were.  `benchmarks/vision.py` measures what each saves.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    BaseModelOutputWithPooling,
    Qwen2VisionTransformerPretrainedModel,
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


class OncePerImageTower(Qwen2VisionTransformerPretrainedModel):
    """The tower over the different images of a batch; each copy of an image gets its features, and adds its gradient.

    Copies are found by their pixels, wherever in the batch they stand, so that trainer and generation need not know.
    """

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """`hidden_states` (patches of all images, pixels of a patch) and `grid_thw` (images, 3) as the library's."""
        sizes = grid_thw.prod(-1).tolist()
        images = list(hidden_states.split(sizes))
        firsts, source = first_copies(images, grid_thw.tolist())
        if len(firsts) == len(images):
            return super().forward(hidden_states, grid_thw, **kwargs)
        found = super().forward(torch.cat([images[i] for i in firsts]), grid_thw[firsts], **kwargs)
        merged = [sizes[i] // self.spatial_merge_size**2 for i in firsts]
        patches = found.last_hidden_state.split([sizes[i] for i in firsts])
        features = found.pooler_output.split(merged)
        return BaseModelOutputWithPooling(
            last_hidden_state=torch.cat([patches[i] for i in source]),
            pooler_output=torch.cat([features[i] for i in source]),
        )


def first_copies(images: list[torch.Tensor], grids: list[list[int]]) -> tuple[list[int], list[int]]:
    """The images that are no copy of one before them, and for each image which of those it is, copies to the bit."""
    firsts: list[int] = []
    source: list[int] = []
    seen: dict[tuple[float, ...], list[int]] = {}
    for i, image in enumerate(images):
        # A few pixels from all over the image find the candidates; the whole image decides.
        sample = image.flatten()[:: max(1, image.numel() // 64)].tolist()
        candidates = seen.setdefault((*grids[i], *sample), [])
        number = next((c for c in candidates if torch.equal(images[firsts[c]], image)), None)
        if number is None:
            number = len(firsts)
            firsts.append(i)
            candidates.append(number)
        source.append(number)
    return firsts, source


def shorten_vision_tower(model: Any) -> None:
    """Swap the parts of a Qwen2-VL model, in place.  ValueError when its tower is not built as expected.

    A model that runs flash attention keeps its own attention, which is one call already.
    """
    tower = model.model.visual
    projection = tower.patch_embed.proj
    if not isinstance(projection, nn.Conv3d) or projection.kernel_size != projection.stride:
        raise ValueError(f"expected a Conv3d whose kernel is its stride, found {projection}")
    tower.__class__ = OncePerImageTower
    projection.__class__ = PatchProjection
    if tower.config._attn_implementation == "sdpa":
        for block in tower.blocks:
            block.attn.__class__ = BatchedVisionAttention
