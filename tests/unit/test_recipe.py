from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.errors import BadInput
from r1mm.job import make_job
from r1mm.recipe import resolve
from r1mm.recipe_files import (
    RECIPES,
    all_recipes,
    find_recipe,
    grpo_fields,
    load_expected,
    load_recipe,
    of_family,
    sft_fields,
)
from r1mm.yaml_files import read_yaml
from tests.tiny import tiny_distill_recipe, tiny_recipe
from tests.unit.test_recipe_tasks import setting


def written(folder: Path, find: str, replace: str) -> Path:
    path = tiny_recipe(folder) / "recipe.yaml"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, replace, 1))
    return path


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize("folder", all_recipes(), ids=lambda folder: folder.name)
def test_every_recipe_of_the_repository_is_good(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    load_expected(folder / "expected.yaml", recipe)
    assert (folder / "README.md").is_file()


def test_a_distillation_stands_and_falls_with_its_stage(tmp_path: Path) -> None:
    path = tiny_distill_recipe(tmp_path) / "recipe.yaml"
    whole = yaml.safe_load(path.read_text())

    def refused(changed: dict[str, Any]) -> str:
        path.write_text(yaml.safe_dump({**whole, **changed}, allow_unicode=True))
        with pytest.raises(BadInput) as error:
            load_recipe(path)
        return str(error.value)

    stages = [stage for stage in whole["stages"] if stage != "distill"]
    assert "distill is for a miniature recipe with the stage distill" in refused({"stages": stages})
    elsewhere = whole["distill"] | {"scenes": whole["distill"]["scenes"] | {"value": "nowhere"}}
    assert "distill.scenes names 'nowhere', which is no set of pictures" in refused({"distill": elsewhere})
    shares = whole["distill"] | {"kinds": whole["distill"]["kinds"] | {"value": {"count": 0.5}}}
    assert "kinds sum to 0.5; they must sum to 1" in refused({"distill": shares})
    blind = {key: one for key, one in whole["warm_start"].items() if key != "describe_share"}
    assert "warm_start lacks describe_share" in refused({"warm_start": blind})


def test_the_four_variants_are_the_two_factors_crossed() -> None:
    recipe = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml")
    crossed = {
        name: (factors.format_match.value, factors.images_in_logprobs.value)
        for name in recipe.variants
        for factors in [resolve(recipe, name).recipe.factors]
    }
    assert crossed == {
        "as-published": ("prefix", "none"),
        "as-fixed": ("full", "both"),
        "format-fixed": ("full", "none"),
        "images-fixed": ("prefix", "both"),
    }


def test_templates_are_upstreams_to_the_blank() -> None:
    prompts = load_recipe(RECIPES / "r1v-mini" / "recipe.yaml").prompts
    tail = "output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
    assert prompts.train.value == "{question}  O" + tail[1:]
    assert prompts.evaluation.value == "{question} First " + tail.replace("output", "output")


def test_field_names_read_from_source_are_those_of_the_class() -> None:
    from trl import GRPOConfig, SFTConfig

    assert grpo_fields() == set(GRPOConfig.__dataclass_fields__)
    assert sft_fields() == set(SFTConfig.__dataclass_fields__)


def test_unknown_key_names_file_line_and_the_key_meant(tmp_path: Path) -> None:
    path = written(tmp_path, "default_variant:", "default_varient:")
    line = line_of(path, "default_varient:")
    with pytest.raises(BadInput, match=rf"recipe\.yaml:{line}: default_varient: unknown key.*did you mean 'default_v"):
        load_recipe(path)


def test_unknown_train_field_names_the_one_meant(tmp_path: Path) -> None:
    path = written(tmp_path, "  scale_rewards:", "  scale_reward:")
    line = line_of(path, "  scale_reward:")
    with pytest.raises(BadInput, match=rf":{line}: train.scale_reward: is no field of TRL.*'scale_rewards'"):
        load_recipe(path)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "title:", "name: tiny\ntitle:")
    with pytest.raises(BadInput, match="'name' stands here twice"):
        load_recipe(path)


def test_a_value_without_source_is_refused(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    del recipe["train"]["beta"]["source"]
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match=r"train\.beta\.source: has no source.*our choice: reason"):
        load_recipe(path)


def test_a_bare_value_is_refused(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["train"]["beta"] = 0.04
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match=r"train\.beta: is 0\.04, without a source; write \{value: 0\.04"):
        load_recipe(path)


@pytest.mark.parametrize("source", ["somewhere", "our choice:", "R1-V", "https://example.net/x"])
def test_a_source_that_names_nothing_is_refused(tmp_path: Path, source: str) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["train"]["beta"]["source"] = source
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match="names no source; write 'owner/repository@commit:file'"):
        load_recipe(path)


def test_a_batch_that_is_not_prompts_times_group_is_refused(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, {"train.per_device_train_batch_size": 16}) / "recipe.yaml"
    with pytest.raises(BadInput, match=r"1 devices x 16 completions x 1 accumulation = 16.*2 x num_generations 4 = 8"):
        load_recipe(path)


def test_a_setting_that_r1mm_makes_itself_is_refused(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["train"]["trust_remote_code"] = {"value": True, "source": "our choice: to test the refusal"}
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match=r"train\.trust_remote_code: is set by r1mm"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("key", "misspelt", "meant"),
    [
        ("  hidden_size:", "  hidden_sze:", r"model.hidden_sze: is no setting of the tiny model.*'hidden_size'"),
        ("  answer_weight:", "  answer_wait:", r"warm_start.answer_wait: is no setting of the warm start"),
        ("  batch_size:", "  batch_sise:", r"evaluation.batch_sise: is no setting of the evaluation.*'batch_size'"),
    ],
)
def test_a_misspelt_setting_of_any_section_is_named_with_its_line(
    tmp_path: Path, key: str, misspelt: str, meant: str
) -> None:
    path = written(tmp_path, key, misspelt)
    with pytest.raises(BadInput, match=rf":{line_of(path, misspelt)}: {meant}"):
        load_recipe(path)


def test_a_setting_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    del recipe["warm_start"]["switch_at"]
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match="warm_start lacks switch_at"):
        load_recipe(path)


def test_a_variant_is_checked_as_the_recipe_is(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    setting = {"value": 6, "source": "our choice: to test the refusal"}
    recipe["variants"]["as-fixed"]["overrides"]["train.per_device_train_batch_size"] = setting
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match="= 6 completions per step, but"):
        load_recipe(path)


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, "value: 5.0e-05", "value: 1e-4")
    assert load_recipe(path).train["learning_rate"].value == 1e-4


def test_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(BadInput, match="is not YAML"):
        load_recipe(path)


def test_unknown_recipe_and_variant_name_what_there_is() -> None:
    with pytest.raises(BadInput, match="no recipe 'r1v-mimi'.*did you mean 'r1v-mini'"):
        find_recipe("r1v-mimi")
    with pytest.raises(BadInput, match="no variant 'as-fixd'; it has as-published.*did you mean 'as-fixed'"):
        resolve(load_recipe(RECIPES / "r1v-mini" / "recipe.yaml"), "as-fixd")


def test_an_override_of_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "factors.format_match:", "factors.format_mach:")
    with pytest.raises(BadInput, match="overrides 'factors.format_mach', which the recipe does not have"):
        load_recipe(path)


def test_an_override_is_checked_like_any_value(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["variants"]["as-fixed"]["overrides"]["factors.format_match"]["value"] = "suffix"
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(BadInput, match=r"variant as-fixed: factors\.format_match\.value.*'suffix'"):
        load_recipe(path)


def test_a_claim_without_anything_to_compare_with_is_refused(tmp_path: Path) -> None:
    folder = tiny_recipe(tmp_path, claims=True)
    expected = yaml.safe_load((folder / "expected.yaml").read_text())
    expected["claims"][0] |= {"test": "near", "margin": 5.0}
    del expected["claims"][0]["reference"]
    (folder / "expected.yaml").write_text(yaml.safe_dump(expected))
    with pytest.raises(BadInput, match="claim 'untaught': has no reference value, and 0 reference rows"):
        load_expected(folder / "expected.yaml", load_recipe(folder / "recipe.yaml"))


def sibling(folder: Path, changes: dict[str, Any]) -> Path:
    """A recipe that extends `tiny`, in a directory beside it."""
    tiny_recipe(folder)
    path = folder / "small" / "recipe.yaml"
    path.parent.mkdir()
    variants = yaml.safe_load((folder / "tiny" / "recipe.yaml").read_text())["variants"]
    content = {"extends": "tiny", "name": "small", "variants": variants, **changes}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_sibling_states_only_what_differs(tmp_path: Path) -> None:
    source = "our choice: to test what a sibling takes over"
    changes = {"train": {"beta": {"value": 0.1, "source": source}}, "scenes": {"ood": None}, "tasks": {"ood": None}}
    recipe, parent = load_recipe(sibling(tmp_path, changes)), load_recipe(tmp_path / "tiny" / "recipe.yaml")
    assert (recipe.train["beta"].value, recipe.train["beta"].source) == (0.1, source)
    assert {**recipe.train, "beta": parent.train["beta"]} == parent.train
    assert parent.tasks.keys() - recipe.tasks.keys() == parent.scenes.keys() - recipe.scenes.keys() == {"ood"}
    assert recipe.title == parent.title


def test_taking_away_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = sibling(tmp_path, {"train": {"betta": None}})
    line = line_of(path, "betta:")
    with pytest.raises(BadInput, match=rf":{line}: train\.betta: null takes away what tiny does not have"):
        load_recipe(path)


def test_extending_nothing_and_a_sibling_of_a_sibling_are_refused(tmp_path: Path) -> None:
    path = sibling(tmp_path, {})
    text = path.read_text()
    path.write_text(text.replace("extends: tiny", "extends: tinny"))
    with pytest.raises(BadInput, match=r"recipe\.yaml:1: extends 'tinny', but there is no"):
        load_recipe(path)
    path.write_text(text)
    other = tmp_path / "smaller" / "recipe.yaml"
    other.parent.mkdir()
    other.write_text(text.replace("extends: tiny", "extends: small"))
    with pytest.raises(BadInput, match="itself extends a recipe; extend that one"):
        load_recipe(other)


def test_a_recipe_may_extend_two_and_says_so_of_both(tmp_path: Path) -> None:
    source = "our choice: to test what a sibling takes over"
    first = sibling(tmp_path, {"train": {"beta": {"value": 0.1, "source": source}}})
    other = tmp_path / "both" / "recipe.yaml"
    other.parent.mkdir()
    content = yaml.safe_load(first.read_text()) | {"extends": ["tiny", "small"], "name": "both"}
    content.pop("train")
    other.write_text(yaml.safe_dump(content, sort_keys=False))
    assert load_recipe(other).train["beta"].value == 0.1  # the later one's
    assert load_recipe(other).title == load_recipe(tmp_path / "tiny" / "recipe.yaml").title
    other.write_text(yaml.safe_dump(content | {"extends": ["small", "tiny"]}, sort_keys=False))
    with pytest.raises(BadInput, match="itself extends a recipe; extend that one"):
        load_recipe(other)


def test_a_version_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "versions.yaml"
    path.write_text("a: 0.14.0\nb: 1e-4\nc: 2.7.4.post1\nd: .5\ne: 4.\n")
    assert read_yaml(path)[0] == {"a": "0.14.0", "b": 1e-4, "c": "2.7.4.post1", "d": 0.5, "e": 4.0}


def test_what_a_recipe_does_not_say_of_clips_and_rewards_is_upstreams(tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe(tmp_path) / "recipe.yaml")
    assert recipe.clips == {}
    assert recipe.rewards.value == ["accuracy", "format"]
    assert {task.lmms for task in recipe.tasks.values()} == {None}


def test_settings_of_later_recipes_leave_no_trace_where_they_are_absent() -> None:
    # What a stage depends on is compared with existing run directories: a field that came later must not change it.
    recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    seen = recipe.sections(("prompts", "factors", "over_long", "assets"))
    assert set(seen) == {"prompts", "factors", "assets"}
    assert set(seen["prompts"]) == {"train", "evaluation", "direct"}
    assert set(seen["factors"]) == {"format_match", "images_in_logprobs"}
    assert "untagged" not in seen["assets"]["train"]
    later = load_recipe(RECIPES / "mm8k-2b" / "recipe.yaml").sections(("prompts", "factors", "over_long", "assets"))
    assert later["over_long"]["value"] == "refuse"
    assert later["prompts"]["system"]["value"] is None  # said, and said to be none
    assert later["factors"]["logprobs_temperature"]["value"] == 1.0
    assert later["assets"]["train"]["untagged"] == "keep"


def test_the_variants_of_open_r1_multimodal_are_its_commits() -> None:
    system = (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., "
        "<think> reasoning process here </think><answer> answer here </answer>"
    )
    tail = "  Output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
    for name in ("mm8k-2b", "mm8k-7b"):
        whole = load_recipe(RECIPES / name / "recipe.yaml")
        found = {}
        for variant in whole.variants:
            recipe = resolve(whole, variant).recipe
            factors = recipe.factors
            assert factors.scored_at == 1.0
            found[variant] = (
                *(recipe.prompts.train.value, recipe.prompts.system_turn, factors.format_match.value),
                *(factors.images_in_logprobs.value, recipe.train["temperature"].value),
            )
        assert found == {
            "released": ("{question}", system, "line", "none", 0.9),
            "head": ("{question}" + tail, None, "prefix", "policy", 1.0),
            "ours": ("{question}" + tail, None, "full", "both", 1.0),
        }


def test_a_base_model_that_is_asked_otherwise_is_evaluated_on_its_own(tmp_path: Path) -> None:
    folders = {
        variant: make_job("mm8k-2b", variant, 1, None, tmp_path).folder("base").name
        for variant in ("released", "head", "ours", "released+step-by-step", "ours+step-by-step")
    }
    assert folders["released"] == "base-seed0-released"
    assert folders["head"] == folders["ours"] == "base-seed0"
    assert len(set(folders.values())) == 4


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"train.temperature": 0.9}, r"temperature.*factors\.logprobs_temperature"),
        ({"prompts.system": "Think."}, r"prompts\.system"),
        ({"over_long": "drop"}, r"over_long"),
    ],
)
def test_what_a_miniature_cannot_have_is_refused(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    path = tiny_recipe(tmp_path) / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    for key, value in section.items():
        *above, last = key.split(".")
        holder = content
        for part in above:
            holder = holder[part]
        holder[last] = setting(value)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(BadInput, match=words):
        load_recipe(path)


def test_a_family_has_one_full_recipe_that_its_name_stands_for() -> None:
    assert of_family("r1v", "full") == "r1v-clevr-2b"
    assert of_family("distill", "full") == "r1v-clevr-2b-sft"  # and not the one that goes on with GRPO
    assert of_family("distill-grpo", "full") == "r1v-clevr-2b-distilled"
