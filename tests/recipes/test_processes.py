"""Training in two processes as it goes wrong: a kill, gradients that are no numbers, Ctrl-C.  And what it leaves."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from r1mm.errors import BadInput, StageFailed
from r1mm.plan import Layout
from r1mm.train.distributed import in_processes
from r1mm.train.grpo import R1Trainer
from tests.ends import ends
from tests.laid_out import WithoutGradient, laid_out, make_world, rows, small_recipe, train_here

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (docker/locks/sharding.txt)"
)
DDP, ZERO_2, ZERO_3 = laid_out(2, 4, 2), laid_out(2, 4, 2, "zero-2"), laid_out(2, 4, 2, "zero-3")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def looks(model: Path) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (weights.dtype, weights.shape) for name, weights in load_file(model / "model.safetensors").items()}


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves, started by nothing."""
    folder = tmp_path_factory.mktemp("plain")
    before = torch.get_num_threads()
    chosen = train_here.__globals__["grpo"].R1Trainer
    try:
        train_here(small_recipe(max_steps=1, save_steps=1), world, folder, laid_out(1, 16, 1), R1Trainer)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
        train_here.__globals__["grpo"].R1Trainer = chosen
    return folder


@pytest.mark.parametrize(
    "layout",
    [DDP, pytest.param(ZERO_2, marks=needs_deepspeed), pytest.param(ZERO_3, marks=needs_deepspeed)],
    ids=["ddp", "zero-2", "zero-3"],
)
def test_a_killed_run_goes_on_to_the_same_weights(world: Path, plain: Path, tmp_path: Path, layout: Layout) -> None:
    recipe = small_recipe(max_steps=4)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    in_processes(layout, train_here, recipe, world, whole, layout, R1Trainer)
    with pytest.raises(StageFailed, match="process 1 of 2: ended by SIGKILL"):
        in_processes(layout, train_here, recipe, world, broken, layout, R1Trainer, 3)
    assert [path.name for path in broken.glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (broken / "model").exists()
    in_processes(layout, train_here, recipe, world, broken, layout, R1Trainer)

    expected, base = load_file(whole / "model" / "model.safetensors"), load_file(world / "base" / "model.safetensors")
    found = load_file(broken / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weights in found.items():
        assert weights.equal(expected[name]), name
    assert not all(weights.equal(base[name]) for name, weights in found.items())
    for one, other in zip(rows(whole), rows(broken), strict=True):
        assert {**one, "step_time": 0} == {**other, "step_time": 0}

    # However it was laid out, it leaves what one process leaves.
    for folder in (whole, broken):
        assert names(folder / "model") == names(plain / "model")
        assert looks(folder / "model") == looks(plain / "model") == looks(folder / "checkpoint-2")
    model, loading = AutoModelForImageTextToText.from_pretrained(broken / "model", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


@needs_deepspeed
@pytest.mark.parametrize("layout", [ZERO_2, ZERO_3], ids=["zero-2", "zero-3"])
def test_a_sharded_gradient_that_is_not_finite_stops_the_run(world: Path, tmp_path: Path, layout: Layout) -> None:
    recipe = small_recipe(max_steps=3, save_steps=1)
    with pytest.raises(StageFailed, match=r"^step 2: the gradient's norm is (nan|inf); stopped"):
        in_processes(layout, train_here, recipe, world, tmp_path, layout, WithoutGradient)
    assert [row["step"] for row in rows(tmp_path)] == [1]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (tmp_path / "model").exists()


def test_text_alone_trains_in_two_processes(world: Path, tmp_path: Path) -> None:
    """DDP waits for the vision tower's gradients, which log-probs without images do not give."""
    layout = laid_out(2, 4, 2, gradient_checkpointing=True)
    in_processes(layout, train_here, small_recipe("as-published", max_steps=2), world, tmp_path, layout)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    base, after = (load_file(path / "model.safetensors") for path in (world / "base", tmp_path / "model"))
    moved = {name for name, weights in after.items() if not weights.equal(base[name])}
    assert moved
    assert not any(name.startswith("visual.") for name in moved)
    assert {name for name in after if name.startswith("model.layers.")} <= moved


@pytest.fixture
def started(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ends", str(tmp_path), DDP.model_dump_json()],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("early", [False, True], ids=["at-work", "while-it-starts"])
def test_ctrl_c_ends_all_at_once(started: "subprocess.Popen[str]", tmp_path: Path, early: bool) -> None:
    parent = psutil.Process(started.pid)
    wanted = (lambda: len(parent.children(recursive=True)) > 1) if early else lambda: len(list(tmp_path.iterdir())) == 2
    for _ in range(1200):
        if wanted():
            break
        time.sleep(0.05)
    assert wanted()
    children = parent.children(recursive=True)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal sends it, to all
    pressed = time.monotonic()
    _, errors = started.communicate(timeout=30)
    assert time.monotonic() - pressed < 10
    assert started.returncode == 1
    assert errors.rstrip().endswith("interrupted"), errors
    # One that has not come to r1mm's own code yet says in Python's words what ended it.
    assert early or "Traceback" not in errors
    # A child of the child that nobody waits for is a zombie where process 1 does not: it has ended.
    _, alive = psutil.wait_procs(children, timeout=1)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("input", BadInput, "^the dataset: it has no images$"),
        ("killed", StageFailed, "process 1 of 2: ended by SIGKILL; all were stopped"),
    ],
)
def test_one_process_that_fails_ends_all(tmp_path: Path, how: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        in_processes(laid_out(2, 8, 8), ends, how, tmp_path)
    for process in tmp_path.iterdir():
        assert not psutil.pid_exists(int(process.read_text()))
