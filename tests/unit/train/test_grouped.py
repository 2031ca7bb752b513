"""A group's images encoded once: the same numbers as TRL's own way, with the tower at U images."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
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
from r1mm.errors import BadInput
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import CHAT_TEMPLATE, VISION_TOKENS, build_tokenizer
from r1mm.processor import load_processor
from r1mm.train.grouped import plain_network, take_rows
from r1mm.train.grpo import R1Trainer
from r1mm.vision import shorten_vision_tower

SIZES = [(112, 112), (168, 84), (56, 140)]  # width x height: three grids, of 64, 72 and 40 patches
PATCHES = [64, 72, 40]
GROUP = 4
QUESTIONS = ["How many things are there?", "How many?", "Count the things, and say how many there are."]
TOLERANCE = 1e-6  # relative, float32: the same sums in another order
KINDS = ["qwen2_vl", "qwen2_5_vl"]


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


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=112 * 112 * 4),
        tokenizer=tokenizer(),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    found = {}
    for kind in KINDS:
        found[kind] = tmp_path_factory.mktemp(kind)
        network(kind).save_pretrained(found[kind])
        processor.save_pretrained(found[kind])
    return found


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


def trainer_of(base: Path, folder: Path, *, grouped: bool, adapters: Any = None, **fields: Any) -> R1Trainer:
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
        train_dataset=rows(),
        processing_class=load_processor(base),
        images_in_logprobs="both",
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
