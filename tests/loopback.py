"""A real HTTP server on loopback that answers as a test says, and remembers what it was asked."""

import contextlib
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One answer; `cut`: close the connection after so many bytes of the body; `length`: announce another length.

    `wait`: seconds before it comes; `reset`: none comes, the connection is reset.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None
    wait: float = 0.0
    reset: bool = False


@dataclass(frozen=True)
class Asked:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Server:
    """Where it listens, and what it was asked so far."""

    address: str
    asked: list[Asked]


@contextlib.contextmanager
def serving(answer: Callable[[Asked], Answer], keep: bool = True) -> Iterator[Server]:
    """Serve what `answer` gives for the length of the block; what was asked is remembered where `keep` is on."""
    asked: list[Asked] = []
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _respond(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            length = int(headers.get("content-length", 0))
            sent = self.rfile.read(length)
            if len(sent) < length:
                return  # whoever asked was killed in the middle
            question = Asked(self.command, self.path, headers, sent)
            if keep:
                asked.append(question)
            given = answer(question)
            if given.wait and over.wait(given.wait):
                return
            if given.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            body = given.body if given.cut is None else given.body[: given.cut]
            self.send_response_only(given.status)  # no date but the one that a test gives
            for key, value in given.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(given.body) if given.length is None else given.length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(ConnectionError):  # whoever asked has gone
                    self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = _respond

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
