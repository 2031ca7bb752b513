"""Progress bars: live on a terminal, a line every ten seconds in a log, marked lines for a launcher that shows them."""

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

# Set to "lines" by a launcher that reads this process's output line by line and shows its bars itself.
VARIABLE = "R1MM_PROGRESS"
LOG_SECONDS = 10.0
_LAUNCHER_SECONDS = 0.3


class _Lines:
    """What a bar would draw over and over in place, as lines of their own; `mark` before each, "" for a log."""

    def __init__(self, target: TextIO, mark: str) -> None:
        self.target, self.mark = target, mark
        self.last = ""

    def write(self, text: str) -> None:
        shown = text.strip()
        if shown and shown != self.last:
            self.target.write(f"{self.mark}{shown}\n")
            self.last = shown
        elif text == "\n" and self.mark:
            self.target.write("\n")  # the bar is closed: what it shows stays

    def flush(self) -> None:
        self.target.flush()


def progress_bar(items: Iterable[Any] | None = None, **settings: Any) -> "tqdm[Any]":
    """A tqdm bar, drawn as whoever reads it needs; `settings` are tqdm's."""
    launched = os.environ.get(VARIABLE) == "lines"
    if sys.stderr.isatty() and not launched:
        return tqdm(items, **settings)
    return tqdm(
        items,
        # Through standard output for a launcher: python-on-whales keeps all of standard error in memory.
        file=_Lines(sys.stdout, "\r") if launched else _Lines(sys.stderr, ""),
        mininterval=_LAUNCHER_SECONDS if launched else LOG_SECONDS,
        maxinterval=LOG_SECONDS,
        ncols=shutil.get_terminal_size((120, 24)).columns,
        **settings,
    )
