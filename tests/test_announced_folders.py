"""Folders that are announced: made at once, flushed with the group that they came among, answered only then."""

import contextlib
import errno
import os
from pathlib import Path

import pytest
from transfers import Receiving, Told, folder_item, item, send, written

from sft.common.errors import Code, Refused
from sft.disk.new_folders import MadeFolder
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled
from sft.disk.user_folder import UserFolder
from sft.transfer.events import Delivered
from sft.transfer.groups import make_folders
from sft.wire.workers import Engine


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inode of each folder that was flushed."""
    inodes: list[int] = []
    monkeypatch.setattr("sft.disk.folders.flush", lambda descriptor: inodes.append(os.fstat(descriptor).st_ino))
    return inodes


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be flushed."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sft.disk.folders.flush", fail)


def announced(*path: str, policy: str = "fail") -> Incoming:
    return Incoming(b"t" * 16, path, None, None, None, policy)


def begun(folder: UserFolder, *path: str, policy: str = "fail") -> MadeFolder:
    return folder.begin_folder(announced(*path, policy=policy))


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_folder_is_there_at_once_and_flushed_when_its_group_is_published(
    alice: UserFolder, home: Path, flushed: list[int], policy: str
) -> None:
    made = begun(alice, "a", "b", policy=policy)
    assert (home / "a/b").is_dir()
    assert flushed == []
    assert alice.publish([made]) == [Settled(("a", "b"))]
    assert {home.stat().st_ino, (home / "a").stat().st_ino} <= set(flushed)


def test_folders_of_a_group_are_flushed_together(alice: UserFolder, flushed: list[int]) -> None:
    alice.publish([begun(alice, "one")])
    for_one, flushed[:] = len(flushed), []
    made = [begun(alice, f"{number}") for number in range(50)]
    assert alice.publish(made) == [Settled((f"{number}",)) for number in range(50)]
    assert len(flushed) == for_one


def test_folders_that_a_fetch_needs_are_flushed_together(alice: UserFolder, home: Path, flushed: list[int]) -> None:
    make_folders(alice, [announced("one")])
    for_one, flushed[:] = len(flushed), []
    make_folders(alice, [announced("one"), announced(".."), *(announced(f"{number}") for number in range(50))])
    assert len(list(home.iterdir())) == 51
    assert len(flushed) == for_one


def test_folders_that_a_fetch_needs_and_that_can_not_be_made_are_told(alice: UserFolder, home: Path) -> None:
    os.mkfifo(home / "b")
    failed = make_folders(alice, [announced("a"), announced("b"), announced("c")])
    assert [(path, problem.code) for path, problem in failed] == [(("b",), Code.NOT_FOLDER)]
    assert (home / "a").is_dir() and (home / "c").is_dir()


def test_folders_that_a_fetch_needs_and_that_can_not_be_flushed_are_told(alice: UserFolder, broken: None) -> None:
    assert [path for path, _ in make_folders(alice, [announced("a"), announced("b")])] == [("a",), ("b",)]


def test_folder_that_can_not_be_flushed_is_refused(alice: UserFolder, broken: None) -> None:
    (outcome,) = alice.publish([begun(alice, "a")])
    assert isinstance(outcome, Refused)


def test_folder_that_another_connection_made_and_did_not_flush_is_flushed(
    storage: Storage, home: Path, flushed: list[int]
) -> None:
    with contextlib.closing(storage.user("alice")) as first, contextlib.closing(storage.user("alice")) as second:
        begun(first, "a", "b")
        flushed.clear()
        assert second.publish([begun(second, "a", "b")]) == [Settled(("a", "b"))]
        assert {home.stat().st_ino, (home / "a").stat().st_ino} <= set(flushed)


def test_folder_that_a_broken_connection_left_without_a_flush_is_flushed(
    storage: Storage, home: Path, flushed: list[int]
) -> None:
    with contextlib.closing(storage.user("alice")) as broken:
        made = begun(broken, "a")
        assert made.keep()
        made.discard()
    flushed.clear()
    with contextlib.closing(storage.user("alice")) as again:
        again.publish([begun(again, "a")])
    assert home.stat().st_ino in flushed


def test_folder_that_is_left_unanswered_by_the_end_of_its_connection_stays(alice: UserFolder, home: Path) -> None:
    made = begun(alice, "a")
    assert made.keep()
    made.discard()
    assert (home / "a").is_dir()


def test_folder_that_is_sent_alone_is_flushed_before_its_receipt(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, at_receipt = list[tuple[int, bool]](), list[bool]()

    def note(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, (home / "d").exists()))

    def tell(event: object) -> None:
        if isinstance(event, Delivered):
            at_receipt.append((home.stat().st_ino, True) in flushed)

    monkeypatch.setattr("sft.disk.folders.flush", note)
    receiving = Receiving(storage, engine)
    send(receiving, [folder_item("d")], tell)  # type: ignore[arg-type]
    assert receiving.problem is None
    assert at_receipt == [True]


def test_folders_and_files_of_a_tree_are_all_answered(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    source, told = written(here / "a", b"12345"), Told()
    receiving = Receiving(storage, engine)
    tree = [folder_item("d"), item(source, "d", "x"), folder_item("d", "e"), item(source, "d", "e", "x")]
    send(receiving, tree, told)
    assert receiving.problem is None
    assert told.outcomes() == {"d": "folder", "d/x": "stored", "d/e": "folder", "d/e/x": "stored"}


def test_sender_hears_of_a_folder_that_could_not_be_flushed(storage: Storage, engine: Engine, broken: None) -> None:
    told = Told()
    receiving = Receiving(storage, engine)
    send(receiving, [folder_item("d")], told)
    assert receiving.problem is None
    assert told.receipts == {}
    ((_, problem),) = told.problems.items()
    assert isinstance(problem, Refused)
    assert problem.code in {Code.STORAGE, Code.UNAVAILABLE}
