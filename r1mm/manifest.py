"""What a run was made with: code, packages, machine.  Recorded with every result, compared before one is reused."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from r1mm.recipe import digest
from r1mm.rundir import sha256_file

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
LOCK = ROOT / "docker" / "locks" / "cpu.txt"

# The packages whose version can change a number.
NUMERIC_PACKAGES = (
    *("torch", "torchvision", "transformers", "trl", "accelerate", "datasets", "tokenizers"),
    *("numpy", "pillow", "math-verify", "latex2sympy2-extended", "sympy", "scipy", "statsmodels"),
)


def code_version(rooms: Iterable[str], *, extra: str = "") -> str:
    """sha256 over the source files of `rooms` (paths below the package) and `extra` source text."""
    whole = hashlib.sha256(extra.encode())
    for room in sorted(rooms):
        path = PACKAGE / room
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".py", ".j2"))
        for file in files:
            whole.update(f"{file.relative_to(PACKAGE)}\0{sha256_file(file)}\n".encode())
    return whole.hexdigest()


@functools.cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    return {name: metadata.version(name) for name in NUMERIC_PACKAGES}


def packages_digest() -> str:
    """One digest for all of them."""
    return digest(package_versions())


def git_state() -> dict[str, Any] | None:
    """Commit and whether the tree differs from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux; the platform module knows a little
    return platform.processor() or platform.machine()


def gpus() -> list[dict[str, Any]]:
    """Name, memory in GiB and driver of each NVIDIA GPU, by nvidia-smi; empty without one."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    return [
        {"name": name, "memory_gb": round(int(memory) / 1024, 1), "driver": driver} for name, memory, driver in rows
    ]


def machine() -> dict[str, Any]:
    """The machine as far as it bears on times and numbers."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": len(os.sched_getaffinity(0))},
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus(),
    }


def surroundings() -> dict[str, Any]:
    """The part of a manifest that does not depend on the run.  `image` is the container image's digest, if any."""
    return {
        "git": git_state(),
        "lock_sha256": sha256_file(LOCK) if LOCK.is_file() else None,
        "packages": package_versions(),
        **machine(),
        "image": os.environ.get("R1MM_IMAGE"),
    }
