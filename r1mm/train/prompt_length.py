"""How long prompts are, image tokens included, without making 70,000 images into pixels.

A prompt's length is that of its text plus its image's tokens, which follow from the image's size: both are few
different ones, and an image's size stands in its first bytes.
"""

import functools
import io
from typing import Any

from datasets import Dataset, Image
from PIL import Image as Picture

from r1mm.data.prompts import conversation
from r1mm.errors import BadInput

LOOKED_AT = 5000  # a CLEVR of 70,000 has one size; every batch is looked at again when its turn comes


def _size(encoded: dict[str, Any]) -> tuple[int, int]:
    source = io.BytesIO(encoded["bytes"]) if encoded["bytes"] is not None else encoded["path"]
    with Picture.open(source) as picture:
        return picture.size


def prompt_lengths(dataset: Dataset, template: str, processor: Any, most: int = LOOKED_AT) -> dict[int, int]:
    """Tokens of the prompts of `dataset` (columns image, problem), by item: of `most` items, evenly spread."""

    @functools.cache
    def text_tokens(problem: str) -> int:
        text = processor.apply_chat_template(
            conversation(template.format(question=problem)), add_generation_prompt=True, tokenize=False
        )
        return len(processor.tokenizer(text)["input_ids"])

    @functools.cache
    def image_tokens(width: int, height: int) -> int:
        patches: int = processor.image_processor.get_number_of_image_patches(height, width, {})
        return patches // int(processor.image_processor.merge_size) ** 2

    stride = max(1, -(-len(dataset) // most))
    encoded = dataset.with_format(None).cast_column("image", Image(decode=False))  # without what decodes as it is read
    rows = encoded.select(range(0, len(dataset), stride))
    # The text holds one placeholder, which the image's tokens take the place of.
    return {
        number * stride: text_tokens(row["problem"]) - 1 + image_tokens(*_size(row["image"]))
        for number, row in enumerate(rows)
    }


def refuse_long_prompts(dataset: Dataset, template: str, processor: Any, limit: int) -> None:
    """Raise BadInput, with their number and the longest, where prompts have more than `limit` tokens.

    Upstream cut them, and with them image tokens that the model then missed; here they are not trained on unnoticed.
    """
    lengths = prompt_lengths(dataset, template, processor)
    long = {item: length for item, length in lengths.items() if length > limit}
    if long:
        longest = max(long, key=lambda item: long[item])
        raise BadInput(
            f"{len(long)} of the {len(lengths)} prompts looked at have more than max_prompt_length {limit} tokens, the "
            f"longest {long[longest]} (item {longest}); leave them out of the training set, raise max_prompt_length, "
            "or lower processor.max_pixels"
        )
