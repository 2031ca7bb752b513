"""What the answer to an item must be, where the items of one task differ in it.

Carried by each output of such a task, so that it can be scored again without the dataset.
"""

import ast
import string
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Kind = Literal["letter", "integer", "float", "list", "text", "value"]


class Asked(BaseModel):
    """The form of an item's answer.  `options`, in order from A, where a letter is asked for; else none.  A `value` is
    a number of any form, with its unit.

    `precision`: the decimal places of a number, where it has any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    options: tuple[str, ...] = ()
    precision: int | None = None

    @model_validator(mode="after")
    def _letters_have_options(self) -> "Asked":
        if (self.kind == "letter") != bool(self.options):
            raise ValueError(f"kind {self.kind} has {len(self.options)} options; a letter has them, nothing else does")
        if len(self.options) > len(string.ascii_uppercase):
            raise ValueError(f"there are {len(self.options)} options, and 26 letters for them")
        return self

    @property
    def letters(self) -> str:
        """The letters of the options."""
        return string.ascii_uppercase[: len(self.options)]

    @property
    def by_letter(self) -> dict[str, str]:
        """The options by their letters, in order."""
        return dict(zip(self.letters, self.options, strict=True))

    def letter_of(self, text: str) -> str | None:
        """The letter of the option that reads `text`, case and blanks aside; None where none does."""
        wanted = " ".join(text.split()).casefold()
        for letter, option in self.by_letter.items():
            if " ".join(option.split()).casefold() == wanted:
                return letter
        return None

    def same_option(self, letter: str | None, truth: str) -> bool:
        """Whether two letters stand for the same option, which may be listed twice."""
        if letter is None or letter not in self.letters or truth not in self.letters:
            return False
        return self.options[self.letters.index(letter)] == self.options[self.letters.index(truth)]


def literal_list(text: str) -> list[str | int | float] | None:
    """A text that is a Python list of texts and numbers, as datasets write them; None for any other."""
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list) or not found or not all(type(one) in (str, int, float) for one in found):
        return None
    return found
