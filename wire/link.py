"""Sockets until the login is done: connecting, whole frames with an absolute deadline, closing gently.

Rules: a frame's length meets its ceiling before anything is read. The deadline is for the whole login, not for each
byte: who sends one byte a second is put out like who sends nothing. This room knows no key, no file and no account.
"""

import contextlib
import socket
import time

from errors import ConnectionTrouble, UsageError
from wire.protocol import HEADER_SIZE, LOGIN_FRAME_LIMIT, frame_size

Socket = socket.socket

_DRAIN_SECONDS = 2.0


def lost(problem: OSError | None = None) -> ConnectionTrouble:
    """The error for a connection that broke."""
    reason = f" ({problem.strerror or problem})" if problem else ""
    return ConnectionTrouble(f"the connection was lost{reason}", "Send it again when the network is back")


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A connection to the first address of `host` that answers in time. Raises ConnectionTrouble, UsageError."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return socket.create_connection((host, port), timeout=seconds)
    except socket.gaierror:
        raise ConnectionTrouble(f"unknown host {host}", "Check --host and this machine's network") from None
    except (UnicodeError, ValueError):
        raise UsageError(f"{host} is no host name", "Check --host") from None
    except ConnectionRefusedError:
        raise ConnectionTrouble(
            f"connection to {where} refused", "Is server.py running there, on this port? A firewall may also refuse"
        ) from None
    except TimeoutError:
        raise ConnectionTrouble(
            f"no answer from {where} in {seconds:.0f} seconds", "Check --host, --port and firewalls"
        ) from None
    except OSError as problem:
        raise ConnectionTrouble(f"can't connect to {where} ({problem.strerror})", "Check the network") from None


def cut(sock: Socket) -> None:
    """End both directions now; whoever waits on the socket wakes up."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def close_gently(sock: socket.socket, seconds: float = _DRAIN_SECONDS) -> None:
    """End the sending side, drain for a moment, close: an abrupt close would overtake what was said last."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                break
    sock.close()


class Link:
    """Whole frames of up to 8 KiB, for the login, until one absolute deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        """`deadline` on the clock of `time.monotonic`."""
        self._sock, self._deadline = sock, deadline

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ConnectionTrouble("the login took too long", "Try again; the network or the other end is too slow")
        self._sock.settimeout(left)

    def send(self, frame: bytes) -> None:
        """Send one frame. Raises ConnectionTrouble."""
        try:
            self._hurry()
            self._sock.sendall(frame)
        except TimeoutError:
            self._hurry()
        except OSError as problem:
            raise lost(problem) from None

    def receive(self) -> bytes:
        """One whole frame, its header included. Raises ConnectionTrouble, ProtocolViolation (its length)."""
        header = self._exactly(HEADER_SIZE)
        return header + self._exactly(frame_size(header, 1, LOGIN_FRAME_LIMIT))

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            try:
                self._hurry()
                piece = self._sock.recv(size - len(got))
            except TimeoutError:
                continue
            except OSError as problem:
                raise lost(problem) from None
            if not piece:
                raise lost()
            got += piece
        return bytes(got)
