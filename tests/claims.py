"""What clients claim, held against the disk; and where long runs work. Shared by the crash loop and the soak.

A claim is a line "delivered" (or "there already") that a client has printed, or a line in its receipts: wherever one
is, the file is there, with that digest.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOLD = re.compile(r"(?:delivered|there already): (.+)  [\d,]+ bytes  SHA-256 ([0-9a-f]{64})")
_MEMORY = Path("/dev/shm")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def told(out: str) -> Iterator[tuple[str, str]]:
    """(path, digest) of each delivery that a client has printed. A line that was cut off is none."""
    for line in out.splitlines(keepends=True):
        if (found := _TOLD.fullmatch(line.rstrip("\n"))) and line.endswith("\n"):
            yield found[1], found[2]


def receipts(file: Path, torn: bool = False) -> Iterator[tuple[str, str]]:
    """(path, digest) of each line in a client's receipts; with `torn` the last one may be cut off."""
    lines = file.read_text("ascii").splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            assert torn and number == len(lines), f"{file} has a torn line: {line!r}"
            return
        receipt = json.loads(line)
        yield receipt["path"], receipt["sha256"]


def processes_of_sessions(sessions: set[int]) -> list[str]:
    """What still runs of what was started in these sessions, ended processes that nobody has asked for left out."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = place.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        state, _, _, session = rest.split()[:4]
        if int(session) in sessions and state != "Z":
            found.append(name)
    return found


@contextmanager
def workplace(name: str, needed: int) -> Iterator[Path]:
    """A new folder with `needed` bytes free, in memory if it can be; removed, unless something went wrong there."""
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * needed
    folder = Path(tempfile.mkdtemp(prefix=f"secure-file-transfer-{name}-", dir=_MEMORY if in_memory else None))
    if shutil.disk_usage(folder).free < needed:
        folder.rmdir()
        raise SystemExit(f"{folder.parent} has not {needed >> 20} MiB free: set TMPDIR to a folder that has")
    os.umask(0o022)
    try:
        yield folder
    except BaseException:
        print(f"what was there is left in {folder}")
        raise
    shutil.rmtree(folder)
