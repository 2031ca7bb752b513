"""The pictures that a dataset's rows are about: looked at once each, told apart by their bytes."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r1mm.data.images import decode_image
from r1mm.errors import BadInput
from r1mm.progress import progress_bar

_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    """An image file; pictures of the same bytes have the same `sha256`, whatever their names."""

    path: Path
    sha256: str
    bytes: int


def check_there(names: Collection[str], folder: Path, what: str) -> None:
    """Raise BadInput that lists names without a file in `folder`, or a name that would lie outside of it."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise BadInput(f"{what} names the picture {name!r}; it must be a path inside its folder: correct the file")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{folder} lacks {len(missing)} of the {len(names)} pictures that {what} names: "
            f"{', '.join(missing[:_SHOWN])}{' ...' * (len(missing) > _SHOWN)}; give the folder of this split's images"
        )


def look_at(names: Collection[str], folder: Path, what: str) -> dict[str, Picture]:
    """The pictures of these names in `folder`.  Each is decoded whole: an interrupted unpacking leaves half a file.

    BadInput lists names without a file, and names a file that is no whole image, or would lie outside of the folder.
    """
    check_there(names, folder, what)
    found = {}
    for name in progress_bar(names, desc=f"look at {folder.name}", unit="img"):
        path = folder / name
        data = read_picture(path)
        decode_image({"bytes": data, "path": None}, str(path))
        found[name] = Picture(path, hashlib.sha256(data).hexdigest(), len(data))
    return found


def read_picture(path: Path) -> bytes:
    """A picture's bytes.  BadInput where they cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); make it readable") from error


def same_bytes(pictures: Mapping[str, Picture]) -> list[list[str]]:
    """The names of pictures that are the same to the byte, as groups of two and more."""
    counts = Counter(picture.sha256 for picture in pictures.values())
    groups: dict[str, list[str]] = {}
    for name, picture in pictures.items():
        if counts[picture.sha256] > 1:
            groups.setdefault(picture.sha256, []).append(name)
    return sorted(sorted(names) for names in groups.values())
