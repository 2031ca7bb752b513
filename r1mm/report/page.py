"""One self-contained HTML page per finished run, and one that sets a recipe's four variants side by side.

Pure: files are read and written by the caller, who passes what they hold (see `ReportInputs`).  The page needs no
network; figures, images and styles are inside it.  The same inputs give the same bytes: no clock, no chance.
Numbers come from the verdict and the manifest.  A key that is absent is shown as not recorded, never guessed.
"""

import base64
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from r1mm.errors import BadInput
from r1mm.report import figures
from r1mm.report.figures import Row, finite

Outputs = Mapping[str, Mapping[str, Sequence[Row]]]

ABSENT = "–"  # noqa: RUF001 (a dash for a reader, not a minus sign)
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
FORMAT_LEVELS, IMAGE_LEVELS = ("prefix", "full"), ("none", "both")


@dataclass(frozen=True)
class ReportInputs:
    """What the files of one finished run hold.

    `resolved`: recipe.json.  `manifest`: manifest.json.  `metrics`: the lines of metrics.jsonl.  `verdict`:
    verdict.json.  `outputs[split][condition]`: the lines of {condition}-{split}.jsonl.  `image_of(split, item)`: the
    item's PNG; None where images are not at hand.  `contact_sheets[split]`: one PNG of many items.
    """

    resolved: Row
    manifest: Row
    metrics: Sequence[Row]
    outputs: Outputs
    verdict: Row
    image_of: Callable[[str, str], bytes] | None = None
    contact_sheets: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonInputs:
    """The runs to set side by side: one per variant of one recipe, all of the same base model."""

    runs: Sequence[ReportInputs]


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


def number(value: object, digits: int = 1) -> str:
    """A number with a true minus sign, or a dash when there is none."""
    known = finite(value)
    # Adding 0.0 after rounding turns a negative zero into a zero.
    return ABSENT if known is None else f"{round(known, digits) + 0.0:.{digits}f}".replace("-", "\u2212")


def signed(value: object, digits: int = 1) -> str:
    """A difference with its sign, unless it is zero."""
    known = finite(value)
    return ABSENT if known is None else ("+" if round(known, digits) > 0 else "") + number(known, digits)


def percent(value: object) -> str:
    """A percentage that is already in percent."""
    return ABSENT if finite(value) is None else f"{number(value)}\u00a0%"


def share(count: object, n: object) -> str:
    """`count` of `n` in percent."""
    part, whole = finite(count), finite(n)
    return ABSENT if part is None or not whole else percent(100 * part / whole)


def span(interval: Row | None, plus: bool = False, digits: int = 1) -> str:
    """An interval as `low to high`; with signs where it is one of differences."""
    ends = [(interval or {}).get(end) for end in ("low", "high")]
    if any(finite(end) is None for end in ends):
        return ABSENT
    return " to ".join(signed(end, digits) if plus else number(end, digits) for end in ends)


def quantity(value: object, unit: str | None) -> str:
    """A claim's value in its unit."""
    known = finite(value)
    if known is None:
        return ABSENT
    if unit in ("percent", "%"):
        return percent(known)
    if unit == "points":
        return f"{signed(known)}\u00a0points"
    return f"{number(known, 2)} {unit or ''}".strip()


def p_value(value: object) -> str:
    """A p value to three places, and no smaller than it can be trusted."""
    known = finite(value)
    return ABSENT if known is None else ("< 0.001" if known < 0.001 else f"{known:.3f}")


def duration(seconds: object) -> str:
    """Seconds as a reader says them."""
    known = finite(seconds)
    if known is None:
        return ABSENT
    if known < 60:
        return f"{known:.1f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def visible(text: object) -> str:
    """Text as it can stand in HTML: control characters as their symbols, lone surrogates replaced."""
    shown = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in str(text))
    return shown.encode("utf-8", "replace").decode("utf-8")


def compact(value: Any) -> str:
    """A JSON value on one line; text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def data_uri(png: bytes, most_bytes: int, longest_side: int) -> str:
    """An image for an `src` attribute; above `most_bytes` it is drawn smaller and as JPEG: the page stays light."""
    if len(png) <= most_bytes:
        return "data:image/png;base64," + base64.b64encode(png).decode()
    with Image.open(io.BytesIO(png)) as image:
        smaller = image.convert("RGB")
    smaller.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    smaller.save(out, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # any key of a file may be absent; filters show a dash
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (number, signed, percent, share, span, quantity, p_value, duration, visible, compact):
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
    for name, node in (resolved.get("recipe") or {}).items():
        if name != "variants":
            section = name if isinstance(node, Mapping) and "source" not in node else "recipe"
            sections.setdefault(section, []).extend(walk(name, node))
    return {name: shown for name, shown in sections.items() if shown}


def _by_chance(split: str, item: str) -> str:
    # An order that nobody chose and that is the same on every machine: the samples are not hand-picked.
    return hashlib.sha256(f"{split}/{item}".encode()).hexdigest()


def _kind(before: Row, after: Row) -> str:
    if before.get("correct"):
        return "still right" if after.get("correct") else "broken"
    return "fixed" if after.get("correct") else "still wrong"


def _sample(inputs: ReportInputs, split: str, item: str, kind: str, answers: Sequence[tuple[str, Row]]) -> Sample:
    image = data_uri(inputs.image_of(split, item), IMAGE_BYTES, IMAGE_SIDE) if inputs.image_of else None
    return Sample(split, item, kind, str(answers[0][1].get("prompt", "")), answers[0][1].get("truth"), image, answers)


def _by_item(rows: Sequence[Row]) -> dict[str, Row]:
    return {str(row.get("item")): row for row in rows}


def choose_samples(inputs: ReportInputs, most: int = SAMPLES) -> list[Sample]:
    """At most `most` items answered before and after training: kinds by `TURNS`, in a kind by sha256 of the name."""
    pools: dict[str, list[tuple[str, str, list[tuple[str, Row]]]]] = {kind: [] for kind in KINDS}
    for split, by_condition in inputs.outputs.items():
        rows = {condition: _by_item(lines) for condition, lines in by_condition.items()}
        before, after = rows.get("base-think", {}), rows.get("trained-think", {})
        for item in before.keys() & after.keys():
            answers = [(CONDITION_WORDS[c], rows[c][item]) for c in CONDITION_WORDS if item in rows.get(c, {})]
            pools[_kind(before[item], after[item])].append((split, item, answers))
    for pool in pools.values():
        pool.sort(key=lambda entry: _by_chance(*entry[:2]), reverse=True)
    chosen: list[Sample] = []
    for kind in (*TURNS, *(tuple(KINDS) * most)):
        if pools[kind] and len(chosen) < most:
            split, item, answers = pools[kind].pop()
            chosen.append(_sample(inputs, split, item, kind, answers))
    return sorted(chosen, key=lambda sample: list(KINDS).index(sample.kind))


def _name_of(inputs: ReportInputs) -> tuple[str, str, Any]:
    recipe = inputs.resolved.get("recipe") or {}
    name = inputs.verdict.get("recipe") or recipe.get("name") or "unnamed"
    variant = inputs.verdict.get("variant") or inputs.resolved.get("variant") or "unnamed"
    seed = inputs.verdict.get("seed", inputs.manifest.get("seed", ABSENT))
    return str(name), str(variant), seed


def _common(inputs: ReportInputs) -> dict[str, Any]:
    name, variant, seed = _name_of(inputs)
    recipe = inputs.resolved.get("recipe") or {}
    size = inputs.verdict.get("size") or recipe.get("size")
    return {
        "recipe": name, "variant": variant, "seed": seed, "size": size, "title": recipe.get("title") or name,
        "upstream": recipe.get("upstream") or ABSENT, "scores": inputs.verdict.get("scores") or {},
        "comparisons": inputs.verdict.get("comparisons") or {}, "manifest": inputs.manifest,
        "miniature": size == "miniature", "condition_words": CONDITION_WORDS, "kinds": KINDS, "absent": ABSENT,
    }  # fmt: skip


def build_report(inputs: ReportInputs) -> str:
    """The page of one finished run as HTML text."""
    common = _common(inputs)
    verdict, scores = inputs.verdict, common["scores"]
    references = verdict.get("reference_rows") or []
    return _templates().get_template("report.html.j2").render(
        **common, verdict=verdict, claims=verdict.get("claims") or [], references=references,
        bars=Markup(figures.accuracy_bars(scores)),
        curves=Markup(figures.training_curves(inputs.metrics)), window=figures.smoothing_window(inputs.metrics),
        strip=Markup(figures.reference_strip(scores, common["comparisons"], references, common["variant"])),
        samples=choose_samples(inputs), settings=shown_settings(inputs.resolved),
        sheets={split: data_uri(png, SHEET_BYTES, SHEET_SIDE) for split, png in inputs.contact_sheets.items()},
    )  # fmt: skip


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
        items = [_by_item((run.outputs.get(split) or {}).get("trained-think") or []) for run in runs]
        found += [(split, item) for item in items[0] if all(item in other for other in items)]
    if not found:
        return None
    split, item = min(found, key=lambda entry: _by_chance(*entry))
    answers = [
        (CONDITION_WORDS[condition], rows[item])
        for condition in ("base-think", "base-direct")
        if item in (rows := _by_item(runs[0].outputs[split].get(condition) or []))
    ]
    answers += [(_name_of(run)[1], _by_item(run.outputs[split]["trained-think"])[item]) for run in runs]
    return _sample(runs[0], split, item, "", answers)


def _controls(runs: Sequence[ReportInputs]) -> list[tuple[list[str], Row]]:
    """The base model's scores with the variants they belong to: one entry when all runs share them, as they should."""
    found: list[tuple[list[str], Row]] = []
    for run in runs:
        scores = run.verdict.get("scores") or {}
        base = {s: {c: row for c, row in by.items() if c.startswith("base")} for s, by in scores.items()}
        same = next((variants for variants, other in found if other == base), None)
        if same is None:
            found.append(([_name_of(run)[1]], base))
        else:
            same.append(_name_of(run)[1])
    return found


def build_comparison(inputs: ComparisonInputs) -> str:
    """The page that sets the variants of one recipe side by side, as HTML text.

    Raises BadInput when there is no run, when the runs are of several recipes, or when two have the same factors.
    """
    if not inputs.runs:
        raise BadInput("there is no run to compare; give one run directory per variant")
    names = sorted({_name_of(run)[0] for run in inputs.runs})
    if len(names) > 1:
        raise BadInput(f"the runs are of several recipes, {', '.join(names)}; compare the variants of one recipe")
    cells: dict[tuple[str, str], ReportInputs] = {}
    for run in inputs.runs:
        if _factors(run) in cells:
            raise BadInput(f"two runs have format_match and images_in_logprobs {_factors(run)}; give one run of each")
        cells[_factors(run)] = run
    order = [(match, images) for images in IMAGE_LEVELS for match in FORMAT_LEVELS]
    runs = [cells[key] for key in order if key in cells] or list(inputs.runs)
    factors = {_name_of(run)[1]: _factors(run) for run in runs}
    curves = figures.comparison_curves({_name_of(run)[1]: run.metrics for run in runs}, factors)
    return _templates().get_template("comparison.html.j2").render(
        **_common(runs[0]),
        cells={key: {**_common(run), "outcome": run.verdict.get("outcome")} for key, run in cells.items()},
        controls=_controls(runs), factors=factors, format_levels=FORMAT_LEVELS, image_levels=IMAGE_LEVELS,
        reading=factor_reading({key: _format_share(cells[key]) if key in cells else None for key in order}),
        curves=Markup(curves), window=max(figures.smoothing_window(run.metrics) for run in runs),
        styles=figures.line_styles(factors, factors), sample=_shared_sample(runs),
    )  # fmt: skip
