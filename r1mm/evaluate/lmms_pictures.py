"""MMMU and MathVista as their publishers give them, from local parquet files, as lmms-eval's tasks take them.

MMMU: id, question, options (a list as text), answer, question_type, and image_1 to image_7, of which an item shows
those that `<image 1>` to `<image 7>` in its question or options name, up to all seven.  MathVista: pid, question,
choices, unit, precision, answer, question_type, answer_type, and decoded_image.  lmms-eval is handed these columns of a
slice of items in a parquet file of ours.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1mm.errors import BadInput
from r1mm.evaluate.asked import Asked, Kind, literal_list
from r1mm.rundir import explained, make_folder

if TYPE_CHECKING:
    import pyarrow

Benchmark = Literal["mmmu", "mathvista"]

_NAMED_IMAGE = re.compile(r"<image (\d+)>")
_IMAGES = tuple(f"image_{number}" for number in range(1, 8))
_COLUMNS: dict[Benchmark, tuple[str, ...]] = {
    "mmmu": ("id", "question", "options", "answer", "question_type", *_IMAGES),
    "mathvista": (
        *("pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type"),
        "decoded_image",
    ),
}
_OPEN_KINDS: dict[str, Kind] = {"integer": "integer", "float": "float", "list": "list"}
_PLACES = (1, 2)  # decimal places that MathVista's prompts have words for


@dataclass(frozen=True)
class PictureItem:
    """An item as r1mm reads its answer.  `truth`: a letter where options are given; `images`: how many it shows."""

    name: str
    asked: Asked
    truth: str
    images: int


@dataclass(frozen=True)
class Pictures:
    """A benchmark's items, and the table of the columns that lmms-eval's task reads."""

    benchmark: Benchmark
    items: list[PictureItem]
    table: "pyarrow.Table"

    def first(self, limit: int | None) -> "Pictures":
        """The first `limit` items; all where it is None."""
        return self if limit is None else Pictures(self.benchmark, self.items[:limit], self.table.slice(0, limit))


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: has no text {key} (found {value!r})")
    return value


def _is_image(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("bytes"))


def _letter(asked: Asked, truth: str, where: str) -> str:
    if truth not in asked.letters:
        raise BadInput(
            f"{where}: the answer {truth!r} is none of the letters {', '.join(asked.letters)} of its options"
        )
    return truth


def _mmmu_item(row: dict[str, Any], where: str) -> PictureItem:
    truth, kind = _text(row, "answer", where).strip(), _text(row, "question_type", where)
    options = literal_list(row["options"]) if isinstance(row["options"], str) else row["options"]
    if kind == "multiple-choice":
        if not options or not 2 <= len(options) <= 26:
            raise BadInput(
                f"{where}: a multiple-choice question with the options {row['options']!r}; it needs two or more"
            )
        asked = Asked(kind="letter", options=tuple(map(str, options)))
        truth = _letter(asked, truth, where)
    elif kind == "open":
        asked = Asked(kind="text")
    else:
        raise BadInput(f"{where}: question_type is {kind!r}, not multiple-choice or open")
    shown = set(_NAMED_IMAGE.findall(" ".join([_text(row, "question", where), *map(str, options or ())])))
    for number in sorted(shown):
        if not _is_image(row.get(f"image_{number}")):
            raise BadInput(f"{where}: names <image {number}> and has no image_{number}; lmms-eval could not ask it")
    return PictureItem(_text(row, "id", where), asked, truth, len(shown))


def _mathvista_item(row: dict[str, Any], where: str) -> PictureItem:
    truth, kind = _text(row, "answer", where).strip(), _text(row, "question_type", where)
    _text(row, "question", where)
    if not _is_image(row.get("decoded_image")):
        raise BadInput(f"{where}: has no decoded_image; lmms-eval could not ask it")
    if kind == "multi_choice":
        choices = row["choices"]
        if not isinstance(choices, list) or len(choices) < 2:
            raise BadInput(f"{where}: a multi_choice question with the choices {choices!r}; it needs two or more")
        asked = Asked(kind="letter", options=tuple(choices))
        if truth not in choices:
            raise BadInput(f"{where}: the answer {truth!r} is none of the choices {choices}")
        truth = asked.letters[choices.index(truth)]
    elif kind == "free_form":
        form = row["answer_type"]
        if form not in _OPEN_KINDS or (form == "float" and row["precision"] not in _PLACES):
            raise BadInput(
                f"{where}: answer_type is {form!r} with precision {row['precision']!r}; lmms-eval's prompts know "
                "integer, list, and float with 1 or 2 places"
            )
        asked = Asked(kind=_OPEN_KINDS[form], precision=int(row["precision"]) if form == "float" else None)
    else:
        raise BadInput(f"{where}: question_type is {kind!r}, not multi_choice or free_form")
    return PictureItem(_text(row, "pid", where), asked, truth, 1)


def _table(path: Path, columns: Sequence[str], required: Sequence[str]) -> "pyarrow.Table":
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise BadInput(f"{path} is not readable parquet: {error}") from error
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise BadInput(f"{path} has no column {', '.join(missing)}; give the benchmark's own parquet files")
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pyarrow.nulls(len(table), pyarrow.null()))
    return table.select(columns)


def read_pictures(benchmark: Benchmark, paths: Sequence[Path]) -> Pictures:
    """The items of a benchmark's parquet files, in their order.

    Raises BadInput, with the file and the row, for what is missing or cannot be asked: a column, an image that a
    question names, an answer that is no option, a form of answer that lmms-eval's prompts have no words for.
    """
    import pyarrow

    columns = _COLUMNS[benchmark]
    required = [name for name in columns if name not in _IMAGES[1:]]
    tables, items = [], []
    for path in paths:
        table = _table(path, columns, required)
        read = _mmmu_item if benchmark == "mmmu" else _mathvista_item
        items += [read(row, f"{path}:{number}") for number, row in enumerate(table.to_pylist(), 1)]
        tables.append(table)
    if not items:
        raise BadInput(f"{', '.join(map(str, paths)) or 'no file'}: holds no items")
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise BadInput(f"{paths[0].parent}: item {item.name!r} stands there twice; correct the files")
        seen.add(item.name)
    return Pictures(benchmark, items, pyarrow.concat_tables(tables, promote_options="permissive"))


def _feature(name: str) -> dict[str, Any]:
    if name in (*_IMAGES, "decoded_image"):
        return {"_type": "Image"}
    if name == "choices":
        return {"_type": "List", "feature": {"dtype": "string", "_type": "Value"}}
    return {"dtype": "float64" if name == "precision" else "string", "_type": "Value"}


def write_pictures(pictures: Pictures, start: int, count: int, path: Path) -> Path:
    """Items `start` to `start + count` as a parquet file that the datasets library reads with images as images."""
    import pyarrow
    import pyarrow.parquet

    types = {"image": pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])}
    fields = []
    for name in pictures.table.column_names:
        feature = _feature(name)
        if feature["_type"] == "Image":
            kind = types["image"]
        elif feature["_type"] == "List":
            kind = pyarrow.list_(pyarrow.string())
        else:
            kind = pyarrow.float64() if feature["dtype"] == "float64" else pyarrow.string()
        fields.append(pyarrow.field(name, kind))
    features = {name: _feature(name) for name in pictures.table.column_names}
    schema = pyarrow.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})
    make_folder(path.parent)
    with explained(path):
        pyarrow.parquet.write_table(pictures.table.slice(start, count).cast(schema), path)
    return path
