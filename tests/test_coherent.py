"""Several machines on one file system: each sees what another has written, and none writes to what was published."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from page_caches import PageCaches
from partial_files import CONTENT, ONE, announced, begin, bytes_of, commit, fill, is_busy, published
from quota_files import on_disk, put, refuses

import sft.disk.coherent
import sft.disk.file_systems
import sft.disk.journal
import sft.disk.partials
from sft.disk.amounts import Quota
from sft.disk.coherent import forget_cached, hand_on, links_of
from sft.disk.file_systems import kind_of, may_be_shared
from sft.disk.ledger_locks import Processes
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder

FUSE, NFS, CEPH, EXT4, XFS, OVERLAY, UNKNOWN = 0x65735546, 0x6969, 0x00C36400, 0xEF53, 0x58465342, 0x794C7630, -1
PARTIAL = Path("received/.partial/alice")


@pytest.mark.skipif(sft.disk.file_systems._fstatfs is None, reason="this system has no fstatfs that is asked")
def test_kind_of_a_file_system_is_known() -> None:
    descriptor = os.open("/proc", os.O_RDONLY)
    try:
        assert kind_of(descriptor) == 0x9FA0
    finally:
        os.close(descriptor)
    assert kind_of(-1) == UNKNOWN


@pytest.mark.parametrize(
    ("kind", "shared"),
    [*[(kind, True) for kind in (FUSE, NFS, CEPH, 1)], *[(kind, False) for kind in (EXT4, XFS, OVERLAY, UNKNOWN)]],
)
def test_cache_is_dropped_and_writes_are_flushed_where_machines_may_share_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, shared: bool
) -> None:
    called: list[str] = []
    asked: list[int] = []

    def ask(descriptor: int) -> int:
        asked.append(descriptor)
        return kind

    monkeypatch.setattr(sft.disk.file_systems, "kind_of", ask)
    monkeypatch.setattr(sft.disk.file_systems, "_shared", set())
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: called.append("dropped"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: called.append("flushed"))
    monkeypatch.setattr("sys.platform", "linux")  # macOS asks the drive itself, by another call
    with (tmp_path / "file").open("wb") as file:
        assert may_be_shared(file.fileno()) is shared
        forget_cached(file.fileno())
        hand_on(file.fileno())
    assert called == (["dropped", "flushed"] if shared else [])
    assert len(asked) == (1 if shared else 3)  # what is shared may be far away


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("has_statx", [True, False])
def test_links_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, has_statx: bool) -> None:
    monkeypatch.setattr(sft.disk.coherent, "may_be_shared", lambda descriptor: shared)
    if not has_statx:
        monkeypatch.setattr(sft.disk.file_systems, "_statx", None)
    with (tmp_path / "one").open("wb") as file:
        assert links_of(file.fileno()) == 1
        os.link(tmp_path / "one", tmp_path / "two")
        assert links_of(file.fileno()) == 2
        for name in ("one", "two"):
            (tmp_path / name).unlink()
        assert links_of(file.fileno()) == 0
    with pytest.raises(OSError):
        links_of(-1)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UserFolder]]:
    """Alice's folder, each time as another machine has it."""
    PageCaches(monkeypatch)
    with ExitStack() as opened:

        def make(**limits: Any) -> UserFolder:
            storage = opened.enter_context(closing(Storage(tmp_path / "received", Rules())))
            folder = opened.enter_context(closing(storage.user("alice", **limits)))
            folder.area._owners = {}  # another machine has none in this process
            return folder

        yield make


def test_quota_is_held_by_two_machines(machines: Callable[..., UserFolder], tmp_path: Path) -> None:
    quota = Quota(1_000_000, 1000)
    one, two = machines(quota=quota), machines(quota=quota)
    stored = [
        put(folder, f"{number} {count}", 50_000) for count in range(20) for number, folder in ((1, one), (2, two))
    ]
    assert True in map(refuses, stored)
    assert on_disk(tmp_path / "received").bytes <= 1_000_000


def test_machine_that_takes_a_transfer_over_is_not_thrown_out_by_the_older_one(
    machines: Callable[..., UserFolder], tmp_path: Path
) -> None:
    one, two = machines(), machines()
    older = fill(begin(one), CONTENT[:100_000])
    newer = begin(two)
    newer.resume_from(100_000)
    assert is_busy(older)
    older.discard()
    assert isinstance(commit(two, fill(newer)), Settled)
    assert (tmp_path / "received/alice/big").read_bytes() == CONTENT


@pytest.mark.parametrize("transfer", [ONE, b"2" * 16], ids=["same transfer", "another"])
@pytest.mark.parametrize("remembers_journal", [True, False])
def test_old_hidden_name_that_a_machine_remembers_leads_to_no_published_file(
    machines: Callable[..., UserFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    remembers_journal: bool,
    transfer: bytes,
) -> None:
    """GlusterFS was seen to open a published file by its old hidden name, and to count one link, for a second."""
    folder, area, big = machines(), tmp_path / PARTIAL, tmp_path / "received/alice/big"
    partial = fill(begin(folder, announced(policy="replace")))
    name = bytes_of(area)
    journal = name.with_suffix(".journal")
    with journal.open("rb") as before:
        assert commit(folder, partial) == published("big")
        if remembers_journal:
            journal.touch(0o600)
            journal.write_bytes(before.read())
    os.link(big, name)
    monkeypatch.setattr(sft.disk.partials, "links_of", lambda descriptor: 1)
    other = fill(begin(folder, announced(transfer, size=5, policy="replace")), b"other")
    assert big.read_bytes() == CONTENT
    other.discard()


def test_process_whose_lock_file_another_machine_has_just_removed_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ceph-fuse says "No such file" when such a file, which is open, is to be locked."""
    name = ".holder-" + "0" * 16
    (tmp_path / name).touch(0o600)
    folder = os.open(tmp_path, os.O_RDONLY)

    def lock(descriptor: int, how: int) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(fcntl, "flock", lock)
    try:
        assert not Processes(folder).is_alive(name)
        Processes(folder).sweep()
    finally:
        os.close(folder)
