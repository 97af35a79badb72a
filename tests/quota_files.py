"""What the tests of quotas share: files as a receiver makes them, and what counts of what lies on the disk."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sft.common.errors import Code, Refused
from sft.disk import amounts
from sft.disk import ledger as ledgers
from sft.disk.amounts import Amount, Quota
from sft.disk.journal import Journal, name_of_bytes
from sft.disk.quota import NOT_TEMPORARY
from sft.disk.root import PARTIAL_AREA
from sft.disk.staging import TRIAL
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder

PROJECT = Path(__file__).resolve().parent.parent

LARGE = 70_000  # more than what may not be resumed

ENDLESS = Quota(1 << 60, 1 << 40)


def leave_partial(root: Path, *path: str, user: str = "alice") -> None:
    """As a process that dies before the first byte of a large file leaves it."""
    key, attempt = hashlib.sha256(b"path" + b"\0".join(map(str.encode, path))).hexdigest(), "0" * 16
    area = root / PARTIAL_AREA / user
    with open(os.open(area / f"{key}.journal", os.O_RDWR | os.O_CREAT, 0o600), "r+b") as journal:
        Journal("00", LARGE, None, 0, 1, attempt).write(journal.fileno())
    (area / name_of_bytes(key, attempt)).touch(0o600)


def on_disk(root: Path, user: str = "alice") -> Amount:
    """What lies there of one user: files and folders, and bytes on their way."""
    below = list((root / user).rglob("*"))
    area = root / PARTIAL_AREA / user
    partials = [
        each
        for each in area.iterdir()
        if each.name not in NOT_TEMPORARY and each.suffix != ".journal" and not each.name.startswith(TRIAL)
    ]
    links = [each for each in below if each.is_symlink()]
    files = [each for each in below if not each.is_symlink() and each.is_file()] + [
        each for each in partials if each.stat().st_nlink == 1
    ]
    folders = [each for each in below if not each.is_symlink() and each.is_dir()]
    sizes = [each.stat().st_size for each in files] + [0] * len([*folders, *links])
    return Amount(sum(max(size, amounts.LEAST_BYTES) for size in sizes), len(sizes))


def ledger_file(root: Path, user: str = "alice") -> Path:
    return root / PARTIAL_AREA / user / ledgers.LEDGER


def written(root: Path, user: str = "alice") -> Amount:
    """What the file says, with nobody at work."""
    said = json.loads(ledger_file(root, user).read_text())
    assert said["holders"] == {}
    return Amount(said["bytes"], said["files"])


@contextlib.contextmanager
def opened(storage: Storage, quota: Quota) -> Iterator[UserFolder]:
    """A connection of alice."""
    folder = storage.user("alice", quota=quota)
    try:
        yield folder
    finally:
        folder.close()


def incoming(name: str, size: int | None, policy: str = "fail", transfer: bytes = b"") -> Incoming:
    return Incoming(transfer or os.urandom(16), tuple(name.split("/")), size, None, None, policy)


def begin(
    folder: UserFolder, name: str, size: int | None, policy: str = "fail", transfer: bytes = b""
) -> TemporaryFile:
    """As the receiver begins a file."""
    resumable = size is not None and size > 65_536
    partial = folder.begin(incoming(name, size, policy, transfer), resumable)
    if not isinstance(partial, TemporaryFile):
        partial = folder.begin_anyway(incoming(name, size, policy, transfer), resumable)
    if resumable:
        partial.resume_from(max(partial.offers, default=0))
    return partial


def fill(partial: TemporaryFile, size: int) -> TemporaryFile:
    """Bytes that no other file has."""
    while partial.size < size:
        partial.write(memoryview(os.urandom(min(1 << 16, size - partial.size))))
    partial.sha256 = hashlib.sha256(os.urandom(8)).digest()
    return partial


def put(folder: UserFolder, name: str, size: int, policy: str = "fail", announced: bool = True) -> Settled | Refused:
    """A whole file, announced with its size or as a pipe."""
    try:
        partial = begin(folder, name, size if announced else None, policy)
    except Refused as problem:
        return problem
    try:
        fill(partial, size)
    except Refused as problem:
        partial.discard()
        return problem
    return folder.publish([partial])[0]


def refuses(outcome: Settled | Refused) -> bool:
    assert isinstance(outcome, Settled) or outcome.code is Code.QUOTA, outcome
    return isinstance(outcome, Refused)


class Disk:
    """What `fstatvfs` says is free."""

    f_frsize = 1

    def __init__(self, free: int) -> None:
        self.f_bavail = free
