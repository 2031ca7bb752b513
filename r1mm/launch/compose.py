"""Stages as one-shot services of compose.yaml: built, run, watched and removed through python-on-whales."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from python_on_whales import DockerClient, DockerException
from python_on_whales.exceptions import NoSuchContainer

from r1mm.errors import BadInput, StageFailed
from r1mm.gpus import gpus
from r1mm.launch.engine import NoEngine, client, find_engine, in_our_words, is_gone, last_words, output_of
from r1mm.launch.images import Image, build, held
from r1mm.launch.place import Say, StageCall, stage_environment
from r1mm.manifest import IMAGE_VARIABLE, code_version, git_state
from r1mm.processes import Terminated
from r1mm.progress import VARIABLE as PROGRESS_VARIABLE

_RUNS, _RECIPES = Path("/runs"), Path("/recipes")
_LABEL = "r1mm.runs"
_GRACE_SECONDS = 30
_LOG_SECONDS = 10.0
# Which service runs which stage of a recipe that needs GPUs; all others run in `trainer`.
_EVALUATOR_STAGES = ("base-evaluation", "evaluation")
_PROFILES = {"cpu": "cpu", "trainer": "gpu", "evaluator": "gpu", "dashboard": "dashboard"}
# Ended by SIGINT, SIGKILL or SIGTERM, as an engine that shuts down ends its containers.
_SIGNALLED = (130, 137, 143)


class _Screen:
    """Shows a stage's lines on standard error: its bars live on a terminal, one line in ten seconds in a log."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.drawn = False
        self.shown_at = 0.0

    def show(self, line: str) -> None:
        text = line.rstrip("\n")
        if text.startswith("\r"):
            if self.live:
                sys.stderr.write(f"\r\x1b[2K{text[1:]}")
                self.drawn = True
            elif "100%|" in text or time.monotonic() - self.shown_at >= _LOG_SECONDS:
                print(text[1:], file=sys.stderr)
                self.shown_at = time.monotonic()
        else:
            if self.drawn:
                sys.stderr.write("\n")
                self.drawn = False
            if text and not text.startswith("Error response from daemon"):  # that comes again, with what to do
                print(text, file=sys.stderr)
        sys.stderr.flush()


def _caller() -> str:
    """The uid and gid that own what a stage writes: those of this process, which writes beside it."""
    return f"{os.getuid()}:{os.getgid()}"


def token_file() -> Path | None:
    """The file with the hub's token, if one is named.  BadInput when it is not there or holds nothing."""
    text = os.environ.get("HF_TOKEN_FILE")
    if not text:
        return None
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise BadInput(f"HF_TOKEN_FILE={text}: there is no such file; write the hub's token into it, or unset it")
    if not path.stat().st_size:
        raise BadInput(f"HF_TOKEN_FILE={text}: the file is empty; write the hub's token into it, or unset it")
    return path


def _docker_children() -> Iterator[psutil.Process]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "compose" in child.cmdline():
                yield child


@dataclass
class Compose:
    """Containers of one image below one folder of runs.  `promised_gpus` 0: the CPU service."""

    runs: Path
    promised_gpus: int
    say: Say
    image: Image
    engine: dict[str, Any]
    facts: dict[str, Any]

    def surroundings(self) -> dict[str, Any]:
        """What the container says it runs in, what image, engine and GPUs are, and the tree it was started from."""
        return {
            **self.facts,
            "git": git_state(),
            "gpus": gpus(),
            "image": self.image.as_dict(),
            "engine": self.engine,
        }

    def run_stage(self, call: StageCall) -> int:
        """Run one stage as a one-shot service and return its own exit status.

        Raises StageFailed when it could not be started, was killed for memory, or the engine stopped meanwhile.
        """
        labels = {_LABEL: hashlib.sha256(f"{self.runs}/{call.recipe_name}".encode()).hexdigest()[:16]}
        self._remove_leftovers(labels)
        service = "cpu" if not self.promised_gpus else "evaluator" if call.stage in _EVALUATOR_STAGES else "trainer"
        inside = dataclasses.replace(call, runs=_RUNS)
        volumes: list[Any] = []
        if Path(call.recipe).is_absolute():
            target = str(_RECIPES / call.recipe_name)  # a recipe's folder bears its name
            volumes = [(call.recipe, target, "ro")]
            inside = dataclasses.replace(inside, recipe=target)
        return self._one_shot(
            service,
            ["stage", *inside.arguments()],
            title=f"stage {call.stage}",
            labels=labels,
            environment=stage_environment(call.threads, offline=call.offline),
            volumes=volumes,
        )

    def run_dashboard(self) -> int:
        """Serve the dashboard until it is stopped."""
        return self._one_shot("dashboard", [], title="the dashboard", labels={}, environment={}, volumes=[])

    def _one_shot(
        self,
        service: str,
        command: list[str],
        *,
        title: str,
        labels: dict[str, str],
        environment: dict[str, str],
        volumes: list[Any],
    ) -> int:
        container = f"r1mm-{service}-{uuid.uuid4().hex[:12]}"
        docker, screen = client(gpu=self.promised_gpus > 0, profile=_PROFILES[service]), _Screen()
        environment |= {
            IMAGE_VARIABLE: self.image.id,
            PROGRESS_VARIABLE: "lines",
            "COLUMNS": str(shutil.get_terminal_size((120, 24)).columns),
        }
        with _project_network_removed(docker):
            try:
                lines = docker.compose.run(
                    service,
                    command,
                    name=container,
                    labels=labels,
                    envs=environment,
                    volumes=volumes,
                    dependencies=False,
                    service_ports=service == "dashboard",
                    tty=False,
                    stream=True,
                )
                for _, line in lines:  # type: ignore[union-attr, str-unpack]
                    screen.show(line.decode(errors="replace"))  # type: ignore[union-attr]
                return self._ended(docker, container, title, None)
            except DockerException as error:
                return self._ended(docker, container, title, error)
            except (KeyboardInterrupt, Terminated):
                self._stop(docker, container, title)
                raise
            finally:
                with contextlib.suppress(DockerException):
                    docker.container.remove(container, force=True, volumes=True)

    def _ended(self, docker: DockerClient, container: str, title: str, error: DockerException | None) -> int:
        """The exit status of a container that has ended; StageFailed when it was not the stage that ended it."""
        gone = (
            f"the container engine stopped while {title} ran; its last checkpoint is kept: start the engine and the "
            "same command again, which removes the container left behind and goes on"
        )
        try:
            state = docker.container.inspect(container).state
        except NoSuchContainer:
            said = last_words(error) if error else "its container is gone"
            raise StageFailed(f"{title} could not be started: {said}") from error
        except DockerException as inspection:
            raise StageFailed(gone if is_gone(inspection) else f"{title}: {last_words(inspection)}") from inspection
        if state.oom_killed:
            raise StageFailed(
                f"{title} was killed because it reached its memory limit ({self._memory_limit(docker, container)}); "
                "set R1MM_MEMORY to more (for example R1MM_MEMORY=12g), or free memory on the host"
            )
        if state.status == "created" or state.error:
            said = state.error or (last_words(error) if error else "the engine gave no reason")
            raise StageFailed(f"{title} could not be started: {said}")
        status = int(state.exit_code or 0)
        if error is not None and status == 0:
            raise StageFailed(gone if is_gone(error) else f"{title}: {last_words(error)}")
        if status in _SIGNALLED and not self._answers():
            raise StageFailed(gone)
        return status

    def _memory_limit(self, docker: DockerClient, container: str) -> str:
        limit = docker.container.inspect(container).host_config.memory or 0
        return f"{limit / 2**30:.3g} GB" if limit else "the host's memory"

    @staticmethod
    def _answers() -> bool:
        try:
            client().version()
        except (DockerException, NoEngine):
            return False
        return True

    def _stop(self, docker: DockerClient, container: str, title: str) -> None:
        """End a stage as Ctrl-C would, and wait for it; a second Ctrl-C ends it at once."""
        # The command that shows the container's output goes first: it could still be about to start the container.
        for child in _docker_children():
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.say(f"stopping {title}; Ctrl-C again to stop it at once")
        with contextlib.suppress(DockerException, KeyboardInterrupt):
            docker.container.stop(container, time=_GRACE_SECONDS)

    def _remove_leftovers(self, labels: dict[str, str]) -> None:
        """Remove containers that a killed start of the same recipe left in this folder of runs; we hold its locks."""
        with in_our_words("looking for containers left behind"):
            filters: Any = {"label": f"{_LABEL}={labels[_LABEL]}"}
            for left in client().container.list(all=True, filters=filters):
                self.say(f"removing container {left.name}, which an earlier start left behind")
                left.remove(force=True, volumes=True)


@contextlib.contextmanager
def _project_network_removed(docker: DockerClient) -> Iterator[None]:
    """Remove the project's network again if this was what made it, and nobody else has joined it meanwhile."""
    filters: Any = {"label": "com.docker.compose.project=r1mm"}
    with in_our_words("listing the project's networks"):
        before = {network.id for network in docker.network.list(filters)}
    try:
        yield
    finally:
        with contextlib.suppress(DockerException):
            for network in docker.network.list(filters):
                if network.id not in before:
                    network.remove()


def facts_of(image: Image, *, gpus: bool = False) -> dict[str, Any]:
    """What a container of this image says a stage would run in: `r1mm facts`, with all GPUs if `gpus`."""
    with in_our_words(f"starting image {image.id[:19]} to ask what it holds"):
        text = output_of(
            image.id,
            ["facts", "--json", *(["--gpus"] if gpus else [])],
            envs={IMAGE_VARIABLE: image.id},
            gpus="all" if gpus else None,
            tmpfs=[Path("/tmp")],
        )
    found: dict[str, Any] = json.loads(text)
    return found


def prepare(runs: Path, *, wanted_gpus: int, image: str | None, say: Say) -> Compose:
    """Containers for stages below `runs`: the image built from this tree, or the one named, checked to hold this code.

    Raises BadInput when engine, image or settings cannot be used, StageFailed when the image cannot be built.
    """
    engine = find_engine()
    token = token_file() if wanted_gpus else None
    kind = "trainer" if wanted_gpus else "cpu"
    found = held(client(), image) if image else build(kind, say)
    if found is None:
        raise BadInput(f"this engine holds no image {image}; pull it, or leave --image out to build one")
    facts = facts_of(found)
    if facts.pop("code") != code_version(["."]):
        raise BadInput(
            f"image {image} holds another version of r1mm's code (built from {found.as_dict()['revision']}); check "
            "that revision out, or leave --image out to build one from this tree"
        )
    if wanted_gpus:
        os.environ.setdefault("R1MM_MEMORY", str(engine.memory_bytes * 9 // 10))
    os.environ |= {
        f"R1MM_{kind.upper()}_IMAGE": found.id,
        "R1MM_RUNS": str(runs),
        "R1MM_USER": _caller(),
        "HF_TOKEN_FILE": str(token or "/dev/null"),
        **({"R1MM_GPUS": str(wanted_gpus)} if wanted_gpus else {}),
    }
    say(f"containers: {runs} is {_RUNS} in them, stages run as uid:gid {_caller()}")
    return Compose(runs=runs, promised_gpus=wanted_gpus, say=say, image=found, engine=engine.as_dict(), facts=facts)
