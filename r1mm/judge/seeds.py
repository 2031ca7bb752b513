"""The verdict over several seeds of one variant: every run of it, on the same items, and its claims judged over all."""

from collections.abc import Mapping, Sequence

from r1mm.errors import BadInput
from r1mm.expected import Expected, Metric, PublishedRow, ReferenceRow
from r1mm.judge.claims import (
    PARTS,
    ClaimResult,
    Readings,
    evidence,
    judge_claim,
    part_evidence,
    part_values,
    parts_known,
    unit,
    unit_factor,
    values_of,
)
from r1mm.judge.crossed import hierarchical_bootstrap
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
    score,
)
from r1mm.judge.statistics import TEST_LEVEL, Interval
from r1mm.judge.verdict import Outcome, claims_of, in_headline, overall, reasons
from r1mm.recipe import Condition
from r1mm.sourced import Strict

ESTIMATED: tuple[Metric, ...] = ("accuracy", "gain", "trained_minus_direct", "format")


class Estimate(Strict):
    """A metric over all seeds: mean, 90 % interval, each seed's value, and the standard errors that make it up.

    `interval` holds seeds and items (`crossed`); with one seed, items only; all that is possible for a part of a gain
    that is not `known` (`form.known`).  `bootstrap` is the percentile interval of
    the hierarchical bootstrap, a cross-check that is too narrow with few seeds.
    """

    value: float
    unit: str
    interval: Interval
    interval_level: float
    by_seed: list[float]
    seed_error: float | None
    item_error: float | None
    bootstrap: Interval
    known: bool = True


class SeedsVerdict(Strict):
    """The verdict on a variant: all its seeds.  Scores, comparisons and recorded ones hold one entry for each seed.

    `missing` says what the seeds at hand cannot tell.
    """

    recipe: str
    size: str
    variant: str
    seeds: list[int]
    comparable: bool
    why_not: list[str]
    outcome: Outcome
    headline: str
    missing: list[str]
    scores: dict[str, dict[Condition, list[Score]]]
    comparisons: dict[str, dict[ComparisonName, list[Comparison]]]
    recorded: dict[str, dict[str, list[RecordedComparison]]]
    estimates: dict[str, dict[Metric, Estimate]]
    claims: list[ClaimResult]
    reference_rows: list[ReferenceRow]
    published_rows: list[PublishedRow]


def _aligned(runs: Mapping[int, Mapping[str, Outputs]]) -> dict[str, list[Outputs]]:
    """By split, each seed's outputs in the order of the first seed's items.  BadInput where seeds differ in items."""
    first_seed, *others = runs
    aligned: dict[str, list[Outputs]] = {name: [align(name, split)] for name, split in runs[first_seed].items()}
    for seed in others:
        if set(runs[seed]) != set(aligned):
            raise BadInput(
                f"seed {seed} has the splits {', '.join(runs[seed]) or 'none'}, seed {first_seed} has "
                f"{', '.join(aligned)}; evaluate every seed on the same"
            )
        for name, split in runs[seed].items():
            found = align(name, split)
            of_first = aligned[name][0]["trained-think"]
            by_item = {output.item: k for k, output in enumerate(found["trained-think"])}
            if set(by_item) != {output.item for output in of_first}:
                raise BadInput(
                    f"split {name!r} has {len(by_item)} items with seed {seed} and {len(of_first)} with seed "
                    f"{first_seed}, and not the same ones; evaluate every seed on the same items"
                )
            order = [by_item[output.item] for output in of_first]
            for here, there in zip(of_first, order, strict=True):
                if found["trained-think"][there].truth != here.truth:
                    raise BadInput(
                        f"split {name!r}: item {here.item!r} has the truth {here.truth} with seed {first_seed} and "
                        f"{found['trained-think'][there].truth} with seed {seed}; evaluate every seed on the same data"
                    )
            aligned[name].append({condition: [side[k] for k in order] for condition, side in found.items()})
    return aligned


def _estimate(metric: Metric, split: str, runs: Sequence[Outputs], readings: Sequence[Readings]) -> Estimate:
    factor = unit_factor(metric)
    if metric in PARTS:
        given, tables = part_evidence(metric, split, runs, readings), [part_values(metric, split, r) for r in readings]
    else:
        given, tables = evidence(metric, runs), [values_of(metric, run) for run in runs]
    return Estimate(
        value=given.found.value,
        unit=unit(metric),
        interval=given.found.interval,
        interval_level=TEST_LEVEL,
        by_seed=[factor * sum(values) / len(values) for values in tables],
        seed_error=given.seed_error if len(runs) > 1 else None,
        item_error=given.item_error if len(runs) > 1 else given.found.variance**0.5,
        bootstrap=hierarchical_bootstrap(tables, TEST_LEVEL).scaled(factor),
        known=metric not in PARTS or all(parts_known(split, one) for one in readings),
    )


def _missing(seeds: Sequence[int]) -> list[str]:
    if len(seeds) == 1:
        return [
            f"one seed only (seed {seeds[0]}): nothing here says how far another seed would lie, and its intervals "
            "hold the items alone; run two seeds more, so that the spread among three is known"
        ]
    if len(seeds) == 2:
        return ["two seeds only: their spread is known with one degree of freedom (t = 6.3); run a third"]
    return []


def judge_seeds(
    expected: Expected,
    *,
    recipe: str,
    size: str,
    variant: str,
    runs: Mapping[int, Mapping[str, Outputs]],
    recorded: Mapping[str, Outputs] | None = None,
    readings: Mapping[int, Mapping[str, Readings]] | None = None,
    comparable: bool = True,
    why_not: Sequence[str] = (),
) -> SeedsVerdict:
    """The verdict on all seeds of a variant: `runs` by seed, then as `outputs` of `judge`.

    A claim about the trained model is judged on the mean over seeds, whose interval holds seeds and items; with one
    seed it is judged as `judge` does, and `missing` says what that leaves open.  `readings` by seed, then as
    `recorded`, `comparable`, `why_not` in `judge`; without them no part of a gain is estimated.  Raises BadInput as
    `judge`, for no runs, and for seeds that differ in splits or items.
    """
    if not runs:
        raise BadInput(f"variant {variant} has no runs (0 seeds); give one at least")
    seeds = sorted(runs)
    ordered = {seed: runs[seed] for seed in seeds}
    claims, rows = claims_of(expected, recipe=recipe, size=size, variant=variant, splits=list(ordered[seeds[0]]))
    refused = reasons(comparable, why_not)
    recorded = recorded or {}
    aligned = _aligned(ordered)
    read = {name: [readings[seed][name] for seed in seeds] for name in aligned} if readings else {}
    results = [
        judge_claim(claim, aligned[claim.split], rows, recorded.get(claim.split), refused, read.get(claim.split, []))
        for claim in claims
    ]
    outcome = overall(results)
    listed = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    records = {
        name: [compare_recorded(name, run, recorded[name]) for run in split]
        for name, split in aligned.items()
        if name in recorded
    }
    return SeedsVerdict(
        recipe=recipe,
        size=size,
        variant=variant,
        seeds=seeds,
        comparable=comparable,
        why_not=refused,
        outcome=outcome,
        headline=in_headline(f"{recipe}, variant {variant}, {listed}", size, outcome, results, refused),
        missing=_missing(seeds),
        scores={
            name: {condition: [score(run[condition]) for run in split] for condition in split[0]}
            for name, split in aligned.items()
        },
        comparisons={
            name: {label: [compare(run, against) for run in split] for label, against in COMPARISONS.items()}
            for name, split in aligned.items()
        },
        recorded={
            name: {label: [one[label] for one in found] for label in found[0]} for name, found in records.items()
        },
        estimates={
            name: {
                metric: _estimate(metric, name, split, read.get(name, []))
                for metric in (*ESTIMATED, *(PARTS if name in read else ()))
            }
            for name, split in aligned.items()
        },
        claims=results,
        reference_rows=rows,
        published_rows=expected.published_rows,
    )
