"""The images: what they are made of, building them with buildx, and what an image says of itself."""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from python_on_whales import DockerClient, DockerException
from python_on_whales.exceptions import NoSuchImage

from r1mm.errors import BadInput, StageFailed
from r1mm.launch.engine import answers, client, in_our_words
from r1mm.launch.place import Say
from r1mm.manifest import ROOT, git_state
from r1mm.processes import end_docker_children
from r1mm.rundir import sha256_file


@dataclass(frozen=True)
class ImageSource:
    """What an image is made of, and what it needs in bytes on the engine's disk while it is built.

    `lock` is of the environment that r1mm runs in, `beside` those of others in the image.
    """

    tag: str
    dockerfile: Path
    lock: Path
    needed_bytes: int
    beside: tuple[Path, ...] = ()

    def digest(self) -> str:
        """sha256 over the files that decide what is below the code in the image; the base has a digest of its own."""
        whole = hashlib.sha256()
        others = (DOCKER / "install.sh", *(DOCKER / "locks" / f"{name}.txt" for name in ("bootstrap", "sbom", "build")))
        for path in (self.dockerfile, self.lock, *self.beside, *others):
            whole.update(f"{path.name}\0{sha256_file(path)}\n".encode())
        return whole.hexdigest()


DOCKER = ROOT / "docker"
IMAGES = {
    "cpu": ImageSource("r1mm-cpu", DOCKER / "cpu.Dockerfile", DOCKER / "locks" / "cpu.txt", 14_000_000_000),
    "trainer": ImageSource("r1mm-trainer", DOCKER / "trainer.Dockerfile", DOCKER / "locks" / "gpu.txt", 35_000_000_000),
    "evaluator": ImageSource(
        "r1mm-evaluator",
        DOCKER / "evaluator.Dockerfile",
        DOCKER / "locks" / "gpu.txt",
        45_000_000_000,
        (DOCKER / "locks" / "evaluator.txt",),
    ),
}


@dataclass(frozen=True)
class Image:
    """An image that the engine holds."""

    id: str
    repo_digests: tuple[str, ...]
    labels: dict[str, str]
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        label = "org.opencontainers.image."
        return {
            "id": self.id,
            "repo_digests": list(self.repo_digests),
            "base_name": self.labels.get(f"{label}base.name"),
            "base_digest": self.labels.get(f"{label}base.digest"),
            "revision": self.labels.get(f"{label}revision"),
            "lock_sha256": self.labels.get("r1mm.lock.sha256"),
            "source_sha256": self.labels.get("r1mm.source.sha256"),
            "bytes": self.bytes,
        }


def require_evaluator(image: Image, name: str) -> None:
    """Raise BadInput where an image that was named is not the evaluator's, which alone has lmms-eval."""
    title = image.labels.get("org.opencontainers.image.title")
    if title != IMAGES["evaluator"].tag:
        raise BadInput(
            f"this recipe has tasks of lmms-eval, which image {name} ({title or 'without a title'}) lacks; name one "
            f"that `make image-evaluator` made ({IMAGES['evaluator'].tag}), or leave --image out to build it"
        )


def default_base(kind: str) -> str:
    """The base that a Dockerfile pins."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", IMAGES[kind].dockerfile.read_text(), re.MULTILINE)
    assert found, f"{IMAGES[kind].dockerfile} names no BASE_IMAGE"
    return found.group(1)


def asked_base(kind: str) -> str:
    """The base to build on: BASE_IMAGE from the environment, or the one that the Dockerfile pins."""
    return os.environ.get("BASE_IMAGE") or default_base(kind)


def held(docker: DockerClient, reference: str) -> Image | None:
    """The image of that name or id, if the engine holds it."""
    with in_our_words(f"looking for image {reference}"):
        try:
            found = docker.image.inspect(reference)
        except NoSuchImage:
            return None
        return Image(
            str(found.id), tuple(found.repo_digests or ()), dict(found.config.labels or {}), int(found.size or 0)
        )


def resolve_base(docker: DockerClient, kind: str) -> tuple[str, str]:
    """The base to build on and its digest.  BadInput when it is not what its digest says, or has none to go by."""
    asked = asked_base(kind)
    name, _, digest = asked.partition("@")
    local = held(docker, name)
    if not digest:
        if local is None:
            raise BadInput(
                f"base image {asked} has no digest and this engine does not hold it; name one the engine holds, or pin "
                f"it: BASE_IMAGE={asked}@sha256:..."
            )
        return asked, local.id
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise BadInput(f"base image {asked}: {digest!r} is no digest; give NAME@sha256: and 64 hexadecimal digits")
    held_as = {held.partition("@")[2] for held in local.repo_digests} | {local.id} if local is not None else set()
    if local is not None and held_as == {local.id}:
        # Made on this engine, never pulled: its id is the only digest it has, and no registry knows the name.
        if local.id != digest:
            raise BadInput(
                f"base image {name} does not match its digest: asked for {digest}, this engine holds {local.id}; "
                "correct BASE_IMAGE, or make or pull the image that was meant"
            )
        return name, digest
    return asked, digest


def _secret(variable: str) -> Path | None:
    text = os.environ.get(variable)
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise BadInput(f"{variable}={text}: there is no such file")
    return path.resolve()


def _wheels() -> dict[str, str]:
    text = os.environ.get("WHEELS")
    if not text:
        return {}
    if not Path(text).expanduser().is_dir():
        raise BadInput(f"WHEELS={text}: there is no such folder")
    return {"wheels": str(Path(text).expanduser().resolve())}


class _BuildOutput:
    """What buildx says, one live line on a terminal and a line per step in a log; the end of it for an error."""

    def __init__(self, title: str) -> None:
        self.title, self.live = title, sys.stderr.isatty()
        self.kept: deque[str] = deque(maxlen=30)
        self.steps: dict[str, str] = {}

    def take(self, line: str) -> None:
        line = line.rstrip()
        if not line:
            return
        self.kept.append(line)
        if self.live:
            sys.stderr.write(f"\r\x1b[2K{self.title}: {line}"[:160])
            sys.stderr.flush()
            return
        number, _, text = line.partition(" ")
        if text.startswith("["):
            self.steps[number] = text
        elif re.match(r"\d+\.\d+ ", text) and number in self.steps:  # at work, not found in the cache
            words = (word for word in self.steps.pop(number).split() if not word.startswith("--mount="))
            print(f"{self.title}: {' '.join(words)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _revision() -> str:
    state = git_state()
    return "unknown" if state is None else state["commit"] + ("-dirty" if state["dirty"] else "")


def build(kind: str, say: Say) -> Image:
    """Build an image from this tree.  A second build of the same tree takes a second and gives the same id.

    From the environment: BASE_IMAGE (another base), CA_BUNDLE (certificates of a proxy), WHEELS (a folder of packages).

    Raises BadInput for a base, file or folder that cannot be used, StageFailed when the build does not succeed.
    """
    source, docker = IMAGES[kind], client()
    base, digest = resolve_base(docker, kind)
    ca_bundle, contexts = _secret("CA_BUNDLE"), _wheels()
    began, output = time.monotonic(), _BuildOutput(f"image {source.tag}")
    with tempfile.TemporaryDirectory() as folder, in_our_words(f"building image {source.tag}"):
        metadata = Path(folder) / "metadata.json"
        lines = docker.buildx.build(
            ROOT,
            file=source.dockerfile,
            build_args={
                "BASE_IMAGE": base,
                "BASE_DIGEST": digest,
                "LOCK_SHA256": sha256_file(source.lock),
                "SOURCE_SHA256": source.digest(),
                "REVISION": _revision(),
            },
            build_contexts=contexts,  # type: ignore[arg-type]
            secrets=[f"id=ca_bundle,src={ca_bundle}"] if ca_bundle else [],
            tags=source.tag,
            load=True,
            provenance=False,
            metadata_file=metadata,
            progress="plain",
            stream_logs=True,
        )
        try:
            for line in lines:  # type: ignore[union-attr]
                output.take(str(line))
        except DockerException as error:
            output.close()
            if not answers():
                raise
            for line in output.kept:
                say(f"    {line}")
            raise StageFailed(
                f"image {source.tag} could not be built on {base} (see above); behind a proxy that inspects TLS set "
                "CA_BUNDLE to its certificates, without a package index set WHEELS to a folder of packages"
            ) from error
        except UnicodeDecodeError as error:
            raise StageFailed(f"image {source.tag} could not be built on {base} (see above)") from error
        finally:
            output.close()
            end_docker_children("buildx")
        made = json.loads(metadata.read_text())
    # An image's id is its manifest's digest in the containerd store, and its configuration's in the classic one.
    digests = (made.get("containerimage.digest"), made.get("containerimage.config.digest"))
    image = next((found for name in digests if name and (found := held(docker, name))), None)
    if image is None:
        raise StageFailed(f"image {source.tag} was built but the engine does not hold it; is its disk full?")
    took = time.monotonic() - began
    say(f"image {source.tag}: {image.id[:19]}, {image.bytes / 1e9:.1f} GB, {took:.1f} s, base {base}")
    return image
