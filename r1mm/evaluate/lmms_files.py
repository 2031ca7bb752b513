"""LongVideoBench's clips: where they lie among its files, or out of the parts of their archive.

`videos.tar` comes in parts (`videos.tar.part.aa`, ...), 161 GB together.  They are read as one file, so that no second
copy of the archive is made, and only clips that an item names are written.
"""

import bisect
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from r1mm.data.download import check_space
from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import explained, locked, make_folder, publish, write_json

_PARTS = "videos.tar.part.*"
_CHUNK = 1 << 20


class _Joined(io.RawIOBase):
    """Files one after the other as one, to be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.ends = list(itertools.accumulate(path.stat().st_size for path in paths))
        self.at, self.number = 0, -1
        self.part: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.ends[-1])[whence]
        return self.at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        number = bisect.bisect_right(self.ends, self.at)
        if number == len(self.paths):
            return 0
        if self.part is None or self.number != number:
            self.close_part()
            self.number, self.part = number, self.paths[number].open("rb")
        self.part.seek(self.at - (self.ends[number - 1] if number else 0))
        data = self.part.read(len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close_part(self) -> None:
        if self.part is not None:
            self.part.close()
            self.part = None

    def close(self) -> None:
        self.close_part()
        super().close()


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    temporary = path.with_name(f".{path.name}.part")
    with explained(path), temporary.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
    publish(temporary, path)


def _unpack(parts: Sequence[Path], wanted: set[str], into: Path) -> None:
    """Write every wanted clip that is not there yet in its full size."""
    whole = str(parts[0]) if len(parts) == 1 else f"{parts[0]} to {parts[-1].name}"
    try:
        with (
            io.BufferedReader(_Joined(parts), _CHUNK) as joined,
            tarfile.open(fileobj=joined, mode="r:") as archive,
            progress_bar(total=len(wanted), desc="unpacking clips", unit="clip") as bar,
        ):
            # By name alone: an archive cannot lead out of the folder.
            found = {
                name: member
                for member in archive
                if member.isfile() and (name := PurePosixPath(member.name).name) in wanted
            }
            if missing := wanted - found.keys():
                raise BadInput(
                    f"{len(missing)} of {len(wanted)} clips are not in {whole}, such as {min(missing)}; fetch all parts"
                )
            paths = {name: into / name for name in found}
            left = [
                name for name, path in paths.items() if not path.is_file() or path.stat().st_size != found[name].size
            ]
            check_space(into, sum(found[name].size for name in left), f"clips of {parts[0].name} ...")
            bar.update(len(found) - len(left))
            for name in left:
                _write(archive, found[name], paths[name])
                bar.update()
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{whole}: no whole archive ({error}); fetch the parts again") from error


def clips_folder(folder: Path, names: Sequence[str], into: Path) -> Path:
    """The folder of the clips `names`: `videos` among LongVideoBench's files, or `into`, where they are unpacked.

    What is unpacked stays, and an unpacking that was cut short goes on.  Raises BadInput when clips are missing, or
    another process unpacks them; StageFailed, before any is written, when they do not fit on the disk.
    """
    unpacked = next((path for path in sorted(folder.rglob("videos")) if path.is_dir() and any(path.iterdir())), None)
    if unpacked is not None:
        return unpacked
    parts = sorted(folder.rglob(_PARTS)) or sorted(folder.rglob("videos.tar"))
    if not parts:
        raise BadInput(f"{folder} holds neither a folder videos nor {_PARTS}; give the files of LongVideoBench")
    wanted = {PurePosixPath(name).name for name in names}
    done, stamp = into / "unpacked.json", [[path.name, path.stat().st_size] for path in parts]
    state = {"parts": stamp, "clips": sorted(wanted)}
    with locked(into):  # all runs share it
        if not (done.is_file() and json.loads(done.read_text(encoding="utf-8")) == state):
            make_folder(into)
            _unpack(parts, wanted, into)
            write_json(done, state)
    return into
