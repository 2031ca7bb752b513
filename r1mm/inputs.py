"""What a job's stages work on, whichever the size: made by a miniature's own stages, or fetched for a full recipe."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1mm.data.access import LOCAL_VARIABLE
from r1mm.errors import BadInput
from r1mm.job import Home, Job
from r1mm.libraries import threads_here
from r1mm.plan import Plan, make_plan
from r1mm.plan.shapes import config_of_folder, config_of_repo
from r1mm.recipe import BASE_MODEL, TRAIN_SET, Condition, digest
from r1mm.rundir import write_json
from r1mm.scene_parts import SceneSet
from r1mm.sourced import values
from r1mm.training_parts import TRAININGS, Training

SKIPPED_FILE = "undecodable.json"  # of the assets stage: training clips that are left out, and why


def base_model(job: Job) -> Path:
    """Where the model lies that a run starts from."""
    if job.recipe.miniature:
        return job.stage_folder("warm-start") / "model"
    from r1mm.data.pointers import resolve_asset

    return resolve_asset(job.stage_folder("assets"), BASE_MODEL)


def start_model(job: Job, training: Training) -> Path:
    """Where the model lies that a training starts from: the base model, or what the training before it left."""
    before = [earlier for earlier in job.recipe.trainings if TRAININGS.index(earlier) < TRAININGS.index(training)]
    return job.stage_folder(before[-1]) / "model" if before else base_model(job)


def trained_model(job: Job) -> Path:
    """Where the model lies that the last training of a run leaves."""
    return job.stage_folder(job.recipe.trainings[-1]) / "model"


def metrics_file(job: Job, training: Training) -> Path:
    """Where a training writes a line per step: GRPO beside the run's results, fine-tuning in its stage's folder."""
    return job.folder("run") / "metrics.jsonl" if training == "grpo" else job.stage_folder("sft") / "metrics.jsonl"


def made_set(job: Job, name: str) -> Any:
    """A set that a miniature has made: columns image, problem, solution; an image is a Clip in a recipe of clips."""
    from r1mm.data.counting import load_counting, load_questions, read_parquet

    path = job.stage_folder("assets") / f"{name}.parquet"
    if job.recipe.clips:
        return _shown(job, read_parquet([path], path.parent.parent / ".cache"))
    return (load_counting if isinstance(job.recipe.scenes[name], SceneSet) else load_questions)(path)


def _shown(job: Job, dataset: Any) -> Any:
    """A set whose column image holds what is shown: a recipe of clips has their videos in the column video."""
    if not job.recipe.clips:
        return dataset
    from r1mm.data.clips_ahead import clips_ahead, sampling_of

    return clips_ahead(dataset.rename_column("video", "image"), sampling_of(job.recipe), "image")


def training_set(job: Job) -> Any:
    """The items that GRPO trains on: columns image, problem, solution; an image is a Clip in a recipe of clips.

    Clips that were found not to decode are left out, where the recipe skips them.
    """
    if job.recipe.miniature:
        return made_set(job, TRAIN_SET)
    from r1mm.data.load import load_train

    rows = load_train(job.stage_folder("assets"), job.recipe)
    skipped = job.stage_folder("assets") / SKIPPED_FILE
    if skipped.is_file():
        left_out = {row["item"] for row in json.loads(skipped.read_text(encoding="utf-8"))}
        kept = [i for i, item in enumerate(rows["item"]) if item not in left_out]
        rows = rows.select(kept).flatten_indices()  # before clips are decoded as they are read, which would be written
    return _shown(job, rows)


def sft_set(job: Job) -> Any:
    """The examples that supervised fine-tuning learns from: columns image, thinking, problem, solution, item."""
    from r1mm.data.load import load_examples, read_examples

    assert job.recipe.sft_examples
    if not job.recipe.miniature:
        return load_examples(job.stage_folder("assets"), job.recipe)
    name, made = job.recipe.sft_examples.items.value, job.stage_folder("distill") / "dataset" / "data"
    paths = sorted(made.glob("train-*.parquet"))
    if not paths:
        raise BadInput(f"set {name}: there is no train-*.parquet in {made}; make the examples first")
    return read_examples(paths, job.folder("assets") / "stages" / ".cache", name)


def look_through_clips(job: Job) -> None:
    """Look through a full recipe's training clips before a step is made of them.

    Where it skips those that do not decode, each is decoded once and these are listed.  Else each is opened alone, and
    BadInput names the first that cannot be read: damage further in stops the step that meets it.
    """
    if not job.recipe.clips:
        return
    from r1mm.data.clips_ahead import sampling_of, usable_clips
    from r1mm.data.load import load_train

    folder = job.stage_folder("assets")
    rows = load_train(folder, job.recipe)
    skips = "undecodable" in job.recipe.clips and job.recipe.clips["undecodable"].value == "skip"
    usable, reasons = usable_clips(rows, sampling_of(job.recipe), decode=skips)
    if not skips:
        if reasons:
            raise BadInput(f"{len(reasons)} of {len(rows)} training clips cannot be read, the first: {reasons[0]}")
        return
    kept = set(usable["item"])
    lost = [item for item in rows["item"] if item not in kept]
    write_json(folder / SKIPPED_FILE, [{"item": i, "why": why} for i, why in zip(lost, reasons, strict=True)])
    print(f"{len(lost)} of {len(rows)} clips do not decode and are skipped: {folder / SKIPPED_FILE}", file=sys.stderr)


def look_through_prompts(job: Job) -> None:
    """BadInput, before hours of evaluation, for prompts and solutions of the training set that a recipe refuses.

    Training looks again, for variants share their assets and not their prompts and rewards.
    """
    if job.recipe.over_long is None or job.recipe.over_long.value != "refuse" or "grpo" not in job.recipe.stages:
        return
    from r1mm.processor import load_processor
    from r1mm.train.prompt_length import keep_within_limit
    from r1mm.train.rewards import check_solutions

    processor, rows = load_processor(base_model(job), limits=values(job.recipe.processor)), training_set(job)
    keep_within_limit(rows, job.recipe, processor, job.stage_folder("assets"))
    check_solutions(job.recipe, rows["solution"], rows["problem"])


def task_set(job: Job, split: str) -> Any:
    """The items of one task: columns image, problem, solution, item; an image is a Clip in a recipe of clips."""
    if job.recipe.miniature:
        loaded = made_set(job, job.recipe.tasks[split].items)
        if "item" in loaded.column_names:
            return loaded
        return loaded.add_column("item", [f"{split}-{i:06d}" for i in range(len(loaded))])
    from r1mm.data.load import load_task

    return _shown(job, load_task(job.stage_folder("assets"), job.recipe, split))


def task_sets(job: Job) -> dict[str, Any]:
    """The items by split that a page can show, with a column `item` of their names.

    Not those of lmms-eval's tasks, which it alone has, nor of a control whose items the model is not shown.
    """
    import datasets

    datasets.disable_progress_bars()  # a report takes seconds
    shown = [split for split, task in job.recipe.tasks.items() if not (task.lmms or task.blind)]
    return {split: task_set(job, split) for split in shown}


def lmms_places(job: Job, name: str) -> dict[str, Any]:
    """Where lmms-eval's tasks find the asset `name`: `files`, its folder, and `items`, the files that list its items.

    `unpacked` is where its clips go that come in an archive: among the downloads, which all runs share, by content.
    """
    from r1mm.data.access import access_from_environment
    from r1mm.data.pointers import read_fetched, resolve_asset
    from r1mm.data.selection import matching_files

    asset, folder = job.recipe.assets[name], job.stage_folder("assets")
    assert asset.kind == "repository"
    assert asset.file is not None  # as every recipe's is that is loaded
    files, fetched = resolve_asset(folder, name), read_fetched(folder, name).files
    content = digest({file: stamp.sha256 for file, stamp in fetched.items()})
    unpacked = access_from_environment().downloads / "clips" / content[:16]
    listing = matching_files(fetched, [asset.file], f"asset {name}")
    return {"files": files, "items": [files / file for file in listing], "unpacked": unpacked}


def base_config(job: Job) -> dict[str, Any] | None:
    """The configuration of a full recipe's base model before it is fetched; None where a folder of assets lacks it."""
    model = job.recipe.assets.get(BASE_MODEL)
    if model is None or model.kind != "model":
        return None
    local = os.environ.get(LOCAL_VARIABLE)
    if not local:
        return config_of_repo(model.repo)
    folder = Path(local, "models", model.repo)
    return config_of_folder(folder) if (folder / "config.json").is_file() else None


def check_plan(job: Job) -> None:
    """BadInput, before anything is fetched, where a full recipe cannot fit the job's GPUs."""
    config = base_config(job)
    if config is None:
        return  # a miniature; or the assets stage says what is missing
    for training in job.recipe.trainings:
        nodes = make_plan(job.recipe, config, job.gpus, training=training).layout.nodes
        if nodes > 1:
            raise BadInput(
                f"{job.gpus} is {nodes} machines, which can be planned for and not run on yet; give the GPUs of one, "
                "such as 8xH100"
            )


def plan_of(job: Job, training: Training) -> Plan:
    """How one of a full recipe's trainings is laid out on the job's GPUs.  BadInput where it cannot fit."""
    return make_plan(job.recipe, config_of_folder(base_model(job)), job.gpus, training=training)


def threads_of(job: Job, stage: str) -> int:
    """The threads of arithmetic that a stage takes here, in each of its processes."""
    training = next((training for training in job.recipe.trainings if training == stage), None)
    if training is None or job.recipe.miniature:
        return threads_here(job.recipe, 1)
    return threads_here(job.recipe, plan_of(job, training).layout.processes)


def generations(job: Job) -> dict[str, dict[Condition, Path]]:
    """The files of evaluated outputs, by split and condition."""
    homes: dict[Condition, Home] = {"base-think": "base", "base-direct": "base", "trained-think": "run"}
    return {
        split: {
            condition: job.folder(home) / "generations" / f"{condition}-{split}.jsonl"
            for condition, home in homes.items()
        }
        for split in job.recipe.tasks
    }


def readings(job: Job, outputs: Mapping[str, Mapping[Condition, Any]]) -> dict[str, dict[Condition, Any]]:
    """Evaluated outputs by split and condition, each read with its form and by force."""
    from r1mm.evaluate.readings import readings_of

    return {
        split: {
            condition: readings_of(
                job.recipe.tasks[split].scorer,
                found,
                job.recipe.template(split, "direct" if condition == "base-direct" else "evaluation"),
            )
            for condition, found in by_condition.items()
        }
        for split, by_condition in outputs.items()
    }


def recorded_outputs(job: Job) -> dict[str, dict[Condition, Any]]:
    """Upstream's own outputs by split and condition, where the recipe has them and its prompt is theirs."""
    from r1mm.data.pointers import resolve_asset
    from r1mm.evaluate.recorded import read_recorded

    theirs = "prompts.evaluation" not in job.resolved.overridden
    return {
        split: {
            condition: read_recorded(resolve_asset(job.stage_folder("assets"), name), task.scorer).outputs
            for condition, name in task.recorded.items()
        }
        for split, task in job.recipe.tasks.items()
        if task.recorded and theirs
    }


def _fetched(job: Job) -> list[Any]:
    from r1mm.data.pointers import read_fetched

    return [read_fetched(job.stage_folder("assets"), name) for name in job.recipe.assets]


def why_not_comparable(job: Job) -> list[str]:
    """What of a full recipe's run is not the published one's, so that its numbers say nothing of it; empty for none."""
    if job.recipe.miniature:
        return []
    assets = _fetched(job)
    reasons = [f"{asset.name}: {asset.why_not}" for asset in assets if not (asset.verified or asset.unpinned)]
    return [*reasons, *(["trained on a CPU, in float32"] if job.gpus == "cpu" else [])]


def fetched(job: Job) -> dict[str, Any]:
    """What each of a full recipe's assets was found to be; nothing for a miniature."""
    return {asset.name: asset.model_dump(mode="json") for asset in _fetched(job)}
