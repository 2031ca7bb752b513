"""Can this machine run a recipe?  Each check says what it saw, and what to do where it is not good.

A check that the asked-for run does not need is shown, but fails nothing.
"""

import email.utils
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from r1mm.errors import BadInput, StageFailed
from r1mm.gpus import MINIMUM_CAPABILITY, MINIMUM_DRIVER, gpus
from r1mm.manifest import LOCKS, lock_here, machine
from r1mm.pipeline import MINIATURE_BYTES

_MINIATURE_MEMORY_GB = 4
_GPU_MEMORY_GB = 40  # Qwen2-VL-2B with its reference model, optimizer state and 8 completions, in bf16
_SHM_GB = 1
_CLOCK_SECONDS = 300
_WITHOUT_CONTAINERS = "or run without containers: --launch local (make: LAUNCH=local)"


@dataclass(frozen=True)
class Check:
    """One check: its name, what was seen, what to do when it is not good, and whether the run depends on it."""

    name: str
    good: bool
    seen: str
    remedy: str = ""
    needed: bool = True

    @property
    def fails(self) -> bool:
        """Whether the run cannot be started like this."""
        return self.needed and not self.good

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON."""
        return asdict(self)


def _locked_versions(lock: Path) -> dict[str, list[str]]:
    """Every pinned version by package; a package may be pinned once per Python version."""
    pins: dict[str, list[str]] = {}
    for line in lock.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, _, version = line.split(" ", 1)[0].partition("==")
            pins.setdefault(name, []).append(version)
    return pins


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    lock = lock_here()
    if lock is None:
        return Check("packages", False, f"no lock file at {LOCKS[0]}", "run r1mm from a clone of its repository")
    wrong = []
    for name, versions in _locked_versions(lock).items():
        installed = _installed(name)  # None: pinned for another platform or Python version
        if installed is not None and installed not in versions:
            wrong.append(f"{name} {installed} (locked {' or '.join(versions)})")
    missing = [name for name in ("torch", "transformers", "trl", "datasets") if _installed(name) is None]
    seen = "; ".join([*wrong, *(f"{name} is not installed" for name in missing)]) or f"as locked in {lock.name}"
    return Check("packages", not wrong and not missing, seen, "run `make setup`")


def _standing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    return place


def machine_checks(runs: Path) -> Iterator[Check]:
    """What every run needs of this machine."""
    place = _standing(runs)
    facts = machine()
    free = shutil.disk_usage(place).free
    memory = psutil.virtual_memory().available / 2**30
    cores = facts["cpu"]["cores"]
    yield Check(
        "python",
        (3, 11) <= sys.version_info[:2] <= (3, 12),
        facts["python"],
        "use Python 3.11 or 3.12: make PYTHON=python3.12 setup",
    )
    yield _packages()
    yield Check("cores", cores >= 2, f"{cores} x {facts['cpu']['model']}", "slow below 2 cores")
    yield Check(
        "memory",
        memory >= _MINIATURE_MEMORY_GB,
        f"{memory:.1f} GB available",
        f"free some: a miniature needs {_MINIATURE_MEMORY_GB} GB",
    )
    yield Check(
        "disk",
        free >= MINIATURE_BYTES,
        f"{free / 1e9:.1f} GB free at {place}",
        f"a miniature needs {MINIATURE_BYTES / 1e9:.1f} GB with checkpoints; free some space or choose another --runs",
    )
    yield Check(
        "write permission",
        os.access(place, os.W_OK | os.X_OK),
        str(place),
        "choose a folder you may write, with --runs",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def gpu_checks(wanted: int, *, launch: str) -> Iterator[Check]:
    """What a run on `wanted` GPUs needs of this host."""
    cards = gpus()
    if not cards:
        yield Check("gpus", wanted == 0, "none: only miniatures run here", f"use a host with {wanted} NVIDIA GPUs")
        return
    names = ", ".join(sorted({card["name"] for card in cards}))
    yield Check("gpus", len(cards) >= wanted, f"{len(cards)} x {names}", f"the run needs {wanted}")
    sizes = [card["memory_gb"] for card in cards if card["memory_gb"] is not None]
    yield Check(
        "gpu memory",
        all(size >= _GPU_MEMORY_GB for size in sizes),
        f"{min(sizes)} GB on the smallest" if sizes else "shared with the processor's",
        f"a 2B recipe needs about {_GPU_MEMORY_GB} GB on each GPU",
        needed=wanted > 0,
    )
    capability = min((card["compute_capability"] for card in cards), key=_numbers)
    yield Check(
        "compute capability",
        _numbers(capability) >= MINIMUM_CAPABILITY,
        capability,
        f"CUDA 13 compiles for {'.'.join(map(str, MINIMUM_CAPABILITY))} and later",
        needed=wanted > 0,
    )
    driver = cards[0]["driver"]
    yield Check(
        "driver",
        _numbers(driver)[:1] >= (MINIMUM_DRIVER,),
        driver,
        f"CUDA 13 needs NVIDIA driver {MINIMUM_DRIVER} or newer on the host",
        needed=wanted > 0,
    )
    if launch == "local" and Path("/dev/shm").is_dir():
        shm = shutil.disk_usage("/dev/shm").total / 2**30
        yield Check(
            "shared memory",
            shm >= _SHM_GB,
            f"{shm:.1f} GB at /dev/shm",
            "NCCL passes tensors through it: enlarge it (mount -o remount,size=16g /dev/shm)",
            needed=wanted > 1,
        )


def engine_checks(wanted_gpus: int, *, needed: bool, builds: str | None) -> Iterator[Check]:
    """What a run in containers needs of the engine, and the image it `builds`, if any.  Nothing is built or pulled."""
    from r1mm.launch.engine import OLDEST, client, find_engine, gives_gpus, too_old
    from r1mm.launch.images import IMAGES, held

    try:
        engine = find_engine()
    except (BadInput, StageFailed) as error:
        yield Check("engine", False, str(error), f"start one, {_WITHOUT_CONTAINERS}", needed)
        return
    for name, oldest in OLDEST.items():
        version = getattr(engine, name)
        wanted = ".".join(map(str, oldest))
        yield Check(
            name,
            not too_old(name, version),
            f"{version}{f' on {engine.operating_system}' if name == 'engine' else ''}",
            f"{name} {wanted} or newer is needed: update Docker and its plugins, {_WITHOUT_CONTAINERS}",
            needed,
        )
    if builds is not None and Path(engine.root).is_dir():
        free, room = shutil.disk_usage(engine.root).free, IMAGES[builds].needed_bytes
        yield Check(
            "engine's disk",
            free >= room,
            f"{free / 1e9:.1f} GB free at {engine.root}",
            f"building image {IMAGES[builds].tag} takes up to {room / 1e9:.0f} GB; free some (docker system prune), or "
            "name a prebuilt one with --image",
            needed and held(client(), IMAGES[builds].tag) is None,
        )
    if wanted_gpus:
        try:
            given, said = gives_gpus()
        except (BadInput, StageFailed) as error:
            given, said = False, str(error)
        yield Check(
            "gpu runtime",
            given,
            f"the engine hands GPUs to containers{f'; it said: {said}' if said else ''}"
            if given
            else f"the engine hands out no GPUs ({said})",
            "install the NVIDIA Container Toolkit, then: nvidia-ctk runtime configure --runtime=docker, and restart "
            "the engine",
            needed,
        )


def image_checks(wanted_gpus: int, image: str | None) -> Iterator[Check]:
    """Whether a container of the trainer image sees the GPUs: the probe that only an image can make."""
    from r1mm.launch.compose import facts_of
    from r1mm.launch.engine import client
    from r1mm.launch.images import IMAGES, held

    name = image or IMAGES["trainer"].tag
    found = held(client(), name)
    if found is None:
        yield Check("gpus in a container", False, f"image {name} is not built yet", "make image-gpu", needed=False)
        return
    try:
        seen = facts_of(found, ask_cuda=True)["cuda"]
    except (BadInput, StageFailed) as error:
        yield Check("gpus in a container", False, str(error), "see the line above about the GPU runtime")
        return
    reason = f" ({seen['reason']})" if seen["reason"] else ""
    yield Check(
        "gpus in a container",
        seen["gpus"] >= wanted_gpus,
        f"{seen['gpus']}{reason}, CUDA {seen['version']}",
        f"the run needs {wanted_gpus}; compare with nvidia-smi on the host",
    )


def hub_checks(*, needed: bool) -> Iterator[Check]:
    """Whether the hub can be reached, with which token, and whether the clocks agree (TLS and tokens depend on it)."""
    from r1mm.launch.compose import token_file

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    date: str | None = None
    try:
        request = urllib.request.Request(f"{endpoint}/api/whoami-v2", method="HEAD")
        with urllib.request.urlopen(request, timeout=5) as answer:
            date = answer.headers.get("Date")
        reason = ""
    except urllib.error.HTTPError as error:
        # 401 without a token is an answer too.
        date, reason = error.headers.get("Date"), "" if error.code in (401, 403, 404, 405) else f"status {error.code}"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    yield Check(
        "hub",
        not reason,
        endpoint if not reason else f"{endpoint} does not answer ({reason})",
        "full recipes load models and data from it: check the network, name a mirror with HF_ENDPOINT, or a folder "
        "that holds them with --assets (make: ASSETS=)",
        needed,
    )
    try:
        token = token_file()
        yield Check(
            "token", True, "none: public models and data only" if token is None else f"in {token}", needed=needed
        )
    except BadInput as error:
        yield Check("token", False, str(error), "name a file that holds it with HF_TOKEN_FILE, or unset it", needed)
    if date is not None:
        apart = abs(time.time() - email.utils.parsedate_to_datetime(date).timestamp())
        yield Check(
            "clock",
            apart <= _CLOCK_SECONDS,
            f"{apart:.0f} s from the hub's",
            "set the clock: certificates and tokens are refused otherwise",
            needed,
        )


def checks(runs: Path, *, launch: str, wanted_gpus: int, image: str | None = None) -> list[Check]:
    """All checks; those that a run at `launch` on `wanted_gpus` GPUs (0: a miniature) depends on are marked needed."""
    in_containers = launch == "compose" or (launch == "auto" and wanted_gpus > 0)
    found = [*machine_checks(runs), *gpu_checks(wanted_gpus, launch=launch)]
    kind = "trainer" if wanted_gpus else "cpu"
    found += engine_checks(wanted_gpus, needed=in_containers, builds=None if image else kind)
    if in_containers and any(check.good for check in found if check.name == "gpu runtime"):
        found += image_checks(wanted_gpus, image)
    return [*found, *hub_checks(needed=wanted_gpus > 0)]


def preflight(*, launch: str, wanted_gpus: int, builds: str | None = None, hub: bool = False) -> None:
    """Check what a run needs before it spends anything, the image it `builds` and the hub it fetches from included.

    BadInput names every check that fails, with what to do.
    """
    found: list[Check] = []
    if launch == "compose":
        found += engine_checks(wanted_gpus, needed=True, builds=builds)
    if wanted_gpus and (launch == "local" or gpus()):
        # In containers a host without nvidia-smi decides nothing: its engine may hand out what it does not show.
        found += gpu_checks(wanted_gpus, launch=launch)
    if hub:
        found += hub_checks(needed=True)
    failing = [check for check in found if check.fails]
    if failing:
        raise BadInput("; ".join(f"{check.name}: {check.seen} -> {check.remedy}" for check in failing))
