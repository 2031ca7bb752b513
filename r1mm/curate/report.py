"""What a verification reports: items for each rule, those that one rule alone refuses, and examples."""

from collections.abc import Mapping

from pydantic import BaseModel

from r1mm.curate.rules import Parts

EXAMPLES = 3  # of each reason
_SHOWN = 200  # characters of a text in an example


class Example(BaseModel):
    """An item that a reason refused."""

    image: str
    problem: str
    answer: str
    original_answer: str
    why: str


class Reason(BaseModel):
    """How many items break a rule, how many that one alone, and how many of them upstream's filter would have kept."""

    name: str
    rows: int = 0
    alone: int = 0
    upstream_keeps: int = 0
    examples: list[Example] = []


class Tried(BaseModel):
    """What the model made of the items that it was asked: of `attempts` answers to each, how many were right."""

    attempts: int
    model: str
    items: int = 0
    answers: int = 0
    right: int = 0
    solved: dict[int, int] = {}


class VerifyReport(BaseModel):
    """What a run of the verification found.  `upstream_keeps`: rows that upstream's published filter would have kept,
    `upstream_only` those of them that are refused here."""

    rows: int
    passed: int
    upstream_keeps: int
    upstream_only: int
    reasons: list[Reason]
    tried: Tried | None = None
    sources: dict[str, tuple[int, int]]

    @property
    def rejected(self) -> int:
        """Items that do not pass."""
        return self.rows - self.passed


class Tally:
    """What has been looked at so far."""

    def __init__(self) -> None:
        self._report = VerifyReport(rows=0, passed=0, upstream_keeps=0, upstream_only=0, reasons=[], sources={})
        self._reasons: dict[str, Reason] = {}

    def take(
        self,
        image: str,
        source: str,
        parts: Parts | None,
        original_answer: str,
        broken: Mapping[str, str],
        kept_there: bool,
    ) -> None:
        """Take in an item, the rules that it breaks, and whether upstream's filter would have kept it."""
        report = self._report
        report.rows += 1
        report.passed += not broken
        report.upstream_keeps += kept_there
        report.upstream_only += kept_there and bool(broken)
        rows, passed = report.sources.get(source, (0, 0))
        report.sources[source] = (rows + 1, passed + (not broken))
        for name, why in broken.items():
            reason = self._reasons.setdefault(name, Reason(name=name))
            reason.rows += 1
            reason.alone += len(broken) == 1
            reason.upstream_keeps += kept_there
            if len(reason.examples) < EXAMPLES:
                problem, answer = (_short(parts.problem), _short(parts.answer)) if parts else ("", "")
                reason.examples.append(
                    Example(
                        image=image, problem=problem, answer=answer, original_answer=_short(original_answer), why=why
                    )
                )

    def report(self, tried: Tried | None = None) -> VerifyReport:
        """All of it, the rule that most items break first."""
        reasons = sorted(self._reasons.values(), key=lambda one: -one.rows)
        return self._report.model_copy(update={"reasons": reasons, "tried": tried})


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
