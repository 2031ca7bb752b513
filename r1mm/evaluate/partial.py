"""What an evaluation has answered so far, kept on disk so that a killed one goes on from there.

One JSON line per finished item, appended batch by batch and synced to the disk.  What a kill may leave behind is a torn
last line or a batch in part; both are dropped when the file is opened again, and the batch is generated again whole, so
that a result never depends on where a run was killed.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from r1mm.errors import BadInput
from r1mm.rundir import explained, make_folder, write_jsonl


class Asked(NamedTuple):
    """One item as it is put to the model."""

    item: str
    prompt: str


class Answer(NamedTuple):
    """What the model wrote; `tokens` counts it without its end token."""

    completion: str
    tokens: int


class PartialAnswers:
    """The answers of one evaluation, by the item's index.  `batches` are the indices that are generated together.

    Raises BadInput when the file is damaged other than by a kill, or was written for other questions.
    """

    def __init__(self, path: Path, asked: Sequence[Asked], batches: Sequence[Sequence[int]]) -> None:
        self.path, self.asked = path, asked
        found = self._read() if path.is_file() else {}
        self.answers = {i: found[i] for batch in batches if all(i in found for i in batch) for i in batch}
        self.open_batches = [batch for batch in batches if not all(i in found for i in batch)]
        make_folder(path.parent)
        if path.is_file():
            write_jsonl(path, [self._row(i) for i in self.answers])

    def _row(self, index: int) -> dict[str, object]:
        return {"index": index, **self.asked[index]._asdict(), **self.answers[index]._asdict()}

    def _read(self) -> dict[int, Answer]:
        remedy = f"delete {self.path} to evaluate from the start"
        lines = self.path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is torn, or nothing
        found = {}
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                index, answer = int(row["index"]), Answer(str(row["completion"]), int(row["tokens"]))
                asked = Asked(row["item"], row["prompt"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{self.path}:{number}: is damaged ({error!r}); {remedy}") from error
            if not 0 <= index < len(self.asked) or asked != self.asked[index]:
                raise BadInput(
                    f"{self.path}:{number}: answers item {asked.item!r}, which this evaluation does not ask "
                    f"at {index}; {remedy}"
                )
            found[index] = answer
        return found

    def add(self, answers: dict[int, Answer]) -> None:
        """Keep the answers to a batch, on disk when this returns."""
        self.answers |= answers
        text = "".join(json.dumps(self._row(i), ensure_ascii=False) + "\n" for i in answers)
        with explained(self.path), self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
