"""A step of a tiny model's trainer with images once per group and as TRL has it, and how far the two are apart."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from trl import GRPOConfig

from r1mm.data.prompts import conversation
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import CHAT_TEMPLATE, VISION_TOKENS, build_tokenizer
from r1mm.processor import load_processor
from r1mm.train.grouped import plain_network
from r1mm.train.grpo import R1Trainer
from r1mm.vision import shorten_vision_tower

SIZES = [(112, 112), (168, 84), (56, 140)]  # width x height: three grids, of 64, 72 and 40 patches
PATCHES = [64, 72, 40]
GROUP = 4
QUESTIONS = ["How many things are there?", "How many?", "Count the things, and say how many there are."]
TOLERANCE = 1e-6  # relative, float32: the same sums in another order


@functools.cache
def tokenizer() -> Any:
    return build_tokenizer(QUESTIONS, PALETTE)


def network(kind: str) -> Any:
    ids = {token: tokenizer().convert_tokens_to_ids(token) for token in tokenizer().all_special_tokens}
    text = {
        **{"vocab_size": len(tokenizer()), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    special = {
        **{"image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"]},
        **{"vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"]},
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    if kind == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **special))
    vision = {
        **{"depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48},
        **{"fullatt_block_indexes": [1], "window_size": 56},
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **special))


def save_base(kind: str, folder: Path) -> Path:
    """A tiny model of `kind` with its processor, as a checkpoint folder."""
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=112 * 112 * 4),
        tokenizer=tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    network(kind).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rows() -> Dataset:
    """Six prompts over pictures of three sizes, two of them under several questions."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in SIZES]
    prompts = [conversation(QUESTIONS[i % 3]) for i in range(6)]
    images = [pictures[(0, 1, 2, 1, 0, 1)[i]] for i in range(6)]

    def shown(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**columns, "image": [images[number] for number in columns["number"]]}

    return Dataset.from_dict({"prompt": prompts, "number": list(range(6))}).with_transform(shown)


def reward(completions: list[Any], **_: Any) -> list[float]:
    """Differs among the completions of a group, so that every one of them has an advantage."""
    return [float(len(text[0]["content"])) + 0.1 * (i % GROUP) for i, text in enumerate(completions)]


def trainer_of(
    base: Path,
    folder: Path,
    *,
    grouped: bool,
    adapters: Any = None,
    dataset: Callable[[], Dataset] = rows,
    clips: bool = False,
    images_in_logprobs: str = "both",
    logprobs_temperature: float | None = None,
    **fields: Any,
) -> R1Trainer:
    """A trainer of 24 completions a step over 6 prompts, in float32."""
    settings: dict[str, Any] = {
        **{"output_dir": str(folder), "seed": 1, "use_cpu": True, "report_to": [], "bf16": False},
        **{"per_device_train_batch_size": 6 * GROUP, "gradient_accumulation_steps": 1, "num_generations": GROUP},
        **{"max_completion_length": 6, "beta": 0.04, "loss_type": "grpo", "temperature": 1.0, "top_k": 50},
        **{"use_bias_correction_kl": False, "gradient_checkpointing": False, "max_steps": 2, "save_strategy": "no"},
        "generation_kwargs": {"suppress_tokens": tokenizer().convert_tokens_to_ids(list(VISION_TOKENS))},
        "model_init_kwargs": {"dtype": "float32"},
    }
    trainer = R1Trainer(
        model=str(base),
        reward_funcs=[reward],
        args=GRPOConfig(**{**settings, **fields}),
        train_dataset=dataset(),
        processing_class=load_processor(base, clips=clips),
        images_in_logprobs=images_in_logprobs,
        logprobs_temperature=logprobs_temperature,
        clips=clips,
        incident_folder=folder,
        base=base,
        grouped_images=grouped,
        peft_config=adapters,
    )
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            plain = plain_network(model)
            if grouped and plain.config.model_type == "qwen2_vl":
                shorten_vision_tower(plain)
    # Away from the reference, so that the KL has something to say; the same way on both sides.
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weights in sorted(trainer.model.named_parameters()):
            if weights.requires_grad:
                weights.add_(torch.randn(weights.shape).to(weights) * (0.1 if "lora" in name else 0.02))
    return trainer


def seen_by_towers(trainer: R1Trainer) -> list[int]:
    """Patches that the towers are given, call by call, from now on."""
    seen: list[int] = []
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            tower = plain_network(model).model.visual
            tower.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


def one_step(trainer: R1Trainer) -> tuple[list[float], dict[str, torch.Tensor], dict[str, list[float]], list[Any]]:
    """Losses, gradient and metrics of one optimizer step, with the completions of its micro-batches."""
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    torch.manual_seed(3)
    losses, completions = [], []
    loader = iter(trainer.get_train_dataloader())
    for _ in range(trainer.args.gradient_accumulation_steps):
        inputs = trainer._prepare_inputs(next(loader))
        completions.append(inputs["completion_ids"])
        loss = trainer.compute_loss(trainer.model, inputs)
        trainer.accelerator.backward(loss)
        trainer._step += 1
        losses.append(loss.item())
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return losses, gradients, trainer._metrics["train"], completions


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """|difference| / |gradient| over all parameters."""
    assert ours.keys() == theirs.keys()
    squares = [
        ((ours[name] - theirs[name]).double().square().sum(), g.double().square().sum()) for name, g in theirs.items()
    ]
    return float((sum(d for d, _ in squares) / sum(g for _, g in squares)) ** 0.5)


def compared(make: Callable[..., R1Trainer], folder: Path) -> tuple[list[int], list[int]]:
    """Both ways agree to TOLERANCE; the patches that the towers saw, grouped and as TRL has it."""
    both = []
    for grouped in (True, False):
        trainer = make(folder=folder / str(grouped), grouped=grouped)
        seen = seen_by_towers(trainer)
        both.append((one_step(trainer), seen))
    (ours, few), (theirs, many) = both
    assert torch.equal(torch.cat(ours[3]).sort(0).values, torch.cat(theirs[3]).sort(0).values)
    # Sums of terms of order 1 that nearly cancel, each with its rounding: held against those where they are small.
    assert sum(ours[0]) == pytest.approx(sum(theirs[0]), rel=TOLERANCE, abs=TOLERANCE)
    if len(ours[3]) == 1:  # the mean of a micro-batch weighs its tokens, so that it depends on who is in it
        assert ours[2]["kl"] == pytest.approx(theirs[2]["kl"], rel=TOLERANCE, abs=1e-8)
    assert sum(theirs[2]["kl"]) > 1e-5
    assert len(theirs[1]) >= 12
    assert apart(ours[1], theirs[1]) < TOLERANCE
    return few, many
