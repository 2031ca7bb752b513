"""How many wrong traces a rule lets through, where it is known what the reasoner did.

Only r1mm's scripted reasoner knows: its records carry `truth`, what it `answered` (None where it never came to an
answer) and whether its reasoning was `sound`.  A record is

- *good* when the reasoning is sound and what was answered is right: the traces that ought to pass;
- *passed* when the filter found an answer and that is right.

A passed record that is not good is a wrong trace, of one of two kinds: *picked*, the pattern found a number that is not
what was answered; or *unsound*, it was answered, by luck or by faults that cancel.  For one pattern, over the records
that carry a truth:

- precision: of those that it passed, the share that is good;
- recall: of all good records, the share that it passed, so that the patterns' recalls add up to the rules' own;
- lost: how many good ones it decided and did not pass.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from r1mm.distill.rules import normal


class Truth(BaseModel):
    """What the reasoner did."""

    model_config = ConfigDict(frozen=True, strict=True)
    answered: str | int | None
    sound: bool

    def good(self, right: str) -> bool:
        """Whether the trace ought to pass; `right` is the true answer, as `normal` makes it."""
        return self.sound and self.answered is not None and normal(self.answered) == right


class Traces(BaseModel):
    """What was let through of the records with a truth."""

    passed: int = 0
    good: int = 0
    picked: int = 0
    unsound: int = 0
    lost: int = 0

    def count(self, truth: Truth, right: str, found: str | None) -> None:
        """Take in one record, in which the answer `found` was found."""
        good = truth.good(right)
        if found != right:
            self.lost += good
            return
        self.passed += 1
        if good:
            self.good += 1
        elif truth.answered is None or normal(truth.answered) != found:
            self.picked += 1
        else:
            self.unsound += 1

    @property
    def wrong(self) -> int:
        """Wrong traces that were let through."""
        return self.picked + self.unsound

    @property
    def precision(self) -> float | None:
        """None where nothing passed."""
        return self.good / self.passed if self.passed else None


def together(some: Iterable[Traces]) -> Traces:
    """The sum."""
    whole = Traces()
    for one in some:
        for name in Traces.model_fields:
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
    return whole
