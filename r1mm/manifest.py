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

from r1mm.gpus import gpus
from r1mm.recipe import digest
from r1mm.rundir import sha256_file

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
# The lock of this place: an image holds its own alone, a clone holds all and is set up from the first.
LOCKS = tuple(ROOT / "docker" / "locks" / name for name in ("cpu.txt", "gpu.txt"))
# The bill of materials that an image is built with.
SBOM = ROOT / "sbom.cdx.json"
IMAGE_VARIABLE = "R1MM_IMAGE"

# The packages whose version can change a number.
NUMERIC_PACKAGES = (
    *("torch", "torchvision", "transformers", "trl", "accelerate", "datasets", "tokenizers"),
    *("numpy", "pillow", "av", "math-verify", "latex2sympy2-extended", "sympy", "scipy", "statsmodels"),
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
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
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


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine as far as it bears on times and numbers."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": cores()},
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus(),
    }


def lock_here() -> Path | None:
    """The lock that this place was set up from; None outside of a clone and of an image."""
    return next((path for path in LOCKS if path.is_file()), None)


def image_id() -> str | None:
    """The id of the container image that this process runs in, as the launcher named it; None outside of one."""
    return os.environ.get(IMAGE_VARIABLE)


def surroundings() -> dict[str, Any]:
    """The part of a manifest that does not depend on the run: what this process runs in."""
    lock = lock_here()
    return {
        "git": git_state(),
        "lock": lock.name if lock else None,
        "lock_sha256": sha256_file(lock) if lock else None,
        "sbom_sha256": sha256_file(SBOM) if SBOM.is_file() else None,
        "packages": package_versions(),
        **machine(),
        "image": {"id": image_id()} if image_id() else None,
    }
