"""What a user's folder is sent, for the tests of `sft/disk/`: announced, written, published; traps in the way."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sft.common.errors import Code, Refused
from sft.common.values import replace
from sft.disk.receipts import RECEIPTS
from sft.disk.root import PARTIAL_AREA
from sft.disk.staging import SMALL
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder
from sft.transfer.groups import Begun

Outcome = Settled | Refused


@contextlib.contextmanager
def opened(root: Path, rules: Rules | None = None) -> Iterator[Storage]:
    """A Storage whose descriptors are given back, which the process that serves leaves to its own end."""
    storage = Storage(root, rules or Rules())
    try:
        yield storage
    finally:
        storage.close()


@contextlib.contextmanager
def using(storage: Storage, name: str = "alice", private: bool = False) -> Iterator[UserFolder]:
    folder = storage.user(name, private)
    try:
        yield folder
    finally:
        folder.close()


def announced(
    *path: str,
    size: int | None = 3,
    policy: str = "fail",
    mtime: int | None = None,
    mode: int | None = None,
    transfer: bytes | None = None,
) -> Incoming:
    return Incoming(transfer or os.urandom(16), path, size, mtime, mode, policy)


def written(partial: Begun, content: bytes = b"new") -> TemporaryFile:
    assert isinstance(partial, TemporaryFile)
    partial.write(memoryview(content))
    partial.sha256 = hashlib.sha256(content).digest()
    return partial


def begun(folder: UserFolder, incoming: Incoming, content: bytes = b"new") -> TemporaryFile:
    return written(folder.begin(incoming, resumable=False), content)


def commit(folder: UserFolder, *group: TemporaryFile) -> list[Outcome]:
    """What has become of each; size and digest are judged here."""
    outcomes = folder.publish(list(group))
    for outcome, partial in zip(outcomes, group, strict=True):
        if isinstance(outcome, Settled) and not outcome.skipped:
            assert (outcome.size, outcome.sha256) == (partial.size, partial.sha256)
    return [without_digest(outcome) for outcome in outcomes]


def without_digest(outcome: Outcome) -> Outcome:
    return replace(outcome, size=0, sha256=None) if isinstance(outcome, Settled) else outcome


def put(folder: UserFolder, *path: str, content: bytes = b"new", policy: str = "fail", **more: object) -> Outcome:
    """Announce, write and commit one small file: what became of it."""
    try:
        partial = folder.begin(announced(*path, policy=policy, **more), resumable=False)  # type: ignore[arg-type]
        if isinstance(partial, Settled):
            return without_digest(partial)
        (outcome,) = commit(folder, written(partial, content))
    except Refused as problem:
        return problem
    return outcome


def code_of(outcome: Outcome) -> Code:
    assert isinstance(outcome, Refused), outcome
    return outcome.code


def left(root: Path) -> list[str]:
    """What lies in the staging areas of all users; receipts are there on purpose."""
    return [str(each.relative_to(root)) for each in (root / PARTIAL_AREA).glob("*/*") if each.name != RECEIPTS]


def tree(place: Path) -> set[str]:
    found = set()
    for above, folders, files in os.walk(place):
        found |= {os.path.relpath(os.path.join(above, name), place) for name in (*folders, *files)}
    return found


@contextlib.contextmanager
def with_umask(folder: UserFolder, umask: int) -> Iterator[None]:
    """As if the server had been started with it."""
    before = os.umask(umask)
    folder.publisher.umask = umask
    try:
        yield
    finally:
        os.umask(before)


def hidden_name(area: int) -> str:
    """The name of a file that can't be resumed, where it needs one."""
    (found,) = (name for name in os.listdir(area) if name.startswith(SMALL))
    return found


SECOND = 10**9  # in a time

TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "live link": lambda place, outside: place.symlink_to(outside / "target"),
    "dangling link": lambda place, outside: place.symlink_to(outside / "missing"),
    "link to a folder": lambda place, outside: place.symlink_to(outside),
    "link to itself": lambda place, outside: place.symlink_to(place),
    "fifo": lambda place, outside: os.mkfifo(place),
}


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
