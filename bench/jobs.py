"""Jobs under the meter, as the rest of this folder sees them: start, wait until it listens, wait for its end, stop it.

Rules: every job ends when this process ends, by whatever way; a job that takes too long is ended and is a `Failed`.
It does not know which peer is measured.
"""

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.meter import descendants

HOME = Path(__file__).resolve().parent.parent
_INSTALLED = HOME / ".venv" / "bin" / "python"
# What a user has, without what asyncssh and paramiko bring.
OURS = str(_INSTALLED) if _INSTALLED.exists() else sys.executable
START_SECONDS = 30.0


class Failed(Exception):
    """A peer did not do its work; the words say why, in one line."""


@dataclass(frozen=True)
class One:
    """One command of a job: its exit status, wall seconds, and when it began and ended by this machine's clock."""

    status: int
    seconds: float
    begun: float
    ended: float
    clock: float


@dataclass(frozen=True)
class Measured:
    """What a job took: CPU seconds of everything it started, bytes of its largest process."""

    runs: tuple[One, ...]
    cpu: float
    peak: int
    resident: tuple[tuple[float, int], ...] = ()  # the first command's memory: clock and bytes


def clean_environment() -> dict[str, str]:
    """This process's environment, without settings of the user, in one language, and with compiled modules kept.

    Where Python may not keep them, each start of a program would compile all of its modules again: 0.15 s for ours.
    """
    return {"SFT_CONFIG": os.devnull, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": ""}


def free_port() -> int:
    """A port of this host that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Job:
    """Commands under way under a meter of their own."""

    def __init__(
        self, folder: Path, *commands: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        """`folder` is there and takes what they print: `out` and `err`."""
        self._out, self._err = folder / "out", folder / "err"
        for old in (self._out, self._err):
            old.unlink(missing_ok=True)
        job = {
            "commands": [[str(word) for word in command] for command in commands],
            "environment": clean_environment() if environment is None else dict(environment),
            "folder": str(HOME),
            "out": str(self._out),
            "err": str(self._err),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SFT_")}
        self._meter = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HOME / "bench" / "meter.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept,
            start_new_session=True,
        )
        self._answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self._say(json.dumps(job))

    def _read(self) -> None:
        assert self._meter.stdout is not None  # noqa: S101 - made with a pipe
        with self._meter.stdout as lines:
            self._answer.put(lines.readline())

    def _say(self, line: str) -> None:
        assert self._meter.stdin is not None  # noqa: S101 - made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._meter.stdin.write(line + "\n")
            self._meter.stdin.flush()

    def mark(self) -> None:
        """Forget the CPU seconds so far."""
        self._say("mark")

    def printed(self) -> str:
        """What the commands have printed to standard output."""
        return self._out.read_text(errors="replace") if self._out.exists() else ""

    def last_words(self) -> str:
        """The last line of standard error, for a failure's reason."""
        lines = self._err.read_text(errors="replace").split("\n") if self._err.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else "no word"

    def wait_for_port(self) -> int:
        """The port at the end of the line that it prints when it listens. Raises Failed."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._meter.poll() is None:
            line, whole, _ = self.printed().partition("\n")
            port = line.rpartition(":")[2].strip()
            if whole and port.isdecimal():
                return int(port)
            time.sleep(0.005)
        raise Failed(f"did not start to listen ({self.last_words()})")

    def wait_until_open(self, port: int) -> None:
        """Wait until its one process takes connections at `port`, and is done with this one. Raises Failed."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._meter.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.recv(1)
                break
            time.sleep(0.01)
        while time.monotonic() < deadline and self._meter.poll() is None:
            if len(descendants(self._meter.pid)) == 1:  # what it started for this connection is not to be counted
                return
            time.sleep(0.01)
        raise Failed(f"does not answer ({self.last_words()})")

    def finish(self, limit: float) -> Measured:
        """Wait for the end of all commands. Raises Failed after `limit` seconds."""
        try:
            line = self._answer.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise Failed(f"was not done after {limit:.0f} s") from None
        self._meter.wait()
        self._close_input()
        if not line:
            raise Failed("the meter was ended")
        found = json.loads(line)
        runs = tuple(
            One(run["status"], run["ended"] - run["begun"], run["begun"], run["ended"], run["clock"])
            for run in found["runs"]
        )
        return Measured(runs, found["cpu"], found["peak"], tuple((at, size) for at, size in found["resident"]))

    def stop(self) -> Measured:
        """Ask all commands to end, and wait for that."""
        self._close_input()
        return self.finish(START_SECONDS)

    def _close_input(self) -> None:
        assert self._meter.stdin is not None  # noqa: S101 - made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._meter.stdin.close()

    def close(self) -> None:
        """End it, if it still runs."""
        self._close_input()
        try:
            self._meter.wait(2 * START_SECONDS)
        except subprocess.TimeoutExpired:
            self._meter.kill()
            self._meter.wait()


@contextlib.contextmanager
def job(folder: Path, *commands: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Iterator[Job]:
    """A job that has ended when the block has."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Job(folder, *commands, environment=environment)
    try:
        yield running
    finally:
        running.close()
