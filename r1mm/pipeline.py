"""The stages of a run in order: what is done, what goes on from where it was, what may not be mixed."""

import contextlib
import dataclasses
import datetime
import functools
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1mm.data.access import LOCAL_VARIABLE
from r1mm.errors import BadInput, StageFailed
from r1mm.gpus import require_promised
from r1mm.inputs import base_config, check_plan, fetched
from r1mm.job import HOME_OF, HOMES, Home, Job, job_of, read_manifest
from r1mm.launch.place import Place, Say, StageCall
from r1mm.manifest import surroundings
from r1mm.plan import parse_gpus
from r1mm.plan.shapes import read_shape
from r1mm.recipe import digest
from r1mm.recipe_files import RECIPES
from r1mm.rundir import (
    explained,
    forget_record,
    locked,
    make_folder,
    read_record,
    stamp,
    verify_file,
    write_json,
    write_record,
)
from r1mm.stages import GATE_FILE, PLAN_FILES, STAGE_TABLE, expected_inputs, new_record, note_start, started_path

# Rendered sets, checkpoints with optimizer state, generations and pages of one miniature run, with room to spare.
MINIATURE_BYTES = 1_000_000_000
# Per parameter of a full recipe's checkpoint: weights, float32 masters and two moments.
_CHECKPOINT_BYTES = 16
_MODEL_BYTES = 4  # per parameter of a trained model
# A training set's Arrow files beside the run, and all else that is not a checkpoint.
_DATA_BYTES = 12_000_000_000


def _check_identity(job: Job, home: Home) -> None:
    root = job.folder(home)
    if not (root / "manifest.json").is_file():
        if root.is_dir() and any(root.iterdir()):
            raise BadInput(f"{root} exists but is no run directory (it has no manifest.json); choose another --runs")
        return
    manifest = read_manifest(root)
    for key, value in job.identity(home).items():
        if manifest.get(key) != value:
            raise BadInput(
                f"{root} is the run directory of another {key} ({manifest.get(key)!r}, not {value!r}); "
                "choose another --runs, or move it away"
            )


def _differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _refuse_mixture(root: Path, stage: str, before: dict[str, Any], code: str, inputs: dict[str, str]) -> None:
    remedy = (
        "choose another --runs (make: RUNS=), or start anew with --fresh (make: FRESH=1), which moves the old aside"
    )
    if before["code"] != code:
        raise BadInput(
            f"stage {stage} in {root} was made by code version {before['code'][:12]}, this tree is {code[:12]}; "
            f"{remedy}"
        )
    changed = _differences(before["inputs"], inputs)
    if changed:
        raise BadInput(f"stage {stage} in {root} was made with another {', '.join(changed)}; {remedy}")


def _refuse_foreign_start(job: Job, stage: str) -> None:
    """Refuse to go on with what another code version or other inputs began and left half done."""
    entry = STAGE_TABLE[stage]
    path = started_path(job, stage)
    if entry.derived or not path.is_file():
        return
    try:
        started = json.loads(path.read_text(encoding="utf-8"))
        before = {"code": str(started["code"]), "inputs": dict(started["inputs"])}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is damaged ({error}); delete {path.parent} to redo stage {stage}, or start anew with --fresh"
        ) from error
    _refuse_mixture(job.folder(HOME_OF[stage]), stage, before, entry.code(), expected_inputs(job, stage))


def is_done(job: Job, stage: str) -> bool:
    """Whether a stage's files are there, whole, and made from what this job gives it.

    Raises BadInput when they are damaged, or were made, even in part, from something else (a derived stage is simply
    not done then).
    """
    entry = STAGE_TABLE[stage]
    root = job.folder(HOME_OF[stage])
    record = read_record(root, stage)
    if record is None:
        _refuse_foreign_start(job, stage)
        return False
    inputs = expected_inputs(job, stage)
    if entry.derived:
        if record.code != entry.code() or record.inputs != inputs:
            return False
        return all((root / path).is_file() and stamp(root / path) == value for path, value in record.outputs.items())
    _refuse_mixture(root, stage, {"code": record.code, "inputs": record.inputs}, entry.code(), inputs)
    for path, expected in record.outputs.items():
        verify_file(
            root / path, expected, f"delete {root}/stages/{stage} to redo the stage, or start anew with --fresh"
        )
    return True


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _recipe_reference(job: Job) -> str:
    # By name where the name finds it again: a run directory then survives a move of the tree.
    return job.recipe.name if job.recipe_folder.parent == RECIPES else str(job.recipe_folder)


def _update_manifest(job: Job, home: Home, around: dict[str, Any]) -> None:
    """Write a home's manifest anew after a stage of it ran in surroundings `around`, or before its first."""
    root = job.folder(home)
    path = root / "manifest.json"
    manifest: dict[str, Any] = read_manifest(root) if path.is_file() else {"created": _now()}
    manifest |= job.identity(home) | {"recipe_folder": _recipe_reference(job)} | around
    manifest |= {"gpus_planned": job.gpus, "stages": {}, "assets": {}}
    for stage in job.recipe.stages:
        record = read_record(job.folder(HOME_OF[stage]), stage)
        if record is None:
            continue
        manifest["stages"][stage] = {
            "seconds": record.seconds,
            "started": record.started,
            "image": record.image,
            "threads": record.threads,
            "code": record.code,
            "inputs": digest(record.inputs),
            "content": record.content(),
        }
        if stage == "assets":
            manifest["assets"] = {name: stamp.model_dump() for name, stamp in record.outputs.items()}
            manifest |= {"fetched": fetched(job)} if job.recipe.assets else {}
    for name in PLAN_FILES.values() if home == "run" else ():
        if (root / name).is_file():
            manifest[name.removesuffix(".json")] = json.loads((root / name).read_text(encoding="utf-8"))
    write_json(path, manifest)


def _move_aside(root: Path, say: Say) -> None:
    number = 1
    while (aside := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    root.replace(aside)
    say(f"moved {root} aside to {aside.name}")


def _start_anew(job: Job, say: Say) -> None:
    """Move the run's own directory aside, and of the shared ones those that do not fit this recipe and code."""
    for home in ("assets", "base"):
        if not job.folder(home).is_dir():
            continue
        try:
            _check_identity(job, home)
            for stage in job.recipe.stages:
                if HOME_OF[stage] == home:
                    is_done(job, stage)
        except BadInput as error:
            say(str(error))
            _move_aside(job.folder(home), say)
    if job.folder("run").is_dir():
        _move_aside(job.folder("run"), say)


def needed_bytes(job: Job) -> int:
    """What a run may write to its folder.

    A full recipe's models, data and clips lie elsewhere, among the downloads, whose disk is looked at before each.
    """
    config = base_config(job)
    if config is None:
        return MINIATURE_BYTES
    limits = [job.recipe.settings_of(training)["save_total_limit"].value for training in job.recipe.trainings]
    kept: int = max(limits) + 1  # one more while the next is written; a training's are gone when the next begins
    models = _MODEL_BYTES * (len(limits) - 1)  # what an earlier training leaves
    checkpoints = (kept * _CHECKPOINT_BYTES + models) * read_shape(config).parameters
    # A folder of assets may hold small stand-ins.
    return checkpoints + (MINIATURE_BYTES if os.environ.get(LOCAL_VARIABLE) else _DATA_BYTES)


def _check_space(job: Job) -> None:
    make_folder(job.runs)
    if not os.access(job.runs, os.W_OK | os.X_OK):
        raise BadInput(f"no permission to write {job.runs}; choose another place with --runs, or RUNS= for make")
    free, needed = shutil.disk_usage(job.runs).free, needed_bytes(job)
    if free < needed:
        raise BadInput(
            f"the disk of {job.runs} is full: {free / 1e9:.2f} GB free, a run needs {needed / 1e9:.1f} GB; "
            "free some space, or choose another place with --runs"
        )


def _drop_checkpoints(job: Job, stage: str) -> None:
    """Remove what a finished stage was built from on the way: checkpoints with optimizer state, answers so far."""
    for checkpoint in job.stage_folder(stage).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for partial in job.stage_folder(stage).glob("*.partial.jsonl"):
        partial.unlink()


def run_one_stage(job: Job, stage: str) -> None:
    """Run a stage in this process and record it.  The caller holds the locks.  Raises BadInput or StageFailed.

    The stage holds a lock of its own besides: a container may outlive the caller, and its locks with it.
    """
    require_promised()
    with locked(job.stage_folder(stage)):
        _run_one_stage(job, stage)


def _run_one_stage(job: Job, stage: str) -> None:
    entry = STAGE_TABLE[stage]
    root = job.folder(HOME_OF[stage])
    code, inputs = entry.code(), expected_inputs(job, stage)
    _refuse_foreign_start(job, stage)
    for need in entry.needed_by(job):
        if not is_done(job, need):
            raise BadInput(f"stage {stage} needs stage {need}, which is out of date; run `r1mm reproduce`")
    forget_record(root, stage)
    note_start(job, stage, code, inputs)
    started, began = _now(), time.monotonic()
    try:
        with explained(job.stage_folder(stage)):
            outputs = entry.body(job)
    except MemoryError as error:
        raise StageFailed(f"stage {stage} ran out of memory; a miniature needs 4 GB") from error
    write_record(root, new_record(job, stage, code, inputs, outputs, started, time.monotonic() - began))
    _drop_checkpoints(job, stage)


@contextlib.contextmanager
def all_locked(job: Job) -> Iterator[None]:
    """Hold the job's three folders against other writers for the length of the block.  BadInput when one is in use."""
    with contextlib.ExitStack() as stack:
        for home in HOMES:
            stack.enter_context(locked(job.folder(home)))
        yield


def run_stage_alone(job: Job, stage: str) -> None:
    """Run one stage in this process as `reproduce` would: nothing of another run, in nobody's way, in the manifest.

    Raises BadInput or StageFailed.
    """
    home = HOME_OF[stage]
    _check_identity(job, home)
    expected_inputs(job, stage)
    _refuse_foreign_start(job, stage)
    with all_locked(job):
        _update_manifest(job, home, surroundings())
        run_one_stage(job, stage)
        _update_manifest(job, home, surroundings())


@dataclass(frozen=True)
class Outcome:
    """Where a finished run lies, and what its verdict says."""

    root: Path
    verdict: dict[str, Any]


def wanted_gpus(job: Job) -> int:
    """How many GPUs of one machine a job needs: none for a miniature, which is a CPU's also where there are some."""
    machine = parse_gpus(job.gpus)
    return 0 if machine.cpu else machine.gpus


def needs_hub(job: Job) -> bool:
    """Whether a job is going to fetch: a full recipe without a folder of assets, whose assets are not here yet."""
    local = job.recipe.miniature or os.environ.get(LOCAL_VARIABLE) or os.environ.get("HF_HUB_OFFLINE") == "1"
    return not local and read_record(job.folder("assets"), "assets") is None


def _call(job: Job, stage: str) -> StageCall:
    return StageCall(
        stage=stage,
        recipe=_recipe_reference(job),
        recipe_name=job.recipe.name,
        variant=job.resolved.variant,
        seed=job.seed,
        base_seed=job.base_seed,
        gpus=job.gpus,
        runs=job.runs,
        threads=job.recipe.threads.value,
        offline=job.recipe.miniature or bool(os.environ.get(LOCAL_VARIABLE)),
    )


def _pass_gate(job: Job, past_gate: bool, say: Say) -> None:
    """Say what the stage base-gate found; StageFailed where the base model's score is not the published one.

    `past_gate`: go on all the same.
    """
    gate = json.loads((job.folder("run") / GATE_FILE).read_text(encoding="utf-8"))
    for words in gate["words"]:
        say(words)
    if not gate["passes"] and not past_gate:
        raise StageFailed(
            "base gate: the base model does not score here what was published, so a trained one would say little; see "
            "above what to look into, or go on with --past-gate (make: PAST_GATE=1)"
        )


def reproduce(job: Job, place: Place, *, fresh: bool, say: Say, past_gate: bool = False) -> Outcome:
    """Run every stage that is not done, each in a process of its own at `place`, to the verdict and the report.

    Where the recipe has a gate, the run stops before training unless the base model's score passes, or `past_gate`.
    Raises BadInput before anything is written when the directory belongs to something else or is damaged, and
    StageFailed when a stage does not finish; the same call then goes on from there.
    """
    around = place.surroundings()
    job = dataclasses.replace(job, packages=digest(around["packages"]))
    check_plan(job)
    _check_space(job)
    with all_locked(job):
        if fresh:
            _start_anew(job, say)
        for home in HOMES:
            _check_identity(job, home)
        # Every refusal comes before anything is written.
        done = set(itertools.takewhile(functools.partial(is_done, job), job.recipe.stages))
        for home in HOMES:
            if not (job.folder(home) / "manifest.json").is_file():
                _update_manifest(job, home, around)
        write_json(job.folder("run") / "recipe.json", job.resolved.model_dump(mode="json"))
        for number, stage in enumerate(job.recipe.stages, 1):
            head = f"[{number}/{len(job.recipe.stages)}] {stage}"
            if stage in done or is_done(job, stage):
                say(f"{head}: done before")
                _drop_checkpoints(job, stage)  # a kill may have come between record and removal
            else:
                say(head)
                status = place.run_stage(_call(job, stage))
                if status == 2:
                    raise BadInput(f"stage {stage} refused its input (see above)")
                if status != 0:
                    raise StageFailed(f"stage {stage} ended with status {status}; the same command goes on from there")
                _update_manifest(job, HOME_OF[stage], around)
            if stage == "base-gate" and not done.issuperset(job.recipe.trainings):
                _pass_gate(job, past_gate, say)
    return finished(job.folder("run"))


def finished(root: Path) -> Outcome:
    """The outcome of a finished run.  BadInput when there is no verdict yet."""
    path = root / "verdict.json"
    try:
        return Outcome(root, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInput(f"{root} has no verdict yet; run `r1mm reproduce`, it goes on where it was") from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); run `r1mm verdict {root}` to make it again") from error


def redo(root: Path, stage: str) -> Outcome:
    """Make the verdict, or the report, of a finished run again from its stored outputs."""
    job = job_of(root)
    if job.folder("run") != root.resolve():
        raise BadInput(
            f"{root} has been renamed: by its manifest it is {job.folder('run').relative_to(job.runs)}; give it that "
            "name back, beside its base model and assets"
        )
    _check_identity(job, "run")
    with all_locked(job):
        run_one_stage(job, stage)
        _update_manifest(job, "run", {})  # what the numbers were made with stays as it is
    return finished(job.folder("run"))
