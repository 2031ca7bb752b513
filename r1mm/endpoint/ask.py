"""Many questions to one endpoint: asked once each, again where that helps, recorded as the answers come.

Not a queue or a server: one process, one endpoint, one file of results.  A start goes on where the last one ended.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from r1mm.endpoint.attached import Message
from r1mm.endpoint.budget import NOTHING, Budget, Lost, Prices, Purse, Usage, most_tokens
from r1mm.endpoint.client import (
    CUT,
    Client,
    Endpoint,
    Failure,
    Hopeless,
    Passing,
    Reply,
    Unreachable,
    connected,
    what_to_do,
)
from r1mm.endpoint.pace import Pace, Retries
from r1mm.endpoint.records import Records, content_key
from r1mm.errors import BadInput, StageFailed
from r1mm.progress import progress_bar

_T = TypeVar("_T")

# So many questions in a row that come to nothing are not the questions' fault.
_IN_A_ROW = 20
# So often an address is tried at which nobody has ever answered.
_FIRST_TRIES = 3


class Unfit(NamedTuple):
    """Why a question is not worth asking: a reason that many may share, and what was seen of this one."""

    reason: str
    seen: str


@dataclass(frozen=True)
class Request:
    """One question: what is asked, and what its record holds beside the answer.

    With `unfit` it is not asked but a dead letter at once.  `attempt` tells apart questions
    that are the same and are to be answered anew each time.
    """

    messages: Sequence[Message]
    row: Mapping[str, Any] = field(default_factory=dict)
    unfit: Unfit | None = None
    attempt: int = 0


@dataclass
class Summary:
    """What a start of `ask_all` did.

    `answered` and `dead` are of this start; `before` and `dead_before` were there already and were not asked; `twice`
    stood in the input before.  `left`: questions that were not settled.  `others`: records of questions that the input
    does not hold.  `retries` are attempts after a first.  `tokens` of `spent` and `cost` are of all starts.
    `dead_reasons` counts this start's dead letters; `served_by` what the server called itself.  `stopped` says why the
    budget ended the start, None when it did not.
    """

    answered: int = 0
    dead: int = 0
    before: int = 0
    dead_before: int = 0
    twice: int = 0
    left: int = 0
    others: int = 0
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsaid_attempts: int = 0
    unsaid_tokens: int = 0
    cost: float | None = None
    dead_reasons: Counter[str] = field(default_factory=Counter)
    served_by: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "dead_reasons": dict(self.dead_reasons), "served_by": dict(self.served_by)}


def _why(reason: str, status: int | None, attempts: int, body: str) -> dict[str, Any]:
    """What a dead letter says of itself."""
    return {"reason": reason, "status": status, "attempts": attempts, "body": body}


class _Halted(Exception):
    """The start is being stopped: nothing new is sent."""


async def ask_all(
    endpoint: Endpoint,
    requests: Iterable[Request],
    records: Records,
    *,
    concurrency: int = 10,
    pace: Pace | None = None,
    retries: Retries | None = None,
    budget: Budget | None = None,
    prices: Prices | None = None,
    answer: str = "response",
    total: int | None = None,
    title: str = "questions",
) -> Summary:
    """Ask every request that `records` has no answer to, and return what came of it.

    `requests` are drawn one by one as there is room for them, at most `concurrency` at a time.  A record is the
    request's row and: the text under the name `answer`, key, model, finish_reason, usage, timestamp.  An answer that
    was cut, and a question that came to nothing, is a dead letter with reason, status, attempts and the beginning of
    what the server said.  `total` is for the progress bar.

    When the budget leaves no room for another request, what is under way is waited for and the summary says `stopped`.
    Raises BadInput when no request can succeed (address, key, model), StageFailed when that shows after some have, when
    the server no longer answers, or when nothing was answered; what was answered is kept in any case.
    """
    purse = Purse(budget or Budget(), prices or Prices(), records.spent, records.unsaid, records.guessed)
    run = _Run(endpoint, requests, records, pace, retries, purse)
    run.answer_name = answer
    with progress_bar(total=total, desc=title, unit="question") as run.bar:
        return await run.run(concurrency)


class _Run:
    """One call of `ask_all`."""

    bar: Any
    answer_name: str

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Iterable[Request],
        records: Records,
        pace: Pace | None,
        retries: Retries | None,
        purse: Purse,
    ) -> None:
        self.endpoint, self.records, self.purse = endpoint, records, purse
        self.requests: Iterator[Request] = iter(requests)
        self.pace, self.retries = pace or Pace(), retries or Retries()
        self.found = Summary()
        self.heard = False  # whether anybody ever took a request
        self.halted = asyncio.Event()
        self.error: BadInput | StageFailed | None = None
        self.no_room = NOTHING  # of a request that the budget did not allow
        # Dead letters since the last answer: not the questions' fault, perhaps, and not written until that is known.
        self.doubtful: list[tuple[str, dict[str, Any]]] = []

    async def run(self, concurrency: int) -> Summary:
        """All of it."""
        self.limit = max(_IN_A_ROW, concurrency)
        keeper = asyncio.create_task(self.records.keep_synced())
        try:
            async with connected(self.endpoint, concurrency) as client, asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._work(client))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            keeper.cancel()
            ended = await asyncio.gather(keeper, return_exceptions=True)
        if isinstance(ended[0], Exception):  # the disk is full, or broken
            raise ended[0]
        return self._end()

    async def _work(self, client: Client) -> None:
        while (following := await self._next()) is not None:
            key, request = following
            try:
                await self._settle(client, key, request)
            except _Halted:
                self.found.left += 1

    async def _next(self) -> tuple[str, Request] | None:
        """The next request that is to be asked."""
        passed = 0
        while not self.halted.is_set():
            request = next(self.requests, None)
            if request is None:
                return None
            key = self._key(request)
            if self._is_open(key):
                if request.unfit is None:
                    return key, request
                why = _why(request.unfit.reason, None, 0, request.unfit.seen)
                self._bury(key, {**request.row, **self._record(key), **why})
                self.bar.update()
            passed += 1
            if passed % 100 == 0:
                await asyncio.sleep(0)  # answers that have come meanwhile
        return None

    def _is_open(self, key: str) -> bool:
        """Whether a question is to be asked; counts it otherwise."""
        standing = self.records.take(key)
        self.found.before += standing == "answered"
        self.found.dead_before += standing == "dead"
        self.found.twice += standing == "twice"
        if standing != "open":
            self.bar.update()
        return standing == "open"

    async def _settle(self, client: Client, key: str, request: Request) -> None:
        """Ask until there is an answer, or until it is certain that there will be none."""
        most = most_tokens(request.messages, self.endpoint.max_tokens)
        answered_before, failures, lost = self.found.answered, 0, Lost()
        while True:
            if not await self._unless_halted(self.purse.take(most)):
                self.no_room = most
                self._halt(None)
                raise _Halted
            used: Usage | None = NOTHING
            try:
                await self._unless_halted(self.pace.turn(most.total))
                self.found.requests += 1
                self.found.retries += failures > 0
                reply = await client.ask(request.messages)
                used = reply.usage
                self._keep(key, request, reply, failures + 1, lost)
                return
            except Failure as failure:
                used = failure.usage
                failures += 1
                lost = lost.with_failure(used, most)
                self.heard |= not isinstance(failure, Unreachable)
                wait = self._after(failure, failures, answered_before)
                if wait is None:
                    self._give_up(key, request, failure, failures, lost)
                    return
            finally:
                self.purse.settle(most, used)
                self.pace.put_back(most.total - (most if used is None else used).total)
                self._show()
            await self._unless_halted(self.pace.clock.sleep(wait))

    def _after(self, failure: Failure, failures: int, answered_before: int) -> float | None:
        """Seconds to wait before a request is made again; None: it is given up."""
        if isinstance(failure, Hopeless):
            self._stop_for_all(what_to_do(self.endpoint, failure))
        if not isinstance(failure, Passing):
            return None
        if isinstance(failure, Unreachable) and not self.heard and failures >= _FIRST_TRIES:
            self._stop_for_all(
                f"{self.endpoint.shown} cannot be reached ({failure.words()}); check the base URL, and that the server "
                "is up"
            )
        crowded = failure.status == 429
        if crowded and failure.told is not None:
            self.pace.hold(min(failure.told, self.retries.longest_told))
        # A server that is too busy for this request and answers others is only to be waited for.
        if failures >= self.retries.attempts and not (crowded and self.found.answered > answered_before):
            return None
        return self.retries.wait(failures, failure.told)

    def _stop_for_all(self, words: str) -> None:
        """Stop the start: at once while nothing was answered, else when what is under way is answered."""
        if not self.found.answered:
            raise BadInput(words)
        self._halt(StageFailed(f"{words}; what was answered is kept, the same command goes on from here"))
        raise _Halted

    def _halt(self, error: StageFailed | None) -> None:
        """Send nothing more; what is under way is waited for."""
        if not self.halted.is_set():
            self.error = error
            self.halted.set()

    def _keep(self, key: str, request: Request, reply: Reply, attempts: int, lost: Lost) -> None:
        """Record an answer; one that was cut is none."""
        self.heard = True
        self.found.served_by[reply.model] += 1
        usage = reply.usage and {"prompt_tokens": reply.usage.prompt, "completion_tokens": reply.usage.completion}
        row = {**request.row, self.answer_name: reply.text, **self._record(key)}
        row |= {"finish_reason": reply.finish_reason, "usage": usage, **lost.record()}
        if reply.finish_reason in CUT:
            self._bury(key, {**row, **_why(reply.finish_reason, 200, attempts, "")})
            if not self.records.answered and self.found.dead >= self.limit:
                self._halt(
                    StageFailed(
                        f"{self.endpoint.shown}: the first {self.found.dead} answers were all cut "
                        f"({', '.join(self.found.dead_reasons)}) at {self.endpoint.max_tokens} tokens; allow more, "
                        "then ask the dead letters again too"
                    )
                )
        else:
            self.records.add_result(key, row)
            self.found.answered += 1
        self._bury_doubtful()
        self.bar.update()
        if reply.usage is None and self.purse.budget:
            self._halt(
                StageFailed(
                    f"{self.endpoint.shown} does not say how many tokens an answer took, so that no budget can be "
                    "kept; start without one"
                )
            )

    def _give_up(self, key: str, request: Request, failure: Failure, attempts: int, lost: Lost) -> None:
        """A question that came to nothing: a dead letter, unless it turns out that others fare no better."""
        reason = _why(failure.reason, failure.status, attempts, failure.body)
        self.doubtful.append((key, {**request.row, **self._record(key), **reason, **lost.record()}))
        if len(self.doubtful) >= self.limit:
            self._halt(
                StageFailed(
                    f"{self.endpoint.shown}: {len(self.doubtful)} questions in a row came to nothing, the last one "
                    f"with: {failure.words()}; they are asked again when the same command is started again"
                )
            )

    def _record(self, key: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"key": key, "model": self.endpoint.model, "timestamp": now}

    def _bury(self, key: str, row: dict[str, Any]) -> None:
        self.records.add_dead(key, row)
        self.found.dead += 1
        self.found.dead_reasons[row["reason"]] += 1

    def _bury_doubtful(self) -> None:
        for key, row in self.doubtful:
            self._bury(key, row)
            self.bar.update()
        self.doubtful.clear()

    async def _unless_halted(self, wait: Coroutine[Any, Any, _T]) -> _T:
        """The outcome of `wait`; _Halted as soon as the start is being stopped."""
        if self.halted.is_set():
            wait.close()
            raise _Halted
        waiting = asyncio.ensure_future(wait)
        halted = asyncio.ensure_future(self.halted.wait())
        try:
            await asyncio.wait((waiting, halted), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise _Halted
        finally:
            waiting.cancel()
            halted.cancel()

    def _show(self) -> None:
        found, purse = self.found, self.purse
        counts = [f"{found.answered + found.before} done", f"{self.records.dead + len(self.doubtful)} failed"]
        counts += [f"{found.retries} retries", f"{tqdm.format_sizeof(purse.spent.total)} tokens"]
        if purse.priced:
            counts.append(f"cost {purse.prices.cost(purse.spent):.4g}")
        self.bar.set_postfix_str(", ".join(counts), refresh=False)

    def _end(self) -> Summary:
        found, purse = self.found, self.purse
        if self.error is None and not self.halted.is_set():
            last = self.doubtful[-1][1] if self.doubtful else None
            self._bury_doubtful()
            if last is not None and not found.answered:
                said = " ".join(f"{last['reason']}: {last['body']}".split()).removesuffix(":")
                self.error = StageFailed(
                    f"{self.endpoint.shown}: none of {found.dead} questions was answered, the last one with: {said}; "
                    f"they are in {self.records.dead_path}"
                )
            found.others = self.records.untaken()
        if self.error is not None:
            raise self.error
        if self.halted.is_set():
            # What came to nothing for now is asked next time, as is what was not drawn.
            found.left += len(self.doubtful) + sum(self._is_open(self._key(request)) for request in self.requests)
            found.stopped = purse.used_up(self.no_room, found.left)
        found.prompt_tokens, found.completion_tokens = purse.spent
        found.unsaid_attempts, found.unsaid_tokens = purse.unsaid, purse.guessed.total
        found.cost = purse.prices.cost(purse.spent) if purse.priced else None
        return found

    def _key(self, request: Request) -> str:
        anew = {"attempt": request.attempt} if request.attempt else {}
        return content_key(self.endpoint.model, request.messages, {**self.endpoint.sampling, **anew})
