"""Numbers, intervals, times, texts and images as a page shows them.  What is absent is a dash, never a guess."""

import base64
import io
import json
from typing import Any

from PIL import Image

from r1mm.report.figures import Row, finite

# What a page calls the stages that train.
TRAINING_WORDS = {"sft": "supervised fine-tuning", "grpo": "GRPO"}

ABSENT = "–"  # noqa: RUF001 (a dash for a reader, not a minus sign)


def number(value: object, digits: int = 1) -> str:
    """A number with a true minus sign, or a dash when there is none."""
    known = finite(value)
    # Adding 0.0 after rounding turns a negative zero into a zero.
    return ABSENT if known is None else f"{round(known, digits) + 0.0:.{digits}f}".replace("-", "\u2212")


def signed(value: object, digits: int = 1) -> str:
    """A difference with its sign, unless it is zero."""
    known = finite(value)
    return ABSENT if known is None else ("+" if round(known, digits) > 0 else "") + number(known, digits)


def percent(value: object) -> str:
    """A percentage that is already in percent."""
    return ABSENT if finite(value) is None else f"{number(value)}\u00a0%"


def share(count: object, n: object) -> str:
    """`count` of `n` in percent."""
    part, whole = finite(count), finite(n)
    return ABSENT if part is None or not whole else percent(100 * part / whole)


def span(interval: Row | None, plus: bool = False, digits: int = 1) -> str:
    """An interval as `low to high`; with signs where it is one of differences."""
    ends = [(interval or {}).get(end) for end in ("low", "high")]
    if any(finite(end) is None for end in ends):
        return ABSENT
    return " to ".join(signed(end, digits) if plus else number(end, digits) for end in ends)


def quantity(value: object, unit: str | None) -> str:
    """A claim's value in its unit."""
    known = finite(value)
    if known is None:
        return ABSENT
    if unit in ("percent", "%"):
        return percent(known)
    if unit == "points":
        return f"{signed(known)}\u00a0points"
    return f"{number(known, 2)} {unit or ''}".strip()


def p_value(value: object) -> str:
    """A p value to three places, and no smaller than it can be trusted."""
    known = finite(value)
    return ABSENT if known is None else ("< 0.001" if known < 0.001 else f"{known:.3f}")


def duration(seconds: object) -> str:
    """Seconds as a reader says them."""
    known = finite(seconds)
    if known is None:
        return ABSENT
    if known < 60:
        return f"{known:.1f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def visible(text: object) -> str:
    """Text as it can stand in HTML: control characters as their symbols, lone surrogates replaced."""
    shown = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in str(text))
    return shown.encode("utf-8", "replace").decode("utf-8")


def first_upper(text: str) -> str:
    """Words as a heading begins with them; what is written in capitals stays so."""
    return text[:1].upper() + text[1:]


def compact(value: Any) -> str:
    """A JSON value on one line; text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def data_uri(png: bytes, most_bytes: int, longest_side: int) -> str:
    """An image for an `src` attribute; above `most_bytes` it is drawn smaller and as JPEG: the page stays light."""
    if len(png) <= most_bytes:
        return "data:image/png;base64," + base64.b64encode(png).decode()
    with Image.open(io.BytesIO(png)) as image:
        smaller = image.convert("RGB")
    smaller.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    smaller.save(out, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
