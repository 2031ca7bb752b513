"""Callbacks of every trainer: metrics to a file, progress, and checkpoints that are complete or do not count.

transformers writes a checkpoint file by file; a process killed meanwhile leaves half of one.  Here a checkpoint counts
only once it is sealed: a list of its files' checksums, written last.

With several processes the first of all writes, and decides for all where to go on; they share the run's folder.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    AutoProcessor,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar
from r1mm.rundir import FileStamp, explained, files_below, make_folder, verify_file, write_json, write_jsonl

_SEAL = "sealed.json"


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint complete."""
    stamps = files_below(checkpoint, checkpoint)
    write_json(checkpoint / _SEAL, {path: stamp.model_dump() for path, stamp in stamps.items()})


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`; half-written ones are removed.

    Raises BadInput, naming file and checksum, when a complete one has been damaged since.
    """
    found: Path | None = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        if (checkpoint / _SEAL).is_file():
            found = checkpoint
        else:
            shutil.rmtree(checkpoint)
    if found is None:
        return None
    remedy = f"delete {found} to go on from an earlier checkpoint, or start anew with --fresh"
    try:
        stamps = {
            path: FileStamp.model_validate(value) for path, value in json.loads((found / _SEAL).read_text()).items()
        }
    except ValueError as error:
        raise BadInput(f"{found / _SEAL} is damaged ({error}); {remedy}") from error
    for path, expected in stamps.items():
        verify_file(found / path, expected, remedy)
    return found


def checkpoint_step(checkpoint: Path | None) -> int:
    """The optimizer step a checkpoint was taken after; 0 for none."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def agreed_checkpoint(trainer: Trainer, folder: Path) -> Path | None:
    """The newest complete checkpoint, as the first process finds it.  BadInput, in every process, when damaged."""
    found: list[Any] = [None, None]
    if trainer.is_world_process_zero():
        try:
            found[0] = latest_checkpoint(folder)
        except BadInput as error:
            found[1] = str(error)
    if trainer.args.world_size > 1:
        broadcast_object_list(found)
    if found[1] is not None:
        raise BadInput(found[1])
    checkpoint: Path | None = found[0]
    return checkpoint


class ResumesExactly(Trainer):
    """A Trainer that saves one layout of files under DDP and ZeRO, and takes a checkpoint as `from_pretrained` does.

    transformers 5.23 saves Qwen2-VL under its published parameter names, which are not the module's own, and its
    Trainer loads a checkpoint by the module's own: it finds none, warns, and goes on with the weights it has.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:  # from deepspeed's engine
            # Copies: that the head is the embedding can no longer be told from where they lie.
            tied = self.model.all_tied_weights_keys
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
            # A ZeRO-3 model keeps every renaming that might be, a plain one only those its checkpoint needed; undoing
            # one that was never done makes names that nobody published.
            conversions = getattr(self.model, "_weight_conversions", None)
            if conversions is not None:
                self.model._weight_conversions = [each for each in conversions if each.was_used()]
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        model = self.model if model is None else model
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype, use_safetensors=True)
        model.load_state_dict(saved.state_dict(), strict=True)


def train_to_the_end(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train from `checkpoint` on, or from the start; a checkpoint of the last step is loaded, not trained past.

    transformers looks at `max_steps` after a step, so that it would take one more.
    """
    if checkpoint is not None and checkpoint_step(checkpoint) >= trainer.args.max_steps:
        # deepspeed holds no whole weights to load into before it trains; `save_trained` takes the checkpoint's files.
        if not trainer.is_deepspeed_enabled:
            trainer._load_from_checkpoint(str(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def train_resumably(trainer: Trainer, folder: Path, metrics: Path, title: str, shown: dict[str, str]) -> None:
    """Train to the end from the newest complete checkpoint in `folder`; seals new ones, writes a line per step.

    `title` and `shown` are the progress bar's.  Raises BadInput for a damaged checkpoint, StageFailed for a gradient
    that is not finite.
    """
    checkpoint = agreed_checkpoint(trainer, folder)
    resumed = checkpoint_step(checkpoint)
    trainer.remove_callback(PrinterCallback)  # our bar and metrics file say the same, legibly
    callbacks: list[TrainerCallback] = [
        SealCheckpoints(),
        FiniteGradients(
            (lambda: trainer.model_wrapped.get_global_grad_norm()) if trainer.is_deepspeed_enabled else None
        ),
    ]
    if trainer.is_world_process_zero():
        callbacks += [
            MetricsFile(metrics, resumed),
            Progress(title, shown, resumed),
            # What `r1mm dashboard` shows; steps that a kill made be done again are drawn once.
            TensorBoardCallback(SummaryWriter(folder / "tensorboard", purge_step=resumed + 1, flush_secs=10)),
        ]
    for callback in callbacks:
        trainer.add_callback(callback)
    train_to_the_end(trainer, checkpoint)


def save_trained(trainer: Trainer, folder: Path, base: Path) -> None:
    """Leave the trained weights, safetensors, their configuration and `base`'s processor in `folder`/model.

    Every process calls it.  `folder` holds the checkpoints: where deepspeed found nothing left to train, the last one's
    files are taken.
    """
    target = folder / "model"
    if trainer.is_deepspeed_enabled and trainer.deepspeed is None:
        checkpoint = agreed_checkpoint(trainer, folder)
        assert checkpoint is not None  # of the last step: nothing was left to train
        if trainer.is_world_process_zero():
            make_folder(target)
            for path in checkpoint.iterdir():
                if path.suffix == ".safetensors" or path.name.startswith(("config.", "generation_", "model.")):
                    shutil.copyfile(path, target / path.name)
    else:
        trainer.save_model(str(target))
    if trainer.is_world_process_zero():
        # A pickle of what metrics and manifest already say in the open; a model folder holds no pickles.
        (target / "training_args.bin").unlink(missing_ok=True)
        # The base model's own: limits on images, padding of the last call and Pillow are training's alone.
        AutoProcessor.from_pretrained(base).save_pretrained(target)


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint once all of it, from every process, is on disk."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by the trainer after it has written `checkpoint-<step>`."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


# TRL logs these as constants for a run like ours, or they are the library's own bookkeeping.
_NOT_KEPT = ("_runtime", "_samples_per_second", "_steps_per_second", "total_flos", "train_loss", "num_input_tokens")


_REDO = "delete the checkpoints to train from the start, or start anew with --fresh"


class MetricsFile(TrainerCallback):
    """One JSON line per optimizer step, under the trainer's own metric names; on resumption later lines are dropped."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self.path = path
        kept = []
        if resumed_step:
            # A kill may have cut the last line short; every line up to the checkpoint is whole.
            try:
                kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:resumed_step]]
            except (OSError, ValueError) as error:
                raise BadInput(f"{path} is damaged ({error}); {_REDO}") from error
            if [row.get("step") for row in kept] != list(range(1, resumed_step + 1)):
                raise BadInput(f"{path} lacks steps before the checkpoint of step {resumed_step}; {_REDO}")
        write_jsonl(path, kept)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by the trainer after every optimizer step."""
        kept = {key: value for key, value in (logs or {}).items() if not key.endswith(_NOT_KEPT)}
        if "loss" in kept:
            with explained(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **kept}) + "\n")


class Progress(TrainerCallback):
    """A progress bar that shows the figures named in `shown` (metric name -> short label)."""

    def __init__(self, title: str, shown: dict[str, str], resumed_step: int) -> None:
        self.title, self.shown, self.resumed_step = title, shown, resumed_step
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar where training begins."""
        self.bar = progress_bar(total=state.max_steps, initial=self.resumed_step, desc=self.title, unit="step")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the step's figures."""
        if self.bar is not None and logs and "loss" in logs:
            figures = {label: f"{float(logs[key]):.3g}" for key, label in self.shown.items() if key in logs}
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class FiniteGradients(TrainerCallback):
    """Stops the run before an update whose gradients are not finite.

    ZeRO has taken gradients apart, and made its update, by the time a callback sees the step: there `whole_norm` gives
    the norm it found, and the run stops before anything of that update is written.
    """

    def __init__(self, whole_norm: Callable[[], Any] | None = None) -> None:
        self.whole_norm = whole_norm

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Called by the trainer after the backward pass and clipping, before the update."""
        if self.whole_norm is not None:
            norm = self.whole_norm()
            if norm is not None and not math.isfinite(norm):
                raise StageFailed(_not_finite(args, state, f"the gradient's norm is {float(norm)}"))
            return
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if not torch.isfinite(torch.nn.utils.get_total_norm(list(gradients.values()))):
            worst = next((name for name, grad in gradients.items() if not torch.isfinite(grad).all()), "all, in sum,")
            raise StageFailed(_not_finite(args, state, f"the gradient of {worst} is not finite"))


def _not_finite(args: TrainingArguments, state: TrainerState, what: str) -> str:
    return (
        f"step {state.global_step + 1}: {what}; stopped before the update, the last checkpoint in {args.output_dir} "
        "is kept"
    )
