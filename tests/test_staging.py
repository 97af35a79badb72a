"""What is removed from a staging area, and what is not; links and other traps there."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from partial_files import (
    CONTENT,
    TWO,
    again,
    announced,
    begin,
    bytes_of,
    cut,
    fill,
    journal_of,
    left,
    old,
    open_descriptors,
    refuse,
    renamed,
    small,
)

from sft.common.errors import Code
from sft.disk import receipts
from sft.disk.root import PARTIAL_AREA
from sft.disk.staging import StagingArea
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import UserFolder


@pytest.fixture
def folder(storage: Storage) -> Iterator[UserFolder]:
    folder = storage.user("alice")
    yield folder
    folder.close()


@pytest.fixture
def home(tmp_path: Path, folder: UserFolder) -> Path:
    return tmp_path / "received/alice"


@pytest.fixture
def place(tmp_path: Path, folder: UserFolder) -> Path:
    """Alice's staging area."""
    return tmp_path / "received" / PARTIAL_AREA / "alice"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    return target


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No descriptor, and no name in the table of holders, outlives a test."""
    assert not StagingArea._owners
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    assert not StagingArea._owners


# --- what nobody came back for ----------------------------------------------------------------------------------------


def test_kept_file_is_swept_after_a_week(storage: Storage, folder: UserFolder, place: Path) -> None:
    cut(folder)
    assert storage.sweep() == 0
    old(place, 6.9)
    assert storage.sweep() == 0
    partial = begin(folder)
    assert partial.offers[0] == 200_000
    assert partial.keep()
    old(place, 7.1)
    assert storage.sweep() == 1
    assert left(place) == []


def test_age_is_that_of_the_last_attempt_and_not_of_the_source(
    storage: Storage, folder: UserFolder, place: Path
) -> None:
    """A finished file has its source's time already."""
    cut(folder)
    os.utime(bytes_of(place), (0, 0))
    assert storage.sweep() == 0
    begin(folder).discard()


def test_held_files_are_never_swept(storage: Storage, folder: UserFolder, place: Path, home: Path) -> None:
    large = fill(begin(folder))
    little = small(folder, TWO)
    little.write(memoryview(b"new"))
    old(place, 1000)
    assert storage.sweep() == 0
    assert all(isinstance(outcome, Settled) for outcome in folder.publish([large, little]))
    assert sorted(os.listdir(home)) == ["big", "small"]


def test_held_file_is_not_swept_where_locks_belong_to_the_process(
    storage: Storage, folder: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network's disks: there every lock of this process is granted."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: None)
    partial = fill(begin(folder), CONTENT[:1000])
    old(place, 1000)
    assert storage.sweep() == 0
    assert refuse(folder, announced(TWO)) is Code.BUSY
    partial.discard()
    assert left(place) == []


@pytest.mark.usefixtures("named")
def test_small_and_orphaned_files_without_an_owner_are_removed_at_once(
    storage: Storage, folder: UserFolder, place: Path
) -> None:
    little = small(folder)
    little.write(memoryview(b"n"))
    os.close(little.descriptor)  # as when its process dies
    cut(folder)
    bytes_of(place).unlink()
    (place / "torn").write_bytes(b"half")
    assert storage.sweep() == 2
    assert left(place) == []


def test_orphaned_journal_that_is_locked_stays(storage: Storage, folder: UserFolder, place: Path) -> None:
    """As in the moment between the making of a journal and of its bytes."""
    with (place / "new.journal").open("wb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert storage.sweep() == 0
        assert left(place) == ["new.journal"]
    storage.sweep()
    assert left(place) == []


def test_sweep_spares_the_receipts(storage: Storage, folder: UserFolder, place: Path) -> None:
    first = renamed(folder)
    old(place, 1000)
    assert storage.sweep() == 0
    assert renamed(folder) == again(first)


# --- traps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dangling", [False, True], ids=["live", "dangling"])
@pytest.mark.parametrize("name", ["partial", "journal"])
def test_link_planted_in_place_of_a_kept_file_is_not_followed(
    storage: Storage, folder: UserFolder, place: Path, outside: Path, name: str, dangling: bool
) -> None:
    cut(folder)
    path = bytes_of(place) if name == "partial" else journal_of(place)
    path.unlink()
    path.symlink_to(outside.with_name("missing") if dangling else outside)
    assert refuse(folder, announced()) is Code.STORAGE
    storage.sweep()
    assert outside.read_bytes() == b"precious"
    assert not outside.with_name("missing").exists()


@pytest.mark.parametrize("trap", ["live", "dangling", "fifo", "folder"])
def test_trap_in_place_of_the_receipts_is_not_used(
    folder: UserFolder, home: Path, place: Path, outside: Path, trap: str
) -> None:
    file = place / receipts.RECEIPTS
    if trap == "fifo":
        os.mkfifo(file)
    elif trap == "folder":
        file.mkdir()
    else:
        file.symlink_to(outside if trap == "live" else outside.with_name("missing"))
    assert renamed(folder).path == ("db.dump",)
    assert renamed(folder, content=b"two").path == ("db.1.dump",)
    assert outside.read_bytes() == b"precious"
    assert not outside.with_name("missing").exists()


def test_fifo_in_place_of_a_kept_file_stops_nothing(storage: Storage, folder: UserFolder, place: Path) -> None:
    cut(folder)
    name = bytes_of(place)
    name.unlink()
    os.mkfifo(name)
    assert refuse(folder, announced()) is Code.STORAGE
    assert storage.sweep() == 0  # it is as young as a kept file
    old(place, 8)
    assert storage.sweep() == 1
    begin(folder).discard()
