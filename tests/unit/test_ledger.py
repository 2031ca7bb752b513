"""The ledger, and that no field of TRL's that matters is left to TRL's default."""

import dataclasses
import importlib.metadata
import importlib.util
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1mm.cli import main
from r1mm.errors import BadInput
from r1mm.ledger import EFFECTS, WHERE, counts, entries, load_ledger, same, trl_fields
from r1mm.recipe import Recipe, resolve
from r1mm.recipe_files import (
    OURS,
    RECIPES,
    SFT_WITHOUT_EFFECT,
    all_recipes,
    grpo_fields,
    load_recipe,
    sft_fields,
)
from r1mm.training_parts import Training

ROOT = RECIPES.parent
FULL = [folder for folder in all_recipes() if not load_recipe(folder / "recipe.yaml").miniature]
each_full_recipe = pytest.mark.parametrize("folder", FULL, ids=lambda folder: folder.name)


def readings(recipe: Recipe) -> list[str]:
    return [*recipe.variants, *(f"{recipe.default_variant}+{option}" for option in recipe.options)]


TRAININGS: tuple[Training, ...] = ("grpo", "sft")
each_training = pytest.mark.parametrize("training", TRAININGS)


@each_training
def test_every_field_of_trl_stands_in_one_list(training: Training) -> None:
    fields = trl_fields(training)
    assert fields.package == f"trl=={importlib.metadata.version('trl')}"
    known = {"grpo": grpo_fields, "sft": sft_fields}[training]()
    assert fields.names == known, "TRL has other fields; say in ledger_fields.yaml what becomes of each"


@each_training
def test_fields_left_alone_have_the_default_that_the_list_names(training: Training) -> None:
    import trl

    config = {"grpo": trl.GRPOConfig, "sft": trl.SFTConfig}[training]
    known = {field.name: field for field in dataclasses.fields(config)}
    for name, left in trl_fields(training).left.items():
        field = known[name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        assert same(getattr(default, "value", default), left.default) or default == left.default == [], name


@each_full_recipe
def test_every_reading_sets_each_field_that_matters(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    for reading in readings(recipe):
        chosen = resolve(recipe, reading).recipe
        for training in chosen.trainings:
            fields, settings = trl_fields(training), chosen.settings_of(training)
            by_vllm = "use_vllm" in settings and settings["use_vllm"].value
            assert settings.keys() == {*fields.recipe, *(fields.vllm if by_vllm else ())}, reading


def test_what_r1mm_sets_is_listed_as_such(tmp_path: Path) -> None:
    from r1mm.train.settings import run_fields

    on_a_cpu = {
        name: True
        for name, given in inspect.signature(run_fields).parameters.items()
        if given.kind == given.KEYWORD_ONLY
    }
    for training in TRAININGS:
        assert trl_fields(training).r1mm.keys() >= OURS | run_fields(tmp_path, 1, **on_a_cpu).keys()


def test_what_has_no_effect_on_examples_is_left_alone() -> None:
    assert trl_fields("sft").left.keys() >= SFT_WITHOUT_EFFECT


@each_full_recipe
def test_every_full_recipe_has_a_good_ledger(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    ledger = load_ledger(folder / "ledger.yaml", recipe)
    for reading in readings(recipe):
        number = counts(entries(ledger, recipe, reading))
        trainings = resolve(recipe, reading).recipe.trainings
        rows = [row for row in ledger.rows.values() if row.training is None or row.training in trainings]
        assert number["settings"] == number["equal"] + number["deviations"] == len(rows)
        assert number["deviations"] == sum(number[effect] for effect in EFFECTS)
    for name, row in ledger.rows.items():
        if row.where:
            found = WHERE.fullmatch(row.where)
            assert found, name
            text = source_text(found.group(1))
            assert row.shows is None or row.shows in text, f"{name}: {row.where} does not show {row.shows!r}"


def source_text(where: str) -> str:
    """The file that a row's `where` names, of this tree or of an installed package at that version."""
    if where.startswith("r1mm/"):
        return (ROOT / where).read_text()
    package, _, file = where.partition(":")
    name, _, version = package.partition("==")
    assert importlib.metadata.version(name) == version, where
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent.parent / file).read_text()


@each_full_recipe
def test_every_setting_of_the_recipe_that_upstream_had_is_in_the_ledger(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    ledger = load_ledger(folder / "ledger.yaml", recipe)
    named = {row.ours for row in ledger.rows.values()}
    wanted = {f"processor.{key}" for key in recipe.processor} | {f"evaluation.{key}" for key in recipe.evaluation}
    wanted |= {"prompts.evaluation", "assets.model.repo", "assets.train.repo"}
    if "grpo" in recipe.trainings:
        wanted |= {f"train.{key}" for key in recipe.train}
        wanted |= {f"factors.{key}" for key in recipe.factors.model_dump()}
        wanted |= {"prompts.train", "prompts_per_step", "max_prompt_length", "schedule_steps"}
        wanted |= {"weights_dtype", "sharding", "rewards"}
    if "sft" in recipe.trainings:
        wanted |= {f"sft.{key}" for key in recipe.sft} | {"examples_per_step"}
        wanted |= {f"sft_examples.{key}" for key in type(recipe.sft_examples).model_fields if key != "items"}
        wanted |= {"sft_layout.sharding", "sft_layout.weights_dtype"}
    wanted |= {f"clips.{key}" for key in recipe.clips}
    wanted |= ({"prompts.system"} if recipe.prompts.system else set()) | ({"over_long"} if recipe.over_long else set())
    assert wanted <= named, sorted(wanted - named)


def copied(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the flagship's recipe and ledger, and the ledger's content."""
    target = folder / "r1v-clevr-2b"
    shutil.copytree(RECIPES / "r1v-clevr-2b", target)
    content: dict[str, Any] = yaml.safe_load((target / "ledger.yaml").read_text())
    return target, content


def refusal(folder: Path, content: dict[str, Any]) -> str:
    (folder / "ledger.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))
    with pytest.raises(BadInput) as error:
        load_ledger(folder / "ledger.yaml", load_recipe(folder / "recipe.yaml"))
    lines = (folder / "ledger.yaml").read_text().splitlines()
    line = int(str(error.value).split(":")[1])
    return f"{lines[line - 1].strip()} | {error.value}"


def test_a_row_that_claims_to_be_equal_and_is_not_is_refused(tmp_path: Path) -> None:
    folder, content = copied(tmp_path)
    content["rows"]["beta"]["upstream"] = 0.1
    assert refusal(folder, content).startswith("beta: |")
    assert "upstream has 0.1 and recipe r1v-clevr-2b" in refusal(folder, content)


def test_a_deviation_without_a_reason_is_refused(tmp_path: Path) -> None:
    folder, content = copied(tmp_path)
    del content["rows"]["seed"]["deviation"]
    assert "add deviation: {reason" in refusal(folder, content)
    content["rows"]["seed"]["deviation"] = {"effect": "draws"}
    assert "rows.seed.deviation.reason: is missing" in refusal(folder, content)


def test_a_reason_for_what_is_equal_is_refused(tmp_path: Path) -> None:
    folder, content = copied(tmp_path)
    content["rows"]["beta"]["deviation"] = {"reason": "none that anyone knows", "effect": "none"}
    assert "beta: gives a reason for a deviation, but is equal" in refusal(folder, content)


def test_a_path_that_the_recipe_lacks_is_refused(tmp_path: Path) -> None:
    folder, content = copied(tmp_path)
    for path in ("train.betta", "train", "trl:beta", "assets.model"):
        content["rows"]["beta"]["ours"] = path
        assert f"beta: ours: {path!r} names no single value" in refusal(folder, content)


def test_an_unknown_variant_and_a_row_with_two_of_ours_are_refused(tmp_path: Path) -> None:
    folder, content = copied(tmp_path)
    content["rows"]["beta"]["by_variant"] = {"as-fixd": 0.04}
    assert refusal(folder, content).startswith("as-fixd: 0.04 |")
    folder, content = copied(tmp_path / "again")
    content["rows"]["beta"] |= {"ours_value": 0.04, "where": "r1mm/recipe.py"}
    assert "needs either ours" in refusal(folder, content)


def test_a_recipe_that_changes_meets_its_ledger(tmp_path: Path) -> None:
    folder, _ = copied(tmp_path)
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("beta: {value: 0.04", "beta: {value: 0.0"))
    with pytest.raises(BadInput, match=r"beta: upstream has 0\.04 .* has 0\.0"):
        load_ledger(folder / "ledger.yaml", load_recipe(path))


def test_eras_differ_and_options_say_why() -> None:
    recipe = load_recipe(RECIPES / "r1v-clevr-2b" / "recipe.yaml")
    ledger = load_ledger(RECIPES / "r1v-clevr-2b" / "ledger.yaml", recipe)
    rows = {name: {row.name: row for row in entries(ledger, recipe, name)} for name in readings(recipe)}
    assert rows["as-published"]["completion-length"].upstream == 256
    assert rows["as-fixed"]["completion-length"].upstream == 512
    assert rows["as-fixed"]["format-match"].status == "equal"
    changed = rows["as-fixed+no-think"]["format-match"]
    assert (changed.status, changed.ours) == ("deviation", "bare")
    assert changed.reason is not None
    assert "an answer tag and nothing else" in changed.reason


def test_true_is_not_one() -> None:
    assert same(1, 1.0)
    assert not same(True, 1)
    assert not same(0, False)
    assert not same(None, False)


def test_the_verb_prints_rows_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "r1v-clevr-2b", "--variant", "as-published", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["counts"]["settings"] == len(printed["rows"])
    assert main(["ledger", "r1v-clevr-2b", "--fields"]) == 0
    text = capsys.readouterr().out
    assert f"{printed['counts']['settings']} settings: " in text
    assert "epsilon_high" in text
    assert main(["ledger", "r1v-mini"]) == 2
    assert "has no ledger.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "variant"), [("r1v-clevr-2b", "as-fixed"), ("r1v-clevr-2b-sft", "as-published")])
def test_the_page_gives_the_counts_of_the_ledger(name: str, variant: str) -> None:
    folder = RECIPES / name
    recipe = load_recipe(folder / "recipe.yaml")
    number = counts(entries(load_ledger(folder / "ledger.yaml", recipe), recipe, variant))
    page = " ".join((folder / "README.md").read_text().split())
    assert f"{number['settings']} settings, of which {number['equal']} are equal" in page
    assert f"{number['deviations']} deviate under `{variant}`; {number['possible']} of the deviations" in page


def test_a_row_of_a_training_that_a_variant_does_not_run_is_left_out() -> None:
    recipe = load_recipe(RECIPES / "r1v-clevr-2b-distilled" / "recipe.yaml")
    ledger = load_ledger(RECIPES / "r1v-clevr-2b-distilled" / "ledger.yaml", recipe)
    alone, both = ({row.name for row in entries(ledger, recipe, name)} for name in ("from-base", "after-sft"))
    assert alone < both
    assert {name for name in both - alone if not name.startswith("sft-")} == set()
    assert {"beta", "sft-learning-rate", "eval-template"} <= both
