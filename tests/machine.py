"""Faults of the machine, on command: calls that fail or kill, threads that don't start, a clock that jumps.

`machine.c` is compiled when it is first needed, and loaded into a program by its environment. A file
that both have mapped says which calls fail, at any time, so that one server can be broken, repaired, and broken again.
"""

import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Literal

Call = Literal[
    "write", "flush", "flush folder", "link", "rename", "create", "folder", "remove", "thread", "read", "open", "names"
]

CALLS: tuple[Call, ...] = (
    "write",
    "flush",
    "flush folder",
    "link",
    "rename",
    "create",
    "folder",
    "remove",
    "thread",
    "read",
    "open",
    "names",
)
ALWAYS = 1 << 40
_SOURCE = Path(__file__).with_name("machine.c")
_HEAD = struct.Struct("=q1024s")
_FAULT = struct.Struct("=qqqiiii")
_SIZE = _HEAD.size + _FAULT.size * len(CALLS)


def missing() -> str:
    """Why there can be no faults here; empty when there can."""
    if not sys.platform.startswith("linux"):
        return "calls can be made to fail on Linux only"
    return "" if shutil.which("gcc") else "there is no gcc to compile machine.c with"


def compile_library(folder: Path) -> Path:
    """The library, made in `folder`."""
    made = folder / "machine.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return made


class Machine:
    """What fails for the programs that have `environment`. Calls on the disk are meant below `folder` only."""

    def __init__(self, library: Path, control: Path, folder: Path) -> None:
        control.write_bytes(_HEAD.pack(0, str(folder).encode()).ljust(_SIZE, b"\0"))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self.environment = {"LD_PRELOAD": str(library), "MACHINE_CONTROL": str(control)}

    def close(self) -> None:
        """Give the mapping back; what runs keeps its own."""
        self._map.close()

    def fail(self, call: Call, error: int, skip: int = 0, times: int = ALWAYS) -> None:
        """After `skip` more calls, `times` of them fail with that errno."""
        self._arm(call, skip, times, error, 0, False)

    def lie(self, call: Call) -> None:
        """From now on the call does nothing, and says that it is done."""
        self._arm(call, 0, ALWAYS, 0, 0, False)

    def kill_at(self, call: Call, number: int, skip: int, after: bool) -> None:
        """After `skip` more calls, who makes the next gets the signal `number`: before it is done, or `after`."""
        self._arm(call, skip, 1, 0, number, after)

    def heal(self) -> None:
        """Nothing fails any more, and the clock is right."""
        self.set_clock(0)
        for call in CALLS:
            self._arm(call, 0, 0, 0, 0, False)

    def hits(self, call: Call) -> int:
        """How many calls met the fault since it was ordered."""
        return int(_FAULT.unpack_from(self._map, self._place(call))[2])

    def set_clock(self, seconds: float) -> None:
        """By how much the wall clock is wrong from now on."""
        struct.pack_into("=q", self._map, 0, int(seconds * 1e9))

    @staticmethod
    def _place(call: Call) -> int:
        return _HEAD.size + CALLS.index(call) * _FAULT.size

    def _arm(self, call: Call, skip: int, times: int, error: int, number: int, after: bool) -> None:
        place = self._place(call)
        struct.pack_into("=q", self._map, place + 8, 0)  # nobody counts while the rest changes
        _FAULT.pack_into(self._map, place, skip, 0, 0, error, number, after, 0)
        struct.pack_into("=q", self._map, place + 8, times)
