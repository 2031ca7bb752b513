"""A variant over several seeds: estimates, claims, what one or two seeds leave open, what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected, Measured, ReferenceRow
from r1mm.judge.seeds import SeedsVerdict, judge_seeds
from r1mm.judge.verdict import judge
from tests.outputs import SOURCE, claim, outputs


def judged(claims: list[Claim], trained: dict[int, int], rows: list[ReferenceRow] | None = None, **changes: Any) -> Any:
    expected = Expected(recipe="some-recipe", claims=claims, reference_rows=rows or [])
    whole: dict[str, Any] = {
        "recipe": "some-recipe",
        "size": "full",
        "variant": "v",
        "runs": {seed: {"set": outputs(96, right)} for seed, right in trained.items()},
    }
    return judge_seeds(expected, **(whole | changes))


THREE = {3: 150, 1: 147, 2: 142}


def test_estimates_are_means_over_seeds_against_our_base() -> None:
    found: SeedsVerdict = judged([], THREE)
    assert found.seeds == [1, 2, 3]
    accuracy, gain = found.estimates["set"]["accuracy"], found.estimates["set"]["gain"]
    assert accuracy.by_seed == pytest.approx([73.5, 71.0, 75.0])
    assert accuracy.value == pytest.approx(73.1667, abs=1e-3)
    assert gain.value == pytest.approx(accuracy.value - 48.0)
    assert found.estimates["set"]["trained_minus_direct"].value == pytest.approx(accuracy.value - 86.0)
    assert accuracy.seed_error == pytest.approx(1.167, abs=0.01)  # deviation 2.02 over the root of 3
    assert accuracy.interval.low < accuracy.bootstrap.low < accuracy.value
    assert accuracy.value < accuracy.bootstrap.high < accuracy.interval.high
    assert [score.right for score in found.scores["set"]["trained-think"]] == [147, 142, 150]
    assert [one.points for one in found.comparisons["set"]["gain"]] == pytest.approx([25.5, 23.0, 27.0])


@pytest.mark.parametrize(
    ("stated", "trained", "outcome", "says"),
    [
        (claim("accuracy", "near", 73, 8), THREE, "reproduced", "from 73, over 3 seeds and 200 items"),
        (claim("accuracy", "near", 95, 8), THREE, "partly", "in the same direction"),
        (claim("accuracy", "near", 82.5, 8, by="authors"), THREE, "inconclusive", "shown to lie below 82.5"),
        (claim("accuracy", "near", 75, 8), {1: 120, 2: 150, 3: 180}, "inconclusive", "too few items or seeds"),
        (claim("gain", "at_least", 10), THREE, "reproduced", "over 3 seeds and 200 items) is at least 10"),
        (claim("gain", "at_least", 40), THREE, "partly", "the gain is shown to be above 0"),
        (claim("trained_minus_direct", "at_most", 0), THREE, "reproduced", "is at most 0"),
        (claim("trained_minus_direct", "at_least", 0), THREE, "not reproduced", "is below 0"),
        (claim("base_accuracy", "near", 48, 8), THREE, "reproduced", "the base model has no seed"),
        (claim("base_direct", "at_least", 70), THREE, "reproduced", "base accuracy with direct answers 86.0"),
        (claim("format", "at_least", 80), THREE, "reproduced", "format 100.0 percent"),
        (claim("length_ratio", "near", 1.0, 0.2), THREE, "reproduced", "length ratio 1.00"),
    ],
)
def test_claims_are_judged_over_all_seeds(stated: Claim, trained: dict[int, int], outcome: str, says: str) -> None:
    found = judged([stated], trained)
    assert found.claims[0].outcome == outcome, found.claims[0].words
    assert says in found.claims[0].words, found.claims[0].words
    assert found.outcome == outcome


def test_against_rows_both_sides_have_a_spread() -> None:
    rows = []
    for seed, right in enumerate((146, 148, 144, 146, 147)):
        cell = Measured(n=200, right=right, unparsed=0, format=0, direct=0, mean_tokens=1.0)
        rows.append(
            ReferenceRow(
                who="us", variant="v", seed=seed, hardware="x", code="x", source=SOURCE,
                results={"set": {"trained-think": cell}},
            )
        )  # fmt: skip
    found = judged([claim("accuracy", "near", None, 12)], THREE, rows).claims[0]
    assert (found.outcome, found.n_reference_rows, found.reference) == ("reproduced", 5, pytest.approx(73.1))
    assert "from 5 reference seeds, over 3 seeds and 200 items" in found.words
    assert found.standard_errors["reference"] == pytest.approx(0.332, abs=0.01)


def test_one_seed_is_judged_as_a_run_and_says_what_is_missing() -> None:
    claims = [claim("accuracy", "near", 73, 8), claim("gain", "at_least", 10)]
    found = judged(claims, {7: 147})
    alone = judge(
        Expected(recipe="some-recipe", claims=claims, reference_rows=[]),
        recipe="some-recipe", size="full", variant="v", seed=7, base_seed=None, outputs={"set": outputs(96, 147)},
    )  # fmt: skip
    assert found.claims == alone.claims
    assert found.outcome == alone.outcome
    assert found.missing[0].startswith("one seed only (seed 7)")
    assert found.estimates["set"]["accuracy"].seed_error is None
    assert judged(claims, {1: 147, 2: 149}).missing[0].startswith("two seeds only")
    assert judged(claims, THREE).missing == []


def test_not_comparable_seeds_are_computed_and_not_judged() -> None:
    found = judged([claim("gain", "at_least", 10)], THREE, comparable=False, why_not=["another model"])
    assert (found.outcome, found.claims[0].outcome) == ("not judged", "not comparable")
    assert "another model" in found.headline
    assert found.estimates["set"]["gain"].value == pytest.approx(25.17, abs=0.01)


def test_items_in_another_order_and_json() -> None:
    claims = [claim("gain", "near", 25, 12)]
    turned = {}
    for seed, right in THREE.items():
        turned[seed] = {"set": {name: side[::-1] for name, side in outputs(96, right).items()}}
    found, other = judged(claims, THREE), judged(claims, THREE, runs=turned)
    assert other.claims == found.claims
    assert other.comparisons == found.comparisons
    assert SeedsVerdict.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


def test_seeds_that_do_not_match_are_refused() -> None:
    with pytest.raises(BadInput, match="variant v has no runs"):
        judged([], {})
    with pytest.raises(BadInput, match="seed 2 has the splits other, seed 1 has set"):
        judged([], {}, runs={1: {"set": outputs(96, 150)}, 2: {"other": outputs(96, 150)}})
    with pytest.raises(BadInput, match="evaluate every seed on the same items"):
        judged([], {}, runs={1: {"set": outputs(96, 150)}, 2: {"set": outputs(90, 150, n=190)}})
    other = {name: [replace(one, truth=9) for one in side] for name, side in outputs(96, 150).items()}
    with pytest.raises(BadInput, match="has the truth 2 with seed 1 and 9 with seed 2"):
        judged([], {}, runs={1: {"set": outputs(96, 150)}, 2: {"set": other}})
