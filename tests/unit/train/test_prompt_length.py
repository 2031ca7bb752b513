"""Prompts measured before training: open-r1-multimodal's data in its schema, with images at and above the limit."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from r1mm.data.assets import fetch_assets, load_train
from r1mm.errors import BadInput
from r1mm.processor import load_processor, prompt_text
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting, values
from r1mm.train import prompt_length
from r1mm.train.grpo import R1Trainer, build_trainer
from r1mm.train.prompt_length import keep_within_limit, lengths_by_item
from tests.laid_out import laid_out, suppressed
from tests.mm8k_assets import SIZES, make_mm8k_assets, row
from tests.small_assets import access_to

AT_LIMIT, ABOVE = (1536, 1536), (3000, 2000)  # pixels; 2,359,296 is the most that an image keeps
# As Qwen2-VL's processor rounds to 28: 54 x 54 tokens; 67 x 44, scaled down.
LARGE_TOKENS = {AT_LIMIT: 54 * 54, ABOVE: 67 * 44}
ROWS = [*SIZES, AT_LIMIT, ABOVE, *SIZES]


def mm8k(variant: str = "released", **changes: Any) -> Recipe:
    """The real recipe without lmms-eval's tasks; `changes` of its top-level settings."""
    recipe = resolve(load_recipe(RECIPES / "mm8k-2b" / "recipe.yaml"), variant).recipe
    ours = {key: Setting[Any](value=value, source="our choice: for a test") for key, value in changes.items()}
    assets = {name: recipe.assets[name] for name in ("model", "train")}
    return recipe.model_copy(update={"assets": assets, "tasks": {}, **ours})


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row(i, size) for i, size in enumerate(ROWS)]
    rows[1] = row(1, SIZES[1], solution="<think>No answer was given.</think>")
    return make_mm8k_assets(tmp_path_factory.mktemp("assets"), rows)


@pytest.fixture(scope="module")
def fetched(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    fetch_assets(mm8k(), place / "assets", lambda _: None, access_to(place, local=local))
    return place / "assets"


@pytest.fixture(scope="module")
def rows(fetched: Path) -> Dataset:
    return load_train(fetched, mm8k())


@pytest.fixture(scope="module")
def model(local: Path) -> Path:
    return local / "models" / "Qwen" / "Qwen2-VL-2B-Instruct"


@pytest.fixture(scope="module")
def processor(model: Path) -> Any:
    return load_processor(model, limits=values(mm8k().processor))


def test_the_real_schema_is_taken_from_a_folder_of_assets(rows: Dataset, local: Path, tmp_path: Path) -> None:
    assert rows.column_names == ["image", "problem", "solution", "item"]
    assert [rows[i]["image"].size for i in range(len(rows))] == ROWS
    assert rows[0]["solution"] == "<think>I see 0 items, so the answer is A.</think>\n\n<answer>A</answer>"
    assert rows[1]["solution"] == "<think>No answer was given.</think>"  # upstream's reward takes the whole
    recipe = mm8k()
    strict = recipe.assets["train"].model_copy(update={"untagged": None})
    recipe = recipe.model_copy(update={"assets": {**recipe.assets, "train": strict}})
    with pytest.raises(BadInput, match=r"row 1: solution .*No answer was given.* has no answer tag"):
        fetch_assets(recipe, tmp_path / "a", lambda _: None, access_to(tmp_path, local=local))


@pytest.mark.parametrize("variant", ["released", "head"])
def test_lengths_are_the_processors_and_no_image_token_is_cut(rows: Dataset, processor: Any, variant: str) -> None:
    prompts = mm8k(variant).prompts
    template, system = prompts.train.value, prompts.system_turn
    lengths = lengths_by_item(rows, template, processor, system=system)
    large = {ROWS.index(size): tokens for size, tokens in LARGE_TOKENS.items()}
    for number in (0, 1, *large):
        item = rows[number]
        text = prompt_text(processor, template.format(question=item["problem"]), system=system)
        ids = processor(text=[text], images=[[item["image"]]])["input_ids"][0]
        assert lengths[number] == len(ids)
        if number in large:
            assert ids.count(processor.image_token_id) == large[number] <= 2359296 // 28**2
    assert max(lengths.values()) < 8192
    assert (variant == "released") == (system is not None)
    assert (lengths != lengths_by_item(rows, template, processor)) == (system is not None)


def test_prompts_that_are_too_long_are_named_and_refused(rows: Dataset, processor: Any, tmp_path: Path) -> None:
    assert keep_within_limit(rows, mm8k(), processor, tmp_path) is rows
    assert not (tmp_path / "over-long.json").exists()
    with pytest.raises(BadInput) as refused:
        keep_within_limit(rows, mm8k(max_prompt_length=2900), processor, tmp_path)
    longest = {number: f"train-{number:06d}" for number in (ROWS.index(ABOVE), ROWS.index(AT_LIMIT))}
    listed = json.loads((tmp_path / "over-long.json").read_text())
    assert [one["item"] for one in listed] == list(longest.values())
    assert "2 of the 10 prompts looked at have more than max_prompt_length 2900 tokens" in str(refused.value)
    assert all(f"{one['item']} ({one['tokens']})" in str(refused.value) for one in listed)
    assert "over_long: drop" in str(refused.value)


def test_or_dropped_whole_and_counted(
    rows: Dataset,
    processor: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(prompt_length, "LOOKED_AT", 2)  # of a set from which items are dropped each is looked at
    kept = keep_within_limit(rows, mm8k(max_prompt_length=2950, over_long="drop"), processor, tmp_path)
    assert "2 of the 10 prompts looked at have more than max_prompt_length 2950 tokens and are dropped" in (
        capsys.readouterr().err
    )
    left = [i for i, size in enumerate(ROWS) if size not in LARGE_TOKENS]
    assert kept["item"][:] == [f"train-{i:06d}" for i in left]
    assert [item["image"].size for item in kept] == [ROWS[i] for i in left]
    assert [one["item"] for one in json.loads((tmp_path / "over-long.json").read_text())] == [
        "train-000005",
        "train-000004",
    ]


def trainer_of(rows: Dataset, model: Path, folder: Path, variant: str, **changes: Any) -> R1Trainer:
    small = {"num_generations": 2, "max_completion_length": 2}
    recipe = mm8k(variant, prompts_per_step=2, **changes)
    train = {key: Setting[Any](value=value, source="our choice: for a test") for key, value in small.items()}
    return build_trainer(
        recipe.model_copy(update={"train": recipe.train | train}),
        model=model,
        dataset=rows,
        seed=1,
        folder=folder,
        suppressed=suppressed,
        layout=laid_out(1, 4, 1),
    )


@pytest.mark.parametrize("variant", ["released", "head"])
def test_training_asks_with_the_variants_system_turn(
    rows: Dataset, model: Path, processor: Any, tmp_path: Path, variant: str
) -> None:
    trainer = trainer_of(rows, model, tmp_path, variant, max_prompt_length=600, over_long="drop")
    prompts = mm8k(variant).prompts
    roles = [turn["role"] for turn in trainer.train_dataset[0]["prompt"]]
    assert roles == (["system", "user"] if variant == "released" else ["user"])
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    lengths = lengths_by_item(rows, prompts.train.value, processor, system=prompts.system_turn)
    assert set(batch["prompt_mask"].sum(1).tolist()) <= set(lengths.values())
    assert (trainer.args.temperature, trainer.images_in_logprobs) == {
        "released": (0.9, "none"),
        "head": (1.0, "policy"),
    }[variant]
