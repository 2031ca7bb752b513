"""How much of a gain is form: how often an answer can be read at all, and how often what can be read is right.

Of each output it is known whether its answer stands in the form that the prompt demands, whether it is right there, and
whether it is right when it is read by force (`r1mm.evaluate.readings`).  A model that learns to keep the form gains
without answering better; this takes the two apart.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from r1mm.errors import BadInput
from r1mm.judge.crossed import BOOTSTRAP_SEED, RESAMPLES
from r1mm.judge.outputs import DISPLAY_LEVEL
from r1mm.judge.statistics import Interval, paired_difference, shown_sign, wilson
from r1mm.recipe import Condition
from r1mm.sourced import Strict

Shares = npt.NDArray[np.float64]
BEFORE: Condition = "base-think"
AFTER: Condition = "trained-think"
FEWEST_READ, FEWEST_EACH, ENOUGH_READ = 50, 20, 200  # outputs on either side; see `known`


class ReadOutput(Protocol):
    """What the decomposition asks of one output, read both ways."""

    @property
    def item(self) -> str:
        """The item's id."""

    @property
    def parseable(self) -> bool:
        """Whether the answer stands in the form that is demanded."""

    @property
    def right(self) -> bool:
        """Whether it does, and is right."""

    @property
    def forced(self) -> object:
        """The rule by which an answer was found by force, None where there is none."""

    @property
    def forced_right(self) -> bool:
        """Whether that answer is right."""


class FormScore(Strict):
    """One condition, in percent of its items with Wilson's 95 % intervals; `answering` of its parseable ones.

    `found`: how many items have an answer by force.  `answering` is None where nothing is parseable.
    """

    n: int
    parseable: float
    parseable_interval: Interval
    answering: float | None
    answering_interval: Interval | None
    found: float
    forced: float
    forced_interval: Interval


class Part(Strict):
    """A difference of trained and base in points, with its 95 % interval."""

    points: float
    interval: Interval


class FormEffect(Strict):
    """One split: every condition's scores, and what a gain is made of.

    `gain` = `parsing` + `answering` (`decompose`), of answers in the demanded form; `forced` is the gain when all
    outputs are read by force.  `answering` may be moved by which items come into form; `both` is the gain on those
    alone, `both_n`, that are in form before and after, None where there are none.  Intervals of the parts are
    bootstraps over items, all that is possible where they are not `known`; those of the gains are Tango's.
    """

    scores: dict[Condition, FormScore]
    gain: Part
    parsing: Part
    answering: Part
    forced: Part
    both_n: int = 0
    both: Part | None = None
    known: bool = True


def decompose(before: Shares, after: Shares) -> tuple[Shares, Shares]:
    """The parts of a gain that parsing and answering explain, from shares (..., 2): parseable, and right of all.

    With p the share of parseable items and a the accuracy among them, the share of right answers is p a, and

        p1 a1 - p0 a0 = (p1 - p0) (a0 + a1) / 2  +  (a1 - a0) (p0 + p1) / 2
                        parsing                     answering

    Each part is the mean of what its factor changes when it changes first and when it changes last: the Shapley value
    of two factors.  Where nothing is parseable a is not known and taken to be the other side's, so that all of the gain
    is parsing.  `answering` holds all that changes a: where items that become parseable are harder or easier than those
    that were, that too.  Sources: Kitagawa 1955, JASA 50:1168; Shorrocks 2013, J. Econ. Inequality 11:99.
    """
    p0, p1, right0, right1 = before[..., 0], after[..., 0], before[..., 1], after[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        a0, a1 = np.where(p0 > 0, right0 / p0, np.nan), np.where(p1 > 0, right1 / p1, np.nan)
    a0, a1 = np.where(p0 > 0, a0, np.nan_to_num(a1)), np.where(p1 > 0, a1, np.nan_to_num(a0))
    return (p1 - p0) * (a0 + a1) / 2, (a1 - a0) * (p0 + p1) / 2


def parts_by_item(before: Shares, after: Shares) -> tuple[Shares, Shares]:
    """What parsing and answering explain of a gain, item by item (n,), so that their means are `decompose`'s.

    `before`, `after` (n, 2): 0 or 1 for parseable, and for right.  Linearised about the shares, so that the spread
    among the items is that of the part (delta method); useless where `known` says so.
    """
    (p0, right0), (p1, right1) = before.mean(axis=0), after.mean(axis=0)
    gained: Shares = after[:, 1] - before[:, 1]
    if p0 == 0 or p1 == 0:  # the accuracy of that side is taken from the other: all of the gain is parsing
        return gained, np.zeros_like(gained)
    a0, a1, half = right0 / p0, right1 / p1, (p1 - p0) / 2
    parsing: Shares = (a0 + a1) / 2 * ((after[:, 0] - p1) - (before[:, 0] - p0))
    parsing += half / p0 * ((before[:, 1] - right0) - a0 * (before[:, 0] - p0))
    parsing += half / p1 * ((after[:, 1] - right1) - a1 * (after[:, 0] - p1))
    parsing += decompose(np.array([p0, right0]), np.array([p1, right1]))[0]
    return parsing, gained - parsing


def marks(outputs: Sequence[ReadOutput]) -> Shares:
    """Whether each output is parseable, and right (n, 2), as 0 and 1."""
    return np.array([(output.parseable, output.right) for output in outputs], dtype=np.float64).reshape(-1, 2)


def known(before: Shares, after: Shares) -> bool:
    """From the marks (n, 2) of two sides, whether enough can be read on both, and is right, to tell parts apart.

    Asked for are FEWEST_READ outputs that can be read, and among them FEWEST_EACH right ones and as many wrong ones, or
    ENOUGH_READ.  An interval then errs in at most 5 % at an end, in up to 6 % where nine in ten of a few are right
    (benchmarks/verdict_rates.py); with fewer it errs more often, and among none the accuracy is not defined.
    """
    counts = [side.sum(axis=0) for side in (before, after)]
    return all(
        read >= FEWEST_READ and right >= FEWEST_EACH and (read - right >= FEWEST_EACH or read >= ENOUGH_READ)
        for read, right in counts
    )


def paired_readings(
    split: str, readings: Mapping[Condition, Sequence[ReadOutput]]
) -> tuple[list[ReadOutput], list[ReadOutput]]:
    """The readings of base and trained outputs to the thinking prompt, item by item, in the order of the items' names.

    Raises BadInput where either is missing or they are not of the same items, each once.
    """
    by_item = {}
    for condition in (BEFORE, AFTER):
        outputs = readings.get(condition) or []
        by_item[condition] = {output.item: output for output in outputs}
        if not outputs or len(by_item[condition]) < len(outputs):
            raise BadInput(f"split {split!r} needs readings of {condition}, one of each item; it has {len(outputs)}")
    if by_item[BEFORE].keys() != by_item[AFTER].keys():
        raise BadInput(
            f"split {split!r}: {BEFORE} has {len(by_item[BEFORE])} items and {AFTER} {len(by_item[AFTER])}, not the "
            "same; evaluate both on the same items"
        )
    before, after = ([found[item] for item in sorted(found)] for found in by_item.values())
    return before, after


def _state(output: ReadOutput) -> int:
    return int(output.parseable) + int(output.right)


def _parts(before: Sequence[ReadOutput], after: Sequence[ReadOutput]) -> tuple[Part, Part]:
    """Parsing and answering with percentile intervals: items are drawn anew in pairs, seeded, in no order.

    All that is possible where too little can be read to know (`known`).
    """
    # All that a resampled set of items needs is how many pairs are in each of the nine pairs of states.
    cells = np.zeros(9)
    for one, other in zip(before, after, strict=True):
        cells[3 * _state(one) + _state(other)] += 1
    if not known(marks(before), marks(after)):
        points = (100 * float(part.mean()) for part in parts_by_item(marks(before), marks(after)))
        parsing, answering = (Part(points=one, interval=Interval(low=-100.0, high=100.0)) for one in points)
        return parsing, answering
    n = len(before)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, cells / n, RESAMPLES)
    tables = np.concatenate([cells[None], drawn]).reshape(-1, 3, 3) / n

    def shares(states: Shares) -> Shares:
        return np.stack([states[:, 1] + states[:, 2], states[:, 2]], axis=-1)

    ends = [(1 - DISPLAY_LEVEL) / 2, (1 + DISPLAY_LEVEL) / 2]
    parts = []
    for values in decompose(shares(tables.sum(axis=2)), shares(tables.sum(axis=1))):
        low, high = 100 * np.quantile(values[1:], ends)
        parts.append(Part(points=100 * float(values[0]), interval=Interval(low=float(low), high=float(high))))
    return parts[0], parts[1]


def _difference(after: Sequence[bool], before: Sequence[bool]) -> Part:
    value, interval = paired_difference(after, before, DISPLAY_LEVEL)
    return Part(points=100 * value, interval=interval.scaled(100))


def form_score(outputs: Sequence[ReadOutput]) -> FormScore:
    """One condition's shares.  Raises BadInput for no outputs."""
    n, parseable = len(outputs), sum(output.parseable for output in outputs)
    if not n:
        raise BadInput("there are no outputs to read (0 records); evaluate at least one item")
    right, forced = sum(output.right for output in outputs), sum(output.forced_right for output in outputs)
    return FormScore(
        n=n,
        parseable=100 * parseable / n,
        parseable_interval=wilson(parseable, n).scaled(100),
        answering=100 * right / parseable if parseable else None,
        answering_interval=wilson(right, parseable).scaled(100) if parseable else None,
        found=100 * sum(output.forced is not None for output in outputs) / n,
        forced=100 * forced / n,
        forced_interval=wilson(forced, n).scaled(100),
    )


def form_effect(split: str, readings: Mapping[Condition, Sequence[ReadOutput]]) -> FormEffect:
    """The scores of every condition of a split and the parts of the gain from base to trained, thinking prompt.

    Raises BadInput as `paired_readings`.
    """
    before, after = paired_readings(split, readings)
    parsing, answering = _parts(before, after)
    both = [pair for pair in zip(before, after, strict=True) if all(output.parseable for output in pair)]
    return FormEffect(
        scores={condition: form_score(outputs) for condition, outputs in readings.items()},
        gain=_difference([output.right for output in after], [output.right for output in before]),
        parsing=parsing,
        answering=answering,
        forced=_difference([output.forced_right for output in after], [output.forced_right for output in before]),
        known=known(marks(before), marks(after)),
        both_n=len(both),
        both=_difference([one.right for _, one in both], [one.right for one, _ in both]) if both else None,
    )


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # no negative zero


def _points(part: Part) -> str:
    return f"{_signed(part.points)} ({_signed(part.interval.low)} to {_signed(part.interval.high)})"


def form_words(split: str, effect: FormEffect) -> str:
    """What the parts of one split's gain say, in two or three sentences."""
    gain, parsing, answering = effect.gain, effect.parsing, effect.answering
    shown = shown_sign(gain.interval)
    told = f"of {_points(gain)} points," if shown else f"no gain or loss is shown, {_points(gain)} points;"
    if not effect.known:
        parts = (
            f"what of it is parsing is not known, for on one side fewer than {FEWEST_READ} outputs can be read, or too "
            "few of those are right, or wrong"
        )
    else:
        # A share says something only of a gain that is shown and whose parts point the same way.
        share = parsing.points / gain.points + 0.0 if shown else -1.0
        part = f", {100 * share:.0f} % of it," if 0 <= share <= 1 else ""
        parts = f"parsing explains {_points(parsing)}{part} and answering {_points(answering)}"
    both = ""
    if effect.both:
        both = f" On the {effect.both_n} items that can be read both times the difference is {_points(effect.both)}."
    return f"{split}: {told} {parts}.{both} With every output read by force the difference is {_points(effect.forced)}."
