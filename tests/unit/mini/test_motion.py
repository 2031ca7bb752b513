"""Films move what they say and nothing else, in the direction they say, and are drawn as each frame alone would be."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from r1mm.mini.motion import (
    DIRECTIONS,
    FRAME_SIZE,
    FRAMES,
    PALETTE,
    WORLDS,
    Film,
    draw_film,
    sample_film,
    scene_at,
)
from r1mm.mini.render import bounding_corners, pixel_coverage, render, view_of
from r1mm.mini.scenes import GAP_BETWEEN, footprint

IN_TURN = [
    (world, tuple(itertools.islice(itertools.cycle(DIRECTIONS), n, n + n % 4))) for n in range(8) for world in WORLDS
]


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [
        sample_film(WORLDS[world], PALETTE[: max(2, len(ways))], ways, np.random.default_rng(i), filename=f"{i}.mp4")
        for i, (world, ways) in enumerate(IN_TURN)
    ]


def test_every_frame_has_the_pixels_of_the_whole_scene_drawn_alone(films: list[Film]) -> None:
    for film in films:
        frames = draw_film(film)
        assert frames.shape == (FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
        for frame, pixels in enumerate(frames):
            assert np.array_equal(pixels, render(scene_at(film, frame), FRAME_SIZE))


def test_movers_go_their_way_as_seen_and_all_else_stands(films: list[Film]) -> None:
    for film, (_, ways) in zip(films, IN_TURN, strict=True):
        assert [mover["direction"] for mover in film["movers"]] == list(ways)
        first, last = scene_at(film, 0), scene_at(film, FRAMES - 1)
        assert first == film["scene"]
        view = view_of(first["appearance"]["camera"])
        for index, (start, end) in enumerate(zip(first["objects"], last["objects"], strict=True)):
            if index >= len(ways):
                assert start == end
                continue
            (_, x0, y0), (_, x1, y1) = (
                view.project(np.array(o["3d_coords"], np.float32)).tolist() for o in (start, end)
            )
            right, down = x1 - x0, y1 - y0
            seen = {"left": -right, "right": right, "towards": down, "away": -down}
            assert max(seen, key=lambda way: seen[way]) == ways[index]


def test_nothing_moves_where_nobody_does(films: list[Film]) -> None:
    still = [film for film, (_, ways) in zip(films, IN_TURN, strict=True) if not ways]
    assert still
    for film in still:
        assert all(np.array_equal(frame, draw_film(film)[0]) for frame in draw_film(film))


def test_movers_come_in_and_solids_stay_apart_and_in_sight(films: list[Film]) -> None:
    for film in films:
        looks, movers = film["scene"]["appearance"]["objects"], len(film["movers"])
        view = view_of(film["scene"]["appearance"]["camera"])
        for frame in range(FRAMES):
            scene = scene_at(film, frame)
            for (one, look), (other, its) in itertools.combinations(zip(scene["objects"], looks, strict=True), 2):
                reach = footprint(one["shape"]) * look["radius"] + footprint(other["shape"]) * its["radius"]
                apart = math.dist(one["3d_coords"][:2], other["3d_coords"][:2])
                assert apart >= reach + GAP_BETWEEN - 1e-9
            still = 0 if frame == FRAMES - 1 else movers  # at the end all stand inside
            for item, look in zip(scene["objects"][still:], looks[still:], strict=True):
                pixels = view.project(bounding_corners(item, look["radius"]), FRAME_SIZE)[:, 1:]
                assert pixels.min() >= 0
                assert pixels.max() <= FRAME_SIZE
            if frame in (0, FRAMES // 2, FRAMES - 1):
                for shown in pixel_coverage(scene, FRAME_SIZE)[still:]:
                    assert shown.visible >= max(12, 0.6 * shown.whole)
        for item in film["scene"]["objects"][:movers]:  # their middles begin outside
            _, *place = view.project(np.array(item["3d_coords"], np.float32), FRAME_SIZE).tolist()
            assert min(place) < 0 or max(place) > FRAME_SIZE


def test_colours_are_those_asked_for_and_stand_out(films: list[Film]) -> None:
    for film in films:
        colors = [item["color"] for item in film["scene"]["objects"]]
        assert colors == list(PALETTE[: len(colors)])
        ground = film["scene"]["appearance"]["ground_rgb"]
        for color in colors:
            rgb = WORLDS[film["scene"]["appearance"]["world"]].colors[color]
            assert math.dist([c / 255 for c in rgb], ground) >= 0.24


def test_the_worlds_share_words_and_neither_solids_nor_shades() -> None:
    known, other = WORLDS.values()
    assert set(known.colors) == set(other.colors) == set(PALETTE)
    assert not set(known.shapes) & set(other.shapes)
    assert not set(known.grounds) & set(other.grounds)
    for name, rgb in other.colors.items():
        distances = {word: math.dist(rgb, of_known) for word, of_known in known.colors.items()}
        assert min(distances, key=lambda word: distances[word]) == name  # another shade, of the same word
        assert distances[name] >= 30


def test_a_film_is_its_seeds_and_survives_json(films: list[Film]) -> None:
    def film(seed: int) -> Film:
        return sample_film(WORLDS["clevr-like"], ["red", "blue"], ["left"], np.random.default_rng(seed))

    assert film(3) == film(3)
    assert film(3) != film(4)
    for one in films[:3]:
        assert draw_film(json.loads(json.dumps(one))).tobytes() == draw_film(one).tobytes()


@pytest.mark.parametrize(
    ("colors", "ways", "frames", "match"),
    [
        (["gray"], [], 8, "has no 'gray'; colours are"),
        (["red"], ["up"], 8, "has no 'up'; colours are"),
        (["red", "red"], [], 8, "name each colour once"),
        (["red"], ["left", "right"], 8, "at most as many directions"),
        (["red"], ["left"], 1, "frames is 1; nothing moves"),
    ],
)
def test_what_cannot_be_filmed_is_refused(colors: list[str], ways: list[str], frames: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        sample_film(WORLDS["clevr-like"], colors, ways, np.random.default_rng(0), frames=frames)
