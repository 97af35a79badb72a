"""Files that hold another amount than their file system says go as streams of unknown length, sent and fetched."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Client, Server, content
from source_files import open_source
from transfers import Receiving, Told, fetch, item, send, written

from sft.common.errors import SourceError
from sft.disk.sources import FileSource, Source
from sft.disk.storage import Storage
from sft.disk.user_folder import UserFolder
from sft.transfer.items import Item
from sft.wire.workers import Engine

LIMIT = 65_536
PROC = "/proc/version"

needs_proc = pytest.mark.skipif(not os.path.exists(PROC), reason="this system has no /proc")


def lying(path: Path, claimed: int, before_reading: Callable[[], object] = lambda: None) -> Callable[[], Source]:
    """Opens a file of which the file system says that it has `claimed` bytes."""

    def open_it() -> Source:
        source = open_source(path)
        source.size = claimed
        before_reading()
        return source

    return open_it


@pytest.mark.parametrize(
    ("claimed", "actual"),
    [(0, 1), (0, 300_000), (4096, 2), (4096, 0), (100, 101), (LIMIT, LIMIT + 1), (LIMIT + 1, LIMIT)]
    + [(100_000, 300_000), (100_000, 100_001), (3_000_000, 70_000), (100_000, 0), (1 << 20, (1 << 20) + 1)],
)
def test_file_of_another_size_arrives_whole(
    storage: Storage, engine: Engine, tmp_path: Path, claimed: int, actual: int
) -> None:
    source, told, receiving = written(tmp_path / "source", content(actual)), Told(), Receiving(storage, engine)
    one = Item("source", ("out",), "fail", lying(source, claimed))
    send(receiving, [one], told)
    assert told.problems == {}
    assert told.receipts[one].size == actual
    assert (tmp_path / "received/alice/out").read_bytes() == source.read_bytes()
    assert receiving.taken.sizes["out"] is None


def test_many_of_them_go_among_files_whose_size_is_true(storage: Storage, engine: Engine, tmp_path: Path) -> None:
    told, items = Told(), []
    for number in range(150):
        source = written(tmp_path / f"s{number}", content(number * 997))
        claimed = [number * 997, 0, 4096, 100_000][number % 4]
        items.append(Item(f"s{number}", (f"s{number}",), "fail", lying(source, claimed)))
    send(Receiving(storage, engine), items, told)
    assert told.problems == {}
    for number in range(150):
        assert (tmp_path / f"received/alice/s{number}").read_bytes() == (tmp_path / f"s{number}").read_bytes()


def test_file_that_is_asked_for_more_than_it_has_arrives_whole(
    storage: Storage, engine: Engine, tmp_path: Path
) -> None:
    """A file of the claimed size is there already, and the digest of so many bytes is wanted."""
    written(tmp_path / "received/alice/out", content(900_000))
    shorter, told = written(tmp_path / "shorter", content(100_000)), Told()
    one = Item("shorter", ("out",), "replace", lying(shorter, 900_000))
    send(Receiving(storage, engine), [one], told)
    assert told.problems == {}
    assert (tmp_path / "received/alice/out").read_bytes() == shorter.read_bytes()


@pytest.mark.parametrize("size", [100, 100_000])
def test_file_that_grows_is_sent_as_it_was_when_it_was_opened(
    storage: Storage, engine: Engine, tmp_path: Path, size: int
) -> None:
    source, told = written(tmp_path / "source", content(size)), Told()

    def grow() -> None:
        with source.open("ab") as file:
            file.write(b"more")

    before = source.read_bytes()
    one = Item("source", ("out",), "fail", lying(source, size, grow))
    send(Receiving(storage, engine), [one], told)
    assert told.problems == {} and told.grown == [one]
    assert (tmp_path / "received/alice/out").read_bytes() == before


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("how", ["written anew", "shrunk", "changed in place"])
def test_file_that_changes_otherwise_while_it_is_sent_is_not_delivered(
    storage: Storage, engine: Engine, tmp_path: Path, size: int, how: str
) -> None:
    source, told = written(tmp_path / "source", content(size)), Told()

    class Changing(FileSource):
        """Changes once most of it was read; what is written anew is larger, and looks like a log that has grown."""

        def has_grown(self) -> bool:
            if how == "written anew":
                source.write_bytes(bytes(size) + b"more")
            elif how == "shrunk":
                os.truncate(source, size - 1)
            else:
                os.utime(source, ns=(0, 0))
            return super().has_grown()

    one = Item("source", ("out",), "fail", lambda: Changing("source", os.open(source, os.O_RDONLY)))
    send(Receiving(storage, engine), [one], told)
    assert isinstance(told.problems[one], SourceError) and "changed" in told.problems[one].cause
    assert not (tmp_path / "received/alice/out").exists()


@needs_proc
def test_content_of_proc_and_sys_arrives(server: Server, client: Client, box: str) -> None:
    named = [
        PROC,
        "/proc/sys/fs/inotify",
        *(path for path in ["/sys/devices/system/cpu/online"] if os.path.exists(path)),
    ]
    done = client(*named, f"{box}/")
    assert (done.status, done.err) == (0, "")
    for path in (PROC, "/proc/sys/fs/inotify/max_user_watches", *named[2:]):
        arrived = server.path(box, path.removeprefix("/proc/sys/fs/").rpartition("/")[2])
        if not arrived.exists():
            arrived = server.path(box, "inotify", os.path.basename(path))
        assert arrived.read_bytes() == Path(path).read_bytes() != b""


@needs_proc
def test_content_of_proc_below_a_storage_can_be_fetched(
    storage: Storage, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a file system like /proc mounted there."""
    written(tmp_path / "received/alice/there", b"")

    def open_other(folder: UserFolder) -> UserFolder:
        monkeypatch.setattr(folder.visible, "open_file", lambda path: os.open(PROC, os.O_RDONLY))
        return folder

    noted = fetch(Receiving(storage, engine, around=open_other), ["there"], tmp_path / "here/")
    assert noted.problems == []
    assert (tmp_path / "here").read_bytes() == Path(PROC).read_bytes()


def test_true_size_is_announced(storage: Storage, engine: Engine, tmp_path: Path) -> None:
    told, receiving = Told(), Receiving(storage, engine)
    send(receiving, [item(written(tmp_path / f"{size}", content(size))) for size in (0, 5, LIMIT, LIMIT + 1)], told)
    assert receiving.taken.sizes == {"0": 0, "5": 5, str(LIMIT): LIMIT, str(LIMIT + 1): LIMIT + 1}
