"""One claim against what was found, in a single run or over several seeds: the metric, the test, the words."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np

from r1mm.errors import BadInput
from r1mm.expected import BASE_METRICS, By, Claim, Measured, Metric, ReferenceRow
from r1mm.judge.crossed import over_seeds
from r1mm.judge.form import ReadOutput, known, marks, paired_readings, parts_by_item
from r1mm.judge.outputs import Outputs, ScoredOutput, pair_recorded, right
from r1mm.judge.statistics import (
    TEST_LEVEL,
    Difference,
    Interval,
    Measurement,
    difference_from_reference,
    gain,
    mean_interval,
    mean_over_items,
    place,
    ratio_of_means,
    share,
    shown_sign,
)
from r1mm.recipe import Condition
from r1mm.sourced import Strict

ClaimOutcome = Literal["reproduced", "partly", "not reproduced", "inconclusive", "not comparable"]
SHARES: tuple[Metric, ...] = ("accuracy", "format", "direct", "base_accuracy", "base_direct")
GAINS: tuple[Metric, ...] = ("gain", "trained_minus_direct")
PARTS: tuple[Metric, ...] = ("parsing", "answering")  # of the gain
Readings = Mapping[Condition, Sequence[ReadOutput]]
# A recorded score is the reference of a claim when both round to the same two decimals, or the claim cuts them off.
_SAME_SCORE = 0.01


class ClaimResult(Strict):
    """One claim, judged.  `interval` (90 %) is of the value, or of the value minus the reference for `near`.

    `standard_errors`, for `near`, keeps the three uncertainties apart, in `unit`: items, seeds, reference.
    `n_reference_rows` counts the rows that entered the test, `seeds` the runs (0 for the base model, which has none).
    `paired`: the difference was taken item by item from recorded outputs.
    """

    id: str
    statement: str
    metric: Metric
    split: str
    test: Literal["near", "at_least", "at_most"]
    by: By
    gate: bool
    counted: bool
    value: float
    unit: str
    interval: Interval
    interval_level: float
    interval_of: Literal["value", "difference"]
    standard_errors: dict[Literal["items", "seeds", "reference"], float] | None
    reference: float
    margin: float
    n_reference_rows: int
    seeds: int
    paired: bool
    outcome: ClaimOutcome
    words: str


class Evidence(NamedTuple):
    """What one metric is judged on, in the claim's unit.  `direction`: +1 or -1 when a gain or a loss is shown, else 0.

    `base` is the 90 % interval of the base model's accuracy; `seed_error` and `item_error` are of several seeds.
    """

    found: Measurement
    n: int
    seeds: int
    direction: int
    base: Interval
    seed_error: float
    item_error: float


def _count(metric: Metric, measured: Measured) -> int:
    return {"format": measured.format, "direct": measured.direct}.get(metric, measured.right)


def _subject(metric: Metric) -> Condition:
    """The condition whose share or minuend a metric is."""
    return {"base_accuracy": "base-think", "base_direct": "base-direct"}.get(metric, "trained-think")  # type: ignore[return-value]


def _other(metric: Metric) -> Condition:
    return "base-direct" if metric == "trained_minus_direct" else "base-think"


def _marks(metric: Metric, outputs: Sequence[ScoredOutput]) -> list[bool]:
    if metric == "format":
        return [output.format for output in outputs]
    return [output.direct for output in outputs] if metric == "direct" else right(outputs)


def values_of(metric: Metric, outputs: Outputs) -> list[float]:
    """A metric item by item, so that its mean is the metric: 0 or 1, a difference of two such, or a ratio's parts.

    For the length ratio, value plus residual over the mean below (linearised), whose mean is the ratio.
    """
    subject = outputs[_subject(metric)]
    if metric in SHARES:
        return [float(mark) for mark in _marks(metric, subject)]
    other = outputs[_other(metric)]
    if metric in GAINS:
        return [float(a) - float(b) for a, b in zip(right(subject), right(other), strict=True)]
    above, below = (np.array([float(output.tokens) for output in side]) for side in (subject, other))
    if below.mean() <= 0:
        raise BadInput(f"the mean length to divide by is {below.mean():g}; give outputs with at least one token")
    ratio = above.mean() / below.mean()
    return [float(value) for value in ratio + (above - ratio * below) / below.mean()]


def unit_factor(metric: Metric) -> float:
    """What turns a mean of `values_of` into the claim's unit."""
    return 1.0 if metric == "length_ratio" else 100.0


def measurement(metric: Metric, outputs: Outputs) -> Measurement:
    """A metric of one run in the claim's unit.  Raises BadInput for lengths that give no ratio."""
    subject, other = outputs[_subject(metric)], outputs[_other(metric)]
    if metric in GAINS:
        return gain(right(subject), right(other)).scaled(100)
    if metric == "length_ratio":
        return ratio_of_means([output.tokens for output in subject], [output.tokens for output in other])
    return share(sum(_marks(metric, subject)), len(subject)).scaled(100)


def part_values(metric: Metric, split: str, readings: Readings) -> list[float]:
    """A part of the gain item by item, so that its mean is the part, in the order of the items' names."""
    values: list[float] = parts_by_item(*map(marks, paired_readings(split, readings)))[PARTS.index(metric)].tolist()
    return values


def parts_known(split: str, readings: Readings) -> bool:
    """Whether enough of a run can be read to tell the parts of its gain apart."""
    return known(*map(marks, paired_readings(split, readings)))


def part_evidence(metric: Metric, split: str, runs: Sequence[Outputs], readings: Sequence[Readings]) -> Evidence:
    """As `evidence`, of a part of the gain, from the readings of every run.

    Where too little of a run can be read to know (`form.known`), the interval is all that is possible.
    """
    if len(readings) < len(runs):
        raise BadInput(f"there are readings of {len(readings)} of {len(runs)} runs; read the outputs of each")
    tables = [part_values(metric, split, one) for one in readings]
    found, seeds, items = mean_over_items(tables[0]), 0.0, 0.0
    if len(runs) > 1:
        found, seeds, items = over_seeds(tables, shares=False)
    if not all(parts_known(split, one) for one in readings):
        found = found._replace(interval=Interval(low=-1.0, high=1.0))
    given = evidence("gain", runs)
    return given._replace(found=found.scaled(100), seed_error=100 * seeds, item_error=100 * items)


def evidence(metric: Metric, runs: Sequence[Outputs]) -> Evidence:
    """What the runs of one variant, one seed each on the same items in one order, say of a metric.

    One run is judged by exact intervals over its items.  Several are crossed with the items (`crossed`); a metric of
    the base model, which no seed trains, is taken from the first.  Raises BadInput as `measurement`.
    """
    first = runs[0]
    n = len(first["trained-think"])
    base = share(sum(right(first["base-think"])), n).interval.scaled(100)
    if metric in BASE_METRICS:
        return Evidence(measurement(metric, first), n, 0, 0, base, 0.0, 0.0)
    if len(runs) == 1:
        direction = shown_sign(measurement("gain", first).interval)
        return Evidence(measurement(metric, first), n, 1, direction, base, 0.0, 0.0)
    gained, _, _ = over_seeds([values_of("gain", run) for run in runs], shares=False)
    found, seeds, items = over_seeds([values_of(metric, run) for run in runs], shares=metric in SHARES)
    factor = unit_factor(metric)
    return Evidence(
        found.scaled(factor), n, len(runs), shown_sign(gained.interval), base, factor * seeds, factor * items
    )


def row_value(metric: Metric, row: ReferenceRow, split: str) -> tuple[float, int] | None:
    """A row's metric and its number of items; None when the row did not measure it, as none did the parts of a gain."""
    if metric in PARTS:
        return None
    conditions = row.results.get(split, {})
    subject, other = conditions.get(_subject(metric)), conditions.get(_other(metric))
    if subject is None:
        return None
    if metric in SHARES:
        return 100 * _count(metric, subject) / subject.n, subject.n
    if other is None or (metric == "length_ratio" and other.mean_tokens == 0):
        return None
    if metric == "length_ratio":
        return subject.mean_tokens / other.mean_tokens, subject.n
    return 100 * (subject.right / subject.n - other.right / other.n), subject.n


def _reference_direction(claim: Claim, base: Interval, rows: Sequence[float]) -> int:
    """The direction of the reference: its own gain, or its accuracy against this run's base model."""
    known = claim.reference
    if claim.metric == "gain":
        return shown_sign(mean_interval(rows) if known is None else Interval(low=known, high=known))
    reference = fmean(rows) if known is None else known
    return (reference > base.high) - (reference < base.low)


def unit(metric: Metric) -> str:
    """The unit of a metric, in words."""
    return "percent" if metric in SHARES else "points" if metric in (*GAINS, *PARTS) else "times"


def _digits(metric: Metric, *values: float) -> str:
    return " to ".join(f"{value:.{2 if metric == 'length_ratio' else 1}f}" for value in values)


_NAMES: dict[Metric, str] = {
    "direct": "direct answers",
    "length_ratio": "length ratio",
    "base_accuracy": "base accuracy",
    "base_direct": "base accuracy with direct answers",
    "trained_minus_direct": "trained minus the base model's direct answers",
    "parsing": "gain by parsing",
    "answering": "gain by answering",
}


def quantity(metric: Metric, value: float) -> str:
    """A metric's name, value and unit."""
    return f"{_NAMES.get(metric, metric)} {_digits(metric, value)} {unit(metric)}"


def _difference(claim: Claim, given: Evidence, rows: Sequence[float], row_items: Sequence[int]) -> Difference:
    """`near`: the value less its reference.  Several seeds have their own spread; one may borrow that of the rows."""
    if given.seeds < 2:
        return difference_from_reference(
            given.found, given.n, reference=claim.reference, rows=rows, row_items=row_items
        )
    value, own, _ = given.found
    low, high, unknown, centre = own.low, own.high, 0.0, claim.reference
    if centre is None:
        if len(rows) < 2:
            raise BadInput(f"no reference value and {len(rows)} reference rows; give a value, or two rows or more")
        centre = fmean(rows)
        half = mean_interval(rows).high - centre
        # The reference's own uncertainty joins both ends, as the two parts of `crossed` join.
        low, high = value - np.hypot(value - low, half), value + np.hypot(high - value, half)
        unknown = float(np.std(rows, ddof=1)) / len(rows) ** 0.5
    return Difference(
        value=value - centre,
        interval=Interval(low=float(low) - centre, high=float(high) - centre),
        items=given.item_error,
        seeds=given.seed_error,
        reference=unknown,
        degrees=given.seeds - 1,
    )


def _scope(given: Evidence) -> str:
    if given.seeds == 0:
        return f"over {given.n} items; the base model has no seed"
    return (
        f"over {given.seeds} seeds and {given.n} items" if given.seeds > 1 else "over the items of this single run only"
    )


def _origin(claim: Claim, given: Evidence, difference: Difference, n_rows: int, paired: bool) -> str:
    if paired:
        return f"from the recorded outputs, {claim.reference:g}, item by item"
    if claim.reference is None:
        seeds = f", {_scope(given)}" if given.seeds > 1 else ""
        return f"from {n_rows} reference seeds{seeds}"
    if difference.degrees is None or given.seeds > 1:
        return f"from {claim.reference:g}, {_scope(given)}"
    return f"from {claim.reference:g}, with the seed spread of {n_rows} reference rows"


def _judge_near(
    claim: Claim, given: Evidence, difference: Difference, rows: Sequence[float], paired: bool
) -> tuple[ClaimOutcome, str]:
    outcome: ClaimOutcome = "not reproduced"
    where = place(difference.interval, -claim.margin, claim.margin)
    if where == "inside":
        outcome, says = "reproduced", f"lies within the margin of {claim.margin:g}"
    elif where == "unclear":
        few = "items or seeds" if given.seeds else "items"
        outcome, says = "inconclusive", f"reaches across the margin of {claim.margin:g}: too few {few} to tell"
        # Of a published number, that it is missed can be shown before it is by how much.
        if claim.by != "us" and shown_sign(difference.interval):
            side = "above" if difference.interval.low > 0 else "below"
            says = f"{says}, but the value is shown to lie {side} {claim.reference:g}"
    else:
        says = f"lies outside the margin of {claim.margin:g}"
        known = claim.metric in ("gain", "accuracy") and given.direction
        if known and given.direction == _reference_direction(claim, given.base, rows):
            outcome, says = "partly", f"{says}, in the same direction"
    interval = _digits(claim.metric, difference.interval.low, difference.interval.high)
    origin = _origin(claim, given, difference, len(rows), paired)
    scope = f"90 % interval of the difference {origin}: {interval}"
    return outcome, f"{quantity(claim.metric, given.found.value)} ({scope}) {says}"


def _judge_side(claim: Claim, given: Evidence) -> tuple[ClaimOutcome, str]:
    assert claim.reference is not None
    up = claim.test == "at_least"
    threshold = claim.reference - claim.margin if up else claim.reference + claim.margin
    limit = f"{threshold:g}"
    if claim.margin:
        limit += f" ({claim.reference:g} {'less' if up else 'plus'} the margin of {claim.margin:g})"
    where = place(given.found.interval, low=threshold) if up else place(given.found.interval, high=threshold)
    outcome: ClaimOutcome = "not reproduced"
    if where == "inside":
        outcome, says = "reproduced", f"is {'at least' if up else 'at most'} {limit}"
    elif where == "unclear":
        few = "items or seeds" if given.seeds > 1 else "items"
        outcome, says = "inconclusive", f"may lie on either side of {limit}: too few {few} to tell"
    else:
        says = f"is {'below' if up else 'above'} {limit}"
        claimed = {("gain", True): 1, ("accuracy", True): 1, ("gain", False): -1}.get((claim.metric, up))
        if claimed is not None and given.direction == claimed:
            outcome, says = "partly", f"{says}, but the gain is shown to be {'above' if up else 'below'} 0"
    interval = _digits(claim.metric, given.found.interval.low, given.found.interval.high)
    scope = _scope(given) + ("; another seed may differ" if given.seeds == 1 else "")
    return outcome, f"{quantity(claim.metric, given.found.value)} (90 % interval {interval}, {scope}) {says}"


def _paired_base(claim: Claim, outputs: Outputs, recorded: Outputs | None) -> Measurement | None:
    """The base model's difference from its recorded outputs, when those are what the claim's reference is the score of.

    Greedy outputs of one model agree on most items, so that a difference item by item is far surer than one of two
    shares.  A trained model's claim is not paired: another run is another model.
    """
    theirs = (recorded or {}).get("base-think")
    if claim.metric != "base_accuracy" or claim.test != "near" or theirs is None or claim.reference is None:
        return None
    ours, theirs = pair_recorded(claim.split, outputs["base-think"], theirs)
    if abs(100 * sum(right(theirs)) / len(theirs) - claim.reference) > _SAME_SCORE:
        return None
    return gain(right(ours), right(theirs)).scaled(100)


def judge_claim(
    claim: Claim,
    runs: Sequence[Outputs],
    measured_rows: Sequence[ReferenceRow],
    recorded: Outputs | None = None,
    why_not: Sequence[str] = (),
    readings: Sequence[Readings] = (),
) -> ClaimResult:
    """One claim on the outputs of its split: one `Outputs` for each seed, in one order of items.

    `why_not`: why the runs cannot be compared with what the claim speaks of; it is then computed and not judged.
    `readings`: those of each run, which the parts of a gain are judged on.
    Raises BadInput, naming the claim, where nothing can be computed.
    """
    usable = [value for row in measured_rows if (value := row_value(claim.metric, row, claim.split)) is not None]
    rows, row_items = [value for value, _ in usable], [n for _, n in usable]
    difference: Difference | None = None
    try:
        part = claim.metric in PARTS
        given = part_evidence(claim.metric, claim.split, runs, readings) if part else evidence(claim.metric, runs)
        pair = _paired_base(claim, runs[0], recorded)
        if pair is not None:
            difference = Difference(
                value=pair.value,
                interval=pair.interval,
                items=pair.variance**0.5,
                seeds=0.0,
                reference=0.0,
                degrees=None,
            )
        elif claim.test == "near":
            difference = _difference(claim, given, rows, row_items)
        if difference is not None:
            outcome, words = _judge_near(claim, given, difference, rows, pair is not None)
        else:
            outcome, words = _judge_side(claim, given)
    except BadInput as error:
        raise BadInput(f"claim {claim.id!r}, {claim.metric} on split {claim.split!r}: {error}") from error
    if why_not:
        outcome = "not comparable"
        words = f"{quantity(claim.metric, given.found.value)}; not compared with what was published"
    used_rows = (
        0 if difference is None or pair is not None or (given.seeds > 1 and claim.reference is not None) else len(rows)
    )
    return ClaimResult(
        **claim.model_dump(include={"id", "statement", "metric", "split", "test", "margin", "by", "gate", "counted"}),
        value=given.found.value,
        unit=unit(claim.metric),
        interval=difference.interval if difference else given.found.interval,
        interval_level=TEST_LEVEL,
        interval_of="difference" if difference else "value",
        standard_errors=difference.standard_errors() if difference else None,
        reference=fmean(rows) if claim.reference is None else claim.reference,
        n_reference_rows=len(rows) if used_rows else 0,
        seeds=given.seeds,
        paired=pair is not None,
        outcome=outcome,
        words=words,
    )
