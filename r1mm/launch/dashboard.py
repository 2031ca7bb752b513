"""The curves of all runs in a browser: TensorBoard over the folder of runs, on loopback, until Ctrl-C."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from r1mm.errors import BadInput
from r1mm.launch.place import Say

_DEFAULT_PORT = 6006


def _port() -> int:
    text = os.environ.get("DASHBOARD_PORT") or str(_DEFAULT_PORT)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise BadInput(f"DASHBOARD_PORT={text}: not a port; give a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise BadInput(
                f"port {text} of this machine cannot be used ({error.strerror}); end what listens there, or choose "
                "another: DASHBOARD_PORT=6007"
            ) from error
    return int(text)


def serve(runs: Path, launch: str, say: Say) -> int:
    """Serve until Ctrl-C; returns the server's own exit status.  BadInput for a busy port or a missing folder."""
    if not runs.is_dir():
        raise BadInput(f"there is no folder {runs}; run a recipe first, or name another with --runs")
    port = _port()
    address = f"http://127.0.0.1:{port}/ shows the runs below {runs}; Ctrl-C ends it"
    if launch == "compose":
        from r1mm.launch.compose import prepare

        place = prepare(runs, wanted_gpus=0, image=None, say=say)
        os.environ["DASHBOARD_PORT"] = str(port)
        say(address)
        return place.run_dashboard()
    say(address)
    command = ["--logdir", str(runs), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *command])
    try:
        return server.wait()
    finally:
        server.terminate()
        server.wait()
