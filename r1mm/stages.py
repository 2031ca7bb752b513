"""What each stage does: a short function per stage that joins the rooms below, and a table of what each one needs."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from r1mm.distill_stage import distill_answers
from r1mm.errors import BadInput
from r1mm.inputs import (
    base_model,
    generations,
    lmms_places,
    look_through_clips,
    look_through_prompts,
    made_set,
    plan_of,
    readings,
    recorded_outputs,
    task_set,
    task_sets,
    threads_of,
    trained_model,
    why_not_comparable,
)
from r1mm.job import HOME_OF, Home, Job
from r1mm.libraries import prepare_libraries
from r1mm.manifest import code_version, cores, image_id
from r1mm.recipe import digest
from r1mm.rundir import (
    FileStamp,
    StageRecord,
    files_below,
    make_folder,
    read_record,
    stamp,
    write_json,
    write_jsonl,
    write_text,
)
from r1mm.sourced import values
from r1mm.training_parts import Training
from r1mm.training_stages import train_by_examples, train_by_rewards


@dataclass(frozen=True)
class Stage:
    """A stage: the stages it takes files from, the parts of the recipe and of the package it depends on.

    `derived` stages are cheap and redone whenever their inputs change; the others refuse to mix versions.
    """

    needs: tuple[str, ...]
    sections: tuple[str, ...]
    rooms: tuple[str, ...]
    body: Callable[[Job], dict[str, FileStamp]]
    derived: bool = False

    def needed_by(self, job: Job) -> tuple[str, ...]:
        """The stages this one takes files from, of those that the job's recipe has."""
        return tuple(name for name in self.needs if name in job.recipe.stages)

    def code(self) -> str:
        """The version of the code that this stage's files depend on."""
        helpers = (self.body, _evaluate)
        return code_version(self.rooms, extra="".join(inspect.getsource(part) for part in helpers))


def expected_inputs(job: Job, stage: str) -> dict[str, str]:
    """Digests of all that goes into a stage.  BadInput when a stage it needs is not done."""
    entry = STAGE_TABLE[stage]
    inputs = {f"recipe.{name}": digest(part) for name, part in job.recipe.sections(entry.sections).items()}
    if HOME_OF[stage] == "base":
        inputs["base_seed"] = digest(job.base_seed)
    if HOME_OF[stage] == "run":
        inputs["seed"] = digest([job.resolved.variant, job.seed, job.base_seed])
    if stage in ("base-gate", "verdict"):
        inputs["expected"] = digest(job.expected.model_dump(mode="json"))
    ledger = job.recipe_folder / "ledger.yaml"
    if stage == "report" and ledger.is_file():
        inputs["ledger"] = digest(ledger.read_text(encoding="utf-8"))
    if not entry.derived:
        inputs["packages"] = job.packages
        if HOME_OF[stage] != "assets" and not job.recipe.miniature:
            inputs["gpus"] = digest(job.gpus)  # another layout gives other numbers
    for need in entry.needed_by(job):
        record = read_record(job.folder(HOME_OF[need]), need)
        if record is None:
            raise BadInput(
                f"stage {stage} needs stage {need}, which is not done; run `r1mm reproduce` or that stage first"
            )
        inputs[f"stage.{need}"] = record.content()
    return inputs


def make_assets(job: Job) -> dict[str, FileStamp]:
    """A miniature's sets, sampled, rendered and written; a full recipe's assets, fetched and checked."""
    folder = job.stage_folder("assets")
    if job.recipe.image_size is not None:
        from r1mm.mini.material import material_of

        prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
        material_of(job.recipe).render(job.recipe.scenes, job.recipe.image_size.value, folder, cores())
    else:
        from r1mm.data.assets import fetch_assets
        from r1mm.data.checkpoint import check_processor

        fetch_assets(job.recipe, folder, lambda text: print(text, file=sys.stderr, flush=True))
        check_processor(base_model(job))
        look_through_clips(job)
        look_through_prompts(job)
    return files_below(folder, job.folder("assets"))


def warm_start(job: Job) -> dict[str, FileStamp]:
    """Build the tiny model and teach it both ways of answering."""
    from r1mm.clips import carry_clips, clips_as_images
    from r1mm.mini.material import WARM_START, material_of
    from r1mm.mini.model import build_model, build_processor, save
    from r1mm.train.supervised import train_supervised

    prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
    assets, folder = job.stage_folder("assets"), job.stage_folder("warm-start")
    assert job.recipe.image_size is not None  # a miniature has one
    settings, prompts = values(job.recipe.warm_start), job.recipe.prompts
    templates = {name: getattr(prompts, name).value for name in ("train", "evaluation", "direct")}
    material = material_of(job.recipe)
    tokenizer = material.tokenizer(list(templates.values()))
    processor = build_processor(tokenizer, job.recipe.image_size.value)
    model = build_model(values(job.recipe.model), tokenizer, job.base_seed)
    if job.recipe.clips:
        clips_as_images(processor)
        carry_clips(model)
    train_supervised(
        model,
        processor,
        made_set(job, WARM_START),
        list(material.examples(assets, templates, settings, job.base_seed)),
        settings=settings,
        heavy_words=material.heavy_words(tokenizer),
        seed=job.base_seed,
        folder=folder,
        clips=bool(job.recipe.clips),
    )
    save(model, processor, folder / "model")
    return files_below(folder / "model", job.folder("base")) | {
        "stages/warm-start/metrics.jsonl": stamp(folder / "metrics.jsonl")
    }


def _evaluate(
    job: Job, home: Home, model_folder: Path, conditions: dict[str, Literal["evaluation", "direct"]]
) -> dict[str, FileStamp]:
    from r1mm.evaluate.generate import evaluate_task, evaluation_device
    from r1mm.evaluate.lmms import ask_by_lmms
    from r1mm.mini.language import never_sampled
    from r1mm.processor import load_processor

    prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
    suppressed = never_sampled(load_processor(model_folder).tokenizer)
    partials = job.stage_folder("base-evaluation" if home == "base" else "evaluation")
    written = {}
    for split, task in job.recipe.tasks.items():
        dataset = None if task.lmms else task_set(job, split)
        for condition, kind in conditions.items():
            common: dict[str, Any] = {
                "model_folder": model_folder,
                "template": job.recipe.template(split, kind),
                "settings": values(job.recipe.evaluation),
                "title": f"{condition}, {split}",
                "system": None if condition == "base-direct" else job.recipe.prompts.system_turn,
                "device": evaluation_device(job.recipe.miniature),
            }
            if task.lmms:
                outputs = ask_by_lmms(
                    **common,
                    task=task.lmms,
                    limit=task.limit,
                    **lmms_places(job, task.items),
                    folder=partials / f"{condition}-{split}",
                )
                which = partials / f"{condition}-{split}" / "evaluator.json"
                written[str(which.relative_to(job.folder(home)))] = stamp(which)
            else:
                outputs = evaluate_task(
                    **common,
                    dataset=dataset,
                    scorer=task.scorer,
                    split=split,
                    suppressed=suppressed,
                    partial=partials / f"{condition}-{split}.partial.jsonl",
                    clips=bool(job.recipe.clips),
                    shown=not task.blind,
                )
            name = f"generations/{condition}-{split}.jsonl"
            written[name] = stamp(write_jsonl(job.folder(home) / name, (o.model_dump() for o in outputs)))
    return written


def evaluate_base(job: Job) -> dict[str, FileStamp]:
    """The base model asked to think, and, as the control, asked for a direct answer."""
    return _evaluate(job, "base", base_model(job), {"base-think": "evaluation", "base-direct": "direct"})


def evaluate_trained(job: Job) -> dict[str, FileStamp]:
    """The trained model, asked to think as upstream's evaluation asks."""
    return _evaluate(job, "run", trained_model(job), {"trained-think": "evaluation"})


def judge_base(job: Job) -> dict[str, FileStamp]:
    """Before training time is spent: the base model's own score against what was published of it, and the plan."""
    from r1mm.evaluate.scoring import read_outputs
    from r1mm.judge.gate import base_gate

    root = job.folder("run")
    base = {split: read_outputs(files["base-think"]) for split, files in generations(job).items()}
    recorded = {split: by["base-think"] for split, by in recorded_outputs(job).items() if "base-think" in by}
    # An option that leaves the question as it is leaves what was published of the base model as it is.
    reading, *options = job.resolved.variant.split("+")
    own_prompt = any({"prompts.evaluation", "prompts.system"} & {*job.recipe.options[o].overrides} for o in options)
    asked_as = job.resolved.variant if own_prompt else reading
    gate = base_gate(job.expected, asked_as, base, recorded=recorded, why_not=why_not_comparable(job))
    return {
        GATE_FILE: stamp(write_json(root / GATE_FILE, gate.model_dump(mode="json"))),
        **{
            PLAN_FILES[training]: stamp(
                write_json(root / PLAN_FILES[training], plan_of(job, training).model_dump(mode="json"))
            )
            for training in job.recipe.trainings
        },
    }


def give_verdict(job: Job) -> dict[str, FileStamp]:
    """Judge the outputs against the claims, and say how much of a gain is form."""
    from r1mm.evaluate.scoring import read_outputs
    from r1mm.judge.verdict import judge

    why_not = why_not_comparable(job)
    outputs = {
        split: {condition: read_outputs(path) for condition, path in files.items()}
        for split, files in generations(job).items()
    }
    verdict = judge(
        job.expected,
        recipe=job.recipe.name,
        size=job.recipe.size,
        variant=job.resolved.variant,
        seed=job.seed,
        base_seed=job.base_seed,
        outputs=outputs,
        recorded=recorded_outputs(job),
        readings=readings(job, outputs),
        comparable=not why_not,
        why_not=why_not,
    )
    path = write_json(job.folder("run") / "verdict.json", verdict.model_dump(mode="json"))
    return {"verdict.json": stamp(path)}


def write_report(job: Job) -> dict[str, FileStamp]:
    """One page with everything that was found."""
    from r1mm.report.collect import ledger_of, report_inputs
    from r1mm.report.page import build_report

    root = job.folder("run")
    ledger = ledger_of(job.recipe_folder, job.resolved.variant)
    page = build_report(report_inputs(root, generations(job), task_sets(job), ledger))
    return {"report.html": stamp(write_text(root / "report.html", page))}


# Of a full recipe's run directory: what the gate found, and how the steps of its trainings are laid out.
GATE_FILE = "gate.json"
PLAN_FILES: dict[Training, str] = {"sft": "plan-sft.json", "grpo": "plan.json"}
_FLOOR = (
    "sourced.py",
    "asset_kinds.py",
    "scene_parts.py",
    "task_parts.py",
    "training_parts.py",
    "distill_parts.py",
    "recipe.py",
    "libraries.py",
    "rundir.py",
    "inputs.py",
    "data",
    "vision.py",
    "clips.py",
    "processor.py",
)
STAGE_TABLE: dict[str, Stage] = {
    "assets": Stage((), ("scenes", "image_size", "assets", "clips"), (*_FLOOR, "mini"), make_assets),
    "warm-start": Stage(
        ("assets",),
        ("model", "warm_start", "prompts", "threads", "image_size", "clips"),
        (*_FLOOR, "mini", "train/supervised.py", "train/examples.py", "train/checkpoints.py", "train/settings.py"),
        warm_start,
    ),
    "distill": Stage(
        ("assets",),
        ("distill",),
        (*_FLOOR, "distill_stage.py", "chain", "distill", "endpoint", "mini"),
        distill_answers,
    ),
    "base-evaluation": Stage(
        ("assets", "warm-start"),
        ("evaluation", "prompts", "threads", "tasks", "clips"),
        (*_FLOOR, "answers", "evaluate", "mini/language.py"),
        evaluate_base,
    ),
    "base-gate": Stage(
        ("assets", "base-evaluation"),
        (
            *("train", "prompts_per_step", "max_prompt_length", "weights_dtype", "sharding", "processor"),
            *("grouped_images", "sft", "examples_per_step", "sft_layout"),
        ),
        (*_FLOOR, "answers", "evaluate", "judge", "plan"),
        judge_base,
        derived=True,
    ),
    "sft": Stage(
        ("assets", "warm-start", "distill"),
        ("sft", "sft_examples", "examples_per_step", "sft_layout", "devices", "threads", "processor"),
        (*_FLOOR, "training_stages.py", "plan", "train"),
        train_by_examples,
    ),
    "grpo": Stage(
        ("assets", "warm-start", "sft"),
        (
            *("train", "factors", "prompts", "prompts_per_step", "devices", "threads", "processor"),
            *("max_prompt_length", "schedule_steps", "weights_dtype", "sharding", "grouped_images"),
            *("clips", "rewards", "over_long"),
        ),
        (*_FLOOR, "answers", "training_stages.py", "plan", "train", "mini/language.py"),
        train_by_rewards,
    ),
    "evaluation": Stage(
        ("assets", "sft", "grpo"),
        ("evaluation", "prompts", "threads", "tasks", "clips"),
        (*_FLOOR, "answers", "evaluate", "mini/language.py"),
        evaluate_trained,
    ),
    "verdict": Stage(
        ("base-evaluation", "evaluation"), (), (*_FLOOR, "answers", "evaluate", "judge"), give_verdict, derived=True
    ),
    "report": Stage(
        ("distill", "verdict", "sft", "grpo"),
        (),
        (*_FLOOR, "ledger.py", "answers", "evaluate", "judge", "report"),
        write_report,
        derived=True,
    ),
}


def started_path(job: Job, stage: str) -> Path:
    """Where a stage notes, before it begins, what it began with."""
    return job.stage_folder(stage) / "started.json"


def new_record(
    job: Job, stage: str, code: str, inputs: dict[str, str], outputs: dict[str, FileStamp], started: str, seconds: float
) -> StageRecord:
    """The record of a stage that has just ended; `code` is the version it began with."""
    return StageRecord(
        threads=threads_of(job, stage) if "threads" in STAGE_TABLE[stage].sections else None,
        stage=stage,
        code=code,
        inputs=inputs,
        outputs=outputs,
        started=started,
        seconds=round(seconds, 1),
        image=image_id(),
    )


def note_start(job: Job, stage: str, code: str, inputs: dict[str, str]) -> None:
    """Write down what a stage begins with, so that a later start can tell whether it may go on from there."""
    make_folder(job.stage_folder(stage))
    write_json(started_path(job, stage), {"code": code, "inputs": inputs})
