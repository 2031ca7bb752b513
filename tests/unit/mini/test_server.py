"""The scripted reasoner is asked over real HTTP, and answers as OpenAI's interface does."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from r1mm.mini.reasoner import reply
from r1mm.mini.server import PATH, serving
from tests.unit.mini.test_reasoner import habits, habits_of, prompt

MIXED = habits_of({"forgets": 0.3}, {"labelled": 0.5, "bold": 0.5}, rechecks=0.1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(MIXED, seed=7) as base:
        yield base


def connection_to(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname == "127.0.0.1"
    assert address.path == "/v1"
    return http.client.HTTPConnection(address.hostname, address.port or 0, timeout=30)


def post(connection: http.client.HTTPConnection, body: Any, path: str = PATH) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **more}


def test_it_says_what_the_reasoner_says(url: str) -> None:
    system = {"role": "system", "content": "Be brief."}
    status, got = post(connection_to(url), asking(prompt()) | {"messages": [system, *asking(prompt())["messages"]]})
    said = reply(prompt(), MIXED, 7)
    assert status == 200
    assert (got["object"], got["model"]) == ("chat.completion", "any")
    assert got["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": said.text}, "finish_reason": "stop"}
    ]
    asked = len(prompt().split()) + 2
    assert got["usage"] == {
        "prompt_tokens": asked,
        "completion_tokens": said.tokens,
        "total_tokens": asked + said.tokens,
    }


def test_a_connection_serves_many_and_many_are_served_at_a_time(url: str) -> None:
    kept = connection_to(url)
    sentences = [prompt(things=things) for things in ("abc", "ab", "ac", "bc", "a", "b")]
    one_after_the_other = [post(kept, asking(text))[1] for text in sentences]
    assert kept.sock is not None  # never closed in between
    with ThreadPoolExecutor(24) as pool:
        at_once = list(pool.map(lambda text: post(connection_to(url), asking(text))[1], sentences * 8))
    assert at_once == one_after_the_other * 8


def test_an_answer_is_cut_where_the_request_says() -> None:
    with serving(habits(ending="endless"), seed=1) as url:
        for name in ("max_tokens", "max_completion_tokens"):
            _, got = post(connection_to(url), asking(prompt(), **{name: 30}))
            assert got["choices"][0]["finish_reason"] == "length"
            assert got["usage"]["completion_tokens"] == 30
        parts = [{"type": "text", "text": prompt()}]
        _, got = post(connection_to(url), {"messages": [{"role": "user", "content": parts}], "max_tokens": 30})
        assert got["choices"][0]["message"]["content"] == reply(prompt(), habits(ending="endless"), 1, 30).text


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "the body is not JSON"),
        ([], "the body is list"),
        ({"messages": []}, "the last of messages is not the user's"),
        ({"messages": "hello"}, "messages is no list of objects"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages is no list of objects"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages is no list of objects"),
        ({"messages": [{"role": "assistant", "content": "3"}]}, "the last of messages is not the user's"),
        (asking("hello", stream=True), "stream is True"),
        (asking("hello", n=2), "n is 2"),
        (asking("hello", max_tokens=0), "max_tokens is 0"),
        (asking("hello", max_tokens="9"), "max_tokens is '9'"),
    ],
)
def test_what_it_has_no_answer_to_is_refused(url: str, body: Any, fault: str) -> None:
    connection = connection_to(url)
    status, got = post(connection, body)
    assert status == 400
    assert fault in got["error"]["message"]
    assert post(connection, asking(prompt()))[0] == 200  # the connection goes on


def test_other_addresses_are_none(url: str) -> None:
    assert post(connection_to(url), asking("hello"), "/v1/completions")[0] == 404
    connection = connection_to(url)
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 404


def test_a_body_without_end_is_refused(url: str) -> None:
    connection = connection_to(url)
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_it_is_gone_when_the_block_ends() -> None:
    with serving(MIXED, seed=1) as url:
        port = urlsplit(url).port or 0
        assert post(connection_to(url), asking(prompt()))[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with serving(MIXED, 1, port) as again, pytest.raises(OSError, match="in use"):  # noqa: SIM117
        with serving(MIXED, 1, urlsplit(again).port or 0):
            pass
