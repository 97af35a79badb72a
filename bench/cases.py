"""The cases: what is sent, over which line, how often; and the content for them.

Rules: content is made once for a case, and random, so that no peer can compress it, unless the case is about content
that can be. It does not know which peer sends it.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

MIB = 1 << 20
GIB = 1 << 30
GBIT = 125_000_000  # bytes per second
_BLOCK = 64 * MIB
_LOG_BLOCK = 8 * MIB
_DATA_EACH = 4 * MIB  # pieces of data that lie scattered in a sparse file
_SPARSE_DATA = 100 * MIB

Content = Literal["random", "log", "sparse"]


@dataclass(frozen=True)
class Case:
    """One row of the table. `rtt` in seconds, `rate` in bytes per second, 0 where there is no line in between.

    `base`: the peer that the others are compared with. `again`: the command runs twice, and its second run is timed;
    the first has no line. `new` files are written anew between the two, or `grown` bytes are added to the one file.
    """

    name: str
    title: str
    size: int  # of each file
    count: int = 1
    rtt: float = 0.0
    rate: float = 0.0
    rounds: int = 5
    unit: str = "MB/s"  # of a figure: MB/s, s or files/s
    base: str = "scp"
    content: Content = "random"
    tree: bool = False
    again: bool = False
    new: int = 0
    grown: int = 0
    disk: bool = False  # what arrives lies on a real disk
    asked_for: bool = False  # only when named
    peers: tuple[str, ...] = ()  # only these, and those that are for this case alone
    limit: float = 300.0  # seconds, for one transfer

    @property
    def bytes(self) -> int:
        """Of content, all files together."""
        return self.size * self.count

    @property
    def stored(self) -> int:
        """Bytes that it takes where it lies."""
        return _sparse_data(self.size) if self.content == "sparse" else self.bytes


_GROWN: dict[str, Any] = {"unit": "s", "base": "rsync", "peers": ("rsync",), "again": True, "rounds": 3}
_UPDATE: dict[str, Any] = {**_GROWN, "size": 3150, "count": 20_000, "tree": True}

CASES = (
    Case("bulk", "1 GiB, loopback", GIB),
    Case("bulk-distant", "256 MiB, 100 ms round trip, 1 Gbit/s", 256 * MIB, rtt=0.1, rate=GBIT),
    Case("one", "1 KiB, loopback", 1024, unit="s", rounds=9),
    Case("one-distant", "1 KiB, 100 ms round trip", 1024, rtt=0.1, rate=GBIT, unit="s"),
    Case("many", "10,000 files of 4 KiB, loopback", 4096, 10_000, unit="s", base="rsync", tree=True),
    Case(
        "many-distant",
        "1,000 files of 4 KiB, 50 ms round trip",
        4096,
        1000,
        0.05,
        GBIT,
        unit="s",
        base="rsync",
        tree=True,
        limit=900,
    ),
    Case("many-disk", "10,000 files of 4 KiB, onto a disk", 4096, 10_000, unit="s", base="rsync", tree=True, disk=True),
    Case(
        "again",
        "20,000 unchanged files of 3 KiB, loopback",
        3150,
        20_000,
        unit="s",
        base="rsync-c",
        peers=("ours", "rsync"),
        tree=True,
        again=True,
    ),
    Case("update", "20,000 unchanged files of 3 KiB, by size and time", **_UPDATE),
    Case("update-10", "20,000 files of 3 KiB, 10 of them changed", new=10, **_UPDATE),
    Case(
        "update-distant",
        "20,000 files of 3 KiB, 10 changed, 50 ms, 100 Mbit/s",
        new=10,
        rtt=0.05,
        rate=GBIT / 10,
        **_UPDATE,
    ),
    Case("grown", "a log of 500 MB that has grown by 1 MB", 500_000_000, grown=1_000_000, **_GROWN),
    Case(
        "grown-distant",
        "the same, 50 ms, 100 Mbit/s",
        500_000_000,
        grown=1_000_000,
        rtt=0.05,
        rate=GBIT / 10,
        **_GROWN,
    ),
    Case(
        "logs",
        "64 MiB of logs, 20 ms round trip, 20 Mbit/s",
        64 * MIB,
        rtt=0.02,
        rate=GBIT / 50,
        rounds=3,
        unit="s",
        base="rsync-z",
        peers=("ours", "scp", "rsync"),
        content="log",
    ),
    Case(
        "sparse",
        "5 GiB with 100 MiB of data",
        5 * GIB,
        rounds=3,
        unit="s",
        base="rsync-S",
        content="sparse",
        peers=("ours",),
    ),
    Case("text", "1 GiB of logs, loopback", GIB, base="ours-plain", content="log", peers=("ours",)),
    Case("noise", "1 GiB of noise, loopback", GIB, base="ours-plain", peers=("ours",)),
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
    _write_blocks(path, size, os.urandom(min(size, _BLOCK)))


def write_log(path: Path, size: int) -> None:
    """A web server's log of `size` bytes; blocks of 8 MiB repeat, which is farther apart than compressors look."""
    draw, lines, length = random.Random(1), [], 0  # noqa: S311 - no secret: the same log in each run
    while length < min(size, _LOG_BLOCK):
        source = ".".join(str(draw.randrange(256)) for _ in range(4))
        time = f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"
        what = f"/{draw.choice(('api', 'img', 'shop', 'news'))}/{draw.randrange(10**6)}"
        lines.append(
            f'{source} - - [24/Nov/2026:{time} +0000] "GET {what} HTTP/1.1" {draw.choice((200, 200, 200, 304, 404))} '
            f'{draw.randrange(10**5)} "https://example.org{what[:5]}" "Mozilla/5.0 (X11; Linux x86_64; rv:145.0)"\n'
        )
        length += len(lines[-1])
    _write_blocks(path, size, "".join(lines).encode()[:_LOG_BLOCK])


def write_sparse(path: Path, size: int) -> None:
    """A file of `size` bytes that is holes but for pieces of random data, evenly spread."""
    data = _sparse_data(size)
    count = max(1, data // _DATA_EACH)
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(count):
            file.seek(size // count * number)
            file.write(os.urandom(min(data, _DATA_EACH)))


def _sparse_data(size: int) -> int:
    return min(_SPARSE_DATA, size // 50)


def _write_blocks(path: Path, size: int, block: bytes) -> None:
    with path.open("wb") as file:
        while size:
            size -= file.write(block[: min(size, len(block))])


_WRITERS: dict[Content, Callable[[Path, int], None]] = {
    "random": write_random,
    "log": write_log,
    "sparse": write_sparse,
}


def make_source(case: Case, folder: Path) -> Path:
    """What is sent: the file `data`, or the folder `tree` with a hundred files in each of its folders."""
    folder.mkdir(parents=True, exist_ok=True)
    if not case.tree:
        _WRITERS[case.content](folder / "data", case.size)
        return folder / "data"
    top = folder / "tree"
    for number in range(case.count):
        place = top / f"{number // 100:03d}"
        if number % 100 == 0:
            place.mkdir(parents=True)
        (place / f"{number:05d}.bin").write_bytes(os.urandom(case.size))
    return top


def change(case: Case, source: Path) -> None:
    """What becomes of a source between the two runs of its case; the number and sizes of its files stay."""
    for number in range(0, case.count if case.new else 0, max(1, case.count // max(1, case.new))):
        (source / f"{number // 100:03d}" / f"{number:05d}.bin").write_bytes(os.urandom(case.size))
    if case.grown:
        with source.open("ab") as file:
            file.write(os.urandom(case.grown))


def undo(case: Case, source: Path) -> None:
    """The source of a case as it was before it grew."""
    if case.grown:
        os.truncate(source, case.size)


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
