"""What a stage's files depend on."""

import pytest

from r1mm import stages
from r1mm.recipe import Recipe
from r1mm.recipe_files import RECIPES, load_recipe
from r1mm.sourced import Setting
from r1mm.stages import STAGE_TABLE

# What a run is called or chosen by; variants and options act on the other parts.
_NAMES = {
    *("name", "title", "family", "upstream", "size", "hardware", "stages", "base_seed"),
    *("default_variant", "variants", "options", "upstream_layout"),
}


def test_every_setting_of_a_recipe_goes_into_a_stage() -> None:
    used = {section for stage in STAGE_TABLE.values() for section in stage.sections}
    assert set(Recipe.model_fields) - used == _NAMES


def test_all_that_lays_out_a_step_goes_into_training() -> None:
    assert set(STAGE_TABLE["base-gate"].sections) <= set(STAGE_TABLE["grpo"].sections)


def test_a_full_recipe_takes_no_more_threads_than_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str, threads: int) -> Recipe:
        recipe = load_recipe(RECIPES / name / "recipe.yaml")
        return recipe.model_copy(update={"threads": Setting[int](value=threads, source="our choice: of a test")})

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(stages, "cores", lambda: 6)
    assert stages.threads_here(of("r1v-clevr-2b", 4)) == 4
    assert stages.threads_here(of("r1v-clevr-2b", 16)) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert stages.threads_here(of("r1v-clevr-2b", 4)) == 1
    # The last bit of a miniature's sums depends on its threads, on any machine.
    assert stages.threads_here(of("r1v-mini", 16)) == 16
