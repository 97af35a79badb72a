"""The cases: what is sent, over which line, how often; and the content for them.

Rules: content is random, so that no peer can compress it, and made once for a case. It does not know which peer sends
it.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
GBIT = 125_000_000  # bytes per second
_BLOCK = 64 * MIB


@dataclass(frozen=True)
class Case:
    """One row of the table. `rtt` in seconds, `rate` in bytes per second, 0 where there is no line in between."""

    name: str
    title: str
    size: int  # of each file
    count: int = 1
    rtt: float = 0.0
    rate: float = 0.0
    rounds: int = 5
    unit: str = "MB/s"  # of a figure: MB/s, s or files/s
    tree: bool = False
    disk: bool = False  # what arrives lies on a real disk
    asked_for: bool = False  # only when named
    peers: tuple[str, ...] = ()  # only these
    limit: float = 300.0  # seconds, for one transfer

    @property
    def bytes(self) -> int:
        """Of content, all files together."""
        return self.size * self.count


CASES = (
    Case("bulk", "1 GiB, loopback", GIB),
    Case("bulk-distant", "256 MiB, 100 ms round trip, 1 Gbit/s", 256 * MIB, rtt=0.1, rate=GBIT),
    Case("one", "1 KiB, loopback", 1024, unit="s", rounds=9),
    Case("one-distant", "1 KiB, 100 ms round trip", 1024, rtt=0.1, rate=GBIT, unit="s"),
    Case("many", "10,000 files of 4 KiB, loopback", 4096, 10_000, unit="s", tree=True),
    Case(
        "many-distant", "1,000 files of 4 KiB, 50 ms round trip", 4096, 1000, 0.05, GBIT, unit="s", tree=True, limit=900
    ),
    Case("many-disk", "10,000 files of 4 KiB, onto a disk", 4096, 10_000, unit="s", tree=True, disk=True),
    Case("huge", "10 GiB, loopback (for its memory)", 10 * GIB, rounds=1, asked_for=True, peers=("ours",), limit=900),
)
EXTRA = {
    "ceiling": "the cipher and the digest alone, no transport",
    "load-many": "200 clients at once, 1 MiB each",
    "load-large": "16 clients at once, 256 MiB each",
}


def quick(case: Case) -> Case:
    """The same with less of everything: shows that it works, not how fast it is."""
    if case.tree:
        return replace(case, count=case.count // 20, rounds=1, title=f"{case.title}, a twentieth of it", limit=120)
    if case.size > MIB:
        return replace(case, size=case.size // 16, rounds=1, title=f"{case.title}, a sixteenth of it", limit=120)
    return replace(case, rounds=1, limit=120)


def write_random(path: Path, size: int) -> None:
    """A file of `size` bytes; blocks of 64 MiB repeat."""
    block = os.urandom(min(size, _BLOCK))
    with path.open("wb") as file:
        while size:
            size -= file.write(block[: min(size, len(block))])


def make_source(case: Case, folder: Path) -> Path:
    """What is sent: the file `data`, or the folder `tree` with a hundred files in each of its folders."""
    folder.mkdir(parents=True, exist_ok=True)
    if not case.tree:
        write_random(folder / "data", case.size)
        return folder / "data"
    top = folder / "tree"
    for number in range(case.count):
        place = top / f"{number // 100:03d}"
        if number % 100 == 0:
            place.mkdir(parents=True)
        (place / f"{number:05d}.bin").write_bytes(os.urandom(case.size))
    return top


def difference(source: Path, arrived: Path, content: bool) -> str:
    """Why `arrived` is not what `source` is; empty when it is. Compares content only when asked to."""
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in files:
        other = arrived / path.relative_to(source) if source.is_dir() else arrived
        if not other.is_file():
            return f"{other.name} did not arrive"
        if other.stat().st_size != path.stat().st_size:
            return f"{other.name} arrived with {other.stat().st_size} bytes"
        if content and not _same(path, other):
            return f"{other.name} arrived with other content"
    return ""


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            piece = first.read(MIB)
            if piece != second.read(MIB):
                return False
            if not piece:
                return True
