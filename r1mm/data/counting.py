"""Counting datasets as `leonardPKU/clevr_cogen_a_train` has them: image, problem, solution (`<answer> 3 </answer>`).

Rendered sets and the real one pass through the same `load_counting`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from r1mm.errors import BadInput
from r1mm.rundir import REFUSALS, explained, make_folder


@dataclass(frozen=True)
class Example:
    """One supervised example: the item's index in its set, the user's text, and the answer to learn."""

    item: int
    prompt: str
    response: str


FEATURES = Features({"image": Image(), "problem": Value("string"), "solution": Value("string")})
_SOLUTION = re.compile(r"<answer>\s*(\d+)\s*</answer>")


def solution_text(answer: int | str) -> str:
    """The solution column's form, blanks as in the published datasets."""
    return f"<answer> {answer} </answer>"


def is_count(solution: str) -> bool:
    """Whether a solution is a number in its tag."""
    return _SOLUTION.fullmatch(solution.strip()) is not None


def solution_count(solution: str, where: str) -> int:
    """The number in a solution.  BadInput when it has none."""
    found = _SOLUTION.fullmatch(solution.strip())
    if not found:
        raise BadInput(f"{where}: solution {solution!r} is not of the form '<answer> 3 </answer>'; correct the dataset")
    return int(found.group(1))


def write_counting(path: Path, pngs: Sequence[bytes], problem: str, counts: Sequence[int]) -> None:
    """Write a parquet file of one question asked of every image."""
    make_folder(path.parent)
    rows = {
        "image": [{"bytes": png, "path": None} for png in pngs],
        "problem": [problem] * len(pngs),
        "solution": [solution_text(count) for count in counts],
    }
    Dataset.from_dict(rows, features=FEATURES).to_parquet(path)


def _raise_refusal_to_write(error: BaseException) -> None:
    """Raise the operating system's refusal that `datasets` has wrapped into an error of its own, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in REFUSALS:
            raise cause
        cause = cause.__cause__ or cause.__context__


def read_parquet(paths: Sequence[Path], cache: Path) -> Dataset:
    """Parquet files as one dataset; the Arrow files that `datasets` makes of them lie in the folder `cache`.

    Raises BadInput for a file that is no parquet file, and what `explained` makes of a refusal to write.
    """
    try:
        return Dataset.from_parquet([str(path) for path in paths], cache_dir=str(cache))
    except Exception as error:
        with explained(cache):
            _raise_refusal_to_write(error)
        names = ", ".join(map(str, paths[:3]))
        raise BadInput(f"{names} is not a readable parquet file ({error}); make or fetch it again") from error


def load_questions(path: Path) -> Dataset:
    """Questions about pictures from a parquet file with the columns FEATURES; images decode when they are read.

    The Arrow files that `datasets` makes of it lie in a folder `.cache` two levels up, apart from what is recorded.

    Raises BadInput when the file is no parquet file or a column is missing.
    """
    dataset = read_parquet([path], path.parent.parent / ".cache")
    missing = [column for column in FEATURES if column not in dataset.column_names]
    if missing:
        raise BadInput(
            f"{path} lacks the column {missing[0]!r}; it has {', '.join(dataset.column_names)}; "
            f"questions about pictures have {', '.join(FEATURES)}"
        )
    return dataset.cast_column("image", Image())


def load_counting(path: Path) -> Dataset:
    """A counting dataset, as `load_questions`.  Raises BadInput also where a solution holds no number."""
    dataset = load_questions(path)
    for i, solution in enumerate(dataset["solution"]):
        solution_count(solution, f"{path} row {i}")
    return dataset
