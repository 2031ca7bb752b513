"""The scripted reasoner behind an OpenAI-compatible endpoint on loopback: `POST /v1/chat/completions`, over real HTTP.

What OpenAI's interface has beyond that (streams, tools, several choices) is refused, not ignored; sampling settings are
taken and mean nothing to a script.  It is for this machine alone: it asks for no key and listens on no other address.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from r1mm.distill_parts import Habits
from r1mm.mini.reasoner import Reply, count_tokens, reply

MODEL = "scripted-reasoner"
PATH = "/v1/chat/completions"
LOOPBACK = "127.0.0.1"
MAX_TOKENS = 4096  # of an answer where a request does not say; Deep-Agent/R1-V@bbbbe3d:src/distill_r1/query_r1.py
_LARGEST_REQUEST = 1_000_000  # bytes
_LOOKS_UP = 0.05  # seconds after which the server sees that it is to end


class Refused(Exception):
    """A request that cannot be answered, with the status that says so."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that may wait at once: with the default of 5, a burst waits for seconds


@contextlib.contextmanager
def serving(habits: Habits, seed: int, port: int = 0) -> Iterator[str]:
    """Within the block the reasoner answers at the base URL given, `http://127.0.0.1:<port>/v1`; port 0 is a free one.

    It runs in threads of this process and ends with it, however that ends.  Raises OSError where the port is taken.
    """
    with _Server((LOOPBACK, port), _handler(habits, seed)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_LOOKS_UP,), name=MODEL, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def answer_request(body: bytes, habits: Habits, seed: int) -> dict[str, Any]:
    """The completion, in OpenAI's form, for a request's body.  Refused for one that this endpoint has no answer to."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"the body is not JSON ({error}); send a chat completion request"
        ) from error
    if not isinstance(request, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body is {type(request).__name__}; send an object")
    for key, plain in (("stream", False), ("n", 1)):
        if request.get(key, plain) not in (plain, None):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{key} is {request[key]!r}; this endpoint knows {plain!r} alone")
    limit = request.get("max_completion_tokens", request.get("max_tokens"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise Refused(HTTPStatus.BAD_REQUEST, f"max_tokens is {limit!r}; give an integer from 1 on")
    texts = _texts(request.get("messages"))
    said = reply(texts[-1], habits, seed, limit or MAX_TOKENS)
    return _completion(str(request.get("model", MODEL)), said, sum(map(count_tokens, texts)))


def _texts(messages: Any) -> list[str]:
    """What the messages say, the user's last."""
    try:
        said = [(message["role"], _text(message["content"])) for message in messages]
    except (TypeError, KeyError) as error:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "messages is no list of objects with role and content (text); send one"
        ) from error
    if not said or said[-1][0] != "user":
        raise Refused(HTTPStatus.BAD_REQUEST, "the last of messages is not the user's; put the question there")
    return [text for _, text in said]


def _text(content: Any) -> str:
    """The text of a message, which may come in parts.  Raises TypeError or KeyError where it is none."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] + "" for part in content)


def _completion(model: str, said: Reply, asked: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{MODEL}",
        "object": "chat.completion",
        "created": 0,  # no clock: the same request gets the same bytes
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": said.text},
                "finish_reason": "length" if said.cut else "stop",
            }
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": said.tokens, "total_tokens": asked + said.tokens},
    }


def _handler(habits: Habits, seed: int) -> type[BaseHTTPRequestHandler]:
    """A handler of one connection's requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a connection serves many requests
        disable_nagle_algorithm = True  # with it, each answer waits for the client's acknowledgement of the one before

        def do_POST(self) -> None:
            try:
                if self.path.partition("?")[0] != PATH:
                    raise Refused(HTTPStatus.NOT_FOUND, f"there is no {self.path}; this endpoint has {PATH}")
                self._send(HTTPStatus.OK, answer_request(self._body(), habits, seed))
            except Refused as error:
                self._refuse(error)

        def do_GET(self) -> None:
            self._refuse(Refused(HTTPStatus.NOT_FOUND, f"this endpoint has POST {PATH} alone"))

        def _body(self) -> bytes:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > _LARGEST_REQUEST:
                self.close_connection = True  # what follows cannot be told from a next request
                raise Refused(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdigit() else HTTPStatus.LENGTH_REQUIRED,
                    f"Content-Length is {length!r}; send a body of at most {_LARGEST_REQUEST} bytes and its length",
                )
            return self.rfile.read(int(length))

        def _refuse(self, error: Refused) -> None:
            self._send(error.status, {"error": {"message": str(error), "type": "invalid_request_error"}})

        def _send(self, status: HTTPStatus, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """No line per request."""

    return Handler
