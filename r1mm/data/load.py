"""The fetched sets as datasets with columns image, problem, solution and item, images decoded when a row is read."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value

from r1mm.data.clip_sets import load_clips
from r1mm.data.counting import is_count, read_parquet, solution_text
from r1mm.data.images import check_header, decode_image, decode_lazily
from r1mm.data.pointers import asset_files, resolve_asset
from r1mm.data.selection import image_key
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.recipe import TRAIN_SET, Recipe
from r1mm.rundir import read_jsonl

COLUMNS = ("image", "problem", "solution")
THOUGHT = "thinking"  # the column that examples of supervised fine-tuning have besides
SAMPLED = 64  # images that are decoded whole when a set is fetched; of all others the header is read
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FEATURES = Features(
    {"image": Image(), "problem": Value("string"), "solution": Value("string"), "item": Value("string")}
)

Check = Callable[[str, str], Any]


def check_solution(solution: str, where: str) -> None:
    """Raise BadInput when a solution has no answer tag, or nothing in it."""
    found = _ANSWER.search(solution)
    if not found or not found.group(1).strip():
        raise BadInput(
            f"{where}: solution {solution!r} has no answer tag '<answer> ... </answer>'; correct the dataset"
        )


def check_text(solution: str, where: str) -> None:
    """Raise BadInput when a solution holds nothing."""
    if not solution.strip():
        raise BadInput(f"{where} has no solution; correct the dataset")


def _check_columns(schema: pa.Schema, what: str, columns: Sequence[str] = COLUMNS) -> None:
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise BadInput(
            f"{what} lacks the column {missing[0]!r}; it has {', '.join(schema.names)}; wanted are {', '.join(columns)}"
        )
    kind = schema.field("image").type
    if not pa.types.is_struct(kind) or "bytes" not in {kind.field(i).name for i in range(kind.num_fields)}:
        raise BadInput(
            f"{what}: column 'image' is {kind}, wanted is struct<bytes: binary, path: string> as the hub has"
        )
    for name in columns:
        if name == "image":
            continue
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise BadInput(f"{what}: column {name!r} is {kind}, wanted is string; convert it")


def _opened(path: Path, what: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{what}: {path} is no readable parquet file ({error}): truncated or damaged; fetch it again"
        ) from error


def check_rows(paths: Sequence[Path], what: str, check: Check = check_solution) -> int:
    """Look through a dataset's parquet files once and return the number of rows.

    Raises BadInput naming file and row for a missing column or image, an image that is none or a decompression bomb, a
    solution that `check` refuses, and, in a random sample of the rows, an image that does not decode.
    """
    opened = [_opened(path, what) for path in paths]
    for file, path in zip(opened, paths, strict=True):
        _check_columns(file.schema_arrow, f"{what}: {path.name}")
    total: int = sum(file.metadata.num_rows for file in opened)
    if not total:
        raise BadInput(f"{what} has no rows; fetch it again, or correct the split in the recipe")
    sampled = set(random.Random(0).sample(range(total), min(SAMPLED, total)))
    number = 0
    with progress_bar(total=total, desc=f"look through {what}", unit="row") as bar:
        for file, path in zip(opened, paths, strict=True):
            row = 0
            try:
                for batch in file.iter_batches(batch_size=256, columns=list(COLUMNS)):
                    for image, problem, solution in zip(
                        *(batch.column(name).to_pylist() for name in COLUMNS), strict=True
                    ):
                        where = f"{what}: {path.name} row {row}"
                        # A path without bytes would be looked for on this machine, or on the network.
                        encoded = {"bytes": (image or {}).get("bytes"), "path": None}
                        (decode_image if number in sampled else check_header)(encoded, where)
                        if not problem:
                            raise BadInput(f"{where} has no problem; correct the dataset")
                        check(solution or "", where)
                        row, number = row + 1, number + 1
                    bar.update(batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise BadInput(f"{what}: {path} is damaged after row {row} ({error}); fetch it again") from error
    return total


def check_images(paths: dict[str, Path], what: str) -> None:
    """Raise BadInput for an image file that is none; a random sample is decoded whole, of the others the header."""
    sampled = set(random.Random(0).sample(sorted(paths), min(SAMPLED, len(paths))))
    for name, path in paths.items():
        (decode_image if name in sampled else check_header)({"bytes": None, "path": str(path)}, f"{what}: {name}")


def prompt_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The items of a prompts file by line number: image_path, question, ground_truth.  BadInput names a line."""
    rows = read_jsonl(path)
    if not rows:
        raise BadInput(f"{path} has no items; fetch it again")
    for number, row in enumerate(rows, 1):
        for key, kinds in (("image_path", str), ("question", str), ("ground_truth", (str, int))):
            if key not in row:
                raise BadInput(
                    f"{path}:{number} has no {key!r} (it has {', '.join(row) or 'nothing'}); correct the file"
                )
            if not isinstance(row[key], kinds) or row[key] == "":
                raise BadInput(f"{path}:{number}: {key} {row[key]!r} is not usable; correct the file")
        yield number, row


def _from_parquet(folder: Path, name: str, prefix: str) -> Dataset:
    # Where the miniature's Arrow files lie too: beside the stage's folder, apart from what is recorded.
    paths, cache = list(asset_files(folder, name).values()), folder.parent / ".cache"
    return _read_rows(paths, cache, f"dataset {name}", prefix, COLUMNS)


def _read_rows(paths: Sequence[Path], cache: Path, what: str, prefix: str, columns: Sequence[str]) -> Dataset:
    for path in paths:
        _check_columns(_opened(path, what).schema_arrow, f"{what}: {path.name}", columns)
    dataset = read_parquet(paths, cache).select_columns(list(columns))
    return dataset.add_column("item", [f"{prefix}-{i:06d}" for i in range(len(dataset))])


def read_examples(paths: Sequence[Path], cache: Path, name: str) -> Dataset:
    """Examples of supervised fine-tuning from parquet files: image (decoded when read), thinking, problem, solution,
    item.  Raises BadInput for files that hold none."""
    return decode_lazily(_read_rows(paths, cache, f"set {name}", name, (*COLUMNS, THOUGHT)))


def load_examples(folder: Path, recipe: Recipe) -> Dataset:
    """The examples of a full recipe's supervised fine-tuning, as `read_examples` has them.  `folder` as `load_train`'s.

    Raises BadInput where files are missing or changed; the rows were looked through when the set was fetched.
    """
    assert recipe.sft_examples
    name = recipe.sft_examples.items.value
    return read_examples(list(asset_files(folder, name).values()), folder.parent / ".cache", name)


def load_train(folder: Path, recipe: Recipe) -> Dataset:
    """The set a full recipe trains on: image (decoded when read), problem, solution, item; of clips as `load_clips`.

    `folder` is the assets stage's.  Raises BadInput where files are missing or changed; the rows were looked through
    when the set was fetched.
    """
    if recipe.assets[TRAIN_SET].kind == "clips":
        return load_clips(folder, recipe, TRAIN_SET, TRAIN_SET)
    return decode_lazily(_from_parquet(folder, TRAIN_SET, TRAIN_SET))


def _from_prompts(folder: Path, recipe: Recipe, task_name: str) -> Dataset:
    task = recipe.tasks[task_name]
    if task.images is None:
        raise BadInput(f"task {task_name} takes its items from a prompts file and names no `images:`; name an archive")
    path, images = resolve_asset(folder, task.items), asset_files(folder, task.images)
    rows = [row for _, row in prompt_rows(path)][: task.limit]
    keys = [image_key(row["image_path"], str(path)) for row in rows]
    if absent := [key for key in keys if key not in images]:
        raise BadInput(f"task {task_name}: asset {task.images} has no {absent[0]}; run `r1mm assets RECIPE` again")
    stems = [PurePosixPath(key).stem for key in keys]
    # GEOQA's images are called 0.png, 1.png ...: good names, as long as no two are the same.
    unique = len(set(stems)) == len(stems)
    columns = {
        "image": [{"bytes": None, "path": str(images[key].resolve())} for key in keys],
        "problem": [row["question"] for row in rows],
        "solution": [
            _truth(row["ground_truth"], task.scorer, f"{path.name} {key}") for row, key in zip(rows, keys, strict=True)
        ],
        "item": stems if unique else [f"{task_name}-{i:06d}" for i in range(len(rows))],
    }
    return Dataset.from_dict(columns, features=_FEATURES)


def _truth(ground_truth: str | int, scorer: str, where: str) -> str:
    """A prompts file's truth as a solution: tagged for counting, else as given (`140°`)."""
    if scorer != "counting":
        return str(ground_truth)
    if not str(ground_truth).isdecimal():
        raise BadInput(f"{where}: ground_truth {ground_truth!r} is no number; correct the prompts file")
    return solution_text(int(ground_truth))


def load_task(folder: Path, recipe: Recipe, task_name: str) -> Dataset:
    """The items of one evaluation task: image (decoded when read), problem, solution, item; the first `limit` of them.

    `item` is the image file's stem where the items come from a prompts file, else the task's name and the row's number.
    `solution` is `<answer> 3 </answer>` for a counting task; for a math task it is as the source has it: tagged in a
    parquet dataset, bare (`140°`) in a prompts file.  A counting task takes the items that are answered by a
    number, and names each by its row in the whole set.  Raises BadInput where files are missing or changed, or a
    solution is not of the task's form.
    """
    task = recipe.tasks[task_name]
    if task.lmms is not None:
        raise BadInput(f"task {task_name} is lmms-eval's {task.lmms}, which brings its own items")
    if recipe.assets[task.items].kind == "clips":
        clips = load_clips(folder, recipe, task.items, task_name)
        return clips if task.limit is None else clips.select(range(min(task.limit, len(clips))))
    if recipe.assets[task.items].kind == "file":
        return decode_lazily(_from_prompts(folder, recipe, task_name))
    dataset = _from_parquet(folder, task.items, task_name)
    if task.scorer == "counting":
        # CLEVR's sets also hold questions such as "Are there more cubes than spheres?", answered by yes or no.
        counts = [i for i, solution in enumerate(dataset["solution"]) if is_count(solution)]
        if not counts:
            raise BadInput(f"task {task_name}: asset {task.items} has no item that is answered by a number")
        dataset = dataset.select(counts)
    if task.limit is not None:
        dataset = dataset.select(range(min(task.limit, len(dataset))))
    for item, solution in zip(dataset["item"], dataset["solution"], strict=True):
        check_solution(solution, item)
    return decode_lazily(dataset)
