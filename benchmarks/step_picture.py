"""The picture of `step.py`: a GRPO step of stock TRL above one of r1mm, phases as stacked bars on one time axis."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from step_phases import (
    BACKWARD,
    DECODING,
    FORWARD,
    OPTIMIZER,
    OTHER,
    PHASES,
    PREFILL,
    PREPARE,
    REFERENCE_REST,
    REWARDS,
    TOWER_BACKWARD,
)

from r1mm.report.figures import INK, LINE, MUTED, PAPER, SMALL, TEXT, draw_panel

# The vision tower is one colour family, so that what sharing removes is seen at once; the rest after Okabe and Ito.
_TOWER, _TOWER_BACKWARD = "#d55e00", "#e69f00"
PAINT = {
    PREPARE: "#cc79a7",
    "generation: tower": _TOWER,
    PREFILL: "#56b4e9",
    DECODING: "#0072b2",
    REWARDS: "#7b8794",
    "reference: tower": _TOWER,
    REFERENCE_REST: "#009e73",
    "policy: tower": _TOWER,
    FORWARD: "#66c2a4",
    TOWER_BACKWARD: _TOWER_BACKWARD,
    BACKWARD: "#7f6fb0",
    OPTIMIZER: "#566270",
    OTHER: "#b8c0ca",
}
_NAMES = {
    "generation: tower": "tower, forward",
    TOWER_BACKWARD: "tower, backward",
    PREFILL: "prefill",
    DECODING: "decoding",
    REFERENCE_REST: "reference",
    FORWARD: "policy, forward",
    BACKWARD: "policy, backward",
}
_TITLES = {"stock": "stock TRL", "r1mm": "r1mm, images shared in a group"}


def draw_step(seconds: Mapping[str, Mapping[str, float]], title: str = "A GRPO step, phase by phase") -> str:
    """One `<svg>`: `seconds[side][phase]` of sides `stock` and `r1mm`, drawn in the order of a step."""
    totals = {side: sum(phases.values()) for side, phases in seconds.items()}
    longest = max(totals.values())
    spoken = "; ".join(
        f"{_TITLES[side]} {totals[side]:.2f} s: "
        + ", ".join(f"{phase} {phases[phase]:.2f}" for phase in PHASES if phases[phase] >= 0.005 * longest)
        for side, phases in seconds.items()
    )

    def draw(axes: Axes) -> None:
        for y, side in enumerate(seconds):
            start = 0.0
            for phase in PHASES:
                length = seconds[side][phase]
                axes.barh(y, length, left=start, height=0.42, color=PAINT[phase], edgecolor=PAPER, linewidth=0.6)
                start += length
            axes.text(0, y - 0.28, _TITLES[side], va="bottom", fontsize=SMALL, color=INK)
            axes.text(
                longest, y - 0.28, f"{totals[side]:.2f} s", va="bottom", ha="right", fontsize=TEXT, fontweight="bold"
            )
        axes.set_ylim(1.35, -0.75)
        axes.set_xlim(0, longest)
        axes.set_yticks([])
        axes.set_xlabel("seconds", color=MUTED)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        shown = [phase for phase in PHASES if phase not in ("reference: tower", "policy: tower")]
        axes.legend(
            handles=[Patch(color=PAINT[phase], label=_NAMES.get(phase, phase)) for phase in shown],
            loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, frameon=False, fontsize=SMALL,
            labelcolor=INK, handlelength=1.0, handleheight=1.0, columnspacing=1.4, borderpad=0,
        )  # fmt: skip

    return _with_room(draw_panel("step", title, f"{title}. {spoken}", 230, draw, left=12.0))


def _with_room(svg: str) -> str:
    """The panel with room below its axes for the key, and a ground of its own: a file has no page around it."""
    box = svg.split('viewBox="')[1].split('"')[0]
    width, height = (float(part) for part in box.split()[2:])
    taller = f"{height + 84:g}"
    svg = svg.replace(f'"{box}"', f'"0 0 {width:g} {taller}"', 1)
    head, body = svg.split(">", 1)
    return f'{head}>\n<rect width="{width:g}" height="{taller}" fill="var(--paper, #ffffff)"/>{body}\n'
