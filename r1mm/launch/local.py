"""A stage as a process of its own on this machine."""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence

from r1mm.processes import die_with


def run_stage(arguments: Sequence[str], *, threads: int, offline: bool) -> int:
    """Run `r1mm stage <arguments>` to its end and return its exit status; its output goes to ours.

    `threads` is pinned for every arithmetic library: a sum's order, and so its last bit, depends on it.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # Threads that spin while they wait slow a step down severalfold as soon as anything else wants a core.
        "GOMP_SPINCOUNT": "10000",
        # Large tensors stay in the heap, in huge pages: else the kernel clears their pages anew at every step.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-m", "r1mm", "stage", *arguments]
    process = subprocess.Popen(command, env=environment, preexec_fn=functools.partial(die_with, os.getpid()))
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C reaches the stage too, through the terminal; a stage that does not end by itself is ended.
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
