"""Upstream's loss on recorded rollouts by plain torch, whichever passes see the images: for commits of which no
gradient was recorded.

No trainer, no TRL, no grouping, no padding: the library's model is called on a prompt's completions, and the formula
is written out, as EvolvingLMMs-Lab/open-r1-multimodal@c26e521:src/open_r1/trainer/grpo_trainer.py and the trainers
that came of it have it.  That this is upstream's is no assertion: a fixture's recorded gradient must come out of it
first (`fidelity.as_upstream_would`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from r1mm.errors import BadInput
from r1mm.train.fixture import Fixture, RecordedPrompt


@dataclass(frozen=True)
class Computed:
    """Loss and KL by prompt, and the gradient of the mean loss by the parameter names of transformers 5."""

    loss: list[float]
    kl: list[float]
    gradients: dict[str, torch.Tensor]


def _log_probs(model: Any, prompt: RecordedPrompt, *, sees: bool) -> torch.Tensor:
    """Of the completions' tokens, (G, C), at temperature 1; without images, placeholders are read as text."""
    group = len(prompt.completion_ids)
    ids = torch.cat([prompt.prompt_ids.expand(group, -1), prompt.completion_ids], dim=1)
    shown: dict[str, torch.Tensor] = {}
    if sees:
        shown = {
            "pixel_values": prompt.pixels.repeat(group, 1),
            "image_grid_thw": prompt.grid.repeat(group, 1),
            "mm_token_type_ids": (ids == model.config.image_token_id).int(),
        }
    predicted = model(input_ids=ids, **shown).logits[:, :-1].log_softmax(-1)
    found: torch.Tensor = predicted.gather(-1, ids[:, 1:, None])[:, len(prompt.prompt_ids) - 1 :, 0]
    return found


def _until_end(completions: torch.Tensor, end: int) -> torch.Tensor:
    """1 up to the first `end` token of each row, it included, (G, C)."""
    ended = (completions == end).cumsum(1)
    return (ended - (completions == end).int() == 0).float()


def compute(fixture: Fixture, images: Literal["none", "policy", "both"], base: Path, end: int) -> Computed:
    """One step over a fixture's rollouts in float32; `images` as a recipe's factor, `end` the tokenizer's end token.

    `base` is the reference policy's folder, whose config is the policy's too and must be one that transformers 5 takes.
    Raises BadInput for a fixture of clips, whose positions transformers 5 counts otherwise than upstream's did.
    """
    if fixture.kind != "image":
        raise BadInput(f"{fixture.folder} is of clips; rollouts can be read as another commit's where they show images")
    config = Qwen2VLConfig.from_pretrained(base)
    policy, reference = (
        Qwen2VLForConditionalGeneration.from_pretrained(folder, config=config, dtype=torch.float32)
        for folder in (fixture.folder / "policy", base)
    )
    losses, kls = [], []
    for prompt in fixture.prompts:
        own = _log_probs(policy, prompt, sees=images != "none")
        with torch.no_grad():
            held = _log_probs(reference, prompt, sees=images == "both")
        ratio = held - own
        kl = torch.exp(ratio) - ratio - 1
        advantages = (prompt.rewards - prompt.rewards.mean()) / (prompt.rewards.std() + 1e-4)
        per_token = -(torch.exp(own - own.detach()) * advantages[:, None] - fixture.meta.beta * kl)
        mask = _until_end(prompt.completion_ids, end)
        loss = ((per_token * mask).sum(1) / mask.sum(1)).mean()
        (loss / len(fixture.prompts)).backward()
        losses.append(loss.item())
        kls.append(((kl * mask).sum(1) / mask.sum(1)).mean().item())
    named = policy.named_parameters()
    return Computed(losses, kls, {name: weights.grad for name, weights in named if weights.grad is not None})
