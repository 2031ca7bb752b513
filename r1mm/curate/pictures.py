"""The pictures of a chain's items: looked at once each, by their header or whole."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from r1mm.chain.pictures import read_picture
from r1mm.data.images import decode_image, header_of
from r1mm.endpoint.ask import Unfit
from r1mm.endpoint.attached import PictureFile
from r1mm.errors import BadInput

# Upstream's limit: Qwen2-VL's processor refuses less than one 28 x 28 patch of merged pixels.
SMALLEST = 28
# What OpenAI's interface takes (its guide to images): others are to be converted by whoever knows how.
SENDABLE = ("image/png", "image/jpeg", "image/webp", "image/gif")


class Seen(NamedTuple):
    """A picture, and what is wrong with it, by the rule that refuses it: `image` or `small-image`."""

    file: PictureFile
    fault: str | None = None
    why: str = ""


class Pictures:
    """The pictures in `folder`; `whole` decodes them, else the header alone is looked at.

    What is found is kept, some 400 bytes for each, not the pictures.
    """

    def __init__(self, folder: Path, *, whole: bool) -> None:
        self.folder, self._whole = folder, whole
        self._seen: dict[str, Seen] = {}

    def look(self, name: str) -> Seen:
        """The picture of this name.  BadInput where its file cannot be read."""
        found = self._seen.get(name)
        if found is None:
            found = self._seen[name] = self._look(name)
        return found

    def _look(self, name: str) -> Seen:
        path = self.folder / name
        return seen_in(read_picture(path), path, whole=self._whole, name=name)


def seen_in(data: bytes, path: Path, *, whole: bool, name: str = "") -> Seen:
    """What can be said of a picture's bytes, which lie at `path` and are called `name`."""
    name = name or str(path)
    encoded = {"bytes": data, "path": None}
    digest = hashlib.sha256(data).hexdigest()
    try:
        media_type, (width, height) = header_of(encoded, name)
        if whole:
            decode_image(encoded, name)
    except BadInput as error:
        return Seen(PictureFile(path, digest, "image/unknown"), "image", str(error))
    file = PictureFile(path, digest, media_type)
    if min(width, height) < SMALLEST:
        return Seen(file, "small-image", f"{name} has {width} x {height} pixels; {SMALLEST} are the least")
    return Seen(file)


def unfit_to_send(seen: Seen) -> Unfit | None:
    """Why a picture is not worth a request; None where it is."""
    if seen.fault:
        return Unfit(seen.fault, seen.why)
    if seen.file.media_type not in SENDABLE:
        return Unfit("image type", f"{seen.file.media_type} is none of {', '.join(SENDABLE)}; convert it")
    return None
