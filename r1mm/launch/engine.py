"""The container engine: whether one answers, what it is, whether it hands GPUs over.  Its refusals in our words.

Everything goes through python-on-whales, which drives the `docker` command line.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from python_on_whales import DockerClient, DockerException
from python_on_whales.client_config import ClientNotFoundError

from r1mm.errors import BadInput, StageFailed
from r1mm.manifest import ROOT

# The oldest that this code has been run with.
OLDEST = {"engine": (26, 1), "api": (1, 45), "compose": (2, 26), "buildx": (0, 13)}
PROJECT = "r1mm"
COMPOSE_FILE = ROOT / "compose.yaml"
GPU_FILE = ROOT / "docker" / "compose.gpu.yaml"


class NoEngine(BadInput):
    """No engine answers, or the user may not talk to it."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers.  Versions as it reports them; `root` is its data folder on its host."""

    engine: str
    api: str
    compose: str
    buildx: str
    storage_driver: str
    root: str
    kernel: str
    operating_system: str
    memory_bytes: int
    security: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {**asdict(self), "security": list(self.security)}


def client(*, gpu: bool = False, profile: str | None = None) -> DockerClient:
    """A client of the engine that DOCKER_HOST or the current context names, with our compose files."""
    return DockerClient(
        compose_files=[COMPOSE_FILE, *([GPU_FILE] if gpu else [])],
        compose_profiles=[profile] if profile else [],
        compose_project_name=PROJECT,  # whatever COMPOSE_PROJECT_NAME says
        compose_project_directory=ROOT,
    )


def last_words(error: DockerException) -> str:
    """What the docker command gave as its reason: the engine's own line, or else its last."""
    lines = [line.strip() for line in (error.stderr or "").splitlines() if line.strip()]
    engines = [line for line in lines if "Error response from daemon" in line]
    return (engines or lines or [f"`docker` ended with status {error.return_code} and said nothing"])[-1]


def answers() -> bool:
    """Whether the engine answers at this moment.  What a build or a stage wrote is no evidence either way."""
    try:
        return client().version().server is not None
    except (DockerException, ClientNotFoundError):
        return False


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or "the socket of docker's current context (DOCKER_HOST is not set)"


def require_local() -> None:
    """Raise BadInput for an engine on another machine: a run directory here cannot be mounted there."""
    scheme, _, rest = os.environ.get("DOCKER_HOST", "").partition("://")
    if scheme == "ssh" or (scheme == "tcp" and rest.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]")):
        raise BadInput(
            f"the container engine at {_address()} is on another machine, which cannot mount run directories of "
            "this one; start r1mm there"
        )


@contextlib.contextmanager
def in_our_words(doing: str) -> Iterator[None]:
    """Turn the engine's refusals while `doing` something into one clear error."""
    try:
        yield
    except ClientNotFoundError as error:
        raise NoEngine(
            "there is no `docker` command on PATH; install Docker with its compose and buildx plugins, or run without "
            "containers: --launch local (make: LAUNCH=local)"
        ) from error
    except DockerException as error:
        said = last_words(error)
        if "permission denied" in said.lower() and "socket" in said.lower():
            raise NoEngine(
                f"you may not talk to the container engine at {_address()} ({said}); join its group (usually `docker`) "
                "or use a rootless engine, or run without containers: --launch local (make: LAUNCH=local)"
            ) from error
        if not answers():
            raise _silent(said) from error
        raise StageFailed(f"{doing}: {said}") from error


def _silent(said: str) -> NoEngine:
    return NoEngine(
        f"no container engine answers at {_address()} ({said}); start it, or point DOCKER_HOST at one, or run without "
        "containers: --launch local (make: LAUNCH=local)"
    )


def _plugin_version(text: str) -> str:
    found = re.search(r"\bv?(\d+\.\d+(?:\.\d+)?\S*)", text)
    return found.group(1) if found else text.strip()


def parse_version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, as many as it has."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(map(int, found.group(1).split("."))) if found else ()


def too_old(name: str, version: str) -> bool:
    """Whether a part of the engine is older than any that this code has been run with."""
    return parse_version(version)[:2] < OLDEST[name]


def _plugin(name: str, call: Any) -> str:
    try:
        return _plugin_version(str(call()))
    except DockerException:
        return "none"


def find_engine() -> Engine:
    """The engine that answers.  Raises NoEngine, with what to do, when none does."""
    docker = client()
    with in_our_words("asking the container engine for its version"):
        version = docker.version()
        info = docker.info()
        if version.server is None or not version.server.version:
            # The command line answers without an engine, and puts the reason among its warnings.
            raise _silent("it gives no version")
        return Engine(
            engine=str(version.server.version),
            api=str(version.server.api_version),
            compose=_plugin("compose", docker.compose.version),
            buildx=_plugin("buildx", docker.buildx.version),
            storage_driver=str(info.driver),
            root=str(info.docker_root_dir),
            kernel=str(info.kernel_version),
            operating_system=str(info.operating_system),
            memory_bytes=int(info.mem_total or 0),
            security=tuple(info.security_options or ()),
        )


def output_of(image: str, command: list[str], **options: Any) -> str:
    """What a command writes to standard output in a container of its own, confined as a stage is and without network.

    Raises DockerException with what it wrote to standard error when it does not end with status 0.
    """
    lines: Any = client().run(
        image,
        command,
        cap_drop=["ALL"],
        security_options=["no-new-privileges:true"],
        read_only=True,
        networks=["none"],
        memory="4g",
        pids_limit=512,
        labels={"r1mm.probe": "1"},
        pull="never",
        remove=True,
        stream=True,
        **options,
    )
    return b"".join(line for source, line in lines if source == "stdout").decode()


# What engines say when they have no GPU runtime: device requests, CDI, a runtime by name.
_NO_GPUS = re.compile(
    r"could not select device driver|unresolvable CDI|CDI device injection failed|unknown or invalid runtime",
    re.IGNORECASE,
)


def gives_gpus() -> tuple[bool, str]:
    """Whether the engine would hand GPUs to a container, and what it said.

    Asked with an empty image, so that nothing need be built or pulled first: an engine with a GPU runtime gets as far
    as finding no program in it, one without refuses the device request before that.  Another complaint, say of a
    runtime's hook about an empty file system, decides nothing: a stage asserts itself that it sees its GPUs.
    """
    docker = client()
    with in_our_words("asking the container engine for GPUs"), tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.tar"
        empty.write_bytes(bytes(10240))
        image = docker.image.import_(empty, tag=f"r1mm-probe:{Path(folder).name.lower()}")
        try:
            output_of(image.id, ["/none"], gpus="all")
        except DockerException as error:
            if not answers():
                raise
            said = last_words(error)
            if _NO_GPUS.search(said):
                return False, said
            return True, "" if "/none" in said else said
        finally:
            with contextlib.suppress(DockerException):
                image.remove(force=True)
        return True, "an empty image ran"
