"""How much of a gain is form, as a page shows it: a sentence and a figure, from the verdict's `form`."""

import functools
import re
from collections.abc import Mapping

from matplotlib.axes import Axes

from r1mm.judge.form import FormEffect, form_words
from r1mm.report.figures import CONTROL, INK, LINE, MUTED, OTHER, PAPER, SMALL, TRAINED, Row, draw_panel
from r1mm.report.words import signed

# Key in the verdict, words, paint.
PARTS = (
    ("gain", "gain, answers in the form asked for", INK),
    ("parsing", "of it by parsing: more answers can be read", CONTROL),
    ("answering", "of it by answering: more of those are right", TRAINED),
    ("forced", "gain when every output is read by force", OTHER),
)


def sentence(split: str, effect: Row) -> str:
    """What the parts of one split's gain say, with a page's minus signs."""
    return re.sub(r"(?<!\w)-(?=\d)", "\u2212", form_words(split, FormEffect.model_validate(effect)))


def _draw(axes: Axes, effect: Row) -> None:
    axes.axvline(0, color=MUTED, linewidth=1)
    ends = [0.0]
    for y, (key, words, paint) in enumerate(PARTS):
        part = effect[key]
        low, high = part["interval"]["low"], part["interval"]["high"]
        ends += [low, high]
        axes.hlines(y, low, high, color=paint, linewidth=2.2)
        axes.plot([part["points"]], [y], "D", color=paint, markersize=7)
        axes.text(
            0, y - 0.28, f"{words}: {signed(part['points'])}", va="bottom", fontsize=SMALL, color=INK,
            transform=axes.get_yaxis_transform(), bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    space = 0.08 * (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - space, max(ends) + space)
    axes.set_ylim(len(PARTS) - 0.6, -1.0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("points")
    axes.grid(axis="x", color=LINE, linewidth=0.8)


def form_figure(form: Mapping[str, Row]) -> str:
    """One panel per split: the gain, its two parts and the gain by force, each with its 95 % interval."""
    return "\n".join(
        draw_panel(
            f"form{index}",
            f"{split}: what the gain is made of",
            sentence(split, effect),
            230,
            functools.partial(_draw, effect=effect),
            left=12.0,
        )
        for index, (split, effect) in enumerate(form.items())
    )
