"""The dashboard, as a process and as a service: on loopback only, read-only, gone when it is stopped."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from r1mm.launch.images import Image
from tests.command import start

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("nothing_left")]


def ask(port: int, path: str) -> bytes:
    """The answer of the dashboard once it is up."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                content: bytes = answer.read()
                return content
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)


@pytest.mark.parametrize("launch", ["local", "compose"])
def test_it_shows_the_runs_and_ends_on_a_signal(image: Image, tmp_path: Path, launch: str) -> None:
    with SummaryWriter(tmp_path / "tiny" / "run") as writer:
        writer.add_scalar("train/reward", 0.5, 1)
    tmp_path.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start("dashboard", "--runs", tmp_path, "--launch", launch, DASHBOARD_PORT=str(port))
    try:
        assert b"TensorBoard" in ask(port, "/")
        while not json.loads(ask(port, "/data/runs")):
            time.sleep(0.2)
        assert json.loads(ask(port, "/data/runs")) == ["tiny/run"]
    finally:
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"http://127.0.0.1:{port}/ shows the runs below {tmp_path}" in errors
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
