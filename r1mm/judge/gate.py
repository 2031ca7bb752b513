"""The base gate: is the base model's score the published one, before time is spent on training it?

Our harness may differ from upstream's in its prompt, its parser, its images or its checkpoint.  Each shows in the base
model's score, for the price of one evaluation.  The gate stops only where the score is shown to lie outside the margin;
too few items to tell is a warning.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected
from r1mm.judge.outputs import ScoredOutput, in_short, measure, pair_recorded, right
from r1mm.judge.statistics import Interval, gain, place, share, wilson
from r1mm.sourced import Strict

GateState = Literal["passes", "unclear", "stops", "not judged"]
_WORST: tuple[GateState, ...] = ("stops", "unclear", "passes", "not judged")

CHECK = (
    "check the evaluation prompt to the blank (R1-V says 'First output the thinking process' after one blank when "
    "it counts, and trains without 'First' after two; Open-R1-Video published none), how answers are parsed (the first "
    "answer tag, none is wrong; of LongVideoBench the first capital letter after the thoughts; of MathVista elsewhere "
    "by a language model), the size of the images (R1-V evaluates without max_pixels), how many a question shows, or "
    "the number of frames, and the checkpoint's revision and dtype"
)
GAIN_IS_OURS = "the gain is judged against this base score, not against the published one"


class GateCheck(Strict):
    """One gate claim: our base score in percent, and its difference from the published one with a 90 % interval.

    `paired`: taken item by item from upstream's recorded outputs.
    """

    claim: str
    split: str
    n: int
    accuracy: float
    published: float
    margin: float
    interval: Interval
    paired: bool
    state: GateState


class GateResult(Strict):
    """Whether training may start, and what to tell the user; the worst of `checks` decides."""

    passes: bool
    state: GateState
    words: list[str]
    checks: list[GateCheck]


def _check(
    claim: Claim, base: Sequence[ScoredOutput], recorded: Sequence[ScoredOutput] | None
) -> tuple[GateCheck, str]:
    assert claim.reference is not None
    measured = measure(base)
    accuracy = 100 * measured.right / measured.n
    if recorded is None:
        interval = share(measured.right, measured.n).interval.scaled(100).shifted(-claim.reference)
        how, difference = "over its items", accuracy - claim.reference
    else:
        ours, theirs = pair_recorded(claim.split, base, recorded)
        found = gain(right(ours), right(theirs)).scaled(100)
        interval, difference = found.interval, found.value
        same = sum(a.parsed == b.parsed for a, b in zip(ours, theirs, strict=True))
        how = f"item by item against upstream's recorded outputs, {same} of {len(ours)} answers the same"
    where = place(interval, -claim.margin, claim.margin)
    state: GateState = {"inside": "passes", "unclear": "unclear"}.get(where, "stops")  # type: ignore[assignment]
    margin = f"the margin of {claim.margin:g}"
    says = {
        "passes": f"within {margin}",
        "unclear": f"not shown to lie within or outside {margin}; training goes on, with this warning",
        "stops": f"outside {margin}; training does not start",
    }[state]
    words = (
        f"{claim.split}: base accuracy {accuracy:.1f} % ({measured.right} of {measured.n}, {measured.unparsed} not "
        f"parsed), published {claim.reference:g}: difference {difference:+.1f} points, 90 % interval "
        f"{interval.low:.1f} to {interval.high:.1f} {how}: {says}"
    )
    check = GateCheck(
        claim=claim.id,
        split=claim.split,
        n=measured.n,
        accuracy=accuracy,
        published=claim.reference,
        margin=claim.margin,
        interval=interval,
        paired=recorded is not None,
        state=state,
    )
    return check, words


def _third_parties(expected: Expected, split: str, base: Sequence[ScoredOutput]) -> list[str]:
    """What others got for the same base model, and whether our score could be theirs."""
    measured = measure(base)
    ours = wilson(measured.right, measured.n).scaled(100)
    words = []
    for row in expected.published_rows:
        if row.by == "third party" and row.split == split and row.condition == "base-think":
            within = ours.low <= row.percent <= ours.high
            words.append(
                f"{split}: {row.who} got {row.percent:g} for the base model, which lies "
                f"{'within' if within else 'outside'} our 95 % interval of {ours.low:.1f} to {ours.high:.1f}"
            )
    return words


def base_gate(
    expected: Expected,
    variant: str,
    base: Mapping[str, Sequence[ScoredOutput]],
    recorded: Mapping[str, Sequence[ScoredOutput]] | None = None,
    *,
    why_not: Sequence[str] = (),
) -> GateResult:
    """Judge the base model's base-think outputs (by split) against the variant's gate claims.

    `recorded`: upstream's own base-think outputs by split, where the prompt is theirs; the difference is then taken
    item by item.  `why_not`: why this run's model or data are not the published ones; nothing is judged then, and it
    passes. Raises BadInput for outputs that cannot be measured or paired.
    """
    claims = [claim for claim in expected.claims if claim.gate and claim.variant == variant]
    if why_not:
        return GateResult(
            passes=True, state="not judged", words=[f"base gate not judged: {in_short(why_not)}"], checks=[]
        )
    if not claims:
        nothing = f"base gate not judged: no gate is set for variant {variant}"
        return GateResult(passes=True, state="not judged", words=[nothing], checks=[])
    checks: list[GateCheck] = []
    said: list[str] = []
    for claim in claims:
        if claim.split not in base:
            raise BadInput(
                f"gate {claim.id!r} needs split {claim.split!r}, the base model was evaluated on "
                f"{', '.join(base) or 'none'}; evaluate it"
            )
        check, words = _check(claim, base[claim.split], (recorded or {}).get(claim.split))
        checks.append(check)
        said += [words, *_third_parties(expected, claim.split, base[claim.split])]
    state = min((check.state for check in checks), key=_WORST.index)
    if state != "passes":
        said.append(CHECK)
    said.append(GAIN_IS_OURS)
    return GateResult(passes=state != "stops", state=state, words=said, checks=checks)
