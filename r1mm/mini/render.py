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

if TYPE_CHECKING:
    from r1mm.mini.scenes import Appearance, Camera, Scene, SceneObject

PICTURE_SIZE = 112
MATERIALS = ("rubber", "metal")

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Components = tuple[Floats, Floats, Floats]
Window = tuple[slice, slice]

# Two rays per pixel and axis: the coarsest grid whose edges look smooth at 112 pixels.
_RAYS_PER_PIXEL = 2
_FAR = np.float32(np.inf)
_NEAREST = np.float32(1e-3)
# Keeps rays that run exactly along a face or an axis from dividing by zero.
_TINY = np.float32(1e-12)
_SKY_RGB = np.array([0.93, 0.95, 1.0], np.float32)
# Where a unit cylinder or cone counts as its flat end; float32 is good to about 1e-5 here.
_CAP = np.float32(0.999)
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
    depth = np.full((size, size), _FAR, np.float32)
    alone = np.zeros((len(scene["objects"]), size, size), bool)
    front = np.full((size, size), len(alone))
    for part, window in zip(parts, _windows(view, [part.corners for part in parts], size), strict=True):
        near, far = _interval(part.kind, *_unit_rays(part, view, window, size))
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
    parts = _check_and_place(scene, size)
    look = scene["appearance"]
    view = view_of(look["camera"])
    picture = _draw_ground(look, view, parts, size)

    rays = size * _RAYS_PER_PIXEL
    depth = np.full((rays, rays), _FAR, np.float32)
    colors = np.zeros((3, rays, rays), np.float32)
    windows = _windows(view, [part.corners for part in parts], rays)
    for part, window in zip(parts, windows, strict=True):
        origin, directions = _unit_rays(part, view, window, rays)
        near, far = _interval(part.kind, origin, directions)
        hits = np.flatnonzero((near < far) & (near > 0) & (near < depth[window]))
        places = hits // near.shape[1] * (rays - near.shape[1]) + (hits + window[0].start * rays + window[1].start)
        distance, toward = near.ravel()[hits], np.stack([component.ravel()[hits] for component in directions])
        normals = part.to_unit.T @ _unit_normals(part.kind, np.stack(origin)[:, None] + distance * toward)
        normals /= np.linalg.norm(normals, axis=0)
        sight = np.matmul(np.linalg.inv(part.to_unit), toward, dtype=np.float32)
        sight /= np.linalg.norm(sight, axis=0)
        rgb = np.array(look["objects"][part.owner]["rgb"], np.float32)
        shades = _shade(rgb, scene["objects"][part.owner]["material"], normals, sight, look)
        for layer, values in zip((depth, *colors), (distance, *shades), strict=True):
            layer.ravel()[places] = values
    _lay_over(picture, colors, depth, windows)
    return np.stack(list(np.minimum(picture * 255 + 0.5, 255).astype(np.uint8)), axis=-1)


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


def _interval(kind: str, origin: Components, direction: Components) -> tuple[Floats, Floats]:
    """Where rays enter and leave a primitive in its unit form (all within -1..1); it is missed where near >= far."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    if kind == "ellipsoid":
        return _roots(dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1)
    near, far = _slab(oz, dz)
    if kind == "box":
        sides = [_slab(ox, dx), _slab(oy, dy)]
    elif kind == "cylinder":
        sides = [_roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)]
    else:
        sides = [_cone_side(origin, direction)]
    for side_near, side_far in sides:
        near, far = np.maximum(near, side_near), np.minimum(far, side_far)
    return near, far


def _slab(origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    inverse = np.reciprocal(direction + _TINY)
    middle, half = -origin * inverse, np.abs(inverse)
    return middle - half, middle + half


def _roots(a: Floats, b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Both roots of a t^2 + 2 b t + c; where there are none, near is infinite."""
    a = a + _TINY
    square = b * b - a * c
    root, scale = np.sqrt(np.maximum(square, 0)), np.reciprocal(a)
    return np.where(square > 0, (-b - root) * scale, _FAR), (root - b) * scale


def _cone_side(origin: Components, direction: Components) -> tuple[Floats, Floats]:
    """Rays against the endless cone of radius (1 - z) / 2 under its tip at z = 1."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    below, fall = (1 - oz) * 0.5, -dz * 0.5
    a, b = dx * dx + dy * dy - fall * fall, ox * dx + oy * dy - below * fall
    first, second = _roots(a, b, ox * ox + oy * oy - below * below)
    # A ray steeper than the cone's side (a < 0, roots swapped) crosses the mirror cone above the tip as well: coming
    # down it stays inside after its later root, going up until its earlier one.
    steep, down = a < 0, dz < 0
    return np.where(steep & ~down, -_FAR, first), np.where(steep & down, _FAR, second)


def _unit_normals(kind: str, points: Floats) -> Floats:
    """Outward normals (3, K), of any length, at points (3, K) on a primitive in its unit form."""
    if kind == "ellipsoid":
        return points
    if kind == "box":
        sizes = np.abs(points)
        return np.where(sizes == sizes.max(axis=0), points, 0)
    x, y, z = points
    if kind == "cylinder":
        cap, slope = np.abs(z) > _CAP, 0
    else:
        cap, slope = z < -_CAP, (1 - z) * 0.25
    return np.stack([np.where(cap, 0, x), np.where(cap, 0, y), np.where(cap, z, slope)])


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


def _draw_ground(look: Appearance, view: View, parts: Sequence[_Part], size: int) -> Floats:
    """The lit ground with the shadows of all parts, (3, size, size) in about 0..1."""
    u, v = _steps(size), -_steps(size)[:, None]
    # All ground in a row of the picture is equally deep. Rows at or above the horizon take the farthest ground.
    middle = view.axes[:, 0] + v * view.axes[:, 2]
    depth = view.position[2] / np.maximum(-middle[:, 2:], 0.02)
    x, y = (view.position[i] + depth * middle[:, i : i + 1] + depth * view.axes[i, 1] * u for i in (0, 1))
    lamp = np.array(look["light"]["direction"], np.float32)
    off_x, off_y = x - 2 * lamp[0], y - 2 * lamp[1]
    falloff = 0.72 + 0.4 / (1 + (off_x * off_x + off_y * off_y) * np.float32(1 / 60))
    brightness = look["light"]["ambient"] + look["light"]["strength"] * lamp[2] * falloff
    brightness *= 1 - 0.55 * _ground_shadow(x, y, lamp, view, parts)
    ground: Floats = np.array(look["ground_rgb"], np.float32)[:, None, None] * brightness
    return ground


def _ground_shadow(x: Floats, y: Floats, lamp: Floats, view: View, parts: Sequence[_Part]) -> Floats:
    """The share of the lamp that objects hide from ground points (x, y), (size, size), softened by a pixel."""
    shadow = np.zeros_like(x)
    fallen = [part.corners - part.corners[:, 2:] / lamp[2] * lamp for part in parts]
    for part, window in zip(parts, _windows(view, fallen, len(x)), strict=True):
        away_x, away_y = x[window] - part.center[0], y[window] - part.center[1]
        start_x, start_y, start_z = (m[0] * away_x + m[1] * away_y - m[2] * part.center[2] for m in part.to_unit)
        toward = part.to_unit @ lamp + np.float32(1e-9)
        near, far = _interval(part.kind, (start_x, start_y, start_z), (toward[0], toward[1], toward[2]))
        shadow[window][(near < far) & (far > 0)] = 1
    shadow[:, 1:-1] = (shadow[:, :-2] + shadow[:, 1:-1] + shadow[:, 2:]) / 3
    shadow[1:-1] = (shadow[:-2] + shadow[1:-1] + shadow[2:]) / 3
    return shadow


def _lay_over(picture: Floats, colors: Floats, depth: Floats, windows: Sequence[Window]) -> None:
    """Average the objects' rays per pixel and lay them over the picture (3, size, size), in place."""
    step = _RAYS_PER_PIXEL
    # Whole pixels around all windows; outside them no ray met anything.
    top, left = (min((window[axis].start for window in windows), default=0) // step for axis in (0, 1))
    bottom, right = (-(-max((window[axis].stop for window in windows), default=0) // step) for axis in (0, 1))
    region = picture[:, top:bottom, left:right]
    empty, total = np.zeros(region.shape[1:], np.float32), np.zeros_like(region)
    for row, column in np.ndindex(step, step):
        rays = (slice(top * step + row, bottom * step, step), slice(left * step + column, right * step, step))
        empty += depth[rays] == _FAR
        total += colors[:, *rays]
    region *= empty * (1 / step**2)
    region += total * (1 / step**2)
