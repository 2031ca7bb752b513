"""The verification's rules on a dataset that is built already: upstream's, or one of ours.

Nothing is changed.  What a published row breaks says what a filter that does not look lets through; a row that breaks a
rule need not be wrong: free text, say, is only nothing that a rule can reward.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1mm.chain.provenance import ELSEWHERE
from r1mm.curate.pictures import seen_in
from r1mm.curate.report import Tally, VerifyReport
from r1mm.curate.rules import Original, check, parts_of, upstream_keeps
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import json_line, writing

COLUMNS = ("image", "problem", "solution", "original_question", "original_answer")


def audit(paths: Sequence[Path], out: Path) -> VerifyReport:
    """Look at all rows of a dataset's parquet files; write those that break a rule to `out`, whole or not at all.

    A line of `out` is file and row, the texts, and the rules that it breaks; the picture is left out.  BadInput names a
    file that is none or lacks a column.
    """
    tally = Tally()
    with writing(out, ELSEWHERE) as file:
        for path in paths:
            for number, row in _rows(path):
                where = f"{path.name} row {number}"
                parts = parts_of(f"<problem>{row['problem'] or ''}</problem>\n{row['solution'] or ''}")
                original = Original(row["original_question"] or "", row["original_answer"] or "")
                seen = seen_in((row["image"] or {}).get("bytes") or b"", Path(where), whole=True)
                broken = check(parts, original, seen)
                tally.take(where, path.name, parts, original.answer, broken, upstream_keeps(parts, seen))
                if broken:
                    texts = {name: row[name] for name in COLUMNS if name != "image"}
                    file.write(json_line({"file": path.name, "row": number, **texts, "reasons": broken}))
        report = tally.report()
        if not report.rows:
            raise BadInput(f"{', '.join(map(str, paths))}: no rows; fetch the dataset again")
    return report


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file = pq.ParquetFile(path)
        if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
            raise BadInput(
                f"{path} lacks the column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}; wanted are "
                f"{', '.join(COLUMNS)}"
            )
        number = 0
        with progress_bar(total=file.metadata.num_rows, desc=f"look through {path.name}", unit="row") as bar:
            for batch in file.iter_batches(batch_size=64, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
                bar.update(batch.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is no readable parquet file ({error}); fetch it again") from error
