"""Clips of a dataset: decoded once per group by threads, ahead of the step that needs them; and those that can be.

A row that is read holds a Clip whose decoding has begun; what asks for its frames waits.  The training loop of
transformers reads a batch before it works on the one before (accelerate's loader looks one ahead to find the end), so
that a step's clips are decoded while the last step runs, whatever the sampler and however many processes.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from datasets import Dataset, Video

from r1mm.data.clip_reader import VideoFile
from r1mm.data.clips import Clip, Sampling, decode_clip
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.recipe import Recipe

WORKERS = 2
KEPT = 64  # clips: 0.5 GB at Open-R1-Video's sizes


class _Ahead:
    """A dataset's transform.  Copies and other processes have threads and clips of their own."""

    def __init__(self, sampling: Sampling, column: str, workers: int, kept: int) -> None:
        self.settings = (sampling, column, workers, kept)
        self._process = 0

    def __reduce__(self) -> Any:
        return _Ahead, self.settings

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sampling, column, workers, kept = self.settings
        if column not in columns:
            return columns
        if self._process != os.getpid():  # a fork has none of the threads
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="clips")
            self._recent: OrderedDict[Hashable, Clip] = OrderedDict()
        batch: dict[Hashable, Clip] = {}
        clips = []
        for i, encoded in enumerate(columns[column]):
            key = _key(encoded)
            if key not in batch:
                known = self._recent.pop(key, None)
                batch[key] = known or Clip(self._pool.submit(_frames, encoded, _name(columns, i), sampling))
                self._recent[key] = batch[key]
            clips.append(batch[key])
        while len(self._recent) > kept:
            self._recent.popitem(last=False)
        return {**columns, column: clips}


def sampling_of(recipe: Recipe) -> Sampling:
    """How a recipe takes frames from its clips."""
    return Sampling(**{name: setting.value for name, setting in recipe.clips.items() if name != "undecodable"})


def clips_ahead(
    dataset: Dataset, sampling: Sampling, column: str = "video", *, workers: int = WORKERS, kept: int = KEPT
) -> Dataset:
    """`dataset` whose videos ({bytes, path}) are read as `Clip`s; copies of a video are one Clip, decoded once.

    `workers` threads decode, in the order in which rows are read.  The last `kept` clips are kept for rows that are
    read again; more are held only where a batch has more.  A clip that does not decode raises BadInput, naming its
    item, where its frames are asked for.
    """
    return dataset.cast_column(column, Video(decode=False)).with_transform(_Ahead(sampling, column, workers, kept))


def usable_clips(
    dataset: Dataset, sampling: Sampling, column: str = "video", *, decode: bool = True, workers: int = WORKERS
) -> tuple[Dataset, list[str]]:
    """The rows of `dataset` whose video decodes, and for each of the others what is wrong with it and its name.

    Every video is decoded once, by `workers` threads, with a bar; without `decode` it is only opened and its frames
    listed, which finds what is no video, or cut short, in a tenth of the time.  Raises BadInput when none is left.
    """
    rows = dataset.cast_column(column, Video(decode=False))
    reasons: dict[Hashable, str | None] = {}
    reason_of_row: list[str | None] = []
    with (
        ThreadPoolExecutor(workers) as pool,
        progress_bar(total=len(rows), desc="look through clips", unit="clip") as bar,
    ):
        # A few for each worker at a time, so that the encoded clips are never all in memory.
        for columns in _chunks(rows, 8 * workers):
            waiting = {}
            for i, encoded in enumerate(columns[column]):
                if (key := _key(encoded)) not in reasons and key not in waiting:
                    waiting[key] = pool.submit(_reason, encoded, _name(columns, i), sampling if decode else None)
            reasons |= {key: reason.result() for key, reason in waiting.items()}
            reason_of_row += [reasons[_key(encoded)] for encoded in columns[column]]
            bar.update(len(columns[column]))
    keep = [row for row, reason in enumerate(reason_of_row) if reason is None]
    refused = [reason for reason in reason_of_row if reason is not None]
    if not keep:
        raise BadInput(f"none of {len(rows)} clips decodes; the first: {refused[0] if refused else 'there is none'}")
    return dataset.select(keep), refused


def _chunks(rows: Dataset, length: int) -> Iterator[dict[str, list[Any]]]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _frames(encoded: Any, where: str, sampling: Sampling) -> torch.Tensor:
    return decode_clip(encoded, where, sampling).frames


def _reason(encoded: Any, where: str, sampling: Sampling | None) -> str | None:
    try:
        if sampling is not None:
            decode_clip(encoded, where, sampling)
        else:
            with VideoFile(encoded, where):
                pass
    except BadInput as error:
        return str(error)
    return None


def _key(encoded: Any) -> Hashable:
    """What tells a video from others, without keeping it."""
    data = encoded["bytes"] if encoded else None
    return (hashlib.blake2b(data).digest() if data else None, encoded["path"] if encoded else None)


def _name(columns: dict[str, list[Any]], i: int) -> str:
    if "item" in columns:
        return str(columns["item"][i])
    return f"the item that asks {columns['problem'][i][:60]!r}" if "problem" in columns else "an item"
