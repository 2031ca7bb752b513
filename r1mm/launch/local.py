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
from typing import Any

from r1mm.errors import StageFailed
from r1mm.launch.place import StageCall, stage_environment
from r1mm.manifest import code_version, surroundings
from r1mm.processes import die_with_parent

# What the stages import; none of it starts threads of arithmetic or touches a GPU when imported.
_LIBRARIES = [
    *("torch", "datasets", "transformers"),
    *("r1mm.train.grpo", "r1mm.train.sft", "r1mm.train.supervised", "r1mm.evaluate.generate"),
]


def _stage(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    sys.argv = ["r1mm", "stage", *arguments]
    runpy.run_module("r1mm", run_name="__main__")  # as `python -m r1mm stage ...` does, to its exit status


@functools.cache
def _code_at_first() -> str:
    return code_version(["."])


class Local:
    """This machine, this Python.  Threads and offline mode hold for the process's life: the first stage decides."""

    def surroundings(self) -> dict[str, Any]:
        """What a manifest records of this process's surroundings."""
        return surroundings()

    def run_stage(self, call: StageCall) -> int:
        """Run one stage to its end and return its exit status; its output goes to ours.

        Raises StageFailed when the stage cannot be started, or r1mm's own code has changed since the first call: the
        fork server would run the old code under the new one's name.
        """
        if code_version(["."]) != _code_at_first():
            raise StageFailed("the code of r1mm has changed since this run was started; start the same command again")
        os.environ.update(stage_environment(call))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LIBRARIES)
        process = context.Process(target=_stage, args=(call.arguments(),), name=f"stage {call.stage}")
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
                f"stage {call.stage} could not be started ({type(error).__name__}: {error}); see above for the reason, "
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
