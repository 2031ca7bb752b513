"""Child processes that do not outlive their parent, and a parent that ends them in order."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeVar

import psutil

_T = TypeVar("_T")


def die_with_parent() -> None:
    """To be called in a fresh `multiprocessing` child: it is killed when the process that started it ends, however.

    A child that went on would write into a run directory that nobody holds any more, and keep its parent's output open.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die with parent", daemon=True).start()


class Terminated(BaseException):
    """SIGTERM arrived.  A BaseException, so that it unwinds as KeyboardInterrupt does."""


@contextlib.contextmanager
def terminated_by_signal() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated, so that what was started can be ended in order."""

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_in_order(work: Coroutine[Any, Any, _T]) -> _T:
    """The outcome of `work`, in an event loop of its own; Ctrl-C and SIGTERM cancel it, then raise as they do here."""
    terminated = False

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await work

    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def end_docker_children(verb: str) -> None:
    """Kill the `docker <verb>` commands that this process started and that still run."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if verb in child.cmdline():
                child.kill()


@contextlib.contextmanager
def nothing_to_read() -> Iterator[None]:
    """Within the block standard input is empty, for children that would take the caller's."""
    before = os.dup(0)
    with open(os.devnull) as empty:  # noqa: PTH123
        os.dup2(empty.fileno(), 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
