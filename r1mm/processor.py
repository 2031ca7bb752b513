"""The processor of a checkpoint as every run uses it: images by Pillow, prompts padded on the left."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor

from r1mm.clips import clips_as_images
from r1mm.data.prompts import conversation

# The image processor's own names for upstream's two limits, both in pixels of an image.
_EDGES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


def load_processor(folder: Path, *, clips: bool = False, limits: Mapping[str, int] | None = None) -> Any:
    """The processor of a checkpoint folder, padding on the left so that every answer begins where its prompt ends.

    Images are resized by Pillow, as upstream's were: of those recorded from upstream's code (`r1mm fidelity`) every
    pixel is the same to the bit.  transformers 5 resizes by torchvision unless told otherwise, and of a 480 x 320
    picture some per cent of the values then differ, by up to 2 of 255.  `clips`: it takes clips where images are given.
    `limits` on an image in pixels, min_pixels and max_pixels, in place of the checkpoint's.
    """
    processor = AutoProcessor.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    if limits:
        edges = {_EDGES[name]: pixels for name, pixels in limits.items()}
        processor.image_processor.size = dict(processor.image_processor.size) | edges
    if clips:
        clips_as_images(processor)
    return processor


def prompt_text(processor: Any, prompt: str, *, shown: bool = True, system: str | None = None) -> str:
    """What the model is given to read: `prompt` in one user turn, after a placeholder for what is shown with it.

    `system`: the text of the turn before it; the chat template's own without.
    """
    turns = conversation(prompt, shown=shown, system=system)
    text: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text


def image_tokens(processor: Any, width: int, height: int) -> int:
    """Tokens of an image of so many pixels, under the processor's limits."""
    patches: int = processor.image_processor.get_number_of_image_patches(height, width, {})
    return patches // int(processor.image_processor.merge_size) ** 2


def prompt_lengths(
    processor: Any,
    prompts: Iterable[str],
    sizes: Iterable[tuple[int, int]] | None = None,
    *,
    system: str | None = None,
) -> list[int]:
    """Tokens of each prompt with its image's, no pixels made; `sizes` are the images' (width, height) in pixels.

    Without `sizes` the text's alone, its placeholder not counted.  Equal prompts and equal sizes are worked out once:
    of a large set, both are few different ones.
    """

    @functools.cache
    def text_tokens(prompt: str) -> int:
        return len(processor.tokenizer(prompt_text(processor, prompt, system=system))["input_ids"])

    of_image = functools.cache(functools.partial(image_tokens, processor))
    # The text holds one placeholder, which the image's tokens take the place of.
    of_texts = [text_tokens(prompt) - 1 for prompt in prompts]
    if sizes is None:
        return of_texts
    return [text + of_image(*size) for text, size in zip(of_texts, sizes, strict=True)]
