"""The verdict: what a run measured, and whether each claim of its variant reproduces.

Pure functions of what they are given; nothing here reads or writes a file.  A claim's "reproduced" is wrong in at most
5 % of runs whose true value lies at the edge of the claim (benchmarks/verdict_rates.py measures it).  A verdict is
"reproduced" only when every claim is, so it keeps that 5 % with any number of claims; its "not reproduced" needs one
claim of k to fail and is wrong in at most 5 k %.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, Protocol

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected, Measured, Metric, ReferenceRow
from r1mm.judge.statistics import (
    TEST_LEVEL,
    Difference,
    Interval,
    Measurement,
    difference_from_reference,
    discordant,
    gain,
    mcnemar,
    mean_interval,
    paired_difference,
    place,
    ratio_of_means,
    share,
    shown_sign,
    wilson,
)
from r1mm.recipe import CONDITIONS, Condition, Strict

ClaimOutcome = Literal["reproduced", "partly", "not reproduced", "inconclusive"]
Outcome = Literal["reproduced", "partly", "not reproduced", "inconclusive", "not judged"]

# A verdict is as bad as its worst claim.
WORST_FIRST: tuple[ClaimOutcome, ...] = ("not reproduced", "partly", "inconclusive", "reproduced")
EXIT_STATUS: dict[str, int] = {"reproduced": 0, "not judged": 0, "partly": 3, "not reproduced": 3, "inconclusive": 4}
ComparisonName = Literal["gain", "trained minus base-direct"]
COMPARISONS: dict[ComparisonName, Condition] = {"gain": "base-think", "trained minus base-direct": "base-direct"}
SHARES: tuple[Metric, ...] = ("accuracy", "format", "direct")


class ScoredOutput(Protocol):
    """What the verdict reads of one evaluated output."""

    @property
    def item(self) -> str:
        """The item's id."""

    @property
    def tokens(self) -> int:
        """Length of the completion in tokens."""

    @property
    def truth(self) -> int:
        """The right number."""

    @property
    def parsed(self) -> int | None:
        """The number answered, None when there is none to be found."""

    @property
    def correct(self) -> bool:
        """Whether the number answered is the right one."""

    @property
    def format(self) -> bool:
        """Whether the completion has the full form: thoughts, then an answer."""

    @property
    def direct(self) -> bool:
        """Whether the whole completion is a bare answer."""


class Score(Measured):
    """What one condition gave on one split, with its accuracy and Wilson's 95 % interval in percent."""

    accuracy: float
    interval: Interval


class Comparison(Strict):
    """Trained-think minus another condition on the same items: points, 95 % interval, and McNemar's exact p."""

    against: Condition
    points: float
    interval: Interval
    p: float
    only_trained_right: int
    only_other_right: int


class ClaimResult(Strict):
    """One claim, judged.  `interval` (90 %) is of the value, or of the value minus the reference for `near`.

    `standard_errors`, for `near`, keeps the three uncertainties apart, in `unit`: items, seeds, reference.
    `n_reference_rows` counts the rows that entered the test.
    """

    id: str
    statement: str
    metric: Metric
    split: str
    test: Literal["near", "at_least", "at_most"]
    value: float
    unit: str
    interval: Interval
    interval_level: float
    interval_of: Literal["value", "difference"]
    standard_errors: dict[Literal["items", "seeds", "reference"], float] | None
    reference: float
    margin: float
    n_reference_rows: int
    outcome: ClaimOutcome
    words: str


class Verdict(Strict):
    """The content of verdict.json."""

    recipe: str
    size: str
    variant: str
    seed: int
    base_seed: int | None
    outcome: Outcome
    headline: str
    scores: dict[str, dict[Condition, Score]]
    comparisons: dict[str, dict[ComparisonName, Comparison]]
    claims: list[ClaimResult]
    reference_rows: list[ReferenceRow]


Outputs = Mapping[Condition, Sequence[ScoredOutput]]


def measure(outputs: Sequence[ScoredOutput]) -> Measured:
    """Counts and mean length of one condition's outputs.  Raises BadInput for no outputs or an item twice."""
    if not outputs:
        raise BadInput("there are no outputs to measure (0 records); evaluate at least one item")
    item, times = Counter(output.item for output in outputs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"item {item!r} has {times} outputs; keep one output for each item")
    return Measured(
        n=len(outputs),
        right=sum(output.correct for output in outputs),
        unparsed=sum(output.parsed is None for output in outputs),
        format=sum(output.format for output in outputs),
        direct=sum(output.direct for output in outputs),
        mean_tokens=float(sum(output.tokens for output in outputs)) / len(outputs),
    )


def _align(split: str, given: Outputs) -> dict[Condition, list[ScoredOutput]]:
    """The outputs of every condition in one order of items, so that they can be paired."""
    if set(given) != set(CONDITIONS):
        raise BadInput(f"split {split!r} has the conditions {', '.join(given) or 'none'}; give {', '.join(CONDITIONS)}")
    by_item: dict[Condition, dict[str, ScoredOutput]] = {}
    for condition in CONDITIONS:
        try:
            measure(given[condition])
        except BadInput as error:
            raise BadInput(f"split {split!r}, condition {condition}: {error}") from error
        by_item[condition] = {output.item: output for output in given[condition]}
    first = by_item[CONDITIONS[0]]
    for condition in CONDITIONS[1:]:
        other = by_item[condition]
        lost = next((item for item in [*first, *other] if not (item in first and item in other)), None)
        if lost is not None:
            here, there = (CONDITIONS[0], condition) if lost in first else (condition, CONDITIONS[0])
            raise BadInput(
                f"split {split!r}: item {lost!r} is in {here} ({len(by_item[here])} items) and not in {there} "
                f"({len(by_item[there])} items); evaluate every condition on the same items"
            )
        for item in first:
            if first[item].truth != other[item].truth:
                raise BadInput(
                    f"split {split!r}: item {item!r} has the truth {first[item].truth} in {CONDITIONS[0]} and "
                    f"{other[item].truth} in {condition}; evaluate every condition on the same data"
                )
    return {condition: [found[item] for item in first] for condition, found in by_item.items()}


def _right(outputs: Sequence[ScoredOutput]) -> list[bool]:
    return [output.correct for output in outputs]


def _score(outputs: Sequence[ScoredOutput]) -> Score:
    measured = measure(outputs)
    interval = wilson(measured.right, measured.n).scaled(100)
    return Score(**measured.model_dump(), accuracy=100 * measured.right / measured.n, interval=interval)


def _compare(outputs: Outputs, against: Condition) -> Comparison:
    trained, other = _right(outputs["trained-think"]), _right(outputs[against])
    difference, interval = paired_difference(trained, other)
    only_trained, only_other = discordant(trained, other)
    return Comparison(
        against=against,
        points=100 * difference,
        interval=interval.scaled(100),
        p=mcnemar(trained, other),
        only_trained_right=only_trained,
        only_other_right=only_other,
    )


def _count(metric: Metric, measured: Measured) -> int:
    return {"format": measured.format, "direct": measured.direct}.get(metric, measured.right)


def _measurement(metric: Metric, outputs: Outputs) -> Measurement:
    """A metric of the new run in the claim's unit."""
    trained, base = outputs["trained-think"], outputs["base-think"]
    if metric == "gain":
        return gain(_right(trained), _right(base)).scaled(100)
    if metric == "length_ratio":
        return ratio_of_means([output.tokens for output in trained], [output.tokens for output in base])
    return share(_count(metric, measure(trained)), len(trained)).scaled(100)


def _row_value(metric: Metric, row: ReferenceRow, split: str) -> tuple[float, int] | None:
    """A row's metric and its number of items; None when the row did not measure it."""
    conditions = row.results.get(split, {})
    trained, base = conditions.get("trained-think"), conditions.get("base-think")
    if trained is None:
        return None
    if metric in SHARES:
        return 100 * _count(metric, trained) / trained.n, trained.n
    if base is None or (metric == "length_ratio" and base.mean_tokens == 0):
        return None
    if metric == "length_ratio":
        return trained.mean_tokens / base.mean_tokens, trained.n
    return 100 * (trained.right / trained.n - base.right / base.n), trained.n


def _direction(outputs: Outputs) -> int:
    """+1 when the run is shown to gain over the base model, -1 when it is shown to lose, else 0."""
    return shown_sign(_measurement("gain", outputs).interval)


def _reference_direction(claim: Claim, outputs: Outputs, rows: Sequence[float]) -> int:
    """The same for the reference: its own gain, or its accuracy against this run's base model."""
    known = claim.reference
    if claim.metric == "gain":
        return shown_sign(mean_interval(rows) if known is None else Interval(low=known, high=known))
    base = measure(outputs["base-think"])
    interval = share(base.right, base.n).interval.scaled(100)
    reference = fmean(rows) if known is None else known
    return (reference > interval.high) - (reference < interval.low)


def _unit(metric: Metric) -> str:
    return "percent" if metric in SHARES else {"gain": "points"}.get(metric, "times")


def _digits(metric: Metric, *values: float) -> str:
    return " to ".join(f"{value:.{2 if metric == 'length_ratio' else 1}f}" for value in values)


def _quantity(metric: Metric, value: float) -> str:
    name = {"direct": "direct answers", "length_ratio": "length ratio"}.get(metric, metric)
    return f"{name} {_digits(metric, value)} {_unit(metric)}"


def _judge_near(
    claim: Claim, outputs: Outputs, found: Measurement, rows: Sequence[float], row_items: Sequence[int]
) -> tuple[ClaimOutcome, Difference, str]:
    n = len(outputs["trained-think"])
    difference = difference_from_reference(found, n, reference=claim.reference, rows=rows, row_items=row_items)
    outcome: ClaimOutcome = "not reproduced"
    where = place(difference.interval, -claim.margin, claim.margin)
    if where == "inside":
        outcome, says = "reproduced", f"lies within the margin of {claim.margin:g}"
    elif where == "unclear":
        outcome, says = "inconclusive", f"reaches across the margin of {claim.margin:g}: too few items or seeds to tell"
    else:
        says = f"lies outside the margin of {claim.margin:g}"
        if claim.metric in ("gain", "accuracy"):
            ours = _direction(outputs)
            if ours and ours == _reference_direction(claim, outputs, rows):
                outcome, says = "partly", f"{says}, in the same direction"
    if claim.reference is None:
        origin = f"from {len(rows)} reference seeds"
    elif difference.degrees is None:
        origin = f"from {claim.reference:g}, over the items of this single run only"
    else:
        origin = f"from {claim.reference:g}, with the seed spread of {len(rows)} reference rows"
    interval = _digits(claim.metric, difference.interval.low, difference.interval.high)
    scope = f"90 % interval of the difference {origin}: {interval}"
    return outcome, difference, f"{_quantity(claim.metric, found.value)} ({scope}) {says}"


def _judge_side(claim: Claim, outputs: Outputs, found: Measurement) -> tuple[ClaimOutcome, str]:
    assert claim.reference is not None
    up = claim.test == "at_least"
    threshold = claim.reference - claim.margin if up else claim.reference + claim.margin
    limit = f"{threshold:g}"
    if claim.margin:
        limit += f" ({claim.reference:g} {'less' if up else 'plus'} the margin of {claim.margin:g})"
    where = place(found.interval, low=threshold) if up else place(found.interval, high=threshold)
    outcome: ClaimOutcome = "not reproduced"
    if where == "inside":
        outcome, says = "reproduced", f"is {'at least' if up else 'at most'} {limit}"
    elif where == "unclear":
        outcome, says = "inconclusive", f"may lie on either side of {limit}: too few items to tell"
    else:
        says = f"is {'below' if up else 'above'} {limit}"
        claimed = {("gain", True): 1, ("accuracy", True): 1, ("gain", False): -1}.get((claim.metric, up))
        if claimed is not None and _direction(outputs) == claimed:
            outcome, says = "partly", f"{says}, but the gain is shown to be {'above' if up else 'below'} 0"
    interval = _digits(claim.metric, found.interval.low, found.interval.high)
    scope = f"90 % interval {interval}, over the items of this single run only; another seed may differ"
    return outcome, f"{_quantity(claim.metric, found.value)} ({scope}) {says}"


def _judge_claim(claim: Claim, outputs: Outputs, measured_rows: Sequence[ReferenceRow]) -> ClaimResult:
    usable = [value for row in measured_rows if (value := _row_value(claim.metric, row, claim.split)) is not None]
    rows, row_items = [value for value, _ in usable], [n for _, n in usable]
    difference: Difference | None = None
    try:
        found = _measurement(claim.metric, outputs)
        if claim.test == "near":
            outcome, difference, words = _judge_near(claim, outputs, found, rows, row_items)
        else:
            outcome, words = _judge_side(claim, outputs, found)
    except BadInput as error:
        raise BadInput(f"claim {claim.id!r}, {claim.metric} on split {claim.split!r}: {error}") from error
    return ClaimResult(
        **claim.model_dump(include={"id", "statement", "metric", "split", "test", "margin"}),
        value=found.value,
        unit=_unit(claim.metric),
        interval=difference.interval if difference else found.interval,
        interval_level=TEST_LEVEL,
        interval_of="difference" if difference else "value",
        standard_errors=difference.standard_errors() if difference else None,
        reference=fmean(rows) if claim.reference is None else claim.reference,
        n_reference_rows=len(rows) if difference else 0,
        outcome=outcome,
        words=words,
    )


def _headline(recipe: str, size: str, variant: str, seed: int, outcome: Outcome, results: Sequence[ClaimResult]) -> str:
    subject = f"{'Miniature ' if size == 'miniature' else ''}{recipe}, variant {variant}, seed {seed}"
    if outcome == "not judged":
        text = f"{subject}: not judged, because no claim is made for this variant"
    else:
        count = Counter(result.outcome for result in results)
        parts = ", ".join(f"{count[name]} {name}" for name in reversed(WORST_FIRST) if count[name])
        text = f"{subject}: {outcome} ({len(results)} {'claim' if len(results) == 1 else 'claims'}: {parts})"
    # A miniature shows that the mechanism acts; its numbers must not be read as those of the full-size model.
    return text + ("; a miniature says nothing about full-size models." if size == "miniature" else ".")


def judge(
    expected: Expected,
    *,
    recipe: str,
    size: str,
    variant: str,
    seed: int,
    base_seed: int | None,
    outputs: Mapping[str, Outputs],
) -> Verdict:
    """The verdict on one run: every score, every comparison, every claim of its variant.

    `outputs` holds, by split and then by condition, one output for each item; all conditions of a split must have the
    same items, in any order.  Raises BadInput for another recipe's claims, an unknown size, a missing split or
    condition, no outputs, unequal items, or a claim that has nothing to be compared with.
    """
    if expected.recipe != recipe:
        raise BadInput(f"the claims are those of recipe {expected.recipe!r}, the run is of {recipe!r}; give its own")
    if size not in ("miniature", "full"):
        raise BadInput(f"size {size!r} is unknown; give 'miniature' or 'full'")
    claims = [claim for claim in expected.claims if claim.variant == variant]
    if not outputs:
        raise BadInput("the run has no splits (0 given); evaluate at least one")
    lost = next((claim for claim in claims if claim.split not in outputs), None)
    if lost is not None:
        raise BadInput(f"claim {lost.id!r} needs split {lost.split!r}, the run has {', '.join(outputs)}; evaluate it")
    aligned = {name: _align(name, split) for name, split in outputs.items()}
    rows = [row for row in expected.reference_rows if row.variant == variant]
    results = [_judge_claim(claim, aligned[claim.split], rows) for claim in claims]
    outcome: Outcome = min((result.outcome for result in results), key=WORST_FIRST.index, default="not judged")
    return Verdict(
        recipe=recipe,
        size=size,
        variant=variant,
        seed=seed,
        base_seed=base_seed,
        outcome=outcome,
        headline=_headline(recipe, size, variant, seed, outcome, results),
        scores={
            name: {condition: _score(found) for condition, found in split.items()} for name, split in aligned.items()
        },
        comparisons={
            name: {label: _compare(split, against) for label, against in COMPARISONS.items()}
            for name, split in aligned.items()
        },
        claims=results,
        reference_rows=rows,
    )
