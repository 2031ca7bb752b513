"""What each stage does: a short function per stage that joins the rooms below, and a table of what each one needs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.manifest import code_version, cores, image_id, packages_digest
from r1mm.recipe import Condition, Recipe, Resolved, digest, values
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

Home = Literal["assets", "base", "run"]
HOMES: tuple[Home, ...] = ("assets", "base", "run")


def default_base_seed(recipe: Recipe) -> int:
    """The seed of the base model that a recipe pins, as a full recipe pins a checkpoint; 0 where it makes none."""
    return recipe.base_seed.value if recipe.base_seed else 0


@dataclass(frozen=True)
class Job:
    """One recipe, variant and seed, below a folder of runs.

    Stages that do not depend on the variant lie in folders that all variants share: `assets` (the pinned data) and
    `base-seed<j>` (the warm-started base model and its evaluation).
    """

    recipe_folder: Path
    resolved: Resolved
    expected: Expected
    seed: int
    base_seed: int
    runs: Path
    packages: str = field(default_factory=packages_digest)  # of the place where the stages run

    @property
    def recipe(self) -> Recipe:
        """The recipe under the job's variant."""
        return self.resolved.recipe

    def folder(self, home: Home) -> Path:
        """Where the stages of one home lie."""
        top = self.runs / self.recipe.name
        if home == "assets":
            return top / "assets"
        if home == "base":
            return top / f"base-seed{self.base_seed}"
        suffix = "" if self.base_seed == default_base_seed(self.recipe) else f"-base{self.base_seed}"
        return top / f"{self.resolved.variant}-seed{self.seed}{suffix}"

    def stage_folder(self, stage: str) -> Path:
        """Where one stage leaves its files."""
        return self.folder(STAGE_TABLE[stage].home) / "stages" / stage

    def identity(self, home: Home) -> dict[str, Any]:
        """What a home's manifest must say to be this job's."""
        names: dict[str, Any] = {"recipe": self.recipe.name, "size": self.recipe.size}
        if home != "assets":
            names["base_seed"] = self.base_seed
        if home == "run":
            names |= {"variant": self.resolved.variant, "seed": self.seed}
        return names


@dataclass(frozen=True)
class Stage:
    """A stage: its home, the stages it takes files from, the parts of the recipe and of the package it depends on.

    `derived` stages are cheap and redone whenever their inputs change; the others refuse to mix versions.
    """

    home: Home
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    rooms: tuple[str, ...]
    body: Callable[[Job], dict[str, FileStamp]]
    derived: bool = False

    def code(self) -> str:
        """The version of the code that this stage's files depend on."""
        helpers = (self.body, _prepare_libraries, _suppressed, _evaluate)
        return code_version(self.rooms, extra="".join(inspect.getsource(part) for part in helpers))


def expected_inputs(job: Job, stage: str) -> dict[str, str]:
    """Digests of all that goes into a stage.  BadInput when a stage it needs is not done."""
    entry = STAGE_TABLE[stage]
    inputs = {f"recipe.{name}": digest(part) for name, part in job.recipe.sections(entry.sections).items()}
    if entry.home == "base":
        inputs["base_seed"] = digest(job.base_seed)
    if entry.home == "run":
        inputs["seed"] = digest([job.resolved.variant, job.seed, job.base_seed])
    if stage == "verdict":
        inputs["expected"] = digest(job.expected.model_dump(mode="json"))
    if not entry.derived:
        inputs["packages"] = job.packages
    for need in entry.needs:
        record = read_record(job.folder(STAGE_TABLE[need].home), need)
        if record is None:
            raise BadInput(
                f"stage {stage} needs stage {need}, which is not done; run `r1mm reproduce` or that stage first"
            )
        inputs[f"stage.{need}"] = record.content()
    return inputs


def _prepare_libraries(job: Job) -> None:
    """Pin what decides the last bit of a sum, and leave the terminal to our own progress bars."""
    import warnings

    import datasets
    import torch
    import transformers

    torch.set_num_threads(job.recipe.threads.value)
    torch.use_deterministic_algorithms(True)
    # Only uninitialised memory would be filled, and nothing here reads any; TRL's log-prob buffers are large.
    torch.utils.deterministic.fill_uninitialized_memory = False
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # The libraries' notices to their own callers about names that will go; the versions are locked.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")


def _suppressed(tokenizer: Any) -> list[int]:
    from r1mm.mini.language import VISION_TOKENS

    ids: list[int] = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    return ids


def make_assets(job: Job) -> dict[str, FileStamp]:
    """Sample, render and write every set of the recipe."""
    from r1mm.mini.datasets import render_sets

    _prepare_libraries(job)
    folder = job.stage_folder("assets")
    assert job.recipe.image_size is not None  # a miniature has one
    render_sets(job.recipe.scenes, job.recipe.image_size.value, folder, cores())
    return files_below(folder, job.folder("assets"))


def warm_start(job: Job) -> dict[str, FileStamp]:
    """Build the tiny model and teach it both ways of answering."""
    from r1mm.data.counting import load_counting
    from r1mm.mini.datasets import PALETTE, read_scenes, warm_start_examples
    from r1mm.mini.language import build_tokenizer, digit_words
    from r1mm.mini.model import build_model, build_processor, save
    from r1mm.train.supervised import train_supervised

    _prepare_libraries(job)
    assets, folder = job.stage_folder("assets"), job.stage_folder("warm-start")
    assert job.recipe.image_size is not None  # a miniature has one
    settings, prompts = values(job.recipe.warm_start), job.recipe.prompts
    templates = {name: getattr(prompts, name).value for name in ("train", "evaluation", "direct")}
    tokenizer = build_tokenizer(list(templates.values()), PALETTE)
    processor = build_processor(tokenizer, job.recipe.image_size.value)
    model = build_model(values(job.recipe.model), tokenizer, job.base_seed)
    train_supervised(
        model,
        processor,
        load_counting(assets / "warm-start.parquet"),
        list(warm_start_examples(read_scenes(assets, "warm-start"), templates, settings, job.base_seed)),
        settings=settings,
        heavy_words=digit_words(tokenizer),
        seed=job.base_seed,
        folder=folder,
    )
    save(model, processor, folder / "model")
    return files_below(folder / "model", job.folder("base")) | {
        "stages/warm-start/metrics.jsonl": stamp(folder / "metrics.jsonl")
    }


def _evaluate(job: Job, home: Home, model_folder: Path, conditions: dict[str, str]) -> dict[str, FileStamp]:
    from r1mm.data.counting import load_counting
    from r1mm.evaluate.generate import generate_outputs, load_model

    _prepare_libraries(job)
    model, processor = load_model(model_folder)
    settings = values(job.recipe.evaluation)
    written = {}
    for split, task in job.recipe.tasks.items():
        dataset = load_counting(job.stage_folder("assets") / f"{task.items}.parquet")
        for condition, template in conditions.items():
            outputs = generate_outputs(
                model,
                processor,
                dataset,
                split=split,
                template=template,
                max_new_tokens=settings["max_new_tokens"],
                batch_size=settings["batch_size"],
                suppressed=_suppressed(processor.tokenizer),
                title=f"{condition}, {split}",
            )
            name = f"generations/{condition}-{split}.jsonl"
            written[name] = stamp(write_jsonl(job.folder(home) / name, (o.model_dump() for o in outputs)))
    return written


def evaluate_base(job: Job) -> dict[str, FileStamp]:
    """The base model asked to think, and, as the control, asked for a direct answer."""
    prompts = job.recipe.prompts
    return _evaluate(
        job,
        "base",
        job.stage_folder("warm-start") / "model",
        {"base-think": prompts.evaluation.value, "base-direct": prompts.direct.value},
    )


def train(job: Job) -> dict[str, FileStamp]:
    """GRPO from the base model."""
    from r1mm.data.counting import load_counting
    from r1mm.train.grpo import build_trainer, train_grpo

    _prepare_libraries(job)
    folder, root = job.stage_folder("grpo"), job.folder("run")
    trainer = build_trainer(
        job.recipe,
        model=job.stage_folder("warm-start") / "model",
        dataset=load_counting(job.stage_folder("assets") / "train.parquet"),
        seed=job.seed,
        folder=folder,
        suppressed=_suppressed,
    )
    train_grpo(trainer, folder, root / "metrics.jsonl")
    return files_below(folder / "model", root) | {"metrics.jsonl": stamp(root / "metrics.jsonl")}


def evaluate_trained(job: Job) -> dict[str, FileStamp]:
    """The trained model, asked to think as upstream's evaluation asks."""
    return _evaluate(
        job, "run", job.stage_folder("grpo") / "model", {"trained-think": job.recipe.prompts.evaluation.value}
    )


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


def give_verdict(job: Job) -> dict[str, FileStamp]:
    """Judge the outputs against the claims."""
    from r1mm.evaluate.counting import read_outputs
    from r1mm.judge.verdict import judge

    verdict = judge(
        job.expected,
        recipe=job.recipe.name,
        size=job.recipe.size,
        variant=job.resolved.variant,
        seed=job.seed,
        base_seed=job.base_seed,
        outputs={
            split: {condition: read_outputs(path) for condition, path in files.items()}
            for split, files in generations(job).items()
        },
    )
    path = write_json(job.folder("run") / "verdict.json", verdict.model_dump(mode="json"))
    return {"verdict.json": stamp(path)}


def write_report(job: Job) -> dict[str, FileStamp]:
    """One page with everything that was found."""
    from r1mm.report.collect import report_inputs
    from r1mm.report.page import build_report

    root = job.folder("run")
    page = build_report(report_inputs(root, generations(job), job.stage_folder("assets")))
    return {"report.html": stamp(write_text(root / "report.html", page))}


_FLOOR = ("recipe.py", "rundir.py", "data", "vision.py")
STAGE_TABLE: dict[str, Stage] = {
    "assets": Stage("assets", (), ("scenes", "image_size"), (*_FLOOR, "mini"), make_assets),
    "warm-start": Stage(
        "base",
        ("assets",),
        ("model", "warm_start", "prompts", "threads", "image_size"),
        (*_FLOOR, "mini", "train/supervised.py", "train/checkpoints.py", "train/settings.py"),
        warm_start,
    ),
    "base-evaluation": Stage(
        "base",
        ("assets", "warm-start"),
        ("evaluation", "prompts", "threads", "tasks"),
        (*_FLOOR, "evaluate", "mini/language.py"),
        evaluate_base,
    ),
    "grpo": Stage(
        "run",
        ("assets", "warm-start"),
        ("train", "factors", "prompts", "prompts_per_step", "devices", "threads"),
        (*_FLOOR, "train", "mini/language.py"),
        train,
    ),
    "evaluation": Stage(
        "run",
        ("assets", "grpo"),
        ("evaluation", "prompts", "threads", "tasks"),
        (*_FLOOR, "evaluate", "mini/language.py"),
        evaluate_trained,
    ),
    "verdict": Stage(
        "run", ("base-evaluation", "evaluation"), (), (*_FLOOR, "evaluate", "judge"), give_verdict, derived=True
    ),
    "report": Stage("run", ("verdict", "grpo"), (), (*_FLOOR, "report"), write_report, derived=True),
}


def started_path(job: Job, stage: str) -> Path:
    """Where a stage notes, before it begins, what it began with."""
    return job.stage_folder(stage) / "started.json"


def new_record(
    stage: str, code: str, inputs: dict[str, str], outputs: dict[str, FileStamp], started: str, seconds: float
) -> StageRecord:
    """The record of a stage that has just ended; `code` is the version it began with."""
    return StageRecord(
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
