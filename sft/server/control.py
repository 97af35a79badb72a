"""The control socket: a command of the administrator asks a running server, one line of JSON each way.

    accounts.txt            the accounts
    accounts.txt.control    the socket of the server that has them

Rules: the socket has mode 0600 from its first moment, so nobody but the owner and root can connect; where the system
tells who connects, that is checked, too. A link is never followed, and what belongs to a server that runs is left
alone; what one that was killed has left is replaced. Requests are bounded in size and time and answered one after
another, so a process that is stuck stops nobody for long. A server that can't have the socket goes on without. What the
answers say is in `sft/server/live.py`.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sft.accounts.store import writing
from sft.common.background import BackgroundTask
from sft.common.errors import TransferError, UsageError, reason_of

Request = Mapping[str, Any]
Answer = Mapping[str, Any]

_LONGEST_PATH = 107  # bytes, in Linux; macOS has 103, and says so
_REQUEST_BYTES = 512
_REQUEST_SECONDS = 2.0
_ANSWER_SECONDS = 5.0  # for the other end to take it
_ANSWER_BYTES = 1 << 24  # 10,000 connections with long names take 8 MB
_ASKING_SECONDS = 30.0  # a few that are stuck may be served before
_PAUSE = 1.0  # after a connection that could not be accepted
_BACKLOG = 16
_PRIVATE = 0o177  # the umask for mode 0600
_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7))


def _place_of(accounts: Path) -> Path:
    return accounts.with_name(accounts.name + ".control")


# --- the server's end ---


class Control:
    """Answers at the socket until `close`."""

    def __init__(self, accounts: Path, answer: Callable[[Request], Answer], log: logging.Logger) -> None:
        """Make the socket; when there can be none, a line in the log says so, and nothing else happens.

        No other thread may make files meanwhile. `answer` is called in a thread of its own; a request may be anything.
        """
        self._answer, self._log, self._place = answer, log, _place_of(accounts)
        self._closed = threading.Event()
        self._listening: socket.socket | None = None
        try:
            self._listening = _listen(accounts, self._place)
            self._made = self._place.lstat()
        except (OSError, TransferError) as problem:
            reason = problem.cause if isinstance(problem, TransferError) else reason_of(problem)
            log.warning("no control socket, so `server.py status`, kick and unban won't work: %s", reason)
            self.close()

    def start(self) -> None:
        """Begin to answer. Raises NoThread."""
        if self._listening is not None:
            BackgroundTask("control", self._run)

    def close(self) -> None:
        """Answer nothing more, and remove the socket."""
        self._closed.set()
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                found = self._place.lstat()
                if (found.st_dev, found.st_ino) == (self._made.st_dev, self._made.st_ino):
                    os.unlink(self._place)
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listening.close()

    def _run(self) -> None:
        while (listening := self._listening) is not None:
            try:
                asking, _ = listening.accept()
            except OSError:  # closed, or out of descriptors
                if self._closed.wait(_PAUSE):
                    return
                continue
            with asking:
                try:
                    if _is_ours(asking):
                        self._serve(asking)
                except (OSError, ValueError, RecursionError):  # the trouble of who asked
                    continue
                except Exception:
                    self._log.exception("a bug: a request at the control socket has failed")

    def _serve(self, asking: socket.socket) -> None:
        request = json.loads(_read_line(asking, _REQUEST_BYTES, _REQUEST_SECONDS))
        answer = self._answer(request if isinstance(request, dict) else {})
        asking.settimeout(_ANSWER_SECONDS)
        asking.sendall(json.dumps(answer).encode() + b"\n")


def _listen(accounts: Path, place: Path) -> socket.socket:
    """A socket that listens there. Raises OSError, UsageError with the reason why there is none."""
    if len(os.fsencode(place)) > _LONGEST_PATH:
        raise UsageError(f"the path {place} is longer than {_LONGEST_PATH} bytes")
    with contextlib.ExitStack() as undo:
        listening = undo.enter_context(socket.socket(socket.AF_UNIX))
        with writing(accounts):  # no other server looks and binds meanwhile
            if os.path.lexists(place):
                _remove_stale(place)
            before = os.umask(_PRIVATE)
            try:
                listening.bind(str(place))
            finally:
                os.umask(before)
            undo.callback(os.unlink, place)
            if stat.S_IMODE(place.lstat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsageError(f"{place} would be open to other users")
            listening.listen(_BACKLOG)
        undo.pop_all()
    return listening


def _remove_stale(place: Path) -> None:
    """Remove what a server that was killed has left. Raises UsageError for anything else."""
    found = place.lstat()
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"something else has the name {place}; remove it")
    if found.st_uid != os.geteuid():
        raise UsageError(f"{place} belongs to another user (uid {found.st_uid})")
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(0)
        if other.connect_ex(str(place)) != errno.ECONNREFUSED:
            raise UsageError(f"another server with these accounts has {place}")
    os.unlink(place)


def _is_ours(asking: socket.socket) -> bool:
    """Whether the process at the other end is one of this user, or of root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return user in (0, os.geteuid())


def _read_line(sock: socket.socket, most: int, seconds: float) -> bytes:
    """A line, in so many bytes and seconds at most. Raises OSError, ValueError."""
    end, line = time.monotonic() + seconds, bytearray()
    while not line.endswith(b"\n"):
        sock.settimeout(max(end - time.monotonic(), 0.001))
        part = sock.recv(min(most + 1 - len(line), 1 << 16))
        line += part
        if not part or len(line) > most:
            raise ValueError("no whole line")
    return bytes(line)


# --- the command's end ---


def ask(accounts: Path, request: Request) -> Answer:
    """What the server with these accounts answers. Raises TransferError when there is none, or it says no."""
    place = _place_of(accounts)
    if len(os.fsencode(place)) > _LONGEST_PATH:
        raise TransferError(
            f"the path {place} is longer than {_LONGEST_PATH} bytes, so the server has no control socket",
            "Put the accounts at a shorter path",
        )
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_ASKING_SECONDS)
            sock.connect(str(place))
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_read_line(sock, _ANSWER_BYTES, _ASKING_SECONDS))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise TransferError(
            f"no server with the accounts {accounts} runs on this machine",
            "Start it; if it runs, name its accounts with --accounts or --config, or look into its log",
        ) from None
    except PermissionError:
        raise TransferError(f"{place} is another user's", "Run this as the user who runs the server") from None
    except OSError as problem:
        raise TransferError(
            f"the server at {place} gives no answer ({reason_of(problem)})", "Try again in a moment"
        ) from None
    except ValueError:
        raise TransferError(f"the server at {place} gives no whole answer", "Try again in a moment") from None
    if not isinstance(answer, dict) or "problem" in answer:
        raise TransferError(f"the server at {place} does not know that request", "Start it again after an update")
    return answer
