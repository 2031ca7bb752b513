"""What has been answered and what could not be, as append-only JSON lines that a kill at any moment leaves whole.

Results are in one file, dead letters (questions that came to nothing) in another beside it.  Each line is given to the
operating system with a write of its own, so that a killed process loses no line whose `add_...` has returned.  Once a
second what was written is brought to the disk: a machine that loses its power loses the lines of that second.  What
either can tear is the last line; the next start cuts it off, and its question is asked again.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from r1mm.endpoint.attached import identity
from r1mm.endpoint.budget import NOTHING, Lost, Usage, lost_in
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import explained, json_line, locked, sync_folder

Standing = Literal["open", "answered", "dead", "twice"]

_ANSWERED, _DEAD, _SEEN = 1, 2, 4
_ELSEWHERE = "choose another place with --out"
_LARGE = 200_000_000  # bytes that take more than a second to read


def content_key(model: str, messages: Any, sampling: Mapping[str, Any]) -> str:
    """sha256 of all that an answer depends on: the same question in the same words to the same model.

    Of a picture the hash that it is known by goes in, not its bytes.
    """
    asked = {"model": model, "messages": messages, "sampling": dict(sampling)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=identity).encode()).hexdigest()


def dead_letters(path: Path) -> Path:
    """Where the dead letters of the results at `path` lie: `traces.dead.jsonl` beside `traces.jsonl`."""
    return path.with_name(f"{path.stem}.dead{path.suffix or '.jsonl'}")


def _is_torn_record(line: bytes) -> bool:
    """Whether an unfinished last line is what a kill or a power cut left of a record, and nobody else's text."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(b"{") or not line.strip(b"\0")
    return False


class _Lines:
    """One append-only file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise BadInput(f"{path} is a folder; {_ELSEWHERE}")
        with explained(path, _ELSEWHERE):
            new = not path.exists()
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if new:
                sync_folder(path.parent)
        self._size = os.fstat(self._handle).st_size
        self._unsynced = False

    def cut(self, size: int) -> None:
        """Drop all that comes after `size` bytes."""
        os.ftruncate(self._handle, size)
        self._size, self._unsynced = size, True

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line, whole; or nothing, when the disk is full."""
        self.write(json_line(row))

    def write(self, data: bytes) -> None:
        """Append bytes: all, or none."""
        with explained(self.path, _ELSEWHERE):
            try:
                written = os.write(self._handle, data)
                while written < len(data):
                    written += os.write(self._handle, data[written:])
            except OSError:
                self.cut(self._size)
                raise
        self._size, self._unsynced = self._size + len(data), True

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._unsynced:
            self._unsynced = False  # before: a line that is added meanwhile is for the next time
            with explained(self.path, _ELSEWHERE):
                os.fsync(self._handle)

    def close(self) -> None:
        """Close the file, on the disk; one without lines is taken away."""
        try:
            self.sync()
        finally:
            os.close(self._handle)
            if not self._size:
                self.path.unlink(missing_ok=True)


class Records:
    """The results at `path` and their dead letters, held against a second writer while the block lasts.

    `answered` and `dead` count questions; `spent` is what all records say that they took, failed attempts included,
    `guessed` the most that `unsaid` attempts can have taken that had no count.  Raises BadInput for a file that is no
    such record, or is in use.
    """

    def __init__(self, path: Path, retry_dead: bool = False) -> None:
        self.path, self.dead_path, self.retry_dead = path, dead_letters(path), retry_dead
        self.answered, self.dead = 0, 0
        self.spent, self.unsaid, self.guessed = NOTHING, 0, NOTHING
        self._marks: dict[bytes, int] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Records":
        with ExitStack() as stack:
            stack.enter_context(locked(self.path, _ELSEWHERE))
            self._results = _Lines(self.path)
            stack.callback(self._results.close)
            self._dead = _Lines(self.dead_path)
            stack.callback(self._dead.close)
            self._read(self._results, _ANSWERED)
            self._read(self._dead, _DEAD)
            self._open = stack.pop_all()
        self.answered = sum(1 for mark in self._marks.values() if mark & _ANSWERED)
        self.dead = len(self._marks) - self.answered
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _read(self, lines: _Lines, mark: int) -> None:
        """Mark the questions of a file, and cut off what a kill has torn."""
        whole, size = 0, lines.path.stat().st_size
        bar = progress_bar(total=size, desc=lines.path.name, unit="B", unit_scale=True, disable=size < _LARGE)
        with lines.path.open("rb") as file, bar:
            for number, line in enumerate(file, 1):
                torn = not line.endswith(b"\n")
                try:
                    row = json.loads(line)
                    key, usage = bytes.fromhex(row["key"])[:16], row.get("usage") or {}
                    used = Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
                    lost = lost_in(row)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    if torn and _is_torn_record(line):
                        break
                    raise BadInput(
                        f"{lines.path}:{number}: is no record of a question that was asked ({error!r}); correct the "
                        f"line, or {_ELSEWHERE}"
                    ) from error
                self._marks[key] = self._marks.get(key, 0) | mark
                self._count(lost._replace(said=lost.said.plus(used)))
                whole += len(line)
                bar.update(len(line))
                if torn:  # all but its end came
                    lines.write(b"\n")
                    return
        if whole < size:
            lines.cut(whole)

    def _count(self, taken: Lost) -> None:
        self.spent, self.unsaid = self.spent.plus(taken.said), self.unsaid + taken.unsaid
        self.guessed = self.guessed.plus(taken.guessed)

    def take(self, key: str) -> Standing:
        """How the question `key` stands: "open" (ask it), "answered", "dead", or "twice" when it was taken before."""
        short = bytes.fromhex(key)[:16]  # half of it tells 2^64 questions apart, and 700,000 of them fit in 100 MB
        mark = self._marks.get(short, 0)
        self._marks[short] = mark | _SEEN
        if mark & _SEEN:
            return "twice"
        if mark & _ANSWERED:
            return "answered"
        return "dead" if mark & _DEAD and not self.retry_dead else "open"

    def untaken(self) -> int:
        """How many records there are of questions that nobody has taken: of other prompts, models, settings."""
        return sum(1 for mark in self._marks.values() if not mark & _SEEN)

    def add_result(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep an answer."""
        self._results.add(row)
        self.dead -= self._set(key, _ANSWERED) == _DEAD
        self.answered += 1

    def add_dead(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a question that came to nothing, and why."""
        self._dead.add(row)
        self.dead += self._set(key, _DEAD) != _DEAD

    def _set(self, key: str, mark: int) -> int:
        """Mark a question, and return its mark before, _SEEN aside."""
        short = bytes.fromhex(key)[:16]
        before = self._marks.get(short, 0)
        self._marks[short] = before | mark
        return before & ~_SEEN

    async def keep_synced(self, seconds: float = 1.0) -> None:
        """Bring lines to the disk every so often, until cancelled; the disk is waited for in a thread."""
        while True:
            await asyncio.sleep(seconds)
            work = asyncio.ensure_future(asyncio.to_thread(self._sync))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await work  # the files are closed after this
                raise

    def _sync(self) -> None:
        self._results.sync()
        self._dead.sync()
