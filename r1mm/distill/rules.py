"""What a response answers, by upstream's rules and by strict ones.

`upstream` reproduces the filter that made Clevr_CoGenT_TrainA_R1.  It takes an answer from wherever its first matching
pattern finds one, the thoughts included: from "**3** red cubes" on the way, from "also 1" near the end, from "should be
4." in a thought that is corrected later.  A record passes when the number so found is right, whatever was answered.

`strict` is our choice: a trace is worth learning from only where the thinking is whole and what it came to is said, so
that the answer which is compared is the one that was given.  It asks for

- one thinking block, opened and closed once and not empty, with nothing before it: tags that are only spoken of, and
  traces cut at their length, are no thoughts to train on;
- an explicit statement after it: boxed, or behind "answer" or "final count".  Where there is none, a number in bold on
  the last line will do, if it is the only one there.  What stands in the thoughts is not looked at;
- one answer: where statements differ, nobody knows which is meant;
- the last statement on the last line that is not empty, or boxed, or with its label or value in bold: an "answer" in
  the middle of an explanation is part of the explanation.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from r1mm.distill.patterns import CONCLUSION, LAST_LINES, STRICT, UPSTREAM

RulesName = Literal["upstream", "strict"]
OPENS, CLOSES = "<think>", "</think>"
_CUT_SHORT = ("length", "content_filter")  # finish_reason of an OpenAI-compatible server

NO_TAGS, NO_PATTERN = "no think tags", "no pattern matches"
CUT, NOT_ONE_BLOCK, EMPTY_BLOCK = "cut short", "not one thinking block", "empty thinking"
NO_STATEMENT, NOT_AT_THE_END, DIFFERENT = "no answer stated", "not at the end", "different answers"


class Decision(NamedTuple):
    """`answer` in lower case, None where none was found; `by`: the pattern that decided, or why none did."""

    answer: str | None
    by: str


def by_upstream(response: str, finish_reason: str | None = None) -> Decision:
    """Upstream's answer.  It does not ask how the response ended."""
    if OPENS not in response or CLOSES not in response:
        return Decision(None, NO_TAGS)
    for line in reversed(response.split("\n")[-LAST_LINES:]):
        for pattern in UPSTREAM:
            if pattern.group == CONCLUSION and (found := pattern.search.search(line)):
                return Decision(found[1].lower(), pattern.name)
    for pattern in UPSTREAM:
        if pattern.group != CONCLUSION and (found := pattern.search.search(response)):
            return Decision(found[1].lower(), pattern.name)
    return Decision(None, NO_PATTERN)


def by_strict(response: str, finish_reason: str | None = None) -> Decision:
    """The answer that a whole response states, once, at its end."""
    if finish_reason in _CUT_SHORT:
        return Decision(None, CUT)
    before, _, rest = response.partition(OPENS)
    thoughts, closed, said = rest.partition(CLOSES)
    if before.strip() or not closed or any(tag in part for tag in (OPENS, CLOSES) for part in (thoughts, said)):
        return Decision(None, NOT_ONE_BLOCK)
    if not thoughts.strip():
        return Decision(None, EMPTY_BLOCK)
    said = said.rstrip()
    last_line = said.rfind("\n") + 1
    boxed, labelled, bold = STRICT
    # One value that two patterns find, `answer: \boxed{5}`, is the first one's.
    stated = {
        found.start(1): (found, pattern) for pattern in (labelled, boxed) for found in pattern.search.finditer(said)
    }
    if stated:
        if len({found[1].lower() for found, _ in stated.values()}) > 1:
            return Decision(None, DIFFERENT)
        place = max(stated)
        found, pattern = stated[place]
        if place >= last_line or pattern is boxed or "**" in found[0] or _inside_bold(said, place):
            return Decision(found[1].lower(), pattern.name)
        return Decision(None, NOT_AT_THE_END)
    marked = (found for found in bold.search.finditer(said, last_line) if not _inside_bold(said, found.start()))
    values = {found[1].lower() for found in marked}
    if len(values) == 1:
        return Decision(values.pop(), bold.name)
    return Decision(None, DIFFERENT if values else NO_STATEMENT)


def _inside_bold(said: str, place: int) -> bool:
    """Whether bold was opened and not closed in the line before a place."""
    return said.count("**", said.rfind("\n", 0, place) + 1, place) % 2 == 1


RULES: Mapping[str, Callable[[str, str | None], Decision]] = {"upstream": by_upstream, "strict": by_strict}
RULES_NAMES: tuple[RulesName, ...] = ("upstream", "strict")


def normal(answer: Any) -> str:
    """An answer as both sides are compared: upstream's `str`, in lower case, without blanks around it."""
    return str(answer).strip().lower()


def patterns_of(rules: RulesName) -> list[tuple[str, str]]:
    """All that can decide a record by these rules, in order: name and group; at the end what finds no answer."""
    patterns = UPSTREAM if rules == "upstream" else STRICT
    reasons = (
        (NO_TAGS, NO_PATTERN)
        if rules == "upstream"
        else (CUT, NOT_ONE_BLOCK, EMPTY_BLOCK, NO_STATEMENT, NOT_AT_THE_END, DIFFERENT)
    )
    return [(pattern.name, pattern.group) for pattern in patterns] + [(reason, "no answer") for reason in reasons]
