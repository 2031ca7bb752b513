"""What the rows of a group have in common, made once: the image decoded, the prompt rendered and tokenized, its pixels.

TRL hands a batch of prompts x group rows to dataset and processor, so that everything about a prompt is made once per
completion, and by the processor twice per step.  (`r1mm.train.grouped` does the same for the model.)
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from datasets import Dataset, Image
from transformers import ProcessorMixin
from transformers.image_utils import make_flat_list_of_images

from r1mm.data.images import decode_image

# What a processor makes per image, not per row.
PER_IMAGE = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
_TEXTS_KEPT = 256  # rendered prompts that are remembered; a step has fewer


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Where each different key stands first, and for every key which of those it is."""
    number: dict[Hashable, int] = {}
    firsts: list[int] = []
    source: list[int] = []
    for i, key in enumerate(keys):
        if key not in number:
            number[key] = len(firsts)
            firsts.append(i)
        source.append(number[key])
    return firsts, source


def decode_once(dataset: Dataset, column: str = "image") -> Dataset:
    """`dataset` with images that are decoded when a batch is read; copies of an image are one object.

    Reading raises BadInput for an image that does not decode, with its item's name where there is a column `item`.
    """

    def decode(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if column not in columns:
            return columns
        keys = [(encoded["bytes"], encoded["path"]) for encoded in columns[column]]
        names = columns.get("item") or ["an item"] * len(keys)
        firsts, source = distinct(keys)
        decoded = [decode_image(columns[column][i], str(names[i])) for i in firsts]
        return {**columns, column: [decoded[i] for i in source]}

    return dataset.cast_column(column, Image(decode=False)).with_transform(decode)


class _OncePerGroup(ProcessorMixin):
    """Left of a processor's own class: rows of one prompt and the same image objects are made as one.

    What is per row comes for every row.  What is per image (PER_IMAGE) comes once per group, in the order in which the
    groups appear: those of U prompts for U x G rows; a picture under two questions belongs to two groups.
    """

    group_of_row: list[int]  # of the last call
    _texts: dict[Hashable, str]
    _last: dict[str, Any]

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """As the processor's own; `images` holds an image, or a list of them, per row of `text`."""
        if images is None or isinstance(text, str) or len(images) != len(text):
            return super().__call__(images=images, text=text, **kwargs)
        rows = [row if isinstance(row, list | tuple) else [row] for row in images]
        keys = [(words, *map(id, row)) for words, row in zip(text, rows, strict=True)]
        firsts, source = distinct(keys)
        made = super().__call__(images=[images[i] for i in firsts], text=[text[i] for i in firsts], **kwargs)
        return self._for_rows(made, source)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As the processor's own; equal conversations of a batch are rendered, and tokenized, once."""
        if not isinstance(conversation[0], dict):
            firsts, source = distinct([_content(each, by_image=True) for each in conversation])
            made = super().apply_chat_template([conversation[i] for i in firsts], *args, **kwargs)
            return [made[i] for i in source] if isinstance(made, list) else self._for_rows(made, source)
        if args or kwargs.get("tokenize") or kwargs.get("tools"):
            return super().apply_chat_template(conversation, *args, **kwargs)
        key = (_content(conversation, by_image=False), repr(sorted(kwargs.items())))
        if key not in self._texts:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            self._texts[key] = super().apply_chat_template(conversation, **kwargs)
        return self._texts[key]

    def _for_rows(self, made: Any, source: list[int]) -> Any:
        type(self).group_of_row = source
        for name, rows in made.items():
            if name not in PER_IMAGE:
                made[name] = [rows[i] for i in source] if isinstance(rows, list) else rows[source]
        return made

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        return self._remembered(make_flat_list_of_images(images), super()._process_images, images, kwargs)

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        return self._remembered([frames for row in videos for frames in row], super()._process_videos, videos, kwargs)

    def _remembered(
        self, flat: list[Any], process: Callable[..., tuple[Any, list[str]]], given: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, list[str]]:
        """What `process` makes of `given`, whose objects are `flat`; not made again where they are the last call's."""
        kwargs["return_tensors"] = "pt"  # of TRL's two calls one says so; the pixels are tensors in both
        last = self._last
        same = len(flat) == len(last.get("objects", ())) and all(map(_is, flat, last["objects"]))
        if not same or last["kwargs"] != kwargs:
            last.update(objects=flat, kwargs=kwargs, result=process(given, **kwargs))
        made, placeholders = last["result"]
        return made.copy(), list(placeholders)


def _is(one: Any, other: Any) -> bool:
    return one is other


def _content(conversation: Sequence[dict[str, Any]], *, by_image: bool) -> Hashable:
    """A conversation as something to compare; images by identity, or not at all."""
    return tuple(
        (
            turn["role"],
            turn["content"]
            if isinstance(turn["content"], str)
            else tuple(
                tuple(
                    (name, value if isinstance(value, str) else id(value) if by_image else None)
                    for name, value in part.items()
                )
                for part in turn["content"]
            ),
        )
        for turn in conversation
    )


def process_once(processor: ProcessorMixin) -> None:
    """Let a processor make each prompt and each image of a batch once, and remember the last call's pixels.

    In place; what `save_pretrained` writes does not change, and so not the class's name.  See `_OncePerGroup` for what
    comes per row and what per group.
    """
    if isinstance(processor, _OncePerGroup):  # of an earlier trainer
        return
    own = type(processor)
    state: dict[str, Any] = {
        "group_of_row": [],
        "_texts": {},
        "_last": {},
    }  # on a class of its own: instances are written to disk
    processor.__class__ = type(own.__name__, (_OncePerGroup, own), state)
