"""A file of questions about described scenes, read line by line in one order: of any length, never held whole."""

import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from r1mm.distill.forms import of_form
from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar
from r1mm.rundir import json_object

UPSTREAMS_SEED = 1234  # Deep-Agent/R1-V@bbbbe3d:src/distill_r1/query_r1.py


class SceneQuestion(BaseModel):
    """What a line must hold, ours or upstream's; `a` is the right answer, which upstream has as a number too."""

    model_config = ConfigDict(frozen=True)
    img_filename: str
    q: str
    a: StrictStr | StrictInt
    description: str


class QuestionLines:
    """The questions of a file; `first` of them, shuffled by `seed`, where it is given.

    The order is upstream's: its list, shuffled by random.seed(1234), and of that the first 10,000.  Here all lines are
    looked at once, and only where they begin is kept.  BadInput names the line that is no question, or has one of the
    keys `taken`.
    """

    def __init__(
        self, path: Path, first: int | None = None, seed: int = UPSTREAMS_SEED, taken: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self._taken = taken
        starts = array("Q")
        try:
            size = path.stat().st_size
            bar = progress_bar(total=size, desc=path.name, unit="B", unit_scale=True, disable=size < 100_000_000)
            with path.open("rb") as file, bar:
                start = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._check(number, line)
                        starts.append(start)
                    start += len(line)
                    bar.update(len(line))
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}); name a file of questions") from error
        if not starts:
            raise BadInput(f"{path} has no questions")
        if first is not None:
            # Where lines begin, moved about as the lines themselves would be.
            random.Random(seed).shuffle(starts)
            starts = starts[:first]
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines' objects as they are.  StageFailed when the file has changed meanwhile."""
        with self.path.open("rb") as file:
            for start in self._starts:
                file.seek(start)
                try:
                    yield self._question(file.readline(), str(self.path))
                except BadInput as error:
                    raise StageFailed(
                        f"{self.path} has changed since it was read, byte {start} begins no question any more; start "
                        "again, what was answered is kept"
                    ) from error

    def _check(self, number: int, line: bytes) -> None:
        if number == 1 and line.lstrip().startswith(b"["):
            raise BadInput(
                f"{self.path} is one JSON list, as upstream writes it; make it lines: jq -c '.[]' {self.path}"
            )
        row = self._question(line, f"{self.path}:{number}")
        if both := [key for key in self._taken if key in row]:
            raise BadInput(
                f"{self.path}:{number}: has the key {both[0]}, which the answer's record would overwrite; is it a file "
                "of answers?"
            )

    def _question(self, line: bytes, where: str) -> dict[str, Any]:
        row = json_object(line, where)
        of_form(SceneQuestion, row, where, "a line holds img_filename, q, a and description")
        return row
