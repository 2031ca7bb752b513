"""Reading clips: PyAV against torchcodec in turns, what odd files do to each, and our sampling against upstream's.

python benchmarks/clips.py speed      clips per second on one and two threads, and peak memory
python benchmarks/clips.py odd        corrupted, truncated, empty, audio-only, 1-frame and 10-hour files
python benchmarks/clips.py check DIR  sampling and pixels against the package qwen-vl-utils 0.0.10, unpacked into DIR

torchcodec is measured where it can be imported: it is no dependency, and needs FFmpeg's shared libraries on the system.
"""

import argparse
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from r1mm.data.clips import Sampling, clip_size, counted_frames, decode_clip, frame_indices
from r1mm.errors import BadInput

PUBLISHED = Sampling()


def with_pyav(path: Path) -> torch.Tensor:
    return decode_clip({"bytes": None, "path": str(path)}, "clip", PUBLISHED).frames


def with_torchcodec(path: Path) -> torch.Tensor:
    decoder = importlib.import_module("torchcodec.decoders").VideoDecoder(str(path), num_ffmpeg_threads=1)
    told = decoder.metadata
    counted = counted_frames(told.num_frames, told.average_fps, PUBLISHED)
    indices = frame_indices(told.num_frames, told.average_fps, PUBLISHED)
    frames = decoder.get_frames_at(sorted(set(indices))).data
    size = list(clip_size(frames.shape[2], frames.shape[3], counted, PUBLISHED))
    resized = torch.stack([resize(each, size, InterpolationMode.BICUBIC, antialias=True) for each in frames])
    place = {index: i for i, index in enumerate(sorted(set(indices)))}
    return resized[[place[index] for index in indices]]


READERS: dict[str, Callable[[Path], torch.Tensor]] = {"pyav": with_pyav, "torchcodec": with_torchcodec}


def write(path: Path, frames: Any, *, rate: int = 30, keyframes: int = 250, **options: str) -> Path:
    """An mp4 of frames (H, W, 3) at `path`."""
    with av.open(str(path), "w", options=options) as out:
        stream: Any = None
        for each in frames:
            if stream is None:
                stream = out.add_stream("libx264", rate=rate)
                stream.height, stream.width = each.shape[:2]
                stream.pix_fmt, stream.gop_size = "yuv420p", keyframes
                stream.options = {"preset": "veryfast", "threads": "2"}
            out.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def scene(frames: int, height: int, width: int) -> Any:
    """A textured picture that drifts, with a square that crosses it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 16 + 2, 2 * width // 16, 3)).astype(np.uint8)
    picture = coarse.repeat(16, 0).repeat(16, 1) // 2 + rng.integers(0, 32, (1, 1, 3)).astype(np.uint8)
    grain = rng.integers(0, 12, (height, width, 3)).astype(np.uint8)
    for i in range(frames):
        frame = picture[:height, i % width : i % width + width][:, :width] + grain
        at = i * (width - 64) // max(1, frames - 1)
        frame[height // 2 : height // 2 + 64, at : at + 64] = (240, 40, 40)
        yield np.ascontiguousarray(frame)


def ten_hours(path: Path) -> Path:
    """1,080,000 frames at 30 a second: ten seconds, written again and again."""
    short = write(path.with_name("ten-seconds.mp4"), scene(300, 120, 160), keyframes=60)
    with av.open(str(short)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in source.demux(stream)
            if packet.size
        ]
        for again in range(3600):
            offset = again * round(10 / stream.time_base)
            for data, pts, dts, key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copied, stream.time_base, key
                packet.pts, packet.dts = pts + offset, dts + offset
                out.mux(packet)
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.sin(np.arange(16000) * 0.2).astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def in_a_process(reader: str, threads: int, files: list[Path]) -> dict[str, Any]:
    """Shape, seconds and memory in MiB of reading these files, in a process of its own."""
    command = [sys.executable, __file__, "one", reader, str(threads), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def one(reader: str, threads: int, files: list[Path]) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torchcodec.decoders" if reader == "torchcodec" else "av")
    Path("/proc/self/clear_refs").write_text("5")  # what was the peak so far is forgotten
    before = memory("VmRSS")
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        shapes = [tuple(clip.shape) for clip in pool.map(READERS[reader], files)]
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "more": memory("VmHWM") - before, "shape": shapes[0]}))


def memory(which: str) -> float:
    """A line of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) / 1024


def readers() -> list[str]:
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec is left out: {str(error).strip().splitlines()[0]}")
        return ["pyav"]
    return ["pyav", "torchcodec"]


def speed(folder: Path, repeats: int) -> None:
    torch.set_num_threads(1)
    names = readers()
    for title, frames, height, width, keyframes, clips in [
        ("1280 x 720, 30 s, keyframes 8.3 s apart", 900, 720, 1280, 250, 2),
        ("640 x 360, 60 s, keyframes 8.3 s apart", 1800, 360, 640, 250, 2),
        ("640 x 360, 60 s, keyframes 1 s apart", 1800, 360, 640, 30, 2),
        ("640 x 360, 10 s, keyframes 8.3 s apart", 300, 360, 640, 250, 4),
    ]:
        file = write(folder / "clip.mp4", scene(frames, height, width), keyframes=keyframes)
        for threads in (1, 2):
            rates: dict[str, list[float]] = {name: [] for name in names}
            busy: dict[str, list[float]] = {name: [] for name in names}
            with ThreadPoolExecutor(threads) as pool:
                for _ in range(repeats):  # in turns, so that a busy minute is on both
                    for name in names:
                        started, worked = time.perf_counter(), time.process_time()
                        list(pool.map(READERS[name], [file] * clips * threads))
                        rates[name].append(clips * threads / (time.perf_counter() - started))
                        busy[name].append((time.process_time() - worked) / (clips * threads))
            for name, taken in rates.items():
                more = in_a_process(name, threads, [file] * 2 * threads)["more"]
                print(
                    f"{title}, {threads} threads, {name}: {statistics.median(taken):.2f} clips/s "
                    f"({min(taken):.2f} to {max(taken):.2f}), {statistics.median(busy[name]):.2f} s of a core each, "
                    f"{more:.0f} MiB",
                    flush=True,
                )
        if len(names) == 2:
            apart = (with_pyav(file).int() - with_torchcodec(file).int()).abs()
            print(f"pixels apart by {apart.float().mean():.3f} on average, {apart.max()} at most")


def odd(folder: Path) -> None:
    whole = write(folder / "whole.mp4", scene(300, 360, 640), movflags="faststart").read_bytes()
    media = whole.index(b"mdat") + 4
    damaged = bytearray(whole)
    damaged[media + 2000 : media + 60_000 : 41] = bytes(len(damaged[media + 2000 : media + 60_000 : 41]))
    contents = {
        "corrupted": bytes(damaged),
        "truncated": whole[: media + (len(whole) - media) // 2],
        "truncated, index at the end": write(folder / "end.mp4", scene(300, 360, 640)).read_bytes()[:-4000],
        "zero length": b"",
        "no video": b"plain words " * 400,
    }
    files = {}
    for name, data in contents.items():
        files[name] = folder / f"{name.replace(' ', '-').replace(',', '')}.mp4"
        files[name].write_bytes(data)
    files["audio only"] = sound(folder / "audio.mp4")
    files["1 frame"] = write(folder / "one.mp4", scene(1, 360, 640))
    sparse = folder / "sparse.mp4"
    with av.open(str(sparse), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 360, 640, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, each in enumerate(scene(40, 360, 640)):
            frame = av.VideoFrame.from_ndarray(each, format="rgb24")
            frame.pts, frame.time_base = i * 900_000, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    files["10 hours, 40 frames"] = sparse
    files["10 hours, 1,080,000 frames"] = ten_hours(folder / "hours.mp4")
    for title, file in files.items():
        for name in readers():
            done = in_a_process(name, 1, [file])
            said = done.get("error") or f"{done['shape']} in {done['seconds']:.2f} s, {done['more']:.0f} MiB"
            print(f"{title} ({file.stat().st_size:,} bytes), {name}: {said}", flush=True)


def check(folder: Path, unpacked: Path) -> None:
    """Raise AssertionError where our sampling differs from that of the package with Open-R1-Video's one constant."""
    sys.path.insert(0, str(unpacked))
    sys.modules.setdefault("requests", ModuleType("requests"))  # it fetches addresses, of which there are none here
    upstream: Any = importlib.import_module("qwen_vl_utils.vision_process")
    upstream.logger.setLevel("ERROR")
    upstream.VIDEO_MAX_PIXELS = PUBLISHED.max_pixels  # Open-R1-Video@50eb65f has 196 x 28 x 28 for 768 x 28 x 28
    rng, indexed, sized = random.Random(0), 0, 0
    for _ in range(20_000):
        total = rng.choice([rng.randint(2, 40), rng.randint(2, 3000), rng.randint(2, 2_000_000)])
        rate = rng.choice([1.0, 10.0, 23.976, 24.0, 25.0, 29.97, 30000 / 1001, 30.0, 50.0, 60.0, rng.uniform(0.1, 120)])
        counted = upstream.smart_nframes({}, total_frames=total, video_fps=rate)
        assert counted == counted_frames(total, rate, PUBLISHED), (total, rate)
        spread = torch.linspace(0, total - 1, counted).round().long()
        kept = spread[torch.linspace(0, counted - 1, 16).long()].tolist()
        assert kept == frame_indices(total, rate, PUBLISHED), (total, rate)
        indexed += 1
        height, width = rng.randint(8, 2200), rng.randint(8, 4000)
        if max(height, width) <= 200 * min(height, width):
            share = upstream.VIDEO_TOTAL_PIXELS / counted * upstream.FRAME_FACTOR
            most = max(min(upstream.VIDEO_MAX_PIXELS, share), int(upstream.VIDEO_MIN_PIXELS * 1.05))
            low = upstream.VIDEO_MIN_PIXELS
            expected = upstream.smart_resize(height, width, factor=28, min_pixels=low, max_pixels=most)
            try:
                assert expected == clip_size(height, width, counted, PUBLISHED), (height, width, counted)
            except BadInput:
                assert 0 in expected, (height, width, counted)
            sized += 1
    print(f"{indexed} lengths and rates, {sized} sizes: the same")

    def read_video(path: str, **_: Any) -> Any:  # what torchvision's did, which later releases lack
        with av.open(path) as container:
            rate = float(container.streams.video[0].average_rate)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), None, {"video_fps": rate}

    upstream.io = SimpleNamespace(read_video=read_video)
    for number, (frames, height, width) in enumerate(
        [(300, 180, 320), (45, 240, 426), (3, 720, 1280), (1203, 96, 128)]
    ):
        file = write(folder / f"{number}.mp4", scene(frames, height, width), keyframes=50)
        whole = upstream.fetch_video({"video": str(file)})
        expected = whole[torch.linspace(0, len(whole) - 1, 16).long()]
        assert torch.equal(with_pyav(file).float(), expected), (frames, height, width)
        print(f"{frames} frames of {width} x {height}: {tuple(expected.shape)}, the same pixels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "odd", "check", "one"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.what == "one":
        reader, threads, *files = options.rest
        one(reader, int(threads), [Path(file) for file in files])
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "speed":
            speed(Path(folder), options.repeats)
        elif options.what == "odd":
            odd(Path(folder))
        elif len(options.rest) != 1:
            parser.error("check wants the folder into which qwen-vl-utils 0.0.10 was unpacked")
        else:
            check(Path(folder), Path(options.rest[0]))


if __name__ == "__main__":
    main()
