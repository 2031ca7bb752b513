"""Pictures are pure functions of their scenes, and light, shadow and depth act as they should."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r1mm.mini.render import (
    PICTURE_SIZE,
    SOLIDS,
    Pixels,
    bounding_corners,
    contact_sheet,
    encode_png,
    pixel_coverage,
    render,
    render_clip,
    view_of,
)
from r1mm.mini.scenes import CLEVR_LIKE, SUPERCLEVR_LIKE, Scene, World, sample_scene

WORLDS = [pytest.param(world, id=world.name) for world in (CLEVR_LIKE, SUPERCLEVR_LIKE)]
RED, BLUE = [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]


def scene_of(*objects: dict[str, Any]) -> Scene:
    """A scene seen from -y, lit from the right, with objects given by shape, place, rgb, radius, rotation, material."""
    scene: dict[str, Any] = {
        "image_filename": "a.png",
        "objects": [],
        "appearance": {
            "world": "by hand",
            "ground_rgb": [0.6, 0.6, 0.6],
            "light": {"direction": [0.6, 0.0, 0.8], "strength": 0.6, "ambient": 0.4},
            "camera": {"position": [0.0, -9.0, 7.0], "target": [0.0, 0.0, 0.4], "half_field": 0.345},
            "objects": [],
        },
    }
    for item in objects:
        x, y = item.get("place", (0.0, 0.0))
        scene["objects"].append(
            {
                "size": "large",
                "color": "any",
                "material": item.get("material", "rubber"),
                "shape": item.get("shape", "sphere"),
                "rotation": item.get("rotation", 0.0),
                "3d_coords": [x, y, 0.5],
                "pixel_coords": [0.0, 0.0, 0.0],
            }
        )
        scene["appearance"]["objects"].append({"rgb": item.get("rgb", RED), "radius": item.get("radius", 0.9)})
    return scene  # type: ignore[return-value]


def pixel_at(scene: Scene, picture: Pixels, point: tuple[float, float, float]) -> list[int]:
    """The picture's RGB where a world point appears."""
    _, x, y = view_of(scene["appearance"]["camera"]).project(np.array(point, np.float32))
    return [int(channel) for channel in picture[int(y), int(x)]]


def shadow_of(scene: Scene, blank: Scene) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where coloured objects darken the gray ground of `blank`: there the picture stays gray."""
    picture = render(scene).astype(int)
    gray = picture.max(axis=2) - picture.min(axis=2) < 8
    shadow: np.ndarray[Any, np.dtype[np.bool_]] = gray & (picture[..., 0] < 0.85 * render(blank)[..., 0])
    return shadow


@pytest.mark.parametrize("world", WORLDS)
def test_same_seed_gives_the_same_bytes(world: World) -> None:
    def png(seed: int) -> bytes:
        return encode_png(render(sample_scene(world, 6, np.random.default_rng(seed), "a.png")))

    assert png(11) == png(11)
    assert png(11) != png(12)


@pytest.mark.parametrize("world", WORLDS)
def test_json_round_trip_renders_the_same_bytes(world: World) -> None:
    scene = sample_scene(world, 5, np.random.default_rng(4), "a.png")
    before = copy.deepcopy(scene)
    first = render(scene)
    assert scene == before
    assert render(json.loads(json.dumps(scene))).tobytes() == first.tobytes()


@pytest.mark.parametrize("shape", sorted(SOLIDS))
def test_each_solid_is_drawn_where_it_stands(shape: str) -> None:
    empty = render(scene_of()).astype(int)
    scene = scene_of({"shape": shape, "place": (1.0, 0.5), "rotation": 30.0})
    # Redder than any shadow: shadows leave the gray ground gray.
    changed = render(scene).astype(int)
    drawn = (changed[..., 0] - changed[..., 2] > 20) & (np.abs(changed - empty).max(axis=2) > 20)
    (coverage,) = pixel_coverage(scene)
    assert coverage.visible == coverage.whole
    assert 100 < coverage.visible < 1200
    assert abs(int(drawn.sum()) - coverage.visible) < 0.15 * coverage.visible
    view = view_of(scene["appearance"]["camera"])
    outline = view.project(bounding_corners(scene["objects"][0], 0.9))[:, 1:]
    rows, columns = np.nonzero(drawn)
    (left, top), (right, bottom) = outline.min(axis=0) - 1, outline.max(axis=0) + 1
    assert left < columns.min()
    assert columns.max() < right
    assert top < rows.min()
    assert rows.max() < bottom
    assert abs(columns.mean() - outline[:, 0].mean()) < 3


def test_sphere_covers_the_area_that_geometry_gives() -> None:
    # A distant small field of view is nearly parallel: the outline is a disc of radius r / (distance * half field).
    scene = scene_of({"radius": 1.0})
    scene["appearance"]["camera"] = {"position": [0.0, -60.0, 81.0], "target": [0.0, 0.0, 1.0], "half_field": 0.03}
    radius = 1.0 / (100 * 0.03) * 200 / 2
    (coverage,) = pixel_coverage(scene, size=200)
    assert coverage.whole == pytest.approx(np.pi * radius**2, rel=0.01)


@pytest.mark.parametrize("order", [0, 1])
def test_nearer_object_hides_the_farther_one(order: int) -> None:
    near = {"place": (0.0, -0.8), "rgb": RED, "shape": "cube", "rotation": 20.0}
    far = {"place": (0.0, 1.2), "rgb": BLUE, "shape": "cube", "rotation": 20.0}
    scene = scene_of(*((near, far) if order == 0 else (far, near)))
    picture = render(scene)
    front = pixel_at(scene, picture, (0.0, -0.8, 0.72))
    assert front[0] > 2 * front[2]
    back = pixel_at(scene, picture, (0.0, 1.2, 1.44))
    assert back[2] > 2 * back[0]
    near_coverage, far_coverage = pixel_coverage(scene) if order == 0 else reversed(pixel_coverage(scene))
    assert near_coverage.visible == near_coverage.whole
    assert far_coverage.visible < far_coverage.whole


def test_an_object_behind_a_bigger_one_is_not_visible_at_all() -> None:
    scene = scene_of({"place": (0.0, -1.5), "radius": 1.6}, {"place": (0.0, 1.2), "radius": 0.3})
    assert pixel_coverage(scene)[1].visible == 0
    assert pixel_coverage(scene)[1].whole > 0


@pytest.mark.parametrize("shape", sorted(SOLIDS))
def test_shadow_falls_away_from_the_lamp_only(shape: str) -> None:
    # The lamp is at the right, so the shadow is at the left, and the ground at the right stays as it was.
    scene, blank = scene_of({"shape": shape}), scene_of()
    shadow = shadow_of(scene, blank)
    assert shadow.sum() > 20
    assert np.nonzero(shadow)[1].mean() < PICTURE_SIZE / 2 - 3
    beside = (max(abs(piece.center[0]) + piece.half_extents[0] for piece in SOLIDS[shape]) * 0.9 + 0.3, 0.0, 0.0)
    assert pixel_at(scene, render(scene), beside) == pixel_at(blank, render(blank), beside)


def test_shadow_length_follows_the_lamps_height() -> None:
    def shadow_pixels(direction: list[float]) -> int:
        scene, blank = scene_of({"shape": "cylinder", "radius": 0.6}), scene_of()
        for lit in (scene, blank):
            lit["appearance"]["light"]["direction"] = direction
        return int(shadow_of(scene, blank).sum())

    assert shadow_pixels([0.8, 0.0, 0.6]) > 1.5 * shadow_pixels([0.6, 0.0, 0.8]) > 0


def test_lit_side_is_brighter_and_metal_has_a_highlight() -> None:
    scenes = {material: scene_of({"radius": 1.2, "material": material}) for material in ("rubber", "metal")}
    pictures = {material: render(scene) for material, scene in scenes.items()}
    for material, picture in pictures.items():
        lit = pixel_at(scenes[material], picture, (0.75, -0.6, 1.6))
        unlit = pixel_at(scenes[material], picture, (-0.9, -0.6, 1.6))
        assert sum(lit) > 1.3 * sum(unlit)
    # A highlight is white on a red ball: its blue goes up.
    assert int(pictures["metal"][..., 2].max()) > int(pictures["rubber"][..., 2].max()) + 40


def test_steep_rays_hit_a_cone_from_above() -> None:
    # Steeper than its side, where a cone's mirror image above the tip would be met first.
    scene = scene_of({"shape": "cone", "radius": 1.0})
    scene["appearance"]["camera"] = {"position": [0.0, -1.0, 30.0], "target": [0.0, 0.0, 0.0], "half_field": 0.06}
    (coverage,) = pixel_coverage(scene)
    # From above the outline is the base disc, which lies a little over 30 away.
    radius = 1.05 / (30.0 * 0.06) * PICTURE_SIZE / 2
    assert coverage.whole == pytest.approx(np.pi * radius**2, rel=0.03)


def test_edges_are_smoothed() -> None:
    colors = {tuple(rgb) for rgb in render(scene_of({"shape": "cube", "rotation": 15.0})).reshape(-1, 3).tolist()}
    on_edge = [rgb for rgb in colors if 12 < rgb[0] - rgb[2] < 60]
    assert on_edge


@pytest.mark.parametrize("size", [28, 57, 224])
def test_size_scales_the_same_picture(size: int) -> None:
    scene = sample_scene(CLEVR_LIKE, 4, np.random.default_rng(2), "a.png")
    picture = render(scene, size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    small, usual = (
        np.asarray(Image.fromarray(p).resize((14, 14), Image.Resampling.BOX), int) for p in (picture, render(scene))
    )
    assert np.abs(small - usual).mean() < 6


def test_png_holds_the_pixels() -> None:
    picture = render(sample_scene(CLEVR_LIKE, 3, np.random.default_rng(0), "a.png"))
    data = encode_png(picture)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)


def test_contact_sheet_places_images_row_by_row() -> None:
    images = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (2 * 4 + 3 * 2, 2 * 6 + 3 * 2, 3)
    np.testing.assert_array_equal(sheet[2:6, 2:8], images[0])
    np.testing.assert_array_equal(sheet[2:6, 10:16], images[1])
    np.testing.assert_array_equal(sheet[8:12, 2:8], images[2])
    assert (sheet[8:12, 10:16] == 255).all()


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pixels are float32 \(4, 4, 3\); pass uint8"):
        encode_png(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="columns is 0; pass 1 or more"):
        contact_sheet([np.zeros((4, 4, 3), np.uint8)], 0)
    with pytest.raises(ValueError, match="pass at least one, and all of one shape"):
        contact_sheet([], 3)
    with pytest.raises(ValueError, match="pass at least one, and all of one shape"):
        contact_sheet([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], 3)


def test_bad_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 4; pass at least 8"):
        render(scene_of({}), 4)
    with pytest.raises(ValueError, match=r"shape is 'teapot'; use one of \['bus'"):
        render(scene_of({"shape": "teapot"}))
    with pytest.raises(ValueError, match=r"material is 'wood'; use one of \['rubber', 'metal'\]"):
        pixel_coverage(scene_of({"material": "wood"}))
    unequal = scene_of({}, {"place": (2.0, 0.0)})
    unequal["appearance"]["objects"].pop()
    with pytest.raises(ValueError, match="2 objects but the looks of 1"):
        render(unequal)
    from_below = scene_of({})
    from_below["appearance"]["light"]["direction"] = [0.6, 0.0, -0.8]
    with pytest.raises(ValueError, match="its z must be above 0"):
        render(from_below)
    buried = scene_of({})
    buried["appearance"]["camera"]["position"] = [0.0, -9.0, -1.0]
    with pytest.raises(ValueError, match="place it above the ground"):
        render(buried)


def test_a_clip_has_the_pixels_of_its_pictures() -> None:
    # One goes behind the other and out of the picture, under both their shadows.
    scene = scene_of({"place": (-1.0, 0.0)}, {"place": (0.5, -1.5), "rgb": BLUE, "shape": "car", "material": "metal"})
    path = [(-1.0 + step, 0.3 * step) for step in range(6)]
    frames = render_clip(scene, {0: path}, 6, 64)
    for pixels, (x, y) in zip(frames, path, strict=True):
        alone = copy.deepcopy(scene)
        alone["objects"][0]["3d_coords"][:2] = [x, y]
        assert np.array_equal(pixels, render(alone, 64))
    both = render_clip(scene, {1: path, 0: path[::-1]}, 6, 64)
    assert not np.array_equal(both[0], frames[0])
    still = render_clip(scene, {}, 3, 64)
    assert still.shape == (3, 64, 64, 3)
    assert all(np.array_equal(pixels, render(scene, 64)) for pixels in still)


@pytest.mark.parametrize("paths", [{0: [(0.0, 0.0)]}, {1: [(0.0, 0.0)] * 2}])
def test_a_path_that_does_not_fit_the_clip_is_refused(paths: dict[int, list[tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match=r"object . has a path of . places; a clip of 2 frames of 1 objects"):
        render_clip(scene_of({}), paths, 2)
