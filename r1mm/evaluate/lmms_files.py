"""LongVideoBench's files as the hub has them: where its items are, and its clips out of the parts of their archive.

`videos.tar` comes in parts (`videos.tar.part.aa`, ...), 161 GB together.  They are read one after the other as one
stream, so that no second copy of the archive is made, and only clips that an item names are written.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from r1mm.errors import BadInput
from r1mm.progress import progress_bar
from r1mm.rundir import explained, make_folder, publish, write_json

_ITEMS = ("lvb_val.json", "validation-*.parquet")
_PARTS = "videos.tar.part.*"
_CHUNK = 1 << 20


class _Joined(io.RawIOBase):
    """The bytes of files one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.waiting = list(paths)
        self.open_file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if self.open_file is None:
                if not self.waiting:
                    return 0
                self.open_file = self.waiting.pop(0).open("rb")
            data = self.open_file.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self.open_file.close()
            self.open_file = None

    def close(self) -> None:
        if self.open_file is not None:
            self.open_file.close()
            self.open_file = None
        super().close()


def items_file(folder: Path) -> Path:
    """The validation items among LongVideoBench's files.  BadInput when there are none."""
    for pattern in _ITEMS:
        found = sorted(folder.rglob(pattern))
        if found:
            return found[0]
    raise BadInput(f"{folder} holds none of {', '.join(_ITEMS)}; give the files of LongVideoBench as the hub has them")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    temporary = path.with_name(f".{path.name}.part")
    with explained(path), temporary.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
    publish(temporary, path)


def _unpack(parts: Sequence[Path], wanted: set[str], into: Path) -> None:
    """Write every wanted clip that is not there yet in its full size."""
    left = set(wanted)
    try:
        with (
            io.BufferedReader(_Joined(parts), _CHUNK) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
            progress_bar(total=len(wanted), desc="unpacking clips", unit="clip") as bar,
        ):
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in left:
                    continue
                path = into / name  # a name alone: an archive cannot lead out of the folder
                if not path.is_file() or path.stat().st_size != member.size:
                    _write(archive, member, path)
                left.remove(name)
                bar.update()
                if not left:
                    return
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{parts[0]} and the {len(parts) - 1} parts after it are no whole archive ({error})") from error
    raise BadInput(
        f"{len(left)} of {len(wanted)} clips are not in {parts[0]} and the {len(parts) - 1} parts after it, such as "
        f"{min(left)}; fetch all parts"
    )


def clips_folder(folder: Path, names: Sequence[str], into: Path) -> Path:
    """The folder of the clips `names`: `videos` among LongVideoBench's files, or `into`, where they are unpacked.

    What is unpacked stays, and an unpacking that was cut short goes on.  Raises BadInput when clips are missing,
    StageFailed when the disk is full.
    """
    unpacked = next((path for path in sorted(folder.rglob("videos")) if path.is_dir()), None)
    if unpacked is not None:
        return unpacked
    parts = sorted(folder.rglob(_PARTS)) or sorted(folder.rglob("videos.tar"))
    if not parts:
        raise BadInput(f"{folder} holds neither a folder videos nor {_PARTS}; give the files of LongVideoBench")
    wanted = {PurePosixPath(name).name for name in names}
    done, stamp = into / "unpacked.json", [[path.name, path.stat().st_size] for path in parts]
    state = {"parts": stamp, "clips": sorted(wanted)}
    if not (done.is_file() and json.loads(done.read_text(encoding="utf-8")) == state):
        make_folder(into)
        _unpack(parts, wanted, into)
        write_json(done, state)
    return into
