"""The lettered options in a problem's text.

Upstream's sets have them as part of the problem, in whatever layout their source had: a line each (`A: 30°`), one after
another (`(A) 5 (B) 6`, `A. 5 B. 6`), after a word such as `Choices:` or after nothing.  A problem about points and
angles is full of single letters, so that letters count as options only as a series from A on, each with the same mark.
"""

import re
from collections.abc import Iterator, Sequence

_AHEAD = r"^[ \t>*-]*\**"  # of a mark at the start of a line: quotes, list signs, bold
_FREE = r"(?<![A-Za-z0-9.(\u2220])"  # not `P(A)`, `U.S.A.` or an angle's sign before the letter
# Each layout's mark.  In brackets, or on lines of their own, two letters are enough.
_SURE = (
    re.compile(_AHEAD + r"[(\[\uff08]([A-J])[)\]\uff09]\**[.:]?", re.MULTILINE),
    re.compile(_AHEAD + r"([A-J])[.):\uff1a\uff0e\u3001]\**", re.MULTILINE),
    re.compile(_AHEAD + r"\(?([a-j])[.):]\**", re.MULTILINE),
    re.compile(r"(?<![A-Za-z])[(\uff08]([A-J])[)\uff09]"),
    re.compile(r"(?<![A-Za-z])\[([A-J])\]"),
    re.compile(r"(?<![A-Za-z])\(([a-j])\)"),
)
# In running text these marks also follow letters that are no options ("They meet at A. Then ..."), so that three
# letters are wanted there, or a word that announces options.
_UNSURE = (
    re.compile(_FREE + r"([A-J])\)"),
    re.compile(_FREE + r"([A-J])[.\uff0e\u3001]"),
    re.compile(_FREE + r"([A-J])[:\uff1a]"),
)
_CUE = re.compile(r"\b(?:choices|options|select from|choose from)\b|\u9009\u9879", re.IGNORECASE)
_LINK = re.compile(r"[\s,;]*(?:\b(?:or|and))?[\s,;]*$")  # between an option and the next
_THING = re.compile(r"\b(?:angles?|points?|vertex|sides?|circles?|triangles?|lines?|and)\s*$", re.IGNORECASE)


def _series(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The longest run A, B, C ... of the marks, the last of several."""
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for mark in marks:
        letter = mark.group(1).upper()
        run = [mark] if letter == "A" else [*run, mark] if run and letter == chr(ord("A") + len(run)) else []
        if len(run) >= max(2, len(best)):
            best = run
    return best


def _texts(problem: str, marks: Sequence[re.Match[str]]) -> Iterator[tuple[str, str]]:
    ends = [*(mark.start() for mark in marks[1:]), len(problem)][: len(marks)]
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        text = problem[mark.end() : end].strip()
        # What follows the last option on another line is no part of it.
        text = text.partition("\n")[0] if number == len(marks) - 1 else " ".join(text.split())
        yield mark.group(1).upper(), _LINK.sub("", text.strip())


def find_options(problem: str) -> dict[str, str]:
    """The options of a problem by letter, in order; {} where it has none.

    Two to ten, in one layout: `A. x`, `A) x`, `A: x`, `(A) x` or `[A] x`, on lines or in running text; lower-case
    letters on lines or in brackets.  An option's text is "" where only the picture shows what it is.  Of several series
    the longest counts.
    """
    cue = _CUE.search(problem)
    best: list[re.Match[str]] = []
    for layout in (*_SURE, *_UNSURE):
        unsure = layout in _UNSURE
        marks = layout.finditer(problem, cue.end() if unsure and cue else 0)
        found = _series([mark for mark in marks if not (unsure and _THING.search(problem, 0, mark.start()))])
        if unsure and ((len(found) < 3 and not cue) or not all(text for _, text in _texts(problem, found))):
            continue
        if len(found) > len(best):
            best = found
    return dict(_texts(problem, best))
