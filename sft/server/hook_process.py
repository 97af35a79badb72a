"""One run of a program that an administrator has named: started without a shell, fed, listened to, and ended.

Rules: it runs in a session of its own, in `/`, with the few variables of `_KEPT`, and with no descriptor of ours but
the end of a pipe, which is never waited for. Its standard input is a file without a name, which stays whole when the
server is killed. When it ends, or its time is over, its whole process group is killed, so that nothing is left of it
but what has made itself a group of its own. Of what it prints some lines are kept, the rest is read and forgotten. A
server that stops kills it at once.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Literal, NamedTuple

from sft.common.errors import reason_of
from sft.common.text import briefly

RunOutcome = Literal["succeeded", "failed", "timed_out", "stopped"]

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR")
_KEPT_PREFIX = "LC_"
_LINES, _BYTES = 20, 16 << 10  # of its output
_PIECE = 1 << 16  # what a pipe holds
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
_REAP_SECONDS = 5.0  # a process that was killed may hang in a disk


class Ran(NamedTuple):
    """How a run ended: `reason` is empty after a success. `left_out`: bytes of its output that are not in `lines`."""

    outcome: RunOutcome
    reason: str
    lines: list[str]
    left_out: int


def run_program(command: Sequence[str], text: bytes, seconds: float, stop: threading.Event) -> Ran:
    """Run it to its end, with `text` on its standard input. Never raises an OSError."""
    try:
        with _nameless_file() as file:
            file.write(text)
            file.seek(0)
            process = subprocess.Popen(  # noqa: S603 -- the administrator has named it
                command,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd="/",
                env=_environment(os.environ),
                start_new_session=True,
            )
    except (OSError, ValueError) as problem:  # ValueError: a NUL byte
        return Ran("failed", f"can't be started ({reason_of(problem)})", [], 0)
    return _Run(process).until(time.monotonic() + seconds, seconds, stop)


def _nameless_file() -> IO[bytes]:
    """In memory, where the system can."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("delivered"), "w+b")
    return tempfile.TemporaryFile()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Passwords, settings and what a service manager has given us are nobody else's."""
    return {name: value for name, value in ours.items() if name in _KEPT or name.startswith(_KEPT_PREFIX)}


class _Run:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            raise RuntimeError("a program without its pipe")
        self._process, self._stdout = process, process.stdout
        self._output, self._left_out = bytearray(), 0
        os.set_blocking(self._stdout.fileno(), False)

    def until(self, end: float, seconds: float, stop: threading.Event) -> Ran:
        outcome: RunOutcome | None = None
        pause = _SHORTEST_PAUSE
        try:
            while not self._has_ended():
                if stop.is_set():
                    outcome = "stopped"
                    break
                if time.monotonic() >= end:
                    outcome = "timed_out"
                    break
                pause = _SHORTEST_PAUSE if self._listen() else min(2 * pause, _LONGEST_PAUSE)
                stop.wait(pause)
        finally:
            self._end()
        if outcome == "timed_out":
            return self._ran(outcome, f"killed after {seconds:.0f} s")
        if outcome == "stopped":
            return self._ran(outcome, "killed, because the server stops")
        status = self._process.returncode
        if not status:
            return self._ran("succeeded", "")
        return self._ran("failed", f"killed by signal {-status}" if status < 0 else f"exit status {status}")

    def _has_ended(self) -> bool:
        """Whether it has; where the system can, its number stays taken until its group was killed."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None

    def _listen(self) -> bool:
        """Take one piece of what it has printed; whether there was one."""
        try:
            piece = os.read(self._stdout.fileno(), _PIECE)
        except OSError:
            return False
        kept = piece[: _BYTES - len(self._output)]
        self._output += kept
        self._left_out += len(piece) - len(kept)
        return bool(piece)

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # its leader, too, if that has not ended
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)
        self._listen()  # what it said last; one that left its group may go on printing
        self._stdout.close()

    def _ran(self, outcome: RunOutcome, reason: str) -> Ran:
        whole = bytes(self._output).decode("utf-8", "backslashreplace").splitlines()
        lines = [briefly(line) for line in whole if line.strip()]
        beyond = sum(len(line.encode()) + 1 for line in lines[_LINES:])
        return Ran(outcome, reason, lines[:_LINES], self._left_out + beyond)
