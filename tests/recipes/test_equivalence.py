"""One optimizer step is the same however it is laid out: by its gradient, on the CPU, in float32.

The step is one of plain SGD at a learning rate so large that the change of the weights is the gradient, to rounding;
it is read from the weights that training leaves, so that saving from every layout is tested too.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1mm.plan import Layout
from r1mm.train.distributed import in_processes
from tests.laid_out import full_recipe, laid_out, make_world, relative_difference, rows, train_here

pytestmark = [pytest.mark.timeout(1800), pytest.mark.whole]

Gradient = dict[str, torch.Tensor]
RATE = 1e4
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (docker/locks/sharding.txt)"
)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Layout], tuple[Gradient, dict[str, float]]]:
    """The gradient and the metrics of one step of 16 prompts x 8 completions, by layout."""
    world = make_world(tmp_path_factory.mktemp("world"))
    base = load_file(world / "base" / "model.safetensors")
    recipe = full_recipe(optim="sgd", learning_rate=RATE, max_grad_norm=0.0, max_steps=1, max_completion_length=24)
    done: dict[Layout, Path] = {}

    def take(layout: Layout) -> tuple[Gradient, dict[str, float]]:
        if layout not in done:
            folder = tmp_path_factory.mktemp("step")
            in_processes(layout, train_here, recipe, world, folder, layout)
            done[layout] = folder
        after = load_file(done[layout] / "model" / "model.safetensors")
        (metrics,) = rows(done[layout])
        return {name: (after[name] - base[name]) / -RATE for name in base}, metrics

    return take


WHOLE = laid_out(1, 128, 1)
DDP = laid_out(2, 16, 4)


@pytest.mark.parametrize(
    ("layout", "tolerance"),
    [
        (laid_out(1, 8, 16), 1e-6),
        (DDP, 1e-6),
        pytest.param(laid_out(2, 16, 4, "zero-2"), 1e-5, marks=needs_deepspeed),
        pytest.param(laid_out(2, 16, 4, "zero-3"), 1e-5, marks=needs_deepspeed),
    ],
    ids=["accumulated", "ddp", "zero-2", "zero-3"],
)
def test_a_layout_gives_the_gradient_of_the_whole_batch(
    step: Callable[[Layout], tuple[Gradient, dict[str, float]]],
    layout: Layout,
    tolerance: float,
    record_property: Callable[[str, object], None],
) -> None:
    whole, expected = step(WHOLE)
    found, metrics = step(layout)
    difference = relative_difference(found, whole)
    record_property("relative difference", difference)
    assert difference <= tolerance
    for name in ("reward", "reward_std", "rewards/accuracy_reward/mean", "completions/mean_length"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-6), name
    # TRL weighs its micro-batches alike in this figure, however many tokens they have.
    assert metrics["kl"] == pytest.approx(expected["kl"], rel=1e-2)
    assert 0 < expected["rewards/accuracy_reward/mean"] < 1
    assert expected["kl"] > 0


@needs_deepspeed
@pytest.mark.parametrize("sharding", ["zero-2", "zero-3"])
def test_sharded_gradients_are_those_of_ddp(
    step: Callable[[Layout], tuple[Gradient, dict[str, float]]],
    sharding: str,
    record_property: Callable[[str, object], None],
) -> None:
    ddp, _ = step(DDP)
    found, _ = step(laid_out(2, 16, 4, sharding))  # type: ignore[arg-type]
    difference = relative_difference(found, ddp)
    record_property("relative difference", difference)
    assert difference <= 1e-5
