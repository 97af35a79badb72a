"""A fetch that compares first, over as many connections as it takes: what it asks for, and how much of it at a time."""

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from noted import Noted
from peers import C2S, S2C
from transfers import KEYS, Receiving, files_in, written

import sft.client.rounds
from sft.client.comparisons import Comparisons
from sft.client.download import Download
from sft.client.local_tree import LocalEntries
from sft.common.errors import Code, Refused, SourceError
from sft.disk.local import open_local
from sft.disk.storage import Storage
from sft.disk.tree_walk import TreeWalk
from sft.disk.user_folder import Rules, UserFolder
from sft.disk.visible_files import VisibleFiles
from sft.wire.channel import Channel
from sft.wire.messages import Get
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

TREE = {f"d{number % 3}/{number:02}": b"%d" % number for number in range(20)} | {"big": bytes(100_000)}


@pytest.fixture
def there(home: Path) -> Path:
    for name, content in TREE.items():
        written(home / "in" / name, content)
    return home / "in"


@pytest.fixture
def folder(into: Path) -> Iterator[UserFolder]:
    into.mkdir(exist_ok=True)
    opened = open_local(into, Rules())
    yield opened
    opened.close()


class Update:
    """One run of the client."""

    def __init__(self, into: Path, folder: UserFolder, removes: bool = False, *names: str) -> None:
        self.reporter = Noted()
        self.folder = folder
        self.download = Download(self.reporter, "replace", True, list(names) or ["in"], f"{into}/")
        options = {"update": True, "delete": removes, "max_delete": "100", "no_modes": False}
        left_out: dict[str, list[str]] = {"exclude": [], "exclude_from": []}
        Comparisons(self.reporter, Namespace(**options, **left_out, receipts=None), None).begin(self.download, folder)
        self.asked: list[list[Get]] = []  # in each connection

    def connect(self, storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        """One connection."""
        asked: list[Get] = []
        self.asked.append(asked)
        encode = Get.encode

        def note(get: Any) -> bytes:
            asked.append(get)
            return encode(get)

        monkeypatch.setattr(Get, "encode", note)
        receiving = Receiving(storage, engine)
        channel = Channel(receiving.near, C2S, S2C, engine)
        try:
            remembering = self.download.remembering(self.folder)
            self.download.fetch(remembering, channel, KEYS, None, "off", self.folder.visible)
        finally:
            channel.close()
            monkeypatch.setattr(Get, "encode", encode)
        assert receiving.finish() is None


def run(update: Update, storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    update.connect(storage, engine, monkeypatch)
    while not update.download.is_done or update.download.remove_extra():
        update.connect(storage, engine, monkeypatch)


def paths(gets: list[Get]) -> list[str]:
    return ["/".join(get.path) for get in gets]


def test_what_is_not_here_is_asked_for_as_a_whole(
    storage: Storage, engine: Engine, there: Path, into: Path, folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Update(into, folder)
    run(update, storage, engine, monkeypatch)
    assert [paths(each) for each in update.asked] == [["in"]]
    assert files_in(into / "in") == TREE


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_each_connection_asks_for_so_much_and_the_next_goes_on(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    folder: UserFolder,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    run(Update(into, folder), storage, engine, monkeypatch)
    for name in TREE:
        written(there / name, TREE[name] + b"more")
    (there / "d1" / "new").mkdir()
    written(there / "d1/new/x", b"x")
    (into / "in/d0/mine").write_bytes(b"mine")
    os.utime(there / "d2", ns=(0, 5_000_000_000))
    monkeypatch.setattr(sft.client.rounds, "_MOST_ASKED", most)
    update = Update(into, folder, removes=True)
    run(update, storage, engine, monkeypatch)
    assert all(len(each) <= most for each in update.asked)
    expected = sorted([f"in/{name}" for name in TREE] + ["in/d1/new"])
    assert sorted(name for each in update.asked for name in paths(each)) == expected
    assert all(get.depth == len(get.path) and not get.offers for each in update.asked for get in each)
    assert files_in(into / "in") == files_in(there)
    times = {path.name: path.stat().st_mtime_ns for path in there.iterdir() if path.is_dir()}
    assert {path.name: path.stat().st_mtime_ns for path in (into / "in").iterdir() if path.is_dir()} == times
    again = Update(into, folder, removes=True)
    run(again, storage, engine, monkeypatch)
    assert again.asked == [[]]


def test_file_of_another_time_is_offered_and_gets_its_time(
    storage: Storage, engine: Engine, there: Path, into: Path, folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Update(into, folder), storage, engine, monkeypatch)
    before = (into / "in/d0/00").stat().st_ino, (into / "in/big").stat().st_ino
    for name in ("d0/00", "big"):
        os.utime(there / name, ns=(0, 7_000_000_000))
    update = Update(into, folder)
    run(update, storage, engine, monkeypatch)
    assert [(path, get.offers) for each in update.asked for path, get in zip(paths(each), each, strict=True)] == [
        ("in/big", True),
        ("in/d0/00", True),
    ]
    assert ((into / "in/d0/00").stat().st_ino, (into / "in/big").stat().st_ino) == before
    assert [(into / "in" / name).stat().st_mtime_ns for name in ("d0/00", "big")] == [7_000_000_000] * 2


def test_disk_here_that_can_not_be_read_is_not_blamed_on_the_receiver(
    folder: UserFolder, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(into / "a", b"")

    def fail(_: TreeWalk) -> None:
        raise Refused(Code.UNAVAILABLE, why="Input/output error")

    entries = LocalEntries(folder.visible, ())
    monkeypatch.setattr(TreeWalk, "next", fail)
    with pytest.raises(SourceError, match="nothing can be read here"):
        next(entries)
    entries.pause()


def test_nothing_is_asked_where_everything_is_the_same(
    storage: Storage, engine: Engine, there: Path, into: Path, folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Update(into, folder), storage, engine, monkeypatch)
    opened: list[object] = []
    monkeypatch.setattr(VisibleFiles, "open_file", lambda *path: opened.append(path))
    update = Update(into, folder, removes=True)
    run(update, storage, engine, monkeypatch)
    assert update.asked == [[]] and opened == []


@pytest.mark.parametrize("most", [1, 2, 100])
def test_each_name_is_asked_for_once_in_whichever_connection(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    folder: UserFolder,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    """What is not there is asked for, too, and refused."""
    monkeypatch.setattr(sft.client.rounds, "_MOST_ASKED", most)
    update = Update(into, folder, False, "no", "in/d0/00", "in/d1", "nothing", "in/big")
    run(update, storage, engine, monkeypatch)
    asked = [name for each in update.asked for name in paths(each)]
    assert asked == ["no", "in/d0/00", "in/d1", "nothing", "in/big"]
    assert [name for name, _ in update.reporter.problems] == ["no", "nothing"]


@pytest.mark.parametrize("removes", [False, True])
def test_folder_in_the_way_of_a_file_is_replaced_together_with_what_is_in_it_or_stays(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    folder: UserFolder,
    monkeypatch: pytest.MonkeyPatch,
    removes: bool,
) -> None:
    written(into / "in/big/mine", b"mine")
    update = Update(into, folder, removes=removes)
    run(update, storage, engine, monkeypatch)
    assert [name for name, _ in update.reporter.problems] == ([] if removes else ["in/big"])
    if removes:
        assert files_in(into / "in") == TREE
        assert paths(update.asked[-1]) == ["in/big"] and len(update.asked) == 2
    else:
        assert (into / "in/big/mine").read_bytes() == b"mine"


def test_link_that_leads_elsewhere_by_now_is_not_removed(
    storage: Storage, engine: Engine, there: Path, into: Path, folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (into / "in").mkdir()
    for name in ("changed", "same"):
        (into / "in" / name).symlink_to("before")
    update = Update(into, folder, removes=True)
    update.connect(storage, engine, monkeypatch)
    (into / "in/changed").unlink()
    (into / "in/changed").symlink_to("after")
    update.download.remove_extra()
    assert os.readlink(into / "in/changed") == "after" and not (into / "in/same").is_symlink()
    assert [name for name, _ in update.reporter.problems] == [str(into / "in/changed")]


@pytest.mark.parametrize("change", ["grown", "written again", "a folder"])
def test_what_changed_since_it_was_compared_is_not_removed(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    folder: UserFolder,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    mine, other = into / "in/mine/x", into / "in/other"
    written(mine, b"mine"), written(other, b"other")
    update = Update(into, folder, removes=True)
    update.connect(storage, engine, monkeypatch)
    before = mine.stat()
    if change == "grown":
        mine.write_bytes(b"mine, and more")
        os.utime(mine, ns=(0, before.st_mtime_ns))
    elif change == "written again":
        os.utime(mine, ns=(0, before.st_mtime_ns + 1))
    else:
        mine.unlink()
        mine.mkdir()
    update.download.remove_extra()
    assert mine.exists() and not other.exists()
    [(name, problem)] = update.reporter.problems
    assert name == str(mine) and problem.exit_status == 1
    assert problem.cause == f"{mine} was not removed: it has changed since it was compared"
