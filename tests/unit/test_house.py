"""The rules of the tree that a machine can check."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "r1mm"

# Each room may import only rooms on lower floors (and itself).
FLOORS = [
    {"errors", "processes", "progress"},
    {"sourced"},
    {"asset_kinds", "distill_parts", "scene_parts", "task_parts", "training_parts", "yaml_files"},
    {"recipe", "rundir", "gpus"},
    {"expected", "plan"},
    {"recipe_files"},
    {"manifest", "vision"},
    {"libraries"},
    {"answers", "clips", "data", "ledger"},
    {"chain", "endpoint", "processor"},
    {"judge", "train", "evaluate", "curate", "distill", "mini"},
    {"launch", "report"},
    {"job"},
    {"inputs"},
    {"distill_stage", "training_stages"},
    {"stages"},
    {"pipeline"},
    {"doctor", "verify", "together"},
    {"terminal"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("r1mm."):
            names.add(node.module.split(".")[1])
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_down_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    room = parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for other in imported_rooms(path) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_every_lock_line_has_a_hash() -> None:
    for lock in (ROOT / "docker" / "locks").glob("*.txt"):
        requirements = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text())
        pinned = [block for block in requirements if re.match(r"[A-Za-z0-9]", block)]
        assert pinned
        for block in pinned:
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,0-9_-]+\])?==\S+", block), block.splitlines()[0]
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_no_registry_host_and_no_large_file() -> None:
    hosts = re.compile(r"(py" r"pi|python" r"hosted|debian|npm" r"js)\.org", re.IGNORECASE)
    for path in tracked():
        assert path.stat().st_size <= 1_000_000, path
        if path.suffix != ".png":
            assert not hosts.search(path.read_text(encoding="utf-8")), path


def test_files_stay_readable() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path
