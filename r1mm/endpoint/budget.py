"""What requests cost, and a limit that is not passed: tokens, money, or both.

Over restarts too, but for attempts that were under way when the process was killed: those nobody has written down.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from r1mm.errors import BadInput

_MILLION = 1e6
LOST = (
    "failed_attempts"  # in a record: tokens said (prompt, completion), attempts without a count, most tokens of those
)
# Room for what a chat template adds to a message: its marks, a default system turn.
_TEMPLATE = 64
# A picture: Qwen2-VL's largest is 12,845,056 pixels, 16,384 tokens of 28 x 28 (Qwen/Qwen2-VL-2B-Instruct,
# preprocessor_config.json).
_PICTURE = 16_384


class Usage(NamedTuple):
    """Tokens of prompts and of completions."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.prompt + self.completion

    def plus(self, other: "Usage", times: int = 1) -> "Usage":
        """With another's added, so many times."""
        return Usage(self.prompt + times * other.prompt, self.completion + times * other.completion)


NOTHING = Usage()


class Lost(NamedTuple):
    """What a question's failed attempts took: `said` by the server, and at most `guessed` for `unsaid` of no count."""

    said: Usage = NOTHING
    unsaid: int = 0
    guessed: Usage = NOTHING

    def with_failure(self, used: Usage | None, most: Usage) -> "Lost":
        """With one more attempt, which `used` so much, or nobody knows: `most` then."""
        if used is None:
            return self._replace(unsaid=self.unsaid + 1, guessed=self.guessed.plus(most))
        return self._replace(said=self.said.plus(used))

    def record(self) -> dict[str, Any]:
        """As it stands in a record; nothing where nothing was lost."""
        return {LOST: [*self.said, self.unsaid, *self.guessed]} if self != Lost() else {}


def lost_in(record: Mapping[str, Any]) -> Lost:
    """What `Lost.record` wrote.  ValueError or TypeError where that is damaged."""
    if LOST not in record:
        return Lost()
    prompt, completion, unsaid, *guessed = map(int, record[LOST])
    return Lost(Usage(prompt, completion), unsaid, Usage(*guessed))


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in whatever currency the caller thinks in."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, usage: Usage) -> float:
        """What so many tokens cost."""
        return (usage.prompt * self.prompt + usage.completion * self.completion) / _MILLION


@dataclass(frozen=True)
class Budget:
    """The most that may be spent; None: no limit."""

    money: float | None = None
    tokens: int | None = None

    def __bool__(self) -> bool:
        return self.money is not None or self.tokens is not None


def most_tokens(messages: Iterable[Mapping[str, Any]], max_tokens: int) -> Usage:
    """The most tokens that a request can take: a tokenizer that works on bytes makes no more tokens than bytes."""
    prompt = 0
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = (len(part["text"].encode("utf-8", "replace")) if part["type"] == "text" else _PICTURE for part in parts)
        prompt += _TEMPLATE + sum(texts)
    return Usage(prompt, max_tokens)


class Purse:
    """What has been spent, and what requests under way may still take.

    `spent` is what servers said; `guessed` the most that `unsaid` attempts can have taken whose answer never came, or
    came without a count: whether such an attempt is charged is known to the provider alone.
    """

    def __init__(
        self, budget: Budget, prices: Prices, before: Usage, unsaid: int = 0, guessed: Usage = NOTHING
    ) -> None:
        self.priced = bool(prices.prompt or prices.completion)
        if budget.money is not None and not self.priced:
            raise BadInput(
                f"a budget of {budget.money:g} without prices cannot be kept; give the prices of a million tokens, or "
                "a budget in tokens"
            )
        self.budget, self.prices = budget, prices
        self.before, self.spent = before, before
        self.guessed, self.held, self.unsaid = guessed, NOTHING, unsaid
        self._changed = asyncio.Event()

    async def take(self, most: Usage) -> bool:
        """Set `most` aside for a request, when what is under way leaves room for it; False when none ever will."""
        while not self._fits(self.spent.plus(self.guessed).plus(self.held).plus(most)):
            if not self.held.total:
                return False
            self._changed.clear()
            await self._changed.wait()
        self.held = self.held.plus(most)
        return True

    def settle(self, most: Usage, used: Usage | None) -> None:
        """A request that had `most` set aside has ended: it took `used`, or nobody knows."""
        self.held = self.held.plus(most, -1)
        if used is None:
            self.guessed, self.unsaid = self.guessed.plus(most), self.unsaid + 1
        else:
            self.spent = self.spent.plus(used)
        self._changed.set()

    def _fits(self, usage: Usage) -> bool:
        money, tokens = self.budget.money, self.budget.tokens
        return (tokens is None or usage.total <= tokens) and (money is None or self.prices.cost(usage) <= money)

    def used_up(self, most: Usage, left: int) -> str:
        """What to say when a request of `most` has no room and `left` questions are unasked."""
        limits = []
        if self.budget.tokens is not None:
            limits.append(f"{self.budget.tokens:,} tokens")
        if self.budget.money is not None:
            limits.append(f"{self.budget.money:g} in money")
        return (
            f"the budget of {' and '.join(limits)} leaves no room for another request, which may take {most.total:,} "
            f"tokens{self._money(most)}; spent: {self.words()}; {left:,} questions are left: give a larger budget and "
            "start the same command again, it goes on from here"
        )

    def words(self) -> str:
        """What has been spent so far, earlier starts included."""
        text = f"{self.spent.prompt:,} + {self.spent.completion:,} tokens{self._money(self.spent)}"
        if self.unsaid:
            text += (
                f", and at most {self.guessed.total:,}{self._money(self.guessed)} for {self.unsaid:,} attempts whose "
                "answer did not come or had no count"
            )
        return text

    def _money(self, usage: Usage) -> str:
        return f" (cost {self.prices.cost(usage):,.4f})" if self.priced else ""
