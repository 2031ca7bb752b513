"""Bars in a log and through a launcher."""

import re
import sys

import pytest

from r1mm.launch.compose import _Screen
from r1mm.progress import VARIABLE, progress_bar


def test_a_log_gets_whole_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert list(progress_bar(range(1000), desc="work", unit="item")) == list(range(1000))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("work:   0%")
    assert lines[-1].startswith("work: 100%")
    assert len(lines) <= 3
    assert not any("\r" in line for line in lines)


def test_a_launcher_gets_marked_lines_and_shows_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "lines")
    with progress_bar(total=2, desc="work", unit="item") as bar:
        bar.update(2)
    sent = capsys.readouterr().out
    assert sent.startswith("\rwork:   0%")
    assert sent.endswith("\n\n")
    screen = _Screen()
    for line in [*re.findall(r".*\n", sent), "done\n"]:
        screen.show(line)
    shown = capsys.readouterr().err.splitlines()
    assert [line[:10] for line in shown] == ["work:   0%", "work: 100%", "done"]


def test_a_terminal_gets_one_live_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    screen = _Screen()
    for line in ("\r 10%\n", "\r100%\n", "\n", "done\n"):
        screen.show(line)
    assert capsys.readouterr().err == "\r\x1b[2K 10%\r\x1b[2K100%\ndone\n"
