"""Sockets until the login is done: connecting, whole frames with deadlines, closing gently.

Rules: a frame's length meets its ceiling before anything is read. Each frame has a deadline, and all of them together
have another; none is for a byte, so a peer that trickles bytes is disconnected like a silent one. All addresses of a
host are tried, each soon after the one before (RFC 8305). This module knows no key, no file and no account.
"""

import contextlib
import errno
import math
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from sft.common.errors import ConnectionTrouble, Failure, ProtocolViolation, UsageError
from sft.wire.protocol import HEADER_SIZE, LOGIN_FRAME_LIMIT, frame_size
from sft.wire.proxy_header import PROXY_BEGINNINGS, read_proxy_header

Socket = socket.socket

_DRAIN_SECONDS = 2.0
_NEXT_ADDRESS_AFTER = 0.25  # RFC 8305, section 5: the recommended delay between two attempts
_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)}

Address = tuple[int, int, int, str, Any]  # what getaddrinfo gives: family, type, protocol, name, address


def lost(problem: OSError | None = None) -> ConnectionTrouble:
    """The error for a connection that broke."""
    reason = f" ({problem.strerror or problem})" if problem else ""
    return ConnectionTrouble(f"the connection was lost{reason}", "Send it again when the network is back")


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A connection to the address of `host` that answers first; each has so many seconds.

    Raises ConnectionTrouble, UsageError.
    """
    where = place_of(host, port)
    try:
        return _first_of(in_turn(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)), seconds)
    except socket.gaierror:
        raise ConnectionTrouble(
            f"unknown host {host}", "Check --host and this machine's network", Failure.UNKNOWN_HOST
        ) from None
    except (UnicodeError, ValueError):
        raise UsageError(f"--host: {host} is not a host name", "Check it") from None
    except ConnectionRefusedError:
        raise ConnectionTrouble(
            f"connection to {where} refused",
            "Is server.py running there, on this port? A firewall may also refuse",
            Failure.UNREACHED,
        ) from None
    except TimeoutError:
        raise ConnectionTrouble(
            f"no answer from {where} in {seconds:.0f} seconds", "Check --host, --port and firewalls", Failure.UNREACHED
        ) from None
    except OSError as problem:
        raise ConnectionTrouble(
            f"can't connect to {where} ({problem.strerror})", "Check the network", Failure.UNREACHED
        ) from None


def place_of(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with that of the first address; within each the system's order (RFC 8305, 4)."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    found: list[Address] = []
    while any(families.values()):
        found += [left.popleft() for left in families.values() if left]
    return found


def _first_of(addresses: list[Address], seconds: float) -> socket.socket:
    """The first to connect. The next is begun 250 ms after the one before, or as soon as that has failed.

    Raises OSError: of all failures the one that tells most.
    """
    waiting, problems = deque(addresses), list[OSError]()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        deadlines: dict[socket.socket, float] = {}
        next_at = 0.0
        while waiting or deadlines:
            now = time.monotonic()
            if waiting and (now >= next_at or not deadlines):
                family, kind, protocol, _, address = waiting.popleft()
                try:
                    sock = opened.enter_context(socket.socket(family, kind, protocol))
                    sock.setblocking(False)
                    if (code := sock.connect_ex(address)) not in _UNDER_WAY:
                        raise _error_of(code)
                except OSError as problem:  # such as a family that this machine lacks
                    problems.append(problem)
                    continue
                selector.register(sock, selectors.EVENT_WRITE)
                deadlines[sock], next_at = now + seconds, now + _NEXT_ADDRESS_AFTER
            until = min(min(deadlines.values(), default=math.inf), next_at if waiting else math.inf)
            ready = {key.fileobj for key, _ in selector.select(max(0.0, until - time.monotonic()))}
            for sock, deadline in list(deadlines.items()):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if sock in ready else 0
                if sock in ready and not code:
                    opened.pop_all()
                    for other in deadlines.keys() - {sock}:
                        other.close()
                    sock.setblocking(True)
                    return sock
                if code or time.monotonic() >= deadline:
                    problems.append(_error_of(code) if code else TimeoutError())
                    selector.unregister(sock)
                    sock.close()
                    del deadlines[sock]
                    next_at = 0.0
    raise min(problems, key=_how_telling, default=OSError(errno.EADDRNOTAVAIL, "it has no address"))


def _error_of(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _how_telling(problem: OSError) -> int:
    kinds = (ConnectionRefusedError, TimeoutError)
    return next((number for number, kind in enumerate(kinds) if isinstance(problem, kind)), len(kinds))


def cut(sock: Socket) -> None:
    """End both directions now; a thread that waits on the socket wakes up."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def close_gently(sock: socket.socket, seconds: float = _DRAIN_SECONDS) -> None:
    """End the sending side, drain for a moment, close: an abrupt close would overtake our last bytes."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                break
    sock.close()


def _too_slow() -> ConnectionTrouble:
    return ConnectionTrouble("the login took too long", "Try again; the network or the other end is too slow")


class Link:
    """Whole frames of up to 8 KiB, for the login: each in so many seconds, and all of them until one deadline.

    A frame that was not sent whole is the last one: the other end would take the next for its rest. `sock` is the
    socket below, for the channel that follows the login.
    """

    def __init__(self, sock: socket.socket, deadline: float, step: float = math.inf) -> None:
        """`deadline` on the clock of `time.monotonic`; `step` in seconds."""
        self.sock, self._last, self._step = sock, deadline, step
        self._deadline = deadline
        self._is_cut_short = False  # a frame was begun, and not all of it has left
        self.was_cut = False  # by this end

    def cut(self) -> None:
        """End both directions now, from any thread: a thread that waits on the link gets ConnectionTrouble."""
        self.was_cut = True
        cut(self.sock)

    def close(self, gently: bool = False) -> None:
        """Close the socket; `gently`: what was sent last still arrives, which may take two seconds."""
        if gently:
            close_gently(self.sock)
        else:
            self.sock.close()

    def _begin(self, step: float) -> None:
        """Begin a step: what this end computed since the last one counts for the whole login only."""
        self._deadline = min(self._last, time.monotonic() + step)

    def _set_timeout(self) -> None:
        """Let the socket wait until the deadline. Raises ConnectionTrouble when that has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _too_slow()
        self.sock.settimeout(left)

    def send(self, frame: bytes) -> None:
        """Send one frame. Raises ConnectionTrouble; then nothing more can be sent."""
        if self._is_cut_short:
            raise lost()
        self._begin(self._step)
        self._set_timeout()
        self._is_cut_short = True
        try:
            self.sock.sendall(frame)
        except TimeoutError:
            raise _too_slow() from None
        except OSError as problem:
            raise lost(problem) from None
        self._is_cut_short = False

    def receive(self, seconds: float | None = None) -> bytes:
        """One whole frame, its header included; `seconds` in place of the usual ones.

        Raises ConnectionTrouble, ProtocolViolation (its length).
        """
        self._begin(self._step if seconds is None else seconds)
        header = self._exactly(HEADER_SIZE)
        if header in PROXY_BEGINNINGS:
            raise ProtocolViolation("a PROXY header where none belongs")
        return header + self._exactly(frame_size(header, 1, LOGIN_FRAME_LIMIT))

    def receive_proxy_header(self) -> str | None:
        """The address that a proxy in front of this end names as its client's; None for the proxy's own connections.

        Raises ConnectionTrouble, ProtocolViolation.
        """
        self._begin(self._step)
        return read_proxy_header(self._exactly)

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            try:
                self._set_timeout()
                piece = self.sock.recv(size - len(got))
            except TimeoutError:
                continue
            except OSError as problem:
                raise lost(problem) from None
            if not piece:
                raise lost()
            got += piece
        return bytes(got)
