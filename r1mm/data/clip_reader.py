"""Chosen frames of a video file, read with PyAV, whose wheels bring FFmpeg.

A file is listed first: its packets are read without decoding, which tells how many frames there are and when each is
shown, whatever the header says.  Then the chosen frames are decoded, each from the keyframe before it, one at a time.
So a file of ten hours takes the memory of a frame and some bytes for each of its frames.

Damage is refused where FFmpeg notices it on the way to a chosen frame; in what nobody looks at it is not looked for.
AVI and ASF keep no times of H.264's reordered frames: there a chosen frame can be its neighbour.
"""

import bisect
import io
from array import array
from collections.abc import Container, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from r1mm.errors import BadInput

# Containers of videos, by FFmpeg's names.  Its other readers (playlists, which open other files; devices; images) have
# no business here.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
MAX_PIXELS = 8192 * 8192  # of one frame, which then takes 200 MB
REMEDY = "replace the clip, remove the item from the dataset, or train without such clips (clips.undecodable: skip)"
_PLAUSIBLE = 2.0  # a stated rate that is further off than this factor is no average of the frames' times


def average_rate(total: int, seconds: float, stated: float) -> float:
    """Frames a second of `total` frames that are shown for `seconds`.

    What the file states as its average, 0 for nothing, is taken, as upstream's readers do, unless the times say
    otherwise by more than a factor of two: recordings of browsers state 1000 frames a second.
    """
    measured = total / seconds if seconds > 0 else 0.0
    if stated <= 0 or (measured and not 1 / _PLAUSIBLE <= stated / measured <= _PLAUSIBLE):
        return measured or 1.0
    return stated


class _Damaged(Exception):
    """A frame that FFmpeg patched."""


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class VideoFile:
    """The frames of an encoded video ({bytes, path}).  What cannot be read raises BadInput, which names `where`.

    A context manager: the file is closed at its end.
    """

    total: int  # frames
    rate: float  # frames a second, on average

    def __init__(self, encoded: Any, where: str) -> None:
        data, path = (encoded.get("bytes"), encoded.get("path")) if isinstance(encoded, dict) else (None, None)
        self._where = where if data or not path else f"{where} ({path})"
        if data is None and path and Path(path).is_file():
            self._source: bytes | str = str(path)
            empty = Path(path).stat().st_size == 0
        elif data is None:
            raise self._refused(f"has no clip: neither bytes nor a file at {path!r}")
        else:
            self._source, empty = data, len(data) == 0
        if empty:
            raise self._refused("has an empty clip of 0 bytes")
        self._stamps, self._keys = array("q"), array("q")
        self._reformatter = VideoReformatter()  # one for all frames: setting it up costs more than a small frame
        self._container: Any = None

    def __enter__(self) -> "VideoFile":
        try:
            self._open()
            self._list()
            if not self.total:
                raise self._refused("has a clip without a single frame")
        except (av.FFmpegError, _Damaged) as error:
            self.__exit__()
            raise self._refused(f"has a clip that cannot be read: {_why(error)}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self, indices: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        """The frames of ascending, distinct `indices`, one by one: (H, W, 3) uint8, RGB, upright."""
        taken = 0
        if self._stamps:
            taken = yield from self._by_seeking([self._stamps[i] for i in indices])
        if taken < len(indices):
            yield from self._in_order(indices[taken:])

    def _refused(self, reason: str) -> BadInput:
        return BadInput(f"{self._where} {reason}; {REMEDY}")

    def _open(self) -> None:
        """Open the file, or open it again: not every container can be wound back."""
        self.__exit__()
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source
        # Titles in another encoding than UTF-8 are no reason to stop.
        self._container = av.open(source, options={"format_whitelist": FORMATS}, metadata_errors="replace")
        covers = Disposition.attached_pic
        streams = [each for each in self._container.streams.video if not each.disposition & covers]
        if not streams:
            kinds = ", ".join(sorted({each.type for each in self._container.streams})) or "nothing"
            raise self._refused(f"has a clip without moving pictures (it holds {kinds})")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise _Damaged("nothing says how its pictures are encoded")
        width, height = self._stream.width, self._stream.height
        if width * height > MAX_PIXELS:
            raise self._refused(f"has a clip of {width} x {height} pixels, more than {MAX_PIXELS:,}")
        # Clips are decoded side by side, in threads of ours.
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), "threads": "1"}

    def _list(self) -> None:
        """Fill in the number of frames, their rate, and the times at which they, and keyframes, are shown."""
        stream, read, timed, duration = self._stream, 0, True, 0
        # An mp4 lists its frames one by one; what other containers list are some, or none.
        indexed = len(stream.index_entries) if "mp4" in self._container.format.name else 0
        for packet in self._container.demux(stream):
            if packet.size == 0:
                continue
            read += 1
            if packet.is_corrupt:
                raise _Damaged(f"frame {read} of {indexed or 'unknown'} is cut off or damaged")
            if packet.is_discard:  # outside the part that is to be shown
                continue
            if packet.pts is None:
                timed = False
                continue
            self._stamps.append(packet.pts)
            duration = packet.duration or duration
            if packet.is_keyframe:
                self._keys.append(packet.pts)
        if read < indexed:
            raise _Damaged(f"the file ends after {read} of {indexed} frames")
        stated = float(stream.average_rate or 0)
        if not timed:
            self._stamps = self._keys = array("q")
            self.total, self.rate = sum(1 for _ in self._all()), stated or 1.0
            return
        for times in (self._stamps, self._keys):
            np.frombuffer(times, np.int64).sort()  # in place
        self.total = len(self._stamps)
        length = self._stamps[-1] - self._stamps[0] + duration if self.total else 0
        self.rate = average_rate(self.total, float(length * stream.time_base), stated)

    def _decoded(self, wanted: Container[int] | None = None) -> Iterator[Any]:
        """Decoded frames from where the container stands; where `wanted` times are given, at least those.

        What is not wanted, and nothing else is decoded from, is passed over: half of a usual video's frames and time.
        """
        decoder = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            if wanted is not None:
                decoder.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise _Damaged(f"the frame at {frame.time or 0:.2f} s is damaged")
                yield frame

    def _all(self) -> Iterator[Any]:
        """Decoded frames from the start."""
        self._open()
        yield from self._decoded()

    def _by_seeking(self, stamps: Sequence[int]) -> Generator[np.ndarray[Any, Any], None, int]:
        """Frames of these times, as far as seeking finds precisely them; their number."""
        frames: Iterator[Any] = iter(())
        wanted = frozenset(stamps)
        last = self._stamps[0] - 1
        for taken, stamp in enumerate(stamps):
            before = bisect.bisect_right(self._keys, stamp)
            try:
                if before and self._keys[before - 1] > last:
                    self._container.seek(self._keys[before - 1], stream=self._stream)
                    frames = self._decoded(wanted)
                frame = next((each for each in frames if each.pts is None or each.pts >= stamp), None)
            except (av.FFmpegError, _Damaged):
                return taken  # of the file, or of where seeking landed: decoding in order tells
            if frame is None or frame.pts != stamp:
                return taken
            last = stamp
            yield self._pixels(frame)
        return len(stamps)

    def _in_order(self, indices: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
        """Frames of these indices, found by decoding all before them."""
        frames = enumerate(self._all())
        try:
            at, frame = next(frames, (-1, None))
            for index in indices:
                # A packet may show nothing of its own (VP8 has such): then the next that is shown stands for it.
                while frame is not None and self._is_before(at, frame, index):
                    at, frame = next(frames, (at, None))
                if frame is None:
                    raise self._refused(f"has a clip that ends after {at + 1} of {self.total} frames")
                yield self._pixels(frame)
        except (av.FFmpegError, _Damaged) as error:
            raise self._refused(f"has a clip that does not decode: {_why(error)}") from error

    def _is_before(self, at: int, frame: Any, index: int) -> bool:
        """Whether a frame, the one `at` of those decoded, is shown before the frame of an index."""
        if not self._stamps:
            return at < index
        return frame.pts is None or frame.pts < self._stamps[index]

    def _pixels(self, frame: Any) -> np.ndarray[Any, Any]:
        """(H, W, 3) uint8, turned as the file says: phones film on their side."""
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.rot90(pixels, round(frame.rotation / 90) % 4)
