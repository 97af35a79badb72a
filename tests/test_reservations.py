"""What an account is charged for one file, whatever becomes of the connections that have it one after the other."""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from quota_files import ENDLESS, Disk, begin, fill, leave_partial, on_disk, put, refuses, written

from sft.common.errors import Code, Refused
from sft.disk import journal
from sft.disk.amounts import NO_QUOTA, Amount, Quota
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder

SIZE, THERE = 90_000, 40_000
LEAST = 1 << 30  # bytes that stay free
TIGHT = Quota(SIZE + 10_000)  # for the file, and not for a second reservation of the same
TRANSFER = b"t" * 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "received"


@contextmanager
def connections(root: Path, quota: Quota, count: int, free_space: int = 0) -> Iterator[list[UserFolder]]:
    """So many connections of alice; no descriptor outlives them."""
    before = len(os.listdir("/dev/fd"))
    with closing(Storage(root, Rules(free_space=free_space))) as storage:
        folders = [storage.user("alice", quota=quota) for _ in range(count)]
        try:
            yield folders
        finally:
            for each in folders:
                each.close()
    assert len(os.listdir("/dev/fd")) == before


def refused(folder: UserFolder) -> Code:
    with pytest.raises(Refused) as caught:
        begin(folder, "a", SIZE, transfer=TRANSFER)
    return caught.value.code


def test_bytes_stay_counted_when_the_disk_is_too_full_to_take_them_over(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(1 << 40)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: disk)
    with connections(root, ENDLESS, 2, free_space=1) as (old, new):
        first = fill(begin(old, "a", SIZE, transfer=TRANSFER), THERE)
        disk.f_bavail = 0
        assert refused(new) is Code.NO_SPACE
        assert not first.keep()
    assert written(root) == on_disk(root) == Amount(THERE, 1)


def test_bytes_stay_counted_when_the_journal_of_who_takes_them_over_is_not_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connections(root, ENDLESS, 2) as (old, new):
        first = fill(begin(old, "a", SIZE, transfer=TRANSFER), THERE)

        def fail(self: journal.Journal, descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as broken:
            broken.setattr(journal.Journal, "write", fail)
            assert refused(new) is Code.UNAVAILABLE
        assert not first.keep()
    assert written(root) == on_disk(root) == Amount(THERE, 1)


def test_connection_that_closes_while_another_takes_over_leaves_it_its_reservation(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one waits for the journal's lock to close, and the newer one has it first."""
    with connections(root, TIGHT, 2) as (old, new):
        first = fill(begin(old, "a", SIZE, transfer=TRANSFER), THERE)
        lock, journals = fcntl.flock, first._journal_descriptor  # type: ignore[attr-defined]
        taken = []
        taker = threading.Thread(target=lambda: taken.append(begin(new, "a", SIZE, transfer=TRANSFER)))

        def take_over_first(descriptor: int, how: int) -> None:
            if descriptor == journals and threading.current_thread() is not taker and not taker.ident:
                taker.start()
                taker.join(30)
            lock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", take_over_first)
        first.close()  # type: ignore[attr-defined]
        assert len(taken) == 1, "refused for what the older connection had reserved"
        assert isinstance(new.publish([fill(taken[0], SIZE)])[0], Settled)
    assert written(root) == on_disk(root) == Amount(SIZE, 1)


@pytest.mark.parametrize("counts", [False, True], ids=["", "counted in between"])
def test_third_connection_of_a_transfer_is_charged_once(root: Path, counts: bool) -> None:
    """The first does not know yet that it was taken over, and has the file open all the time."""
    with connections(root, TIGHT, 3) as (first, second, third):
        oldest = fill(begin(first, "a", SIZE, transfer=TRANSFER), THERE)
        assert begin(second, "a", SIZE, transfer=TRANSFER).keep()
        if counts:
            storage = Storage(root, Rules())
            assert storage.ledgers.recount("alice") == Amount(THERE, 1)
            storage.close()
        newest = begin(third, "a", SIZE, transfer=TRANSFER)
        assert not newest.is_shared
        assert refuses(put(second, "b", 10_001)) and not refuses(put(second, "b", 10_000))
        assert isinstance(third.publish([fill(newest, SIZE)])[0], Settled)
        assert not oldest.keep()
    assert written(root) == on_disk(root) == Amount(SIZE + 10_000, 2)


def test_kept_file_without_bytes_that_is_not_taken_up_is_counted_no_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(1 << 40)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: disk)
    with connections(root, ENDLESS, 1, free_space=1) as (folder,):
        partial = begin(folder, "a", SIZE, transfer=TRANSFER)
        assert not partial.keep()
    leave_partial(root, "a")
    with closing(Storage(root, Rules())) as storage:
        assert storage.ledgers.recount("alice") == on_disk(root) != Amount()
    with connections(root, ENDLESS, 1, free_space=1) as (folder,):
        disk.f_bavail = 0
        assert refused(folder) is Code.NO_SPACE
    assert written(root) == on_disk(root) == Amount()


def test_file_that_can_not_be_removed_stays_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connections(root, ENDLESS, 1) as (folder,):
        partial = fill(begin(folder, "a", SIZE, transfer=TRANSFER), THERE)

        def fail(name: str, *, dir_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as broken:
            broken.setattr(os, "unlink", fail)
            partial.discard()
    assert written(root) == on_disk(root) == Amount(THERE, 1)


def test_file_that_another_process_has_taken_over_is_counted_by_that_one(root: Path) -> None:
    with connections(root, ENDLESS, 1) as (folder,):
        partial = fill(begin(folder, "a", SIZE, transfer=TRANSFER), THERE)
        (place,) = (root / PARTIAL_AREA / "alice").glob("*.journal")
        said = json.loads(place.read_text())
        place.write_text(json.dumps({**said, "generation": said["generation"] + 1}))
        partial.close()  # type: ignore[attr-defined]
    assert on_disk(root) == Amount(THERE, 1) and written(root) == Amount()


def test_file_that_grows_looks_at_the_free_space_now_and_then_and_may_use_the_last_byte(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(descriptor: int) -> Disk:
        looks.append(descriptor)
        return Disk(LEAST + left)

    monkeypatch.setattr(os, "fstatvfs", look)
    left = 1 << 40
    with connections(root, NO_QUOTA, 1, free_space=LEAST) as (folder,):
        partial = begin(folder, "a", 10 << 20)
        left = 0
        fill(partial, 9 << 20)
        assert 2 <= len(looks) <= 4
        left = -1
        with pytest.raises(Refused) as caught:
            partial.reservation.cover(10 << 20)
        assert caught.value.code is Code.NO_SPACE
        partial.discard()


def test_connection_that_is_closed_twice_gives_back_once(root: Path) -> None:
    with connections(root, Quota(None, 3), 2) as (one, other):
        begin(one, "x/y/a", 10).discard()  # the folders stay reserved until the connection ends
        one.close()
        one.close()
        assert [refuses(put(other, name, 10)) for name in "abcd"] == [False, False, False, True]


def test_process_shows_that_it_lives_until_its_storage_is_closed(root: Path) -> None:
    """One lock file for all connections: none makes its own."""
    with connections(root, ENDLESS, 1) as (folder,):
        put(folder, "a", 10)
        before = [each.name for each in (root / PARTIAL_AREA).glob(".holder-*")]
        folder.close()
        assert [each.name for each in (root / PARTIAL_AREA).glob(".holder-*")] == before != []
    assert not list((root / PARTIAL_AREA).glob(".holder-*"))
