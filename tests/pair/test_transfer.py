"""Sender and receiver against each other: every item ends in exactly one result, and nothing is left behind."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, check_nothing_is_left, data, end, tcp_pair
from processes import wait_until
from source_files import open_source
from transfers import (
    KEYS,
    LARGE,
    Hostile,
    Receiving,
    Taken,
    Told,
    anything,
    files_in,
    item,
    kept,
    kept_of,
    on_disk,
    path_of,
    put,
    send,
    written,
)

import sft.disk.publish
import sft.transfer.groups
import sft.transfer.sender
from crypto_utils import digest
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    ProtocolViolation,
    Refused,
    SourceError,
)
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import Source
from sft.disk.storage import Storage
from sft.server.requests import Requests
from sft.transfer.items import Item
from sft.wire.channel import Channel
from sft.wire.messages import BYE_MESSAGE, Bye, Cancel, Check, Receipt
from sft.wire.protocol import DATA_SIZE, UNASKED_LIMIT
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def test_many_small_and_some_large_files_all_arrive(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    contents = {f"d{number % 7}/{number}.txt": b"%d" % number * (number % 50) for number in range(1_000)}
    for number, size in enumerate((LARGE, DATA_SIZE, DATA_SIZE + 1, 3 * DATA_SIZE + 5, UNASKED_LIMIT, 9 * DATA_SIZE)):
        contents[f"large/{number}"] = os.urandom(size)
    items = [item(written(here / name, content), *name.split("/")) for name, content in contents.items()]
    told = Told()
    receiving = Receiving(storage, engine)
    send(receiving, items, told)
    assert receiving.problem is None
    assert on_disk(home) == contents
    assert told.problems == {}
    assert set(told.ends) == set(items)
    assert set(told.ends.values()) == {1}
    for each in items:
        receipt = told.receipts[each]
        assert (receipt.path, receipt.outcome, receipt.size) == (each.target, "stored", path_of(each).stat().st_size)
        assert receipt.sha256 == digest(contents["/".join(each.target)])
        assert told.digests.get(each) == (receipt.sha256 if receipt.size > UNASKED_LIMIT else None)
        assert told.bytes[each] == receipt.size


def test_more_large_files_than_are_announced_ahead_all_arrive(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    contents = {f"{number}": os.urandom(LARGE + number) for number in range(3 * sft.transfer.sender._WAITING_LARGE)}
    told = Told()
    send(Receiving(storage, engine), [item(written(here / name, text)) for name, text in contents.items()], told)
    assert on_disk(home) == contents
    assert len(told.receipts) == len(contents)


def test_connection_with_nothing_to_send_ends_well(storage: Storage, engine: Engine, home: Path) -> None:
    receiving = Receiving(storage, engine)
    send(receiving, [], Told())
    assert receiving.problem is None
    assert on_disk(home) == {}


def test_each_item_ends_in_exactly_one_verdict(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    big = os.urandom(3 * DATA_SIZE)
    for name in ("ok", "taken", "skipped", "replaced", "renamed", "grows"):
        written(here / name, name.encode())
    for name in ("ok-big", "taken-big", "shrinks-big", "grows-big", "vanishes-big", "evil-big"):
        written(here / name, big)
    written(here / "shrinks", b"x" * 1000)
    os.mkfifo(here / "fifo")
    for name in ("taken", "taken-big", "skipped", "replaced", "renamed"):
        written(home / name, b"old")

    def open_and_change(item: Item) -> Source:
        source = open_source(path_of(item))
        change(item)
        return source

    def change(item: Item) -> None:
        source = path_of(item)
        if source.name.startswith("shrinks"):
            os.truncate(source, source.stat().st_size // 2)
        elif source.name.startswith("grows"):
            with source.open("ab") as file:
                file.write(b"more")
        elif source.name.startswith("vanishes"):
            source.unlink()  # it is open already, and sent as it was

    items = [item(here / name) for name in ("missing", "fifo", "taken", "taken-big", "shrinks", "shrinks-big", "ok")]
    items += [item(here / name) for name in ("grows", "grows-big", "vanishes-big", "ok-big")]
    items += [item(here / "replaced", policy="replace"), item(here / "skipped", policy="skip")]
    items += [item(here / "renamed", policy="rename")]
    items += [item(here / "evil-big", "..", "evil"), item(here / "ok", "a", "..", "b"), item(here / "ok", "last")]
    for small in (each for each in items if each.name.endswith(("/shrinks", "/grows"))):
        small.open = partial(open_and_change, small)
    told = Told(change)
    receiving = Receiving(storage, engine)
    send(receiving, items, told)
    assert receiving.problem is None
    assert set(told.ends) == set(items)
    assert set(told.ends.values()) == {1}
    assert told.codes() == {
        "missing": SourceError,
        "fifo": SourceError,
        "taken": Code.EXISTS,
        "taken-big": Code.EXISTS,
        "shrinks": SourceError,
        "shrinks-big": SourceError,
        "../evil": Code.NAME,
        "a/../b": Code.NAME,
    }
    assert on_disk(home) == {
        "taken": b"old",
        "taken-big": b"old",
        "skipped": b"old",
        "replaced": b"replaced",
        "renamed": b"old",
        "renamed.1": b"renamed",
        "ok": b"ok",
        "ok-big": big,
        "grows": b"grows",  # as they were when they were opened
        "grows-big": big,
        "vanishes-big": big,
        "last": b"ok",
    }
    by_name = {"/".join(each.target): receipt for each, receipt in told.receipts.items()}
    assert (by_name["skipped"].outcome, by_name["skipped"].sha256) == ("skipped", None)
    assert by_name["renamed"].path == ("renamed.1",)


def test_folder_as_a_source_fails_alone(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    (here / "folder").mkdir()
    told = Told()
    send(Receiving(storage, engine), [item(here / "folder"), item(written(here / "a", b"a"))], told)
    assert told.codes() == {"folder": SourceError}
    assert on_disk(home) == {"a": b"a"}


@pytest.mark.parametrize(
    "target",
    [("x" * 255,) * 255, ("x" * 255,) * 16 + ("y",), ("\ud800",), ('"' * 255,) * 128],
    ids=["long", "a byte too long", "lone surrogate", "quotes"],
)
def test_target_that_no_message_can_carry_fails_alone(
    storage: Storage, engine: Engine, here: Path, home: Path, target: tuple[str, ...]
) -> None:
    told = Told()
    source = written(here / "a", b"a")
    send(Receiving(storage, engine), [item(source, "first"), item(source, *target), item(source, "last")], told)
    assert list(told.codes().values()) == [Code.NAME]
    assert on_disk(home) == {"first": b"a", "last": b"a"}


def test_no_descriptor_is_left_open(storage: Storage, engine: Engine, here: Path) -> None:
    written(here / "a", b"a")
    written(here / "b", bytes(LARGE))

    def once(number: int) -> None:
        items = [
            item(here / "a", f"a{number}"),
            item(here / "b", f"b{number}"),
            item(here / "b", ".."),
            item(here / "x"),
        ]
        send(Receiving(storage, engine), items, Told())

    once(0)
    before = len(os.listdir("/dev/fd"))
    for number in range(1, 4):
        once(number)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("surprise", [RuntimeError("a bug"), MemoryError()], ids=repr)
@pytest.mark.parametrize("where", ["sft.disk.publish.flush_all", "sft.disk.publish.Publisher._publish_one"])
def test_surprise_while_a_group_is_published_leaves_no_descriptor_open(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, where: str, surprise: Exception
) -> None:
    def fail(*_: object) -> None:
        raise surprise

    monkeypatch.setattr(where, fail)
    before = len(os.listdir("/dev/fd"))
    near, far = tcp_pair()
    raw, channel, folder = Raw(near, C2S, S2C), Channel(far, S2C, C2S, engine), storage.user("alice")
    said: list[bytes] = []  # in one record: between two, the receiver may publish what it has so far
    for number, size in enumerate((5, LARGE, None), 1):
        announced, content = put(number, f"{number}", size=size), bytes(size or 7)
        said += [announced.encode(), data(number, 0, content), end(announced, content).encode()]
    raw.say(*said)
    with pytest.raises(type(surprise)):
        Requests(channel, KEYS, folder, anything, lambda *_: None, RateLimiter(None)).run(Taken(), lambda event: None)
    folder.close()
    raw.close()
    channel.close()
    check_nothing_is_left(engine, channel)
    assert len(os.listdir("/dev/fd")) == before
    assert files_in(home) == {} and kept_of(home) == [LARGE]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sft.transfer.groups, "_GROUP_FILES", 10)
    return 10


class Flushing:
    """Flushes of groups that last until they may end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_end, self.begun, self.sound = threading.Event(), 0, 0
        monkeypatch.setattr(sft.disk.publish, "flush_all", self._flush)

    def _flush(self, descriptors: list[int], file_system: object) -> Iterator[None]:
        self.begun += 1
        assert self.may_end.wait(30)
        for descriptor in descriptors:
            os.fstat(descriptor)
        self.sound += 1
        return iter([None] * len(descriptors))


def test_next_files_arrive_while_a_group_is_flushed_and_nothing_is_visible_before(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, small_groups: int
) -> None:
    flushing, hostile, count = Flushing(monkeypatch), Hostile(storage, engine, good=False), 3 * small_groups
    said: list[bytes] = []
    for number in range(1, count + 1):  # in one record: between two of them what is there so far may be published
        announced = put(number, f"{number}")
        said += [announced.encode(), data(number, 0, b"hello"), end(announced, b"hello").encode()]
    hostile.raw.say(*said, BYE_MESSAGE)
    wait_until(lambda: len(hostile.receiving.taken.sizes) == 2 * small_groups)
    assert flushing.begun >= 1
    assert (files_in(home), hostile.receiving.taken.receipts) == ({}, {})
    flushing.may_end.set()
    heard, problem = hostile.finish()
    assert problem is None and isinstance(heard.pop(), Bye)
    assert [type(each) for each in heard] == [Receipt] * count == [Receipt] * len(files_in(home))


def break_protocol_in_one_record(storage: Storage, engine: Engine, *messages: bytes) -> None:
    """Between two records the receiver may publish what it has so far, so there is one only."""
    near, far = tcp_pair()
    raw, channel, folder = Raw(near, C2S, S2C), Channel(far, S2C, C2S, engine), storage.user("alice")
    raw.say(*messages)
    with pytest.raises(ProtocolViolation):
        Requests(channel, KEYS, folder, anything, lambda *_: None, RateLimiter(None)).run(Taken(), lambda event: None)
    folder.close()
    raw.close()
    channel.close()
    check_nothing_is_left(engine, channel)


def test_connection_that_ends_while_a_group_is_flushed_leaves_nothing(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, small_groups: int
) -> None:
    flushing = Flushing(monkeypatch)
    before = len(os.listdir("/dev/fd"))
    said: list[bytes] = []
    for number in range(1, small_groups + 4):
        announced = put(number, f"{number}")
        said += [announced.encode(), data(number, 0, b"hello"), end(announced, b"hello").encode()]
    release = threading.Timer(0.1, flushing.may_end.set)
    release.start()
    break_protocol_in_one_record(storage, engine, *said, Cancel(1).encode())
    release.join()
    assert (flushing.begun, flushing.sound) == (1, 1)
    assert len(os.listdir("/dev/fd")) == before
    assert files_in(home) == {} and kept_of(home) == []


def test_content_of_a_large_file_does_not_hold_up_a_group_that_is_flushed(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, small_groups: int
) -> None:
    class AtOnce:
        def __init__(self, name: str, work: Callable[[], None]) -> None:
            work()

        def wait(self) -> bool:
            return True

    monkeypatch.setattr(sft.disk.publish, "BackgroundTask", AtOnce)
    said: list[bytes] = []
    for number in range(1, small_groups + 1):
        announced = put(number, f"{number}")
        said += [announced.encode(), data(number, 0, b"hello"), end(announced, b"hello").encode()]
    said += [put(20, "large", size=3 * DATA_SIZE).encode(), data(20, 0, bytes(DATA_SIZE)), Cancel(1).encode()]
    break_protocol_in_one_record(storage, engine, *said)
    assert len(files_in(home)) == small_groups


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No thread is started to compare files; the names of those that were wanted."""
    start, wanted = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("checking"):
            wanted.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return wanted


def test_files_are_compared_and_resumed_without_a_thread_for_it(
    storage: Storage, engine: Engine, here: Path, home: Path, unstarted: list[str]
) -> None:
    contents = {name: os.urandom(LARGE) for name in ("same", "other", "new", "kept")}
    written(home / "same", contents["same"])
    written(home / "other", bytes(LARGE))
    kept(storage, engine, put(1, "kept", size=LARGE), contents["kept"][:1000])
    told, before = Told(), len(os.listdir("/dev/fd"))
    items = {name: item(written(here / name, content), name) for name, content in contents.items()}
    send(Receiving(storage, engine), list(items.values()), told)
    assert unstarted
    assert {name: told.receipts[each].outcome for name, each in items.items() if each in told.receipts} == {
        "same": "already",
        "new": "stored",
        "kept": "stored",
    }
    assert isinstance(refused := told.problems[items["other"]], Refused) and refused.code is Code.EXISTS
    assert told.offsets == {items["kept"]: 1000}
    assert on_disk(home) == contents | {"other": bytes(LARGE)}
    assert len(os.listdir("/dev/fd")) == before


def test_file_that_waits_to_be_compared_is_closed_with_its_connection(
    storage: Storage, engine: Engine, home: Path, unstarted: list[str]
) -> None:
    written(home / "a", bytes(LARGE))
    written(home / "b", bytes(LARGE))
    before = len(os.listdir("/dev/fd"))
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "a", size=LARGE).encode(), put(2, "b", size=LARGE).encode(), Cancel(2).encode())
    assert raw.hear() == Check(1, LARGE, None)
    raw.close()
    assert isinstance(receiving.finish(), ConnectionTrouble)
    assert unstarted and len(os.listdir("/dev/fd")) == before
