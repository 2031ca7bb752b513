"""An OpenAI-compatible server on loopback that answers every prompt in its own way, or fails as a test says."""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import Answer, Asked, serving

MODEL = "thinker-1"
# What a test may answer instead: a function of the prompt and of how often it was asked before.
Fault = Callable[[str, int], Answer | None]


def error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """A refusal as OpenAI words it."""
    body = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return Answer(status, json.dumps(body).encode(), {name.replace("_", "-"): text for name, text in headers.items()})


def thought_of(prompt: str) -> str:
    """What the model says to a prompt: always the same, and to no two prompts the same."""
    number = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16)
    return f"<think>\nIt may be {number}.\n</think>\n\n**The answer is: ** {number % 10}"


def completion(prompt: str, **changes: Any) -> Answer:
    """A whole answer; `changes` to its message, and `finish_reason`, `usage`, `model`."""
    text = thought_of(prompt)
    message = {"role": "assistant", "content": text}
    given: dict[str, Any] = {
        "finish_reason": "stop",
        "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())},
        "model": MODEL,
    }
    given |= {name: changes.pop(name) for name in list(changes) if name in given}
    choice = {"index": 0, "finish_reason": given.pop("finish_reason"), "message": message | changes}
    body = {"id": "chat-1", "object": "chat.completion", "created": 1, "choices": [choice], **given}
    return Answer(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def text_of(content: str | list[dict[str, Any]]) -> str:
    """A message's text, without its pictures."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@dataclass
class Chat:
    """Where it listens, what it was sent (where `keep` is on), and how often it was asked and answered each prompt."""

    address: str = ""
    keep: bool = True
    sent: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked, fault: Fault | None, key: str | None) -> Answer:
        """One request."""
        if asked.path != "/v1/chat/completions" or asked.method != "POST":
            return error(404, f"no {asked.path} here")
        if key is not None and asked.headers.get("authorization") != f"Bearer {key}":
            return error(401, f"not the key: {asked.headers.get('authorization')}")
        body = json.loads(asked.body)
        if body["model"] != MODEL:
            return error(404, f"no model {body['model']}")
        prompt = text_of(body["messages"][-1]["content"])
        with self._lock:
            if self.keep:
                self.sent.append(body)
            before = self.asked[prompt]
            self.asked[prompt] += 1
        given = fault(prompt, before) if fault else None
        if given is None:
            given = completion(prompt)
            with self._lock:
                self.answered[prompt] += 1
        return given


@contextlib.contextmanager
def chatting(fault: Fault | None = None, key: str | None = None, keep: bool = True) -> Iterator[Chat]:
    """Serve for the length of the block; what was sent is remembered where `keep` is on."""
    chat = Chat(keep=keep)
    with serving(lambda asked: chat.answer(asked, fault, key), keep) as server:
        chat.address = f"{server.address}/v1"
        yield chat


def in_turn(*answers: Answer | None) -> Fault:
    """The first answers to every prompt; then it is answered well."""
    return lambda _, before: answers[before] if before < len(answers) else None
