"""The patterns that find an answer in a response: upstream's, to the letter, and those of the strict rules.

Source of UPSTREAM: Deep-Agent/R1-V@bbbbe3d:src/distill_r1/filter_r1.py; the names are ours.  All ignore case.
"""

import re
from typing import NamedTuple


class Pattern(NamedTuple):
    """`expression` finds an answer, its one group.  `group` says what kind of place it looks for."""

    name: str
    group: str
    expression: str

    @property
    def search(self) -> re.Pattern[str]:
        """The expression, compiled (and kept by `re`)."""
        return re.compile(self.expression, re.IGNORECASE)


CONCLUSION = "conclusion"  # looked for in the last three lines, from the last backwards; all others in the whole text
LAST_LINES = 3

_NOUNS = "(?:items?|objects?|spheres?|cubes?|boxes?)"

UPSTREAM = (
    Pattern(
        "so-bold",
        CONCLUSION,
        r"(?:so|therefore|thus|hence),?\s*(?:the answer is\s+)?\*\*\s*(no|yes|[0-9]+)\s*\*\*",
    ),
    Pattern(
        "so-plain",
        CONCLUSION,
        r"(?:so|therefore|thus|hence),?\s*(?:the answer is\s+)?(no|yes|[0-9]+)\b",
    ),
    Pattern("the-answer-is-bold", CONCLUSION, r"the answer is\s+\*\*\s*(no|yes|[0-9]+)\s*\*\*"),
    Pattern(
        "final-answer-bold",
        CONCLUSION,
        r"(?:final|conclusive) answer(?:\s+is)?\s*\*\*\s*(no|yes|[0-9]+)\s*\*\*",
    ),
    Pattern("bold-the-answer-is", "labelled", r"\*\*The answer is:\s*\*\*\s*([0-9]+|yes|no)\b"),
    Pattern("bold-answer", "labelled", r"\*\*Answer:\s*\*\*\s*([0-9]+|yes|no)\b"),
    Pattern("bold-answer-then-colon", "labelled", r"\*\*Answer\*\*:\s*([0-9]+|yes|no)\b"),
    Pattern("bold-answer-there-are", "labelled", r"\*\*Answer:?\s*\*\*\s*There (?:is|are)\s+([0-9]+)"),
    Pattern("bold-final-count", "labelled", r"\*\*Final Count:\s*\*\*\s*([0-9]+)"),
    # Never decides: the one before matches wherever this one does.
    Pattern("bold-final-count-things", "labelled", rf"\*\*Final Count:\s*\*\*\s*([0-9]+)\s+{_NOUNS}"),
    Pattern("bold-total", "labelled", r"\*\*Total:\s*\*\*\s*([0-9]+)"),
    Pattern("plain-the-answer-is", "labelled", r"The answer is:\s*([0-9]+|yes|no)\b"),
    Pattern("plain-answer", "labelled", r"Answer:\s*([0-9]+|yes|no)\b"),
    Pattern("should-be", "labelled", r"should be\s+([0-9]+)[.\s]"),
    Pattern("bold-number", "direct", r"\*\*\s*([0-9]+)\s*\*\*"),
    Pattern("bold-number-of-things", "direct", r"\*\*\s*([0-9]+)\s+(?:items?|objects?|cubes?|boxes?|spheres?)?\s*\*\*"),
    Pattern("bold-number-and-words", "direct", r"\*\*\s*([0-9]+)\s+[^*]+\*\*"),
    Pattern("boxed-in-dollars", "latex", r"\$\\boxed{([0-9]+)}\$"),
    Pattern("boxed", "latex", r"\\boxed{([0-9]+)}"),
    Pattern("there-are", "count", rf"There (?:is|are)\s+([0-9]+)\s+{_NOUNS}"),
)

# A number stands alone (not the 3 of 3.5 or of 35), and yes or no end what they say ("no more than" is no answer).
_VALUE = r"([0-9]+(?![.,]?[0-9])\b|(?:yes|no)(?=\s*(?:[.,;!)}\]*$]|\n|\Z)))"

STRICT = (
    Pattern("boxed", "statement", rf"\\boxed\s*\{{\s*(?:\\text\s*\{{\s*)?{_VALUE}"),
    Pattern(
        "labelled",
        "statement",
        rf"\b(?:answer|final\s+count)\**(?:\s+\**is\b)?(?:[\s:*$]|\\[(\[])+"
        rf"(?:\\boxed\s*\{{\s*(?:\\text\s*\{{\s*)?)?(?:there\s+(?:is|are)\s+\**)?{_VALUE}",
    ),
    # The weakest, asked only where neither of the others found anything: a number alone in bold, or with its noun.
    Pattern("bold", "bold", rf"\*\*\s*{_VALUE}(?:\s+[a-z ]+)?[.!]?\s*\*\*"),
)
