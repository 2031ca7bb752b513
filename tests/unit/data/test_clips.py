"""Which frames of a clip are taken and how large, by values worked out by hand; and what odd files do."""

import copy
import io
import pickle
import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from r1mm.data.clip_reader import average_rate
from r1mm.data.clips import (
    Clip,
    Sampling,
    clip_size,
    counted_frames,
    decode_clip,
    frame_indices,
    most_clip_tokens,
    write_mp4,
)
from r1mm.errors import BadInput
from r1mm.mini.motion import PALETTE, WORLDS, draw_film, sample_film

NOISE = np.random.default_rng(0).integers(0, 256, (60, 56, 56, 3), np.uint8)
PUBLISHED = Sampling()
SMALL = Sampling(frames=8, min_pixels=56 * 56, max_pixels=56 * 56)


def gray(frames: int, height: int = 56, width: int = 56) -> np.ndarray[Any, Any]:
    """Frames whose brightness tells which one it is: 5 more than the one before, from 20."""
    levels = (20 + 5 * np.arange(frames) % 230).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3))


def order(clip: Clip) -> list[int]:
    """Which frames of `gray` a clip holds."""
    return ((clip.frames.float().mean((1, 2, 3)) - 20) / 5).round().int().tolist()


def video(
    frames: np.ndarray[Any, Any],
    *,
    container: str = "mp4",
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 1000),
    keyframes: int = 12,
    reordered: int = 2,
    rotation: float | None = None,
    to: Path | None = None,
    **options: str,
) -> bytes:
    """A video whose frames are shown at `stamps` times `base` seconds, or 30 a second."""
    file: Any = to or io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        stream: Any = out.add_stream(codec, rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", keyframes
        stream.max_b_frames, stream.bit_rate = reordered, 1_000_000
        if stamps is not None:
            stream.codec_context.time_base = base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, each in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(each), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[i], base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return to.read_bytes() if to else file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=16000)
        tone = np.sin(np.arange(16000) * 0.17).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def test_indices_of_a_clip_of_8_seconds() -> None:
    # 240 frames at 30 a second: 16 counted, each stands once, 239 / 15 = 15.93 apart, to the nearest.
    expected = [0, 16, 32, 48, 64, 80, 96, 112, 127, 143, 159, 175, 191, 207, 223, 239]
    assert counted_frames(240, 30.0, PUBLISHED) == 16
    assert frame_indices(240, 30.0, PUBLISHED) == expected


def test_indices_of_a_short_clip_repeat_frames() -> None:
    # A second at 30: 2 counted by length, 4 at least, spread over 0 .. 29 as 0, 9.67, 19.33, 29.
    assert counted_frames(30, 30.0, PUBLISHED) == 4
    assert frame_indices(30, 30.0, PUBLISHED) == [0] * 5 + [10] * 5 + [19] * 5 + [29]


def test_indices_of_an_odd_clip() -> None:
    # 10.5 s at 2 a second are 21, of which an even number counts: 20, spread 314 / 19 = 16.526 apart.
    # 16 of 20, by 19 / 15 = 1.267 truncated: 0 1 2 3 5 6 7 8 10 11 12 13 15 16 17 19.
    assert counted_frames(315, 30.0, PUBLISHED) == 20
    expected = [0, 17, 33, 50, 83, 99, 116, 132, 165, 182, 198, 215, 248, 264, 281, 314]
    assert frame_indices(315, 30.0, PUBLISHED) == expected


def test_indices_of_a_long_clip() -> None:
    # Ten hours at 30 a second: 72,000 by length, 768 at most, 1,079,999 / 767 = 1408.0821 apart; of those 51.13 apart.
    assert counted_frames(1_080_000, 30.0, PUBLISHED) == 768
    places = [0, 51, 102, 153, 204, 255, 306, 357, 409, 460, 511, 562, 613, 664, 715, 767]
    expected = [
        0, 71812, 143624, 215437, 287249, 359061, 430873, 502685,
        575906, 647718, 719530, 791342, 863154, 934967, 1006779, 1079999,
    ]  # fmt: skip
    assert [round(i * 1_079_999 / 767) for i in places] == expected
    assert frame_indices(1_080_000, 30.0, PUBLISHED) == expected


@pytest.mark.parametrize(
    ("total", "counted", "kept"),
    [
        (1, 2, [0] * 16),
        (2, 2, [0] * 15 + [1]),
        (3, 2, [0] * 15 + [2]),
        # By length 3.3: 4.  5 / 4 frames apart: 0, 1.33, 2.67, 4.
        (5, 4, [0] * 5 + [1] * 5 + [3] * 5 + [4]),
    ],
)
def test_indices_of_very_few_frames(total: int, counted: int, kept: list[int]) -> None:
    assert counted_frames(total, 3.0, PUBLISHED) == counted
    assert frame_indices(total, 3.0, PUBLISHED) == kept


def test_a_clip_is_never_counted_beyond_its_frames() -> None:
    assert counted_frames(7, 1.0, PUBLISHED) == 6  # 14 by length


@pytest.mark.parametrize(
    ("height", "width", "counted", "size"),
    [
        # At most 196 x 784 = 153,664: 720 x 1280 shrinks by sqrt(921,600 / 153,664) = 2.449 to 294.0 x 522.7.
        (720, 1280, 16, (280, 504)),
        (1280, 720, 16, (504, 280)),
        # 364 x 336 are within as they are; 360 / 28 = 12.86 and 350 / 28 = 12.5, of which half goes to the even 12.
        (360, 350, 16, (364, 336)),
        # At least 128 x 784 = 100,352: 240 x 320 grows by sqrt(100,352 / 76,800) = 1.1431 to 274.3 x 365.8.
        (240, 320, 16, (280, 392)),
        # 768 counted share 90,316,800 pixels two by two: 235,200 each, above the 153,664.
        (720, 1280, 768, (280, 504)),
    ],
)
def test_sizes(height: int, width: int, counted: int, size: tuple[int, int]) -> None:
    assert clip_size(height, width, counted, PUBLISHED) == size


def test_the_size_depends_on_the_frames_counted_not_kept() -> None:
    # 1,000,000 pixels for 16 counted two by two: 125,000 each; for 32 62,500, below 1.05 x 100,352 = 105,369.
    few = Sampling(total_pixels=1_000_000)
    assert clip_size(720, 1280, 16, few) == (252, 448)  # by 2.7153: 265.2 x 471.4
    assert clip_size(720, 1280, 32, few) == (224, 420)  # by 2.9574: 243.5 x 432.8


def test_no_clip_has_more_tokens_than_are_said_to_be_the_most() -> None:
    # 10 x 1279 grows by 2.8009 to 28.01 x 3582.4, of which 56 x 3584 are made: 2 x 128 tokens, beyond the 196.
    assert clip_size(10, 1279, 16, PUBLISHED) == (56, 3584)
    assert most_clip_tokens(PUBLISHED) == 8 * 256
    shapes = [(high, high * ratio // 16) for high in (1, 10, 27) for ratio in range(16, 3200, 5)]
    sizes = [clip_size(high, wide, 16, PUBLISHED) for high, wide in shapes]
    assert max(high * wide for high, wide in sizes) == 256 * 784


def test_frames_of_no_size_are_refused() -> None:
    with pytest.raises(BadInput, match="4000 x 10 pixels are more than 200 times"):
        clip_size(10, 4000, 16, PUBLISHED)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fps": 0}, "clips.fps is 0"),
        ({"frames": 15}, "clips.frames is 15"),
        ({"min_frames": 9, "max_frames": 8}, "min_frames 9"),
        ({"max_pixels": 50}, "clips.max_pixels 50"),
    ],
)
def test_a_sampling_that_leaves_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Sampling(**settings)


@pytest.mark.parametrize(
    ("container", "codec", "keyframes"),
    [("mp4", "libx264", 12), ("mp4", "libx264", 250), ("matroska", "libx264", 7), ("avi", "mpeg4", 12),
     ("mpegts", "libx264", 12), ("webm", "libvpx", 12)],
)  # fmt: skip
def test_the_frames_asked_for_are_those_decoded(container: str, codec: str, keyframes: int) -> None:
    encoded = {"bytes": video(gray(45), container=container, codec=codec, keyframes=keyframes), "path": None}
    # 1.5 s: 4 counted, 14.67 apart: 0, 15, 29, 44; of those 8 by 3 / 7 truncated: 0 0 0 1 1 2 2 3.
    clip = decode_clip(encoded, "clip", SMALL)
    assert clip.frames.shape == (8, 3, 56, 56)
    assert clip.frames.dtype == torch.uint8
    assert order(clip) == [0, 0, 0, 15, 15, 29, 29, 44]


def test_a_variable_frame_rate_is_counted_by_frames() -> None:
    # 40 frames, the first 30 in one second, then one a second: 10 s and some, 20 counted, 39 / 19 = 2.053 apart.
    # 8 of 20 by 19 / 7 truncated: 0 2 5 8 10 13 16 19.  By time only two of these would be in the first second.
    stamps = [33 * i for i in range(30)] + [1000 + 1000 * i for i in range(10)]
    for container in ("mp4", "matroska"):  # of which the latter states 30 a second, by which 4 would be counted
        encoded = {"bytes": video(gray(40), container=container, stamps=stamps, reordered=0), "path": None}
        assert order(decode_clip(encoded, "clip", SMALL)) == [0, 4, 10, 16, 21, 27, 33, 39]


def test_a_rate_that_the_times_belie_is_not_believed() -> None:
    assert average_rate(300, 10.0, 29.97) == 29.97
    assert average_rate(300, 10.0, 1000.0) == 30.0
    assert average_rate(300, 10.0, 0.0) == 30.0
    assert average_rate(1, 0.0, 0.0) == 1.0


def test_ten_hours_are_not_decoded_to_be_sampled() -> None:
    # 40 frames, one every 15 minutes.  All are counted, 39 / 7 = 5.571 apart, truncated.
    encoded = {"bytes": video(gray(40), stamps=[900_000 * i for i in range(40)]), "path": None}
    assert order(decode_clip(encoded, "clip", SMALL)) == [0, 5, 11, 16, 22, 27, 33, 39]


def test_one_frame_stands_for_all() -> None:
    clip = decode_clip({"bytes": write_mp4(gray(1), 2.0), "path": None}, "clip", SMALL)
    assert order(clip) == [0] * 8


def test_a_phone_that_filmed_on_its_side() -> None:
    frames = np.zeros((4, 56, 112, 3), np.uint8)
    frames[:, :, :40] = 200  # bright on the left, which a quarter turn to the left puts below
    sampling = Sampling(frames=2, min_pixels=1, max_pixels=56 * 112)
    clip = decode_clip({"bytes": video(frames, rotation=90), "path": None}, "clip", sampling)
    assert clip.frames.shape == (2, 3, 112, 56)
    assert clip.frames[:, :, 80:].float().mean() > 150
    assert clip.frames[:, :, :60].float().mean() < 20


def test_what_cannot_be_decoded_names_its_item(tmp_path: Path) -> None:
    whole = video(NOISE, to=tmp_path / "whole.mp4", keyframes=250, movflags="faststart")
    media = whole.index(b"mdat")
    broken = bytearray(whole)
    broken[media + 10_000 : media + 15_000 : 5] = bytes(1000)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    cases: list[tuple[dict[str, Any] | None, str]] = [
        (None, "has no clip"),
        ({"bytes": None, "path": str(tmp_path / "absent.mp4")}, "absent.mp4.* has no clip"),
        ({"bytes": b"", "path": None}, "an empty clip of 0 bytes"),
        ({"bytes": None, "path": str(empty)}, "an empty clip of 0 bytes"),
        ({"bytes": b"not a video at all" * 99, "path": None}, "cannot be read"),
        ({"bytes": b"#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "path": None}, "cannot be read"),
        ({"bytes": sound(), "path": None}, r"without moving pictures \(it holds audio\)"),
        ({"bytes": whole[: media + 15_000], "path": None}, r"cannot be read: frame \d+ of 60 is cut off or damaged"),
        # Cut off where the file says how its pictures are encoded, or before that.
        ({"bytes": video(gray(60, 360, 640))[:-600], "path": None}, "cannot be read"),
        ({"bytes": video(NOISE)[:-3000], "path": None}, "cannot be read"),
        ({"bytes": bytes(broken), "path": None}, "does not decode"),
    ]
    for encoded, said in cases:
        with pytest.raises(BadInput, match=f"^item-7 .*{said}.*(replace the clip|remove the item)"):
            decode_clip(encoded, "item-7", PUBLISHED)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264")]
)
def test_files_damaged_at_random_are_read_or_refused_by_name(container: str, codec: str) -> None:
    chance, whole = random.Random(0), video(gray(45), container=container, codec=codec)
    refused = 0
    for _ in range(25):
        data = bytearray(whole[: chance.randint(len(whole) // 2, len(whole))])
        for _ in range(chance.choice([1, 3, 30])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            clip = decode_clip({"bytes": bytes(data), "path": None}, "item-7", SMALL)
        except BadInput as error:
            refused += str(error).startswith("item-7 ")
        else:
            assert clip.frames.shape == (8, 3, 56, 56)
    assert refused > 3


def test_a_clip_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video(gray(30)))
    by_path = decode_clip({"bytes": None, "path": str(path)}, "clip", SMALL)
    by_bytes = decode_clip({"bytes": path.read_bytes(), "path": "elsewhere.mp4"}, "clip", SMALL)
    assert torch.equal(by_path.frames, by_bytes.frames)


def test_copies_of_a_clip_are_itself() -> None:
    clip = Clip(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    assert copy.deepcopy([clip, clip])[1] is clip
    assert torch.equal(pickle.loads(pickle.dumps(clip)).frames, clip.frames)


def test_mp4s_are_the_same_for_the_same_frames_and_true_to_them() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 14, 14, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    encoded = write_mp4(frames, 2.0)
    assert encoded == write_mp4(frames, 2.0)
    clip = decode_clip({"bytes": encoded, "path": None}, "clip", SMALL)  # 4 s at 2 a second: all 8
    off = (clip.frames.permute(0, 2, 3, 1).float() - torch.from_numpy(frames).float()).abs()
    assert off.mean() < 2


def test_mp4s_do_not_hang_on_what_memory_held() -> None:
    # Of one film in forty x264's assembly wrote several streams, whichever were written before.
    rng = np.random.default_rng(3)
    frames = draw_film(sample_film(WORLDS["clevr-like"], PALETTE[:3], ["left", "away"], rng))
    written = set()
    for width in range(28, 84, 2):
        write_mp4(rng.integers(0, 256, (4, 56, width, 3)).astype(np.uint8), 2.0)
        written.add(write_mp4(frames, 2.0))
    assert len(written) == 1


@pytest.mark.parametrize("shape", [(8, 4, 56, 56), (8, 56, 56), (0, 56, 56, 3)])
def test_frames_that_are_no_clip_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="frames are"):
        write_mp4(np.zeros(shape, np.uint8), 2.0)
