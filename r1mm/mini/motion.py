"""Short films of solids on the ground, some of which move: what the video miniature is asked about.

A film is a scene and the straight paths of its movers; its pixels are a pure function of it.  No two solids of a film
have one colour, so that a colour names one of them.
A mover comes into the picture from outside, so that there is more of its colour at the end than at the start.  What
only shifts leaves the mean of every colour as it was, and is told from what stands by products of pixels alone, which a
tiny model takes long to find (recipes/video-mini/README.md).
`WORLDS` are the counting miniature's two worlds with solids large enough for 56 pixels and with six colours of the same
*names* in both: what is asked for must have a word that the model knows, so the world out of distribution has other
solids, grounds and shades of these colours, not other colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from r1mm.mini.render import PICTURE_SIZE, Pixels, Place, View, bounding_corners, pixel_coverage, render_clip, view_of
from r1mm.mini.scenes import (
    CLEVR_LIKE,
    GAP_BETWEEN,
    PLACE_EXTENT,
    SUPERCLEVR_LIKE,
    Appearance,
    Scene,
    SceneObject,
    World,
    contrasting_colors,
    footprint,
    inside_picture,
    sample_appearance,
    sample_object,
)

FRAMES = 4
FRAME_SIZE = 56
# As seen: the camera stands on the side of -y and looks along +y.
DIRECTIONS: Mapping[str, Place] = {"left": (-1, 0), "right": (1, 0), "towards": (0, -1), "away": (0, 1)}

# The lengths that a mover's way can have on the ground, in CLEVR's units (the picture is about 8 wide), and how far it
# may lean from its direction, in degrees: far from the 45 at which two directions would meet.
_TRAVELS = np.arange(2.5, 14.0, 0.5)
_LEAN = (-20.0, 20.0)
# So far outside, in widths of the picture, its middle begins at least.
_OUTSIDE = 0.04
_FILM_ATTEMPTS = 400
_PLACE_ATTEMPTS = 24
# Each solid shows this share of its pixels, and a few of them: what stands in the first, the middle and the last frame,
# what moves in the last.
_MIN_VISIBLE_SHARE = 0.6
_MIN_VISIBLE_PIXELS = 12

Places = npt.NDArray[np.float64]

_SIZES = {"small": 0.9, "large": 1.2}
WORLDS: dict[str, World] = {
    "clevr-like": replace(
        CLEVR_LIKE,
        # Without gray and brown: at 56 pixels, after a video codec, one is ground and the other is red in the shade.
        colors={name: rgb for name, rgb in CLEVR_LIKE.colors.items() if name not in ("gray", "brown")},
        sizes=_SIZES,
    ),
    "superclevr-like": replace(
        SUPERCLEVR_LIKE,
        colors={
            "red": (215, 60, 70),
            "blue": (25, 50, 150),
            "green": (40, 150, 70),
            "purple": (165, 80, 215),
            "cyan": (95, 225, 235),
            "yellow": (230, 200, 30),
        },
        sizes=_SIZES,
    ),
}
PALETTE = tuple(WORLDS["clevr-like"].colors)


class Mover(TypedDict):
    """What moves: the object's index in the scene, its direction as seen, and its place on the ground per frame."""

    object: int
    direction: str
    path: list[Place]


class Film(TypedDict):
    """A scene as it is in the first frame, what moves in it, and the number of frames.  JSON-serializable."""

    scene: Scene
    movers: list[Mover]
    frames: int


def sample_film(
    world: World,
    colors: Sequence[str],
    directions: Sequence[str],
    rng: np.random.Generator,
    *,
    filename: str = "",
    frames: int = FRAMES,
    size: int = FRAME_SIZE,
) -> Film:
    """Sample a film with one solid per colour, of which the first move, one per direction.

    Every solid is apart from the others all the time, and at the end lies wholly inside the picture and is seen; the
    movers' middles begin outside it.  What is asked for never gives way to chance: all else is sampled anew until it
    fits.  Depends on `rng` alone.
    Raises ValueError for what cannot be filmed, and where the world has no room for such a film.
    """
    _check_wishes(world, colors, directions, frames)
    for _ in range(_FILM_ATTEMPTS):
        appearance = sample_appearance(world, rng)
        if not set(colors) <= set(contrasting_colors(world, appearance["ground_rgb"])):
            continue
        film = _place_solids(world, colors, directions, appearance, frames, rng)
        if film is None:
            continue
        film["scene"]["image_filename"] = filename
        if all(_all_seen(film, frame, size) for frame in sorted({0, frames // 2, frames - 1})):
            return film
    raise ValueError(
        f"world {world.name!r} has no room for {len(colors)} solids of which {len(directions)} move in "
        f"{_FILM_ATTEMPTS} attempts with the sizes {dict(world.sizes)}; ask for fewer solids or give smaller radii"
    )


def draw_film(film: Film, size: int = FRAME_SIZE) -> Pixels:
    """All frames of a film, (frames, size, size, 3) uint8 RGB.  Raises ValueError for what cannot be drawn."""
    return render_clip(film["scene"], {m["object"]: m["path"] for m in film["movers"]}, film["frames"], size)


def scene_at(film: Film, frame: int) -> Scene:
    """The scene as it is in one frame."""
    scene = film["scene"]
    objects = list(scene["objects"])
    for mover in film["movers"]:
        moved = objects[mover["object"]].copy()
        moved["3d_coords"] = [*mover["path"][frame], moved["3d_coords"][2]]
        objects[mover["object"]] = moved
    return Scene(image_filename=scene["image_filename"], objects=objects, appearance=scene["appearance"])


def _check_wishes(world: World, colors: Sequence[str], directions: Sequence[str], frames: int) -> None:
    unknown = sorted(set(colors) - set(world.colors)) + sorted(set(directions) - set(DIRECTIONS))
    if unknown:
        raise ValueError(
            f"world {world.name!r} has no {unknown[0]!r}; colours are {sorted(world.colors)}, "
            f"directions are {sorted(DIRECTIONS)}"
        )
    if len(set(colors)) != len(colors) or not len(directions) <= len(colors):
        raise ValueError(
            f"colors are {list(colors)} and directions {list(directions)}; name each colour once, and at most as many "
            "directions as colours"
        )
    if frames < 2:
        raise ValueError(f"frames is {frames}; nothing moves in fewer than 2")


def _place_solids(
    world: World,
    colors: Sequence[str],
    directions: Sequence[str],
    appearance: Appearance,
    frames: int,
    rng: np.random.Generator,
) -> Film | None:
    """A film of solids with a place or a way each, their looks appended to `appearance`; None where one found none."""
    view = view_of(appearance["camera"])
    film = Film(scene=Scene(image_filename="", objects=[], appearance=appearance), movers=[], frames=frames)
    taken: list[tuple[Places, float]] = []
    for index, color in enumerate(colors):  # the movers first, for they need the most room
        item, looks = sample_object(world, [color], rng)
        direction = directions[index] if index < len(directions) else None
        path = _find_path(item, looks["radius"], direction, view, taken, frames, rng)
        if path is None:
            return None
        depth, pixel_x, pixel_y = view.project(np.array(item["3d_coords"], np.float32)).tolist()
        item["pixel_coords"] = [pixel_x, pixel_y, depth]
        film["scene"]["objects"].append(item)
        appearance["objects"].append(looks)
        if direction is not None:
            film["movers"].append(Mover(object=index, direction=direction, path=path))
    return film


def _find_path(
    item: SceneObject,
    radius: float,
    direction: str | None,
    view: View,
    taken: list[tuple[Places, float]],
    frames: int,
    rng: np.random.Generator,
) -> list[Place] | None:
    """Places (frames) of a free straight way that ends inside the picture; None without one.

    Its start is written into `item`.  `taken` holds the ways (frames, 2) and footprints of the solids before it, and
    gets this one's.
    """
    reach = footprint(item["shape"]) * radius
    corners = bounding_corners(item, radius)
    middle = float(corners[:, 2].max()) / 2
    ends = rng.uniform(-PLACE_EXTENT, PLACE_EXTENT, (_PLACE_ATTEMPTS, 2))
    ways = np.zeros_like(ends)
    if direction is not None:
        lean = np.deg2rad(rng.uniform(*_LEAN, _PLACE_ATTEMPTS))
        (x, y), cos, sin = DIRECTIONS[direction], np.cos(lean), np.sin(lean)
        ways = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
        ways *= _shortest_way_in(ends, ways, middle, view)[:, None]
    possible = inside_picture(corners, ends, view) & np.isfinite(ways).all(axis=1)
    shares = np.linspace(1, 0, frames)[:, None]
    for end, way in zip(ends[possible], ways[possible], strict=True):
        path = end - shares * way
        if all(_least_distance(path, other) >= reach + far + GAP_BETWEEN for other, far in taken):
            taken.append((path, reach))
            item["3d_coords"] = [*path[0].tolist(), middle]
            return [(float(x), float(y)) for x, y in path]
    return None


def _shortest_way_in(ends: Places, directions: Places, middle: float, view: View) -> Places:
    """The least of `_TRAVELS` (N,) with which a way to each end (N, 2) begins outside the picture; NaN without one.

    `middle` is the height of what goes it.
    """
    starts = ends[:, None] - directions[:, None] * _TRAVELS[:, None]
    seen = view.project(np.concatenate([starts, np.full((*starts.shape[:2], 1), middle)], axis=2).astype(np.float32))
    margin = _OUTSIDE * PICTURE_SIZE
    beyond = (seen[..., 1:] < -margin) | (seen[..., 1:] > PICTURE_SIZE + margin)
    outside = beyond.any(axis=2) & (seen[..., 0] > 1)  # not so near that the camera would be run over
    return np.where(outside.any(axis=1), _TRAVELS[outside.argmax(axis=1)], np.nan)


def _least_distance(path: Places, other: Places) -> float:
    """How close two solids come that go evenly along (frames, 2) and (frames, 2)."""
    apart, turn = path[0] - other[0], (path[-1] - path[0]) - (other[-1] - other[0])
    speed = float(turn @ turn)
    nearest = min(max(-float(apart @ turn) / speed, 0.0), 1.0) if speed else 0.0
    return math.hypot(*(apart + nearest * turn))


def _all_seen(film: Film, frame: int, size: int) -> bool:
    coming = {mover["object"] for mover in film["movers"]} if frame < film["frames"] - 1 else set()
    return all(
        index in coming
        or (
            shown.visible >= _MIN_VISIBLE_PIXELS * (size / FRAME_SIZE) ** 2
            and shown.visible >= _MIN_VISIBLE_SHARE * shown.whole
        )
        for index, shown in enumerate(pixel_coverage(scene_at(film, frame), size))
    )
