"""One self-contained HTML page that sets a recipe's variants side by side.  Pure, as the page of a run is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from r1mm.errors import BadInput
from r1mm.report import figures
from r1mm.report.figures import Row, finite
from r1mm.report.page import (
    CONDITION_WORDS,
    ReportInputs,
    Sample,
    by_chance,
    by_item,
    common,
    make_sample,
    name_of,
    templates,
    trainings_of,
)
from r1mm.report.rows import lines_figure, shown_lines
from r1mm.report.sections import why_not
from r1mm.report.words import ABSENT, TRAINING_WORDS, signed

FORMAT_LEVELS, IMAGE_LEVELS = ("prefix", "full"), ("none", "both")


@dataclass(frozen=True)
class ComparisonInputs:
    """The runs to set side by side: one per variant of one recipe, all of the same base model.

    `answer`: answer.json of the recipe, what all its finished runs say over variants and seeds; empty where it was not
    asked for.
    """

    runs: Sequence[ReportInputs]
    answer: Row = field(default_factory=dict)


def _factors(inputs: ReportInputs) -> tuple[str, str]:
    factors = (inputs.resolved.get("recipe") or {}).get("factors") or {}
    match, images = (factors.get(key) or {} for key in ("format_match", "images_in_logprobs"))
    return str(match.get("value", ABSENT)), str(images.get("value", ABSENT))


def _format_share(inputs: ReportInputs) -> float | None:
    """Percent of all trained outputs, over all splits, that keep the required format."""
    rows = [by.get("trained-think") or {} for by in (inputs.verdict.get("scores") or {}).values()]
    kept, n = (sum(finite(row.get(key)) or 0.0 for row in rows) for key in ("format", "n"))
    return 100 * kept / n if n else None


def factor_reading(shares: Mapping[tuple[str, str], float | None]) -> list[str]:
    """What the four format shares (percent, by format_match and images_in_logprobs) say, in plain sentences.

    A factor is said to switch the format where it moves the share by 50 points or more at both levels of the other one,
    the same way; to leave it where it moves it by less than 10 at both.  Anything between is told in numbers only.
    """
    known = {key: value for key in shares if (value := shares[key]) is not None}
    if len(known) < 4:
        return ["Not all four variants were run and scored, so the two factors cannot be told apart here."]
    by_match = [known["full", images] - known["prefix", images] for images in IMAGE_LEVELS]
    by_images = [known[match, "both"] - known[match, "none"] for match in FORMAT_LEVELS]

    def switches(moved: Sequence[float]) -> bool:
        return all(m >= 50 for m in moved) or all(m <= -50 for m in moved)

    def leaves(moved: Sequence[float]) -> bool:
        return all(abs(m) < 10 for m in moved)

    told = [
        "Changing format_match from prefix to full moved the share of trained outputs that keep the required format by "
        f"{signed(by_match[0])} points (images_in_logprobs none) and {signed(by_match[1])} points (both).",
        f"Changing images_in_logprobs from none to both moved it by {signed(by_images[0])} points (format_match prefix)"
        f" and {signed(by_images[1])} points (full).",
    ]
    if switches(by_match) and leaves(by_images):
        told.append("In these runs format_match switched the format; images_in_logprobs left it as it was.")
    elif switches(by_images) and leaves(by_match):
        told.append("In these runs images_in_logprobs switched the format; format_match left it as it was.")
    elif leaves(by_match) and leaves(by_images):
        told.append("In these runs neither factor switched the format.")
    else:
        told.append("In these runs the two factors act together, or their effect on the format is of middling size.")
    return told


def _shared_sample(runs: Sequence[ReportInputs]) -> Sample | None:
    found: list[tuple[str, str]] = []
    for split in runs[0].outputs:
        items = [by_item((run.outputs.get(split) or {}).get("trained-think") or []) for run in runs]
        found += [(split, item) for item in items[0] if all(item in other for other in items)]
    if not found:
        return None
    split, item = min(found, key=lambda entry: by_chance(*entry))
    answers = [
        (CONDITION_WORDS[condition], rows[item])
        for condition in ("base-think", "base-direct")
        if item in (rows := by_item(runs[0].outputs[split].get(condition) or []))
    ]
    answers += [(name_of(run)[1], by_item(run.outputs[split]["trained-think"])[item]) for run in runs]
    return make_sample(runs[0], split, item, "", answers)


def _controls(runs: Sequence[ReportInputs]) -> list[tuple[list[str], Row]]:
    """The base model's scores with the variants they belong to: one entry when all runs share them, as they should."""
    found: list[tuple[list[str], Row]] = []
    for run in runs:
        scores = run.verdict.get("scores") or {}
        base = {s: {c: row for c, row in by.items() if c.startswith("base")} for s, by in scores.items()}
        same = next((variants for variants, other in found if other == base), None)
        if same is None:
            found.append(([name_of(run)[1]], base))
        else:
            same.append(name_of(run)[1])
    return found


def _cross_factors(run: ReportInputs) -> bool:
    """Whether the recipe's variants are the four crossings of the two factors; taken to be so where it is not there."""
    recipe = run.resolved.get("recipe") or {}
    paths = ("factors.format_match", "factors.images_in_logprobs")
    overrides = [variant.get("overrides") or {} for variant in (recipe.get("variants") or {}).values()]
    found = {tuple((changed.get(path) or {}).get("value") for path in paths) for changed in overrides}
    return not overrides or found >= {(match, images) for match in FORMAT_LEVELS for images in IMAGE_LEVELS}


def _estimates(answer: Row) -> list[dict[str, Any]]:
    """Each variant's estimates over its seeds, one row for each split."""
    return [
        {"variant": verdict.get("variant"), "seeds": verdict.get("seeds") or [], "split": split, **by_metric}
        for verdict in answer.get("verdicts") or []
        for split, by_metric in (verdict.get("estimates") or {}).items()
    ]


def build_comparison(inputs: ComparisonInputs) -> str:
    """The page that sets the variants of one recipe side by side, as HTML text.

    Raises BadInput when there is no run, when the runs are of several recipes, or when two are of the same variant.
    """
    if not inputs.runs:
        raise BadInput("there is no run to compare; give one run directory per variant")
    names = sorted({name_of(run)[0] for run in inputs.runs})
    if len(names) > 1:
        raise BadInput(f"the runs are of several recipes, {', '.join(names)}; compare the variants of one recipe")
    by_variant: dict[str, ReportInputs] = {}
    for run in inputs.runs:
        variant = name_of(run)[1]
        if variant in by_variant:
            raise BadInput(f"two runs have the variant {variant!r}; give one run of each variant")
        by_variant[variant] = run
    order = [(match, images) for images in IMAGE_LEVELS for match in FORMAT_LEVELS]
    # Variants that differ in other settings alone share a cell; their order on the page is that of their names.
    cells = {
        key: [by_variant[name] for name in sorted(by_variant) if _factors(by_variant[name]) == key]
        for key in dict.fromkeys([*order, *map(_factors, inputs.runs)])
    }
    runs = [run for found in cells.values() for run in found]
    # A table of the two factors has no place for a variant that was also, or only, trained in another way.
    crossed = _cross_factors(runs[0]) and all(trainings_of(run) in ([], [TRAINING_WORDS["grpo"]]) for run in runs)
    factors = {name_of(run)[1]: _factors(run) for run in runs}
    curves = {
        training: figures.comparison_curves(
            {name_of(run)[1]: run.metrics_of(training) for run in runs}, factors, training
        )
        for training in TRAINING_WORDS
    }
    shown = common(runs[0])
    verdicts = [run.verdict for run in runs]
    lines = shown_lines(verdicts) if shown["full"] else {}
    shares = {key: _format_share(found[0]) if len(found) == 1 else None for key, found in cells.items()}
    return templates().get_template("comparison.html.j2").render(
        **shown,
        cells={
            key: [{**common(run), "outcome": run.verdict.get("outcome")} for run in found]
            for key, found in cells.items()
        },
        controls=_controls(runs), factors=factors, format_levels=FORMAT_LEVELS, image_levels=IMAGE_LEVELS,
        crossed=crossed, reading=factor_reading({key: shares[key] for key in order}) if crossed else [],
        curves={training: Markup(drawn) for training, drawn in curves.items() if drawn},
        window=max(figures.smoothing_window(run.metrics_of(each)) for run in runs for each in TRAINING_WORDS),
        training_words=TRAINING_WORDS,
        told={name_of(run)[1]: list(_factors(run)) if crossed else trainings_of(run) for run in runs},
        styles=figures.line_styles(factors, factors), sample=_shared_sample(runs), why_not=why_not(verdicts),
        lines=lines, dots=Markup(lines_figure(lines)), answer=inputs.answer.get("answer") or [],
        seeds=inputs.answer.get("verdicts") or [], estimates=_estimates(inputs.answer),
    )  # fmt: skip
