"""What a process of several does in tests of how they end; light, since each process imports it anew."""

import os
import signal
import sys
import time
from pathlib import Path

from r1mm.errors import BadInput
from r1mm.plan import Layout
from r1mm.train.distributed import in_processes


def ends(how: str, folder: Path) -> None:
    """The first waits; the second too, or ends as `how` says."""
    rank = os.environ["RANK"]
    (folder / rank).write_text(str(os.getpid()))
    if rank == "0" or how == "waits":
        time.sleep(600)  # ended when the other fails, or all are
    if how == "input":
        raise BadInput("the dataset: it has no images")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    try:
        in_processes(Layout.model_validate_json(sys.argv[2]), ends, "waits", Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
