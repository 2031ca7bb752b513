"""An endpoint's API key: read from the environment or from a file, and taken out of all text that is shown or kept."""

import json
import os
from pathlib import Path

from r1mm.errors import BadInput

DEFAULT_VARIABLE = "OPENAI_API_KEY"
HIDDEN = "[key]"
_NO_KEY = "none"  # the client library sends no request without one; servers that want none do not look
# A shorter one (servers of one's own take "EMPTY" and the like) guards nothing, and could be a word of an answer.
_SHORTEST_SECRET = 8


class Key:
    """A key and the name of its place.  Its value is in no text of it; `value` is for the request's header alone."""

    def __init__(self, value: str | None, place: str) -> None:
        self.value, self.place, self.given = value or _NO_KEY, place, bool(value)
        secrets = {self.value, *_custom_headers()}
        forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Key({HIDDEN} of {self.place})"

    def hidden_in(self, text: str) -> str:
        """`text` without the key: a server may send back what it was sent."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text


def _custom_headers() -> list[str]:
    """What OPENAI_CUSTOM_HEADERS, which the client library reads, adds to every request: a gateway's own key, say."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[2].strip() for line in lines]


def _forms(secret: str) -> set[str]:
    """A secret as it is, and as JSON writes it, with slashes either way."""
    quoted = json.dumps(secret)[1:-1]
    return {secret, quoted, quoted.replace("/", "\\/")}


def read_key(variable: str | None = None, file: Path | None = None) -> Key:
    """The key in the environment variable `variable`, or in `file`; by default in OPENAI_API_KEY, if that is set.

    BadInput where the place that was named holds none, or holds what no HTTP header can carry.
    """
    if file is not None:
        place = str(file)
        try:
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            # The text of a decoding error would show a byte of the key.
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise BadInput(
                f"the key file {file} cannot be read ({reason}); name one that holds the key alone"
            ) from None
    else:
        place = variable or DEFAULT_VARIABLE
        value = os.environ.get(place, "").strip()
    if not value and (variable or file):
        raise BadInput(f"{place} holds no API key; put one there, or name another place")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise BadInput(
            f"{place} holds no API key: it has {len(value)} characters, some of them blanks, line ends or not ASCII; "
            "put the key alone there"
        )
    return Key(value, place)
