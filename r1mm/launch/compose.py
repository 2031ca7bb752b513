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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from python_on_whales import DockerClient, DockerException
from python_on_whales.exceptions import NoSuchContainer

from r1mm.data.access import LOCAL_VARIABLE, UPSTREAM_VARIABLE
from r1mm.errors import BadInput, StageFailed
from r1mm.gpus import gpus
from r1mm.launch.engine import Engine, answers, client, find_engine, in_our_words, last_words, output_of, require_local
from r1mm.launch.images import Image, build, held, require_evaluator
from r1mm.launch.place import Say, StageCall, stage_environment
from r1mm.manifest import IMAGE_VARIABLE, code_version, git_state
from r1mm.processes import Terminated, end_docker_children, nothing_to_read
from r1mm.progress import LOG_SECONDS
from r1mm.progress import VARIABLE as PROGRESS_VARIABLE

_RUNS, _RECIPES, _ASSETS = Path("/runs"), Path("/recipes"), Path("/assets")
_LABEL = "r1mm.runs"
# Which service runs which stage of a recipe that needs GPUs; all others run in `trainer`.
_EVALUATOR_STAGES = ("base-evaluation", "evaluation")
_PROFILES = {"cpu": "cpu", "trainer": "gpu", "evaluator": "gpu", "dashboard": "dashboard"}
# Settings of this process that a stage is given too: mirrors, and where a vLLM server listens.
_PASSED_ON = (UPSTREAM_VARIABLE, "R1MM_ROLLOUT_SERVER", "HF_HUB_OFFLINE")
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
            elif "100%|" in text or time.monotonic() - self.shown_at >= LOG_SECONDS:
                print(text[1:], file=sys.stderr)
                self.shown_at = time.monotonic()
        else:
            self.close()
            if text and not text.startswith("Error response from daemon"):  # that comes again, with what to do
                print(text, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Leave what a bar shows, for what is said next."""
        if self.drawn:
            sys.stderr.write("\n")
            self.drawn = False


def _caller(engine: Engine) -> str:
    """The uid and gid that own what a stage writes: those of this process, which writes beside it.

    Raises BadInput where the engine maps users so that no uid inside is this one outside.
    """
    names = {option.removeprefix("name=").partition(",")[0] for option in engine.security}
    if "rootless" in names:
        return "0:0"  # a rootless engine's root is the user who runs it
    if "userns" in names:
        raise BadInput(
            "this engine maps users (userns-remap), so that a stage could not write your run directory; use an engine "
            "without it, a rootless one, or --launch local"
        )
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
            volumes = [(call.recipe, target, "ro,z")]
            inside = dataclasses.replace(inside, recipe=target)
        environment = stage_environment(call)
        environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if assets := os.environ.get(LOCAL_VARIABLE):
            volumes.append((assets, str(_ASSETS), "ro,z"))
            environment[LOCAL_VARIABLE] = str(_ASSETS)
        return self._one_shot(
            service,
            ["stage", *inside.arguments()],
            title=f"stage {call.stage}",
            labels=labels,
            environment=environment,
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
        os.environ["R1MM_NETWORK"] = container  # its own, so that runs side by side cannot take it from each other
        docker, screen = client(gpu=self.promised_gpus > 0, profile=_PROFILES[service]), _Screen()
        environment |= {
            IMAGE_VARIABLE: self.image.id,
            PROGRESS_VARIABLE: "lines",
            "COLUMNS": str(shutil.get_terminal_size((120, 24)).columns),
        }
        said = False
        try:
            with nothing_to_read():
                lines: Any = docker.compose.run(
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
                for _, line in lines:
                    said = True
                    screen.show(line.decode(errors="replace"))
            return self._ended(docker, container, title, None, said)
        except (DockerException, UnicodeDecodeError) as error:  # the latter: python-on-whales, of a stage's last words
            return self._ended(docker, container, title, error if isinstance(error, DockerException) else None, said)
        except (KeyboardInterrupt, Terminated):
            self._stop(docker, container, title)
            raise
        finally:
            screen.close()
            with contextlib.suppress(DockerException):
                docker.container.remove(container, force=True, volumes=True)
            _remove_network(docker, container)

    def _ended(
        self, docker: DockerClient, container: str, title: str, error: DockerException | None, said: bool
    ) -> int:
        """The exit status of a container that has ended; StageFailed when it was not the stage that ended it.

        `said`: whether any output had come from it, or about it.
        """
        gone = (
            f"the container engine stopped while {title} ran; its last checkpoint is kept: start the engine and the "
            "same command again, which removes the container left behind and goes on"
        )
        try:
            found = docker.container.inspect(container)
        except NoSuchContainer as missing:
            reason = last_words(error) if error else "the engine gave no reason"
            if said and error is not None and "Error response from daemon" not in reason:
                raise StageFailed(f"{title}: something else removed its container while it ran") from missing
            raise StageFailed(f"{title} could not be started: {reason}") from missing
        except DockerException as inspection:
            raise StageFailed(gone if not answers() else f"{title}: {last_words(inspection)}") from inspection
        state = found.state
        if state.status == "created" or state.error:
            raise StageFailed(f"{title} could not be started: {state.error or (last_words(error) if error else '?')}")
        status = int(state.exit_code or 0)
        if status and state.oom_killed:
            limit = found.host_config.memory or 0
            raise StageFailed(
                f"{title} was killed because it reached its memory limit "
                f"({f'{limit / 2**30:.3g} GB' if limit else 'all that the host has'}); set R1MM_MEMORY to more (for "
                "example R1MM_MEMORY=12g), or free memory on the host"
            )
        if not answers() and (status in _SIGNALLED or error is not None):
            raise StageFailed(gone)
        if error is not None and not status:
            raise StageFailed(f"{title}: the docker command failed after it: {last_words(error)}")
        return status

    def _stop(self, docker: DockerClient, container: str, title: str) -> None:
        """End a stage as Ctrl-C would, and wait for it; a second Ctrl-C ends it at once."""
        # The command that shows the container's output goes first: it could still be about to start the container.
        end_docker_children("compose")
        self.say(f"stopping {title}; Ctrl-C again to stop it at once")
        with contextlib.suppress(DockerException, KeyboardInterrupt):
            docker.container.stop(container)  # its signal and its time to end are compose.yaml's

    def _remove_leftovers(self, labels: dict[str, str]) -> None:
        """Remove containers that a killed start of the same recipe left in this folder of runs; we hold its locks."""
        with in_our_words("looking for containers left behind"):
            filters: Any = {"label": f"{_LABEL}={labels[_LABEL]}"}
            for left in client().container.list(all=True, filters=filters):
                name = left.name  # not to be asked for once it is gone
                self.say(f"removing container {name}, which an earlier start left behind")
                left.remove(force=True, volumes=True)
                _remove_network(client(), name)


def _remove_network(docker: DockerClient, container: str) -> None:
    """Remove the network that compose made for one container, which bears its name; the CPU service has none."""
    with contextlib.suppress(DockerException):
        docker.network.remove(container)


def facts_of(image: Image, *, ask_cuda: bool = False) -> dict[str, Any]:
    """What a container of this image says a stage would run in: `r1mm facts`, with all GPUs if `ask_cuda`.

    Raises BadInput when the image is none of ours.
    """
    with in_our_words(f"starting image {image.id[:19]} to ask what it holds"):
        text = output_of(
            image.id,
            ["facts", "--json", *(["--gpus"] if ask_cuda else [])],
            envs={IMAGE_VARIABLE: image.id},
            gpus="all" if ask_cuda else None,
            tmpfs=[Path("/tmp")],
        )
    try:
        found: dict[str, Any] = json.loads(text)
        if not found.keys() >= {"code", "packages", "lock_sha256"}:
            raise ValueError("it names no code or packages")
    except ValueError as error:
        raise BadInput(f"image {image.id[:19]} is none of r1mm's ({error}); leave --image out to build one") from error
    return found


def prepare(runs: Path, *, wanted_gpus: int, image: str | None, say: Say, lmms: bool = False) -> Compose:
    """Containers for stages below `runs`: the image built from this tree, or the one named, checked to hold this code.

    `lmms`: the recipe has tasks of lmms-eval.  The evaluator image, which is the trainer's and more, is that of all its
    stages then, so that a run is of one image.

    Raises BadInput when engine, image or settings cannot be used, StageFailed when the image cannot be built.
    """
    require_local()
    if lmms and not wanted_gpus:
        raise BadInput(
            "this recipe has tasks of lmms-eval, and the image without GPUs has none of it; use --launch local with "
            "R1MM_EVALUATOR_PYTHON, or a machine with GPUs"
        )
    engine = find_engine()
    user = _caller(engine)
    token = token_file() if wanted_gpus else None
    kind = "cpu" if not wanted_gpus else "evaluator" if lmms else "trainer"
    found = held(client(), image) if image else build(kind, say)
    if found is None:
        raise BadInput(f"this engine holds no image {image}; pull it, or leave --image out to build one")
    if image and lmms:
        require_evaluator(found, image)
    facts = facts_of(found)
    if facts.pop("code") != code_version(["."]):
        raise BadInput(
            f"image {image} holds another version of r1mm's code (built from {found.as_dict()['revision']}); check "
            "that revision out, or leave --image out to build one from this tree"
        )
    if found.labels.get("r1mm.lock.sha256") != facts["lock_sha256"]:
        raise BadInput(
            f"image {image or kind} holds a lock of sha256 {facts['lock_sha256']}, its label says "
            f"{found.labels.get('r1mm.lock.sha256')}; build it with `make images`, which labels it"
        )
    if wanted_gpus and not os.environ.get("R1MM_MEMORY"):
        os.environ["R1MM_MEMORY"] = str(engine.memory_bytes * 9 // 10)
    os.environ |= {
        **{f"R1MM_{name}_IMAGE": found.id for name in (("TRAINER", "EVALUATOR") if wanted_gpus else ("CPU",))},
        "R1MM_RUNS": str(runs),
        "R1MM_USER": user,
        "R1MM_CACHES": f"r1mm-{os.getuid()}",  # a volume belongs to the uid that first writes it
        "HF_TOKEN_FILE": str(token or "/dev/null"),
        **({"R1MM_GPUS": str(wanted_gpus)} if wanted_gpus else {}),
    }
    say(f"containers: {runs} is {_RUNS} in them, stages run as uid:gid {user}")
    return Compose(runs=runs, promised_gpus=wanted_gpus, say=say, image=found, engine=engine.as_dict(), facts=facts)
