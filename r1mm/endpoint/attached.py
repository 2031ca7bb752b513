"""Pictures in messages: files that are read when a request is made, and are known by their hash until then.

A message's part is `{"type": "image_url", "image_url": {"url": PictureFile(...)}}`, OpenAI's form but for the file in
the place of its address.  So thousands of questions that wait, and the key of each, cost no picture's memory.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = Mapping[str, Any]


class PictureGone(Exception):
    """A picture is not there any more, or is another one."""


@dataclass(frozen=True)
class PictureFile:
    """An image file of a media type such as `image/png`; `sha256` is of its bytes."""

    path: Path
    sha256: str
    media_type: str

    def data_url(self) -> str:
        """The picture as an address that holds it.  PictureGone when it is not what it was."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise PictureGone(f"{self.path} cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PictureGone(f"{self.path} has changed since it was looked at")
        return f"data:{self.media_type};base64,{base64.b64encode(data).decode()}"


def picture_part(picture: PictureFile) -> dict[str, Any]:
    """A message's part that shows a picture."""
    return {"type": "image_url", "image_url": {"url": picture}}


def has_pictures(messages: Sequence[Message]) -> bool:
    """Whether a message shows a file."""
    parts = (part for message in messages if not isinstance(message["content"], str) for part in message["content"])
    return any(_picture_in(part) is not None for part in parts)


def for_sending(messages: Sequence[Message]) -> list[Message]:
    """The messages with their pictures in them; files are read.  PictureGone where one is not what it was."""
    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [_with_picture(part) for part in message["content"]]}
        for message in messages
    ]


def identity(value: Any) -> Any:
    """What stands for a picture where messages are hashed as JSON: its bytes' hash, not where it lies."""
    if isinstance(value, PictureFile):
        return {"sha256": value.sha256}
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _picture_in(part: Mapping[str, Any]) -> PictureFile | None:
    url = part.get("image_url", {}).get("url")
    return url if isinstance(url, PictureFile) else None


def _with_picture(part: Mapping[str, Any]) -> Mapping[str, Any]:
    picture = _picture_in(part)
    return part if picture is None else {**part, "image_url": {**part["image_url"], "url": picture.data_url()}}
