"""A small HTTP server for machines that look after this one: a few paths, each with a function that gives the answer.

Rules: it reads a request line and headers, bounded by the standard library, and nothing else; what is not there after
a few seconds is not waited for, however it trickles. Some requests are answered at once; for one more, the oldest that
is still coming is closed, so that nobody keeps others out by being slow. Nothing of a request is logged or kept. Its
answers are not secret from those who can connect, so it listens where clients don't reach it.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from sft.common.background import BackgroundTask
from sft.common.errors import UsageError
from sft.common.places import Place

_SECONDS = 5.0  # for a request to come as a whole; for an answer to be taken
_AT_ONCE = 16
_ROOM_SECONDS = 1.0  # for a request that was ended to leave its thread


class Answer(NamedTuple):
    """What a path gives."""

    status: HTTPStatus
    text: str
    kind: str = "text/plain; charset=utf-8"


Answers = Mapping[str, Callable[[], Answer]]


class HttpAnswers:
    """Answers in threads of its own from `serve` until `close`."""

    def __init__(self, setting: str, place: Place, seconds: float = _SECONDS) -> None:
        """`setting`: its name, for an error. `seconds`: for a request to come.

        Raises UsageError when it can't listen at `place`.
        """
        try:
            self._server = _Server(place, seconds)
        except (OSError, UnicodeError) as problem:
            reason = getattr(problem, "strerror", None) or "not an address of this machine"
            raise UsageError(
                f"{setting}: can't listen on {place} ({reason})", "Choose an address of this machine and a free port"
            ) from None
        host, port = self._server.server_address[:2]
        self.place = Place(str(host), port)  # port 0 has become a free one
        self._work: BackgroundTask | None = None

    def serve(self, answers: Answers) -> None:
        """Begin to answer. Raises NoThread."""
        self._server.answers = answers
        self._work = BackgroundTask("http", self._server.serve_forever)

    def close(self) -> None:
        """Answer nothing more."""
        if self._work is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: Place, seconds: float) -> None:
        self.answers: Answers = {}
        self._seconds = seconds
        self._lock = threading.Lock()  # guards the next
        self._coming: dict[socket.socket, float] = {}  # requests that are not whole: since when, the oldest first
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self.address_family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((place.host, place.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._has_room():
            self.shutdown_request(request)
            return
        with self._lock:
            self._coming[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.has_come(request)
            self._free.release()
            raise

    def _has_room(self) -> bool:
        """Take a place for one more request, if need be that of the oldest which has not come as a whole yet."""
        if self._free.acquire(blocking=False):
            return True
        with self._lock:
            oldest = next(iter(self._coming), None)
            if oldest is None:
                return False
            self._cut(oldest)
        return self._free.acquire(timeout=_ROOM_SECONDS)

    def _cut(self, request: socket.socket) -> None:
        """What waits for more of it finds its end."""
        del self._coming[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def has_come(self, request: Any) -> None:
        """Nothing more of it is waited for."""
        with self._lock:
            self._coming.pop(request, None)

    def service_actions(self) -> None:
        """Called at least twice a second: end the requests that take too long to come, however they trickle."""
        latest = time.monotonic() - self._seconds
        with self._lock:
            for request in [each for each, since in self._coming.items() if since < latest]:
                self._cut(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.has_come(request)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a request that can't be answered is the trouble of who asked."""

    def server_bind(self) -> None:
        """As the standard library does, without a question to the name service for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    timeout = _SECONDS
    server: _Server

    def do_GET(self) -> None:
        self.server.has_come(self.connection)
        answer = self.server.answers.get(self.path.partition("?")[0])
        found = Answer(HTTPStatus.NOT_FOUND, "nothing is here") if answer is None else answer()
        body = (found.text.rstrip("\n") + "\n").encode()
        with contextlib.suppress(OSError):
            self.send_response_only(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing."""
