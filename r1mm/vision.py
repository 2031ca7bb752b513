"""The vision tower's patch projection as the matrix product that it is.

Qwen2-VL writes it as a 3-D convolution whose kernel equals its stride.  On a CPU torch takes the long way there: the
miniature's tower took 0.23 s forward and backward with it and takes 0.15 s with the product (64 images, two cores).
Same weights, same numbers up to rounding, and parameter names and module hooks stay as they were.
"""

from typing import Any

import torch
from torch import nn


class PatchProjection(nn.Conv3d):
    """A Conv3d over whole patches: input (patches, channels, time, height, width) of exactly one kernel's size."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(patches, channels, time, height, width) to (patches, embed, 1, 1, 1)."""
        projected = nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return projected.view(*projected.shape, 1, 1, 1)


def project_patches_by_product(model: Any) -> None:
    """Turn the patch projection of a Qwen2-VL model, in place.  ValueError when the model has no such projection."""
    projection = model.model.visual.patch_embed.proj
    if not isinstance(projection, nn.Conv3d) or projection.kernel_size != projection.stride:
        raise ValueError(f"expected a Conv3d whose kernel is its stride, found {projection}")
    projection.__class__ = PatchProjection
