"""GRPO on clips: positions, groups and passes, held against plain torch."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from r1mm.data.clips import Clip
from r1mm.data.prompts import conversation
from r1mm.errors import BadInput
from r1mm.train.grouped import plain_network
from tests.unit.train.on_and_off import (
    GROUP,
    QUESTIONS,
    apart,
    compared,
    save_base,
    trainer_of,
)

# Frames, height and width in pixels.  The first is longer than high and wide: 4 steps of 1 x 2 merged patches.
SHAPES = [(8, 28, 56), (2, 56, 84), (4, 56, 56)]
PATCHES = [32, 24, 32]
U = 2 * sum(PATCHES)  # of the step's six prompts


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("qwen2_vl", tmp_path_factory.mktemp("clips"))


def rows() -> Dataset:
    """Six prompts over three clips, each under two questions."""
    torch.manual_seed(0)
    clips = [Clip(torch.randint(0, 256, (t, 3, high, wide), dtype=torch.uint8)) for t, high, wide in SHAPES]

    def shown(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, "image": [clips[number % 3] for number in columns["number"]]}

    prompts = [conversation(QUESTIONS[i // 2]) for i in range(6)]
    return Dataset.from_dict({"prompt": prompts, "number": list(range(6))}).with_transform(shown)


make = functools.partial(trainer_of, dataset=rows, clips=True)


def test_loss_kl_and_gradient_are_those_of_every_row_alone_and_the_tower_sees_a_clip_once(
    base: Path, tmp_path: Path
) -> None:
    few, many = compared(functools.partial(make, base), tmp_path)
    assert few == [U] * 3  # generation, reference, policy
    assert many == [U * GROUP] * 3


def test_with_accumulation_groups_stay_together(base: Path, tmp_path: Path) -> None:
    accumulating = functools.partial(make, base, per_device_train_batch_size=8, gradient_accumulation_steps=3)
    few, many = compared(accumulating, tmp_path)
    assert [few[0], sum(few[1:4]), sum(few[4:])] == [U] * 3
    assert [many[0], sum(many[1:])] == [U * GROUP, 2 * U * GROUP]


def plainly(trainer: Any, network: Any, batch: dict[str, Any], row: int, *, sees: bool) -> torch.Tensor:
    """Log-probs of one row's completion, (C,), by one call of the library's model, its placeholders and all."""
    prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
    answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
    ids = torch.cat([prompt, answer])[None]
    if sees:
        number = int(batch["group"][row])
        grids = batch["image_grid_thw"]
        edges = [0, *grids.prod(-1).cumsum(0).tolist()]
        pixels = batch["pixel_values"][edges[number] : edges[number + 1]]
        t, h, w = (grids[number] // torch.tensor([1, 2, 2])).tolist()
        clip = ids[0] == trainer.processing_class.video_token_id
        before, after = int(clip.nonzero()[0]), int((~clip)[int(clip.nonzero()[0]) :].sum())
        steps = torch.cartesian_prod(torch.arange(t), torch.arange(h), torch.arange(w)).T + before
        tail = torch.arange(after).expand(3, -1) + before + max(t, h, w)
        positions = torch.cat([torch.arange(before).expand(3, -1), steps, tail], dim=1)[:, None]
        features = network.model.visual(pixels, grid_thw=grids[number : number + 1]).pooler_output
        embedded = network.get_input_embeddings()(ids)
        embedded = embedded.masked_scatter(clip[None, :, None], features)
    else:
        positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
        embedded = network.get_input_embeddings()(ids)
    hidden = network.model.language_model(inputs_embeds=embedded, position_ids=positions).last_hidden_state
    logits = network.lm_head(hidden)[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, answer[:, None])[:, 0]


@pytest.mark.parametrize(
    ("sighted", "reference_sees", "policy_sees"),
    [
        ("both", True, True),
        ("policy", False, True),
        ("none", False, False),
    ],
)
def test_loss_and_gradient_are_those_of_plain_torch_whichever_pass_sees(
    base: Path, tmp_path: Path, sighted: str, reference_sees: bool, policy_sees: bool
) -> None:
    trainer = make(base, tmp_path, grouped=True, images_in_logprobs=sighted)
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    torch.manual_seed(3)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    ours = {name: weights.grad for name, weights in trainer.model.named_parameters() if weights.grad is not None}
    trainer.model.zero_grad()
    terms = []
    for row in range(len(batch["prompt_ids"])):
        policy = plainly(trainer, plain_network(trainer.model), batch, row, sees=policy_sees)
        with torch.no_grad():
            reference = plainly(trainer, plain_network(trainer.ref_model), batch, row, sees=reference_sees)
        ratio = reference - policy
        kl = ratio.exp() - ratio - 1
        terms.append((-(policy - policy.detach()).exp() * batch["advantages"][row] + trainer.beta * kl).mean())
    expected = torch.stack(terms).mean()
    expected.backward()
    theirs = {name: weights.grad for name, weights in trainer.model.named_parameters() if weights.grad is not None}
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert apart(ours, theirs) < 3e-6


def test_a_blind_reference_needs_a_model_of_its_own(base: Path, tmp_path: Path) -> None:
    adapters = LoraConfig(r=4, target_modules=["q_proj"])
    with pytest.raises(BadInput, match=r"'policy' and the reference is the policy without its adapters"):
        make(base, tmp_path, grouped=True, images_in_logprobs="policy", adapters=adapters)
