"""What a stage's files depend on."""

from r1mm.recipe import Recipe
from r1mm.stages import STAGE_TABLE

# What a run is called or chosen by; variants and options act on the other parts.
_NAMES = {
    *("name", "title", "family", "upstream", "size", "hardware", "stages", "base_seed"),
    *("default_variant", "variants", "options", "upstream_layout", "training"),
}


def test_every_setting_of_a_recipe_goes_into_a_stage() -> None:
    used = {section for stage in STAGE_TABLE.values() for section in stage.sections}
    assert set(Recipe.model_fields) - used == _NAMES


def test_all_that_lays_out_a_step_goes_into_training() -> None:
    laid_out = {*STAGE_TABLE["sft"].sections, *STAGE_TABLE["grpo"].sections}
    assert set(STAGE_TABLE["base-gate"].sections) <= laid_out
