"""When a request may go out: so many a minute, and after a failure how much later."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_MINUTE = 60.0


class Clock(Protocol):
    """What waits are measured with; tests bring one that does not wait."""

    def now(self) -> float:
        """Seconds since some moment."""

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds later."""


class WallClock:
    """The machine's."""

    def now(self) -> float:
        """Seconds, never going back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds later."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Retries:
    """How often a request is made, and how long to wait in between.

    Waits grow twofold and are left to chance from 0 up ("full jitter"), so that requests that failed together do not
    come back together.  By default eight attempts wait for a minute altogether, on average (61.5 s).
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    longest_told: float = 600.0
    chance: Callable[[], float] = random.random  # in [0, 1)

    def wait(self, failures: int, told: float | None = None) -> float:
        """Seconds to wait after the `failures`-th failure; what the server `told` is a least."""
        if told is not None:
            return min(told, self.longest_told) + self.chance() * self.first
        return self.chance() * min(self.first * 2.0 ** (failures - 1), self.longest)


class Pace:
    """At most so many requests, and so many tokens, a minute; without limits there is no wait.

    Requests are spread evenly, so that no minute, wherever it starts, has more.  Tokens are taken from a store that
    fills up within a minute: a request takes the most that it can need, and what it did not need is put back.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or WallClock()
        self._gap = _MINUTE / requests if requests else 0.0
        self._not_before = self.clock.now()
        self._tokens = tokens
        self._stored, self._counted = tokens or 0.0, self.clock.now()
        self._turn = asyncio.Lock()

    async def turn(self, tokens: int) -> None:
        """Return when a request that needs at most `tokens` may go out; first come, first served."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self.clock.sleep(wait)
            self._not_before = max(self._not_before, self.clock.now()) + self._gap
            self._stored -= tokens

    def put_back(self, tokens: int) -> None:
        """Of what a request took, `tokens` were not needed."""
        self._stored += tokens

    def hold(self, seconds: float) -> None:
        """Nothing goes out for so long: the server said so, to all who share the key."""
        self._not_before = max(self._not_before, self.clock.now() + seconds)

    def _wait(self, tokens: int) -> float:
        now = self.clock.now()
        wait = self._not_before - now
        if self._tokens:
            rate = self._tokens / _MINUTE
            self._stored = min(self._tokens, self._stored + (now - self._counted) * rate)
            self._counted = now
            # A request that is larger than the store goes when the store is full, and leaves a debt.
            wait = max(wait, (min(tokens, self._tokens) - self._stored) / rate)
        # Less than a clock's step is no wait.
        return wait if wait > 1e-6 else 0.0
