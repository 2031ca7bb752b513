"""expected.yaml: what is on record for each recipe holds together, and what does not is refused by file and line."""

import shutil
from pathlib import Path

import pytest

from r1mm.errors import BadInput
from r1mm.expected import Expected
from r1mm.recipe_files import RECIPES, load_expected, load_recipe

NAMES = sorted(path.parent.name for path in RECIPES.glob("*/recipe.yaml"))


def load(folder: Path) -> Expected:
    return load_expected(folder / "expected.yaml", load_recipe(folder / "recipe.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_a_gate_and_margins(name: str) -> None:
    folder = RECIPES / name
    recipe, expected = load_recipe(folder / "recipe.yaml"), load(folder)
    assert set(expected.variant_names) <= set(recipe.variants)
    if recipe.miniature:
        assert not expected.published_rows
        assert all(claim.by == "us" and not claim.gate for claim in expected.claims)
        return
    for variant in recipe.variants:
        gates = [claim for claim in expected.claims if claim.variant == variant and claim.gate]
        assert len(gates) == 1, variant
        # What the gate holds to is a row on record.
        published = [row for row in expected.published_rows if row.by == "authors" and row.condition == "base-think"]
        assert any(abs(row.percent - (gates[0].reference or 0)) < 0.01 for row in published)


def test_the_two_numbers_in_dispute_stay_apart() -> None:
    expected = load(RECIPES / "r1v-clevr-2b")
    claims = {claim.id: claim for claim in expected.claims}
    published = claims["as-fixed-accuracy"]
    assert published.reference == 82.5
    others = [
        row.percent
        for row in expected.published_rows
        if row.by == "third party" and row.variant == "as-fixed" and row.condition == "trained-think"
    ]
    assert sorted(others) == [71.5, 74.0]
    assert all(value < published.reference - published.margin for value in others)
    assert claims["as-fixed-third-party"].by == "third party"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("id: as-fixed-base", "id: as-published-base", "another claim has this id"),
        ("split: cogent-valb\n    accuracy: 30.0", "split: nowhere\n    accuracy: 30.0", "split 'nowhere' is none of"),
        ("    variant: as-fixed\n    era:", "    variant: fixed\n    era:", "variant 'fixed' is none of"),
        ("accuracy: 71.5", "accuracy: 715", "less than or equal to 100"),
        ("    accuracy: 71.5\n", "", "give exactly one of the two"),
        ("metric: gain", "metric: gains", "metric"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    folder = tmp_path / "r1v-clevr-2b"
    shutil.copytree(RECIPES / "r1v-clevr-2b", folder)
    text = (folder / "expected.yaml").read_text()
    assert old in text
    (folder / "expected.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=rf"expected.yaml:\d+: (?s:.)*{says}"):
        load(folder)
