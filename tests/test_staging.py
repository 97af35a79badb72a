"""What is removed from a staging area, and what is not; links and other traps there."""

import fcntl
import os
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
    refuse,
    renamed,
    small,
)

from sft.common.errors import Code
from sft.disk import receipts
from sft.disk.storage import Storage
from sft.disk.temporary import Settled
from sft.disk.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("nothing_leaks")


# --- what nobody came back for ----------------------------------------------------------------------------------------


def test_kept_file_is_swept_after_a_week(storage: Storage, alice: UserFolder, place: Path) -> None:
    cut(alice)
    assert storage.sweep() == 0
    old(place, 6.9)
    assert storage.sweep() == 0
    partial = begin(alice)
    assert partial.offers[0] == 200_000
    assert partial.keep()
    old(place, 7.1)
    assert storage.sweep() == 1
    assert left(place) == []


def test_age_is_that_of_the_last_attempt_and_not_of_the_source(
    storage: Storage, alice: UserFolder, place: Path
) -> None:
    """A finished file has its source's time already."""
    cut(alice)
    os.utime(bytes_of(place), (0, 0))
    assert storage.sweep() == 0
    begin(alice).discard()


def test_held_files_are_never_swept(storage: Storage, alice: UserFolder, place: Path, home: Path) -> None:
    large = fill(begin(alice))
    little = small(alice, TWO)
    little.write(memoryview(b"new"))
    old(place, 1000)
    assert storage.sweep() == 0
    assert all(isinstance(outcome, Settled) for outcome in alice.publish([large, little]))
    assert sorted(os.listdir(home)) == ["big", "small"]


def test_held_file_is_not_swept_where_locks_belong_to_the_process(
    storage: Storage, alice: UserFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network's disks: there every lock of this process is granted."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: None)
    partial = fill(begin(alice), CONTENT[:1000])
    old(place, 1000)
    assert storage.sweep() == 0
    assert refuse(alice, announced(TWO)) is Code.BUSY
    partial.discard()
    assert left(place) == []


@pytest.mark.usefixtures("named")
def test_small_and_orphaned_files_without_an_owner_are_removed_at_once(
    storage: Storage, alice: UserFolder, place: Path
) -> None:
    little = small(alice)
    little.write(memoryview(b"n"))
    os.close(little.descriptor)  # as when its process dies
    cut(alice)
    bytes_of(place).unlink()
    (place / "torn").write_bytes(b"half")
    assert storage.sweep() == 2
    assert left(place) == []


def test_orphaned_journal_that_is_locked_stays(storage: Storage, alice: UserFolder, place: Path) -> None:
    """As in the moment between the making of a journal and of its bytes."""
    with (place / "new.journal").open("wb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert storage.sweep() == 0
        assert left(place) == ["new.journal"]
    storage.sweep()
    assert left(place) == []


def test_sweep_spares_the_receipts(storage: Storage, alice: UserFolder, place: Path) -> None:
    first = renamed(alice)
    old(place, 1000)
    assert storage.sweep() == 0
    assert renamed(alice) == again(first)


# --- traps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dangling", [False, True], ids=["live", "dangling"])
@pytest.mark.parametrize("name", ["partial", "journal"])
def test_link_planted_in_place_of_a_kept_file_is_not_followed(
    storage: Storage, alice: UserFolder, place: Path, outside: Path, name: str, dangling: bool
) -> None:
    cut(alice)
    path = bytes_of(place) if name == "partial" else journal_of(place)
    path.unlink()
    path.symlink_to(outside / ("missing" if dangling else "target"))
    assert refuse(alice, announced()) is Code.STORAGE
    storage.sweep()
    assert (outside / "target").read_bytes() == b"precious"
    assert not (outside / "missing").exists()


@pytest.mark.parametrize("trap", ["live", "dangling", "fifo", "folder"])
def test_trap_in_place_of_the_receipts_is_not_used(
    alice: UserFolder, home: Path, place: Path, outside: Path, trap: str
) -> None:
    file = place / receipts.RECEIPTS
    if trap == "fifo":
        os.mkfifo(file)
    elif trap == "folder":
        file.mkdir()
    else:
        file.symlink_to(outside / ("target" if trap == "live" else "missing"))
    assert renamed(alice).path == ("db.dump",)
    assert renamed(alice, content=b"two").path == ("db.1.dump",)
    assert (outside / "target").read_bytes() == b"precious"
    assert not (outside / "missing").exists()


def test_fifo_in_place_of_a_kept_file_stops_nothing(storage: Storage, alice: UserFolder, place: Path) -> None:
    cut(alice)
    name = bytes_of(place)
    name.unlink()
    os.mkfifo(name)
    assert refuse(alice, announced()) is Code.STORAGE
    assert storage.sweep() == 0  # it is as young as a kept file
    old(place, 8)
    assert storage.sweep() == 1
    begin(alice).discard()
