"""open-r1-multimodal's data at tiny size: the real schema over noisy pictures of many sizes, in a folder of assets."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from r1mm.recipe_files import RECIPES
from tests.lmms_picture_assets import mmmu_rows, write_mathvista, write_parquet
from tests.local_assets import write_model

# As the hub's page of the dataset shows them.
FEATURES = Features(
    {
        "image": Image(decode=False),
        **{name: Value("string") for name in ("problem", "solution", "original_question", "original_answer")},
    }
)
SIZES = [(112, 84), (56, 140), (84, 84), (200, 100)]  # width, height in pixels


def picture(width: int, height: int, *, format: str = "JPEG", seed: int = 0) -> bytes:
    """A noisy picture, blown up from a small one so that a large one is quickly made."""
    small = np.random.default_rng(seed).integers(0, 256, (1 + height // 28, 1 + width // 28, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(small).resize((width, height)).save(buffer, format=format)
    return buffer.getvalue()


def row(number: int, size: tuple[int, int], *, solution: str | None = None) -> dict[str, Any]:
    """An item: GPT-4o's question and solution, and what it made them of.  Every fourth picture is a PNG."""
    data = picture(*size, format="PNG" if number % 4 == 3 else "JPEG", seed=number)
    return {
        "image": {"bytes": data, "path": None},
        "problem": f"How many items are there in the image?\nChoices:\nA. {number}\nB. {number + 1}",
        "solution": solution or f"<think>I see {number} items, so the answer is A.</think>\n\n<answer>A</answer>",
        "original_question": "How many?",
        "original_answer": "A",
    }


def write_train(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The one parquet file of the dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(list(rows), features=FEATURES).to_parquet(path)
    return path


def make_mm8k_assets(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Dataset and a tiny model where recipe `mm8k-2b` looks for them."""
    dataset = folder / "datasets" / "lmms-lab" / "multimodal-open-r1-8k-verified"
    write_train(dataset / "data" / "train-00000-of-00001.parquet", rows)
    write_model(folder / "models" / "Qwen" / "Qwen2-VL-2B-Instruct")
    return folder


SMALLER: dict[str, Any] = {
    "prompts_per_step": 2,
    "max_prompt_length": 256,
    "train.max_steps": 2,
    "train.num_generations": 4,
    "train.save_steps": 2,
    "train.max_completion_length": 8,
    "evaluation.max_new_tokens": 8,
    "evaluation.batch_size": 3,
}


def write_benchmarks(folder: Path) -> None:
    """Ten items of MMMU and of MathVista where recipe `mm8k-2b` looks for them in a folder of assets."""
    pictures = tuple(f"image_{number}" for number in range(1, 8))
    mmmu = folder / "datasets" / "lmms-lab" / "MMMU" / "data" / "validation-00000-of-00001.parquet"
    write_parquet(mmmu, mmmu_rows(), pictures)
    write_mathvista(folder / "datasets" / "AI4Math" / "MathVista")


def small_mm8k(folder: Path, *, tested: int | None = 3, **changes: Any) -> Path:
    """Write recipe `small8k` below `folder`: `mm8k-2b` with the numbers of SMALLER, tested on its own training set.

    lmms-eval's tasks need an environment of their own; `tested` items, the first, stand in their place.  None leaves
    the tasks, on the items of `write_benchmarks`.  `changes` by the names of top-level settings.
    """
    recipe = yaml.safe_load((RECIPES / "mm8k-2b" / "recipe.yaml").read_text())
    recipe["name"] = "small8k"
    ours = "our choice: to test the machinery"
    for dotted, value in {**SMALLER, **changes}.items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target[part]
        target[last] = {"value": value, "source": ours}
    for name in ("mmmu", "mathvista"):
        recipe["assets"][name]["rows"] = 10
        if tested is not None:
            del recipe["assets"][name]
    if tested is not None:
        recipe["tasks"] = {"seen": {"scorer": "math", "items": "train", "limit": tested, "source": ours}}
    target_folder = folder / "small8k"
    target_folder.mkdir(parents=True)
    (target_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    nothing = {"recipe": "small8k", "claims": [], "reference_rows": []}
    (target_folder / "expected.yaml").write_text(json.dumps(nothing))
    return target_folder
