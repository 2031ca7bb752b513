"""r1mm as its users start it, and what a run leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def r1mm(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r1mm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """r1mm in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "r1mm", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def reproduce(recipe: Path, runs: Path, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return r1mm("reproduce", recipe, "--runs", runs, "--json", *more, **environment)


def content(folder: Path) -> dict[str, Any]:
    """Every result of a run, times aside."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in metrics:
        row.pop("step_time")
    found: dict[str, Any] = {"metrics": metrics, "verdict": json.loads((folder / "verdict.json").read_text())}
    for path in sorted([*folder.glob("generations/*.jsonl"), *folder.glob("stages/*/model/*")]):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def one_error(result: subprocess.CompletedProcess[str], status: int, mark: str, *words: str) -> None:
    """One line of ours that holds all of `words`, no traceback, the exit status."""
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"r1mm: {mark}: ")]
    assert lines, result.stderr
    for word in words:
        assert word in lines[-1]
    assert "Traceback" not in result.stderr


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    one_error(result, 2, "error", *words)
    assert result.stderr.count("r1mm: error: ") == 1, result.stderr


def failed(result: subprocess.CompletedProcess[str], *words: str) -> None:
    one_error(result, 1, "failed", *words)
