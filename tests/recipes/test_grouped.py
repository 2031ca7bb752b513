"""A group's images encoded once: the same numbers as TRL's own way, with the tower at U images."""

import functools
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from r1mm.errors import BadInput
from r1mm.train.grouped import take_rows
from tests.unit.train.on_and_off import GROUP, PATCHES, TOLERANCE, apart, compared, one_step, save_base, trainer_of

pytestmark = pytest.mark.usefixtures("one_thread")


KINDS = ["qwen2_vl", "qwen2_5_vl"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_base(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


U = sum(PATCHES[i] for i in (0, 1, 2, 1, 0, 1))  # patches of the step's six prompts


@pytest.mark.parametrize("kind", KINDS)
def test_loss_kl_and_gradient_are_trls_and_the_tower_sees_each_prompts_image_once(
    bases: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    few, many = compared(functools.partial(trainer_of, bases[kind]), tmp_path)
    assert few == [U] * 3  # generation, reference, policy
    assert many == [U * GROUP] * 3


def test_under_gradient_checkpointing(bases: dict[str, Path], tmp_path: Path) -> None:
    make = functools.partial(
        trainer_of,
        bases["qwen2_5_vl"],
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    few, many = compared(make, tmp_path)
    assert few == [U] * 3
    assert many == [U * GROUP] * 3


@pytest.mark.parametrize(("size", "calls"), [(8, 3), (2, 12)])
def test_groups_stay_together_in_micro_batches(bases: dict[str, Path], tmp_path: Path, size: int, calls: int) -> None:
    make = functools.partial(
        trainer_of, bases["qwen2_vl"], per_device_train_batch_size=size, gradient_accumulation_steps=calls
    )
    few, many = compared(make, tmp_path)
    assert few[0] == U
    assert many[0] == U * GROUP
    # Each micro-batch's reference pass, then its policy pass.  A group that is cut in two is encoded on both sides.
    cut = max(1, GROUP // size)
    assert sum(few[1 : 1 + calls]) == U * cut
    assert sum(few[1 + calls :]) == U * cut
    assert len(few) == 1 + 2 * calls
    assert sum(many[1:]) == 2 * U * GROUP


def test_an_update_has_the_rows_that_trl_gives_it(bases: dict[str, Path], tmp_path: Path) -> None:
    lines = []
    for grouped in (True, False):
        trainer = trainer_of(
            bases["qwen2_vl"],
            tmp_path / str(grouped),
            grouped=grouped,
            **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 6},
            **{"max_steps": 3, "logging_steps": 1, "disable_tqdm": True},
        )
        trainer.train()
        lines.append([line for line in trainer.state.log_history if "loss" in line])
    for ours, theirs in zip(*lines, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5, abs=TOLERANCE)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_with_adapters(bases: dict[str, Path], tmp_path: Path) -> None:
    few, many = compared(
        functools.partial(
            trainer_of, bases["qwen2_vl"], adapters=LoraConfig(r=4, target_modules=["q_proj", "qkv", "fc1"])
        ),
        tmp_path,
    )
    assert few == [U] * 3  # the reference is the policy with its adapters off
    assert many == [U * GROUP] * 3


def test_in_bfloat16_it_is_as_near_to_float32_as_trl_is(bases: dict[str, Path], tmp_path: Path) -> None:
    exact = one_step(trainer_of(bases["qwen2_vl"], tmp_path, grouped=False))
    errors = {}
    for grouped in (True, False):
        trainer = trainer_of(bases["qwen2_vl"], tmp_path, grouped=grouped)
        trainer.model.to(torch.bfloat16)
        trainer.ref_model.to(torch.bfloat16)
        # The same completions: what bfloat16 samples is another matter.
        with torch.autocast("cpu", torch.bfloat16):
            found = one_step(trainer)
        errors[grouped] = apart({name: g.float() for name, g in found[1].items()}, exact[1])
    assert errors[True] < 1.2 * errors[False]


def test_rows_taken_from_a_batch_bring_the_images_of_their_groups() -> None:
    grids = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 2, 2]])
    pixels = torch.arange(16.0)[:, None]
    batch = {
        "group": torch.tensor([0, 0, 1, 1]),
        "num_images": [1, 1, 2, 2],  # the second group shows two images
        "image_grid_thw": grids,
        "pixel_values": pixels,
        "advantages": torch.arange(4.0),
        "num_items_in_batch": torch.tensor(7),
        "none": None,
    }
    taken = take_rows(batch, [3, 1])
    assert taken["group"].tolist() == [0, 1]
    assert taken["num_images"] == [2, 1]
    assert taken["advantages"].tolist() == [3.0, 1.0]
    assert torch.equal(taken["image_grid_thw"], grids[[1, 2, 0]])
    assert torch.equal(taken["pixel_values"], torch.cat([pixels[4:], pixels[:4]]))
    assert taken["num_items_in_batch"] == 7
    assert taken["none"] is None


def test_a_cache_whose_rows_cannot_be_copied_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cache_implementation is 'static'; .* set grouped_images to false"):
        trainer_of(bases["qwen2_vl"], tmp_path, grouped=True, cache_implementation="static")
