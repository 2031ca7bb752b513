"""A group's image made once: decoded once and turned into pixels once per step.

TRL hands a batch of prompts x group rows through dataset and processor, so every image comes once per completion, and
through the processor twice.  (`r1mm.vision` does the same for the vision tower.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, Image
from transformers import ProcessorMixin
from transformers.image_utils import make_flat_list_of_images

from r1mm.data.images import decode_image


def decode_once(dataset: Dataset, column: str = "image") -> Dataset:
    """`dataset` with images that are decoded when a batch is read; copies of an image are one object.

    Reading raises BadInput for an image that does not decode, with its item's name where there is a column `item`.
    """

    def decode(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if column not in columns:
            return columns
        keys = [(encoded["bytes"], encoded["path"]) for encoded in columns[column]]
        names = columns.get("item") or ["an item"] * len(keys)
        distinct = dict(zip(keys, zip(columns[column], names, strict=True), strict=True))
        decoded = {key: decode_image(encoded, str(name)) for key, (encoded, name) in distinct.items()}
        return {**columns, column: [decoded[key] for key in keys]}

    return dataset.cast_column(column, Image(decode=False)).with_transform(decode)


def process_once(processor: ProcessorMixin) -> None:
    """Let a Qwen2-VL processor make the pixels of each image object of a call once, and remember the last call's.

    Output and row order stay as they were.  In place; what `save_pretrained` writes does not change.
    """
    process = processor._process_images
    last: dict[str, Any] = {"images": []}

    def once(images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        kwargs["return_tensors"] = "pt"  # of TRL's two calls one says so; the pixels are tensors in both
        flat = make_flat_list_of_images(images)
        if not _same_objects(flat, last["images"]) or last["kwargs"] != kwargs:
            distinct = {id(image): image for image in flat}
            number = {key: i for i, key in enumerate(distinct)}
            made, placeholders = process(list(distinct.values()), **kwargs)
            last.update(images=flat, kwargs=kwargs, result=_expand(made, placeholders, [number[id(i)] for i in flat]))
        made, placeholders = last["result"]
        return made.copy(), list(placeholders)

    processor._process_images = once


def _same_objects(these: Sequence[Any], those: Sequence[Any]) -> bool:
    return len(these) == len(those) and all(one is other for one, other in zip(these, those, strict=True))


def _expand(made: Any, placeholders: list[str], source: list[int]) -> tuple[Any, list[str]]:
    patches = made["pixel_values"].split(made["image_grid_thw"].prod(-1).tolist())
    made["pixel_values"] = torch.cat([patches[i] for i in source])
    made["image_grid_thw"] = made["image_grid_thw"][source]
    return made, [placeholders[i] for i in source]
