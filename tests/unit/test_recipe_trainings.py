"""Recipes that fine-tune, alone or before GRPO: what they may say."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.recipe import resolve
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.stages import STAGE_TABLE
from tests.tiny import tiny_sft_recipe
from tests.unit.test_recipe_tasks import READING, of_clips, setting


def tuned(folder: Path, changes: dict[str, Any] | None = None, drop: tuple[str, ...] = ()) -> Path:
    """A recipe with both trainings, some of its keys changed or taken away."""
    path = tiny_sft_recipe(folder) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for dotted, value in {**(changes or {}), **dict.fromkeys(drop)}.items():
        *parents, last = dotted.split(".")
        target = recipe
        for part in parents:
            target = target[part]
        target[last] = value
        if dotted in drop:
            del target[last]
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def test_a_variant_has_the_stages_that_it_trains_by_and_their_settings_alone(tmp_path: Path) -> None:
    recipe = load_recipe(tuned(tmp_path))
    both, sft, grpo = (resolve(recipe, name).recipe for name in ("sft-grpo", "sft", "grpo"))
    assert both.trainings == ["sft", "grpo"]
    assert (sft.trainings, grpo.trainings) == (["sft"], ["grpo"])
    assert set(both.stages) - set(sft.stages) == {"grpo"}
    assert (sft.train, sft.factors, sft.prompts_per_step) == ({}, None, None)
    assert (grpo.sft, grpo.sft_examples, grpo.examples_per_step) == ({}, None, None)
    assert (both.rows_of_step("sft"), both.rows_of_step("grpo")) == (4, 8)
    assert pickle.loads(pickle.dumps(sft)) == sft


def test_what_older_recipes_hand_to_their_stages_is_what_it_was() -> None:
    recipe = resolve(load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")).recipe
    assert recipe.trainings == ["grpo"]
    assert recipe.sections(("prompts",)) == {"prompts": recipe.prompts.model_dump(mode="json")}
    for stage in ("warm-start", "base-evaluation", "grpo", "evaluation"):
        assert not {part for part in STAGE_TABLE[stage].sections if part.startswith("sft") or part == "training"}


@pytest.mark.parametrize(
    ("changes", "drop", "words"),
    [
        ({}, ("sft_examples",), "sft_examples is missing from a recipe with the stage sft"),
        ({}, ("factors",), "factors is missing from a recipe with the stage grpo"),
        (
            {
                "sft_layout": {
                    "sharding": setting("ddp"),
                    "weights_dtype": setting("float32"),
                    "examples_per_device": setting(4),
                    "gradient_checkpointing": setting(False),
                }
            },
            (),
            "sft_layout is not for a miniature recipe",
        ),
        (
            {"training": setting(["grpo", "sft"])},
            (),
            r"training \['grpo', 'sft'\] must name one or more of sft, grpo, in",
        ),
        ({"training": setting([])}, (), r"training \[\] must name one or more"),
        ({"training": setting(["dpo"])}, (), "training.value.0.*'sft' or 'grpo'"),
        ({"sft.packing": setting(True)}, (), "sft.packing: has no effect .*sft_examples says how examples are made"),
        ({"sft.learning_rat": setting(1.0)}, (), "sft.learning_rat: is no field of TRL's SFTConfig.*'learning_rate'"),
        ({"sft.seed": setting(1)}, (), "sft.seed: is set by r1mm for every run"),
        ({"sft.max_steps": setting(3)}, (), "sft: must have either max_steps or num_train_epochs"),
        ({"sft.num_train_epochs": setting(1.5)}, (), "sft.num_train_epochs: must be a whole number from 1 on, is 1.5"),
        ({}, ("sft.max_length",), "sft.max_length: must be a whole number from 1 on, is None"),
        ({"examples_per_step": setting(6)}, (), r"1 devices x 2 examples x 2 accumulation = 4 examples .* is 6"),
        ({"sft_examples.loss": setting("some")}, (), "sft_examples.loss.value.*'all' or 'answer'"),
        ({"sft_examples.prompt": setting("How?")}, (), r"sft_examples: template prompt 'How\?' must hold \{question\}"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    tmp_path: Path, changes: dict[str, Any], drop: tuple[str, ...], words: str
) -> None:
    with pytest.raises(BadInput, match=rf"recipe\.yaml:\d+: .*{words}"):
        load_recipe(tuned(tmp_path, changes, drop))


def test_settings_of_a_training_that_no_variant_runs_are_refused(tmp_path: Path) -> None:
    stages = ["assets", "warm-start", "base-evaluation", "grpo", "evaluation", "verdict", "report"]
    with pytest.raises(BadInput, match="sft is not for a recipe without the stage sft"):
        load_recipe(tuned(tmp_path, {"stages": stages, "variants": {"sft-grpo": {**READING, "overrides": {}}}}))


def test_a_full_recipe_fine_tunes_on_a_set_it_has(tmp_path: Path) -> None:
    for name in ("r1v-clevr-2b", "r1v-clevr-2b-sft"):
        shutil.copytree(RECIPES / name, tmp_path / name)
    path = tmp_path / "r1v-clevr-2b-sft" / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    content["sft_examples"]["items"]["value"] = "superclevr-prompts"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(
        BadInput, match="sft_examples.items names 'superclevr-prompts', which is no asset of kind dataset"
    ):
        load_recipe(path)
    content["sft_examples"]["items"]["value"] = "train"
    content["sft"]["gradient_checkpointing"] = setting(True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(BadInput, match="sft.gradient_checkpointing: is for the plan .*sets examples_per_step"):
        load_recipe(path)


def test_pictures_alone_are_learnt_from(tmp_path: Path) -> None:
    path = of_clips(tmp_path, {"clips": {"frames": setting(4)}})
    recipe = yaml.safe_load(path.read_text())
    other = yaml.safe_load((tiny_sft_recipe(tmp_path / "other") / "recipe.yaml").read_text())
    recipe |= {key: other[key] for key in ("stages", "sft", "sft_examples", "examples_per_step")}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(BadInput, match="the stage sft is for pictures, and this recipe has clips"):
        load_recipe(path)
