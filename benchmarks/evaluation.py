"""Items per second of an evaluation by batch size, in turns, and what the vision tower saw meanwhile.

python benchmarks/evaluation.py                            random weights of the recipe's shape: answers never end early
python benchmarks/evaluation.py --base FOLDER              a checkpoint, for example the miniature's warm-started model
python benchmarks/evaluation.py --recipe r1v-mini --items 200 --batch-size 1 20 200 --repeats 5

Whole evaluations, as a run makes them: rendered images decoded, prompts measured and batched by length, greedy answers,
marks.  The model is loaded before.  Ends with status 1 when the tower was run more often than there are batches, or
over more images than there are items.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import disable_progress_bars
from transformers.utils import logging

from r1mm.data.counting import load_counting
from r1mm.evaluate.generate import evaluate_task, evaluation_device
from r1mm.evaluate.scoring import Output
from r1mm.evaluate.transformers_backend import load_model
from r1mm.mini.datasets import PALETTE, render_sets
from r1mm.mini.language import VISION_TOKENS, build_tokenizer
from r1mm.mini.model import build_model, build_processor, save
from r1mm.recipe import Recipe
from r1mm.recipe_files import find_recipe, load_recipe
from r1mm.sourced import values


@dataclass
class Seen:
    """What went through a vision tower: calls, and images over all of them."""

    passes: int = 0
    images: int = 0


def count_images(model: Any) -> Seen:
    """A count that grows with every call of the tower.

    Taken at its first block, where `cu_seqlens` are the images' boundaries.
    """
    seen = Seen()

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.passes += 1
        seen.images += len(kwargs["cu_seqlens"]) - 1

    model.model.visual.blocks[0].register_forward_pre_hook(count, with_kwargs=True)
    return seen


def make_items(recipe: Recipe, split: str, items: int, folder: Path) -> Any:
    """The first `items` items of a task of a miniature, rendered."""
    assert recipe.image_size is not None  # a miniature has one
    name = recipe.tasks[split].items
    render_sets({name: recipe.scenes[name].model_copy(update={"items": items})}, recipe.image_size.value, folder, 2)
    return load_counting(folder / f"{name}.parquet")


def random_model(recipe: Recipe, folder: Path) -> Path:
    """A checkpoint of the recipe's shape that was taught nothing."""
    assert recipe.image_size is not None
    prompts = recipe.prompts
    tokenizer = build_tokenizer([prompts.train.value, prompts.evaluation.value, prompts.direct.value], PALETTE)
    processor = build_processor(tokenizer, recipe.image_size.value)
    save(build_model(values(recipe.model), tokenizer, seed=0), processor, folder)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="r1v-mini", help="a miniature (default: %(default)s)")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="checkpoint (default: random weights)")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--repeats", type=int, default=5, help="after one that does not count (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="default: the recipe's")
    options = parser.parse_args()
    if min(options.items, options.repeats, *options.batch_size) < 1:
        parser.error("--items, --batch-size and --repeats must be at least 1")
    recipe = load_recipe(find_recipe(options.recipe) / "recipe.yaml")
    if not recipe.miniature:
        parser.error(f"{options.recipe} is no miniature; its items are not rendered here")
    torch.set_num_threads(options.threads or recipe.threads.value)
    disable_progress_bars()
    logging.disable_progress_bar()
    device = evaluation_device(recipe.miniature)
    split = next(iter(recipe.tasks))
    times: dict[int, list[float]] = {size: [] for size in options.batch_size}
    seen_by: dict[int, Seen] = {}
    answers: dict[int, list[Output]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        items = make_items(recipe, split, options.items, folder)
        checkpoint = options.base or random_model(recipe, folder / "model")
        model, processor = load_model(checkpoint, device=device)  # the one that every evaluation below finds loaded
        suppressed = processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
        seen = count_images(model)
        for repeat in range(options.repeats + 1):
            for size in options.batch_size:
                seen.passes = seen.images = 0
                started = time.perf_counter()
                answers[size] = evaluate_task(
                    model_folder=checkpoint,
                    dataset=items,
                    scorer=recipe.tasks[split].scorer,
                    split=split,
                    template=recipe.prompts.evaluation.value,
                    settings={**values(recipe.evaluation), "batch_size": size},
                    suppressed=suppressed,
                    partial=folder / f"{size}-{repeat}.jsonl",
                    title=f"batches of {size}",
                    device=device,
                )
                if repeat:
                    times[size].append(time.perf_counter() - started)
                seen_by[size] = Seen(seen.passes, seen.images)
    first = answers[options.batch_size[0]]
    print(
        f"{options.items} items of {recipe.name} {split}, {options.base or 'random weights'}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}; "
        f"{statistics.mean(one.tokens for one in first):.1f} tokens per answer"
    )
    failed = False
    for size, taken in times.items():
        passes, images = seen_by[size].passes, seen_by[size].images
        middle = statistics.median(taken)
        same = sum(ours.completion == theirs.completion for ours, theirs in zip(answers[size], first, strict=True))
        print(
            f"batches of {size:4d}: {options.items / middle:7.1f} items/s  (median {middle:.2f} s, {min(taken):.2f} to "
            f"{max(taken):.2f})  tower: {passes} passes, {images} images ({images / options.items:.2f} per item)  "
            f"answers as in batches of {options.batch_size[0]}: {same} of {options.items}"
        )
        batches = -(-options.items // size)
        if images > options.items or passes > batches:
            print(
                f"batches of {size}: the tower was run {passes} times over {images} images, more than the {batches} "
                f"batches and {options.items} items there are: images are encoded again",
                file=sys.stderr,
            )
            failed = True
        if not images:
            print(f"batches of {size}: the tower was never run; the count is broken", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
