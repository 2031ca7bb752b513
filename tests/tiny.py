"""Recipes small enough for tests of the machinery: our own recipes' files with smaller numbers."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from r1mm.recipe_files import RECIPES

SMALLER: dict[str, Any] = {
    "warm_start.max_steps": 6,
    "warm_start.per_device_train_batch_size": 8,
    "warm_start.save_steps": 2,
    "warm_start.warmup_steps": 1,
    "prompts_per_step": 2,
    "train.max_steps": 6,
    "train.num_generations": 4,
    "train.per_device_train_batch_size": 8,
    "train.save_steps": 2,
    "train.max_completion_length": 8,
    "evaluation.max_new_tokens": 8,
    "evaluation.batch_size": 6,
}
ITEMS = 12


def tiny_recipe(folder: Path, changes: dict[str, Any] | None = None, claims: bool = False) -> Path:
    """Write recipe `tiny` below `folder` and return its directory; `changes` by dotted path on top of SMALLER."""
    recipe = yaml.safe_load((RECIPES / "r1v-mini" / "recipe.yaml").read_text())
    recipe["name"] = "tiny"
    for scene in recipe["scenes"].values():
        scene["items"] = ITEMS
    for dotted, value in {**SMALLER, **(changes or {})}.items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target[part]
        if isinstance(target.get(last), dict) and "value" in target[last]:
            target[last]["value"] = value
        else:
            target[last] = value
    expected: dict[str, Any] = {"recipe": "tiny", "claims": [], "reference_rows": []}
    if claims:
        expected["claims"] = [
            {
                "id": "untaught",
                "variant": "images-fixed",
                "statement": "Six steps teach nobody to count.",
                "metric": "accuracy",
                "split": "ood",
                "test": "at_most",
                "reference": 90.0,
                "source": "our choice: a claim for tests of the machinery",
            }
        ]
    target_folder = folder / "tiny"
    target_folder.mkdir(parents=True, exist_ok=True)
    (target_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    (target_folder / "expected.yaml").write_text(yaml.safe_dump(expected, sort_keys=False))
    return target_folder


def tiny_clips_recipe(folder: Path) -> Path:
    """`tiny_recipe` over films: lettered questions, a blind control, and the letter as the only reward."""
    path = tiny_recipe(folder, {"image_size": 56}) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    ours = "our choice: to test the machinery"
    film = {"items": ITEMS, "kinds": ["color", "direction", "count"], "solids": [1, 4], "frames": 4, "source": ours}
    for seed, (name, scene) in enumerate(recipe["scenes"].items()):
        recipe["scenes"][name] = {"world": scene["world"], "seed": seed, **film}
    recipe["clips"] = {
        key: {"value": value, "source": ours}
        for key, value in {"fps": 2.0, "frames": 4, "min_pixels": 3136, "max_pixels": 3136}.items()
    }
    recipe["rewards"] = {"value": ["letter"], "source": ours}
    recipe["tasks"] = {
        "ood": {"scorer": "choice", "items": "ood", "source": ours},
        "ood-blind": {"scorer": "choice", "items": "ood", "blind": True, "source": ours},
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return path.parent


SMALLER_FULL: dict[str, Any] = {
    "prompts_per_step": 2,
    "train.max_steps": 4,
    "train.num_generations": 4,
    "train.save_steps": 2,
    "train.max_completion_length": 8,
    "evaluation.max_new_tokens": 8,
    "evaluation.batch_size": 5,
}


SMALLER_TUNED: dict[str, Any] = {
    "examples_per_step": 4,
    "sft.save_steps": 2,
    "evaluation.max_new_tokens": 8,
    "evaluation.batch_size": 5,
}


def small_tuned_recipe(folder: Path, name: str = "r1v-clevr-2b-sft", smaller: dict[str, Any] | None = None) -> Path:
    """Write recipe `small` below `folder` and return its directory: `name`, beside all that it extends, with smaller
    numbers."""
    for own in ("r1v-clevr-2b", "r1v-clevr-2b-sft"):
        shutil.copytree(RECIPES / own, folder / own)
    target = folder / "small"
    target.mkdir()
    for file in ("recipe.yaml", "expected.yaml"):
        content = yaml.safe_load((RECIPES / name / file).read_text())
        content["name" if file == "recipe.yaml" else "recipe"] = "small"
        for dotted, value in (SMALLER_TUNED | (smaller or {})).items() if file == "recipe.yaml" else ():
            *parents, last = dotted.split(".")
            of = content
            for part in parents:
                of = of.setdefault(part, {})
            of[last] = {"value": value, "source": "our choice: to test the machinery"}
        (target / file).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return target


def small_full_recipe(folder: Path) -> Path:
    """Write recipe `small` below `folder` and return its directory: `r1v-clevr-2b` with the numbers of SMALLER_FULL."""
    own = RECIPES / "r1v-clevr-2b"
    recipe, expected = (yaml.safe_load((own / name).read_text()) for name in ("recipe.yaml", "expected.yaml"))
    recipe["name"] = expected["recipe"] = "small"
    for dotted, value in SMALLER_FULL.items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target[part]
        target[last]["value"] = value
    for variant in recipe["variants"].values():
        variant["overrides"].pop("train.max_completion_length", None)
    target_folder = folder / "small"
    target_folder.mkdir(parents=True)
    (target_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    (target_folder / "expected.yaml").write_text(yaml.safe_dump(expected, sort_keys=False, allow_unicode=True))
    return target_folder


def tiny_sft_recipe(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """`tiny_recipe` with supervised fine-tuning before GRPO, and variants of either alone."""
    path = tiny_recipe(folder) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())

    def setting(value: Any) -> dict[str, Any]:
        return {"value": value, "source": "our choice: to test the machinery"}

    recipe["stages"].insert(recipe["stages"].index("grpo"), "sft")
    own = {
        "num_train_epochs": 2,
        "max_length": 256,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "gradient_checkpointing": False,
        "save_steps": 2,
        "save_total_limit": 2,
    }
    examples = {
        "items": "distilled",
        "image": "last",
        "prompt": "{question}",
        "response": "{thinking}\n\n{solution}",
        "open_turn": True,
        "loss": "all",
        "too_long": "stop",
    }
    recipe["sft"] = {key: setting(value) for key, value in own.items()}
    recipe["sft_examples"] = {key: setting(value) for key, value in examples.items()}
    recipe["examples_per_step"] = setting(4)
    recipe["title"] = "Thoughts at tiny size"
    recipe["default_variant"] = "sft-grpo"
    recipe["variants"] = {
        name: {
            "description": "To test the machinery.",
            "upstream": "Deep-Agent/R1-V",
            "overrides": {"training": setting(name.split("-"))},
        }
        for name in ("sft-grpo", "sft", "grpo")
    }
    for dotted, value in (changes or {}).items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target[part]
        target[last] = setting(value)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return path.parent


def tiny_distill_recipe(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """`distill-mini` with the numbers of `tiny_recipe`, below `folder`; `changes` by dotted path."""
    shutil.copytree(RECIPES / "r1v-mini", folder / "r1v-mini", dirs_exist_ok=True)
    recipe = yaml.safe_load((RECIPES / "distill-mini" / "recipe.yaml").read_text())
    source = "our choice: to test the machinery"
    recipe["name"] = "tiny-distill"
    for scene in recipe["scenes"].values():
        scene["items"] = ITEMS
    own = {"sft.max_steps": 3, "sft.save_steps": 2, "sft.per_device_train_batch_size": 4, "examples_per_step": 4}
    for dotted, value in {**SMALLER, **own, **(changes or {})}.items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = {"value": value, "source": source}
    target_folder = folder / "tiny-distill"
    target_folder.mkdir(parents=True, exist_ok=True)
    (target_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    expected: dict[str, Any] = {"recipe": "tiny-distill", "claims": [], "reference_rows": []}
    (target_folder / "expected.yaml").write_text(yaml.safe_dump(expected, sort_keys=False))
    return target_folder


def write_examples(path: Path, items: int = 10) -> Path:
    """Rendered pictures with a thought and an answer for each, as a set that supervised fine-tuning learns from."""
    from datasets import Dataset, Features, Image, Value

    from tests.local_assets import pictures

    counts = [1 + i % 6 for i in range(items)]
    colors = ("red", "green", "blue", "purple")
    rows = {
        "thinking": [f"<think>\n{' '.join((colors * 3)[: 1 + i * i % 10])}.\n</think>" for i in range(items)],
        "problem": ["How many items are there in the image?"] * items,
        "solution": [f"<answer> {count} </answer>" for count in counts],
        "image": [{"bytes": png, "path": None} for png in pictures("clevr-like", counts, 31)],
    }
    kinds = {name: Value("string") for name in ("thinking", "problem", "solution")}
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(rows, features=Features({**kinds, "image": Image()})).to_parquet(path)
    return path
