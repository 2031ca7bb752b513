"""Scenes hold what they promise: the count, room between objects, and every object to be seen."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from r1mm.mini.render import PICTURE_SIZE, SOLIDS, bounding_corners, pixel_coverage, view_of
from r1mm.mini.scenes import (
    CLEVR_LIKE,
    MAX_OBJECTS,
    MIN_VISIBLE_PIXELS,
    MIN_VISIBLE_SHARE,
    SUPERCLEVR_LIKE,
    World,
    sample_scene,
)

WORLDS = [pytest.param(world, id=world.name) for world in (CLEVR_LIKE, SUPERCLEVR_LIKE)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", range(1, MAX_OBJECTS + 1))
def test_every_object_is_inside_apart_and_visible(world: World, count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(4):
        scene = sample_scene(world, count, rng, "a.png")
        looks = scene["appearance"]["objects"]
        assert len(scene["objects"]) == len(looks) == count

        view = view_of(scene["appearance"]["camera"])
        for item, look in zip(scene["objects"], looks, strict=True):
            assert item["shape"] in world.shapes
            assert item["color"] in world.colors
            assert item["material"] in world.materials
            assert item["size"] in world.sizes
            outline = view.project(bounding_corners(item, look["radius"]))[:, 1:]
            assert outline.min() > 0
            assert outline.max() < PICTURE_SIZE

        for shown in pixel_coverage(scene):
            assert shown.visible >= MIN_VISIBLE_PIXELS
            assert shown.visible >= MIN_VISIBLE_SHARE * shown.whole


def test_spheres_do_not_intersect() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        scene = sample_scene(replace(CLEVR_LIKE, shapes=("sphere",)), 8, rng, "a.png")
        balls = list(zip(scene["objects"], scene["appearance"]["objects"], strict=True))
        for (one, one_look), (other, other_look) in itertools.combinations(balls, 2):
            between = math.dist(one["3d_coords"][:2], other["3d_coords"][:2])
            assert between > one_look["radius"] + other_look["radius"]


def test_long_boxes_do_not_intersect() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        scene = sample_scene(replace(SUPERCLEVR_LIKE, shapes=("bus",)), 7, rng, "a.png")
        boxes = list(zip(scene["objects"], scene["appearance"]["objects"], strict=True))
        for (one, one_look), (other, other_look) in itertools.permutations(boxes, 2):
            # No point on the floor of one lies on the floor of the other, seen in the other's own axes.
            corners = bounding_corners(one, one_look["radius"])[::2, :2]
            shares = np.linspace(0, 1, 9)
            floor = np.array(
                [(1 - v) * ((1 - u) * corners[0] + u * corners[2]) + v * ((1 - u) * corners[1] + u * corners[3])
                 for u in shares for v in shares]
            )  # fmt: skip
            angle = math.radians(other["rotation"])
            turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            local = (floor - other["3d_coords"][:2]) @ turn
            half = np.array(SOLIDS["bus"][0].half_extents[:2]) * other_look["radius"]
            assert not (np.abs(local) <= half).all(axis=1).any()


def test_pixel_coords_point_at_the_object() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = sample_scene(CLEVR_LIKE, 1, rng, "a.png")
        x, y, depth = scene["objects"][0]["pixel_coords"]
        corners = bounding_corners(scene["objects"][0], scene["appearance"]["objects"][0]["radius"])
        projected = view_of(scene["appearance"]["camera"]).project(corners)
        low, high = projected.min(axis=0), projected.max(axis=0)
        assert low[0] < depth < high[0]
        assert low[1] < x < high[1]
        assert low[2] < y < high[2]


def test_same_seed_same_scene_and_other_seed_another() -> None:
    def sample(seed: int) -> str:
        return json.dumps(sample_scene(CLEVR_LIKE, 5, np.random.default_rng(seed), "a.png"))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_scene_has_clevrs_form() -> None:
    scene = sample_scene(CLEVR_LIKE, 2, np.random.default_rng(0), "CLEVR_mini_000007.png")
    assert scene["image_filename"] == "CLEVR_mini_000007.png"
    assert set(scene) == {"image_filename", "objects", "appearance"}
    for item in scene["objects"]:
        assert set(item) == {"size", "color", "material", "shape", "rotation", "3d_coords", "pixel_coords"}
        assert 0 <= item["rotation"] < 360
        assert len(item["3d_coords"]) == len(item["pixel_coords"]) == 3


def test_worlds_share_no_shape_and_no_colour() -> None:
    assert not set(CLEVR_LIKE.shapes) & set(SUPERCLEVR_LIKE.shapes)
    assert not set(CLEVR_LIKE.colors) & set(SUPERCLEVR_LIKE.colors)
    assert not set(CLEVR_LIKE.colors.values()) & set(SUPERCLEVR_LIKE.colors.values())


@pytest.mark.parametrize("world", WORLDS)
def test_every_choice_of_a_world_comes_up(world: World) -> None:
    rng = np.random.default_rng(0)
    items = [item for _ in range(40) for item in sample_scene(world, 5, rng, "a.png")["objects"]]
    assert {item["shape"] for item in items} == set(world.shapes)
    assert {item["color"] for item in items} == set(world.colors)
    assert {item["material"] for item in items} == set(world.materials)
    assert {item["size"] for item in items} == set(world.sizes)


def test_objects_stand_out_from_the_ground() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        appearance = sample_scene(SUPERCLEVR_LIKE, 3, rng, "a.png")["appearance"]
        for look in appearance["objects"]:
            jitter = math.sqrt(3) * SUPERCLEVR_LIKE.color_jitter[1]
            assert math.dist(look["rgb"], appearance["ground_rgb"]) > 0.24 - jitter


@pytest.mark.parametrize("count", [0, -1, MAX_OBJECTS + 1, 2.0, True])
def test_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"count is {count}; pass an integer from 1 to 10"):
        sample_scene(CLEVR_LIKE, count, np.random.default_rng(0), "a.png")


def test_world_without_room_is_an_error_not_an_endless_loop() -> None:
    crowded = replace(CLEVR_LIKE, name="crowded", sizes={"huge": 3.0})
    with pytest.raises(ValueError, match=r"'crowded' has no room for 4 visible objects.*smaller radii"):
        sample_scene(crowded, 4, np.random.default_rng(0), "a.png")


def test_world_whose_colours_vanish_on_its_ground_is_an_error() -> None:
    hidden = replace(CLEVR_LIKE, colors={"sand": (160, 160, 160)}, ground_tone=(1, 1), ground_tint=(0, 0))
    with pytest.raises(ValueError, match="no colour that stands out from its ground"):
        sample_scene(hidden, 1, np.random.default_rng(0), "a.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": ("sphere", "teapot")}, r"shapes \['teapot'\]; the renderer draws"),
        ({"materials": ("wood",)}, r"materials \['wood'\]"),
        ({"colors": {}}, "has no colors; give at least one"),
        ({"sizes": {"small": 0.0}}, "radius 0.0 for size 'small'"),
        ({"light_strength": (0.9, 0.1)}, r"light_strength \(0.9, 0.1\); write \(lowest, highest\)"),
    ],
)
def test_bad_world_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CLEVR_LIKE, **change)  # type: ignore[arg-type]
