"""Values that carry where they are from: what recipes and everything published or measured are written with."""

import re
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

SOURCE_FORMS = (
    "'owner/repository@commit:file', 'owner/repository#issue', 'package==version:file', 'arXiv:number', "
    "or 'our choice: reason'"
)
_SOURCE = re.compile(
    r"our choice: \S.{8,}"
    r"|[\w.-]+/[\w.-]+@[0-9a-f]{7,40}:\S.*"
    r"|[\w.-]+/[\w.-]+#\d+.*"
    r"|[\w.-]+==[\w.+-]+:\S.*"
    r"|arXiv:\d{4}\.\d{4,5}.*",
    re.DOTALL,
)


def _check_source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ValueError(f"{text!r} names no source; write {SOURCE_FORMS}")
    return text


Source = Annotated[str, AfterValidator(_check_source)]
T = TypeVar("T")


class Strict(BaseModel):
    """A part of a recipe: unknown keys are refused, values are not coerced, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sparse(Strict):
    """A part of a recipe with settings that came later: where a recipe has none of them, nothing of them is written.

    Digests of such a recipe's parts, and so the runs made of it before, stay what they were.  `LATER` names them; each
    is None where a recipe has it not.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        whole: dict[str, Any] = handler(self)
        return {name: value for name, value in whole.items() if value is not None or name not in self.LATER}


class Setting(Strict, Generic[T]):
    """One value and where it is from."""

    value: T
    source: Source


def values(section: dict[str, Setting[Any]]) -> dict[str, Any]:
    """A section's settings without their sources."""
    return {key: setting.value for key, setting in section.items()}
