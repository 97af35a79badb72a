"""The signals of a server: SIGINT and SIGTERM stop it, SIGHUP lets it load its settings anew.

Rules: a signal handler takes no lock and no Event, because it may interrupt the thread that holds it: it counts, and
wakes who waits. The parent of the server may ignore SIGCHLD, and a program inherits that: the kernel would then keep no
child for us to learn how it ended.
"""

import contextlib
import signal
import socket
from types import FrameType


def learn_of_children() -> None:
    """Let this process learn how its children have ended; before the first of them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class Signals:
    """Counts the signals from now on, and wakes `wait`."""

    def __init__(self) -> None:
        self.stops = 0
        self._reloads = self._reloads_taken = 0
        self.waker, self._wake = socket.socketpair()  # what makes `waker` readable wakes a selector, too
        self._wake.setblocking(False)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1
        self.wake()

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._reloads += 1
        self.wake()

    def takes_reload(self) -> bool:
        """Whether a SIGHUP has come since the last call."""
        before, self._reloads_taken = self._reloads_taken, self._reloads
        return self._reloads_taken > before

    def wake(self) -> None:
        """Let `wait` return, now or the next time."""
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"x")

    def wait(self, seconds: float) -> None:
        """Wait for a signal or for `wake`, for so long at most."""
        self.waker.settimeout(seconds)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self.waker.recv(4096)
