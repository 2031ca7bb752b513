"""What a page shows of a distillation: how many came through each step, and what the filter let through.

Pure, as the page is: it takes what the stage's distill.json holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from r1mm.report.figures import CONTROL, INK, LINE, MUTED, OTHER, TRAINED, Row, draw_panel, finite

# The steps in words, in their order.
STEPS = {
    "questions": "questions in CLEVR's words",
    "for a number": "that ask for a number",
    "asked": "asked, with the count of all",
    "answered": "answered, and not cut",
    "passed": "passed by the filter",
    "examples": "examples",
}
MISTAKES = {
    "none": "none: sound",
    "cancels": "two that cancel",
    "guesses": "a guess",
    "misstates": "states another number",
    "forgets": "forgets one",
    "repeats": "repeats one",
    "miscounts": "concludes wrongly",
}
_LEFT = 170.0  # of a panel, for the words beside its bars


def _bars(axes: Axes, words: Sequence[str], values: Sequence[tuple[float, str]], paints: Sequence[str]) -> None:
    """Horizontal bars from the top down, each with its words before it and a text behind it."""
    places = range(len(words))
    axes.barh(list(places), [value for value, _ in values], height=0.62, color=list(paints))
    most = max((value for value, _ in values), default=1) or 1
    for place, (value, text) in zip(places, values, strict=True):
        axes.text(value + most * 0.015, place, text, va="center", ha="left", color=INK)
    axes.set_yticks(list(places), list(words))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.set_xlim(0, most * 1.22)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=0.8)


def _steps_panel(steps: Mapping[str, int]) -> str:
    known = [(words, steps[name]) for name, words in STEPS.items() if name in steps]
    spoken = "; ".join(f"{words}: {count}" for words, count in known)

    def draw(axes: Axes) -> None:
        paints = [OTHER if words != STEPS["examples"] else TRAINED for words, _ in known]
        _bars(axes, [words for words, _ in known], [(count, f"{count:,}") for _, count in known], paints)

    height = 60.0 + 26 * len(known)
    return draw_panel("distill-steps", "How many came through", f"By step. {spoken}", height, draw, _LEFT)


def _mistakes_panel(mistakes: Mapping[str, Row]) -> str:
    known = [(words, mistakes[name]) for name, words in MISTAKES.items() if name in mistakes]
    shares = [(words, 100 * row["passed"] / row["made"], row) for words, row in known if row.get("made")]
    spoken = "; ".join(f"{words}: {row['passed']} of {row['made']}" for words, _, row in shares)

    def draw(axes: Axes) -> None:
        axes.barh(range(len(shares)), [100] * len(shares), height=0.62, color=LINE)
        values = [(share, f"{row['passed']} of {row['made']}") for _, share, row in shares]
        paints = [TRAINED if words == MISTAKES["none"] else CONTROL for words, *_ in shares]
        _bars(axes, [words for words, *_ in shares], values, paints)
        axes.set_xlim(0, 122)

    height = 60.0 + 26 * len(shares)
    title = "What passed, by the mistake made"
    return draw_panel("distill-mistakes", title, f"Passed of made. {spoken}", height, draw, _LEFT)


def distilled_section(found: Row) -> dict[str, Any]:
    """What the template shows of distill.json; empty where there is none."""
    if not found:
        return {}
    report: Row = found.get("filter") or {}
    rules = str(found.get("rules"))
    patterns = {
        name: [row for row in rows if row["valid"] + row["mismatch"] + row["unparseable"]]
        for name, rows in (report.get("patterns") or {}).items()
    }
    return {
        "rules": rules,
        "steps": found.get("steps") or {},
        "panels": Markup(
            "\n".join([_steps_panel(found.get("steps") or {}), _mistakes_panel(found.get("mistakes") or {})])
        ),
        "patterns": patterns,
        # The rules that decided first.
        "traces": dict(sorted((report.get("traces") or {}).items(), key=lambda entry: entry[0] != rules)),
        "good": finite(report.get("good")),
        "records": finite(report.get("records")),
    }
