"""One request to an OpenAI-compatible endpoint, once: a reply, or a failure that says what it means.

The package `openai` makes the request; its own retries are off, as ours are counted and shown.  What comes back is read
here: the package takes any JSON for an answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1mm.data.download import retry_after
from r1mm.endpoint.attached import Message, PictureGone, for_sending, has_pictures
from r1mm.endpoint.budget import NOTHING, Usage
from r1mm.endpoint.keys import Key
from r1mm.errors import BadInput

_SHOWN = 1000  # characters of a body that are kept
_CONNECTING = 30.0  # seconds, of the time that a request has
_AGAIN = (408, 409, 425, 429)
# Refused for what every request has: key, credit, address, model.
_ALL = (401, 402, 403, 404, 405, 407, 410)
_NO_CREDIT = "insufficient_quota"  # OpenAI answers 429 with this code when there is no money left: no wait helps
# Servers end an answer so when they cannot go on (DeepSeek, OpenRouter); it is no answer.
_BROKEN_OFF = ("insufficient_system_resource", "error")
# How an answer ends that is none: at the limit, by a filter, with a call of something that was not offered.
CUT = ("length", "content_filter", "tool_calls", "function_call")


def _bare(url: str) -> str:
    """What may be shown of a text that was to be a URL: no user, password or query."""
    return url.partition("?")[0].rpartition("@")[2]


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address, and how it is to be asked.

    `temperature` None: not sent, the server's own.  `timeout`: seconds for a whole request, from its first byte to the
    answer's last.  BadInput when `base_url` is no address of an API.
    """

    base_url: str
    model: str
    key: Key
    max_tokens: int = 4096
    temperature: float | None = None
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.base_url)
            host, _ = url.hostname, url.port
        except ValueError:
            host = None
        if not host or url.scheme not in ("http", "https") or any(not "!" <= sign <= "~" for sign in self.base_url):
            raise BadInput(f"{_bare(self.base_url)!r} is no base URL; give one such as http://127.0.0.1:8000/v1")
        if url.username is not None or url.password is not None:
            raise BadInput(f"the base URL of {host} has a user or a password in it; give a key in another way")
        if url.path.rstrip("/").endswith("/completions"):
            raise BadInput(
                f"{self.shown} is the address of requests; leave out what comes after /v1, the client adds it"
            )

    @property
    def shown(self) -> str:
        """Its address for messages, without a query."""
        return urlsplit(self.base_url)._replace(query="", fragment="").geturl()

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def unencrypted(self) -> bool:
        """Whether what is sent can be read on the way, beyond this machine."""
        return urlsplit(self.base_url).scheme == "http" and not self.here

    @property
    def sampling(self) -> dict[str, Any]:
        """What has a part in which answer is given.

        Not `max_tokens`: an answer that ended by itself is the same under any higher limit.
        """
        return {} if self.temperature is None else {"temperature": self.temperature}


@dataclass(frozen=True)
class Reply:
    """An answer.  `model` is what the server calls itself, `usage` None where it does not count."""

    text: str
    finish_reason: str
    usage: Usage | None
    model: str


class Failure(Exception):
    """A request that came to nothing.  `body` is the beginning of what came back, without the key.

    `usage`: tokens that it took, None where it may have taken some and nobody said how many.
    """

    def __init__(self, reason: str, status: int | None = None, body: str = "", usage: Usage | None = NOTHING) -> None:
        super().__init__(reason)
        self.reason, self.status, self.body, self.usage = reason, status, body, usage
        self.told: float | None = None  # seconds after which the server wants to be asked again

    def words(self) -> str:
        """The reason, and what the server said of it."""
        said = " ".join(_said(self.body).split())
        return f"{self.reason}: {said}" if said else self.reason


def _said(body: str) -> str:
    """What a body says of an error: OpenAI's, or FastAPI's, or all of it."""
    try:
        found = json.loads(body)
        found = found.get("error", found)
        said = found if isinstance(found, str) else found.get("message") or found.get("detail")
    except (ValueError, AttributeError):
        return body
    return said if isinstance(said, str) else body


class Passing(Failure):
    """It may succeed when it is made again."""


class Unreachable(Passing):
    """Nobody was there to take the request."""


class Refused(Failure):
    """This request will never succeed; others may."""


class Hopeless(Failure):
    """No request will succeed."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Message(_Strict):
    content: str | None = None
    # vLLM's, DeepSeek's and SiliconFlow's name of it, and vLLM's newer and OpenRouter's.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_Strict):
    message: _Message
    finish_reason: str


class _Usage(_Strict):
    prompt_tokens: int
    completion_tokens: int


class _Completion(_Strict):
    choices: list[_Choice] = Field(default_factory=list)
    usage: _Usage | None = None
    model: str = ""


class Client:
    """A connection to an endpoint, for many requests at a time."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
        self._endpoint, self._client = endpoint, client

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """One request.  Raises Failure: Passing, Refused or Hopeless."""
        endpoint = self._endpoint
        if has_pictures(messages):
            try:
                messages = await asyncio.to_thread(for_sending, messages)
            except PictureGone as error:
                raise Refused(str(error)) from None
        try:
            async with asyncio.timeout(endpoint.timeout):
                response = await self._client.chat.completions.with_raw_response.create(
                    model=endpoint.model,
                    messages=list(messages),  # type: ignore[arg-type]
                    max_tokens=endpoint.max_tokens,
                    **endpoint.sampling,
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise Unreachable("no connection within the time allowed") from None
            raise Passing(f"no answer within {endpoint.timeout:g} s", usage=None) from None
        except openai.APIConnectionError as error:
            raise self._connection(error) from None
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except UnicodeEncodeError as error:
            raise Refused(f"the question cannot be sent, it is not Unicode text ({error.reason})") from None
        return self._reply(response.http_response)

    def _connection(self, error: openai.APIConnectionError) -> Failure:
        cause = error.__cause__
        reason = f"{type(cause or error).__name__}: {self._endpoint.key.hidden_in(str(cause or error))}".rstrip(": ")
        if isinstance(cause, (httpx2.ConnectError, httpx2.ProxyError)):
            return Unreachable(reason)
        return Passing(f"the connection was cut ({reason})", usage=None)

    def _status(self, error: openai.APIStatusError) -> Failure:
        status, headers = error.status_code, error.response.headers
        body = self._excerpt(error.response)
        reason = f"HTTP {status}"
        if 300 <= status < 400:
            where = self._endpoint.key.hidden_in(headers.get("location", "nowhere"))
            return Hopeless(f"{reason}, a redirection to {where}", status, body)
        if status in _ALL or _NO_CREDIT in (error.code, error.type):
            return Hopeless(reason, status, body)
        if status in _AGAIN or status >= 500:
            failure = Passing(reason, status, body)
            failure.told = retry_after(headers)
            return failure
        return Refused(reason, status, body)

    def _reply(self, response: httpx2.Response) -> Reply:
        status, body = response.status_code, self._excerpt(response)
        try:
            completion = _Completion.model_validate(json.loads(response.content))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "all of it"
            raise Passing(f"not an answer ({place}: {first['type']})", status, body, usage=None) from None
        except ValueError:
            raise Passing("not JSON", status, body, usage=None) from None
        counted = completion.usage
        usage = Usage(counted.prompt_tokens, counted.completion_tokens) if counted else None
        if not completion.choices:
            raise Passing("an answer without choices", status, body, usage)
        choice = completion.choices[0]
        if choice.finish_reason in _BROKEN_OFF:
            raise Passing(f"broken off by the server ({choice.finish_reason})", status, body, usage)
        content = choice.message.content or ""
        if not content.strip() and choice.finish_reason not in CUT:
            raise Passing("an empty answer", status, body, usage)
        text = _joined(choice.message.reasoning_content or choice.message.reasoning or "", content)
        # Half of a pair, which JSON can say, would be refused by whatever reads the records.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        hidden = self._endpoint.key.hidden_in
        ending = choice.finish_reason and hidden(choice.finish_reason)
        return Reply(hidden(text), ending, usage, hidden(completion.model))

    def _excerpt(self, response: httpx2.Response) -> str:
        return self._endpoint.key.hidden_in(response.text)[:_SHOWN]


def _joined(reasoning: str, content: str) -> str:
    """Thoughts that the server gives apart, put back before the answer; left open where none came."""
    if not reasoning or "<think>" in content:
        return content
    return f"<think>{reasoning}</think>\n\n{content}" if content else f"<think>{reasoning}"


@asynccontextmanager
async def connected(endpoint: Endpoint, concurrency: int) -> AsyncIterator[Client]:
    """A client for up to `concurrency` requests at a time."""
    async with openai.DefaultAsyncHttpxClient(
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        follow_redirects=False,  # a POST that is redirected becomes a GET
        trust_env=not endpoint.here,  # a proxy for the world knows nothing of this machine
    ) as http:
        client = openai.AsyncOpenAI(
            api_key=endpoint.key.value,
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(endpoint.timeout, connect=min(endpoint.timeout, _CONNECTING)),
            http_client=http,
        )
        # Taken from OPENAI_* variables: an OpenAI account's, which other servers have no business to see.
        client.admin_api_key = client.organization = client.project = None
        yield Client(endpoint, client)


def what_to_do(endpoint: Endpoint, failure: Hopeless) -> str:
    """The one error of a run that no request of can succeed."""
    key = endpoint.key
    lacking = f"a key is wanted, and {key.place} is not set"
    remedy = {
        401: f"the key in {key.place} is not taken: give the right one" if key.given else lacking,
        402: "the account has no credit: fill it up",
        403: f"the key in {key.place} may not ask {endpoint.model}: give one that may" if key.given else lacking,
        429: "the account has no credit: fill it up",
    }.get(
        failure.status or 0,
        f"check the base URL (most end in /v1) and the model's name, {endpoint.model}",
    )
    return f"{endpoint.shown} answers {failure.words()}; {remedy}"
