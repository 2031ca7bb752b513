"""What the stages that train do: supervised fine-tuning and GRPO, in as many processes as the plan has."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator

from r1mm.errors import StageFailed
from r1mm.inputs import metrics_file, plan_of, sft_set, start_model, training_set
from r1mm.job import Job
from r1mm.libraries import prepare_libraries
from r1mm.plan import Layout, parse_gpus
from r1mm.rundir import FileStamp, files_below, stamp, write_json
from r1mm.training_parts import Training

LEFT_OUT_FILE = "left-out.json"  # of the stage sft: the examples that are too long, with their tokens


def _in_processes(job: Job, training: Training, body: Callable[[Job, Layout | None], None]) -> dict[str, FileStamp]:
    """Train in as many processes as the plan has; the model and the metrics that this leaves."""
    from r1mm.train.distributed import in_processes, needs_launch

    layout = None if job.recipe.miniature else plan_of(job, training).layout
    if layout is not None and needs_launch(layout):
        in_processes(layout, body, job, layout)
    else:
        body(job, layout)
    root, metrics = job.folder("run"), metrics_file(job, training)
    return files_below(job.stage_folder(training) / "model", root) | {str(metrics.relative_to(root)): stamp(metrics)}


def train_by_examples(job: Job) -> dict[str, FileStamp]:
    """Supervised fine-tuning of the base model on written-out thoughts and answers."""
    from r1mm.train.sft import long_examples

    prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
    left_out = job.stage_folder("sft") / LEFT_OUT_FILE
    long = long_examples(job.recipe, start_model(job, "sft"), sft_set(job))
    write_json(left_out, [{"item": item, "tokens": tokens} for item, tokens in long.items()])
    if long:
        print(f"{len(long)} examples are too long and left out: {left_out}", file=sys.stderr, flush=True)
    written = _in_processes(job, "sft", _fine_tune_here)
    return written | {str(left_out.relative_to(job.folder("run"))): stamp(left_out)}


def _fine_tune_here(job: Job, layout: Layout | None) -> None:
    from r1mm.train.sft import build_fine_tuner, fine_tune

    prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
    folder, examples = job.stage_folder("sft"), sft_set(job)
    long = {row["item"] for row in json.loads((folder / LEFT_OUT_FILE).read_text(encoding="utf-8"))}
    kept = [row for row, item in enumerate(examples["item"]) if item not in long]
    with _enough_memory(job):
        trainer = build_fine_tuner(
            job.recipe,
            model=start_model(job, "sft"),
            dataset=examples.select(kept),
            seed=job.seed,
            folder=folder,
            layout=layout,
        )
        fine_tune(trainer, folder, metrics_file(job, "sft"))


def train_by_rewards(job: Job) -> dict[str, FileStamp]:
    """GRPO from the base model, or from the fine-tuned one where the run has that."""
    from r1mm.train.prompt_length import OVER_LONG_FILE

    written, dropped = _in_processes(job, "grpo", _train_here), job.stage_folder("grpo") / OVER_LONG_FILE
    if dropped.is_file():
        written[str(dropped.relative_to(job.folder("run")))] = stamp(dropped)
    return written


def _train_here(job: Job, layout: Layout | None) -> None:
    from r1mm.mini.language import never_sampled
    from r1mm.train.grpo import build_trainer, train_grpo

    prepare_libraries(job.recipe, cpu=job.gpus == "cpu")
    folder = job.stage_folder("grpo")
    with _enough_memory(job):
        trainer = build_trainer(
            job.recipe,
            model=start_model(job, "grpo"),
            dataset=training_set(job),
            seed=job.seed,
            folder=folder,
            suppressed=never_sampled,
            layout=layout,
        )
        train_grpo(trainer, folder, metrics_file(job, "grpo"))


@contextlib.contextmanager
def _enough_memory(job: Job) -> Iterator[None]:
    """StageFailed, with what to do, where a GPU's memory is not enough for a training."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        machine = parse_gpus(job.gpus)
        smaller = f"{machine.gpus}x{0.8 * machine.gpu.memory:.0f}G"
        raise StageFailed(
            f"training ran out of GPU memory ({str(error).splitlines()[0]}); the plan is an estimate. Plan for less "
            f"than there is, --gpus {smaller} (make: GPUS={smaller}), with --fresh"
        ) from error
