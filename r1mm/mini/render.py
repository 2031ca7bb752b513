"""Draw a scene with numpy alone, fast enough to feed training on two CPU cores.

A scene is a plain dict in the form of CLEVR's scene JSON plus `appearance`, and a picture is a pure function of it.
Every solid is a union of primitives that a ray meets in closed form; each is traced only inside its own window of the
picture. Not here: shadows of objects on objects, mirror images, textures.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from r1mm.mini.rays import FAR, Components, Floats, interval, unit_normals

if TYPE_CHECKING:
    from r1mm.mini.scenes import Appearance, Camera, Scene, SceneObject

PICTURE_SIZE = 112
MATERIALS = ("rubber", "metal")

Pixels = npt.NDArray[np.uint8]
Window = tuple[slice, slice]
Place = tuple[float, float]

# Two rays per pixel and axis: the coarsest grid whose edges look smooth at 112 pixels.
_RAYS_PER_PIXEL = 2
_NEAREST = np.float32(1e-3)
_SKY_RGB = np.array([0.93, 0.95, 1.0], np.float32)
_CORNER_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)


class Coverage(NamedTuple):
    """Pixels of one object: those that show it, and those it would cover if it stood alone."""

    visible: int
    whole: int


class Primitive(NamedTuple):
    """A convex piece of a solid, in units of the object's radius, relative to the middle of its foot on the ground.

    Cylinders and cones stand upright; `lying` turns them so that their axis is x. `half_extents` are the half sizes
    of the box around the piece along x, y and z, after that turn.
    """

    kind: Literal["ellipsoid", "box", "cylinder", "cone"]
    half_extents: tuple[float, float, float]
    center: tuple[float, float, float]
    lying: bool = False


SOLIDS: Mapping[str, tuple[Primitive, ...]] = {
    "sphere": (Primitive("ellipsoid", (1.0, 1.0, 1.0), (0, 0, 1.0)),),
    "cube": (Primitive("box", (0.8, 0.8, 0.8), (0, 0, 0.8)),),
    "cylinder": (Primitive("cylinder", (0.9, 0.9, 0.9), (0, 0, 0.9)),),
    "cone": (Primitive("cone", (1.05, 1.05, 1.1), (0, 0, 1.1)),),
    "capsule": (
        Primitive("cylinder", (0.6, 0.68, 0.68), (0, 0, 0.68), lying=True),
        Primitive("ellipsoid", (0.68, 0.68, 0.68), (-0.6, 0, 0.68)),
        Primitive("ellipsoid", (0.68, 0.68, 0.68), (0.6, 0, 0.68)),
    ),
    "bus": (Primitive("box", (1.15, 0.52, 0.62), (0, 0, 0.62)),),
    "car": (
        Primitive("box", (1.2, 0.62, 0.34), (0, 0, 0.34)),
        Primitive("box", (0.62, 0.54, 0.29), (-0.15, 0, 0.95)),
    ),
}


@dataclass(frozen=True)
class View:
    """A camera made ready: `axes` (3, 3) has the columns forward, right and up, the last two as long as half the field.

    A ray is forward + u * right + v * up with u and v in -1..1, so the length along it is depth.
    """

    position: Floats
    axes: Floats

    def project(self, points: Floats, size: int = PICTURE_SIZE) -> Floats:
        """World points (..., 3) -> (..., 3) of depth in world units, and x and y in pixels of a picture of `size`."""
        projected: Floats = np.matmul(points - self.position, self.axes, dtype=np.float32)
        np.maximum(projected[..., 0], _NEAREST, out=projected[..., 0])
        # right and up are as long as half the field, which stretches what is projected on them once too often.
        to_pixels = np.array([size / 2, -size / 2], np.float32) / np.square(self.axes[:, 1]).sum()
        projected[..., 1:] = projected[..., 1:] / projected[..., :1] * to_pixels + size / 2
        return projected


@dataclass(frozen=True)
class _Part:
    """A primitive of object `owner` in the world; `to_unit` (3, 3) maps offsets from `center` to its unit form."""

    owner: int
    kind: str
    center: Floats
    to_unit: Floats
    corners: Floats


class _Layers(NamedTuple):
    """A picture in the making: per ray its depth (R, R) and colour (3, R, R), per ground point its shadow (S, S)."""

    depth: Floats
    colors: Floats
    shadow: Floats


def view_of(camera: Camera) -> View:
    """The view of a camera; ValueError where it stands at or below the ground or straight above its target."""
    along_x, along_y, along_z = (t - p for t, p in zip(camera["target"], camera["position"], strict=True))
    sideways = math.hypot(along_x, along_y)
    if camera["position"][2] <= 0 or sideways < 1e-6:
        raise ValueError(f"camera is {camera}; place it above the ground (z > 0), not straight above its target")
    length, half_field = math.hypot(sideways, along_z), camera["half_field"]
    across, rise = half_field / sideways, half_field / sideways / length
    axes = [
        [along_x / length, along_y * across, -along_x * along_z * rise],
        [along_y / length, -along_x * across, -along_y * along_z * rise],
        [along_z / length, 0, sideways * sideways * rise],
    ]
    return View(np.array(camera["position"], np.float32), np.array(axes, np.float32))


def bounding_corners(item: SceneObject, radius: float) -> Floats:
    """Corners (8 per primitive, 3) in the world of the boxes around an object's pieces."""
    return np.concatenate([part.corners for part in _parts(0, item, radius)])


def pixel_coverage(scene: Scene, size: int = PICTURE_SIZE) -> list[Coverage]:
    """Pixels of each object in a picture of `size` x `size`, one ray through the middle of each pixel.

    Raises ValueError for a scene or size that cannot be drawn.
    """
    parts = _check_and_place(scene, size)
    view = view_of(scene["appearance"]["camera"])
    depth = np.full((size, size), FAR, np.float32)
    alone = np.zeros((len(scene["objects"]), size, size), bool)
    front = np.full((size, size), len(alone))
    for part, window in zip(parts, _windows(view, [part.corners for part in parts], size), strict=True):
        near, far = interval(part.kind, *_unit_rays(part, view, window, size))
        hit = (near < far) & (near > 0)
        alone[part.owner][window] |= hit
        hit &= near < depth[window]
        np.copyto(depth[window], near, where=hit)
        np.copyto(front[window], part.owner, where=hit)
    visible = np.bincount(front.ravel(), minlength=len(alone)).tolist()
    return [Coverage(visible[index], int(np.count_nonzero(mask))) for index, mask in enumerate(alone)]


def render(scene: Scene, size: int = PICTURE_SIZE) -> Pixels:
    """Draw a scene -> (size, size, 3) uint8 RGB. The same scene gives the same pixels.

    Raises ValueError for a scene or size that cannot be drawn.
    """
    picture: Pixels = render_clip(scene, {}, 1, size)[0]
    return picture


def render_clip(scene: Scene, paths: Mapping[int, Sequence[Place]], frames: int, size: int = PICTURE_SIZE) -> Pixels:
    """Draw a scene in which some objects move -> (frames, size, size, 3) uint8 RGB.

    `paths` has, by an object's index, where it stands on the ground in each frame. What stands still is traced once;
    each frame has the very pixels of `render` with the objects put there.
    Raises ValueError for a scene or size that cannot be drawn, and for a path that is not `frames` long.
    """
    parts = _check_and_place(scene, size)
    for mover, path in paths.items():
        if not 0 <= mover < len(scene["objects"]) or len(path) != frames:
            raise ValueError(
                f"object {mover} has a path of {len(path)} places; a clip of {frames} frames of "
                f"{len(scene['objects'])} objects needs one place per frame, for objects that it has"
            )
    look, rays = scene["appearance"], size * _RAYS_PER_PIXEL
    view = view_of(look["camera"])
    x, y, brightness = _lit_ground(look, view, size)
    still = [part for part in parts if part.owner not in paths]
    moved = [part for frame in range(frames) for part in _moved(scene, paths, frame)]
    windows = _windows(view, [part.corners for part in still + moved], rays)
    shadows = _windows(view, [_fallen(part, look) for part in still + moved], size)
    placed = list(zip(still + moved, windows, shadows, strict=True))

    black, lit = (np.zeros(shape, np.float32) for shape in ((3, rays, rays), (size, size)))
    layers = _Layers(np.full((rays, rays), FAR, np.float32), black, lit)
    for part, window, shadow in placed[: len(still)]:
        _trace(part, window, view, scene, layers)
        _cast_shadow(part, shadow, x, y, look, layers)
    different = frames if paths else 1  # where nothing moves, one picture is all of them
    layers = _Layers(*(np.repeat(layer[None], different, axis=0) for layer in layers))
    for index, (part, window, shadow) in enumerate(placed[len(still) :]):
        frame = _Layers(*(layer[index * frames // len(moved)] for layer in layers))
        _trace(part, window, view, scene, frame)
        _cast_shadow(part, shadow, x, y, look, frame)

    ground = np.array(look["ground_rgb"], np.float32)[:, None, None]
    pictures = ground * (brightness * (1 - 0.55 * _softened(layers.shadow)))[:, None]
    _lay_over(pictures, layers.colors, layers.depth, windows)
    levels = np.minimum(pictures * 255 + 0.5, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1)).repeat(frames // different, axis=0)


def encode_png(pixels: Pixels) -> bytes:
    """PNG bytes of (H, W, 3) uint8 pixels, fast rather than small. Raises ValueError for any other array."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; pass uint8 of shape (height, width, 3)")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def contact_sheet(images: Sequence[Pixels], columns: int) -> Pixels:
    """Images (H, W, 3) uint8 of one size in rows of `columns`, on white with a gap of 2 pixels.

    Raises ValueError for no images, for different sizes, and for fewer than one column.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}; pass 1 or more")
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ValueError(f"images have the shapes {sorted(shapes)}; pass at least one, and all of one shape")
    height, width, _ = shapes.pop()
    gap, rows = 2, -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _check_and_place(scene: Scene, size: int) -> list[_Part]:
    """All parts of a scene's objects; ValueError where they cannot be drawn."""
    if size < 8:
        raise ValueError(f"size is {size}; pass at least 8 pixels")
    objects, looks, light = scene["objects"], scene["appearance"]["objects"], scene["appearance"]["light"]
    if len(objects) != len(looks):
        raise ValueError(f"{len(objects)} objects but the looks of {len(looks)}; keep the scene's two lists parallel")
    if light["direction"][2] <= 0:
        raise ValueError(f"light comes from {light['direction']}; its z must be above 0, for the lamp hangs above")
    return [part for owner, item in enumerate(objects) for part in _parts(owner, item, looks[owner]["radius"])]


def _moved(scene: Scene, paths: Mapping[int, Sequence[Place]], frame: int) -> list[_Part]:
    """The parts of what moves, where it stands in a frame."""
    parts = []
    for owner, path in sorted(paths.items()):
        item = scene["objects"][owner].copy()
        item["3d_coords"] = [*path[frame], item["3d_coords"][2]]
        parts += _parts(owner, item, scene["appearance"]["objects"][owner]["radius"])
    return parts


def _parts(owner: int, item: SceneObject, radius: float) -> list[_Part]:
    if item["shape"] not in SOLIDS:
        raise ValueError(f"shape is {item['shape']!r}; use one of {sorted(SOLIDS)}")
    if item["material"] not in MATERIALS:
        raise ValueError(f"material is {item['material']!r}; use one of {list(MATERIALS)}")
    angle = math.radians(item["rotation"])
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    x, y, _ = item["3d_coords"]
    parts = []
    for piece in SOLIDS[item["shape"]]:
        half, offset = (np.array(lengths, np.float32) * np.float32(radius) for lengths in piece[1:3])
        center = turn @ offset + np.array([x, y, 0], np.float32)
        to_unit = turn.T / half[:, None]
        corners = center + (_CORNER_SIGNS * half) @ turn.T
        parts.append(_Part(owner, piece.kind, center, to_unit[::-1] if piece.lying else to_unit, corners))
    return parts


def _windows(view: View, corners: Sequence[Floats], size: int) -> list[Window]:
    """The rows and columns that each box of corners (8, 3) spans; the whole picture where it reaches the camera."""
    projected = view.project(np.array(corners, np.float32).reshape(-1, 8, 3), size)
    lowest, highest = projected.min(axis=1), projected.max(axis=1)
    behind = lowest[:, 0] <= _NEAREST
    lowest[behind], highest[behind] = 0, size
    first = np.clip(lowest[:, 1:], 0, size).astype(int).tolist()
    last = np.clip(highest[:, 1:] + 1, 0, size).astype(int).tolist()
    return [(slice(y0, y1), slice(x0, x1)) for (x0, y0), (x1, y1) in zip(first, last, strict=True)]


def _steps(size: int) -> Floats:
    """Middles of `size` steps across -1..1."""
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)


def _unit_rays(part: _Part, view: View, window: Window, size: int) -> tuple[Components, Components]:
    """The camera's rays through a window (H, W), in the unit form of a part: one origin, and (H, W) per component."""
    steps = _steps(size)
    u, v = steps[window[1]], -steps[window[0], None]
    origin = part.to_unit @ (view.position - part.center)
    x, y, z = ((forward + v * up) + u * right for forward, right, up in part.to_unit @ view.axes)
    return (origin[0], origin[1], origin[2]), (x, y, z)


def _shade(rgb: Floats, material: str, normals: Floats, sight: Floats, look: Appearance) -> Floats:
    """Colours (3, K), at most 1, of points with unit normals (3, K) seen along unit rays (3, K)."""
    ambient, strength = look["light"]["ambient"], look["light"]["strength"]
    lamp = np.array(look["light"]["direction"], np.float32)
    facing = -(normals * sight).sum(axis=0)
    mirrored = sight + 2 * facing * normals
    lit, glance = np.maximum(lamp @ normals, 0), np.maximum(lamp @ mirrored, 0)
    # Light from above and a little from the ground: faces turned away from the lamp keep their form.
    around = ambient * (0.8 + 0.2 * normals[2])
    glance8 = np.square(np.square(np.square(glance)))
    if material == "rubber":
        diffuse = around + strength * lit + 0.08 * facing
        rubber: Floats = np.minimum(rgb[:, None] * diffuse + 0.1 * glance8, 1)
        return rubber
    # Metal shows less of its own light and more of the sky, the floor and the lamp, the more so at its rim.
    floor = np.array(look["ground_rgb"], np.float32)[:, None] * 0.55
    sky = np.minimum(np.maximum(mirrored[2] * 1.6 + 0.35, 0), 1)
    rim = 1 - facing
    gloss = 0.16 + 0.4 * (rim * rim * rim)
    surroundings = (floor + (_SKY_RGB[:, None] - floor) * sky) * (rgb * 0.6 + 0.4)[:, None]
    own = rgb[:, None] * (0.86 * around + 0.6 * strength * lit)
    metal: Floats = np.minimum(own + surroundings * gloss + 0.9 * np.square(np.square(glance8)), 1)
    return metal


def _trace(part: _Part, window: Window, view: View, scene: Scene, layers: _Layers) -> None:
    """Lay a part over what the rays through its window met so far, where it is nearer; in place."""
    depth, look = layers.depth, scene["appearance"]
    origin, directions = _unit_rays(part, view, window, len(depth))
    near, far = interval(part.kind, origin, directions)
    hits = np.flatnonzero((near < far) & (near > 0) & (near < depth[window]))
    rays, width = len(depth), near.shape[1]
    places = hits // width * (rays - width) + (hits + window[0].start * rays + window[1].start)
    distance, toward = near.ravel()[hits], np.stack([component.ravel()[hits] for component in directions])
    normals = part.to_unit.T @ unit_normals(part.kind, np.stack(origin)[:, None] + distance * toward)
    normals /= np.linalg.norm(normals, axis=0)
    sight = np.matmul(np.linalg.inv(part.to_unit), toward, dtype=np.float32)
    sight /= np.linalg.norm(sight, axis=0)
    rgb = np.array(look["objects"][part.owner]["rgb"], np.float32)
    shades = _shade(rgb, scene["objects"][part.owner]["material"], normals, sight, look)
    for layer, values in zip((depth, *layers.colors), (distance, *shades), strict=True):
        layer.ravel()[places] = values


def _lit_ground(look: Appearance, view: View, size: int) -> Components:
    """Ground points (x, y) seen by each pixel, and how brightly the lamp lights them, each (size, size)."""
    u, v = _steps(size), -_steps(size)[:, None]
    # All ground in a row of the picture is equally deep. Rows at or above the horizon take the farthest ground.
    middle = view.axes[:, 0] + v * view.axes[:, 2]
    depth = view.position[2] / np.maximum(-middle[:, 2:], 0.02)
    x, y = (view.position[i] + depth * middle[:, i : i + 1] + depth * view.axes[i, 1] * u for i in (0, 1))
    lamp = np.array(look["light"]["direction"], np.float32)
    off_x, off_y = x - 2 * lamp[0], y - 2 * lamp[1]
    falloff = 0.72 + 0.4 / (1 + (off_x * off_x + off_y * off_y) * np.float32(1 / 60))
    return x, y, look["light"]["ambient"] + look["light"]["strength"] * lamp[2] * falloff


def _fallen(part: _Part, look: Appearance) -> Floats:
    """The corners (8, 3) of a part's box, thrown on the ground by the lamp."""
    lamp = np.array(look["light"]["direction"], np.float32)
    fallen: Floats = part.corners - part.corners[:, 2:] / lamp[2] * lamp
    return fallen


def _cast_shadow(part: _Part, window: Window, x: Floats, y: Floats, look: Appearance, layers: _Layers) -> None:
    """Mark by 1 the ground points (x, y), (S, S), in a window from which a part hides the lamp; in place."""
    away_x, away_y = x[window] - part.center[0], y[window] - part.center[1]
    start_x, start_y, start_z = (m[0] * away_x + m[1] * away_y - m[2] * part.center[2] for m in part.to_unit)
    toward = part.to_unit @ np.array(look["light"]["direction"], np.float32) + np.float32(1e-9)
    near, far = interval(part.kind, (start_x, start_y, start_z), (toward[0], toward[1], toward[2]))
    layers.shadow[window][(near < far) & (far > 0)] = 1


def _softened(shadow: Floats) -> Floats:
    """Shadows (..., S, S) with edges a pixel wide."""
    soft = shadow.copy()
    soft[..., 1:-1] = (shadow[..., :-2] + shadow[..., 1:-1] + shadow[..., 2:]) / 3
    soft[..., 1:-1, :] = (soft[..., :-2, :] + soft[..., 1:-1, :] + soft[..., 2:, :]) / 3
    return soft


def _lay_over(pictures: Floats, colors: Floats, depth: Floats, windows: Sequence[Window]) -> None:
    """Average what rays met, (F, 3, R, R) at depths (F, R, R), per pixel over pictures (F, 3, S, S), in place."""
    step = _RAYS_PER_PIXEL
    # Whole pixels around all windows; outside them no ray met anything.
    top, left = (min((window[axis].start for window in windows), default=0) // step for axis in (0, 1))
    bottom, right = (-(-max((window[axis].stop for window in windows), default=0) // step) for axis in (0, 1))
    region = pictures[..., top:bottom, left:right]
    empty, total = np.zeros_like(region[:, :1]), np.zeros_like(region)
    for row, column in np.ndindex(step, step):
        rays = (slice(top * step + row, bottom * step, step), slice(left * step + column, right * step, step))
        empty += depth[:, None, *rays] == FAR
        total += colors[..., *rays]
    region *= empty * (1 / step**2)
    region += total * (1 / step**2)
