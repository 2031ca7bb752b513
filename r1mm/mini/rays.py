"""Where rays meet the convex pieces that solids are made of, each in its unit form, and which way its surface faces."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Components = tuple[Floats, Floats, Floats]

FAR = np.float32(np.inf)
# Keeps rays that run exactly along a face or an axis from dividing by zero.
_TINY = np.float32(1e-12)
# Where a unit cylinder or cone counts as its flat end; float32 is good to about 1e-5 here.
_CAP = np.float32(0.999)


def interval(kind: str, origin: Components, direction: Components) -> tuple[Floats, Floats]:
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
    return np.where(square > 0, (-b - root) * scale, FAR), (root - b) * scale


def _cone_side(origin: Components, direction: Components) -> tuple[Floats, Floats]:
    """Rays against the endless cone of radius (1 - z) / 2 under its tip at z = 1."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    below, fall = (1 - oz) * 0.5, -dz * 0.5
    a, b = dx * dx + dy * dy - fall * fall, ox * dx + oy * dy - below * fall
    first, second = _roots(a, b, ox * ox + oy * oy - below * below)
    # A ray steeper than the cone's side (a < 0, roots swapped) crosses the mirror cone above the tip as well: coming
    # down it stays inside after its later root, going up until its earlier one.
    steep, down = a < 0, dz < 0
    return np.where(steep & ~down, -FAR, first), np.where(steep & down, FAR, second)


def unit_normals(kind: str, points: Floats) -> Floats:
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
