"""Worlds of objects to count, and scenes sampled from them.

`CLEVR_LIKE` is the world to train in; `SUPERCLEVR_LIKE`, with other solids, colours and grounds, is the world to be
tested in. What the two share is the act of counting, as between CLEVR and Super-CLEVR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from r1mm.mini.rays import Floats
from r1mm.mini.render import (
    MATERIALS,
    PICTURE_SIZE,
    SOLIDS,
    View,
    bounding_corners,
    pixel_coverage,
    view_of,
)

MAX_OBJECTS = 10
MIN_VISIBLE_PIXELS = 50
MIN_VISIBLE_SHARE = 0.6

_SCENE_ATTEMPTS = 400
_PLACE_ATTEMPTS = 24
PLACE_EXTENT = 4.2
GAP_BETWEEN = 0.3
_PICTURE_MARGIN = 1.5
# A gray object on gray ground must still differ from it: Euclidean distance of RGB in 0..1.
_MIN_CONTRAST = 0.24

Rgb = tuple[int, int, int]
Range = tuple[float, float]


class Camera(TypedDict):
    """A pinhole without roll. Lengths in CLEVR's units; `half_field` is the tangent of half the field of view."""

    position: list[float]
    target: list[float]
    half_field: float


class Light(TypedDict):
    """A distant lamp: `direction` is the unit vector towards it; `strength` and `ambient` multiply colours."""

    direction: list[float]
    strength: float
    ambient: float


class ObjectAppearance(TypedDict):
    """What CLEVR's form leaves out about one object: its very colour, RGB in 0..1, and its radius."""

    rgb: list[float]
    radius: float


class Appearance(TypedDict):
    """All that the renderer needs beyond CLEVR's form; `objects` runs parallel to the scene's."""

    world: str
    ground_rgb: list[float]
    light: Light
    camera: Camera
    objects: list[ObjectAppearance]


# The functional form, because a key of CLEVR's starts with a digit. Rotation in degrees; pixel_coords is
# [x, y, depth] of the object's centre in a picture of PICTURE_SIZE pixels, y downwards.
SceneObject = TypedDict(
    "SceneObject",
    {
        "size": str,
        "color": str,
        "material": str,
        "shape": str,
        "rotation": float,
        "3d_coords": list[float],
        "pixel_coords": list[float],
    },
)


class Scene(TypedDict):
    """One picture's content in the form of CLEVR's scene JSON, and what it takes to draw it again."""

    image_filename: str
    objects: list[SceneObject]
    appearance: Appearance


@dataclass(frozen=True)
class World:
    """What scenes are drawn from. Each `Range` is (lowest, highest), sampled uniformly.

    Colours and grounds are RGB in 0..255; radii and distances in CLEVR's units; angles in degrees, azimuth 0 being
    the camera's side. `ground_tone` multiplies a ground colour, `ground_tint` shifts each of its channels (0..1),
    `color_jitter` shifts each channel of an object's colour (0..1), `size_jitter` multiplies its radius.
    Raises ValueError for unknown solids or materials, no choices, and ranges the wrong way round.
    """

    name: str
    shapes: tuple[str, ...]
    colors: Mapping[str, Rgb]
    materials: tuple[str, ...]
    sizes: Mapping[str, float]
    grounds: tuple[Rgb, ...]
    ground_tone: Range
    ground_tint: Range
    light_azimuth: Range
    light_elevation: Range
    light_strength: Range
    light_ambient: Range
    camera_elevation: Range
    camera_distance: Range
    camera_shift: Range
    color_jitter: Range
    size_jitter: Range

    def __post_init__(self) -> None:
        for field in ("shapes", "colors", "materials", "sizes", "grounds"):
            if not getattr(self, field):
                raise ValueError(f"world {self.name!r} has no {field}; give at least one")
        for field, known in (("shapes", tuple(SOLIDS)), ("materials", MATERIALS)):
            unknown = sorted(set(getattr(self, field)) - set(known))
            if unknown:
                raise ValueError(f"world {self.name!r} has the {field} {unknown}; the renderer draws {sorted(known)}")
        for size, radius in self.sizes.items():
            if radius <= 0:
                raise ValueError(f"world {self.name!r} has radius {radius} for size {size!r}; give one above 0")
        for field in (f.name for f in fields(self) if f.type == "Range"):
            lowest, highest = getattr(self, field)
            if lowest > highest:
                raise ValueError(f"world {self.name!r} has {field} ({lowest}, {highest}); write (lowest, highest)")


CLEVR_LIKE = World(
    name="clevr-like",
    shapes=("sphere", "cube", "cylinder"),
    # CLEVR's own values (clevr-dataset-gen, properties.json).
    colors={
        "gray": (87, 87, 87),
        "red": (173, 35, 35),
        "blue": (42, 75, 215),
        "green": (29, 105, 20),
        "brown": (129, 74, 25),
        "purple": (129, 38, 192),
        "cyan": (41, 208, 208),
        "yellow": (255, 238, 51),
    },
    materials=MATERIALS,
    sizes={"small": 0.58, "large": 0.85},
    grounds=((160, 160, 160),),
    # Wider than CLEVR on purpose: a tiny model that has seen one gray ground and one lamp counts nothing elsewhere.
    ground_tone=(0.7, 1.25),
    ground_tint=(-0.1, 0.1),
    light_azimuth=(-110, 110),
    light_elevation=(42, 66),
    light_strength=(0.42, 0.72),
    light_ambient=(0.4, 0.55),
    camera_elevation=(34, 50),
    camera_distance=(11.0, 12.5),
    camera_shift=(-0.35, 0.35),
    color_jitter=(-0.12, 0.12),
    size_jitter=(0.85, 1.15),
)

SUPERCLEVR_LIKE = World(
    name="superclevr-like",
    shapes=("cone", "capsule", "bus", "car"),
    colors={
        "orange": (250, 130, 20),
        "pink": (250, 130, 180),
        "teal": (0, 125, 125),
        "olive": (115, 120, 20),
        "navy": (22, 28, 100),
        "ivory": (248, 243, 224),
        "maroon": (110, 12, 40),
        "lime": (150, 230, 40),
    },
    materials=MATERIALS,
    sizes={"small": 0.58, "large": 0.8},
    grounds=((196, 170, 120), (130, 158, 118), (125, 145, 170)),
    ground_tone=(0.8, 1.15),
    ground_tint=(-0.04, 0.04),
    light_azimuth=(-110, 110),
    light_elevation=(42, 66),
    light_strength=(0.42, 0.72),
    light_ambient=(0.4, 0.55),
    camera_elevation=(34, 50),
    camera_distance=(11.0, 12.5),
    camera_shift=(-0.35, 0.35),
    color_jitter=(-0.05, 0.05),
    size_jitter=(0.9, 1.1),
)


def sample_scene(world: World, count: int, rng: np.random.Generator, image_filename: str) -> Scene:
    """Sample a scene of `count` objects (1 to MAX_OBJECTS) that renders at PICTURE_SIZE with every object countable.

    Objects stand apart, lie wholly inside the picture, and show at least MIN_VISIBLE_PIXELS pixels and
    MIN_VISIBLE_SHARE of their outline. The scene is JSON-serializable and depends on `rng` alone.
    Raises ValueError for a count out of range, and where the world has no room for such a scene.
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= MAX_OBJECTS:
        raise ValueError(f"count is {count!r}; pass an integer from 1 to {MAX_OBJECTS}")
    for _ in range(_SCENE_ATTEMPTS):
        appearance = sample_appearance(world, rng)
        objects = _place_objects(world, int(count), appearance, rng)
        if objects is None:
            continue
        scene = Scene(image_filename=image_filename, objects=objects, appearance=appearance)
        if all(
            shown.visible >= MIN_VISIBLE_PIXELS and shown.visible >= MIN_VISIBLE_SHARE * shown.whole
            for shown in pixel_coverage(scene)
        ):
            return scene
    raise ValueError(
        f"world {world.name!r} has no room for {count} visible objects in {_SCENE_ATTEMPTS} attempts with the sizes "
        f"{dict(world.sizes)}; ask for fewer objects or give smaller radii"
    )


def sample_appearance(world: World, rng: np.random.Generator) -> Appearance:
    """Ground, light and camera of a scene that has no objects yet."""
    ground = np.array(world.grounds[rng.integers(len(world.grounds))]) / 255
    ground = np.clip(ground * rng.uniform(*world.ground_tone) + rng.uniform(*world.ground_tint, 3), 0, 1)
    shift_x, shift_y = rng.uniform(*world.camera_shift, 2).tolist()
    # Towards -y: the camera's side, where azimuth is 0.
    back = _direction(0.0, rng.uniform(*world.camera_elevation))
    distance = rng.uniform(*world.camera_distance)
    target = [shift_x, shift_y, 0.4]
    camera = Camera(
        position=[t + distance * b for t, b in zip(target, back, strict=True)],
        target=target,
        half_field=0.345,
    )
    light = Light(
        direction=_direction(rng.uniform(*world.light_azimuth), rng.uniform(*world.light_elevation)),
        strength=rng.uniform(*world.light_strength),
        ambient=rng.uniform(*world.light_ambient),
    )
    return Appearance(world=world.name, ground_rgb=ground.tolist(), light=light, camera=camera, objects=[])


def _direction(azimuth: float, elevation: float) -> list[float]:
    """Unit vector towards azimuth (0 is -y) and elevation, both in degrees."""
    around, above = np.deg2rad(azimuth), np.deg2rad(elevation)
    return [float(np.sin(around) * np.cos(above)), float(-np.cos(around) * np.cos(above)), float(np.sin(above))]


def _place_objects(
    world: World, count: int, appearance: Appearance, rng: np.random.Generator
) -> list[SceneObject] | None:
    """Objects with a place each, their looks appended to `appearance`; None where one found no place."""
    view = view_of(appearance["camera"])
    colors = contrasting_colors(world, appearance["ground_rgb"])
    objects: list[SceneObject] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        item, looks = sample_object(world, colors, rng)
        if not _find_place(item, looks["radius"], view, taken, rng):
            return None
        objects.append(item)
        appearance["objects"].append(looks)
    return objects


def sample_object(
    world: World, colors: Sequence[str], rng: np.random.Generator
) -> tuple[SceneObject, ObjectAppearance]:
    """An object of a world in one of `colors`, without a place yet, and its looks."""
    sizes = list(world.sizes.items())
    size, radius = sizes[rng.integers(len(sizes))]
    radius *= rng.uniform(*world.size_jitter)
    color = colors[int(rng.integers(len(colors)))]
    rgb = np.clip(np.array(world.colors[color]) / 255 + rng.uniform(*world.color_jitter, 3), 0, 1)
    item = SceneObject(
        {
            "size": size,
            "color": color,
            "material": world.materials[rng.integers(len(world.materials))],
            "shape": world.shapes[rng.integers(len(world.shapes))],
            "rotation": rng.uniform(0, 360),
            "3d_coords": [0.0, 0.0, 0.0],
            "pixel_coords": [0.0, 0.0, 0.0],
        }
    )
    return item, ObjectAppearance(rgb=rgb.tolist(), radius=radius)


def contrasting_colors(world: World, ground_rgb: list[float]) -> list[str]:
    """The names of a world's colours that stand out from a ground.  Raises ValueError where none does."""
    ground = np.array(ground_rgb)
    names = [n for n, rgb in world.colors.items() if np.linalg.norm(np.array(rgb) / 255 - ground) >= _MIN_CONTRAST]
    if not names:
        raise ValueError(
            f"world {world.name!r} has no colour that stands out from its ground {[round(c, 2) for c in ground_rgb]}; "
            f"add colours at least {_MIN_CONTRAST} away in RGB of 0..1"
        )
    return names


def _find_place(
    item: SceneObject,
    radius: float,
    view: View,
    taken: list[tuple[float, float, float]],
    rng: np.random.Generator,
) -> bool:
    """Write a free place inside the picture into `item` and `taken` (x, y, footprint); False where none was found."""
    reach = footprint(item["shape"]) * radius
    at_origin = bounding_corners(item, radius)
    height = float(at_origin[:, 2].max())
    places = rng.uniform(-PLACE_EXTENT, PLACE_EXTENT, (_PLACE_ATTEMPTS, 2))
    inside = inside_picture(at_origin, places, view)
    for x, y in places[inside].tolist():
        if all((x - a) ** 2 + (y - b) ** 2 >= (reach + other + GAP_BETWEEN) ** 2 for a, b, other in taken):
            item["3d_coords"] = [x, y, height / 2]
            depth, pixel_x, pixel_y = view.project(np.array(item["3d_coords"], np.float32)).tolist()
            item["pixel_coords"] = [pixel_x, pixel_y, depth]
            taken.append((x, y, reach))
            return True
    return False


def inside_picture(corners: Floats, places: npt.NDArray[np.float64], view: View) -> npt.NDArray[np.bool_]:
    """Which places (N, 2) keep an object with these corners (K, 3) around the origin inside the picture, (N,)."""
    moved = np.repeat(corners[None], len(places), axis=0)
    moved[:, :, :2] += places[:, None].astype(np.float32)
    pixels = view.project(moved)[:, :, 1:]
    low, high = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))
    inside: npt.NDArray[np.bool_] = (low >= _PICTURE_MARGIN) & (high <= PICTURE_SIZE - _PICTURE_MARGIN)
    return inside


@cache
def footprint(shape: str) -> float:
    """Radius of the circle on the ground around a solid, in units of the object's radius."""
    reach = 0.0
    for piece in SOLIDS[shape]:
        (x, y, _), (half_x, half_y, _) = piece.center, piece.half_extents
        is_round = piece.kind != "box" and not piece.lying
        corner = math.hypot(abs(x) + half_x, abs(y) + half_y)
        reach = max(reach, math.hypot(x, y) + max(half_x, half_y) if is_round else corner)
    return reach
