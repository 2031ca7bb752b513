"""What `step.py` trains: a checkpoint and a training set of the miniature's size, or of Qwen2-VL-2B's shapes."""

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Image
from transformers import (
    GenerationConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from r1mm.data.counting import read_parquet, write_counting
from r1mm.data.prompts import QUESTIONS
from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import CHAT_TEMPLATE, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.mini.render import encode_png, render
from r1mm.mini.scenes import CLEVR_LIKE, sample_scene
from r1mm.plan.shapes import PUBLISHED
from r1mm.processor import load_processor
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import values

MODEL = "Qwen/Qwen2-VL-2B-Instruct"
WIDTH, HEIGHT = 480, 320  # of CLEVR's pictures


@dataclass(frozen=True)
class World:
    """A checkpoint folder, a parquet file, patches of one of its images, and what differs from the real thing."""

    base: Path
    train: Path
    patches: int
    left_out: list[str]


def build_world(options: argparse.Namespace, scratch: Path) -> World:
    """The world that the options ask for, made in `scratch` unless they name one."""
    if options.base is not None:
        return World(options.base, options.train, patches_of(options.base, options.train, scratch), [])
    # A loader reads one batch ahead, and the steps must not meet the end of the set.
    items = options.prompts * (options.warm_up + options.steps + 3)
    base, train = scratch / "base", scratch / "sets" / "train.parquet"
    left_out = (_mini if options.size == "mini" else _two_billion)(options, base)
    side, top = (112, 112) if options.size == "mini" else (WIDTH, HEIGHT)
    rng = np.random.default_rng(options.seed)
    counts = [1 + i % 6 for i in range(items)]
    pngs = [encode_png(_picture(count, rng, side, top)) for count in counts]
    write_counting(train, pngs, QUESTIONS["train"], counts)
    return World(base, train, patches_of(base, train, scratch), left_out)


def _picture(count: int, rng: np.random.Generator, width: int, height: int) -> np.ndarray[Any, Any]:
    square = render(sample_scene(CLEVR_LIKE, count, rng, "scene.png"), width)
    above = (width - height) // 2
    return np.ascontiguousarray(square[above : above + height])


def patches_of(base: Path, train: Path, scratch: Path) -> int:
    """Patches that the processor makes of the set's first image."""
    image = read_parquet([train], scratch / "cache").cast_column("image", Image())[0]["image"]
    return int(load_processor(base).image_processor(images=[image], return_tensors="pt")["image_grid_thw"].prod())


def _tokenizer(recipe_name: str) -> Any:
    recipe = load_recipe(RECIPES / recipe_name / "recipe.yaml")
    return build_tokenizer([getattr(recipe.prompts, kind).value for kind in ("train", "evaluation", "direct")], PALETTE)


def _mini(options: argparse.Namespace, base: Path) -> list[str]:
    recipe = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    tokenizer = _tokenizer("r1v-mini")
    save(build_model(values(recipe.model), tokenizer, options.seed), build_processor(tokenizer, 112), base)
    return ["random weights: completions are cut at the limit, rewards are 0"]


def _two_billion(options: argparse.Namespace, base: Path) -> list[str]:
    recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    tokenizer = _tokenizer("r1v-clevr-2b")
    shape = copy.deepcopy(PUBLISHED[MODEL])
    vision = shape.pop("vision_config")
    tied, _ = shape.pop("tie_word_embeddings"), shape.pop("model_type")
    left_out = ["random weights", "the miniature's tokenizer, whose prompts are some 25 tokens shorter"]
    if options.depth > 1:
        for part, key in ((shape, "num_hidden_layers"), (vision, "depth")):
            part[key] = max(1, part[key] // options.depth)
        left_out.append(f"{shape['num_hidden_layers']} of 28 layers, {vision['depth']} of the tower's 32")
    if options.vocabulary is not None:
        shape["vocab_size"] = max(options.vocabulary, len(tokenizer))
        left_out.append(f"{shape['vocab_size']} of 151,936 tokens")
    if options.prompts * options.group != 128:
        left_out.append(f"{options.prompts} x {options.group} completions for 16 x 8")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = Qwen2VLConfig(
        text_config={
            **shape,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": pad,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    torch.manual_seed(options.seed)
    with torch.device(options.device):
        model = Qwen2VLForConditionalGeneration(config)
    model = model.to(torch.bfloat16 if options.device == "cuda" else torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, bos_token_id=pad)
    limits = values(recipe.processor)
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=limits["min_pixels"], max_pixels=limits["max_pixels"]),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    save(model, processor, base)
    return left_out
