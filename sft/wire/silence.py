"""Notices that the peer of a connection has fallen silent, also while this end does not read or can't write.

    this end            the peer counts as silent when, for 30 s,
    reads               not a byte has come
    can't write         not a byte has left, and none has come
    does not read yet   no byte was added to those in the system's buffer, and more would fit into it

The last row holds on Linux only. Rules: sockets block, with timeouts of the system, so that waiting costs nothing. This
end's own slowness (a disk, a rate limit, other connections) never counts as the peer's silence: as long as there may be
something to read, it is read first.
"""

import socket
import struct
import sys
import time

from sft.common.errors import ConnectionTrouble
from sft.wire.protocol import SILENCE_LIMIT

try:
    import fcntl
    import termios
except ImportError:  # Windows, where only sending works
    fcntl = termios = None  # type: ignore[assignment]

LOOK_EVERY = 5.0  # seconds between two looks while this end does not read, or can't write
_CLOSE_WAIT = 8  # the state of a TCP connection of which the other end has closed its side; linux/tcp_states.h
_CAN_LOOK = sys.platform == "linux" and fcntl is not None


class WatchedSocket:
    """A socket that notices silence, for the one thread that reads from it and the one that writes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._heard_at = time.monotonic()
        self._unread = -1
        sock.settimeout(None)
        _set_timeout(sock, socket.SO_RCVTIMEO, SILENCE_LIMIT)
        if sys.platform != "win32":  # there a socket may not be used any more after a timeout of this kind
            _set_timeout(sock, socket.SO_SNDTIMEO, min(LOOK_EVERY, SILENCE_LIMIT))

    def receive_into(self, view: memoryview) -> int:
        """Return how many bytes came; 0 at the end. Raises ConnectionTrouble after 30 s without one, OSError."""
        try:
            count = self._sock.recv_into(view)
        except BlockingIOError:
            raise _silent() from None
        self._heard_at = time.monotonic()
        return count

    def send_all(self, view: memoryview) -> None:
        """Send all of it. Raises ConnectionTrouble when nothing leaves and nothing comes for 30 s, OSError."""
        left_at = time.monotonic()
        while view:
            try:
                view = view[self._sock.send(view) :]
                left_at = time.monotonic()
            except BlockingIOError:
                if time.monotonic() - max(left_at, self._heard_at) >= SILENCE_LIMIT:
                    raise _silent() from None

    def look(self) -> None:
        """For the reading thread, every few seconds while it waits for something else. Raises like `receive_into`."""
        if not _CAN_LOOK:
            return
        unread = int.from_bytes(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(4)), sys.byteorder)
        if unread != self._unread:
            self._unread, self._heard_at = unread, time.monotonic()
        elif (
            time.monotonic() - self._heard_at >= SILENCE_LIMIT
            and self._has_space(unread)
            and not self._is_half_closed()
        ):
            raise _silent()

    def _has_space(self, unread: int) -> bool:
        """Whether the system's buffer takes more; if not, an honest peer has to wait, and can't send a PING."""
        return unread < self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4

    def _is_half_closed(self) -> bool:
        """Whether the peer has closed its side: everything that it sent has arrived."""
        return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_WAIT


def _silent() -> ConnectionTrouble:
    return ConnectionTrouble(
        f"no sign of life from the other end for {SILENCE_LIMIT:.0f} seconds", "Send it again when the network is back"
    )


def _set_timeout(sock: socket.socket, option: int, seconds: float) -> None:
    if sys.platform == "win32":
        value = struct.pack("@L", int(seconds * 1000))
    else:
        value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, option, value)
