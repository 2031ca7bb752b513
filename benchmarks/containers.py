"""What containers cost: a warm build, a rebuild after a code change, and the start of a one-shot stage.

    .venv/bin/python benchmarks/containers.py [--repeats 7]

Needs an engine and a built image (`make image-cpu`).  A start is timed in turns with the bare process that does the
same, `r1mm facts`, and reported as the difference of medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from r1mm.launch.compose import Compose, prepare
from r1mm.manifest import ROOT


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def show(name: str, times: list[float]) -> float:
    median = statistics.median(times)
    print(f"{name:34s} {median:6.2f} s   ({min(times):.2f} to {max(times):.2f}, n={len(times)})")
    return median


def code_change(repeats: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "clone"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__"))
        times = []
        for number in range(repeats):
            with (copy / "r1mm" / "errors.py").open("a") as file:
                file.write(f"# change {number} of {time.time()}\n")
            made = subprocess.run(
                [sys.executable, "-m", "r1mm", "image", "cpu"],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy)},
                capture_output=True,
                text=True,
                check=True,
            )
            # "image r1mm-cpu: sha256:..., 5.9 GB, 0.4 s, base ...": the build itself, without starting Python.
            times.append(float(made.stderr.strip().splitlines()[-1].split(", ")[2].removesuffix(" s")))
        return times


def facts_in_a_container(place: Compose) -> None:
    place._one_shot("cpu", ["facts"], title="facts", labels={}, environment={}, volumes=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    show("rebuild after a code change", code_change(repeats))
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder), wanted_gpus=0, image=None, say=print)
        bare, contained = [], []
        with open(os.devnull, "w") as quiet:  # noqa: PTH123
            for _ in range(repeats):
                bare.append(seconds(lambda: subprocess.run([sys.executable, "-m", "r1mm", "facts"], stdout=quiet)))
                sys.stderr, loud = quiet, sys.stderr
                contained.append(seconds(lambda: facts_in_a_container(place)))
                sys.stderr = loud
        difference = show("one-shot container", contained) - show("the same as a bare process", bare)
        print(f"{'a container costs':34s} {difference:6.2f} s")


if __name__ == "__main__":
    main()
