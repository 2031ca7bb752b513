"""One self-contained HTML page per finished run.

Pure: files are read and written by the caller, who passes what they hold (see `ReportInputs`).  The page needs no
network; figures, images and styles are inside it.  The same inputs give the same bytes: no clock, no chance.
Numbers come from the verdict and the manifest.  A key that is absent is shown as not recorded, never guessed.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from r1mm.ledger import Entry
from r1mm.report import figures
from r1mm.report.distilled import distilled_section
from r1mm.report.figures import Row
from r1mm.report.form import form_figure, sentence
from r1mm.report.rows import GROUPS, lines_figure, shown_lines
from r1mm.report.sections import full_sections, why_not
from r1mm.report.words import (
    ABSENT,
    TRAINING_WORDS,
    compact,
    data_uri,
    duration,
    first_upper,
    number,
    p_value,
    percent,
    quantity,
    share,
    signed,
    span,
    visible,
)
from r1mm.task_parts import PICTURE_TASKS
from r1mm.training_parts import GRPO_DEFAULTS

Outputs = Mapping[str, Mapping[str, Sequence[Row]]]

SAMPLES = 8
IMAGE_BYTES, IMAGE_SIDE = 60_000, 480  # above this size an image is drawn smaller, at most so many pixels wide or high
SHEET_BYTES, SHEET_SIDE = 250_000, 1600

CONDITION_WORDS = {
    "base-think": "base, thinking prompt",
    "base-direct": "base, direct prompt (control)",
    "trained-think": "trained, thinking prompt",
}
KINDS = {
    "fixed": "wrong before, right after",
    "still wrong": "wrong before and after",
    "broken": "right before, wrong after",
    "still right": "right before and after",
}
# Which kind each sample is of; a kind that runs out leaves its turn to the others.
TURNS = ("fixed", "still wrong", "broken", "fixed", "still wrong", "broken", "fixed", "still right")


@dataclass(frozen=True)
class ReportInputs:
    """What the files of one finished run hold.

    `resolved`: recipe.json.  `manifest`: manifest.json.  `metrics`: the lines of metrics.jsonl, which GRPO writes.
    `tuning`: those of supervised fine-tuning.  `verdict`: verdict.json.  `outputs[split][condition]`: the lines of
    {condition}-{split}.jsonl.  `image_of(split, item)`: the item's PNG, None where there is none; itself None where
    images are not at hand.  `contact_sheets[split]`: one PNG of many items.  `ledger`: upstream's settings beside ours
    under the variant; empty where the recipe has no ledger.  `distilled`: distill.json, empty where there is none.
    """

    resolved: Row
    manifest: Row
    metrics: Sequence[Row]
    outputs: Outputs
    verdict: Row
    image_of: Callable[[str, str], bytes | None] | None = None
    contact_sheets: Mapping[str, bytes] = field(default_factory=dict)
    ledger: Sequence[Entry] = ()
    tuning: Sequence[Row] = ()
    distilled: Row = field(default_factory=dict)

    def metrics_of(self, training: str) -> Sequence[Row]:
        """The lines of one training, none where it was not run."""
        return self.tuning if training == "sft" else self.metrics


@dataclass(frozen=True)
class Sample:
    """One evaluated item: its picture as a data URI, if any, and what was answered under each label."""

    split: str
    item: str
    kind: str
    question: str
    truth: Any
    image: str | None
    answers: Sequence[tuple[str, Row]]


@dataclass(frozen=True)
class ShownSetting:
    """One line of the settings table."""

    path: str
    value: str
    source: str
    overridden: bool


@functools.cache
def templates() -> jinja2.Environment:
    """The templates of both pages."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # any key of a file may be absent; filters show a dash
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (number, signed, percent, share, span, quantity, p_value, duration, visible, compact, first_upper):
        environment.filters[filter_.__name__] = filter_
    return environment


def shown_settings(resolved: Row) -> dict[str, list[ShownSetting]]:
    """Every setting of a resolved recipe by section, in the recipe's order, the variants' definitions left out."""
    overridden = set(resolved.get("overridden") or [])

    def walk(path: str, node: Any) -> Iterator[ShownSetting]:
        if isinstance(node, Mapping) and "source" in node:
            rest = {key: value for key, value in node.items() if key != "source"}
            value = compact(rest["value"]) if set(rest) == {"value"} else ", ".join(
                f"{key} {compact(value)}" for key, value in rest.items()
            )  # fmt: skip
            yield ShownSetting(path, value, str(node["source"]), path in overridden)
        elif isinstance(node, Mapping):
            for key, child in node.items():
                yield from walk(f"{path}.{key}", child)
        elif node is not None:
            yield ShownSetting(path, compact(node), "", path in overridden)

    sections: dict[str, list[ShownSetting]] = {}
    recipe = resolved.get("recipe") or {}
    # What no stage of this run reads is no setting of it.
    unread = () if "grpo" in recipe.get("stages", ["grpo"]) else GRPO_DEFAULTS
    for name, node in recipe.items():
        if name not in ("variants", *unread):
            section = name if isinstance(node, Mapping) and "source" not in node else "recipe"
            sections.setdefault(section, []).extend(walk(name, node))
    return {name: shown for name, shown in sections.items() if shown}


def by_chance(split: str, item: str) -> str:
    """A place in an order that nobody chose and that is the same on every machine: samples are not hand-picked."""
    return hashlib.sha256(f"{split}/{item}".encode()).hexdigest()


def _kind(before: Row, after: Row) -> str:
    if before.get("correct"):
        return "still right" if after.get("correct") else "broken"
    return "fixed" if after.get("correct") else "still wrong"


def make_sample(inputs: ReportInputs, split: str, item: str, kind: str, answers: Sequence[tuple[str, Row]]) -> Sample:
    """An item with its picture and its answers, each under a label."""
    png = inputs.image_of(split, item) if inputs.image_of else None
    image = data_uri(png, IMAGE_BYTES, IMAGE_SIDE) if png else None
    return Sample(split, item, kind, str(answers[0][1].get("prompt", "")), answers[0][1].get("truth"), image, answers)


def by_item(rows: Sequence[Row]) -> dict[str, Row]:
    """Output lines by the name of their item."""
    return {str(row.get("item")): row for row in rows}


def choose_samples(inputs: ReportInputs, most: int = SAMPLES) -> list[Sample]:
    """At most `most` items answered before and after training: kinds by `TURNS`, in a kind by sha256 of the name.

    None of a control whose items are asked about without being shown.
    """
    tasks: Row = (inputs.resolved.get("recipe") or {}).get("tasks") or {}
    pools: dict[str, list[tuple[str, str, list[tuple[str, Row]]]]] = {kind: [] for kind in KINDS}
    for split, by_condition in inputs.outputs.items():
        if tasks.get(split, {}).get("blind"):
            continue
        rows = {condition: by_item(lines) for condition, lines in by_condition.items()}
        before, after = rows.get("base-think", {}), rows.get("trained-think", {})
        for item in before.keys() & after.keys():
            answers = [(CONDITION_WORDS[c], rows[c][item]) for c in CONDITION_WORDS if item in rows.get(c, {})]
            pools[_kind(before[item], after[item])].append((split, item, answers))
    for pool in pools.values():
        pool.sort(key=lambda entry: by_chance(*entry[:2]), reverse=True)
    chosen: list[Sample] = []
    for kind in (*TURNS, *(tuple(KINDS) * most)):
        if pools[kind] and len(chosen) < most:
            split, item, answers = pools[kind].pop()
            chosen.append(make_sample(inputs, split, item, kind, answers))
    return sorted(chosen, key=lambda sample: list(KINDS).index(sample.kind))


def name_of(inputs: ReportInputs) -> tuple[str, str, Any]:
    """A run's recipe, variant and seed."""
    recipe = inputs.resolved.get("recipe") or {}
    name = inputs.verdict.get("recipe") or recipe.get("name") or "unnamed"
    variant = inputs.verdict.get("variant") or inputs.resolved.get("variant") or "unnamed"
    seed = inputs.verdict.get("seed", inputs.manifest.get("seed", ABSENT))
    return str(name), str(variant), seed


def trainings_of(inputs: ReportInputs) -> list[str]:
    """How a run was trained, in order, in words."""
    stages = (inputs.resolved.get("recipe") or {}).get("stages") or []
    return [words for stage, words in TRAINING_WORDS.items() if stage in stages]


def common(inputs: ReportInputs) -> dict[str, Any]:
    """What both pages say of a run."""
    name, variant, seed = name_of(inputs)
    recipe = inputs.resolved.get("recipe") or {}
    size = inputs.verdict.get("size") or recipe.get("size")
    return {
        "recipe": name, "variant": variant, "seed": seed, "size": size, "title": recipe.get("title") or name,
        "upstream": recipe.get("upstream") or ABSENT, "trainings": trainings_of(inputs),
        "scores": inputs.verdict.get("scores") or {}, "form": inputs.verdict.get("form") or {},
        "description": ((recipe.get("variants") or {}).get(variant) or {}).get("description"),
        "comparisons": inputs.verdict.get("comparisons") or {}, "manifest": inputs.manifest,
        "miniature": size == "miniature", "full": size == "full",
        "condition_words": CONDITION_WORDS, "kinds": KINDS, "groups": GROUPS, "absent": ABSENT,
        "distilled": distilled_section(inputs.distilled),
    }  # fmt: skip


def _lmms_splits(inputs: ReportInputs) -> list[str]:
    """LongVideoBench's, whose marks are lmms-eval's own; those of the tasks about pictures are r1mm's."""
    tasks: Row = (inputs.resolved.get("recipe") or {}).get("tasks") or {}
    return [split for split, task in tasks.items() if task.get("lmms") and task["lmms"] not in PICTURE_TASKS]


def build_report(inputs: ReportInputs) -> str:
    """The page of one finished run as HTML text."""
    shown = common(inputs)
    verdict, scores = inputs.verdict, shown["scores"]
    references = verdict.get("reference_rows") or []
    form = shown["form"]
    # A full recipe's numbers stand among the published ones; a miniature's only beside earlier runs of it.
    lines = shown_lines([verdict]) if shown["full"] else {}
    steps = {training: inputs.metrics_of(training) for training in TRAINING_WORDS}
    curves = {
        training: (Markup(figures.training_curves(rows, training)), figures.smoothing_window(rows))
        for training, rows in steps.items()
        if rows
    }
    return templates().get_template("report.html.j2").render(
        **shown, verdict=verdict, claims=verdict.get("claims") or [], references=references,
        bars=Markup(figures.accuracy_bars(scores)),
        curves=curves,
        strip=Markup(figures.reference_strip(scores, shown["comparisons"], references, shown["variant"])),
        samples=choose_samples(inputs), settings=shown_settings(inputs.resolved), why_not=why_not([verdict]),
        sheets={split: data_uri(png, SHEET_BYTES, SHEET_SIDE) for split, png in inputs.contact_sheets.items()},
        form_dots=Markup(form_figure(form)),
        form_words=[sentence(split, effect) for split, effect in form.items()],
        lines=lines, alone=all(line.this_run for rows in lines.values() for line in rows),
        dots=Markup(lines_figure(lines)),
        training_words=TRAINING_WORDS,
        **full_sections(verdict, inputs.manifest, steps, inputs.outputs, inputs.ledger, _lmms_splits(inputs)),
    )  # fmt: skip
