"""The rows of a dataset's file as its publishers give it: JSON lines, a JSON list, or parquet."""

import json
from pathlib import Path
from typing import Any

from r1mm.errors import BadInput
from r1mm.rundir import read_jsonl


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, by its ending.  BadInput for one that does not read, or holds no list of rows."""
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise BadInput(f"{path} is not readable parquet: {error}") from error
        return found
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise BadInput(f"{path} holds no list of items; give it as it was published, or as parquet or JSON lines")
    return content


def count_rows(path: Path) -> int:
    """How many rows a file has, of parquet without reading them.  BadInput as `read_rows`."""
    if path.suffix != ".parquet":
        return len(read_rows(path))
    import pyarrow.parquet

    try:
        count: int = pyarrow.parquet.read_metadata(path).num_rows
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not readable parquet: {error}") from error
    return count
