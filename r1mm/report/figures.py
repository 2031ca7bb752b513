"""The figures of a report as inline SVG.  They draw the verdict and the metrics; they compute no result of their own.

Every function returns one or several `<svg>` elements as text, one per panel, so that a page can set them side by
side or one below the other.  Text stays text.  Colours are CSS variables with a fallback, so that one figure serves
the light and the dark page.  The same numbers give the same bytes.
"""

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Row]]
Draw = Callable[[Axes], None]

# Matplotlib takes no CSS variable, so each paint is drawn in a colour that stands for it and is exchanged afterwards.
# The series follow Okabe and Ito's palette, whose colours stay apart under the usual colour-vision deficiencies.
INK, MUTED, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
BASE, CONTROL, TRAINED, OTHER = "#010105", "#010106", "#010107", "#010108"
PAINTS = {
    INK: "var(--ink, #18202a)",
    MUTED: "var(--muted, #566270)",
    LINE: "var(--line, #d8dde4)",
    PAPER: "var(--paper, #ffffff)",
    BASE: "var(--series-base, #7b8794)",
    CONTROL: "var(--series-control, #c26a00)",
    TRAINED: "var(--series-trained, #0072b2)",
    OTHER: "var(--series-other, #9aa5b1)",
}

WIDTH = 420.0  # of a panel, in the units of its viewBox; near a telephone's width in pixels, so text keeps its size
TEXT, SMALL = 12.5, 12.0
LABEL = 54  # characters of `SMALL` text that a panel is wide

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.labelsize": SMALL,
    "path.simplify": True,
}

CONDITION_BARS = (
    ("base-think", "base,\nthinking prompt", BASE),
    ("base-direct", "base, direct\nprompt (control)", CONTROL),
    ("trained-think", "trained,\nthinking prompt", TRAINED),
)
Curve = tuple[str, str, str, tuple[float, float] | None]  # key, title, unit, limits
_REWARDS: dict[str, Curve] = {
    name: (f"rewards/{name}_reward/mean", f"{name.capitalize()} reward", "share of completions", (-0.03, 1.03))
    for name in ("accuracy", "letter", "answer", "format")
}
_CURVES: tuple[Curve, ...] = (
    ("completions/mean_length", "Completion length", "tokens, mean", None),
    ("kl", "KL to the starting model", "nats per token", None),
)


# Of supervised fine-tuning, over the tokens that a step teaches.
_TUNING_CURVES: tuple[Curve, ...] = (
    ("loss", "Loss", "nats per token", None),
    ("mean_token_accuracy", "Token accuracy", "share of tokens", (-0.03, 1.03)),
)

_MORE_DASHES: tuple[tuple[int, ...], ...] = ((1, 2), (8, 3, 2, 3), (2, 5))


@dataclass(frozen=True)
class LineStyle:
    """How a variant's curve is drawn: a paint of `PAINTS` and an SVG dash pattern (empty when solid)."""

    paint: str
    dash: tuple[int, ...]

    @property
    def css(self) -> str:
        """The paint as CSS, for a key outside the figure."""
        return PAINTS[self.paint]


def finite(value: object) -> float | None:
    """`value` as a float, or None when it is missing or not a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def series(metrics: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, in order of step, without the steps that do not have it."""
    points = [(finite(row.get("step")), finite(row.get(key))) for row in metrics]
    known = sorted((step, value) for step, value in points if step is not None and value is not None)
    return [step for step, _ in known], [value for _, value in known]


def smoothing_window(metrics: Sequence[Row]) -> int:
    """Steps that a smoothed curve averages over: a twentieth of the run, at least 1 and at most 25."""
    return max(1, min(25, len(metrics) // 20))


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and up to `window` - 1 values before it: no step shows what came after it."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]


def line_styles(variants: Iterable[str], factors: Mapping[str, tuple[str, str]]) -> dict[str, LineStyle]:
    """One style per variant: colour tells format_match, dash tells images_in_logprobs.

    `factors` maps a variant to its (format_match, images_in_logprobs).  Variants of the same factors, which differ in
    other settings, take further dashes, so that no two look alike.
    """
    styles: dict[str, LineStyle] = {}
    for variant in variants:
        match, images = factors.get(variant, ("prefix", "both"))
        paint = CONTROL if match == "prefix" else TRAINED
        dashes = ((5, 3), *_MORE_DASHES) if images == "none" else ((), *_MORE_DASHES)
        free = [dash for dash in dashes if LineStyle(paint, dash) not in styles.values()]
        styles[variant] = LineStyle(paint, free[0] if free else dashes[-1])
    return styles


def _clean(svg: str, name: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font: \1px var(--font, sans-serif)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font, sans-serif)", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg).replace("xlink:href=", "href=").replace(" \n", "\n")
    # Ids must be unique on the page: only those that something refers to stay, under the panel's name.
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda hit: f' id="{name}-{hit[1]}"' if hit[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    for paint, css in PAINTS.items():
        svg = svg.replace(paint, css)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None  # matplotlib always writes one
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size[0]} class="panel" role="img" '
        f'aria-label="{html.escape(description)}" style="stroke-linejoin: round; stroke-linecap: butt">'
    )
    body = re.sub(r"^<svg[^>]*>", "", svg, flags=re.DOTALL)
    return head + re.sub(r"\n\s*", "\n", body).strip()


def draw_panel(name: str, title: str, description: str, height: float, draw: Draw, left: float = 44.0) -> str:
    """One `<svg>`: `name` is unique on its page, `height` in units of the viewBox, `draw` fills the axes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own matplotlibrc must not change the page
        matplotlib.rcParams.update({**_RC, "svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        below, above, right = 40.0, 30.0, 12.0
        axes = figure.add_axes(
            (left / WIDTH, below / height, (WIDTH - left - right) / WIDTH, (height - below - above) / height)
        )
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        draw(axes)
        figure.text(
            4 / WIDTH, 1 - 5 / height, title, ha="left", va="top", fontsize=TEXT + 1, fontweight="bold", color=INK
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _clean(buffer.getvalue(), name, description)


def _grid(axes: Axes, axis: Any = "y") -> None:
    axes.grid(axis=axis, color=LINE, linewidth=0.8)


def _accuracy(row: Row) -> tuple[float | None, float | None, float | None]:
    interval = row.get("interval") or {}
    return finite(row.get("accuracy")), finite(interval.get("low")), finite(interval.get("high"))


def accuracy_bars(scores: Scores) -> str:
    """One panel per split: accuracy (percent) of base-think, base-direct (the control) and trained-think.

    `scores[split][condition]` is the verdict's: `accuracy` and `interval` {low, high} in percent, `n`.
    Missing conditions leave a gap that says so.
    """

    def panel(index: int, split: str, by_condition: Mapping[str, Row]) -> str:
        known = [(words, _accuracy(by_condition.get(key) or {})[0]) for key, words, _ in CONDITION_BARS]
        spoken = "; ".join(f"{w}: {'not measured' if a is None else f'{a:.1f} %'}" for w, a in known).replace("\n", " ")

        def draw(axes: Axes) -> None:
            for x, (key, _, paint) in enumerate(CONDITION_BARS):
                value, low, high = _accuracy(by_condition.get(key) or {})
                if value is None:
                    axes.text(x, 3, "not measured", ha="center", color=MUTED, fontsize=SMALL)
                    continue
                axes.bar(x, value, width=0.58, color=paint)
                if low is not None and high is not None:
                    # A halo keeps the interval readable on the bar, in light and in dark.
                    axes.vlines(x, low, high, color=PAPER, linewidth=5)
                    axes.vlines(x, low, high, color=INK, linewidth=1.6)
                    axes.hlines([low, high], x - 0.06, x + 0.06, color=INK, linewidth=1.6)
                top = value if high is None else max(value, high)
                axes.text(x, top + 2, f"{value:.1f}", ha="center", va="bottom", fontweight="bold", fontsize=TEXT + 1)
            axes.set_xlim(-0.5, len(CONDITION_BARS) - 0.5)
            axes.set_ylim(0, 112)
            axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
            axes.set_xticks(range(len(CONDITION_BARS)), [words for _, words, _ in CONDITION_BARS])
            axes.tick_params(axis="x", labelsize=SMALL, labelcolor=INK, pad=5)
            _grid(axes)

        items = [int(row["n"]) for row in by_condition.values() if row and "n" in row]
        count = f", {max(items)} items" if items else ""
        return draw_panel(f"bars{index}", f"{split}{count}", f"Accuracy on {split}. {spoken}", 262, draw)

    return "\n".join(panel(i, split, scores[split]) for i, split in enumerate(scores))


def _curve_limits(axes: Axes, limits: tuple[float, float] | None, drawn: Sequence[float]) -> None:
    if limits is not None:
        axes.set_ylim(*limits)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    elif drawn:
        top = max(drawn)
        axes.set_ylim(min(0.0, min(drawn)), top * 1.08 if top > 0 else 1.0)
        axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.set_xlabel("training step")
    axes.margins(x=0.01)
    _grid(axes)


def _absent(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])


def _curves(metrics: Iterable[Row], training: str) -> list[Curve]:
    """Of GRPO the rewards that were counted (of R1-V's two, where none was recorded), mean completion length, KL."""
    if training == "sft":
        return list(_TUNING_CURVES)
    recorded = {key for row in metrics for key in row}
    counted = [curve for curve in _REWARDS.values() if curve[0] in recorded]
    return [*(counted or (_REWARDS["accuracy"], _REWARDS["format"])), *_CURVES]


def training_curves(metrics: Sequence[Row], training: str = "grpo") -> str:
    """A panel each over training steps: the rewards counted, mean completion length (tokens), KL; or loss and accuracy.

    Thin: every step.  Thick: the mean of the last `smoothing_window` steps.  Empty text when there are no metrics.
    """

    def panel(index: int, key: str, title: str, unit: str, limits: tuple[float, float] | None) -> str:
        steps, values = series(metrics, key)
        thick = smoothed(values, smoothing_window(metrics))

        def draw(axes: Axes) -> None:
            if not values:
                return _absent(axes)
            if smoothing_window(metrics) > 1:
                axes.plot(steps, values, color=TRAINED, linewidth=0.8, alpha=0.35)
            axes.plot(steps, thick, color=TRAINED, linewidth=2.2)
            _curve_limits(axes, limits, values)

        spoken = f"from {thick[0]:.3g} to {thick[-1]:.3g} over {len(values)} steps" if values else "not recorded"
        return draw_panel(f"{training}{index}", f"{title} ({unit})", f"{title}, {unit}: {spoken}", 214, draw)

    return "\n".join(panel(i, *curve) for i, curve in enumerate(_curves(metrics, training))) if metrics else ""


def comparison_curves(
    metrics_by_variant: Mapping[str, Sequence[Row]],
    factors: Mapping[str, tuple[str, str]] | None = None,
    training: str = "grpo",
) -> str:
    """The panels of `training_curves` with one smoothed line per variant on shared axes.

    Lines are drawn as `line_styles` says; the page gives the key.  Empty text when no variant has metrics.
    """
    styles = line_styles(metrics_by_variant, factors or {})

    def panel(index: int, key: str, title: str, unit: str, limits: tuple[float, float] | None) -> str:
        lines = {}
        for variant, metrics in metrics_by_variant.items():
            steps, values = series(metrics, key)
            if values:
                lines[variant] = (steps, smoothed(values, smoothing_window(metrics)))

        def draw(axes: Axes) -> None:
            if not lines:
                return _absent(axes)
            for variant, (steps, values) in lines.items():
                style = styles[variant]
                dashes = {"dashes": style.dash} if style.dash else {}
                axes.plot(steps, values, color=style.paint, linewidth=2.0, **dashes)  # type: ignore[arg-type]
            _curve_limits(axes, limits, [value for _, values in lines.values() for value in values])

        spoken = "; ".join(f"{name} ends at {values[-1]:.3g}" for name, (_, values) in lines.items()) or "not recorded"
        return draw_panel(f"compare-{training}{index}", f"{title} ({unit})", f"{title}, {unit}: {spoken}", 236, draw)

    rows = [row for metrics in metrics_by_variant.values() for row in metrics]
    return "\n".join(panel(i, *curve) for i, curve in enumerate(_curves(rows, training))) if rows else ""


def percent_right(measured: Row) -> float | None:
    """Accuracy in percent of a reference row's condition, from `right` of `n`."""
    n, right = finite(measured.get("n")), finite(measured.get("right"))
    return None if not n or right is None else 100.0 * right / n


def _reference_groups(rows: Sequence[Row], split: str, gain: bool, variant: str) -> dict[tuple[str, str], list[float]]:
    groups: dict[tuple[str, str], list[float]] = {}

    def own_variant_first(row: Row) -> tuple[bool, str, str]:
        return row.get("variant") != variant, str(row.get("variant")), str(row.get("who"))

    for row in sorted(rows, key=own_variant_first):
        results = (row.get("results") or {}).get(split) or {}
        value = percent_right(results.get("trained-think") or {})
        start = percent_right(results.get("base-think") or {})
        if gain:
            value = None if value is None or start is None else value - start
        if value is not None:
            groups.setdefault((str(row.get("variant", "")), str(row.get("who", ""))), []).append(value)
    return groups


def reference_strip(scores: Scores, comparisons: Mapping[str, Row], reference_rows: Sequence[Row], variant: str) -> str:
    """Two panels per split: accuracy after training (percent) and gain (points), this run beside the reference rows.

    One dot per seed, one line per variant and source; the run's own variant stands first and in colour.  The diamond is
    this run with its 95 % interval.  Empty text when no reference row has a value.
    """

    def panel(name: str, split: str, gain: bool) -> str:
        groups = _reference_groups(reference_rows, split, gain, variant)
        if gain:
            own = (comparisons.get(split) or {}).get("gain") or {}
            value, interval = finite(own.get("points")), own.get("interval") or {}
        else:
            own = scores[split].get("trained-think") or {}
            value, interval = finite(own.get("accuracy")), own.get("interval") or {}
        low, high = finite(interval.get("low")), finite(interval.get("high"))
        if not groups:
            return ""
        lines = [(f"this run ({variant})", [value] if value is not None else [])]
        lines += [(f"{group}: {who}", values) for (group, who), values in groups.items()]

        def draw(axes: Axes) -> None:
            for y, (label, values) in enumerate(lines):
                axes.axhline(y, color=LINE, linewidth=0.8, zorder=0)
                shown = label if len(label) <= LABEL else label[: LABEL - 1] + "…"
                axes.text(
                    0, y - 0.22, shown, transform=axes.get_yaxis_transform(), va="bottom", fontsize=SMALL,
                    fontweight="bold" if y == 0 else "normal", color=INK if y == 0 else MUTED,
                )  # fmt: skip
                if y == 0:
                    if low is not None and high is not None:
                        axes.hlines(y, low, high, color=TRAINED, linewidth=2.4)
                    axes.plot(values, [y] * len(values), "D", color=TRAINED, markersize=9)
                else:
                    same = label.startswith(f"{variant}: ")
                    paint = TRAINED if same else OTHER
                    axes.plot(
                        values, [y] * len(values), "o", markersize=8, markerfacecolor="none", markeredgecolor=paint,
                        markeredgewidth=1.8,
                    )  # fmt: skip
            axes.set_ylim(len(lines) - 0.6, -0.85)
            axes.set_yticks([])
            every = [v for _, values in lines for v in values] + [v for v in (low, high) if v is not None]
            if gain:
                for y in range(len(lines)):
                    axes.vlines(0, y - 0.14, y + 0.14, color=MUTED, linewidth=1.4, zorder=1)
                room = max(5.0, 0.06 * (max([0.0, *every]) - min([0.0, *every])))
                axes.set_xlim(min([0.0, *every]) - room, max([0.0, *every]) + room)
                axes.set_xlabel("points, trained minus base")
            else:
                axes.set_xlim(-2, 102)
                axes.set_xlabel("percent right")
            axes.locator_params(axis="x", nbins=6)

        title = f"{split}: " + ("gain by training" if gain else "accuracy after training")
        spoken = "; ".join(
            f"{label}: " + (", ".join(f"{v:.1f}" for v in values) or "not measured") for label, values in lines
        )
        return draw_panel(name, title, f"{title}. {spoken}", 76 + 38 * len(lines), draw, left=12.0)

    panels = [
        panel(f"strip{i}{'g' if gain else 'a'}", split, gain)
        for i, split in enumerate(scores)
        for gain in (False, True)
    ]
    return "\n".join(text for text in panels if text)
