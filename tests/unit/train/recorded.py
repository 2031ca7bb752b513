"""A small fixture of the fidelity check's layout, its gradient computed with plain torch by upstream's formula.

Nothing of the trainer under test is used: the loss is written out here, a prompt at a time and without padding.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import CHAT_TEMPLATE, build_tokenizer
from r1mm.mini.model import build_model, save
from r1mm.processor import load_processor

Kind = Literal["head", "feb", "mixed", "video"]
UPSTREAM = {
    "head": "Deep-Agent/R1-V@bbbbe3dc1ea6a74ce31c118c1722b1ee73e372ba",
    "feb": "Deep-Agent/R1-V@9d576c7d5a700119b99158133987fac125f71629",
    "mixed": "EvolvingLMMs-Lab/open-r1-multimodal@232b7ba839896f4c80c455aa9b05865c38a197fc",
    "video": "Wang-Xiaodong1899/Open-R1-Video@50eb65f32f7f0b3c9bc20b74046ef1b5d960088e",
}
# Whose log-probs see images or clips: the policy's, the reference's.
SEEING = {"head": (True, True), "feb": (False, False), "mixed": (True, False), "video": (True, True)}
GROUP, LENGTH = 3, 7
_LIMITS = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
_SETTINGS = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "rope_theta": 10000.0},
    **{"vision_embed_dim": 32, "vision_depth": 1, "vision_num_heads": 2, "vision_mlp_ratio": 2},
}


@dataclass
class Rollout:
    prompt_ids: torch.Tensor
    completion_ids: torch.Tensor
    rewards: torch.Tensor
    pixels: torch.Tensor
    grid: torch.Tensor


def write_fixture(place: Path, kind: Kind, *, beta: float) -> Path:
    """Write `place`/base and `place`/<kind>; returns the latter."""
    tokenizer = build_tokenizer(["How many items are there?"], PALETTE)
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**_LIMITS),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**_LIMITS),
        chat_template=CHAT_TEMPLATE,
    )
    reference = build_model(_SETTINGS, tokenizer, seed=0)
    save(reference, processor, place / "base")
    processor = load_processor(place / "base")  # Pillow, as upstream's
    policy = build_model(_SETTINGS, tokenizer, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in policy.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    folder = place / kind
    policy.save_pretrained(folder / "policy")
    tensors: dict[str, torch.Tensor] = {}
    losses, kls = [], []
    rollouts = [_rollout(folder, kind, number, processor, tensors) for number in range(2)]
    for rollout in rollouts:
        loss, kl = upstream_loss(policy, reference, rollout, kind, beta, tokenizer.eos_token_id)
        (loss / len(rollouts)).backward()
        losses.append(loss.item())
        kls.append(kl.item())
    save_file(tensors, folder / "rollouts.safetensors")
    gradients = {_old_name(name): p.grad for name, p in policy.named_parameters() if p.grad is not None}
    save_file(gradients, folder / "gradients.safetensors")
    meta = {"beta": beta, "num_generations": GROUP, "n_prompts": len(rollouts), "loss": losses, "kl": kls}
    (folder / "meta.json").write_text(json.dumps({**meta, "upstream": UPSTREAM[kind]}))
    return folder


def _rollout(folder: Path, kind: Kind, number: int, processor: Any, tensors: dict[str, torch.Tensor]) -> Rollout:
    rng = np.random.default_rng(number)
    # The second input is smaller, so that its prompt is shorter and TRL pads it; the clip is longer than high and wide.
    height, width = ((84, 112), (56, 56))[number]
    if kind == "video":
        frames = rng.integers(0, 256, (8, 3, height, width), dtype=np.uint8)
        made = processor.video_processor(
            videos=[torch.from_numpy(frames)], do_sample_frames=False, cap_pixels_per_frame=True, return_tensors="pt"
        )
        names, placeholder = ("pixel_values_videos", "video_grid_thw"), "<|video_pad|>"
        tensors[f"prompt_{number}/frames_uint8"] = torch.from_numpy(frames)
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.save(folder / f"image_{number}.png")
        made = processor.image_processor(images=[image], return_tensors="pt")
        names, placeholder = ("pixel_values", "image_grid_thw"), "<|image_pad|>"
    pixels, grid = (made[name] for name in names)
    text = f"<|im_start|>user\n<|vision_start|>{placeholder * (int(grid.prod()) // 4)}<|vision_end|>How many items?"
    tokenizer = processor.tokenizer
    prompt_ids = torch.tensor(tokenizer(f"{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"])
    torch.manual_seed(number)
    completion_ids = torch.randint(10, len(tokenizer), (GROUP, LENGTH))
    completion_ids[1, 3], completion_ids[1, 4:] = tokenizer.eos_token_id, tokenizer.pad_token_id
    rewards = torch.tensor([[0.0, 1.5, 1.0], [2.0, 0.25, 1.0]][number])
    for name, tensor in zip(
        ("prompt_ids", "completion_ids", "rewards", *names),
        (prompt_ids, completion_ids, rewards, pixels, grid),
        strict=True,
    ):
        tensors[f"prompt_{number}/{name}"] = tensor
    return Rollout(prompt_ids, completion_ids, rewards, pixels, grid)


def upstream_loss(
    policy: Any, reference: Any, rollout: Rollout, kind: Kind, beta: float, end: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and KL of one group, as R1-V's trainer (trl 0.14) computes them."""
    ids = torch.cat([rollout.prompt_ids.expand(GROUP, -1), rollout.completion_ids], dim=1)

    def log_probs(model: Any, sees: bool) -> torch.Tensor:
        inputs: dict[str, Any] = {"input_ids": ids}
        if sees:
            name = "video" if kind == "video" else "image"
            suffix = "_videos" if kind == "video" else ""
            inputs[f"pixel_values{suffix}"] = rollout.pixels.repeat(GROUP, 1)
            inputs[f"{name}_grid_thw"] = rollout.grid.repeat(GROUP, 1)
            inputs["position_ids"] = _positions(ids[0], rollout.grid[0], model.config)[:, None].expand(-1, GROUP, -1)
        predicted = model(**inputs).logits[:, :-1].log_softmax(-1)
        return predicted.gather(-1, ids[:, 1:, None])[:, -LENGTH:, 0]

    own = log_probs(policy, SEEING[kind][0])
    with torch.no_grad():
        ratio_to = log_probs(reference, SEEING[kind][1])
    kl = torch.exp(ratio_to - own) - (ratio_to - own) - 1
    advantages = (rollout.rewards - rollout.rewards.mean()) / (rollout.rewards.std() + 1e-4)
    per_token = -(torch.exp(own - own.detach()) * advantages[:, None] - beta * kl)
    mask = torch.ones(GROUP, LENGTH)
    for row, completion in enumerate(rollout.completion_ids.tolist()):
        if end in completion:
            mask[row, completion.index(end) + 1 :] = 0
    return ((per_token * mask).sum(1) / mask.sum(1)).mean(), ((kl * mask).sum(1) / mask.sum(1)).mean().detach()


def _positions(ids: torch.Tensor, grid: torch.Tensor, config: Any) -> torch.Tensor:
    """Of one sequence with one image or clip, as transformers 4.49 counts: token by token, (3, T)."""
    t, h, w = int(grid[0]), int(grid[1]) // 2, int(grid[2]) // 2
    positions, at, seen = [], 0, 0
    for token in ids.tolist():
        if token in (config.image_token_id, config.video_token_id):
            positions.append([at + seen // (h * w), at + seen % (h * w) // w, at + seen % w])
            seen += 1
            at += max(t, h, w) if seen == t * h * w else 0
        else:
            positions.append([at] * 3)
            at += 1
    return torch.tensor(positions).T


def _old_name(name: str) -> str:
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
