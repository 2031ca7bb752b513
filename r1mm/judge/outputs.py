"""What the verdict reads of evaluated outputs: counts, scores, and paired comparisons, ours and with recorded ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from r1mm.errors import BadInput
from r1mm.expected import Measured
from r1mm.judge.crossed import paired_bootstrap
from r1mm.judge.statistics import Interval, discordant, mcnemar, paired_difference, wilson
from r1mm.recipe import CONDITIONS, Condition
from r1mm.sourced import Strict

DISPLAY_LEVEL = 0.95
ComparisonName = Literal["gain", "trained minus base-direct"]
COMPARISONS: dict[ComparisonName, Condition] = {"gain": "base-think", "trained minus base-direct": "base-direct"}


class ScoredOutput(Protocol):
    """What the verdict reads of one evaluated output."""

    @property
    def item(self) -> str:
        """The item's id."""

    @property
    def tokens(self) -> int:
        """Length of the completion in tokens."""

    @property
    def truth(self) -> object:
        """The right answer: a number, or a mathematical expression."""

    @property
    def parsed(self) -> object:
        """The answer, None when there is none to be found."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the right one."""

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
    """Trained-think minus another condition on the same items: points, 95 % interval, and McNemar's exact p.

    `interval` is Tango's; `bootstrap`, over resampled items, is its cross-check.
    """

    against: Condition
    points: float
    interval: Interval
    bootstrap: Interval
    p: float
    only_trained_right: int
    only_other_right: int


Outputs = Mapping[Condition, Sequence[ScoredOutput]]


def in_short(reasons: Sequence[str]) -> str:
    """The first of several reasons, and how many more there are; all of them stand in the verdict and on the page."""
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 2 else "; ".join(["", *reasons[1:]])
    return f"{reasons[0]}{more}"


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


def align(split: str, given: Outputs) -> dict[Condition, list[ScoredOutput]]:
    """The outputs of every condition in one order of items, for pairing.  BadInput where items differ."""
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


def right(outputs: Sequence[ScoredOutput]) -> list[bool]:
    """Which items are right, in order."""
    return [output.correct for output in outputs]


def score(outputs: Sequence[ScoredOutput]) -> Score:
    """Counts, accuracy in percent and its interval.  Raises BadInput as `measure`."""
    measured = measure(outputs)
    interval = wilson(measured.right, measured.n).scaled(100)
    return Score(**measured.model_dump(), accuracy=100 * measured.right / measured.n, interval=interval)


def compare(outputs: Outputs, against: Condition) -> Comparison:
    """Trained-think against another condition of the same split, whose outputs are in one order of items."""
    trained, other = right(outputs["trained-think"]), right(outputs[against])
    difference, interval = paired_difference(trained, other, DISPLAY_LEVEL)
    only_trained, only_other = discordant(trained, other)
    return Comparison(
        against=against,
        points=100 * difference,
        interval=interval.scaled(100),
        bootstrap=paired_bootstrap(trained, other, DISPLAY_LEVEL).scaled(100),
        p=mcnemar(trained, other),
        only_trained_right=only_trained,
        only_other_right=only_other,
    )


class RecordedComparison(Strict):
    """Our outputs minus recorded ones on the same items: points, 95 % intervals as in `Comparison`, McNemar's exact p.

    `same_answer` counts the items on which both give the same answer, right or wrong, or none.
    """

    ours: Condition
    theirs: Condition
    n: int
    ours_right: int
    theirs_right: int
    same_answer: int
    points: float
    interval: Interval
    bootstrap: Interval
    p: float
    only_ours_right: int
    only_theirs_right: int


def pair_recorded(
    split: str, ours: Sequence[ScoredOutput], theirs: Sequence[ScoredOutput]
) -> tuple[list[ScoredOutput], list[ScoredOutput]]:
    """Our outputs and the recorded ones of the same items, in our order; recorded items that we lack are left out.

    Raises BadInput for no outputs, an item twice, an item that was not recorded, or one with another truth.
    """
    for whose, outputs in (("our", ours), ("recorded", theirs)):
        try:
            measure(outputs)
        except BadInput as error:
            raise BadInput(f"split {split!r}, {whose} outputs: {error}") from error
    by_item = {output.item: output for output in theirs}
    for output in ours:
        if output.item not in by_item:
            raise BadInput(
                f"split {split!r}: item {output.item!r} is not among the {len(by_item)} recorded items, such as "
                f"{theirs[0].item!r}; compare with the recorded outputs of the same items, or with none"
            )
        if by_item[output.item].truth != output.truth:
            raise BadInput(
                f"split {split!r}: item {output.item!r} has the truth {output.truth} here and "
                f"{by_item[output.item].truth} in the recorded outputs; the two are not of the same items"
            )
    return list(ours), [by_item[output.item] for output in ours]


def _compare_pair(
    split: str, ours: Condition, theirs: Condition, given: Outputs, recorded: Outputs
) -> RecordedComparison:
    mine, other = pair_recorded(split, given[ours], recorded[theirs])
    first, second = right(mine), right(other)
    difference, interval = paired_difference(first, second, DISPLAY_LEVEL)
    only_ours, only_theirs = discordant(first, second)
    return RecordedComparison(
        ours=ours,
        theirs=theirs,
        n=len(mine),
        ours_right=sum(first),
        theirs_right=sum(second),
        same_answer=sum(a.parsed == b.parsed for a, b in zip(mine, other, strict=True)),
        points=100 * difference,
        interval=interval.scaled(100),
        bootstrap=paired_bootstrap(first, second, DISPLAY_LEVEL).scaled(100),
        p=mcnemar(first, second),
        only_ours_right=only_ours,
        only_theirs_right=only_theirs,
    )


def compare_recorded(split: str, given: Outputs, recorded: Outputs) -> dict[str, RecordedComparison]:
    """Our outputs of one split against recorded ones, by name: each condition against its own record, and our base
    model's direct answers against the recorded trained model.

    The prompts must be the same for the former to mean anything: give only what was recorded under the prompt in use.
    Raises BadInput as `pair_recorded`.
    """
    pairs: list[tuple[Condition, Condition]] = [(name, name) for name in CONDITIONS if name in recorded]
    if "trained-think" in recorded:
        pairs.append(("base-direct", "trained-think"))
    return {
        f"{ours} minus recorded {theirs}": _compare_pair(split, ours, theirs, given, recorded)
        for ours, theirs in pairs
        if ours in given
    }
