"""Notices to a service manager: the server listens, loads its settings anew, or stops (sd_notify(3)).

Rules: one datagram for each notice, to the socket that the manager names in NOTIFY_SOCKET. Without one, or when it
can't be reached, nothing happens: a server does not depend on who started it.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """The manager that has started this process, if there is one."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get(VARIABLE, "")
        self._address = "\0" + name[1:] if name.startswith("@") else name  # an abstract name has no file

    def ready(self, status: str) -> None:
        """It listens, or has loaded its settings. `status`: one line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It loads its settings anew; `ready` ends that."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """It has begun to stop."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), self._address)
