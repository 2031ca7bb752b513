"""Rows as parquet files in the hub's layout, a picture once for all its rows.

Parquet has no column that points into another table.  What it has is a dictionary per column and row group: a value
that occurs again is a number.  Writers give that up once a dictionary has a megabyte, which five pictures fill; here it
may grow as far as a row group goes, so that rows of one picture that stand next to each other cost one.  A reader
gets every row with its picture all the same, so that what is saved is disk and network, not memory.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from r1mm.chain.pictures import Picture, read_picture
from r1mm.progress import progress_bar
from r1mm.rundir import json_object, publish

TRAIN = "train"
# What is held in memory at once, and what a reader of one row has to read: a group of rows.
GROUP_ROWS, GROUP_BYTES = 256, 16 << 20
SHARD_BYTES = 480_000_000  # the hub's files have up to 500 MB


@dataclass(frozen=True)
class Written:
    """A split's files, and its bytes: of its texts, of its pictures as written, and of a picture for every row."""

    rows: int
    pictures: int
    files: list[str]
    text_bytes: int
    picture_bytes: int
    picture_bytes_per_row: int


class Row(NamedTuple):
    """Where a row's line begins, the picture it is about, and its place in an order."""

    picture: str
    place: bytes
    offset: int


# A line's object as the texts of its columns.
Texts = Callable[[dict[str, Any]], Mapping[str, str]]


def write_rows(
    split: str,
    order: Sequence[Row],
    source: Path,
    pictures: Mapping[str, Picture],
    folder: Path,
    texts_of: Texts,
    features: Features,
    *,
    shard_bytes: int = SHARD_BYTES,
    dictionary: bool = True,
) -> Written:
    """Write `<split>-0000k-of-0000n.parquet` to `folder`: rows in this order, their texts from the lines of `source`.

    `features`: columns of text, and `image`.  `dictionary` off writes a picture once for every row, to compare.
    """
    schema = features.arrow_schema
    unnamed: list[Path] = []
    texts = as_written = in_shard = 0
    bar = progress_bar(total=len(order), desc=f"write {split}", unit="row")
    with contextlib.ExitStack() as shard, source.open("rb") as lines, bar:
        writer = None
        for group in _row_groups(order, pictures, lines, texts_of):
            if writer is None or in_shard >= shard_bytes:
                shard.close()
                unnamed.append(folder / f".{split}-{len(unnamed)}")
                writer = shard.enter_context(_writer(unnamed[-1], schema, dictionary))
                in_shard = 0
            writer.write_table(pa.Table.from_pylist(group, schema), row_group_size=len(group))
            size = sum({pictures[row["image"]["path"]].sha256: len(row["image"]["bytes"]) for row in group}.values())
            in_shard, as_written = in_shard + size, as_written + size
            texts += sum(len(text.encode()) for row in group for text in row.values() if isinstance(text, str))
            bar.update(len(group))
    files = [
        publish(path, folder / f"{split}-{number:05d}-of-{len(unnamed):05d}.parquet").name
        for number, path in enumerate(unnamed)
    ]
    per_row = sum(pictures[row.picture].bytes for row in order)
    return Written(len(order), len({row.picture for row in order}), files, texts, as_written, per_row)


def _row_groups(
    order: Sequence[Row], pictures: Mapping[str, Picture], source: BinaryIO, texts_of: Texts
) -> Iterator[list[dict[str, Any]]]:
    """Rows with their columns, as many as go into one row group; neighbours of one picture are not parted."""
    group: list[dict[str, Any]] = []
    size = 0
    for _, same in groupby(order, key=lambda row: pictures[row.picture].sha256):
        for row in same:
            source.seek(row.offset)
            texts = texts_of(json_object(source.readline(), f"{source.name} at byte {row.offset}"))
            data = read_picture(pictures[row.picture].path)
            columns = {name: encodable(text) for name, text in texts.items()}
            group.append({**columns, "image": {"bytes": data, "path": row.picture}})
        size += len(data)
        if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def encodable(text: str) -> str:
    """A text as a column can hold it: half of a surrogate pair, which JSON can write, becomes the sign for it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _writer(path: Path, schema: pa.Schema, dictionary: bool) -> pq.ParquetWriter:
    pixels = "image.bytes"
    texts = [name for name in schema.names if name != "image"] + ["image.path"]
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=[*texts, pixels] if dictionary else texts,
        dictionary_pagesize_limit=1 << 30,
        # Pictures are compressed already.
        compression={**dict.fromkeys(texts, "snappy"), pixels: "none"},
        write_statistics=texts,
    )
