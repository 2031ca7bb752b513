"""Every outcome by a constructed case, what verdict.json holds, and what is refused."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected, Measured, ReferenceRow
from r1mm.judge.outputs import measure
from r1mm.judge.statistics import exact_share, wilson
from r1mm.judge.verdict import EXIT_STATUS, Verdict, judge
from r1mm.recipe import Condition
from tests.outputs import SOURCE, Scored, outputs
from tests.outputs import claim as any_claim

claim = functools.partial(any_claim, id="c1", variant="as-published", split="id")


def measured(right: int, n: int = 200, **changes: Any) -> Measured:
    whole: dict[str, Any] = {"n": n, "right": right, "unparsed": 0, "format": n, "direct": 0, "mean_tokens": 20.0}
    return Measured(**{**whole, **changes})


def row(base: int, trained: int, seed: int, n: int = 200, variant: str = "as-published") -> ReferenceRow:
    results: dict[Condition, Measured] = {"base-think": measured(base, n), "trained-think": measured(trained, n)}
    return ReferenceRow(
        who="us", variant=variant, seed=seed, hardware="2 cores", code="x", source=SOURCE, results={"id": results}
    )


def verdict(
    claims: Sequence[Claim],
    run: Mapping[Condition, Sequence[Scored]],
    rows: Sequence[ReferenceRow] = (),
    **changes: Any,
) -> Verdict:
    expected = Expected(recipe="some-recipe", claims=list(claims), reference_rows=list(rows))
    settings: dict[str, Any] = {
        "recipe": "some-recipe",
        "size": "full",
        "variant": "as-published",
        "seed": 1,
        "base_seed": None,
        "outputs": {"id": run},
    }
    return judge(expected, **{**settings, **changes})


FIVE_SEEDS = [row(90, trained, seed) for seed, trained in enumerate((138, 142, 140, 144, 136))]  # gains 23 to 27
SPREAD_SEEDS = [row(90, trained, seed) for seed, trained in enumerate((110, 170, 140))]


@pytest.mark.parametrize(
    ("stated", "run", "rows", "outcome", "says"),
    [
        (claim("gain", "near", None, 12), (90, 141), FIVE_SEEDS, "reproduced", "lies within the margin of 12"),
        (claim("gain", "near", None, 12), (90, 196), FIVE_SEEDS, "partly", "outside the margin of 12, in the same dir"),
        (claim("gain", "near", None, 12), (90, 60), FIVE_SEEDS, "not reproduced", "outside the margin of 12"),
        (claim("gain", "near", None, 12), (90, 90), FIVE_SEEDS, "not reproduced", "outside the margin of 12"),
        (claim("gain", "near", None, 12), (90, 141), SPREAD_SEEDS, "inconclusive", "too few items or seeds"),
        (claim("gain", "near", 25, 12), (90, 140), [], "reproduced", "items of this single run only"),
        (claim("gain", "near", 50, 12), (90, 140), [], "partly", "from 50"),
        (claim("gain", "near", -20, 12), (90, 140), [], "not reproduced", "from -20"),
        (claim("gain", "near", 25, 12), (90, 140), FIVE_SEEDS, "reproduced", "the seed spread of 5 reference rows"),
        (claim("accuracy", "near", None, 12), (90, 141), FIVE_SEEDS, "reproduced", "accuracy 70.5 percent"),
        (claim("accuracy", "near", 95, 12), (90, 141), [], "partly", "in the same direction"),
        (claim("accuracy", "near", 45, 12), (90, 141), [], "not reproduced", "lies outside"),
        (claim("accuracy", "near", 95, 12), (140, 141), [], "not reproduced", "lies outside"),
        (claim("accuracy", "at_least", 65), (90, 150), [], "reproduced", "is at least 65"),
        (claim("accuracy", "at_least", 75), (90, 150), [], "inconclusive", "either side of 75"),
        (
            claim("accuracy", "at_least", 85),
            (90, 150),
            [],
            "partly",
            "is below 85, but the gain is shown to be above 0",
        ),
        (claim("accuracy", "at_least", 85), (150, 150), [], "not reproduced", "is below 85"),
        (claim("accuracy", "at_least", 85, 15), (150, 152), [], "reproduced", "70 (85 less the margin of 15)"),
        (claim("accuracy", "at_most", 85), (150, 150), [], "reproduced", "is at most 85"),
        (claim("accuracy", "at_most", 65, 12), (150, 150), [], "inconclusive", "77 (65 plus the margin of 12)"),
        (claim("accuracy", "at_most", 60), (180, 150), [], "not reproduced", "is above 60"),
        (claim("gain", "at_least", 0), (90, 120), [], "reproduced", "gain 15.0 points"),
        (claim("gain", "at_least", 14), (90, 120), [], "inconclusive", "either side of 14"),
        (claim("gain", "at_least", 40), (90, 120), [], "partly", "the gain is shown to be above 0"),
        (claim("gain", "at_least", 40), (90, 91), [], "not reproduced", "is below 40"),
        (claim("gain", "at_most", -30), (120, 90), [], "partly", "the gain is shown to be below 0"),
        (claim("gain", "at_most", 5), (90, 120), [], "not reproduced", "is above 5"),
        (claim("format", "at_least", 95), (90, 120), [], "reproduced", "format 100.0 percent"),
        (claim("direct", "at_most", 5), (90, 120), [], "reproduced", "direct answers 0.0 percent"),
        (claim("direct", "at_least", 50), (90, 120), [], "not reproduced", "is below 50"),
    ],
)
def test_outcomes(stated: Claim, run: tuple[int, int], rows: list[ReferenceRow], outcome: str, says: str) -> None:
    found = verdict([stated], outputs(*run), rows)
    assert found.claims[0].outcome == outcome, found.claims[0].words
    assert found.outcome == outcome
    assert says in found.claims[0].words


def test_words_and_numbers_of_a_claim_near_its_rows() -> None:
    result = verdict([claim("gain", "near", None, 12)], outputs(90, 141), FIVE_SEEDS).claims[0]
    assert result.words.startswith("gain 25.5 points (90 % interval of the difference from 5 reference seeds: ")
    assert (result.value, result.unit, result.n_reference_rows) == (25.5, "points", 5)
    assert result.reference == pytest.approx(25.0)
    assert result.interval_of == "difference"
    assert result.interval_level == pytest.approx(0.9)
    assert (result.interval.low + result.interval.high) / 2 == pytest.approx(0.5)
    assert result.standard_errors is not None
    assert set(result.standard_errors) == {"items", "seeds", "reference"}


def test_a_one_sided_claim_is_tested_by_the_exact_interval() -> None:
    result = verdict([claim("accuracy", "at_least", 65)], outputs(90, 150), FIVE_SEEDS).claims[0]
    assert result.interval == exact_share(150, 200, 0.9).scaled(100)
    assert (result.interval_of, result.standard_errors, result.n_reference_rows) == ("value", None, 0)
    assert "another seed may differ" in result.words


def test_length_ratio_compares_mean_tokens_with_the_base() -> None:
    run = outputs(90, 140)
    run["trained-think"] = [replace(one, tokens=10 + k % 3) for k, one in enumerate(run["trained-think"])]
    results = verdict([claim("length_ratio", "at_most", 0.6), claim("length_ratio", "near", 1.0, 0.1)], run).claims
    assert results[0].value == pytest.approx(sum(10 + k % 3 for k in range(200)) / (200 * 20))
    assert (results[0].unit, results[0].outcome, results[1].outcome) == ("times", "reproduced", "not reproduced")
    assert results[0].words.startswith("length ratio 0.55 times")
    seeds = [
        ReferenceRow(
            who="us", variant="as-published", seed=k, hardware="2 cores", code="x", source=SOURCE,
            results={"id": {"base-think": measured(90), "trained-think": measured(140, mean_tokens=tokens)}},
        )
        for k, tokens in enumerate((10.8, 11.0, 11.2))
    ]  # fmt: skip
    near = verdict([claim("length_ratio", "near", None, 0.1)], run, seeds).claims[0]
    assert near.reference == pytest.approx(0.55)
    assert near.outcome == "reproduced"


def test_format_and_direct_are_shares_of_the_trained_outputs() -> None:
    run = outputs(90, 140)
    run["trained-think"] = [replace(one, format=k >= 150, direct=k < 150) for k, one in enumerate(run["trained-think"])]
    found = verdict([claim("format", "at_most", 40), claim("direct", "at_least", 60)], run)
    assert [result.value for result in found.claims] == [25.0, 75.0]
    assert [result.outcome for result in found.claims] == ["reproduced", "reproduced"]


def test_the_worst_claim_decides() -> None:
    claims = {
        "reproduced": claim("accuracy", "at_least", 65),
        "inconclusive": claim("accuracy", "at_least", 75),
        "partly": claim("accuracy", "at_least", 85),
        "not reproduced": claim("accuracy", "at_most", 60),
    }
    so_far: list[Claim] = []
    for outcome, one in claims.items():
        so_far.append(one)
        assert verdict(so_far, outputs(90, 150)).outcome == outcome
        assert verdict(so_far[::-1], outputs(90, 150)).outcome == outcome
    assert verdict(so_far, outputs(90, 150)).headline == (
        "some-recipe, variant as-published, seed 1: not reproduced "
        "(4 claims: 1 reproduced, 1 inconclusive, 1 partly, 1 not reproduced)."
    )


def test_exit_status() -> None:
    assert EXIT_STATUS == {
        "reproduced": 0, "not judged": 0, "partly": 3, "not reproduced": 3, "inconclusive": 4,
    }  # fmt: skip


def test_a_variant_without_claims_is_not_judged() -> None:
    rows = [*FIVE_SEEDS, row(90, 100, 9, variant="as-fixed")]
    found = verdict([claim("gain", "at_least", 0)], outputs(90, 140), rows, variant="as-fixed")
    assert (found.outcome, found.claims) == ("not judged", [])
    assert "no claim is made for this variant" in found.headline
    assert [one.seed for one in found.reference_rows] == [9]
    assert found.scores["id"]["trained-think"].accuracy == 70.0


def test_a_miniature_says_that_it_is_one() -> None:
    found = verdict([claim("gain", "near", None, 12)], outputs(90, 141), FIVE_SEEDS, size="miniature", base_seed=0)
    assert found.headline.startswith("Miniature some-recipe")
    assert "a miniature says nothing" in found.headline
    assert "published" not in found.headline.replace("as-published", "")
    assert "iniature" not in verdict([], outputs(90, 141)).headline


def test_scores_and_comparisons() -> None:
    run = outputs(90, 140, direct=170)
    run["trained-think"][0] = replace(run["trained-think"][0], correct=False, parsed=None, format=False, tokens=220)
    found = verdict([], run)
    score = found.scores["id"]["trained-think"]
    assert (score.n, score.right, score.unparsed, score.format, score.direct) == (200, 139, 1, 199, 0)
    assert (score.mean_tokens, score.accuracy) == (21.0, 69.5)
    assert score.interval == wilson(139, 200).scaled(100)
    gain = found.comparisons["id"]["gain"]
    assert (gain.against, gain.points, gain.only_trained_right, gain.only_other_right) == ("base-think", 24.5, 50, 1)
    assert gain.interval.low < 24.5 < gain.interval.high
    assert gain.p < 1e-6
    over_direct = found.comparisons["id"]["trained minus base-direct"]
    assert (over_direct.against, over_direct.points, over_direct.only_other_right) == ("base-direct", -15.5, 31)


def test_verdict_survives_json() -> None:
    found = verdict([claim("gain", "near", None, 12), claim("direct", "at_most", 5)], outputs(90, 141), FIVE_SEEDS)
    assert Verdict.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


def test_the_order_of_items_does_not_matter() -> None:
    run = outputs(90, 141)
    turned = {**run, "base-think": run["base-think"][::-1]}
    claims = [claim("gain", "near", None, 12), claim("length_ratio", "near", 1.0, 0.2)]
    assert verdict(claims, turned, FIVE_SEEDS) == verdict(claims, run, FIVE_SEEDS)


def test_rows_that_did_not_measure_the_claim_are_left_out() -> None:
    partial = ReferenceRow(
        who="a third party", variant="as-published", seed=7, hardware="8 GPUs", code="x", source=SOURCE,
        results={"id": {"trained-think": measured(140)}},
    )  # fmt: skip
    rows = [*FIVE_SEEDS, partial]
    results = verdict([claim("gain", "near", None, 12), claim("accuracy", "near", None, 12)], outputs(90, 141), rows)
    assert [result.n_reference_rows for result in results.claims] == [5, 6]


def test_measure_counts() -> None:
    found = measure([Scored("a", tokens=10), Scored("b", tokens=5, correct=False, parsed=None, format=False)])
    assert found == Measured(n=2, right=1, unparsed=1, format=1, direct=0, mean_tokens=7.5)


def test_bad_measurements_are_refused() -> None:
    with pytest.raises(BadInput, match=r"no outputs to measure \(0 records\)"):
        measure([])
    with pytest.raises(BadInput, match="item 'a' has 2 outputs"):
        measure([Scored("a"), Scored("b"), Scored("a")])


def test_bad_runs_are_refused() -> None:
    run = outputs(90, 141)
    gain = claim("gain", "near", None, 12)
    with pytest.raises(BadInput, match=r"item 'i198' is in base-think .200 items. and not in trained-think .198 items"):
        verdict([gain], {**run, "trained-think": run["trained-think"][:198]})
    with pytest.raises(BadInput, match=r"item 'i199' is in base-direct .200 items. and not in base-think .199 items"):
        verdict([gain], {**run, "base-think": run["base-think"][:199]})
    with pytest.raises(BadInput, match="item 'i0' has the truth 2 in base-think and 5 in trained-think"):
        verdict(
            [gain], {**run, "trained-think": [replace(run["trained-think"][0], truth=5), *run["trained-think"][1:]]}
        )
    with pytest.raises(BadInput, match="condition base-direct: there are no outputs"):
        verdict([gain], {**run, "base-direct": []})
    with pytest.raises(BadInput, match="has the conditions base-think, trained-think; give base-think, base-direct"):
        verdict([gain], {name: found for name, found in run.items() if name != "base-direct"})
    with pytest.raises(BadInput, match="claim 'c1' needs split 'id', the run has ood"):
        verdict([gain], run, outputs={"ood": run})
    with pytest.raises(BadInput, match="no splits"):
        verdict([], run, outputs={})
    with pytest.raises(BadInput, match="claim 'c1', gain on split 'id': no reference value and 1 reference rows"):
        verdict([gain], run, FIVE_SEEDS[:1])
    with pytest.raises(BadInput, match="recipe 'some-recipe', the run is of 'other'"):
        verdict([gain], run, FIVE_SEEDS, recipe="other")
    with pytest.raises(BadInput, match="size 'tiny' is unknown"):
        verdict([gain], run, FIVE_SEEDS, size="tiny")
    silent = {**run, "base-think": [replace(one, tokens=0) for one in run["base-think"]]}
    with pytest.raises(BadInput, match=r"claim 'c1', length_ratio on split 'id': .* at least one token"):
        verdict([claim("length_ratio", "at_most", 1.0)], silent)
