"""The answer in words: which published numbers reproduce under which variant, with the evidence of each clause.

Composed from verdicts alone.  Where runs are missing, or are not of the published model and data, it says that, and
nothing of the numbers.
"""

from collections.abc import Sequence

from r1mm.errors import BadInput
from r1mm.expected import Claim, Expected
from r1mm.judge.claims import PARTS, ClaimOutcome
from r1mm.judge.outputs import RecordedComparison, in_short
from r1mm.judge.seeds import Estimate, SeedsVerdict
from r1mm.judge.statistics import shown_sign

_SAYS: dict[ClaimOutcome, str] = {
    "reproduced": "is reproduced by",
    "partly": "is reproduced only in part, with the direction but not the size, by",
    "not reproduced": "is not reproduced by",
    "inconclusive": "is neither found nor refused within its margin, for too few items or seeds, by",
}


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def _signed(value: float) -> str:
    return f"{value:+.1f}"


def _ends(found: Estimate) -> str:
    return f"{found.interval.low:.1f} to {found.interval.high:.1f}"


def _over_seeds(verdict: SeedsVerdict, found: Estimate) -> str:
    """Each seed's value, their mean and its interval."""
    if len(verdict.seeds) == 1:
        return f"our seed {verdict.seeds[0]}: {found.by_seed[0]:.1f}; 90 % interval {_ends(found)}, items only"
    each = ", ".join(f"{value:.1f}" for value in found.by_seed)
    return f"our {len(verdict.seeds)} seeds: {each}; mean {found.value:.1f}, 90 % interval {_ends(found)}"


def _clause(expected: Expected, claim: Claim, verdict: SeedsVerdict | None) -> str:
    """What one variant's runs say of a published number."""
    name = expected.name_of(claim.variant)
    if verdict is None:
        return f"nothing is said of it for {name}: no finished run of {claim.variant}"
    if verdict.why_not:
        return f"nothing is said of it for {name}: {in_short(verdict.why_not)}"
    result = next(result for result in verdict.claims if result.id == claim.id)
    says = _SAYS[result.outcome]
    missed = shown_sign(result.interval)
    tail = ""
    if result.outcome == "inconclusive" and missed:
        tail = f", which is shown to lie {'above' if missed > 0 else 'below'} it, if not by how much"
    evidence = _over_seeds(verdict, verdict.estimates[claim.split]["accuracy"])
    n = verdict.scores[claim.split]["trained-think"][0].n
    return f"{says} {name}{tail} ({evidence}, n = {n}, margin {claim.margin:g})"


def _against_direct(claim: Claim, verdicts: Sequence[SeedsVerdict]) -> str | None:
    """The published number beside the untrained model's direct answers: item by item where outputs were recorded."""
    assert claim.reference is not None
    for verdict in verdicts:
        records = verdict.recorded.get(claim.split, {}).get("base-direct minus recorded trained-think")
        if records:
            found: RecordedComparison = records[0]
            sign = shown_sign(found.interval)
            place = {1: "lie below", -1: "lie above", 0: "are not shown to differ from"}[sign]
            return (
                f"The published outputs ({100 * found.theirs_right / found.n:.1f}) {place} the untrained model's "
                f"direct answers in our harness ({100 * found.ours_right / found.n:.1f}, n = {found.n}, difference "
                f"{_signed(found.points)} points, 95 % interval {found.interval.low:.1f} to {found.interval.high:.1f}, "
                f"McNemar {_p(found.p)})."
            )
    for verdict in verdicts:
        score = verdict.scores[claim.split]["base-direct"][0]
        low, high = score.interval.low, score.interval.high
        place = "lies below" if claim.reference < low else "lies above" if claim.reference > high else "lies within"
        return (
            f"{claim.reference:g} {place} the 95 % interval of the untrained model's direct answers in our harness "
            f"({score.accuracy:.1f}, {low:.1f} to {high:.1f}, n = {score.n}); no recorded outputs to pair with."
        )
    return None


def _base(split: str, verdict: SeedsVerdict) -> str:
    """Our base model's score, against its recorded outputs where there are any."""
    score = verdict.scores[split]["base-think"][0]
    text = f"Our base model scores {score.accuracy:.1f} on {split} (n = {score.n}"
    records = verdict.recorded.get(split, {}).get("base-think minus recorded base-think")
    if records:
        found = records[0]
        text += (
            f"; recorded {100 * found.theirs_right / found.n:.1f}, {found.same_answer} of {found.n} answers the same, "
            f"McNemar {_p(found.p)}"
        )
    return text + "); gains are taken against it."


def _run_line(expected: Expected, split: str, verdict: SeedsVerdict) -> str:
    """What training did under one variant: gain and its parts, distance to direct answers, whether outputs think."""
    found = verdict.estimates[split]
    gain, direct, thinks = found["gain"], found["trained_minus_direct"], found["format"]
    apart = [part for part in PARTS if part in found and found[part].known]
    parts = " and ".join(f"{_signed(found[part].value)} ({_ends(found[part])}) by {part}" for part in apart)
    ps = ", ".join(_p(one.p) for one in verdict.comparisons[split]["trained minus base-direct"])
    place = {1: "lies above", -1: "lies below", 0: "is not shown to differ from"}[shown_sign(direct.interval)]
    return (
        f"Trained by {expected.name_of(verdict.variant)}, the model gains {_signed(gain.value)} points "
        f"on {split} (90 % interval {_ends(gain)}){f', {parts}' if parts else ''}; it {place} the untrained "
        f"model's direct answers ({_signed(direct.value)}, {_ends(direct)}; "
        f"McNemar {ps}), and thinks in {thinks.value:.0f} % of its outputs."
    )


def _others(expected: Expected, split: str) -> str | None:
    rows = [
        f"{row.percent:g}{f' after {row.steps} steps' if row.steps is not None else ''} ({row.who})"
        for row in expected.published_rows
        if row.by == "third party" and row.split == split and row.condition == "trained-think"
    ]
    return f"Others report on {split}: {', '.join(rows)}." if rows else None


def _open(verdicts: Sequence[SeedsVerdict]) -> list[str]:
    """What the seeds at hand cannot tell, once for all variants of which it is true."""
    texts = dict.fromkeys(text for verdict in verdicts for text in verdict.missing)
    return [f"{', '.join(v.variant for v in verdicts if text in v.missing)}: {text}." for text in texts]


def _headline_claims(expected: Expected) -> list[list[Claim]]:
    """The authors' claims of an accuracy after training, the same number on the same split together."""
    groups: dict[tuple[str, float], list[Claim]] = {}
    for claim in expected.claims:
        if (
            claim.by == "authors"
            and claim.metric == "accuracy"
            and claim.test == "near"
            and claim.reference is not None
        ):
            groups.setdefault((claim.split, claim.reference), []).append(claim)
    return list(groups.values())


def answer(expected: Expected, verdicts: Sequence[SeedsVerdict]) -> list[str]:
    """Sentences that answer, for every number that the authors published, whether it reproduces, and by which variant.

    `verdicts`: one for each variant with a finished run, in any order.  Raises BadInput for two of one variant or
    another recipe's.
    """
    for verdict in verdicts:
        if verdict.recipe != expected.recipe:
            raise BadInput(f"a verdict is on recipe {verdict.recipe!r}, the claims are of {expected.recipe!r}")
    by_variant = {verdict.variant: verdict for verdict in verdicts}
    if len(by_variant) < len(verdicts):
        raise BadInput(f"{len(verdicts)} verdicts are on {len(by_variant)} variants; give one for each variant")
    groups = _headline_claims(expected)
    comparable = [verdict for verdict in verdicts if not verdict.why_not]
    if not groups:
        nothing = (
            f"No accuracy was published for {expected.recipe}: there is no number here that could reproduce or not."
        )
        lines = [_run_line(expected, split, verdict) for verdict in comparable for split in verdict.scores]
        return [nothing, *lines, *_open(comparable)]
    said: list[str] = []
    if verdicts and not comparable:
        numbers = ", ".join(f"{group[0].reference:g}" for group in groups)
        why = "; ".join(dict.fromkeys(reason for verdict in verdicts for reason in verdict.why_not))
        return [f"Nothing is said of {numbers}: {why}."]
    for group in groups:
        first = group[0]
        clauses = [_clause(expected, claim, by_variant.get(claim.variant)) for claim in group]
        said.append(f"{first.reference:g} on {first.split} {'; '.join(clauses)}.")
        direct = _against_direct(first, [verdict for verdict in comparable if first.split in verdict.scores])
        if direct:
            said.append(direct)
    for split in dict.fromkeys(group[0].split for group in groups):
        here = [verdict for verdict in comparable if split in verdict.scores]
        said += [_base(split, here[0])] if here else []
        said += [_run_line(expected, split, verdict) for verdict in here]
        others = _others(expected, split)
        said += [others] if others else []
    return [*said, *_open(comparable)]
