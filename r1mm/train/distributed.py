"""Training in several processes: torch's own elastic launcher, one process per GPU, no restarts.

Any process that fails ends all of them; they end with their parent, however that ends.  On several nodes the same
command runs on each, and the environment says which is which, in torchrun's words.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from r1mm.errors import BadInput, StageFailed
from r1mm.plan import Layout
from r1mm.processes import Terminated, die_with_parent

_NODES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def needs_launch(layout: Layout) -> bool:
    """Whether a layout trains in processes of its own: several of them, or one that deepspeed sets up."""
    return layout.processes > 1 or layout.sharding != "ddp"


def require_deepspeed(layout: Layout) -> None:
    """Raise BadInput where a layout shards with ZeRO and deepspeed is not installed."""
    from importlib.util import find_spec

    if layout.sharding != "ddp" and find_spec("deepspeed") is None:
        raise BadInput(
            f"sharding {layout.sharding} needs deepspeed, which is not installed here; use the trainer image "
            "(make image-gpu), or install docker/locks/sharding.txt (make setup does)"
        )


def node_rank(layout: Layout, environment: Mapping[str, str] = os.environ) -> int:
    """Which of a layout's nodes this is, from 0.  BadInput when the environment does not say, or says nonsense."""
    if layout.nodes == 1:
        return 0
    missing = [name for name in _NODES if not environment.get(name)]
    if missing:
        raise BadInput(
            f"{layout.nodes} nodes: {', '.join(missing)} not set; each process needs MASTER_ADDR and MASTER_PORT of "
            "the first (a free port there), and NODE_RANK from 0"
        )
    rank, port = environment["NODE_RANK"], environment["MASTER_PORT"]
    if not rank.isdecimal() or int(rank) >= layout.nodes:
        raise BadInput(f"NODE_RANK must be a whole number from 0 to {layout.nodes - 1}, is {rank!r}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInput(f"MASTER_PORT must be a port from 1 to 65535, is {port!r}")
    return int(rank)


def _launch_config(layout: Layout, logs: str) -> LaunchConfig:
    if layout.processes % layout.nodes:
        raise BadInput(f"{layout.processes} processes do not divide over {layout.nodes} nodes; plan a multiple of them")
    rank = node_rank(layout)
    if layout.nodes == 1:
        meeting: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    else:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        meeting = {"rdzv_backend": "static", "rdzv_endpoint": address, "rdzv_configs": {"rank": rank, "timeout": 900}}
    return LaunchConfig(
        min_nodes=layout.nodes,
        max_nodes=layout.nodes,
        nproc_per_node=layout.processes // layout.nodes,
        run_id="r1mm",
        max_restarts=0,
        start_method="spawn",
        shutdown_timeout=5,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        **meeting,
    )


@contextmanager
def _environment(layout: Layout) -> Iterator[None]:
    """What the processes must find set before they import anything."""
    # The launcher tells of every end with a traceback; `_explained` says it once.
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    added = {"TOKENIZERS_PARALLELISM": "false"}
    if layout.device == "cpu":
        added |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _one_of_all(layout: Layout, body: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of the terminal; what these leave is sealed or does not count, so they just go.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    die_with_parent()
    if layout.sharding != "ddp" and layout.device == "cpu":
        # transformers does this itself, but not for a CPU; ZeRO-3 counts the processes when it loads the weights.
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")
    try:
        body(*arguments)
    finally:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def in_processes(layout: Layout, body: Callable[..., None], *arguments: Any) -> None:
    """Call `body(*arguments)`, which can be pickled, in each of this node's processes, and wait for all.

    Raises what failed first, BadInput or StageFailed, in one of them; StageFailed for any other end of one; BadInput
    for an environment that does not tell several nodes apart, and where deepspeed is missing.
    """
    require_deepspeed(layout)
    with tempfile.TemporaryDirectory(prefix="r1mm-processes-") as logs, _environment(layout):
        config = _launch_config(layout, logs)
        try:
            elastic_launch(config, _one_of_all)(layout, body, arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise _explained(rank, failure, layout) from error
        except SignalException as stopped:
            if stopped.sigval == signal.SIGINT:
                raise KeyboardInterrupt from stopped
            raise Terminated from stopped
        finally:
            for child in multiprocessing.active_children():
                if child.name.startswith("SpawnProcess"):
                    child.join(timeout=5)


def _explained(rank: int, failure: Any, layout: Layout) -> BadInput | StageFailed:
    """The failure of a process in r1mm's words: its own error as it is, with the rank in front of any other."""
    said = failure.error_file_data.get("message") if failure.error_file_data else None
    whole = str(said["message"]) if isinstance(said, dict) else str(failure.message)
    kind, _, text = whole.partition(": ")
    if kind == BadInput.__name__:
        return BadInput(text)
    if kind == StageFailed.__name__:
        return StageFailed(text)
    if isinstance(said, dict):
        print(said["extraInfo"]["py_callstack"], file=sys.stderr)
    ended = f"ended by {signal.Signals(-failure.exitcode).name}" if failure.exitcode < 0 else whole
    remedy = "out of memory, if nobody ended it: " if failure.exitcode == -signal.SIGKILL else ""
    return StageFailed(
        f"process {rank} of {layout.processes}: {ended}; all were stopped, the last checkpoint is kept. {remedy}"
        "the same command goes on from there"
    )
