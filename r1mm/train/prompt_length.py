"""How long a training set's prompts are, image tokens included, without decoding 70,000 images.

An image's tokens follow from its size, which stands in its first bytes.
"""

import io
from typing import Any

from datasets import Dataset, Image
from PIL import Image as Picture

from r1mm.errors import BadInput
from r1mm.processor import prompt_lengths

LOOKED_AT = 5000  # a CLEVR of 70,000 has one size; every batch is looked at again when its turn comes


def _size(encoded: dict[str, Any]) -> tuple[int, int]:
    source = io.BytesIO(encoded["bytes"]) if encoded["bytes"] is not None else encoded["path"]
    with Picture.open(source) as picture:
        return picture.size


def lengths_by_item(dataset: Dataset, template: str, processor: Any, most: int = LOOKED_AT) -> dict[int, int]:
    """Tokens of the prompts of `dataset` (columns image, problem), by item: of `most` items, evenly spread."""
    stride = max(1, -(-len(dataset) // most))
    encoded = dataset.with_format(None).cast_column("image", Image(decode=False))  # without what decodes as it is read
    rows = encoded.select(range(0, len(dataset), stride))
    prompts = (template.format(question=problem) for problem in rows["problem"])
    lengths = prompt_lengths(processor, prompts, (_size(image) for image in rows["image"]))
    return {number * stride: length for number, length in enumerate(lengths)}


def lengths_beside_clips(dataset: Dataset, template: str, processor: Any, clip_tokens: int) -> dict[int, int]:
    """Tokens of all prompts of `dataset` (column problem) by item, each with a clip of `clip_tokens`."""
    problems = dataset.with_format(None)["problem"]
    lengths = prompt_lengths(processor, (template.format(question=problem) for problem in problems))
    return {number: clip_tokens + length for number, length in enumerate(lengths)}


def refuse_long_prompts(lengths: dict[int, int], limit: int) -> None:
    """Raise BadInput, with their number and the longest, where prompts, in tokens by item, have more than `limit`.

    Upstream cut them, and with them image tokens that the model then missed; here they are not trained on unnoticed.
    """
    long = {item: length for item, length in lengths.items() if length > limit}
    if long:
        longest = max(long, key=lambda item: long[item])
        raise BadInput(
            f"{len(long)} of the {len(lengths)} prompts looked at have more than max_prompt_length {limit} tokens, the "
            f"longest {long[longest]} (item {longest}); leave them out of the training set, raise max_prompt_length, "
            "or lower processor.max_pixels (clips.max_pixels)"
        )
