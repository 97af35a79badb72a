"""Folders with their times, and pipes, whose size nobody knows in advance."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data
from transfers import LARGE, Receiving, Told, folder_item, item, on_disk, put, send, written

from crypto_utils import digest
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Refused,
)
from sft.disk.sources import PipeSource
from sft.disk.storage import Storage
from sft.transfer.items import Item
from sft.wire.messages import (
    Accept,
    PolicyWord,
)
from sft.wire.protocol import DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def test_folders_arrive_with_their_times_also_empty_ones(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    """What lands in a folder changes its time; so the times are set at the end, the deepest first."""
    old, older, oldest = 1_500_000_000_123_456_789, 1_400_000_000_000_000_001, 1_300_000_000_000_000_000
    items = [
        folder_item("top", mtime=old, mode=0o750),
        folder_item("top", "empty", mtime=older, mode=0o700),
        folder_item("top", "full", mtime=oldest),
        item(written(here / "a", b"a"), "top", "full", "a"),
        item(written(here / "b", os.urandom(LARGE)), "top", "full", "b"),
        item(written(here / "c", b"c"), "top", "c"),
    ]
    told, receiving = Told(), Receiving(storage, engine)
    send(receiving, items, told)
    assert receiving.problem is None
    assert told.outcomes() == {
        "top": "folder",
        "top/empty": "folder",
        "top/full": "folder",
        "top/full/a": "stored",
        "top/full/b": "stored",
        "top/c": "stored",
    }
    assert set(on_disk(home)) == {"top/full/a", "top/full/b", "top/c"}
    assert (home / "top/empty").is_dir()
    times = {name: (home / name).stat().st_mtime_ns for name in ("top", "top/empty", "top/full")}
    assert times == {"top": old, "top/empty": older, "top/full": oldest}
    assert (home / "top/empty").stat().st_mode & 0o077 == 0


def test_folder_that_is_there_is_merged(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    written(home / "box/old", b"old")
    told = Told()
    items = [folder_item("box", mode=0o500), item(written(here / "new", b"new"), "box", "new")]
    mode = (home / "box").stat().st_mode
    send(Receiving(storage, engine), items, told)
    assert told.outcomes() == {"box": "folder", "box/new": "stored"}
    assert on_disk(home) == {"box/old": b"old", "box/new": b"new"}
    assert (home / "box").stat().st_mode == mode, "it was not ours to change"


def test_file_where_a_folder_should_be_and_the_other_way_round(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    written(home / "file", b"old")
    (home / "folder").mkdir()
    (home / "link").symlink_to("folder")
    source, large = written(here / "a", b"a"), written(here / "b", bytes(LARGE))
    items = [folder_item("file"), folder_item("file", "below"), folder_item("link"), folder_item("..", "x")]
    items += [item(source, "file", "a"), item(source, "folder"), item(large, "folder", policy="replace")]
    items += [item(source, "link", "a"), item(large, "link", "b"), item(source, "last")]
    told = Told()
    send(Receiving(storage, engine), items, told)
    codes = {each: problem.code for each, problem in told.problems.items() if isinstance(problem, Refused)}
    assert [codes.get(each) for each in items] == [
        *(Code.NOT_FOLDER, Code.NOT_FOLDER, Code.LINK, Code.NAME),
        *(Code.NOT_FOLDER, Code.IS_FOLDER, Code.IS_FOLDER, Code.LINK, Code.LINK),
        None,
    ]
    assert told.outcomes() == {"last": "stored"}
    assert on_disk(home) == {"file": b"old", "last": b"a"}
    assert set(told.ends.values()) == {1}


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[int]:
    """The reading end of a pipe into which another thread writes, in pieces of an odd size."""
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as file:
            for at in range(0, len(content), 50_001):
                file.write(content[at : at + 50_001])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join(30)


@pytest.mark.parametrize("size", [0, 1, LARGE, DATA_SIZE - 1, DATA_SIZE, DATA_SIZE + 1, 2 * DATA_SIZE, 3 * DATA_SIZE])
def test_pipe_of_any_length_arrives_whole(storage: Storage, engine: Engine, home: Path, size: int) -> None:
    content = os.urandom(size)
    told, receiving = Told(), Receiving(storage, engine)
    with piped(content) as reading:
        one = Item("standard input", ("box", "out"), "fail", lambda: PipeSource(reading))
        send(receiving, [one], told)
    assert told.outcomes() == {"box/out": "stored"}
    assert (told.receipts[one].size, told.receipts[one].sha256) == (size, digest(content))
    assert receiving.taken.sizes == {"box/out": None}
    assert on_disk(home) == {"box/out": content}


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_pipe_onto_a_name_that_is_taken(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: PolicyWord
) -> None:
    written(home / "out", b"old")
    content, told = os.urandom(DATA_SIZE), Told()
    with piped(content) as reading:
        one = Item("standard input", ("out",), policy, lambda: PipeSource(reading))
        send(Receiving(storage, engine), [one, item(written(here / "a", b"a"))], told)
    assert told.outcomes().pop("a") == "stored"
    found = on_disk(home)
    assert found.pop("a") == b"a"
    assert (
        found
        == {
            "fail": {"out": b"old"},
            "rename": {"out": b"old", "out.1": content},
            "replace": {"out": content},
            "skip": {"out": b"old"},
        }[policy]
    )


@pytest.mark.parametrize("count", [0, 5, DATA_SIZE, 2 * DATA_SIZE])
def test_cut_pipe_leaves_nothing(storage: Storage, engine: Engine, home: Path, count: int) -> None:
    """Nobody could go on with it."""
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "out", size=None).encode())
    assert raw.hear() == Accept(1, 0)
    for offset in range(0, count, DATA_SIZE):
        raw.say(data(1, offset, bytes(min(DATA_SIZE, count - offset))))
    raw.stop()
    raw.hear_all()
    raw.close()
    assert isinstance(receiving.finish(), ConnectionTrouble)
    assert receiving.taken.cut == {"out": (count, False)}
    assert on_disk(home) == {}
