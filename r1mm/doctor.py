"""Can this machine run a recipe?  Each check says what it saw, and what to do where it is not good."""

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from r1mm.manifest import LOCK, gpus, machine
from r1mm.pipeline import NEEDED_BYTES

_MINIATURE_MEMORY_GB = 4


@dataclass(frozen=True)
class Check:
    """One check: its name, what was seen, and what to do when it is not good."""

    name: str
    good: bool
    seen: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON."""
        return asdict(self)


def _locked_versions() -> dict[str, list[str]]:
    """Every pinned version by package; a package may be pinned once per Python version."""
    pins: dict[str, list[str]] = {}
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, _, version = line.split(" ", 1)[0].partition("==")
            pins.setdefault(name, []).append(version)
    return pins


def _packages() -> Check:
    if not LOCK.is_file():
        return Check("packages", False, f"no lock file at {LOCK}", "run r1mm from a clone of its repository")
    wrong = []
    for name, versions in _locked_versions().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # pinned for another platform or Python version
        if installed not in versions:
            wrong.append(f"{name} {installed} (locked {' or '.join(versions)})")
    missing = [name for name in ("torch", "transformers", "trl", "datasets") if _is_missing(name)]
    seen = "; ".join([*wrong, *(f"{name} is not installed" for name in missing)]) or "as locked"
    return Check("packages", not wrong and not missing, seen, "run `make setup`")


def _is_missing(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return True
    return False


def checks(runs: Path) -> list[Check]:
    """All checks for runs below `runs`."""
    place = runs.resolve()
    while not place.exists():
        place = place.parent
    facts = machine()
    free = shutil.disk_usage(place).free
    memory = psutil.virtual_memory().available / 2**30
    cards = gpus()
    return [
        Check(
            "python",
            (3, 11) <= sys.version_info[:2] <= (3, 12),
            facts["python"],
            "use Python 3.11 or 3.12: make PYTHON=python3.12 setup",
        ),
        _packages(),
        Check(
            "cores",
            facts["cpu"]["cores"] >= 2,
            f"{facts['cpu']['cores']} x {facts['cpu']['model']}",
            "slow below 2 cores",
        ),
        Check(
            "memory",
            memory >= _MINIATURE_MEMORY_GB,
            f"{memory:.1f} GB available",
            f"free some: a miniature needs {_MINIATURE_MEMORY_GB} GB",
        ),
        Check(
            "disk",
            free >= NEEDED_BYTES,
            f"{free / 1e9:.1f} GB free at {place}",
            f"a run needs {NEEDED_BYTES / 1e9:.1f} GB; free some space or choose another --runs",
        ),
        Check(
            "write permission",
            os.access(place, os.W_OK | os.X_OK),
            str(place),
            "choose a folder you may write, with --runs",
        ),
        Check("gpu", True, ", ".join(card["name"] for card in cards) or "none: only miniatures run here"),
    ]
