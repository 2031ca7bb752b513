"""What tests of the endpoint's client share: a clock that does not wait, questions, and one way to ask them."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1mm.endpoint.ask import Request, Summary, ask_all
from r1mm.endpoint.client import Endpoint
from r1mm.endpoint.keys import Key
from r1mm.endpoint.pace import Pace, Retries
from r1mm.endpoint.records import Records
from tests.chat_server import MODEL


@dataclass
class Ticking:
    """A clock that is set forward by whoever sleeps, and remembers for how long."""

    time: float = 100.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def endpoint(address: str, key: str | None = None, **changes: Any) -> Endpoint:
    settings: dict[str, Any] = {"model": MODEL, "timeout": 20.0, **changes}
    return Endpoint(address, key=Key(key, "a test"), **settings)


def questions(count: int) -> list[Request]:
    return [Request([{"role": "user", "content": f"Question {i}"}], {"item": i}) for i in range(count)]


def ask(
    where: Endpoint, requests: Iterable[Request], path: Path, *, retry_dead: bool = False, **settings: Any
) -> Summary:
    """`ask_all` as a verb calls it, but without waits."""
    settings = {"pace": Pace(clock=Ticking()), "retries": Retries(chance=lambda: 0.5), **settings}
    with Records(path, retry_dead) as records:
        return asyncio.run(ask_all(where, requests, records, **settings))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []


def scene_questions(path: Path, count: int) -> Path:
    """A file of questions as `r1mm distill query` reads them, no two the same."""
    rows = (
        {"img_filename": f"{i}.png", "q": "How many?", "a": i % 10, "description": f"Scene Description:\nA thing, {i}"}
        for i in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
