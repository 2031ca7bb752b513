"""What goes wrong around containers: one clear message each, nothing left behind, and the same command goes on."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from python_on_whales import DockerClient

from r1mm.launch.images import Image
from tests.command import content, failed, r1mm, refused, reproduce, start
from tests.containers.conftest import leavings
from tests.tiny import tiny_recipe

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("nothing_left")]
RUN = Path("tiny") / "images-fixed-seed1"


def half_written(runs: Path) -> list[Path]:
    """Temporaries of files that were being written."""
    return [path for path in runs.rglob(".*") if path.is_file() and path.suffix != ".lock"]


def read_until(process: "subprocess.Popen[str]", mark: str) -> list[str]:
    """The lines of standard error up to the first that holds `mark`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if mark in line:
            return lines
    raise AssertionError(f"{mark!r} was never said: {''.join(lines)}")


def finish(process: "subprocess.Popen[str]", lines: list[str]) -> "subprocess.CompletedProcess[str]":
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, "".join(lines) + errors)


def stopped(process: "subprocess.Popen[str]", lines: list[str], whom: str) -> "subprocess.CompletedProcess[str]":
    """Ctrl-C at a terminal, SIGINT or SIGTERM to the driver alone, and what came of it; the exit status is checked."""
    if whom == "terminal":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGINT if whom == "process" else signal.SIGTERM)
    result = finish(process, lines)
    assert result.returncode == (143 if whom == "terminate" else 130), result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_no_engine(recipe: Path, tmp_path: Path) -> None:
    result = reproduce(recipe, tmp_path / "runs", "--launch", "compose", DOCKER_HOST="unix:///nowhere/docker.sock")
    refused(result, "no container engine answers at unix:///nowhere/docker.sock", "--launch local")
    assert not (tmp_path / "runs").exists()


def test_no_docker_command(recipe: Path, tmp_path: Path) -> None:
    result = reproduce(recipe, tmp_path / "runs", "--launch", "compose", PATH="/nowhere")
    refused(result, "there is no `docker` command on PATH", "--launch local")


@pytest.mark.parametrize(("name", "version"), [("compose", "2.10.2"), ("buildx", "0.8.1")])
def test_a_plugin_too_old(recipe: Path, tmp_path: Path, name: str, version: str) -> None:
    # A plugin is a program that the docker command starts: this one says what an old one would.
    plugin = tmp_path / "config" / "cli-plugins" / f"docker-{name}"
    plugin.parent.mkdir(parents=True)
    about = '{"SchemaVersion":"0.1.0","Vendor":"Docker Inc.","Version":"v' + version + '"}'
    script = f"if [ $1 = docker-cli-plugin-metadata ]; then echo '{about}'; else echo {name} v{version}; fi"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    other = {"compose": "buildx", "buildx": "compose"}[name]
    ours = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins" / f"docker-{other}"
    if ours.exists():
        (plugin.parent / f"docker-{other}").symlink_to(ours.resolve())
    result = reproduce(recipe, tmp_path / "runs", "--launch", "compose", DOCKER_CONFIG=str(plugin.parent.parent))
    refused(result, f"{name}: {version}", "or newer is needed")
    assert not (tmp_path / "runs").exists()


def test_a_base_image_that_does_not_match_its_digest(recipe: Path, image: Image, tmp_path: Path) -> None:
    result = reproduce(recipe, tmp_path / "runs", "--launch", "compose", BASE_IMAGE=f"r1mm-cpu@sha256:{'0' * 64}")
    refused(result, "does not match its digest", image.id)
    assert not (tmp_path / "runs").exists()


def test_a_missing_secret_file(tmp_path: Path, image: Image) -> None:
    from r1mm.errors import BadInput
    from r1mm.launch.compose import prepare

    # Only the GPU profile takes the token; what is tested is what is said before anything is built or started.
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_TOKEN_FILE", str(tmp_path / "token"))
    try:
        with pytest.raises(BadInput, match=r"HF_TOKEN_FILE=.*token: there is no such file; write the hub's token"):
            prepare(tmp_path / "runs", wanted_gpus=1, image=image.id, say=print)
        (tmp_path / "token").touch()
        with pytest.raises(BadInput, match=r"the file is empty"):
            prepare(tmp_path / "runs", wanted_gpus=1, image=image.id, say=print)
    finally:
        patch.undo()


def test_a_busy_dashboard_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for launch in ("local", "compose"):
            result = r1mm("dashboard", "--runs", tmp_path, "--launch", launch, DASHBOARD_PORT=port)
            refused(result, f"port {port}", "in use", "DASHBOARD_PORT=")
    refused(r1mm("dashboard", "--runs", tmp_path, DASHBOARD_PORT="x"), "DASHBOARD_PORT=x: not a port")


def test_a_stage_killed_by_the_memory_limit(recipe: Path, image: Image, tmp_path: Path) -> None:
    # Under another project's name, which must not make its network or its volumes ours.
    result = reproduce(recipe, tmp_path, "--image", image.id, R1MM_MEMORY="200m", COMPOSE_PROJECT_NAME="r1mm-another")
    failed(result, "was killed because it reached its memory limit (0.195 GB)", "R1MM_MEMORY")
    assert half_written(tmp_path) == []


@pytest.fixture
def image_with(docker: DockerClient, image: Image, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """An image like ours whose base evaluation does something else: `script` in sh."""
    tag = "r1mm-faulty"

    def build(script: str) -> str:
        folder = tmp_path / "faulty"
        folder.mkdir()
        (folder / "start.sh").write_text(
            f'#!/bin/sh\nif [ "$1 $2" = "stage base-evaluation" ]; then\n{script}\nfi\nexec python -m r1mm "$@"\n'
        )
        (folder / "start.sh").chmod(0o755)
        (folder / "Dockerfile").write_text('FROM r1mm-cpu\nCOPY start.sh /start.sh\nENTRYPOINT ["/start.sh"]\n')
        docker.buildx.build(folder, tags=tag, load=True, progress=False)
        return tag

    yield build
    docker.image.remove(tag, force=True)


def test_a_stage_that_exits_37_and_the_next_start_goes_on(
    recipe: Path, image: Image, image_with: Callable[[str], str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    result = reproduce(recipe, runs, "--image", image_with("printf 'out of ideas, caf\\351\\n' >&2; exit 37"))
    failed(result, "stage base-evaluation ended with status 37; the same command goes on")
    assert "out of ideas" in result.stderr
    assert half_written(runs) == []
    result = reproduce(recipe, runs, "--image", image.id)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 2


@pytest.mark.parametrize("whom", ["terminal", "process", "terminate"])
def test_ctrl_c_in_training_keeps_the_checkpoint_and_the_next_start_goes_on_from_it(
    recipe: Path, image: Image, tmp_path: Path, whom: str
) -> None:
    # Long enough to be met in the middle: it is stopped after the first checkpoint.
    long = tiny_recipe(tmp_path / "recipes", {"warm_start.max_steps": 100, "warm_start.save_steps": 10})
    runs = tmp_path / "runs"
    process = start("reproduce", long, "--runs", runs, "--image", image.id)
    lines = read_until(process, "[2/7] warm-start")
    stage = runs / "tiny" / "base-seed1" / "stages" / "warm-start"
    while not list(stage.glob("checkpoint-*/sealed.json")):
        assert process.poll() is None, "".join(lines)
        time.sleep(0.05)
    result = stopped(process, lines, whom)
    assert "stopping stage warm-start" in result.stderr
    assert "r1mm: stopped; the same command goes on from here" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(stage.glob("checkpoint-*/sealed.json"))
    assert not (stage / "record.json").exists()
    assert half_written(runs) == []
    if whom == "terminal":
        result = reproduce(long, runs, "--image", image.id)
        assert result.returncode == 0, result.stderr
        first = next(line for line in result.stderr.splitlines() if line.startswith("warm start:"))
        assert int(first.split("%")[0].split()[-1]) >= 10, first


@pytest.mark.parametrize("whom", ["terminal", "process", "terminate"])
def test_a_build_that_is_stopped(recipe: Path, docker: DockerClient, image: Image, tmp_path: Path, whom: str) -> None:
    # Wheels of our own make the packages' layer a new one, so that there is something to interrupt.
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "note.txt").write_text(str(time.time()))
    before = {str(found.id) for found in docker.image.list()}
    runs, wheels = tmp_path / "runs", str(tmp_path / "wheels")
    process = start("reproduce", recipe, "--runs", runs, "--launch", "compose", WHEELS=wheels)
    lines = read_until(process, "image r1mm-cpu: [")
    result = stopped(process, lines, whom)
    assert "Traceback" not in result.stderr
    assert not (runs / "tiny").exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if f"wheels={wheels}" in (p.info["cmdline"] or [])]
    assert {str(found.id) for found in docker.image.list()} == before


def test_a_stage_does_not_eat_the_callers_input(recipe: Path, image: Image, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r1mm", "reproduce", str(recipe), "--runs", str(tmp_path), "--image", image.id]
    result = subprocess.run(
        ["sh", "-c", '"$@" >&2; cat', "sh", *command],
        input="for the next command",
        capture_output=True,
        text=True,
        env={**os.environ, "R1MM_MEMORY": "200m"},
        check=True,
    )
    assert "memory limit" in result.stderr
    assert result.stdout == "for the next command"


def test_no_room_in_the_run_directory(recipe: Path, image: Image, tmp_path: Path) -> None:
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    runs = tmp_path / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(runs)], check=True)
    try:
        refused(reproduce(recipe, runs, "--image", image.id), "the disk of", "is full", "free some space")
        assert list(runs.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=1020m", str(runs)], check=True)
        process = start("reproduce", recipe, "--runs", runs, "--image", image.id)
        lines = read_until(process, "[2/7] warm-start")
        with (runs / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, os.statvfs(runs).f_bavail * 4096 - 40_000)
        result = finish(process, lines)
        failed(result, "stage warm-start ended with status 1")
        assert "r1mm: failed: the disk is full: /runs/" in result.stderr
        assert half_written(runs) == []
        (runs / "ballast").unlink()
        result = reproduce(recipe, runs, "--image", image.id)
        assert result.returncode == 0, result.stderr
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


class Between:
    """A socket between client and engine that can be cut: what a client sees of an engine that stops."""

    def __init__(self, path: Path, engine: str) -> None:
        self.engine = engine.removeprefix("unix://")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(64)
        self.ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.engine)
                self.ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.socket.close()
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()


def test_an_engine_that_stops_while_a_stage_runs(
    recipe: Path, image: Image, docker: DockerClient, tmp_path: Path
) -> None:
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not engine.startswith("unix://"):
        pytest.skip("the engine is not on a socket of this machine")
    runs, path = tmp_path / "runs", tmp_path / "s"
    between = Between(path, engine)
    process = start("reproduce", recipe, "--runs", runs, "--image", image.id, DOCKER_HOST=f"unix://{path}")
    lines = read_until(process, "[2/7] warm-start")
    while not leavings(docker):
        time.sleep(0.05)
    between.cut()
    path.unlink()
    result = finish(process, lines)
    failed(result, "the container engine stopped while stage warm-start ran", "start the engine and the same command")
    assert half_written(runs) == []
    # The container lives on, out of reach, as after a cut to an engine elsewhere: the next start removes it first.
    assert len(leavings(docker)) == 1
    result = reproduce(recipe, runs, "--image", image.id)
    assert result.returncode == 0, result.stderr
    assert "which an earlier start left behind" in result.stderr


def test_a_killed_driver_leaves_a_container_that_nobody_joins_and_the_next_start_removes(
    image: Image, docker: DockerClient, tmp_path: Path
) -> None:
    long = tiny_recipe(tmp_path / "recipes", {"warm_start.max_steps": 250, "warm_start.save_steps": 50})
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    process = start("reproduce", long, "--runs", runs, "--image", image.id)
    lines = read_until(process, "[2/7] warm-start")
    while not (runs / "tiny" / "base-seed1" / "stages" / "warm-start" / "started.json").exists():
        assert process.poll() is None, "".join(lines)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    result = reproduce(long, runs, "--launch", "local")
    assert result.returncode == 2, result.stderr
    assert re.search(r"stages/warm-start is in use by process \d+ of [0-9a-f]{12}; wait for it, end it", result.stderr)
    result = reproduce(long, runs, "--image", image.id)
    assert result.returncode == 0, result.stderr
    assert "which an earlier start left behind" in result.stderr
    assert reproduce(long, undisturbed).returncode == 0
    assert content(runs / RUN) == content(undisturbed / RUN)


def test_containers_of_others_are_left_alone(recipe: Path, image: Image, docker: DockerClient, tmp_path: Path) -> None:
    other = docker.container.create("r1mm-cpu", ["--help"], labels={"r1mm.runs": "another"}, name="r1mm-another")
    try:
        result = reproduce(recipe, tmp_path, "--image", image.id, R1MM_MEMORY="200m")
        assert result.returncode == 1
        assert docker.container.exists("r1mm-another")
    finally:
        other.remove(force=True)
