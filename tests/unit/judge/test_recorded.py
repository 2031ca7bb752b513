"""Comparisons with recorded outputs, runs that cannot be compared, and what third parties say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1mm.errors import BadInput
from r1mm.evaluate.recorded import read_recorded
from r1mm.expected import Claim, Expected, PublishedRow
from r1mm.judge.verdict import Verdict, judge
from tests.outputs import SOURCE, claim, first, outputs, scored


def judged(claims: list[Claim], run: Any, **changes: Any) -> Verdict:
    whole: dict[str, Any] = {
        "recipe": "r", "size": "full", "variant": "v", "seed": 1, "base_seed": None, "outputs": {"set": run},
    }  # fmt: skip
    return judge(Expected(recipe="r", claims=claims, reference_rows=[]), **(whole | changes))


def test_each_condition_is_paired_with_its_record() -> None:
    recorded = {"set": {"base-think": scored(first(96)), "trained-think": scored(first(165))[::-1]}}
    found = judged([], outputs(90, 150, direct=172, skip=10), recorded=recorded).recorded["set"]
    base = found["base-think minus recorded base-think"]
    assert (base.ours_right, base.theirs_right, base.only_ours_right, base.only_theirs_right) == (90, 96, 0, 6)
    assert (base.points, base.same_answer, base.n) == (-3.0, 194, 200)
    assert base.p == pytest.approx(2 / 2**6)
    trained = found["trained-think minus recorded trained-think"]
    assert (trained.only_ours_right, trained.only_theirs_right, trained.points) == (0, 15, pytest.approx(-7.5))
    assert trained.interval.low < trained.points < trained.interval.high < 0
    assert trained.bootstrap.low == pytest.approx(trained.interval.low, abs=1.5)
    direct = found["base-direct minus recorded trained-think"]
    assert (direct.ours, direct.theirs, direct.points) == ("base-direct", "trained-think", pytest.approx(3.5))
    assert direct.p == pytest.approx(2 / 2**7)


def test_fewer_items_than_recorded_are_paired_and_other_items_refused() -> None:
    recorded = {"set": {"base-think": scored(first(96))}}
    found = judged([], outputs(20, 30, n=50, direct=40), recorded=recorded).recorded["set"]
    assert list(found) == ["base-think minus recorded base-think"]
    assert (found["base-think minus recorded base-think"].n, found["base-think minus recorded base-think"].points) == (
        50,
        -60.0,
    )
    with pytest.raises(BadInput, match="item 'i100' is not among the 100 recorded items, such as 'i0'"):
        judged([], outputs(96, 150), recorded={"set": {"base-think": scored(first(48, 100))}})
    other = [replace(one, truth=5) for one in scored(first(96))]
    with pytest.raises(BadInput, match="has the truth 2 here and 5 in the recorded outputs"):
        judged([], outputs(96, 150), recorded={"set": {"base-think": other}})


def test_a_base_claim_is_judged_item_by_item_where_its_score_was_recorded() -> None:
    stated = [claim("base_accuracy", "near", 48.0, 8.0)]
    recorded = {"set": {"base-think": scored(first(96))}}
    alone = judged(stated, outputs(90, 150)).claims[0]
    paired = judged(stated, outputs(90, 150), recorded=recorded).claims[0]
    assert (alone.paired, paired.paired) == (False, True)
    assert (alone.outcome, paired.outcome) == ("inconclusive", "reproduced")
    assert "from the recorded outputs, 48, item by item" in paired.words
    # A record with another score than the claim's is not what the claim speaks of.
    assert not judged(stated, outputs(90, 150), recorded={"set": {"base-think": scored(first(80))}}).claims[0].paired


def test_runs_that_cannot_be_compared_are_computed_and_not_judged() -> None:
    claims = [claim("gain", "near", 34.5, 12.0), claim("accuracy", "near", 82.5, 8.0, by="authors")]
    found = judged(claims, outputs(96, 165), comparable=False, why_not=["this run's model is not the published one"])
    assert (found.comparable, found.outcome) == (False, "not judged")
    assert [result.outcome for result in found.claims] == ["not comparable", "not comparable"]
    assert found.claims[0].words == "gain 34.5 points; not compared with what was published"
    assert found.headline == (
        "r, variant v, seed 1: not judged, because it cannot be compared with what was published: "
        "this run's model is not the published one."
    )
    assert found.scores["set"]["trained-think"].right == 165
    assert found.comparisons["set"]["gain"].points == 34.5
    assert judged(claims, outputs(96, 165), comparable=False).why_not
    with pytest.raises(BadInput, match="a comparable run has reasons why it is not"):
        judged(claims, outputs(96, 165), why_not=["x"])


def test_what_third_parties_say_does_not_count() -> None:
    ours = claim("accuracy", "near", 82.5, 8.0, by="authors", id="published")
    theirs = claim("accuracy", "near", 60.0, 8.0, by="third party", id="refuted")
    found = judged([ours, theirs], outputs(96, 165))
    assert [result.outcome for result in found.claims] == ["reproduced", "partly"]
    assert found.outcome == "reproduced"
    assert "(1 claim: 1 reproduced)" in found.headline
    assert judged([theirs], outputs(96, 165)).outcome == "not judged"


def test_published_rows_are_kept_and_stand_with_ours_in_one_table() -> None:
    row = PublishedRow(
        who="them", by="authors", condition="trained-think", split="set", right=165, n=200, source=SOURCE
    )
    note = PublishedRow(
        who="a user", by="third party", condition="other model", model="72B", split="set", accuracy=78, source=SOURCE
    )
    expected = Expected(recipe="r", claims=[], reference_rows=[], published_rows=[note, row])
    found = judge(
        expected, recipe="r", size="full", variant="v", seed=1, base_seed=None, outputs={"set": outputs(96, 165)}
    )
    assert Verdict.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found
    assert [(line.who, line.condition, line.accuracy, line.n) for line in expected.lines("set")] == [
        ("them", "trained-think", 82.5, 200),
        ("a user", "other model (72B)", 78.0, None),
    ]
    with pytest.raises(ValueError, match="give exactly one of the two"):
        PublishedRow(who="x", by="authors", condition="base-think", split="set", source=SOURCE)
    with pytest.raises(ValueError, match="give n >= right"):
        PublishedRow(who="x", by="authors", condition="base-think", split="set", right=5, n=4, source=SOURCE)


def test_upstreams_own_files_can_be_paired(tmp_path: Path) -> None:
    """The layout of upstream's logs: outputs whose thoughts run over several lines, items named by their image."""
    results = [
        {
            "question": {"image_path": f"/x/superCLEVR_new_02500{k}.png", "question": "How many?", "ground_truth": k},
            "ground_truth": k,
            "model_output": f"<think>\n one by one\n</think>\n<answer>\n {k if k < 4 else 9}\n</answer>",
            "extracted_answer": k,
        }
        for k in range(6)
    ]
    log = tmp_path / "log.json"
    log.write_text(json.dumps({"accuracy": 66.7, "results": results}))
    recorded = read_recorded(log, "counting").outputs
    ours: Any = dict.fromkeys(("base-think", "base-direct", "trained-think"), recorded)
    found = judged([], ours, recorded={"set": {"base-think": recorded}}).recorded["set"]
    assert (found["base-think minus recorded base-think"].theirs_right, recorded[0].item) == (
        4,
        "superCLEVR_new_025000",
    )
