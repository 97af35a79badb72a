"""The machine and the versions, for the results: a figure means nothing without them.

Rules: only what the system reports; no host name, user name or path, and no guesses.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.jobs import HOME

_PROGRAMS = {
    "ssh": ["ssh", "-V"],
    "rsync": ["rsync", "--version"],
    "tar": ["tar", "--version"],
}
_LIBRARIES = ("pycryptodome", "asyncssh", "paramiko", "cryptography")


def _field(path: str, name: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "unknown"


def file_system(folder: Path) -> str:
    """The type of file system that `folder` lies on."""
    best = ("", "unknown")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            device, place, kind = line.split()[:3]
            if folder.is_relative_to(place) and len(place) > len(best[0]):
                best = (place, f"{kind} on {device}" if device.startswith("/dev/") else kind)
    return best[1]


def free_space(folder: Path) -> int:
    """Bytes that can be written there; a file in memory takes memory."""
    free = shutil.disk_usage(folder).free
    return min(free, available_memory()) if file_system(folder) == "tmpfs" else free


def available_memory() -> int:
    """Bytes that processes can still have without swapping."""
    available = _field("/proc/meminfo", "MemAvailable").split()[0]
    return int(available) << 10 if available.isdecimal() else 0


def describe(memory: Path, disk: Path) -> dict[str, object]:
    """CPU, cores, memory, kernel and file systems; and how busy it was before we began."""
    total = _field("/proc/meminfo", "MemTotal").split()[0]
    return {
        "cpu": _field("/proc/cpuinfo", "model name") if platform.machine() == "x86_64" else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": int(total) << 10 if total.isdecimal() else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "files": file_system(memory),
        "disk": file_system(disk),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of everything that takes part and is installed."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]) is not None:
            done = subprocess.run(command, capture_output=True, text=True)
            found[name] = (done.stdout or done.stderr).strip().splitlines()[0]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(HOME), "describe", "--always", "--dirty"]
        found["this program"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found
