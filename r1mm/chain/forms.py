"""Entries of other people's files, held against the form that they are to have."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from r1mm.errors import BadInput

_SHOWN = 60  # characters of a value
Form = TypeVar("Form", bound=BaseModel)


def of_form(form: type[Form], entry: Any, where: str, remedy: str, place: str = "") -> Form:
    """`entry`, found at `place` in its file, as `form`.  BadInput names `where`, key and value, and what is wrong."""
    try:
        return form.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        seen = entry
        for part in first["loc"]:
            if isinstance(part, int) and isinstance(seen, list):
                place, seen = f"{place}[{part}]", seen[part]
            elif isinstance(seen, dict):
                place, seen = f"{place}.{part}", seen.get(part, "nothing")
            # What else stands in a place are the kinds that a value may be of.
        shown = str(seen)[:_SHOWN]
        raise BadInput(f"{where}: {place.lstrip('.')}: {first['msg']}; it is {shown}: {remedy}") from error
