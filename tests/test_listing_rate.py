"""Large and deep folders cost what they are long and deep, however they are asked for and written to."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_folders import make_folder

from sft.common.errors import ConnectionTrouble
from sft.common.rate_limit import RateLimiter
from sft.disk.amounts import NO_QUOTA, Amount, Quota
from sft.disk.durable import FileSystem
from sft.disk.listing_rate import ListingRate
from sft.disk.measuring import measure
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder
from sft.server.listings import Listings
from sft.wire.messages import Entries, ListFolder, Message, decode_message
from sft.wire.tree_messages import Branch, Tree


class Clock:
    """Time that passes when somebody works or waits."""

    def __init__(self) -> None:
        self.now = self.used = 100.0
        self.waited = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds

    def work(self, seconds: float) -> str:
        self.now += seconds
        self.used += seconds
        return "names"

    def readings(self) -> ListingRate:
        return ListingRate(lambda: self.now, lambda: self.used, self.wait)


def nothing() -> None:
    pass


def test_reading_takes_a_fifth_of_the_time_at_most() -> None:
    clock = Clock()
    readings, start = clock.readings(), clock.now
    for _ in range(100):
        assert readings.read(lambda: clock.work(0.25), nothing) == "names"
    assert clock.used - 100 == 25 and 0.18 < 25 / (clock.now - start) < 0.21


def test_first_readings_after_a_while_wait_for_nothing() -> None:
    clock = Clock()
    readings = clock.readings()
    for _ in range(2):
        clock.now += 60
        for _ in range(8):  # many small folders
            readings.read(lambda: clock.work(0.05), nothing)
    assert clock.waited == 0


def test_failed_reading_counts_and_connection_that_ended_waits_no_longer() -> None:
    clock = Clock()
    readings = clock.readings()

    def fail() -> str:
        clock.work(10)
        raise OSError

    def ended() -> None:
        raise ConnectionTrouble("gone")

    with pytest.raises(OSError):
        readings.read(fail, nothing)
    with pytest.raises(ConnectionTrouble):
        readings.read(lambda: "names", ended)
    assert readings.read(lambda: "names", nothing) == "names" and clock.waited >= 30


def test_one_who_waits_behind_another_is_let_go_when_it_has_ended() -> None:
    readings, reading, go_on = ListingRate(), threading.Event(), threading.Event()

    def slow() -> str:
        reading.set()
        go_on.wait()
        return ""

    def ended() -> None:
        raise ConnectionTrouble("gone")

    thread = threading.Thread(target=lambda: readings.read(slow, nothing))
    thread.start()
    reading.wait()
    with pytest.raises(ConnectionTrouble):
        readings.read(lambda: "", ended)
    go_on.set()
    thread.join()


def test_connections_of_one_user_share_the_time(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "received", Rules())
    folders = [storage.user(name) for name in ("alice", "alice", "bob")]
    assert folders[0].listing_rate is folders[1].listing_rate is not folders[2].listing_rate
    for folder in folders:
        folder.close()
    storage.close()


def listings_of(folder: UserFolder) -> Listings:
    """Answers about it, without a connection."""
    channel: Any = SimpleNamespace(check=nothing)
    return Listings(channel, folder, lambda right: None, lambda *words: None, RateLimiter(None))


def message_of(whole: bytes) -> Message:
    return decode_message(whole[0], memoryview(whole)[5:])


def test_large_folder_is_read_once_for_all_its_pages(
    alice: UserFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:05}" for number in range(1201)]
    (tmp_path / "received/alice/many").mkdir()
    for name in names:
        os.close(os.open(tmp_path / "received/alice/many" / name, os.O_CREAT, 0o600))
    listings = listings_of(alice)
    listed, calls = os.listdir, list[int]()

    def listdir(folder: int) -> list[str]:
        calls.append(folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    found: list[str] = []
    while len(found) < len(names):
        page = message_of(*listings.answer(ListFolder(1, ("many",), found[-1] if found else None)))
        assert isinstance(page, Entries)
        found += [entry.name for entry in page.entries]
        assert page.more is (len(found) < len(names))
    assert found == names and len(calls) == 1


def test_each_folder_of_a_tree_is_read_once_for_all_its_pages(
    alice: UserFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sft.server.listings.BRANCH_ENTRIES_LIMIT", 7)
    for number in range(40):
        place = tmp_path / "received/alice/many" / f"{number % 4}" / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").touch()
    listings, listed, calls = listings_of(alice), os.listdir, list[int]()

    def listdir(folder: int) -> list[str]:
        calls.append(folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    after: tuple[str, ...] = ()
    names, pages, more = 0, 0, True
    while more:
        page = message_of(*listings.answer(Tree(1, ("many",), after or None)))
        assert isinstance(page, Branch)
        for node in page.entries:
            after = (*after[: node.depth - 1], node.name)
        names, pages, more = names + len(page.entries), pages + 1, page.more
    assert (names, pages, len(calls)) == (4 + 12 + 40, 8 + 1, 1 + 4 + 12)


# --- deep folders -----------------------------------------------------------------------------------------------------

DEEP = ("d",) * 253


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many files and folders are opened."""
    calls: list[int] = []
    opened = os.open

    def open_it(*arguments: Any, **more: Any) -> int:
        calls.append(1)
        return opened(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_it)
        yield calls


@pytest.mark.parametrize("quota", [NO_QUOTA, Quota(1 << 40, 1 << 20)], ids=["", "quota"])
@pytest.mark.parametrize("is_flushed_at_once", [False, True])
def test_file_in_253_folders_costs_what_its_path_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: Quota, is_flushed_at_once: bool
) -> None:
    monkeypatch.setattr(FileSystem, "flush", lambda _: is_flushed_at_once)
    storage = Storage(tmp_path / "received", Rules())
    folder = storage.user("alice", quota=quota)
    with counted(monkeypatch) as calls:
        partial = folder.begin(Incoming(b"t" * 16, DEEP, 1, None, None, "fail"), False)
        assert isinstance(partial, TemporaryFile)
        partial.write(memoryview(b"x"))
        partial.sha256 = hashlib.sha256(b"x").digest()
        assert isinstance(folder.publish([partial])[0], Settled)
    assert len(calls) < 8 * len(DEEP)
    with counted(monkeypatch) as calls:
        make_folder(folder, (*DEEP[:-1], "new"), None, None)
    assert len(calls) < 8 * len(DEEP)
    with counted(monkeypatch) as calls:
        assert measure(folder.visible.descriptor) == Amount(1, len(DEEP) + 1)
    assert len(calls) <= 2 * (len(DEEP) + 1), "down once, and up once"
    folder.close()
    storage.close()


def test_all_folders_on_the_way_are_flushed_once_and_what_fails_fails_what_is_below(
    alice: UserFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, root = tmp_path / "received/alice", tmp_path / "received"
    for path in ("a/b/c", "a/bb", "z"):
        (home / path).mkdir(parents=True)
    flushed: list[str] = []
    bad: set[str] = set()

    def flush(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{root}").lstrip("/")
        flushed.append(path)
        if path in bad:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("sft.disk.folders.flush", flush)
    paths = {("a", "b", "c"), ("a", "b"), ("a", "bb"), ("z",)}
    assert alice.flush.flush(paths) == {}
    assert sorted(flushed) == ["", "alice", "alice/a", "alice/a/b", "alice/a/b/c", "alice/a/bb", "alice/z"]
    for bad_one, failed in {
        "alice/a/b": {("a", "b"), ("a", "b", "c")},
        "alice/a": {("a", "b"), ("a", "b", "c"), ("a", "bb")},
        "alice/z": {("z",)},
        "alice": paths,
        "": paths,
    }.items():
        bad, flushed[:] = {bad_one}, []
        assert set(alice.flush.flush(paths)) == failed
        assert flushed.count(bad_one) == 1
    bad.clear()
    (home / "z").rmdir()
    assert set(alice.flush.flush(paths)) == {("z",)}
