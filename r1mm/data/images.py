"""Images of items, opened with care: every failure names the item, and no image unpacks into all of the memory."""

import io
import warnings
from pathlib import Path
from typing import Any

import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from datasets import Dataset, Image

from r1mm.errors import BadInput

# What the published sets hold, and what people convert them to.  PIL's other readers have no business here.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_REMEDY = "replace the image, or remove the item from the dataset"


def _open(encoded: Any, where: str) -> PIL.Image.Image:
    data, path = (encoded.get("bytes"), encoded.get("path")) if isinstance(encoded, dict) else (None, None)
    if not data and not (data is None and path and Path(path).is_file()):
        raise BadInput(f"{where} has no image; {_REMEDY}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            return PIL.Image.open(io.BytesIO(data) if data else str(path), formats=FORMATS)
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError) as error:
        raise BadInput(f"{where}: its image is a decompression bomb ({error}); {_REMEDY}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{where}: its image is none of {', '.join(FORMATS)} ({error}); {_REMEDY}") from error


def check_header(encoded: Any, where: str) -> None:
    """Raise BadInput when an encoded image is missing, of no known format, or a decompression bomb by its header."""
    _open(encoded, where).close()


def header_of(encoded: Any, where: str) -> tuple[str, tuple[int, int]]:
    """An encoded image's media type (`image/png`) and its width and height, by its header."""
    with _open(encoded, where) as image:
        return PIL.Image.MIME[str(image.format)], image.size


def size_of(encoded: dict[str, Any]) -> tuple[int, int]:
    """Width and height of an encoded image ({bytes, path}) of a set that was looked through, by its first bytes."""
    source = io.BytesIO(encoded["bytes"]) if encoded["bytes"] is not None else encoded["path"]
    with PIL.Image.open(source) as image:
        return image.size


def decode_image(encoded: Any, where: str) -> PIL.Image.Image:
    """The pixels of an encoded image ({bytes, path}), turned as its EXIF says, as `datasets` decodes it.

    BadInput names `where` when there is no image, or it does not decode.
    """
    image = _open(encoded, where)
    try:
        image.load()
        if image.getexif().get(PIL.ExifTags.Base.Orientation) is not None:
            image = PIL.ImageOps.exif_transpose(image)
    except (PIL.Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadInput(f"{where}: its image does not decode ({error}); {_REMEDY}") from error
    return image


def decode_lazily(dataset: Dataset) -> Dataset:
    """`dataset` whose column `image` is decoded when rows are read; an image that does not decode names its item."""

    def decode(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if "image" not in columns:
            return columns
        names = columns.get("item") or ["an item"] * len(columns["image"])
        pairs = zip(columns["image"], names, strict=True)
        return {**columns, "image": [decode_image(encoded, str(name)) for encoded, name in pairs]}

    return dataset.cast_column("image", Image(decode=False)).with_transform(decode)
