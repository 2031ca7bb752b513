import json
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from r1mm.errors import BadInput, StageFailed
from r1mm.train.checkpoints import (
    FiniteGradients,
    MetricsFile,
    SealCheckpoints,
    checkpoint_step,
    latest_checkpoint,
    seal,
    train_to_the_end,
)


def checkpoint(folder: Path, step: int, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights of step %d" % step)
    if sealed:
        seal(path)
    return path


def test_the_newest_complete_checkpoint_counts_and_half_ones_go(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    whole = checkpoint(tmp_path, 20)
    half = checkpoint(tmp_path, 100, sealed=False)
    assert latest_checkpoint(tmp_path) == whole
    assert checkpoint_step(whole) == 20
    assert not half.exists()


def test_no_checkpoint_is_step_zero(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert checkpoint_step(None) == 0


@pytest.mark.parametrize("damage", ["truncate", "change", "remove", "seal"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = checkpoint(tmp_path, 7) / "model.safetensors"
    if damage == "truncate":
        path.write_bytes(b"weights")
    elif damage == "change":
        path.write_bytes(b"weights of step 8")
    elif damage == "remove":
        path.unlink()
    else:
        path = path.with_name("sealed.json")
        path.write_text("{")
    with pytest.raises(BadInput, match=rf"checkpoint-7/{path.name} .*delete .*checkpoint-7 to go on from an earlier"):
        latest_checkpoint(tmp_path)


def state_at(step: int) -> TrainerState:
    return TrainerState(global_step=step)


def test_metrics_after_the_checkpoint_are_dropped_on_resumption(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    arguments, control = TrainingArguments(output_dir=str(tmp_path)), TrainerControl()
    first = MetricsFile(path, resumed_step=0)
    for step in (1, 2, 3):
        first.on_log(arguments, state_at(step), control, logs={"loss": step / 10, "train_runtime": 1.0})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # cut short by a kill
    second = MetricsFile(path, resumed_step=2)
    second.on_log(arguments, state_at(3), control, logs={"loss": 0.9})
    second.on_log(arguments, state_at(3), control, logs={"train_runtime": 3.0})  # the closing summary is no step
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}, {"step": 3, "loss": 0.9}]


@pytest.mark.parametrize("content", [None, '{"step": 1, "loss": 0.1}\n', '{"step": 1}\n{"st\n{"step": 3}\n'])
def test_metrics_that_lack_steps_before_the_checkpoint_are_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=r"metrics\.jsonl (is damaged|lacks steps).*delete the checkpoints"):
        MetricsFile(path, resumed_step=2)


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.slope * x - x) ** 2).mean()}


def test_a_checkpoint_of_the_last_step_is_not_trained_past(tmp_path: Path) -> None:
    def trainer() -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, save_steps=3, per_device_train_batch_size=2, report_to=[],
            disable_tqdm=True, use_cpu=True, learning_rate=0.1, lr_scheduler_type="constant",
            dataloader_pin_memory=False,
        )  # fmt: skip
        # Four steps to an epoch: the end falls inside one.
        return Trainer(
            Line(), arguments, train_dataset=[{"x": float(i)} for i in range(8)], callbacks=[SealCheckpoints()]
        )

    first = trainer()
    train_to_the_end(first, None)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    second = trainer()
    train_to_the_end(second, checkpoint)
    assert second.model.slope.item() == first.model.slope.item() != 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path, bad: float) -> None:
    model = torch.nn.Linear(2, 2)
    arguments = TrainingArguments(output_dir=str(tmp_path))
    model(torch.ones(1, 2)).sum().backward()
    FiniteGradients().on_pre_optimizer_step(arguments, state_at(4), TrainerControl(), model=model)
    assert model.bias.grad is not None
    model.bias.grad[0] = bad
    with pytest.raises(StageFailed, match="step 5: the gradient of bias is not finite"):
        FiniteGradients().on_pre_optimizer_step(arguments, state_at(4), TrainerControl(), model=model)
