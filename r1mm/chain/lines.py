"""A file of JSON lines, read line by line in one order: of any length, never held whole."""

import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1mm.chain.forms import of_form
from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar
from r1mm.rundir import json_object


class ChosenLines:
    """The objects of a file's lines; `first` of them, shuffled by `seed`, where it is given.

    All lines are looked at once, and only where they begin is kept.  The shuffle is that of a list of them by
    `random.Random(seed)`.  BadInput names the line that is not of the form, or has one of the keys `taken`; `holds`
    says what a line holds, `what` what the lines are, `as_list` who writes them as one JSON list.
    """

    def __init__(
        self,
        path: Path,
        form: type[BaseModel],
        holds: str,
        what: str,
        first: int | None = None,
        seed: int = 0,
        taken: tuple[str, ...] = (),
        as_list: str = "upstream writes it",
    ) -> None:
        self.path = path
        self._form, self._holds, self._what, self._taken, self._as_list = form, holds, what, taken, as_list
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
            raise BadInput(f"{path} cannot be read ({error.strerror}); name a file of {what}s") from error
        if not starts:
            raise BadInput(f"{path} has no {what}s")
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
                    yield self._object(file.readline(), str(self.path))
                except BadInput as error:
                    raise StageFailed(
                        f"{self.path} has changed since it was read, byte {start} begins no {self._what} any more; "
                        "start again, what was answered is kept"
                    ) from error

    def _check(self, number: int, line: bytes) -> None:
        if number == 1 and line.lstrip().startswith(b"["):
            raise BadInput(f"{self.path} is one JSON list, as {self._as_list}; make it lines: jq -c '.[]' {self.path}")
        row = self._object(line, f"{self.path}:{number}")
        if both := [key for key in self._taken if key in row]:
            raise BadInput(
                f"{self.path}:{number}: has the key {both[0]}, which the answer's record would overwrite; is it a file "
                "of answers?"
            )

    def _object(self, line: bytes, where: str) -> dict[str, Any]:
        row = json_object(line, where)
        of_form(self._form, row, where, self._holds)
        return row
