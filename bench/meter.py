"""Runs commands and measures what they and everything they start take: wall seconds, CPU seconds, peak memory.

It is a small program of its own, so that its memory and its start are not in the figures: a job comes as one line of
JSON on standard input, the result goes as one line of JSON to standard output. `mark` on standard input forgets the CPU
seconds so far (a server's start); the end of standard input ends everything that was started. So nothing is left behind
when the one who asked is gone, however that came.

CPU seconds are those of all descendants, also of those that outlive their parents: this process adopts them. Peak
memory is that of the largest single process: the system's own figure where it is larger than this process (a new
process inherits its maker's), else the last VmHWM seen. `resident` is how the memory of the first command went: pairs
of this machine's clock and bytes, ten to fifty times a second while it changes.

Rules: standard library only. It does not know what it runs, and never changes its scheduling or its memory.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_ADOPT = 36  # PR_SET_CHILD_SUBREAPER
_LOOK_SECONDS = 0.02
_LOOK_LATER = 5  # times as long between two looks, after the first second
_GRACE_SECONDS = 5.0
_LEFT_SECONDS = 1.0
_TICK = os.sysconf("SC_CLK_TCK")


def descendants(process: int) -> list[int]:
    """All processes below `process`, in no order."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        parent = waiting.pop()
        try:
            below = [
                int(child)
                for task in Path(f"/proc/{parent}/task").iterdir()
                for child in (task / "children").read_text().split()
            ]
        except OSError:  # it has ended
            continue
        found += below
        waiting += below
    return found


def _memory(process: int) -> tuple[int, int]:
    """VmHWM and VmRSS in bytes; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.partition(":")[0]: line for line in lines if line.startswith(("VmHWM:", "VmRSS:"))}
    if len(found) < 2:  # it has ended, and nobody has waited for it yet
        return 0, 0
    return int(found["VmHWM"].split()[1]) << 10, int(found["VmRSS"].split()[1]) << 10


def _cpu(process: int) -> float:
    """CPU seconds of a living process and of the children it has waited for."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICK


class _Meter:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._main: dict[int, int] = {}
        self._runs: list[dict[str, Any]] = []
        self._cpu = self._before = 0.0
        self._peaks: dict[int, int] = {}
        self._largest = 0
        self._resident: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    def start(self) -> None:
        environment, folder = {**os.environ, **self._job["environment"]}, self._job["folder"]
        with open(self._job["out"], "wb") as out, open(self._job["err"], "wb") as err:
            for number, command in enumerate(self._job["commands"]):
                begun, clock = time.perf_counter(), time.time()
                try:
                    process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=folder
                    )
                except OSError as problem:
                    err.write(f"{command[0]}: {problem.strerror}\n".encode())
                    self._runs.append({"status": 127, "begun": begun, "ended": begun, "clock": clock})
                    continue
                self._runs.append({"status": -1, "begun": begun, "ended": begun, "clock": clock})
                self._main[process.pid] = number
                process.returncode = 0  # waited for here, not there
                while self._reap(os.WNOHANG):
                    pass

    def mark(self) -> None:
        self._before = self._cpu + sum(_cpu(each) for each in descendants(os.getpid()))

    def listen(self) -> None:
        """Follow standard input; at its end, end everything."""
        for line in sys.stdin:
            if line.strip() == "mark":
                self.mark()
        for process in list(self._main):
            self._send(process, signal.SIGTERM)
        self._over.wait(_GRACE_SECONDS)
        self._kill_all()

    def _pause(self, running: float) -> float:
        """Looking costs the machine something: less often at many processes, and at those that run for long."""
        return _LOOK_SECONDS * max(1, len(self._main) / 4) * (1 if running < 1 else _LOOK_LATER)

    def look(self) -> None:
        """Note the peak of every descendant while it lives."""
        begun = time.monotonic()
        while not self._over.wait(self._pause(time.monotonic() - begun)):
            for process in descendants(os.getpid()):
                peak, now = _memory(process)
                self._peaks[process] = max(self._peaks.get(process, 0), peak)
                if now and self._main.get(process) == 0 and (not self._resident or self._resident[-1][1] != now):
                    self._resident.append((time.time(), now))

    def _send(self, process: int, number: int) -> None:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            pass

    def _kill_all(self) -> None:
        while not self._over.is_set() and (left := descendants(os.getpid())):
            for process in left:
                self._send(process, signal.SIGKILL)
            self._over.wait(0.05)

    def _reap(self, flags: int) -> bool:
        """Wait for one process; False when there is none."""
        try:
            process, status, usage = os.wait4(-1, flags)
        except ChildProcessError:
            return False
        if not process:
            return False
        now = time.perf_counter()
        self._cpu += usage.ru_utime + usage.ru_stime
        if usage.ru_maxrss << 10 > self._inherited * 5 // 4:
            self._largest = max(self._largest, usage.ru_maxrss << 10)
        if process in self._main:
            run = self._runs[self._main.pop(process)]
            run["ended"], run["status"] = now, os.waitstatus_to_exitcode(status)
        return True

    def wait(self) -> dict[str, Any]:
        """Wait for everything; the result."""
        last: threading.Timer | None = None
        while True:
            if not self._main and last is None:  # give orphans a moment
                last = threading.Timer(_LEFT_SECONDS, self._kill_all)
                last.daemon = True
                last.start()
            if not self._reap(0):
                break
        self._over.set()
        peak = max([self._largest, *self._peaks.values()])
        return {"runs": self._runs, "cpu": max(0.0, self._cpu - self._before), "peak": peak, "resident": self._resident}


def main() -> None:
    """One job: from standard input to standard output."""
    ctypes.CDLL(None, use_errno=True).prctl(_ADOPT, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    meter = _Meter(json.loads(sys.stdin.readline()))
    threading.Thread(target=meter.look, daemon=True).start()
    meter.start()
    threading.Thread(target=meter.listen, daemon=True).start()
    sys.stdout.write(json.dumps(meter.wait()) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the thread at standard input would wait for ever


if __name__ == "__main__":
    main()
