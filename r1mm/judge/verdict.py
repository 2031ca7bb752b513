"""The verdict: what a run measured, and whether each claim of its variant reproduces.

Pure functions of what they are given; nothing here reads or writes a file.  A claim's "reproduced" is wrong in at most
5 % of runs whose true value lies at the edge of the claim (benchmarks/verdict_rates.py measures it).  A verdict is
"reproduced" only when every claim is, so it keeps that 5 % with any number of claims; its "not reproduced" needs one
claim of k to fail and is wrong in at most 5 k %.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected, PublishedRow, ReferenceRow
from r1mm.judge.claims import ClaimOutcome, ClaimResult, judge_claim
from r1mm.judge.form import FormEffect, ReadOutput, form_effect
from r1mm.judge.outputs import (
    COMPARISONS,
    Comparison,
    ComparisonName,
    Outputs,
    RecordedComparison,
    Score,
    align,
    compare,
    compare_recorded,
    in_short,
    score,
)
from r1mm.recipe import Condition
from r1mm.sourced import Strict

Outcome = Literal["reproduced", "partly", "not reproduced", "inconclusive", "not judged"]

# A verdict is as bad as its worst claim.
WORST_FIRST: tuple[ClaimOutcome, ...] = ("not reproduced", "partly", "inconclusive", "reproduced")
EXIT_STATUS: dict[str, int] = {"reproduced": 0, "not judged": 0, "partly": 3, "not reproduced": 3, "inconclusive": 4}


class Verdict(Strict):
    """The content of verdict.json.

    `comparable`: whether the run used what the claims speak of; where it did not, `why_not` says in what, its claims
    are "not comparable" and nothing is judged.  `recorded`: our outputs against upstream's own, by split and name.
    """

    recipe: str
    size: str
    variant: str
    seed: int
    base_seed: int | None
    comparable: bool
    why_not: list[str]
    outcome: Outcome
    headline: str
    scores: dict[str, dict[Condition, Score]]
    comparisons: dict[str, dict[ComparisonName, Comparison]]
    recorded: dict[str, dict[str, RecordedComparison]]
    form: dict[str, FormEffect] = Field(default={})
    claims: list[ClaimResult]
    reference_rows: list[ReferenceRow]
    published_rows: list[PublishedRow]


def overall(results: Sequence[ClaimResult]) -> Outcome:
    """The outcome of a run: that of its worst claim that is counted and comparable."""
    found = [result.outcome for result in _counted(results) if result.outcome != "not comparable"]
    return min(found, key=WORST_FIRST.index, default="not judged")


def _counted(results: Sequence[ClaimResult]) -> list[ClaimResult]:
    return [result for result in results if result.counted and result.by != "third party"]


def in_headline(
    subject: str, size: str, outcome: Outcome, results: Sequence[ClaimResult], why_not: Sequence[str]
) -> str:
    """The outcome in one sentence: of what, how many claims, and what it does not say."""
    subject = f"{'Miniature ' if size == 'miniature' else ''}{subject}"
    counted = _counted(results)
    if why_not:
        text = f"{subject}: not judged, because it cannot be compared with what was published: {in_short(why_not)}"
    elif outcome == "not judged":
        text = f"{subject}: not judged, because no claim is made for this variant"
    else:
        count = Counter(result.outcome for result in counted)
        parts = ", ".join(f"{count[name]} {name}" for name in reversed(WORST_FIRST) if count[name])
        text = f"{subject}: {outcome} ({len(counted)} {'claim' if len(counted) == 1 else 'claims'}: {parts})"
    # A miniature shows that the mechanism acts; its numbers must not be read as those of the full-size model.
    return text + ("; a miniature says nothing about full-size models." if size == "miniature" else ".")


def claims_of(
    expected: Expected, *, recipe: str, size: str, variant: str, splits: Sequence[str]
) -> tuple[list[Claim], list[ReferenceRow]]:
    """The claims and reference rows of a variant.  Raises BadInput where they are not of this run."""
    if expected.recipe != recipe:
        raise BadInput(f"the claims are those of recipe {expected.recipe!r}, the run is of {recipe!r}; give its own")
    if size not in ("miniature", "full"):
        raise BadInput(f"size {size!r} is unknown; give 'miniature' or 'full'")
    if not splits:
        raise BadInput("the run has no splits (0 given); evaluate at least one")
    claims = [claim for claim in expected.claims if claim.variant == variant]
    lost = next((claim for claim in claims if claim.split not in splits), None)
    if lost is not None:
        raise BadInput(f"claim {lost.id!r} needs split {lost.split!r}, the run has {', '.join(splits)}; evaluate it")
    return claims, [row for row in expected.reference_rows if row.variant == variant]


def reasons(comparable: bool, why_not: Sequence[str]) -> list[str]:
    """Why a run is not comparable, never empty where it is not.  Raises BadInput when the two contradict."""
    if comparable and why_not:
        raise BadInput(f"a comparable run has reasons why it is not: {'; '.join(why_not)}; give one or the other")
    return list(why_not) if comparable or why_not else ["this run's model or data are not the published ones"]


def judge(
    expected: Expected,
    *,
    recipe: str,
    size: str,
    variant: str,
    seed: int,
    base_seed: int | None,
    outputs: Mapping[str, Outputs],
    recorded: Mapping[str, Outputs] | None = None,
    readings: Mapping[str, Mapping[Condition, Sequence[ReadOutput]]] | None = None,
    comparable: bool = True,
    why_not: Sequence[str] = (),
) -> Verdict:
    """The verdict on one run: every score, every comparison, every claim of its variant.

    `outputs` holds, by split and then by condition, one output for each item; all conditions of a split must have the
    same items, in any order.  `recorded` holds upstream's own outputs in the same way, for the splits and conditions
    that were evaluated under upstream's prompt, `readings` the outputs read with and without their form.  Raises
    BadInput for another recipe's claims, an unknown size, a missing split or condition, no outputs, unequal items, or a
    claim that has nothing to be compared with.
    """
    claims, rows = claims_of(expected, recipe=recipe, size=size, variant=variant, splits=list(outputs))
    refused = reasons(comparable, why_not)
    recorded = recorded or {}
    aligned = {name: align(name, split) for name, split in outputs.items()}
    readings = readings or {}
    results = [
        judge_claim(
            claim,
            [aligned[claim.split]],
            rows,
            recorded.get(claim.split),
            refused,
            [readings[claim.split]] if claim.split in readings else [],
        )
        for claim in claims
    ]
    outcome = overall(results)
    return Verdict(
        recipe=recipe,
        size=size,
        variant=variant,
        seed=seed,
        base_seed=base_seed,
        comparable=comparable,
        why_not=refused,
        outcome=outcome,
        headline=in_headline(f"{recipe}, variant {variant}, seed {seed}", size, outcome, results, refused),
        scores={
            name: {condition: score(found) for condition, found in split.items()} for name, split in aligned.items()
        },
        comparisons={
            name: {label: compare(split, against) for label, against in COMPARISONS.items()}
            for name, split in aligned.items()
        },
        recorded={
            name: compare_recorded(name, split, recorded[name]) for name, split in aligned.items() if name in recorded
        },
        form={name: form_effect(name, by_condition) for name, by_condition in readings.items()},
        claims=results,
        reference_rows=rows,
        published_rows=expected.published_rows,
    )
