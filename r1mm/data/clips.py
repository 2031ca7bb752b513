"""Clips of items: which frames of a video a model sees, how large, and the decoding of them.

Sampling is that of Open-R1-Video (`Wang-Xiaodong1899/Open-R1-Video@50eb65f`, its vendored qwen-vl-utils 0.0.10;
`benchmarks/clips.py check DIR` compares it with the published package's):

    counted   2 frames a second of the video's length, at least 4, at most 768 or all there are, down to an even number
    spread    that many, evenly from the first frame to the last, to the nearest
    kept      16 of those, evenly from first to last, truncated to whole numbers
    size      multiples of 28 within 128 x 28 x 28 and 196 x 28 x 28 pixels, fewer where many frames were *counted*

Where fewer than 16 frames are counted, truncation repeats all but the last: of four, each of the first three stands
five times and the last once.  So it is upstream, and so it stays.  A video of one frame stops upstream; here its frame
stands 16 times.
"""

import io
import math
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from r1mm.data.clip_reader import REMEDY, VideoFile
from r1mm.errors import BadInput

_PAIR = 2  # frames that the model sees as one in time
_LONGEST = 200  # times as long as wide, at most


@dataclass(frozen=True)
class Sampling:
    """What is taken of a video; the defaults are Open-R1-Video's.  Pixels are those of one frame."""

    fps: float = 2.0
    frames: int = 16
    min_frames: int = 4
    max_frames: int = 768
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 196 * 28 * 28
    total_pixels: int = int(128000 * 28 * 28 * 0.9)  # of all counted frames, two of which are one in time
    factor: int = 28

    def __post_init__(self) -> None:
        """Raise BadInput for what leaves no clip."""
        if self.fps <= 0:
            raise BadInput(f"clips.fps is {self.fps}; write how many frames of a second are counted, such as 2.0")
        if self.frames < _PAIR or self.frames % _PAIR:
            raise BadInput(f"clips.frames is {self.frames}; the model sees frames in pairs: write an even number")
        if not 0 < self.min_frames <= self.max_frames:
            raise BadInput(f"min_frames {self.min_frames} and max_frames {self.max_frames} leave no number of frames")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise BadInput(
                f"clips.min_pixels {self.min_pixels} and clips.max_pixels {self.max_pixels} leave no size; write the "
                "fewest and the most pixels of a frame"
            )


class Clip:
    """The frames of a clip, (T, 3, H, W) uint8, RGB.  It may still be being decoded: asking for `frames` waits.

    Copies of it are itself, so that the rows of a group keep sharing one.
    """

    def __init__(self, frames: "torch.Tensor | Future[torch.Tensor]") -> None:
        self._frames = frames

    @property
    def frames(self) -> torch.Tensor:
        """(T, 3, H, W) uint8.  Raises BadInput, naming the item, for a clip that could not be decoded."""
        if isinstance(self._frames, Future):
            self._frames = self._frames.result()
        return self._frames

    def __copy__(self) -> "Clip":
        return self

    def __deepcopy__(self, memo: Any) -> "Clip":
        return self

    def __reduce__(self) -> Any:
        return Clip, (self.frames,)


def counted_frames(total: int, rate: float, sampling: Sampling) -> int:
    """How many frames of `total` at `rate` a second are counted, before some of those are kept; at least 2."""
    fewest = math.ceil(sampling.min_frames / _PAIR) * _PAIR
    most = math.floor(min(sampling.max_frames, total) / _PAIR) * _PAIR
    counted = min(max(total / rate * sampling.fps, fewest), most, total)
    return max(math.floor(counted / _PAIR), 1) * _PAIR


def frame_indices(total: int, rate: float, sampling: Sampling) -> list[int]:
    """Which of a video's `total` frames at `rate` a second make up the clip: `sampling.frames` of them, ascending."""
    counted = counted_frames(total, rate, sampling)
    spread = torch.linspace(0, total - 1, counted).round().long()
    kept = torch.linspace(0, counted - 1, sampling.frames).long()
    indices: list[int] = spread[kept].tolist()
    return indices


def most_clip_tokens(sampling: Sampling) -> int:
    """The most tokens that a clip can have: `factor` x `factor` pixels of two frames are one.

    Small strips may take more than `max_pixels` allows: enlarged to `min_pixels`, their short side is rounded up, which
    makes one token of a fraction, or two of little more than one.
    """
    token = sampling.factor**2
    usual = max(sampling.max_pixels, int(sampling.min_pixels * 1.05)) // token
    strips = max(
        math.ceil(math.sqrt(_LONGEST * sampling.min_pixels / token)), 2 * math.ceil(sampling.min_pixels / token)
    )
    return sampling.frames // _PAIR * max(usual, strips)


def clip_size(height: int, width: int, counted: int, sampling: Sampling) -> tuple[int, int]:
    """Height and width in pixels to which frames are resized, of a video of which `counted` frames were counted.

    Raises BadInput for frames more than 200 times as long as wide.
    """
    factor = sampling.factor
    share = sampling.total_pixels / counted * _PAIR
    most = max(min(sampling.max_pixels, share), int(sampling.min_pixels * 1.05))
    if max(height, width) > _LONGEST * min(height, width):
        raise BadInput(f"frames of {width} x {height} pixels are more than {_LONGEST} times as long as wide")
    high, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if high * wide > most:
        shrink = math.sqrt(height * width / most)
        high, wide = (math.floor(side / shrink / factor) * factor for side in (height, width))
    elif high * wide < sampling.min_pixels:
        grow = math.sqrt(sampling.min_pixels / (height * width))
        high, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    if not high or not wide:
        raise BadInput(f"frames of {width} x {height} pixels do not fit into {int(most)} at multiples of {factor}")
    return high, wide


def decode_clip(encoded: Any, where: str, sampling: Sampling) -> Clip:
    """The clip of an encoded video ({bytes, path}): its frames chosen and resized (bicubic, antialiased).

    BadInput names `where` when there is no video, or it does not decode.
    """
    resized: dict[int, torch.Tensor] = {}
    size: list[int] = []
    with VideoFile(encoded, where) as video:
        counted = counted_frames(video.total, video.rate, sampling)
        indices = frame_indices(video.total, video.rate, sampling)
        distinct = sorted(set(indices))
        for index, pixels in zip(distinct, video.frames(distinct), strict=True):
            try:
                size = size or list(clip_size(pixels.shape[0], pixels.shape[1], counted, sampling))
            except BadInput as error:
                raise BadInput(f"{where}: {error}; {REMEDY}") from error
            frame = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
            resized[index] = resize(frame, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return Clip(torch.stack([resized[index] for index in indices]))


def write_mp4(frames: np.ndarray[Any, Any], fps: float) -> bytes:
    """An mp4 (H.264) of `frames`, (T, H, W, 3) uint8 RGB, `fps` of them a second; the same bytes for the same frames.

    Colours keep their full resolution (4:4:4), so that small things keep theirs.  Raises BadInput for other frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise BadInput(
            f"frames are {frames.dtype} of shape {frames.shape}; a clip is uint8, (T, H, W, 3), T at least 1"
        )
    height, width = frames.shape[1:3]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        # One thread: what is written does not hang on the machine's cores.  No assembly: with it x264 wrote up to five
        # streams for the same frames of 56 x 56, and decoded they differ (1 film of 40, by up to 9 of 255).
        options = {"preset": "veryfast", "crf": "12", "threads": "1", "flags": "+bitexact", "x264-params": "asm=0"}
        stream.options = options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
