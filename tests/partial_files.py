"""Partial and small files as the receiver makes them, for the tests of `sft/disk/`."""

import hashlib
import os
from pathlib import Path

import pytest

from sft.common.errors import Code, Refused
from sft.common.values import replace
from sft.disk import receipts
from sft.disk.anonymous import AnonymousFile
from sft.disk.partials import PartialFile
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
CONTENT = os.urandom(300_000)
DAY = 24 * 3600


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def announced(
    transfer: bytes = ONE,
    *path: str,
    size: int | None = len(CONTENT),
    mtime: int | None = 5,
    mode: int | None = None,
    policy: str = "fail",
) -> Incoming:
    return Incoming(transfer, path or ("big",), size, mtime, mode, policy)


def begin(folder: UserFolder, incoming: Incoming | None = None) -> PartialFile:
    """Begin a file that may be resumed."""
    partial = folder.begin(incoming or announced(), resumable=True)
    assert isinstance(partial, PartialFile)
    return partial


def fill(partial: PartialFile, content: bytes = CONTENT) -> PartialFile:
    """Write what is missing of `content`; after an offer that was not taken, all of it."""
    partial.resume_from(partial.size)
    for start in range(partial.size, len(content), 70_000):
        partial.write(memoryview(content)[start : start + 70_000])
    partial.sha256 = hashlib.sha256(content).digest()
    return partial


def cut(folder: UserFolder, count: int = 200_000, incoming: Incoming | None = None) -> None:
    """An attempt that was cut off after `count` bytes."""
    partial = begin(folder, incoming)
    fill(partial, CONTENT[:count])
    assert partial.keep()


def commit(folder: UserFolder, partial: TemporaryFile) -> Settled | Refused:
    (outcome,) = folder.publish([partial])
    return outcome


def published(*path: str, content: bytes = CONTENT) -> Settled:
    return Settled(path, size=len(content), sha256=hashlib.sha256(content).digest())


def again(first: Settled) -> Settled:
    """What the same content of the same transfer gets when it comes once more."""
    return replace(first, already=True)


def is_busy(partial: TemporaryFile) -> bool:
    """Whether nothing can be written or finished through it any more."""
    with pytest.raises(Refused) as writing:
        partial.write(memoryview(b"late"))
    with pytest.raises(Refused) as finishing:
        partial.finish(0o644)
    return writing.value.code is finishing.value.code is Code.BUSY


def refuse(folder: UserFolder, incoming: Incoming) -> Code:
    before = open_descriptors()
    with pytest.raises(Refused) as caught:
        folder.begin(incoming, resumable=True)
    assert open_descriptors() == before
    return caught.value.code


def journal_of(place: Path) -> Path:
    (found,) = place.glob("*.journal")
    return found


def bytes_of(place: Path) -> Path:
    key = journal_of(place).stem
    (found,) = (each for each in place.glob(f"{key}.*") if each.suffix != ".journal")
    return found


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != receipts.RECEIPTS)


def small(folder: UserFolder, transfer: bytes = ONE, *path: str) -> AnonymousFile:
    partial = folder.begin(announced(transfer, *(path or ("small",)), size=3), resumable=False)
    assert isinstance(partial, AnonymousFile)
    partial.sha256 = hashlib.sha256(b"new").digest()
    return partial


def old(place: Path, days: float) -> None:
    for path in place.iterdir():
        then = path.stat().st_mtime - days * DAY
        os.utime(path, (then, then))


def renamed(folder: UserFolder, transfer: bytes = ONE, content: bytes = b"new", size: int | None = 3) -> Settled:
    """Store a small file under the policy `rename`, or be told that it is there."""
    begun = folder.begin(announced(transfer, "db.dump", size=size, policy="rename"), resumable=False)
    assert isinstance(begun, AnonymousFile)
    begun.write(memoryview(content))
    begun.sha256 = hashlib.sha256(content).digest()
    outcome = commit(folder, begun)
    assert isinstance(outcome, Settled)
    return outcome
