"""Published, third-party and our own numbers of one split: one table and one figure, grouped by what was measured."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from r1mm.expected import Expected, PublishedRow, ReferenceRow
from r1mm.judge.statistics import wilson
from r1mm.recipe import CONDITIONS
from r1mm.report.figures import (
    BASE,
    CONTROL,
    INK,
    LABEL,
    LINE,
    MUTED,
    OTHER,
    PAPER,
    SMALL,
    TRAINED,
    Row,
    draw_panel,
    finite,
)

GROUPS = {
    "base-think": "Untrained, thinking prompt",
    "base-direct": "Untrained, direct prompt (control)",
    "trained-think": "Trained, thinking prompt",
    "other": "Other training, other models",
}
_PAINT = {"base-think": BASE, "base-direct": CONTROL, "trained-think": TRAINED, "other": OTHER}
_UNKNOWN = "not known"  # as Expected.lines has it
_MARK = {"authors": "s", "third party": "o", "us": "D"}


@dataclass(frozen=True)
class ShownLine:
    """One line: who measured what, in percent, with Wilson's 95 % interval where the number of items is known.

    `group`: a key of `GROUPS`; `detail`: what it leaves open, such as the number of steps or the model.  `this_run`: it
    is of a run that the page is about, and `refused` that this run cannot be set against the others.
    """

    group: str
    who: str
    by: str
    detail: str
    accuracy: float
    n: int | None
    interval: Row | None
    code: str
    hardware: str
    note: str
    source: str
    this_run: bool
    refused: bool = False


def _interval(accuracy: float, n: int | None) -> Row | None:
    return wilson(round(accuracy * n / 100), n).scaled(100).model_dump() if n else None


def _group(condition: str) -> str:
    # A published row's condition may go on, as in `trained-think after 100 steps`.
    return next((name for name in CONDITIONS if condition.split(" ")[0] == name), "other")


def _of_others(verdict: Row, split: str) -> list[ShownLine]:
    expected = Expected(
        recipe=str(verdict.get("recipe")),
        claims=[],
        reference_rows=[ReferenceRow.model_validate(row) for row in verdict.get("reference_rows") or []],
        published_rows=[PublishedRow.model_validate(row) for row in verdict.get("published_rows") or []],
        variant_names={},
    )
    return [
        ShownLine(
            group=_group(line.condition),
            who=line.who,
            by=line.by,
            detail=line.condition.removeprefix(_group(line.condition)).strip()
            if _group(line.condition) in CONDITIONS
            else line.condition,
            accuracy=line.accuracy,
            n=line.n,
            interval=_interval(line.accuracy, line.n),
            code=f"code {line.code}" if line.code == _UNKNOWN else line.code,
            hardware=f"hardware {line.hardware}" if line.hardware == _UNKNOWN else line.hardware,
            note=line.note,
            source=line.source,
            this_run=False,
        )
        for line in expected.lines(split)
    ]


def _of_runs(verdicts: Sequence[Row], split: str) -> list[ShownLine]:
    """The runs' own scores; the base model's once where the runs share it."""
    found: list[ShownLine] = []
    seen: list[tuple[str, Row]] = []
    for verdict in verdicts:
        for condition, score in ((verdict.get("scores") or {}).get(split) or {}).items():
            accuracy = finite(score.get("accuracy"))
            if accuracy is None or (condition != "trained-think" and (condition, score) in seen):
                continue
            seen.append((condition, score))
            found.append(
                ShownLine(
                    group=_group(condition),
                    who=f"this run, {verdict.get('variant')}" if condition == "trained-think" else "this run",
                    by="us",
                    detail="",
                    accuracy=accuracy,
                    n=int(score["n"]) if finite(score.get("n")) else None,
                    interval=score.get("interval"),
                    code=f"{verdict.get('variant')}, seed {verdict.get('seed')}",
                    hardware="",
                    note="not comparable" if verdict.get("comparable") is False else "",
                    source="verdict.json of the run",
                    this_run=True,
                    refused=verdict.get("comparable") is False,
                )
            )
    return found


def shown_lines(verdicts: Sequence[Row]) -> dict[str, list[ShownLine]]:
    """By split, every published, third-party and own number, grouped by what was measured, ours last in a group.

    `verdicts`: one for each run that the page is about, all of one recipe.
    """
    if not verdicts:
        return {}
    splits = [split for verdict in verdicts for split in verdict.get("scores") or {}]
    splits += [row["split"] for row in verdicts[0].get("published_rows") or []]
    order = {name: place for place, name in enumerate(GROUPS)}
    return {
        split: sorted([*_of_others(verdicts[0], split), *_of_runs(verdicts, split)], key=lambda line: order[line.group])
        for split in dict.fromkeys(splits)
    }


def _draw(axes: Axes, placed: Sequence[tuple[int, ShownLine, bool]]) -> None:
    def write(y: float, text: str, color: str, weight: str) -> None:
        axes.text(
            0, y, text, va="bottom", fontsize=SMALL, fontweight=weight, color=color,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip

    for y, line, first in placed:
        if first:
            write(y - 1.05, GROUPS[line.group], INK, "bold")
        axes.axhline(y, color=LINE, linewidth=0.8, zorder=0)
        label = ", ".join(filter(None, (line.who, line.detail, "not comparable" if line.refused else "")))
        label = label if len(label) <= LABEL - 8 else label[: LABEL - 9] + "…"
        write(y - 0.22, f"{label}: {line.accuracy:.1f}", INK if line.this_run else MUTED, "normal")
        paint = _PAINT[line.group]
        if line.interval:
            axes.hlines(y, line.interval["low"], line.interval["high"], color=paint, linewidth=2.2)
        hollow = line.by == "third party" or line.refused
        axes.plot(
            [line.accuracy], [y], _MARK[line.by], color=paint, markersize=9 if line.this_run else 7,
            markerfacecolor=PAPER if hollow else paint, markeredgecolor=paint, markeredgewidth=1.8,
        )  # fmt: skip
    axes.set_ylim(placed[-1][0] + 0.5, -1.6)
    axes.set_xlim(-2, 102)
    axes.set_yticks([])
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("percent right")
    axes.grid(axis="x", color=LINE, linewidth=0.8)


def lines_figure(lines_by_split: Mapping[str, Sequence[ShownLine]]) -> str:
    """One panel per split: a dot for each line, its interval where there is one.  A split of our own alone has none.

    Square: the authors.  Ring: third parties.  Diamond: ours, hollow where not comparable.  Colour: what was measured.
    """
    panels = []
    for index, (split, lines) in enumerate(lines_by_split.items()):
        if all(line.this_run for line in lines):
            continue
        placed: list[tuple[int, ShownLine, bool]] = []
        for line in lines:
            first = not placed or placed[-1][1].group != line.group
            # A new group leaves a place free for its name.
            placed.append((placed[-1][0] + 1 + first if placed else 0, line, first))
        spoken = "; ".join(f"{line.who}, {GROUPS[line.group]} {line.detail}: {line.accuracy:.1f} %" for line in lines)
        panels.append(
            draw_panel(
                f"rows{index}",
                f"{split}: published, third parties, ours",
                f"Accuracy on {split}. {spoken}",
                90 + 30 * (placed[-1][0] + 2),
                functools.partial(_draw, placed=placed),
                left=12.0,
            )
        )
    return "\n".join(panels)
