"""`r1mm verify`: is a run's every file what its records say, and would this tree and image make the same again?"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from r1mm.errors import BadInput
from r1mm.job import HOME_OF, Job, job_of, read_manifest
from r1mm.manifest import LOCKS, git_state, package_versions
from r1mm.progress import progress_bar
from r1mm.recipe import digest
from r1mm.rundir import FileStamp, read_record, sha256_file, verify_file
from r1mm.stages import STAGE_TABLE, expected_inputs

State = Literal["same", "differs", "damaged", "unknown"]
# The exit status that each state calls for, the gravest first.
VERIFY_STATUS: dict[State, int] = {"damaged": 1, "differs": 3, "unknown": 4}


@dataclass(frozen=True)
class Finding:
    """One thing that was compared: what, how it stands, and in words what was recorded and what is."""

    what: str
    state: State
    words: str

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        return asdict(self)


def _compared(what: str, recorded: Any, now: Any) -> Finding:
    if recorded is None or now is None:
        return Finding(what, "unknown", f"recorded {recorded or 'nothing'}, now {now or 'nothing to compare with'}")
    if recorded == now:
        return Finding(what, "same", str(recorded["id"] if isinstance(recorded, dict) else recorded))
    return Finding(what, "differs", f"recorded {recorded}, now {now}")


def _files(job: Job, manifest: dict[str, Any]) -> list[Finding]:
    """Every output of every stage against its checksum, each record against its own, and both against the manifest."""
    found: list[Finding] = []
    files: list[tuple[Path, FileStamp]] = []
    for stage in job.recipe.stages:
        root, listed = job.folder(HOME_OF[stage]), manifest.get("stages", {}).get(stage)
        try:
            record = read_record(root, stage)
        except BadInput as error:
            found.append(Finding(f"stage {stage}", "damaged", str(error)))
            continue
        if record is None:
            state: State = "unknown" if listed is None else "damaged"
            words = "not done" if listed is None else "its record is gone, which the manifest lists"
            found.append(Finding(f"stage {stage}", state, words))
            continue
        if listed is None or (listed["content"], listed["inputs"]) != (record.content(), digest(record.inputs)):
            found.append(Finding(f"stage {stage}", "damaged", "its record is not the one that the manifest lists"))
        files += [(root / path, stamp) for path, stamp in record.outputs.items()]
    whole = 0
    for path, stamp in progress_bar(files, desc="checksums", unit="file"):
        try:
            verify_file(path, stamp, "the run directory is not what was recorded")
            whole += 1
        except BadInput as error:
            found.append(Finding(str(path.relative_to(job.runs)), "damaged", str(error)))
    state = "same" if whole == len(files) else "damaged"
    return [Finding("files", state, f"{whole} of {len(files)} as recorded"), *found]


def _stages(job: Job) -> list[Finding]:
    """Code and inputs of every stage against what this tree would give it."""
    found = []
    for stage in job.recipe.stages:
        entry = STAGE_TABLE[stage]
        try:
            record = read_record(job.folder(HOME_OF[stage]), stage)
            if record is None:
                continue
            now = expected_inputs(job, stage)
        except BadInput:
            continue  # among the damaged files
        changed = sorted(key for key in record.inputs.keys() | now.keys() if record.inputs.get(key) != now.get(key))
        words = [f"code {record.code[:12]}, this tree {entry.code()[:12]}"] if record.code != entry.code() else []
        words += [f"another {', '.join(changed)}"] if changed else []
        where = f" (in image {record.image[:19]})" if record.image else ""
        found.append(
            Finding(
                f"stage {stage}",
                "differs" if words else "same",
                ("; ".join(words) or "code and inputs as this tree has them") + where,
            )
        )
    return found


def _tree(manifest: dict[str, Any]) -> list[Finding]:
    recorded, now = manifest.get("git") or {}, git_state() or {}
    found = [_compared("commit", _commit(recorded), _commit(now))]
    if found[0].state == "same" and now["dirty"]:
        found = [Finding("commit", "unknown", f"{found[0].words}, then and now: which, the stages' code versions say")]
    lock = next((path for path in LOCKS if path.name == manifest.get("lock")), None)
    found.append(
        _compared(
            f"lock {manifest.get('lock')}",
            manifest.get("lock_sha256"),
            sha256_file(lock) if lock is not None and lock.is_file() else None,
        )
    )
    if manifest.get("image") is None:
        before, here = manifest.get("packages") or {}, package_versions()
        changed = [f"{name} {before.get(name)} -> {here.get(name)}" for name in here if before.get(name) != here[name]]
        words = ", ".join(changed) or f"{len(here)} packages that can change a number, as recorded"
        found.append(Finding("packages", "differs" if changed else "same", words))
    return found


def _commit(state: dict[str, Any]) -> str | None:
    return f"{state['commit']}{' with changes' if state['dirty'] else ''}" if state else None


def _image(manifest: dict[str, Any]) -> list[Finding]:
    """What the image was made of against what this tree would make it of, and whether the engine still holds it."""
    recorded = manifest.get("image")
    if recorded is None:
        return [Finding("image", "same", "none: the run was made outside of containers")]
    if "source_sha256" not in recorded:
        return [Finding("image", "unknown", "the run was made in a container that r1mm did not start")]
    from r1mm.launch.engine import NoEngine, client
    from r1mm.launch.images import IMAGES, held, resolve_base

    kind = "trainer" if manifest.get("lock") == "gpu.txt" else "cpu"
    found = [_compared("image's Dockerfile and locks", recorded["source_sha256"], IMAGES[kind].digest())]
    try:
        found.append(_compared("base image", recorded["base_digest"], resolve_base(client(), kind)[1]))
        image = held(client(), recorded["id"])
    except NoEngine as error:
        return [*found, Finding("image", "unknown", f"recorded {recorded['id']}; {error}")]
    if image is None:
        return [*found, Finding("image", "unknown", f"recorded {recorded['id']}, which this engine does not hold")]
    return [*found, _compared("image", recorded, image.as_dict())]


def verify(root: Path) -> list[Finding]:
    """Everything about the run in `root` that can be compared.  BadInput when it is no run directory."""
    job, manifest = job_of(root), read_manifest(root)
    if manifest.get("image") is not None:
        # The packages are the image's: whether it is the same is asked below, not of what is installed here.
        job = replace(job, packages=digest(manifest["packages"]))
    return [*_files(job, manifest), *_stages(job), *_tree(manifest), *_image(manifest)]
