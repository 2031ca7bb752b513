"""What the short way through the vision tower saves: forward and backward, stock and short in turns, medians and ratio.

python benchmarks/vision.py --images 64     as in supervised training
python benchmarks/vision.py --images 16     as in GRPO, where a group's image comes once (benchmarks/step.py)
"""

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from r1mm.mini.datasets import PALETTE
from r1mm.mini.language import build_tokenizer
from r1mm.mini.model import build_model
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.vision import BatchedVisionAttention, PatchProjection, shorten_vision_tower


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def pass_through(model: Any, pixels: torch.Tensor, grid: torch.Tensor) -> None:
    torch.cat(model.model.get_image_features(pixels, grid).pooler_output).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(2)
    recipe = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    settings = {key: setting.value for key, setting in recipe.model.items()}
    stock = build_model(settings, build_tokenizer([recipe.prompts.train.value], PALETTE), seed=0)
    short = copy.deepcopy(stock)
    shorten_vision_tower(short)
    product_only = copy.deepcopy(stock)
    product_only.model.visual.patch_embed.proj.__class__ = PatchProjection
    batch_only = copy.deepcopy(stock)
    for block in batch_only.model.visual.blocks:
        block.attn.__class__ = BatchedVisionAttention
    grid = torch.tensor([[1, 8, 8]] * options.images)
    pixels = torch.randn(options.images, 64, 1176).flatten(0, 1)
    models = {
        "stock": stock,
        "matrix product": product_only,
        "batched attention": batch_only,
        "both": short,
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(options.repeats + 2):
        for name, model in models.items():
            taken = seconds(functools.partial(pass_through, model, pixels, grid))
            if repeat >= 2:
                times[name].append(taken)
    base = statistics.median(times["stock"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(
            f"{name:18s} {middle * 1000:7.1f} ms  (fastest {min(taken) * 1000:.1f})  stock / this: {base / middle:.2f}"
        )


if __name__ == "__main__":
    main()
