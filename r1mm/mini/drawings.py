"""Plane drawings and charts that a question can be asked about, and how they are drawn.

A drawing is a plain dict, JSON-serializable, and its picture is a pure function of it: a rectangle on a grid of cells,
a line with a ray from one of its points and one of the two angles shaded, a circle cut into equal parts of which some
are shaded, or four bars.  Lines and areas alone, no text: to read labels is another skill, for which a tiny model has
no time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypedDict

import numpy as np
from PIL import Image, ImageDraw

from r1mm.mini.render import Pixels

Figure = Literal["rectangle", "angle", "circle", "bars"]
Rgb = tuple[int, int, int]
Range = tuple[float, float]
Point = tuple[float, float]

CELLS, LONGEST = 5, 4  # cells of the grid along a side, and the longest side of a rectangle on it
DEGREES = (30, 45, 60, 90, 120, 135, 150)  # each with what is left of a straight angle
BARS, HIGHEST = 4, 6  # bars of a chart, and the highest value on its grid
DIFFERENCES = (1, 2, 3, 4, 5)
# By the area of a rectangle: its sides.
AREAS: Mapping[int, tuple[tuple[int, int], ...]] = {
    area: tuple((w, area // w) for w in range(1, LONGEST + 1) if area % w == 0 and area // w <= LONGEST)
    for area in (1, 2, 3, 4, 6, 8, 9, 12)
}
# By the share that is shaded: numbers of equal parts and of shaded ones.
PARTS: Mapping[Fraction, tuple[tuple[int, int], ...]] = {
    Fraction(1, 6): ((6, 1),),
    Fraction(1, 4): ((4, 1),),
    Fraction(1, 3): ((3, 1), (6, 2)),
    Fraction(1, 2): ((2, 1), (4, 2), (6, 3)),
    Fraction(2, 3): ((3, 2), (6, 4)),
    Fraction(3, 4): ((4, 3),),
    Fraction(5, 6): ((6, 5),),
}

_FINER = 4  # a picture is drawn so many times larger, and then made smaller, so that edges look smooth
_NOT_HIT = 0.03  # of the picture's side: what is left free at its edges


class Drawing(TypedDict):
    """What is drawn.  `numbers`: width and height of a rectangle in cells; an angle in degrees; parts and shaded parts
    of a circle; the values of the bars.  `places` are what chance decides beyond that, each from 0 to 1.
    """

    figure: Figure
    numbers: list[int]
    places: list[float]
    look: "Look"


class Look(TypedDict):
    """Colours as RGB from 0 to 255; `line` is a line's width as a share of the picture's side."""

    ground: list[int]
    ink: list[int]
    fills: list[list[int]]
    line: float


@dataclass(frozen=True)
class Sheet:
    """What drawings are drawn on and with: grounds, inks and fills with their spread in each channel, and the lines."""

    name: str
    grounds: tuple[Rgb, ...]
    inks: tuple[Rgb, ...]
    fills: tuple[Rgb, ...]
    spread: int
    line: Range


# Wider than paper is, on purpose: a tiny model that has seen one white and one black reads nothing elsewhere.
PAPER = Sheet(
    name="paper",
    grounds=((248, 248, 246), (242, 236, 222), (228, 234, 240), (230, 238, 228)),
    inks=((20, 20, 24), (30, 44, 110), (110, 26, 30), (24, 84, 48)),
    fills=((190, 40, 36), (40, 80, 190), (36, 120, 60), (120, 60, 160), (90, 90, 96)),
    spread=8,
    line=(0.014, 0.026),
)
POSTER = Sheet(
    name="poster",
    grounds=((250, 226, 160), (190, 224, 240), (246, 206, 200), (208, 234, 180)),
    inks=((70, 30, 90), (90, 54, 10), (0, 70, 90)),
    fills=((0, 110, 110), (150, 0, 90), (96, 60, 20), (36, 36, 120), (170, 60, 0)),
    spread=8,
    line=(0.022, 0.036),
)
SHEETS: dict[str, Sheet] = {sheet.name: sheet for sheet in (PAPER, POSTER)}


def sample_look(sheet: Sheet, rng: np.random.Generator) -> Look:
    """Colours and the width of lines."""

    def near(colors: Sequence[Rgb]) -> list[int]:
        channels = np.array(colors[int(rng.integers(len(colors)))]) + rng.integers(-sheet.spread, sheet.spread + 1, 3)
        found: list[int] = np.clip(channels, 0, 255).tolist()
        return found

    ground, ink = near(sheet.grounds), near(sheet.inks)
    order = [sheet.fills[i] for i in rng.permutation(len(sheet.fills))[:BARS]]
    return Look(ground=ground, ink=ink, fills=[near([fill]) for fill in order], line=float(rng.uniform(*sheet.line)))


def sample_drawing(sheet: Sheet, figure: Figure, numbers: Sequence[int], rng: np.random.Generator) -> Drawing:
    """A drawing of `numbers` (see `Drawing`); what they leave open is by chance.  Raises ValueError for others."""
    known = {
        "rectangle": len(numbers) == 2 and all(0 < side <= LONGEST for side in numbers),
        "angle": len(numbers) == 1 and numbers[0] in DEGREES,
        "circle": tuple(numbers) in {cut for cuts in PARTS.values() for cut in cuts},
        "bars": len(numbers) == BARS and all(0 < value <= HIGHEST for value in numbers),
    }
    if not known[figure]:
        raise ValueError(
            f"a {figure} of {list(numbers)} cannot be drawn; rectangles have sides of 1 to {LONGEST}, angles one of "
            f"{DEGREES} degrees, circles one of {sorted(cut for cuts in PARTS.values() for cut in cuts)}, charts "
            f"{BARS} bars of 1 to {HIGHEST}"
        )
    places = rng.uniform(0, 1, 5).tolist()
    return Drawing(figure=figure, numbers=[*map(int, numbers)], places=places, look=sample_look(sheet, rng))


class _Pen:
    """Draws lines and areas in shares of the picture's side, x to the right and y down."""

    def __init__(self, look: Look, size: int) -> None:
        self.side = size * _FINER
        self.image = Image.new("RGB", (self.side, self.side), _rgb(look["ground"]))
        self.draw = ImageDraw.Draw(self.image)
        self.faint = _rgb([(2 * ground + ink) // 3 for ground, ink in zip(look["ground"], look["ink"], strict=True)])
        self.ink, self.width = _rgb(look["ink"]), max(1, round(look["line"] * self.side))

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.side, y * self.side) for x, y in points]

    def area(self, points: Sequence[Point], fill: Rgb) -> None:
        self.draw.polygon(self._scaled(points), fill=fill)

    def line(self, points: Sequence[Point], color: Rgb | None = None, width: float = 1.0) -> None:
        scaled, thick = self._scaled(points), max(1, round(width * self.width))
        self.draw.line(scaled, fill=color or self.ink, width=thick, joint="curve")

    def finished(self) -> Pixels:
        return np.asarray(self.image.reduce(_FINER))


def _rgb(channels: Sequence[int]) -> Rgb:
    red, green, blue = channels
    return red, green, blue


def _at(center: Point, length: float, degrees: float) -> Point:
    """The point that far from `center`, counter-clockwise from the right."""
    angle = math.radians(degrees)
    return center[0] + length * math.cos(angle), center[1] - length * math.sin(angle)


def _fan(center: Point, radius: float, first: float, last: float) -> list[Point]:
    """The outline of a circle's part between two directions in degrees."""
    steps = max(2, math.ceil(abs(last - first) / 6))
    return [center, *(_at(center, radius, first + (last - first) * i / steps) for i in range(steps + 1))]


def _placed(drawing: Drawing, fewest: float, most: float) -> tuple[Point, float]:
    """A place and a size by chance, so that a circle of that size lies inside the picture."""
    size = fewest + (most - fewest) * drawing["places"][0]
    room = 0.5 - _NOT_HIT - size
    x, y = (0.5 + room * (2 * place - 1) for place in drawing["places"][1:3])
    return (x, y), size


def _draw_rectangle(pen: _Pen, drawing: Drawing) -> None:
    (wide, high), places, look = drawing["numbers"], drawing["places"], drawing["look"]
    cell = 0.9 / CELLS
    left, top = 0.04 + 0.02 * places[0], 0.04 + 0.02 * places[1]
    column, row = (int(place * (CELLS - side + 1)) for place, side in zip(places[2:4], (wide, high), strict=True))
    x, y = left + column * cell, top + row * cell
    corners = [(x, y), (x + wide * cell, y), (x + wide * cell, y + high * cell), (x, y + high * cell)]
    pen.area(corners, _rgb(look["fills"][0]))
    for cut in range(CELLS + 1):
        pen.line([(left + cut * cell, top), (left + cut * cell, top + 0.9)], pen.faint, 0.5)
        pen.line([(left, top + cut * cell), (left + 0.9, top + cut * cell)], pen.faint, 0.5)
    pen.line([*corners, *corners[:2]])


def _draw_angle(pen: _Pen, drawing: Drawing) -> None:
    (degrees,), places = drawing["numbers"], drawing["places"]
    length = 0.42 + 0.04 * places[0]
    turned, mirrored = 8 * (places[1] - 0.5), places[2] < 0.5
    corner = (0.5 + 0.04 * (places[3] - 0.5), 0.68 + 0.04 * (places[4] - 0.5))
    first, last = (180.0, 180.0 - degrees) if mirrored else (0.0, float(degrees))
    pen.area(_fan(corner, 0.8 * length, first + turned, last + turned), _rgb(drawing["look"]["fills"][0]))
    pen.line([_at(corner, length, turned), _at(corner, length, 180 + turned)])
    pen.line([corner, _at(corner, length, last + turned)])


def _draw_circle(pen: _Pen, drawing: Drawing) -> None:
    (parts, shaded), look = drawing["numbers"], drawing["look"]
    center, radius = _placed(drawing, 0.4, 0.44)
    start, part = 360 * drawing["places"][3], 360 / parts
    pen.area(_fan(center, radius, start, start + shaded * part), _rgb(look["fills"][0]))
    pen.line([*_fan(center, radius, 0, 360)[1:], *_fan(center, radius, 0, 360)[1:3]])
    for cut in range(parts):
        pen.line([center, _at(center, radius, start + cut * part)])


def _draw_bars(pen: _Pen, drawing: Drawing) -> None:
    values, places, look = drawing["numbers"], drawing["places"], drawing["look"]
    left, right = 0.08 + 0.06 * places[0], 0.92 - 0.06 * places[1]
    foot, top = 0.92 - 0.05 * places[2], 0.07 + 0.05 * places[3]
    step, unit = (right - left) / BARS, (foot - top) / HIGHEST
    for value in range(1, HIGHEST + 1):
        pen.line([(left, foot - value * unit), (right, foot - value * unit)], pen.faint, 0.5)
    for i, value in enumerate(values):
        x, y = left + (i + 0.5) * step, foot - value * unit
        half = step * (0.26 + 0.1 * places[4])
        corners = [(x - half, foot), (x - half, y), (x + half, y), (x + half, foot)]
        pen.area(corners, _rgb(look["fills"][i]))
    pen.line([(left, top), (left, foot), (right, foot)])


_DRAW = {"rectangle": _draw_rectangle, "angle": _draw_angle, "circle": _draw_circle, "bars": _draw_bars}


def draw(drawing: Drawing, size: int) -> Pixels:
    """The picture of a drawing -> (size, size, 3) uint8 RGB.  The same drawing gives the same pixels."""
    pen = _Pen(drawing["look"], size)
    _DRAW[drawing["figure"]](pen, drawing)
    return pen.finished()
