"""Stages as processes of their own on this machine, forked from one that has the libraries loaded.

Importing torch, transformers and trl takes ten seconds of processor time; a run has seven stages.  The standard
library's fork server pays once.
"""

import functools
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from multiprocessing import forkserver

from r1mm.errors import StageFailed
from r1mm.manifest import code_version
from r1mm.processes import die_with_parent

# What the stages import; none of it starts threads of arithmetic or touches a GPU when imported.
_LIBRARIES = ["torch", "datasets", "transformers", "r1mm.train.grpo", "r1mm.train.supervised", "r1mm.evaluate.generate"]
# Read when a process starts, so they are set for the fork server as a whole.
_ENVIRONMENT = {
    # Threads that spin while they wait slow a step down severalfold as soon as anything else wants a core.
    "GOMP_SPINCOUNT": "10000",
    # Large tensors stay in the heap, in huge pages: else the kernel clears their pages anew at every step.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A process that has asked the CUDA runtime for its devices cannot fork; the driver's library can be asked instead.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


def _stage(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    sys.argv = ["r1mm", "stage", *arguments]
    runpy.run_module("r1mm", run_name="__main__")  # as `python -m r1mm stage ...` does, to its exit status


@functools.cache
def _code_at_first() -> str:
    return code_version(["."])


def run_stage(arguments: Sequence[str], *, threads: int, offline: bool) -> int:
    """Run `r1mm stage <arguments>` to its end and return its exit status; its output goes to ours.

    `threads` is pinned for every arithmetic library: a sum's order, and so its last bit, depends on it.  `threads` and
    `offline` hold for the process's life: the first call decides.

    Raises StageFailed when the stage cannot be started, or r1mm's own code has changed since the first call: the
    fork server would run the old code under the new one's name.
    """
    if code_version(["."]) != _code_at_first():
        raise StageFailed("the code of r1mm has changed since this run was started; start the same command again")
    os.environ.update(_ENVIRONMENT, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    process = context.Process(target=_stage, args=(list(arguments),), name=f"stage {arguments[0]}")
    # The server is born deaf to Ctrl-C, which its imports would answer with a traceback; a stage listens again.
    listening = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, listening)
    try:
        process.start()
    except (EOFError, OSError) as error:
        raise StageFailed(
            f"stage {arguments[0]} could not be started ({type(error).__name__}: {error}); see above for the reason, "
            "and `r1mm doctor` for memory"
        ) from error
    try:
        process.join()
    except BaseException:
        # Ctrl-C reaches the stage too, through the terminal; a stage that does not end by itself is ended.
        process.join(timeout=5)
        if process.exitcode is None:
            process.kill()
            process.join()
        raise
    assert process.exitcode is not None  # joined
    return process.exitcode
