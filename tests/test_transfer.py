"""Sender and Receiver against each other over real sockets and a real disk, and each against a peer that lies."""

import contextlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from peers import C2S, FILE_SECRET, MEMORY, S2C, Raw, check_nothing_is_left, close_all, data, end, no_hang, tcp_pair
from processes import wait_until

import sft.common.names
import sft.disk.commit
import sft.server.requests
import sft.transfer.receiver
import sft.transfer.sender
import sft.wire.channel
import sft.wire.protocol
from crypto_utils import digest
from sft.client.plans import Fetching
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    IntegrityError,
    PeerStopped,
    ProtocolViolation,
    Refused,
    SourceError,
    TransferError,
)
from sft.common.rate_limit import Pace
from sft.console.log import no_log
from sft.console.report import Reporter, show_path
from sft.disk.folders import Twin
from sft.disk.local import close_local, open_local
from sft.disk.partials import Partial, Published
from sft.disk.root import PARTIAL_AREA
from sft.disk.sources import FileSource, PipeSource
from sft.disk.stdout import Stream
from sft.disk.storage import Rules, Storage, UserFolder
from sft.server.requests import Requests
from sft.transfer.items import Item
from sft.transfer.receiver import Receiver
from sft.transfer.sender import Sender
from sft.wire.channel import Channel
from sft.wire.handshake import SessionKeys
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    Data,
    End,
    Entries,
    Entry,
    Error,
    Get,
    Kind,
    ListFolder,
    Message,
    Misnamed,
    Omitted,
    Put,
    Receipt,
    Refuse,
    encode_message,
)
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE, MAX_ID, UNASKED_LIMIT
from sft.wire.workers import Engine

LARGE = UNASKED_LIMIT + 1
KEYS = SessionKeys(C2S, S2C, FILE_SECRET, FILE_SECRET)
Admit = Callable[[str], None]


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    with no_hang(60):
        yield


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path / "received", Rules(max_file_size=1 << 62))
    yield storage
    storage.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(MEMORY)
    yield engine
    engine.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where what alice sends becomes visible."""
    return tmp_path / "received/alice"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where what is sent lies."""
    place = tmp_path / "here"
    place.mkdir()
    return place


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept_of(home: Path) -> list[int]:
    """The sizes of what is kept for another try, each with its journal beside it."""
    found = {path.name: path for path in (home.parent / PARTIAL_AREA).glob("*/*") if path.name != "receipts"}
    journals = {name.removesuffix(".journal") for name in found if name.endswith(".journal")}
    assert {name for name in found if not name.endswith(".journal")} == journals
    return sorted(found[name].stat().st_size for name in journals)


def on_disk(home: Path) -> dict[str, bytes]:
    """Every visible file with its content; and nothing may be left in the partial area."""
    assert kept_of(home) == []
    return files_in(home)


class Told:
    """Keeps what became of each item."""

    def __init__(
        self, hook: Callable[[Item], None] | None = None, on_progress: Callable[[int], None] | None = None
    ) -> None:
        self._hook, self._on_progress, self._lock = hook, on_progress, threading.Lock()
        self.ends: Counter[Item] = Counter()
        self.receipts: dict[Item, Receipt] = {}
        self.problems: dict[Item, TransferError] = {}
        self.digests: dict[Item, bytes] = {}
        self.bytes: Counter[Item] = Counter()
        self.hashed: Counter[Item] = Counter()
        self.offsets: dict[Item, int] = {}
        self.again: list[Item] = []
        self.clamped: list[Item] = []

    def started(self, item: Item, size: int | None) -> None:
        if self._hook is not None:
            self._hook(item)

    def checking(self, item: Item, count: int) -> None:
        self.hashed[item] += count

    def resumed(self, item: Item, offset: int) -> None:
        self.offsets[item] = offset

    def restarted(self, item: Item) -> None:
        self.again.append(item)

    def progress(self, item: Item, count: int) -> None:
        self.bytes[item] += count
        if self._on_progress is not None:
            self._on_progress(self.bytes.total())

    def sealed(self, item: Item, size: int, sha256: bytes) -> None:
        self.digests[item] = sha256

    def delivered(self, item: Item, receipt: Receipt) -> None:
        with self._lock:
            self.ends[item] += 1
            self.receipts[item] = receipt

    def failed(self, item: Item, problem: TransferError) -> None:
        with self._lock:
            self.ends[item] += 1
            self.problems[item] = problem

    def time_changed(self, item: Item) -> None:
        self.clamped.append(item)

    def pause(self) -> None:
        pass

    def codes(self) -> dict[str, Code | type[TransferError]]:
        return {
            "/".join(item.target): problem.code if isinstance(problem, Refused) else type(problem)
            for item, problem in self.problems.items()
        }

    def outcomes(self) -> dict[str, str]:
        return {"/".join(item.target): receipt.outcome for item, receipt in self.receipts.items()}


class Taken:
    """Keeps what became of each announced file, as the server's log does."""

    def __init__(self) -> None:
        self.sizes: dict[str, int | None] = {}
        self.offsets: dict[str, int] = {}
        self.bytes: Counter[str] = Counter()
        self.receipts: dict[str, Receipt] = {}
        self.problems: dict[str, Refused] = {}
        self.gone: list[str] = []
        self.cut: dict[str, tuple[int, bool]] = {}
        self.timeless: list[str] = []

    def taking(self, put: Put, size: int | None) -> None:
        self.sizes["/".join(put.path)] = size

    def resumed(self, put: Put, offset: int) -> None:
        self.offsets["/".join(put.path)] = offset

    def arrived(self, put: Put, count: int) -> None:
        self.bytes["/".join(put.path)] += count

    def stored(self, put: Put, receipt: Receipt) -> None:
        self.receipts["/".join(put.path)] = receipt

    def refused(self, put: Put | Misnamed, problem: Refused) -> None:
        self.problems[put.shown if isinstance(put, Misnamed) else "/".join(put.path)] = problem

    def withdrawn(self, put: Put) -> None:
        self.gone.append("/".join(put.path))

    def cut_off(self, put: Put, size: int, kept: bool) -> None:
        self.cut["/".join(put.path)] = (size, kept)

    def time_lost(self, path: tuple[str, ...]) -> None:
        self.timeless.append("/".join(path))

    def not_given(self, id: int, problem: Refused) -> None:
        raise ProtocolViolation("a REFUSE from a client")

    def omitted(self, omitted: Omitted) -> None:
        raise ProtocolViolation("an OMITTED from a client")

    def pause(self) -> None:
        pass


def anything(right: str) -> None:
    """An account with every right."""


class Receiving:
    """The server's side of a connection, in a thread of its own, on one end of it."""

    def __init__(
        self,
        storage: Storage,
        engine: Engine,
        admit: Admit = anything,
        buffers: int = 0,
        private: bool = False,
        around: Callable[[UserFolder], Any] = lambda folder: folder,
    ) -> None:
        self.near, far = tcp_pair(buffers)
        self.engine, self.folder, self.taken = engine, storage.user("alice", private), Taken()
        self.channel = Channel(far, S2C, C2S, engine)
        self.logged: list[str] = []
        self.problem: TransferError | None = None
        self.thread = threading.Thread(target=self._run, args=(admit, around(self.folder)), daemon=True)
        self.thread.start()

    def _log(self, text: str, *values: object) -> None:
        self.logged.append(text % values)

    def _run(self, admit: Admit, folder: UserFolder) -> None:
        code: Code | None = None
        try:
            Requests(self.channel, KEYS, folder, admit, self._log, Pace(None)).run(self.taken)
        except Ended as problem:
            code, self.problem = problem.code, problem.with_traceback(None)
        except ProtocolViolation as problem:
            code, self.problem = Code.PROTOCOL, problem.with_traceback(None)
        except IntegrityError as problem:
            code, self.problem = Code.INTEGRITY, problem.with_traceback(None)
        except TransferError as problem:
            self.problem = problem.with_traceback(None)
        finally:
            self.folder.close()
            self.channel.close(code)

    def finish(self) -> TransferError | None:
        """Wait for its end, which nothing may survive."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        check_nothing_is_left(self.engine, self.channel)
        return self.problem


def send(receiving: Receiving, items: list[Item], told: Told) -> int:
    """Send the items and end the connection; how many bytes went over the wire. Raises what the Sender raises."""
    channel = Channel(receiving.near, C2S, S2C, receiving.engine)
    try:
        Sender(channel, channel.messages(), FILE_SECRET, told, Pace(None)).run(items)
    finally:
        close_all(channel)
        receiving.finish()
        check_nothing_is_left(receiving.engine, channel)
    return channel.bytes_sent


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def item(source: Path, *target: str, policy: str = "fail", transfer: bytes = b"") -> Item:
    made = Item(str(source), target or (source.name,), policy, lambda: FileSource.open(str(source)))
    if transfer:
        made.transfer = transfer
    return made


def path_of(item: Item) -> Path:
    return Path(item.name)


def folder_item(*target: str, mtime: int | None = None, mode: int | None = None) -> Item:
    return Item("/".join(target), target, "fail", None, mtime, mode)


# --- together ---------------------------------------------------------------------------------------------------------


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


def test_nothing_to_send_is_a_fair_end(storage: Storage, engine: Engine, home: Path) -> None:
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
        "grows": SourceError,
        "grows-big": SourceError,
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


def test_tiny_socket_buffers_and_many_files_do_not_lock(storage: Storage, here: Path, home: Path) -> None:
    engine = Engine(1)
    source = written(here / "a", b"x" * 3_000)
    large = written(here / "b", os.urandom(LARGE))
    items = [item(source, f"{number}") for number in range(1_000)]
    items[500:500] = [item(large, f"large{number}") for number in range(20)]
    told = Told()
    send(Receiving(storage, engine, buffers=4096), items, told)
    assert len(told.receipts) == 1_020
    assert len(on_disk(home)) == 1_020
    engine.close()


def test_small_window_slows_down_and_does_not_lock(
    storage: Storage, engine: Engine, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.transfer.sender, "WINDOW", 3)
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 3)
    source = written(here / "a", b"a")
    told = Told()
    send(Receiving(storage, engine), [item(source, f"{number}") for number in range(100)], told)
    assert len(on_disk(home)) == 100


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
@pytest.mark.parametrize("where", ["sft.disk.commit.flush_all", "sft.disk.storage.UserFolder._publish"])
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
        Requests(channel, KEYS, folder, anything, lambda *_: None, Pace(None)).run(Taken())
    folder.close()
    raw.close()
    channel.close()
    check_nothing_is_left(engine, channel)
    assert len(os.listdir("/dev/fd")) == before
    assert files_in(home) == {} and kept_of(home) == [LARGE]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sft.transfer.receiver, "_GROUP_FILES", 10)
    return 10


class Flushing:
    """Flushes of groups that last until they may end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_end, self.begun, self.sound = threading.Event(), 0, 0
        monkeypatch.setattr(sft.disk.commit, "flush_all", self._flush)

    def _flush(self, descriptors: list[int], file_system: object) -> Iterator[None]:
        self.begun += 1
        assert self.may_end.wait(30)
        for descriptor in descriptors:
            os.fstat(descriptor)
        self.sound += 1
        return iter([None] * len(descriptors))


def test_next_files_arrive_while_a_group_is_flushed_and_nothing_is_visible_before(
    storage: Storage, engine: Engine, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch, small_groups: int
) -> None:
    flushing, told, receiving = Flushing(monkeypatch), Told(), Receiving(storage, engine)
    items = [item(written(here / f"{number}", b"%d" % number)) for number in range(95)]
    sending = threading.Thread(target=send, args=(receiving, items, told))
    sending.start()
    wait_until(lambda: len(receiving.taken.sizes) >= 2 * small_groups)
    assert flushing.begun >= 1
    assert (files_in(home), told.receipts, receiving.taken.receipts) == ({}, {}, {})
    flushing.may_end.set()
    sending.join(30)
    assert receiving.problem is None
    assert set(told.outcomes().values()) == {"stored"} and len(told.receipts) == len(files_in(home)) == 95


def break_protocol_in_one_record(storage: Storage, engine: Engine, *messages: bytes) -> None:
    """Between two records the receiver may publish what it has so far, so there is one only."""
    near, far = tcp_pair()
    raw, channel, folder = Raw(near, C2S, S2C), Channel(far, S2C, C2S, engine), storage.user("alice")
    raw.say(*messages)
    with pytest.raises(ProtocolViolation):
        Requests(channel, KEYS, folder, anything, lambda *_: None, Pace(None)).run(Taken())
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

    monkeypatch.setattr(sft.disk.commit, "Aside", AtOnce)
    said: list[bytes] = []
    for number in range(1, small_groups + 1):
        announced = put(number, f"{number}")
        said += [announced.encode(), data(number, 0, b"hello"), end(announced, b"hello").encode()]
    said += [put(20, "large", size=3 * DATA_SIZE).encode(), data(20, 0, bytes(DATA_SIZE)), Cancel(1).encode()]
    break_protocol_in_one_record(storage, engine, *said)
    assert len(files_in(home)) == small_groups


def test_comparing_that_gets_no_thread_leaves_no_descriptor_open(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("checking"):
            raise RuntimeError("can't start new thread")
        start(thread)

    written(home / "a", bytes(LARGE))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = len(os.listdir("/dev/fd"))
    near, far = tcp_pair()
    raw, channel, folder = Raw(near, C2S, S2C), Channel(far, S2C, C2S, engine), storage.user("alice")
    raw.say(put(1, "a", size=LARGE).encode())
    with pytest.raises(RuntimeError, match="start new thread"):
        Requests(channel, KEYS, folder, anything, lambda *_: None, Pace(None)).run(Taken())
    folder.close()
    raw.close()
    channel.close()
    assert len(os.listdir("/dev/fd")) == before


def test_account_without_the_right_is_refused_file_by_file(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    def admit(right: str) -> None:
        raise Refused(Code.DENIED)

    told = Told()
    items = [item(written(here / "a", b"a")), item(written(here / "b", bytes(5 * DATA_SIZE)))]
    send(Receiving(storage, engine, admit), items, told)
    assert told.codes() == {"a": Code.DENIED, "b": Code.DENIED}
    assert on_disk(home) == {}


def test_account_that_was_changed_ends_the_connection(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    asked = []

    def admit(right: str) -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Ended(Code.ACCOUNT)

    told = Told()
    items = [item(written(here / name, bytes(LARGE))) for name in "abcdef"]
    receiving = Receiving(storage, engine, admit)
    with pytest.raises(PeerStopped) as caught:
        send(receiving, items, told)
    assert caught.value.code is Code.ACCOUNT
    assert isinstance(receiving.problem, Ended)
    assert set(on_disk(home)) == {"/".join(each.target) for each in told.receipts} <= {"a", "b"}


# --- a receiver that lies ---------------------------------------------------------------------------------------------


class Lied:
    """A Sender in a thread, and at the other end a receiver that is spoken by hand."""

    def __init__(self, engine: Engine, items: list[Item]) -> None:
        near, far = tcp_pair()
        self.engine, self.told = engine, Told()
        self.channel, self.raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
        self.problem: TransferError | None = None
        self.thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self.thread.start()

    def _run(self, items: list[Item]) -> None:
        try:
            Sender(self.channel, self.channel.messages(), FILE_SECRET, self.told, Pace(None)).run(items)
        except TransferError as problem:
            self.problem = problem.with_traceback(None)
        finally:
            self.channel.close()

    def hear(self, kind: type[Message]) -> list[Message]:
        """Everything up to the next message of this kind."""
        heard: list[Message] = []
        while not heard or not isinstance(heard[-1], kind):
            message = self.raw.hear()
            assert message is not None
            heard.append(message)
        return heard

    def finish(self) -> TransferError | None:
        self.raw.stop()
        self.raw.hear_all()
        self.raw.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        check_nothing_is_left(self.engine, self.channel)
        return self.problem


CONTENT = b"the content of a small file"


def receipt(
    id: int = 1,
    path: tuple[str, ...] = ("inbox", "a.txt"),
    size: int = len(CONTENT),
    sha256: bytes | None = digest(CONTENT),
    outcome: str = "stored",
) -> bytes:
    return Receipt(id, path, size, sha256, 0, outcome).encode()


def answered(engine: Engine, here: Path, answers: list[bytes], policy: str = "fail") -> Lied:
    """One small file is sent whole; then the receiver answers."""
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt", policy=policy)])
    lied.hear(End)
    lied.raw.say(*answers)
    return lied


FAIR: dict[str, tuple[str, bytes]] = {
    "stored": ("fail", receipt()),
    "replaced": ("replace", receipt()),
    "renamed": ("rename", receipt(path=("inbox", "a.1.txt"))),
    "renamed to the name itself": ("rename", receipt()),
    "skipped": ("skip", receipt(sha256=None, outcome="skipped")),
    "stored though it might be skipped": ("skip", receipt()),
    "already there": ("fail", receipt(outcome="already")),
    "already there under a new name": ("rename", receipt(path=("inbox", "a.1.txt"), outcome="already")),
    "another name, as drop-only accounts get it": ("fail", receipt(path=("inbox", "a.1.txt"))),
    "another name although it might be skipped": ("skip", receipt(path=("inbox", "a.1.txt"))),
}


@pytest.mark.parametrize("case", FAIR)
def test_fair_receipt_is_a_delivery(engine: Engine, here: Path, case: str) -> None:
    policy, answer = FAIR[case]
    lied = answered(engine, here, [Accept(1, 0).encode(), answer, BYE_MESSAGE], policy)
    assert isinstance(lied.hear(Bye)[-1], Bye)
    assert lied.finish() is None
    assert len(lied.told.receipts) == 1
    assert set(lied.told.ends.values()) == {1}


LIES: dict[str, tuple[str, bytes]] = {
    "wrong digest": ("fail", receipt(sha256=digest(b"other"))),
    "no digest": ("fail", receipt(sha256=None)),
    "wrong size": ("fail", receipt(size=len(CONTENT) - 1)),
    "wrong folder": ("fail", receipt(path=("a.txt",))),
    "no path": ("fail", receipt(path=())),
    "other name with replace": ("replace", receipt(path=("inbox", "a.1.txt"))),
    "other folder with rename": ("rename", receipt(path=("outbox", "a.1.txt"))),
    "deeper with rename": ("rename", receipt(path=("inbox", "a.txt", "x"))),
    "nowhere with rename": ("rename", receipt(path=())),
    "skipped without being asked": ("fail", receipt(sha256=None, outcome="skipped")),
    "skipped with rename": ("rename", receipt(sha256=None, outcome="skipped")),
    "skipped under another name": ("skip", receipt(path=("inbox", "b"), sha256=None, outcome="skipped")),
    "skipped with replace": ("replace", receipt(sha256=None, outcome="skipped")),
    "already there, another digest": ("fail", receipt(sha256=digest(b"other"), outcome="already")),
    "already there, no digest": ("fail", receipt(sha256=None, outcome="already")),
    "already there, another size": ("fail", receipt(size=1, outcome="already")),
    "already there, elsewhere": ("fail", receipt(path=("outbox", "a.txt"), outcome="already")),
    "already there under another name with replace": ("replace", receipt(path=("inbox", "b"), outcome="already")),
    "a folder": ("fail", receipt(outcome="folder")),
    "a folder without a digest": ("skip", receipt(size=0, sha256=None, outcome="folder")),
}


@pytest.mark.parametrize("lie", LIES)
def test_receipt_that_lies_is_no_delivery(engine: Engine, here: Path, lie: str) -> None:
    policy, answer = LIES[lie]
    lied = answered(engine, here, [answer, BYE_MESSAGE], policy)
    problem = lied.finish()
    assert isinstance(problem, IntegrityError)
    assert problem.exit_status == 5
    assert lied.told.receipts == {}


def test_receipt_before_the_end_of_the_file_is_no_delivery(engine: Engine, here: Path) -> None:
    content = bytes(20 * DATA_SIZE)
    lied = Lied(engine, [item(written(here / "a", content))])
    lied.hear(Put)
    lied.raw.say(receipt(path=("a",), size=len(content), sha256=digest(content)))
    assert isinstance(lied.finish(), IntegrityError)
    assert lied.told.receipts == {}


BROKEN: dict[str, list[bytes]] = {
    "receipt for an unknown id": [receipt(id=2)],
    "accept for an unknown id": [Accept(2, 0).encode()],
    "refuse for an unknown id": [Refuse(MAX_ID, Code.EXISTS).encode()],
    "accept with an offset": [Accept(1, 5).encode()],
    "check": [Check(1, 5, None).encode()],
    "check for an unknown id": [Check(2, 5, None).encode()],
    "put": [Put(1, b"t" * 16, ("a",), "file", 0, None, None, "fail").encode()],
    "data": [data(1, 0, b"x")],
    "end": [End(1, 0, bytes(32), bytes(32)).encode()],
    "cancel": [Cancel(1).encode()],
    "get": [Get(1, ("a",), False).encode()],
    "list": [ListFolder(1, (), None).encode()],
    "entries": [Entries(1, (), False).encode()],
    "bye before the receipt": [BYE_MESSAGE],
    "bye after an accept": [Accept(1, 0).encode(), BYE_MESSAGE],
}


@pytest.mark.parametrize("fault", BROKEN)
def test_receiver_that_breaks_the_rules_ends_the_connection(engine: Engine, here: Path, fault: str) -> None:
    lied = answered(engine, here, BROKEN[fault])
    assert isinstance(lied.finish(), ProtocolViolation)
    assert set(lied.told.ends.values()) <= {1}


@pytest.mark.parametrize(
    "late",
    [
        receipt(),
        receipt(sha256=digest(b"other")),
        Refuse(1, Code.EXISTS).encode(),
        Accept(1, 0).encode(),
        Check(1, 5, None).encode(),
    ],
    ids=["receipt", "receipt that lies", "refusal", "accept", "check"],
)
@pytest.mark.parametrize("first", [receipt(), Refuse(1, Code.NO_SPACE).encode()], ids=["receipt", "refusal"])
def test_answer_about_a_settled_file_is_late_and_changes_nothing(
    engine: Engine, here: Path, first: bytes, late: bytes
) -> None:
    lied = answered(engine, here, [first, late, BYE_MESSAGE])
    lied.hear(Bye)
    assert lied.finish() is None
    assert set(lied.told.ends.values()) == {1}
    if first == receipt():
        assert lied.told.outcomes() == {"inbox/a.txt": "stored"}
    else:
        assert lied.told.codes() == {"inbox/a.txt": Code.NO_SPACE}


@pytest.mark.parametrize("fault", ["bye", "cut"])
def test_end_while_a_large_file_waits_for_its_answer(engine: Engine, here: Path, fault: str) -> None:
    lied = Lied(engine, [item(written(here / "a", bytes(LARGE)))])
    lied.hear(Put)
    if fault == "bye":
        lied.raw.say(BYE_MESSAGE)
    problem = lied.finish()
    assert isinstance(problem, ProtocolViolation if fault == "bye" else ConnectionTrouble)
    assert lied.told.receipts == {}


@pytest.mark.parametrize("code", [Code.STOPPING, Code.ACCOUNT, Code.INTERNAL, Code.PROTOCOL, Code.INTEGRITY])
def test_error_of_the_receiver_is_told_with_its_code(engine: Engine, here: Path, code: Code) -> None:
    lied = answered(engine, here, [Error(code).encode()])
    problem = lied.finish()
    assert isinstance(problem, PeerStopped)
    assert problem.code is code
    assert lied.told.receipts == {}


def test_error_before_the_first_byte_is_told_although_sending_fails_too(engine: Engine, here: Path) -> None:
    source = written(here / "a", bytes(DATA_SIZE))
    lied = Lied(engine, [item(source, f"{number}") for number in range(20)])
    lied.raw.say(Error(Code.FULL).encode())
    problem = lied.finish()
    assert isinstance(problem, PeerStopped)
    assert problem.code is Code.FULL


@pytest.mark.parametrize("code", list(Code))
def test_refusal_is_told_with_its_code_and_the_others_go_on(engine: Engine, here: Path, code: Code) -> None:
    source = written(here / "a", CONTENT)
    lied = Lied(engine, [item(source, "first"), item(source, "inbox", "a.txt")])
    lied.hear(End)
    lied.hear(End)
    lied.raw.say(Refuse(1, code).encode(), Accept(2, 0).encode(), receipt(2), BYE_MESSAGE)
    lied.hear(Bye)
    assert lied.finish() is None
    assert lied.told.codes() == {"first": code}
    assert len(lied.told.receipts) == 1


def test_refused_large_file_is_withdrawn_and_not_sent(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a", bytes(5 * DATA_SIZE)))])
    lied.hear(Put)
    lied.raw.say(Refuse(1, Code.DENIED).encode(), BYE_MESSAGE)
    assert lied.hear(Bye) == [Cancel(1), Bye()]
    assert lied.finish() is None


def test_large_file_refused_on_its_way_is_withdrawn(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a", bytes(64 * DATA_SIZE)))])
    lied.hear(Put)
    lied.raw.say(Accept(1, 0).encode())
    lied.hear(Data)
    lied.raw.say(Refuse(1, Code.NO_SPACE).encode())
    heard = lied.hear(Cancel)
    assert sum(isinstance(message, Data) for message in heard) < 63
    lied.raw.say(BYE_MESSAGE)
    assert lied.hear(Bye) == [Bye()]
    assert lied.finish() is None
    assert lied.told.codes() == {"a": Code.NO_SPACE}


CROSSING: dict[str, tuple[str, list[bytes], bool]] = {
    "nothing": ("fail", [], True),
    "accept": ("fail", [Accept(1, 0).encode()], True),
    "refuse": ("fail", [Refuse(1, Code.EXISTS).encode()], True),
    "accept, then refuse": ("fail", [Accept(1, 0).encode(), Refuse(1, Code.NO_SPACE).encode()], True),
    "skipped": ("skip", [receipt(path=("a",), size=100, sha256=None, outcome="skipped")], True),
    "stored": ("fail", [receipt(path=("a",), size=100, sha256=digest(b"x" * 100))], True),
    "check": ("fail", [Check(1, 50, None).encode()], True),
    "of an id never announced": ("fail", [Accept(9, 0).encode()], False),
}


@pytest.mark.parametrize(("answers", "size"), [*((answers, 100) for answers in CROSSING), ("accept", LARGE)])
def test_answer_that_crosses_a_withdrawal_is_no_fault(engine: Engine, here: Path, answers: str, size: int) -> None:
    """The file shrinks between its announcement and its content, so that the sender withdraws it. The receiver could
    not know: what it says about that id is late, and changes nothing. Nothing of it is a delivery."""
    policy, said, fair = CROSSING[answers]
    near, far = tcp_pair()
    told = Told(lambda item: os.truncate(path_of(item), 1))
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)

    def answer() -> None:
        kinds = [Put, Cancel] if size == LARGE else [Cancel]
        for number, kind in enumerate(kinds):
            while not isinstance(message := raw.hear(), kind):
                assert message is not None
            if number == 0 and said:
                raw.say(*said)
        raw.say(BYE_MESSAGE)
        raw.hear_all()
        raw.close()

    answering = threading.Thread(target=answer)
    answering.start()
    problem: TransferError | None = None
    try:
        Sender(channel, channel.messages(), FILE_SECRET, told, Pace(None)).run(
            [item(written(here / "a", b"x" * size), policy=policy), item(here / "missing")]
        )
    except TransferError as caught:
        problem = caught.with_traceback(None)
    channel.close()
    answering.join()
    check_nothing_is_left(engine, channel)
    assert told.codes() == {"a": SourceError, "missing": SourceError}
    assert (problem is None) is fair
    assert told.receipts == {}


# --- a sender that lies -----------------------------------------------------------------------------------------------


def put(
    id: int,
    *path: str,
    size: int | None = 5,
    policy: str = "fail",
    kind: str = "file",
    mtime: int | None = None,
    mode: int | None = None,
) -> Put:
    return Put(id, bytes([id % 256]) * 16, path, kind, size, mtime, mode, policy)


GOOD = put(1, "good")


class Hostile:
    """A Receiver, and at the other end a sender that is spoken by hand. One good file is delivered first."""

    def __init__(
        self, storage: Storage, engine: Engine, admit: Admit = anything, good: bool = True, private: bool = False
    ) -> None:
        self.receiving = Receiving(storage, engine, admit, private=private)
        self.raw = Raw(self.receiving.near, C2S, S2C)
        if good:
            self.raw.say(GOOD.encode(), data(1, 0, b"12345"), end(GOOD, b"12345").encode())
            assert isinstance(self.raw.hear(), Receipt)

    def finish(self) -> tuple[list[Message], TransferError | None]:
        """What else it says, and what it ended with."""
        self.raw.stop()
        heard = self.raw.hear_all()
        self.raw.close()
        return heard, self.receiving.finish()


def test_hand_spoken_sender_that_keeps_the_rules_delivers(storage: Storage, engine: Engine, home: Path) -> None:
    """The control: the same speaker, without a fault."""
    hostile = Hostile(storage, engine)
    second = put(2, "d", "b", size=DATA_SIZE + 3)
    content = os.urandom(DATA_SIZE + 3)
    hostile.raw.say(second.encode(), data(2, 0, content[:DATA_SIZE]))
    hostile.raw.say(data(2, DATA_SIZE, content[DATA_SIZE:]), end(second, content).encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [type(message) for message in heard] == [Accept, Receipt, Bye]
    assert on_disk(home) == {"good": b"12345", "d/b": content}


def wrong_id_end(id: int) -> bytes:
    return End(id, 0, digest(b""), bytes(32)).encode()


NEXT = put(2, "next")
NEXT_DONE = [NEXT.encode(), data(2, 0, b"abcde"), end(NEXT, b"abcde").encode()]

# Each ends the connection with ERROR protocol; visible is only what had its receipt before.
VIOLATIONS: dict[str, list[bytes]] = {
    "data never announced": [data(9, 0, b"x")],
    "data of a finished file": [data(1, 5, b"x")],
    "data behind a short piece": [NEXT.encode(), data(2, 0, b"ab"), data(2, 2, b"cde")],
    "data at a wrong offset": [NEXT.encode(), data(2, 1, b"bcde")],
    "data twice": [put(2, "next", size=2 * DATA_SIZE).encode(), data(2, 0, bytes(DATA_SIZE)), data(2, 0, b"x")],
    "data far away": [NEXT.encode(), data(2, (1 << 63) - 10, b"x")],
    "end never announced": [end(put(9, "x"), b"").encode()],
    "two ends": [*NEXT_DONE, end(NEXT, b"abcde").encode()],
    "bye without an end": [NEXT.encode(), data(2, 0, b"abcde"), BYE_MESSAGE],
    "bye without content": [NEXT.encode(), BYE_MESSAGE],
    "bye in the middle of a refused file": [put(2, "..").encode(), BYE_MESSAGE],
    "id reused": [put(1, "again").encode()],
    "id reused while open": [NEXT.encode(), put(2, "other").encode()],
    "id not increasing": [put(7, "seven").encode(), put(6, "six").encode()],
    "check": [NEXT.encode(), Check(2, 5, bytes(32)).encode()],
    "accept": [NEXT.encode(), Accept(2, 0).encode()],
    "refuse": [NEXT.encode(), Refuse(2, Code.EXISTS).encode()],
    "receipt": [NEXT.encode(), receipt(2)],
    "entries": [Entries(1, (), False).encode()],
    "get": [NEXT.encode(), data(2, 0, b"ab"), Get(1, ("good",), False).encode()],
    "list": [NEXT.encode(), data(2, 0, b"ab"), ListFolder(1, (), None).encode()],
    "check of a finished file": [Check(1, 5, bytes(32)).encode()],
    "check that asks": [NEXT.encode(), Check(2, 5, None).encode()],
    "folder with an id reused": [put(1, "again", kind="folder").encode()],
    "cancel of a folder": [put(2, "sub", size=None, kind="folder").encode(), Cancel(2).encode()],
    "end of a folder": [put(2, "sub", size=None, kind="folder").encode(), wrong_id_end(2)],
    "data of a folder": [put(2, "sub", size=None, kind="folder").encode(), data(2, 0, b"x")],
    "cancel never announced": [Cancel(9).encode()],
    "cancel of a finished file": [Cancel(1).encode()],
    "cancel twice": [NEXT.encode(), Cancel(2).encode(), Cancel(2).encode()],
    "message behind bye": [BYE_MESSAGE, NEXT.encode()],
    "unknown message": [NEXT.encode(), b"\x77\0\0\0\0"],
    "unknown field": [encode_message(Kind.CANCEL, b'{"id":2,"x":1}')],
    "data of an impossible id": [data(0, 0, b"x")],
    "empty data": [NEXT.encode(), data(2, 0, b"")],
}


@pytest.mark.parametrize("together", [True, False], ids=["one record", "a record each"])
@pytest.mark.parametrize("fault", VIOLATIONS)
def test_sender_that_breaks_the_rules_is_told_so_and_leaves_nothing(
    storage: Storage, engine: Engine, home: Path, fault: str, together: bool
) -> None:
    hostile = Hostile(storage, engine)
    if together:
        hostile.raw.say(*VIOLATIONS[fault])
    else:
        for message in VIOLATIONS[fault]:
            try:
                hostile.raw.say(message)
            except OSError:
                break  # it has hung up already, as it should
    heard, problem = hostile.finish()
    if fault == "message behind bye" and not together:
        assert problem is None, "nobody listens any more"
        assert on_disk(home) == {"good": b"12345"}
        return
    assert isinstance(problem, ProtocolViolation)
    if heard:
        assert heard[-1] == Error(Code.PROTOCOL)
    receipts = sum(isinstance(message, Receipt) and message.outcome != "folder" for message in heard)
    assert receipts == 0 or (fault == "two ends" and not together)
    assert files_in(home) == {"good": b"12345"} | ({"next": b"abcde"} if receipts else {})
    assert kept_of(home) == ([DATA_SIZE] if fault == "data twice" else []), "what was right of it, for another try"


def test_more_open_files_than_the_window_is_a_violation(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 5)
    hostile = Hostile(storage, engine)
    hostile.raw.say(*(put(number, f"{number}", size=None).encode() for number in range(2, 7)))
    assert [hostile.raw.hear() for _ in range(5)] == [Accept(number, 0) for number in range(2, 7)]
    hostile.raw.say(put(7, "one too many").encode())
    heard, problem = hostile.finish()
    assert heard == [Error(Code.PROTOCOL)]
    assert isinstance(problem, ProtocolViolation)
    assert on_disk(home) == {"good": b"12345"}


def test_refused_files_count_for_the_window_too(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 5)
    hostile = Hostile(storage, engine)
    hostile.raw.say(*(put(number, "..").encode() for number in range(2, 8)))
    heard, problem = hostile.finish()
    assert heard == [*(Refuse(number, Code.NAME) for number in range(2, 7)), Error(Code.PROTOCOL)]
    assert isinstance(problem, ProtocolViolation)


def wrong(end: End, **fields: object) -> bytes:
    values: dict[str, object] = {"id": end.id, "size": end.size, "sha256": end.sha256, "mac": end.mac} | fields
    return End(**values).encode()  # type: ignore[arg-type]


NEXT_END = end(NEXT, b"abcde")
SPACED = json.dumps(json.loads(NEXT.body()), indent=1).encode()

# Each is the trouble of one file: it is refused with that code, nothing of it is kept, and the next one is taken.
REFUSALS: dict[str, tuple[Code, list[bytes]]] = {
    "more than announced": (Code.SIZE, [NEXT.encode(), data(2, 0, b"abcdef"), end(NEXT, b"abcdef").encode()]),
    "much more than announced": (
        Code.SIZE,
        [NEXT.encode(), data(2, 0, bytes(DATA_SIZE)), data(2, DATA_SIZE, bytes(9)), Cancel(2).encode()],
    ),
    "less than announced": (Code.SIZE, [NEXT.encode(), data(2, 0, b"abcd"), end(NEXT, b"abcd").encode()]),
    "nothing of what was announced": (Code.SIZE, [NEXT.encode(), end(NEXT, b"").encode()]),
    "something of nothing": (
        Code.SIZE,
        [put(2, "next", size=0).encode(), data(2, 0, b"a"), end(put(2, "next", size=0), b"a").encode()],
    ),
    "end with a wrong size": (Code.SIZE, [NEXT.encode(), data(2, 0, b"abcde"), wrong(NEXT_END, size=4)]),
    "end with a huge size": (Code.SIZE, [NEXT.encode(), data(2, 0, b"abcde"), wrong(NEXT_END, size=(1 << 63) - 1)]),
    "wrong digest": (Code.INTEGRITY, [NEXT.encode(), data(2, 0, b"abcde"), wrong(NEXT_END, sha256=digest(b"x"))]),
    "wrong hmac": (Code.INTEGRITY, [NEXT.encode(), data(2, 0, b"abcde"), wrong(NEXT_END, mac=bytes(32))]),
    "other content": (Code.INTEGRITY, [NEXT.encode(), data(2, 0, b"ABCDE"), NEXT_END.encode()]),
    "hmac under another key": (
        Code.INTEGRITY,
        [NEXT.encode(), data(2, 0, b"abcde"), end(NEXT, b"abcde", secret=b"s" * 32).encode()],
    ),
    "hmac of another announcement": (
        Code.INTEGRITY,
        [NEXT.encode(), data(2, 0, b"abcde"), end(put(2, "other"), b"abcde").encode()],
    ),
    "hmac of the same announcement, written otherwise": (
        Code.INTEGRITY,
        [encode_message(Kind.PUT, SPACED), data(2, 0, b"abcde"), NEXT_END.encode()],
    ),
    "folder over a file": (Code.NOT_FOLDER, [put(2, "good", size=None, kind="folder").encode()]),
    "folder below a file": (Code.NOT_FOLDER, [put(2, "good", "sub", size=None, kind="folder").encode()]),
    "folder without a name": (Code.NAME, [put(2, size=None, kind="folder").encode()]),
    "folder above the folder": (Code.NAME, [put(2, "..", size=None, kind="folder").encode()]),
    "pipe to a name that is taken": (
        Code.EXISTS,
        [put(2, "good", size=None).encode(), data(2, 0, b"x"), Cancel(2).encode()],
    ),
    "pipe with a wrong size at its end": (
        Code.SIZE,
        [put(2, "next", size=None).encode(), data(2, 0, b"abcde"), wrong(NEXT_END, size=4)],
    ),
    "pipe with a wrong hmac": (
        Code.INTEGRITY,
        [put(2, "next", size=None).encode(), data(2, 0, b"abcde"), NEXT_END.encode()],
    ),
    "larger than any disk": (
        Code.NO_SPACE,
        [put(2, "next", size=1 << 62).encode(), data(2, 0, b"x"), end(put(2, "next", size=1 << 62), b"x").encode()],
    ),
    "larger than allowed": (Code.TOO_LARGE, [put(2, "next", size=(1 << 62) + 1).encode(), Cancel(2).encode()]),
    "above the folder": (Code.NAME, [put(2, "..", "next").encode(), data(2, 0, b"abcde"), Cancel(2).encode()]),
    "no name": (Code.NAME, [put(2).encode(), Cancel(2).encode()]),
    "nul": (Code.NAME, [put(2, "a\0b").encode(), Cancel(2).encode()]),
    "path of more than 4,096 bytes": (Code.NAME, [put(2, *["x" * 255] * 17).encode(), Cancel(2).encode()]),
    "taken": (Code.EXISTS, [put(2, "good").encode(), data(2, 0, b"abcde"), end(put(2, "good"), b"abcde").encode()]),
    "below a file": (Code.NOT_FOLDER, [put(2, "good", "x", size=None).encode(), Cancel(2).encode()]),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_trouble_of_one_file_keeps_nothing_of_it_and_goes_on(
    storage: Storage, engine: Engine, home: Path, fault: str
) -> None:
    code, messages = REFUSALS[fault]
    hostile = Hostile(storage, engine)
    for message in messages:
        hostile.raw.say(message)
    last = put(3, "last")
    hostile.raw.say(last.encode(), data(3, 0, b"final"), end(last, b"final").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [message for message in heard if isinstance(message, Refuse)] == [Refuse(2, code)]
    assert [message.id for message in heard if isinstance(message, Receipt)] == [3]
    assert on_disk(home) == {"good": b"12345", "last": b"final"}


# --- small files: one answer each, and BYE ahead of it ----------------------------------------------------------------


def test_small_file_gets_its_receipt_and_no_accept(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine, good=False)
    taken = put(2, "d", "taken", size=0)
    hostile.raw.say(GOOD.encode(), data(1, 0, b"12345"), end(GOOD, b"12345").encode())
    hostile.raw.say(taken.encode(), end(taken, b"").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [type(message) for message in heard] == [Receipt, Receipt, Bye]


def test_edge_of_what_comes_unasked_gets_an_accept(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "small", size=UNASKED_LIMIT).encode(), put(3, "large", size=UNASKED_LIMIT + 1).encode())
    hostile.raw.say(put(4, "pipe", size=None).encode(), *(Cancel(number).encode() for number in (2, 3, 4)), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert heard == [Accept(3, 0), Accept(4, 0), Bye()]


def test_receipts_of_many_small_files_share_records(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    messages = []
    for number in range(2, 302):
        announced = put(number, f"{number}", size=1)
        messages += [announced.encode(), data(number, 0, b"x"), end(announced, b"x").encode()]
    hostile.raw.say(*messages)
    receipts, records = 0, 0
    while receipts < 300:
        record = hostile.raw.record()
        assert record
        receipts, records = receipts + sum(isinstance(message, Receipt) for message in record), records + 1
    assert records <= 8
    hostile.raw.say(BYE_MESSAGE)
    assert hostile.finish() == ([Bye()], None)


def test_sender_says_bye_before_the_receipts_and_takes_them_afterwards(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt")])
    assert [type(message) for message in lied.hear(Bye)] == [Put, Data, End, Bye]
    lied.raw.say(receipt(), BYE_MESSAGE)
    assert lied.finish() is None
    assert lied.told.outcomes() == {"inbox/a.txt": "stored"}


def test_refusal_behind_the_senders_bye_is_told(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt")])
    lied.hear(Bye)
    lied.raw.say(Refuse(1, Code.EXISTS).encode(), BYE_MESSAGE)
    assert lied.finish() is None
    assert set(lied.told.codes().values()) == {Code.EXISTS}


def test_receivers_bye_behind_the_senders_without_the_last_receipt_is_a_violation(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / name, CONTENT), "inbox", name) for name in ("a.txt", "b.txt")])
    lied.hear(Bye)
    lied.raw.say(receipt(), BYE_MESSAGE)
    assert isinstance(lied.finish(), ProtocolViolation)
    assert lied.told.outcomes() == {"inbox/a.txt": "stored"}


def test_sender_does_not_say_bye_while_a_large_file_waits_for_its_accept(engine: Engine, here: Path) -> None:
    content = os.urandom(LARGE)
    lied = Lied(
        engine, [item(written(here / "big", content)), item(written(here / "a.txt", CONTENT), "inbox", "a.txt")]
    )
    assert [type(message) for message in lied.hear(End)] == [Put, Put, Data, End]
    lied.raw.say(receipt(2))
    lied.raw.say(Accept(1, 0).encode())
    assert [type(message) for message in lied.hear(Bye)][-2:] == [End, Bye]
    lied.raw.say(receipt(1, ("big",), LARGE, digest(content)), BYE_MESSAGE)
    assert lied.finish() is None
    assert lied.told.outcomes() == {"inbox/a.txt": "stored", "big": "stored"}


def test_hmac_covers_the_announcement_as_it_was_sent(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(encode_message(Kind.PUT, SPACED), data(2, 0, b"abcde"), end(NEXT, b"abcde", SPACED).encode())
    hostile.raw.say(BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [message.id for message in heard if isinstance(message, Receipt)] == [2]
    assert on_disk(home) == {"good": b"12345", "next": b"abcde"}


@pytest.mark.parametrize("cut", [1, 2, 3], ids=["behind the announcement", "in the content", "before the end"])
def test_cut_leaves_nothing_of_the_file(storage: Storage, engine: Engine, home: Path, cut: int) -> None:
    hostile = Hostile(storage, engine)
    for message in [NEXT.encode(), data(2, 0, b"ab"), PING_MESSAGE][:cut]:
        hostile.raw.say(message)
    heard, problem = hostile.finish()
    assert isinstance(problem, ConnectionTrouble)
    assert not any(isinstance(message, Receipt) for message in heard)
    assert on_disk(home) == {"good": b"12345"}


def test_cut_behind_a_whole_file_keeps_it_or_not_but_never_half(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(*NEXT_DONE)
    hostile.finish()
    assert on_disk(home) in ({"good": b"12345"}, {"good": b"12345", "next": b"abcde"})


def test_cancel_in_the_middle_leaves_nothing_and_frees_the_name(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    again = put(3, "next")
    hostile.raw.say(NEXT.encode(), data(2, 0, b"ab"), Cancel(2).encode(), again.encode(), data(3, 0, b"vwxyz"))
    hostile.raw.say(end(again, b"vwxyz").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [type(message) for message in heard] == [Receipt, Bye]
    assert on_disk(home) == {"good": b"12345", "next": b"vwxyz"}


def test_two_open_files_may_take_turns(storage: Storage, engine: Engine, home: Path) -> None:
    size = DATA_SIZE + 1
    one, two = put(2, "one", size=size), put(3, "two", size=size)
    hostile = Hostile(storage, engine)
    hostile.raw.say(one.encode(), two.encode())
    for offset, length in ((0, DATA_SIZE), (DATA_SIZE, 1)):
        hostile.raw.say(data(2, offset, b"1" * length))
        hostile.raw.say(data(3, offset, b"2" * length))
    hostile.raw.say(end(two, b"2" * size).encode(), end(one, b"1" * size).encode(), BYE_MESSAGE)
    _, problem = hostile.finish()
    assert problem is None
    assert on_disk(home) == {"good": b"12345", "one": b"1" * size, "two": b"2" * size}


def test_two_files_of_one_name_in_one_group_do_not_mix(storage: Storage, engine: Engine, home: Path) -> None:
    one, two = put(2, "same"), put(3, "same")
    hostile = Hostile(storage, engine)
    hostile.raw.say(one.encode(), two.encode(), data(2, 0, b"11111"), data(3, 0, b"22222"))
    hostile.raw.say(end(one, b"11111").encode(), end(two, b"22222").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [message.id for message in heard if isinstance(message, Receipt)] == [2]
    assert Refuse(3, Code.EXISTS) in heard
    assert on_disk(home) == {"good": b"12345", "same": b"11111"}


@pytest.mark.usefixtures("named")
def test_same_transfer_announced_twice_does_not_touch_the_first(storage: Storage, engine: Engine, home: Path) -> None:
    one = Put(2, b"t" * 16, ("same",), "file", 5, None, None, "fail")
    two = Put(3, b"t" * 16, ("same",), "file", 5, None, None, "fail")
    hostile = Hostile(storage, engine)
    hostile.raw.say(one.encode(), two.encode(), data(2, 0, b"11111"), data(3, 0, b"22222"))
    hostile.raw.say(end(two, b"22222").encode(), end(one, b"11111").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert Refuse(3, Code.BUSY) in heard
    assert on_disk(home) == {"good": b"12345", "same": b"11111"}


def test_denied_file_is_thrown_away_as_it_comes(storage: Storage, engine: Engine, home: Path) -> None:
    def admit(right: str) -> None:
        raise Refused(Code.DENIED)

    hostile = Hostile(storage, engine, admit, good=False)
    hostile.raw.say(*NEXT_DONE, BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert heard == [Refuse(2, Code.DENIED), Bye()]
    assert problem is None
    assert on_disk(home) == {}


def test_changed_account_is_told_and_leaves_nothing_unfinished(storage: Storage, engine: Engine, home: Path) -> None:
    asked: list[int] = []

    def admit(right: str) -> None:
        asked.append(1)
        if len(asked) > 2:
            raise Ended(Code.ACCOUNT)

    hostile = Hostile(storage, engine, admit)
    hostile.raw.say(NEXT.encode(), data(2, 0, b"ab"), put(3, "third").encode())
    heard, problem = hostile.finish()
    assert heard == [Error(Code.ACCOUNT)]
    assert isinstance(problem, Ended)
    assert on_disk(home) == {"good": b"12345"}


def test_stopping_receiver_says_so(storage: Storage, engine: Engine, home: Path) -> None:
    """As the server does when its grace period is over."""
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "next", size=None).encode(), data(2, 0, b"ab"))
    assert hostile.raw.hear() == Accept(2, 0)
    hostile.receiving.channel.fail(Ended(Code.STOPPING))
    _, problem = hostile.finish()
    assert isinstance(problem, Ended)
    assert problem.code is Code.STOPPING
    assert on_disk(home) == {"good": b"12345"}


def test_longest_announcement_gets_an_answer(storage: Storage, engine: Engine, home: Path) -> None:
    """A PUT just under the ceiling of a message: its RECEIPT, which is longer, must not be over it."""
    path = ["x" * 250] * 255
    missing = CONTROL_LIMIT - len(put(2, *path).body())
    for number in range(255):
        path[number] += "x" * min(5, missing)
        missing -= min(5, missing)
    announced = put(2, *path)
    assert CONTROL_LIMIT - 8 <= len(announced.body()) <= CONTROL_LIMIT
    hostile = Hostile(storage, engine)
    hostile.raw.say(announced.encode(), data(2, 0, b"abcde"), end(announced, b"abcde").encode())
    hostile.raw.say(BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert Refuse(2, Code.NAME) in heard


# --- what is there already, and what was kept -------------------------------------------------------------------------

SIZE = 3 * DATA_SIZE + 12_345
OVERHEAD = 8_192  # announcements, answers, headers and tags of a transfer of a few records


def kept(storage: Storage, engine: Engine, announced: Put, content: bytes) -> None:
    """A first attempt, cut behind `content`: it stays for another one."""
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(announced.encode())
    assert isinstance(raw.hear(), Accept)
    for offset in range(0, len(content), DATA_SIZE):
        raw.say(data(announced.id, offset, content[offset : offset + DATA_SIZE]))
    raw.stop()
    raw.hear_all()
    raw.close()
    assert isinstance(receiving.finish(), ConnectionTrouble)
    assert receiving.taken.cut == {"/".join(announced.path): (len(content), bool(content))}


def partial_of(home: Path) -> Path:
    """The bytes that are kept, of the one file."""
    (journal,) = (home.parent / PARTIAL_AREA / "alice").glob("*.journal")
    return journal.with_suffix("")


def set_durable(home: Path, offset: int) -> None:
    """As if the power had gone when only so many bytes were surely on the disk."""
    place = partial_of(home).with_suffix(".journal")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"durable": offset}))


@pytest.mark.parametrize("same_transfer", [True, False], ids=["same run", "another run"])
@pytest.mark.parametrize("offset", [0, 1, UNASKED_LIMIT, DATA_SIZE - 1, DATA_SIZE, DATA_SIZE + 1, SIZE - 1, SIZE])
def test_resume_sends_only_what_is_missing(
    storage: Storage, engine: Engine, here: Path, home: Path, offset: int, same_transfer: bool
) -> None:
    content = os.urandom(SIZE)
    kept(storage, engine, put(1, "box", "a", size=SIZE), content[:offset])
    assert kept_of(home) == ([offset] if offset else [])
    again = item(written(here / "a", content), "box", "a", transfer=bytes([1]) * 16 if same_transfer else b"")
    told, receiving = Told(), Receiving(storage, engine)
    sent = send(receiving, [again], told)
    assert on_disk(home) == {"box/a": content}
    assert told.outcomes() == {"box/a": "stored"}
    assert told.receipts[again].sha256 == digest(content)
    assert told.bytes[again] == receiving.taken.bytes["box/a"] == SIZE - offset
    assert SIZE - offset <= sent <= SIZE - offset + OVERHEAD
    assert told.hashed[again] == offset
    assert told.offsets.get(again, 0) == receiving.taken.offsets.get("box/a", 0) == offset
    assert told.again == []


def test_real_cut_is_resumed_where_it_was(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    """Both ends are ours, and the connection breaks in the middle of it."""
    size = 40 * DATA_SIZE + 5
    content = os.urandom(size)
    one = item(written(here / "a", content), "a")
    receiving = Receiving(storage, engine)
    channel = Channel(receiving.near, C2S, S2C, engine)

    def cut(count: int) -> None:
        if count > 20 * DATA_SIZE:
            channel.fail(ConnectionTrouble("cut"))

    told = Told(on_progress=cut)
    with pytest.raises(ConnectionTrouble, match="cut"):
        Sender(channel, channel.messages(), FILE_SECRET, told, Pace(None)).run([one])
    close_all(channel)
    receiving.finish()
    (count, was_kept) = receiving.taken.cut["a"]
    assert files_in(home) == {}
    assert was_kept is (count > 0)
    told, receiving = Told(), Receiving(storage, engine)
    send(receiving, [one], told)
    assert told.bytes[one] == size - count
    assert on_disk(home) == {"a": content}


def test_resume_that_is_cut_again_and_again_arrives(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    content = os.urandom(SIZE)
    announced = put(1, "a", size=SIZE)
    at = 0
    for step in (70_000, DATA_SIZE, 5, DATA_SIZE):
        receiving = Receiving(storage, engine)
        raw = Raw(receiving.near, C2S, S2C)
        raw.say(announced.encode())
        if at:
            assert raw.hear() == Check(1, at, None)
            raw.say(Check(1, at, digest(content[:at])).encode())
        assert raw.hear() == Accept(1, at)
        raw.say(data(1, at, content[at : at + step]))
        at += step
        raw.stop()
        raw.hear_all()
        raw.close()
        receiving.finish()
        assert kept_of(home) == [at]
    told = Told()
    last = item(written(here / "a", content))
    send(Receiving(storage, engine), [last], told)
    assert told.bytes[last] == SIZE - at
    assert on_disk(home) == {"a": content}


OLD = bytes(range(256)) * (SIZE // 256 + 1)
CHANGES: dict[str, tuple[bytes, int | None]] = {
    # what the source is now, and where it is resumed: None for not at all
    "first byte differs": (b"x" + OLD[1:SIZE], None),
    "last kept byte differs": (OLD[: DATA_SIZE - 1] + b"x" + OLD[DATA_SIZE:SIZE], None),
    "differs behind what was kept": (OLD[:DATA_SIZE] + b"x" * (SIZE - DATA_SIZE), DATA_SIZE),
    "appended": (OLD[:SIZE] + b"more", DATA_SIZE),
    "shrunk, and still more than was kept": (OLD[: DATA_SIZE + 7], DATA_SIZE),
    "shrunk to what was kept": (OLD[:DATA_SIZE], DATA_SIZE),
    "shrunk below what was kept": (OLD[: DATA_SIZE - 9], DATA_SIZE - 9),
    "shrunk below what was kept, and differs": (b"x" + OLD[1 : DATA_SIZE - 9], None),
    "shrunk to a small file": (OLD[:500], None),
    "shrunk to nothing": (b"", None),
}


@pytest.mark.parametrize("same_transfer", [True, False], ids=["same run", "another run"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_source_is_never_mixed_with_what_was_kept(
    storage: Storage, engine: Engine, here: Path, home: Path, change: str, same_transfer: bool
) -> None:
    content, offset = CHANGES[change]
    kept(storage, engine, put(1, "a", size=SIZE, mtime=1), OLD[:DATA_SIZE])
    again = item(written(here / "a", content), transfer=bytes([1]) * 16 if same_transfer else b"")
    told, receiving = Told(), Receiving(storage, engine)
    send(receiving, [again], told)
    assert files_in(home) == {"a": content}
    assert told.outcomes() == {"a": "stored"}
    assert told.receipts[again].sha256 == digest(content)
    assert told.bytes[again] == len(content) - (offset or 0)
    assert told.offsets.get(again) == offset
    if len(content) > UNASKED_LIMIT:
        assert kept_of(home) == []
    if offset is None and len(content) > DATA_SIZE:
        assert told.again == [again], "the user hears that it starts again"


def test_torn_partial_starts_again(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    """After a power cut there may be zeros where bytes were."""
    content = os.urandom(SIZE)
    kept(storage, engine, put(1, "a", size=SIZE), content[: 2 * DATA_SIZE])
    with partial_of(home).open("r+b") as file:
        file.seek(DATA_SIZE + 100)
        file.write(bytes(5_000))
    again, told = item(written(here / "a", content)), Told()
    send(Receiving(storage, engine), [again], told)
    assert on_disk(home) == {"a": content}
    assert told.bytes[again] == SIZE
    assert told.again == [again]


def test_torn_partial_goes_on_from_what_was_surely_on_the_disk(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    content = os.urandom(SIZE)
    kept(storage, engine, put(1, "a", size=SIZE), content[: 2 * DATA_SIZE])
    set_durable(home, DATA_SIZE)
    with partial_of(home).open("r+b") as file:
        file.seek(DATA_SIZE + 100)
        file.write(bytes(5_000))
    again, told = item(written(here / "a", content)), Told()
    send(Receiving(storage, engine), [again], told)
    assert on_disk(home) == {"a": content}
    assert told.bytes[again] == SIZE - DATA_SIZE
    assert told.hashed[again] == 3 * DATA_SIZE, "two comparisons"
    assert told.offsets == {again: DATA_SIZE}
    assert told.again == []


@pytest.mark.parametrize("journal", [b"", b"{", b"[]", b"null", b'{"transfer": 1}', b"\0" * 200, b"\xff" * 10])
def test_torn_journal_starts_again(storage: Storage, engine: Engine, here: Path, home: Path, journal: bytes) -> None:
    content = os.urandom(SIZE)
    kept(storage, engine, put(1, "a", size=SIZE), content[:DATA_SIZE])
    partial_of(home).with_suffix(".journal").write_bytes(journal)
    again, told = item(written(here / "a", content)), Told()
    send(Receiving(storage, engine), [again], told)
    assert on_disk(home) == {"a": content}
    assert told.bytes[again] == SIZE


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
@pytest.mark.parametrize("size", [LARGE, DATA_SIZE, SIZE])
def test_identical_large_file_is_not_sent_again(
    storage: Storage, engine: Engine, here: Path, home: Path, size: int, policy: str
) -> None:
    content = os.urandom(size)
    written(home / "a", content)
    inode = (home / "a").stat().st_ino
    again, told = item(written(here / "a", content), policy=policy), Told()
    sent = send(Receiving(storage, engine), [again], told)
    assert told.outcomes() == {"a": "already"}
    assert told.receipts[again].sha256 == digest(content)
    assert told.bytes[again] == 0
    assert sent < OVERHEAD
    assert on_disk(home) == {"a": content}
    assert (home / "a").stat().st_ino == inode


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
@pytest.mark.parametrize("size", [0, 5, UNASKED_LIMIT])
def test_identical_small_file_is_not_written_again(
    storage: Storage, engine: Engine, here: Path, home: Path, size: int, policy: str
) -> None:
    content = os.urandom(size)
    written(home / "a", content)
    inode = (home / "a").stat().st_ino
    again, told = item(written(here / "a", content), policy=policy), Told()
    send(Receiving(storage, engine), [again], told)
    assert told.outcomes() == {"a": "already"}
    assert on_disk(home) == {"a": content}
    assert (home / "a").stat().st_ino == inode


@pytest.mark.parametrize("size", [5, LARGE, DATA_SIZE + 1], ids=["small", "large", "larger"])
@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
def test_other_file_of_the_same_size_is_a_matter_of_policy(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: str, size: int
) -> None:
    old, new = b"o" * size, b"n" * size
    written(home / "a", old)
    one, told = item(written(here / "a", new), policy=policy), Told()
    send(Receiving(storage, engine), [one], told)
    if policy == "fail":
        assert told.codes() == {"a": Code.EXISTS}
        assert on_disk(home) == {"a": old}
    elif policy == "rename":
        assert told.receipts[one].path == ("a.1",)
        assert on_disk(home) == {"a": old, "a.1": new}
    elif policy == "replace":
        assert told.outcomes() == {"a": "stored"}
        assert on_disk(home) == {"a": new}
    else:
        assert told.outcomes() == {"a": "skipped"}
        assert on_disk(home) == {"a": old}
        assert told.hashed == {}


def test_kept_part_of_a_file_whose_name_was_taken_meanwhile(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    """First it is compared with what is there, then with what was kept."""
    content, other = os.urandom(SIZE), os.urandom(SIZE)
    kept(storage, engine, put(1, "a", size=SIZE), content[:DATA_SIZE])
    written(home / "a", other)
    one, told = item(written(here / "a", content), policy="replace"), Told()
    send(Receiving(storage, engine), [one], told)
    assert on_disk(home) == {"a": content}
    assert told.hashed[one] == SIZE + DATA_SIZE
    assert told.bytes[one] == SIZE - DATA_SIZE


# --- two at once, and a lost receipt ----------------------------------------------------------------------------------


def say_the_first_block(raw: Raw, announced: Put, content: bytes) -> None:
    """It is accepted from its beginning."""
    raw.say(announced.encode())
    assert raw.hear() == Accept(announced.id, 0)
    raw.say(data(announced.id, 0, content[:DATA_SIZE]))


def say_the_rest(raw: Raw, announced: Put, content: bytes) -> None:
    """From the second block on, to the farewell; a receipt comes back."""
    for offset in range(DATA_SIZE, len(content), DATA_SIZE):
        raw.say(data(announced.id, offset, content[offset : offset + DATA_SIZE]))
    raw.say(end(announced, content).encode(), BYE_MESSAGE)
    assert [type(message) for message in raw.hear_all()] == [Receipt, Bye]
    raw.close()


def test_second_transfer_of_a_path_is_busy_while_the_first_is_under_way(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    content = os.urandom(SIZE)
    announced = put(1, "a", size=SIZE)
    first = Receiving(storage, engine)
    raw = Raw(first.near, C2S, S2C)
    say_the_first_block(raw, announced, content)
    second, told = item(written(here / "a", b"x" * SIZE)), Told()
    send(Receiving(storage, engine), [second, item(written(here / "b", b"b"))], told)
    assert told.codes() == {"a": Code.BUSY}
    assert told.outcomes() == {"b": "stored"}, "one file's trouble"
    say_the_rest(raw, announced, content)
    assert first.finish() is None
    assert on_disk(home) == {"a": content, "b": b"b"}


@pytest.mark.parametrize("late", ["data", "end", "cut"])
def test_same_transfer_takes_over_and_the_old_connection_is_refused(
    storage: Storage, engine: Engine, here: Path, home: Path, late: str
) -> None:
    """A client whose line was cut comes back before the server has noticed."""
    content = os.urandom(SIZE)
    announced = put(1, "a", size=SIZE)
    old = Receiving(storage, engine)
    raw = Raw(old.near, C2S, S2C)
    say_the_first_block(raw, announced, content)
    wait_for_bytes(home, DATA_SIZE)
    new = Receiving(storage, engine)
    fresh = Raw(new.near, C2S, S2C)
    fresh.say(announced.encode())
    assert fresh.hear() == Check(1, DATA_SIZE, None)
    fresh.say(Check(1, DATA_SIZE, digest(content[:DATA_SIZE])).encode())
    assert fresh.hear() == Accept(1, DATA_SIZE)
    if late == "data":
        raw.say(data(1, DATA_SIZE, b"x" * DATA_SIZE))
        assert raw.hear() == Refuse(1, Code.BUSY)
        raw.say(Cancel(1).encode(), BYE_MESSAGE)
    elif late == "end":
        raw.say(end(announced, content[:DATA_SIZE]).encode(), BYE_MESSAGE)
        assert raw.hear() == Refuse(1, Code.SIZE)
    raw.stop()
    raw.hear_all()
    raw.close()
    assert isinstance(old.finish(), ConnectionTrouble if late == "cut" else type(None))
    say_the_rest(fresh, announced, content)
    assert new.finish() is None
    assert on_disk(home) == {"a": content}


def wait_for_bytes(home: Path, count: int) -> None:
    """Until the receiver has written so many; `no_hang` watches."""
    waiting = threading.Event()
    while kept_of(home) != [count]:
        waiting.wait(0.005)


def test_large_transfer_announced_twice_on_one_connection_is_taken_once(
    storage: Storage, engine: Engine, home: Path
) -> None:
    content = os.urandom(LARGE)
    one = Put(2, b"t" * 16, ("same",), "file", LARGE, None, None, "fail")
    two = Put(3, b"t" * 16, ("same",), "file", LARGE, None, None, "fail")
    hostile = Hostile(storage, engine)
    hostile.raw.say(one.encode(), two.encode())
    assert [hostile.raw.hear(), hostile.raw.hear()] == [Accept(2, 0), Accept(3, 0)]
    hostile.raw.say(data(2, 0, b"x" * LARGE))
    assert hostile.raw.hear() == Refuse(2, Code.BUSY)
    hostile.raw.say(Cancel(2).encode(), data(3, 0, content), end(two, content).encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [message.id for message in heard if isinstance(message, Receipt)] == [3]
    assert on_disk(home) == {"good": b"12345", "same": content}


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
@pytest.mark.parametrize("taken", [False, True], ids=["free name", "taken name"])
def test_lost_receipt_is_repeated_and_not_the_file(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: str, size: int, taken: bool
) -> None:
    if taken and policy == "fail":
        policy = "rename"
    content = os.urandom(size)
    if taken:
        written(home / "a", b"an older one")
    one = item(written(here / "a", content), policy=policy)
    lost, told = Receiving(storage, engine), Told()
    lost.channel.post = lambda *messages: None  # type: ignore[method-assign]  # nothing that it says arrives
    raw = Raw(lost.near, C2S, S2C)
    announced = Put(1, one.transfer, ("a",), "file", size, path_of(one).stat().st_mtime_ns, 0o644, policy)
    raw.say(announced.encode(), data(1, 0, content), end(announced, content).encode(), BYE_MESSAGE)
    assert raw.hear_all() == []
    raw.close()
    lost.finish()
    before = on_disk(home)
    assert list(before.values()).count(content) == 1
    one.sha256 = digest(content)  # what its END has said, over the connection that broke
    send(Receiving(storage, engine), [one], told)
    assert told.outcomes() == {"a": "already"}
    assert told.receipts[one].path == (("a.1",) if taken and policy == "rename" else ("a",))
    assert told.receipts[one].sha256 == digest(content)
    assert on_disk(home) == before


# --- CHECKs that lie --------------------------------------------------------------------------------------------------

BIG = bytes(range(256)) * 8192  # 2 MiB, of which DATA_SIZE is the first half
HALF = digest(BIG[:DATA_SIZE])


def big_receipt(sha256: bytes | None, size: int = len(BIG), outcome: str = "already") -> bytes:
    return receipt(path=("a",), size=size, sha256=sha256, outcome=outcome)


# What the receiver says to a PUT of 2 MiB; and again once the sender has answered a CHECK, if there are two lists.
RECEIVER_LIES: dict[str, tuple[type[TransferError], list[bytes], list[bytes]]] = {
    "check of nothing": (ProtocolViolation, [Check(1, 0, None).encode()], []),
    "check of more than there is": (ProtocolViolation, [Check(1, len(BIG) + 1, None).encode()], []),
    "check that answers": (ProtocolViolation, [Check(1, DATA_SIZE, HALF).encode()], []),
    "check of an id never announced": (ProtocolViolation, [Check(2, DATA_SIZE, None).encode()], []),
    "two checks at once": (ProtocolViolation, [Check(1, DATA_SIZE, None).encode()] * 2, []),
    "accept before the answer": (
        ProtocolViolation,
        [Check(1, DATA_SIZE, None).encode(), Accept(1, 0).encode()],
        [],
    ),
    "accept of what was never checked": (ProtocolViolation, [Accept(1, DATA_SIZE).encode()], []),
    "accept of another offset": (
        ProtocolViolation,
        [Check(1, DATA_SIZE, None).encode()],
        [Accept(1, DATA_SIZE - 1).encode()],
    ),
    "accept of an older check": (
        ProtocolViolation,
        [Check(1, DATA_SIZE, None).encode()],
        [Check(1, 5, None).encode(), Accept(1, DATA_SIZE).encode()],
    ),
    "two accepts": (ProtocolViolation, [Accept(1, 0).encode()] * 2, []),
    "check behind an accept": (ProtocolViolation, [Accept(1, 0).encode(), Check(1, 5, None).encode()], []),
    "already there without a check": (IntegrityError, [big_receipt(digest(BIG))], []),
    "already there after a check of a part": (
        IntegrityError,
        [Check(1, DATA_SIZE, None).encode()],
        [big_receipt(digest(BIG))],
    ),
    "already there with the digest of a part": (
        IntegrityError,
        [Check(1, DATA_SIZE, None).encode()],
        [big_receipt(HALF)],
    ),
    "already there with another digest": (
        IntegrityError,
        [Check(1, len(BIG), None).encode()],
        [big_receipt(digest(b"x"))],
    ),
    "already there without a digest": (IntegrityError, [Check(1, len(BIG), None).encode()], [big_receipt(None)]),
    "already there with another size": (
        IntegrityError,
        [Check(1, len(BIG), None).encode()],
        [big_receipt(digest(BIG), DATA_SIZE)],
    ),
}


@pytest.mark.parametrize("lie", RECEIVER_LIES)
def test_receiver_that_lies_about_what_it_has_ends_the_connection(engine: Engine, here: Path, lie: str) -> None:
    error, first, then = RECEIVER_LIES[lie]
    lied = Lied(engine, [item(written(here / "a", BIG))])
    lied.hear(Put)
    lied.raw.say(*first)
    if then:
        assert isinstance(lied.hear(Check)[-1], Check)
        lied.raw.say(*then)
    problem = lied.finish()
    assert type(problem) is error
    assert lied.told.receipts == {}


def test_check_of_a_pipe_is_a_violation(engine: Engine) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    lied = Lied(engine, [Item("pipe", ("a",), "fail", lambda: PipeSource(reading))])
    lied.hear(Put)
    lied.raw.say(Check(1, 1, None).encode())
    assert isinstance(lied.finish(), ProtocolViolation)
    os.close(reading)


@pytest.mark.parametrize("change", ["shrinks", "grows", "is rewritten"])
def test_source_that_changes_after_it_was_compared_is_withdrawn(engine: Engine, here: Path, change: str) -> None:
    source = written(here / "a", BIG)
    lied = Lied(engine, [item(source)])
    lied.hear(Put)
    lied.raw.say(Check(1, DATA_SIZE, None).encode())
    lied.hear(Check)
    if change == "shrinks":
        os.truncate(source, DATA_SIZE - 1)
    elif change == "grows":
        with source.open("ab") as file:
            file.write(b"x")
    else:
        os.utime(source, ns=(1, 1))
    if change == "shrinks":
        lied.raw.say(Check(1, DATA_SIZE, None).encode())
    else:
        lied.raw.say(Accept(1, DATA_SIZE).encode())
    heard = lied.hear(Cancel)
    assert not any(isinstance(message, End) for message in heard)
    lied.raw.say(BYE_MESSAGE)
    lied.hear(Bye)
    assert lied.finish() is None
    assert lied.told.codes() == {"a": SourceError}


KEPT = put(2, "next", size=len(BIG))
ANSWER = Check(2, DATA_SIZE, HALF).encode()

# What the sender says when it is asked for the digest of the first half of "next".
SENDER_LIES: dict[str, list[bytes]] = {
    "another size": [Check(2, DATA_SIZE - 1, HALF).encode()],
    "a larger size": [Check(2, len(BIG), digest(BIG)).encode()],
    "no size": [Check(2, 0, digest(b"")).encode()],
    "no digest": [Check(2, DATA_SIZE, None).encode()],
    "another id": [Check(3, DATA_SIZE, HALF).encode()],
    "twice": [ANSWER, ANSWER],
    "data meanwhile": [data(2, 0, b"x")],
    "data behind it": [data(2, DATA_SIZE, BIG[DATA_SIZE:])],
    "end meanwhile": [end(KEPT, BIG).encode()],
    "bye meanwhile": [BYE_MESSAGE],
    "the same id again": [KEPT.encode()],
    "data from the start, though it goes on": [ANSWER, data(2, 0, BIG[:DATA_SIZE])],
    "data before what is missing": [ANSWER, data(2, DATA_SIZE - 1, b"x")],
    "a gap": [ANSWER, data(2, DATA_SIZE + 1, b"x")],
}


ABOUT_A_TWIN = ("another size", "no size", "no digest", "data meanwhile", "end meanwhile", "bye meanwhile")


@pytest.mark.parametrize(
    ("there", "lie"), [*(("kept", lie) for lie in SENDER_LIES), *(("twin", lie) for lie in ABOUT_A_TWIN)]
)
def test_sender_that_lies_about_what_it_has_ends_the_connection(
    storage: Storage, engine: Engine, home: Path, lie: str, there: str
) -> None:
    """What was kept stays kept for an honest sender; nothing becomes visible, and nothing visible changes."""
    messages = SENDER_LIES[lie]
    if there == "kept":
        kept(storage, engine, put(1, "next", size=len(BIG)), BIG[:DATA_SIZE])
    else:
        written(home / "next", BIG)
    hostile = Hostile(storage, engine)
    hostile.raw.say(KEPT.encode())
    assert hostile.raw.hear() == Check(2, DATA_SIZE if there == "kept" else len(BIG), None)
    hostile.raw.say(*messages)
    heard, problem = hostile.finish()
    assert isinstance(problem, ProtocolViolation)
    assert heard[-1] == Error(Code.PROTOCOL)
    assert not any(isinstance(message, Receipt) for message in heard)
    assert files_in(home) == {"good": b"12345"} | ({"next": BIG} if there == "twin" else {})
    assert kept_of(home) == ([DATA_SIZE] if there == "kept" else [])


def test_sender_that_claims_to_have_what_was_kept_and_does_not_is_refused(
    storage: Storage, engine: Engine, home: Path
) -> None:
    """It knows the digest, and sends the rest of another file: the digest of the whole is not the one that it says."""
    kept(storage, engine, put(1, "next", size=len(BIG)), BIG[:DATA_SIZE])
    hostile = Hostile(storage, engine)
    hostile.raw.say(KEPT.encode())
    assert hostile.raw.hear() == Check(2, DATA_SIZE, None)
    other = b"x" * DATA_SIZE
    hostile.raw.say(ANSWER, data(2, DATA_SIZE, other), end(KEPT, other + other).encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert heard[:2] == [Accept(2, DATA_SIZE), Refuse(2, Code.INTEGRITY)]
    assert on_disk(home) == {"good": b"12345"}


def test_resumed_file_is_proved_anew_from_its_first_byte(storage: Storage, engine: Engine, home: Path) -> None:
    """An END that covers only what this connection has sent is none."""
    kept(storage, engine, put(1, "next", size=len(BIG)), BIG[:DATA_SIZE])
    hostile = Hostile(storage, engine)
    hostile.raw.say(KEPT.encode())
    assert hostile.raw.hear() == Check(2, DATA_SIZE, None)
    rest = BIG[DATA_SIZE:]
    forged = wrong(end(KEPT, BIG), sha256=digest(rest))
    hostile.raw.say(ANSWER, data(2, DATA_SIZE, rest), forged, BYE_MESSAGE)
    heard, _ = hostile.finish()
    assert heard[:2] == [Accept(2, DATA_SIZE), Refuse(2, Code.INTEGRITY)]
    assert on_disk(home) == {"good": b"12345"}


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_cancel_while_it_is_compared_removes_what_was_kept(
    storage: Storage, engine: Engine, home: Path, policy: str
) -> None:
    kept(storage, engine, put(1, "next", size=len(BIG)), BIG[:DATA_SIZE])
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "next", size=len(BIG), policy=policy).encode())
    assert hostile.raw.hear() == Check(2, DATA_SIZE, None)
    hostile.raw.say(Cancel(2).encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert (heard, problem) == ([Bye()], None)
    assert on_disk(home) == {"good": b"12345"}


def test_cut_while_many_files_are_compared_leaves_no_descriptor_open(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them is still being read when the connection breaks; nobody begins with the others."""
    go_on = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            go_on.set()
            super().shutdown(wait=wait)

    read = Twin.digest

    def read_slowly(twin: Twin, goes_on: Callable[[], bool] = lambda: True) -> bytes:
        go_on.wait()
        return read(twin, goes_on)

    monkeypatch.setattr(sft.transfer.receiver, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(Twin, "digest", read_slowly)
    for number in range(30):
        written(home / f"{number}", BIG)
    before = len(os.listdir("/dev/fd"))
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(put(number + 1, f"{number}", size=len(BIG)).encode() for number in range(30)))
    assert isinstance(raw.hear(), Check)
    raw.close()
    assert isinstance(receiving.finish(), ConnectionTrouble)
    assert len(os.listdir("/dev/fd")) == before


# --- folders ----------------------------------------------------------------------------------------------------------


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


def test_many_folders_do_not_lock(storage: Storage, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the window: a folder is closed by its receipt, and by nothing else."""
    monkeypatch.setattr(sft.transfer.sender, "WINDOW", 50)
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 50)
    engine = Engine(1)
    told = Told()
    items = [folder_item(f"{number % 10}", f"{number}") for number in range(400)]
    send(Receiving(storage, engine, buffers=4096), items, told)
    assert len(told.receipts) == 400
    engine.close()


# --- pipes ------------------------------------------------------------------------------------------------------------


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
def test_pipe_onto_a_name_that_is_taken(storage: Storage, engine: Engine, here: Path, home: Path, policy: str) -> None:
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


# --- GET --------------------------------------------------------------------------------------------------------------


class Noted(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(no_log("test.transfer"), quiet=True, as_json=False, receipts=None)
        self.outcomes: dict[str, str] = {}
        self.problems: list[tuple[str, Code | type[TransferError]]] = []
        self.offsets: dict[str, int] = {}

    def delivered(self, name: str, path: str, size: int, sha256: bytes, time_ns: int, outcome: str) -> None:
        self.outcomes[name] = outcome
        super().delivered(name, path, size, sha256, time_ns, outcome)

    def failed(self, name: str, problem: TransferError) -> None:
        self.problems.append((name, problem.code if isinstance(problem, Refused) else type(problem)))
        super().failed(name, problem)

    def resumed(self, name: str, offset: int) -> None:
        self.offsets[name] = offset
        super().resumed(name, offset)


class Fetch:
    """The client's side of a GET, as the program does it, on one end of a connection."""

    def __init__(
        self, engine: Engine, near: Any, names: list[str], target: str, policy: str = "fail", preserve: bool = False
    ) -> None:
        self.reporter = Noted()
        self.fetching = Fetching(self.reporter, policy, preserve, names, target)
        self.engine, self.channel = engine, Channel(near, C2S, S2C, engine)
        self.problem: TransferError | None = None

    def run(self) -> None:
        folder = open_local(self.fetching.base, Rules())
        code: Code | None = None
        try:
            for id, path in enumerate(self.fetching.wanted, 1):
                self.channel.post(Get(id, path, id < len(self.fetching.wanted)).encode())
            Receiver(
                self.channel,
                self.channel.messages(),
                FILE_SECRET,
                self.fetching.remembering(folder),
                self.fetching.place,
                self.fetching,
                Pace(None),
            ).run()
        except TransferError as problem:
            self.problem = problem.with_traceback(None)
            code = Code.PROTOCOL if isinstance(problem, ProtocolViolation) else None
        finally:
            close_local(folder)
            self.channel.close(code)


def fetch(
    receiving: Receiving, names: list[str], target: Path | str, policy: str = "fail", preserve: bool = False
) -> Noted:
    """Fetch from our own server, and end the connection."""
    fetched = Fetch(receiving.engine, receiving.near, names, str(target), policy, preserve)
    fetched.run()
    assert receiving.finish() is None
    assert fetched.problem is None
    check_nothing_is_left(receiving.engine, fetched.channel)
    return fetched.reporter


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where what is fetched lands; its neighbour must never change."""
    written(tmp_path / "outside/secret", b"untouched")
    return tmp_path / "into"


TREE = {"a": b"content of a", "d/x": b"x", "d/e/y": b"", "d/e/large": bytes(range(256)) * 1000}


@pytest.fixture
def there(home: Path) -> Path:
    """A tree at the server, with an empty folder, and a link that is never given."""
    for name, content in TREE.items():
        written(home / name, content)
    (home / "d/empty").mkdir()
    (home / "d/link").symlink_to("x")
    os.utime(home / "d/x", ns=(5, 1_234_567_890_123_456_789))
    os.utime(home / "d", ns=(5, 1_200_000_000_000_000_000))
    return home


@pytest.mark.parametrize(
    ("names", "target", "found"),
    [
        (["a"], "b", {"b": TREE["a"]}),
        (["a"], "b/", {"b/a": TREE["a"]}),
        (["a"], ".", {"a": TREE["a"]}),
        (["d/x"], "z", {"z": b"x"}),
        (["d/e"], "new", {"new/y": b"", "new/large": TREE["d/e/large"]}),
        (["d/e"], "new/", {"new/e/y": b"", "new/e/large": TREE["d/e/large"]}),
        (["d/"], ".", {name: content for name, content in TREE.items() if name != "a"}),
        ([""], "all/", {f"all/{name}": content for name, content in TREE.items()}),
        (["."], "all", {f"all/{name}": content for name, content in TREE.items()}),
        (["/"], ".", TREE),
        (["a", "d/x", "d/e/y"], "box", {"box/a": TREE["a"], "box/x": b"x", "box/y": b""}),
        (["d", "a"], "box/", {f"box/{name}": content for name, content in TREE.items()}),
    ],
)
@pytest.mark.usefixtures("there")
def test_get_brings_what_was_named(
    storage: Storage, engine: Engine, into: Path, names: list[str], target: str, found: dict[str, bytes]
) -> None:
    into.mkdir()
    noted = fetch(Receiving(storage, engine), names, f"{into}/{target}")
    assert noted.problems == []
    assert files_in(into) == found
    assert set(noted.outcomes.values()) == {"stored"}
    assert not list(into.rglob("link"))


@pytest.mark.usefixtures("there")
def test_get_keeps_times_and_brings_empty_folders(storage: Storage, engine: Engine, into: Path) -> None:
    fetch(Receiving(storage, engine), ["d"], f"{into}/")
    assert (into / "d/empty").is_dir()
    assert (into / "d/x").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (into / "d").stat().st_mtime_ns == 1_200_000_000_000_000_000


@pytest.mark.usefixtures("there")
def test_get_again_brings_nothing_again(storage: Storage, engine: Engine, into: Path) -> None:
    fetch(Receiving(storage, engine), ["d", "a"], into)
    receiving = Receiving(storage, engine)
    noted = fetch(receiving, ["d", "a"], into)
    assert set(noted.outcomes.values()) == {"already"}
    assert len(noted.outcomes) == len(TREE)
    assert noted.problems == []
    large = len(TREE["d/e/large"])
    assert receiving.channel.bytes_sent < large
    assert files_in(into) == TREE


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
@pytest.mark.usefixtures("there")
def test_get_onto_a_name_that_is_taken(storage: Storage, engine: Engine, into: Path, policy: str) -> None:
    written(into / "a", b"mine")
    noted = fetch(Receiving(storage, engine), ["a", "d/x"], into, policy)
    found = files_in(into)
    assert found.pop("x") == b"x"
    assert (
        found
        == {
            "fail": {"a": b"mine"},
            "rename": {"a": b"mine", "a.1": TREE["a"]},
            "replace": {"a": TREE["a"]},
            "skip": {"a": b"mine"},
        }[policy]
    )
    assert noted.problems == ([("a", Code.EXISTS)] if policy == "fail" else [])
    assert noted.skipped_count == (1 if policy == "skip" else 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", Code.NOT_FOUND),
        ("d/missing", Code.NOT_FOUND),
        ("missing/deeper", Code.NOT_FOUND),
        ("a/below", Code.NOT_FOLDER),
        ("d/link", Code.LINK),
        ("d/e/large/y", Code.NOT_FOLDER),
    ],
)
@pytest.mark.usefixtures("there")
def test_get_of_what_can_not_be_given_is_refused_and_the_rest_comes(
    storage: Storage, engine: Engine, into: Path, name: str, code: Code
) -> None:
    noted = fetch(Receiving(storage, engine), ["a", name, "d/x"], into)
    assert noted.problems == [(name, code)]
    assert files_in(into) == {"a": TREE["a"], "x": b"x"}
    assert noted.status == 1


def test_refusal_of_a_get_has_its_id(storage: Storage, engine: Engine, there: Path) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(
        Get(41, ("missing",), True).encode(), Get(7, ("..",), True).encode(), Get(9, ("d", "empty"), False).encode()
    )
    heard = [raw.hear() for _ in range(3)]
    assert Refuse(41, Code.NOT_FOUND) in heard
    assert Refuse(7, Code.NAME) in heard
    (announced,) = [message for message in heard if isinstance(message, Put)]
    assert (announced.path, announced.kind) == (("empty",), "folder")
    raw.say(receipt(announced.id, ("empty",), 0, None, "folder"))
    assert raw.hear() == Bye()
    raw.say(BYE_MESSAGE)
    raw.hear_all()
    raw.close()
    assert receiving.finish() is None


def test_files_there_that_can_not_be_read_are_each_named_and_the_rest_comes(
    storage: Storage, engine: Engine, there: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = UserFolder.open_file

    def open_some(folder: UserFolder, path: tuple[str, ...]) -> int:
        if path[-1] in ("x", "y"):
            raise Refused(Code.STORAGE, why="Permission denied")
        return opened(folder, path)

    monkeypatch.setattr(UserFolder, "open_file", open_some)
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    assert noted.problems == [("d/e/y", Code.UNREADABLE), ("d/x", Code.UNREADABLE)]
    assert files_in(into) == {name: TREE[name] for name in ("a", "d/e/large")}


@pytest.mark.parametrize("name", ["evil\nname", "\x1b[2J"])
def test_names_there_that_no_end_may_have_are_each_told_and_the_rest_comes(
    storage: Storage, engine: Engine, there: Path, into: Path, name: str
) -> None:
    """Put there by other means: not silently left out, because then the client would believe that it has all."""
    written(there / "d" / name, b"evil")
    written(there / "d" / f"{name}2", b"evil")
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    shown = name.replace("\n", "\\x0a").replace("\x1b", "\\x1b")
    assert noted.problems == [(f"d/{shown}", Code.NAME), (f"d/{shown}2", Code.NAME)]
    assert noted.status == 1
    assert files_in(into) == TREE


@pytest.mark.parametrize(("name", "levels"), [("n" * 230, 18), ("n", 12)], ids=["long", "deep"])
def test_path_there_that_is_too_long_is_told_and_the_rest_comes(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    name: str,
    levels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "n":
        monkeypatch.setattr(sft.common.names, "MAX_DEPTH", 10)
    place = os.open(there / "d", os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    shutil.rmtree(there / "d" / name)
    shutil.rmtree(into / "d" / name)
    ((told, code),) = noted.problems
    assert told.startswith(f"d/{name}/{name}") and code is Code.NAME
    assert files_in(into) == TREE


@pytest.mark.parametrize("offset", [1, DATA_SIZE, SIZE - 1, SIZE])
def test_get_goes_on_where_an_earlier_one_was_cut(
    storage: Storage, engine: Engine, home: Path, into: Path, offset: int
) -> None:
    content = os.urandom(SIZE)
    written(home / "a", content)
    mtime = (home / "a").stat().st_mtime_ns
    near, far = tcp_pair()
    raw = Raw(far, S2C, C2S)
    cut = Fetch(engine, near, ["a"], f"{into}/")
    thread = threading.Thread(target=cut.run, daemon=True)
    thread.start()
    assert raw.hear() == Get(1, ("a",), False)
    raw.say(put(1, "a", size=SIZE, mtime=mtime).encode())
    assert raw.hear() == Accept(1, 0)
    for at in range(0, offset, DATA_SIZE):
        raw.say(data(1, at, content[at : min(at + DATA_SIZE, offset)]))
    raw.stop()
    raw.hear_all()
    raw.close()
    thread.join(30)
    assert isinstance(cut.problem, ConnectionTrouble)
    assert not (into / "a").exists()
    receiving = Receiving(storage, engine)
    noted = fetch(receiving, ["a"], f"{into}/")
    assert files_in(into) == {"a": content}, "and nothing of the partial area is left"
    assert noted.offsets == {"a": offset}
    assert noted.bytes_moved == SIZE - offset
    assert SIZE - offset <= receiving.channel.bytes_sent <= SIZE - offset + OVERHEAD


def test_get_over_a_second_connection_of_the_same_run_tells_each_file_once(
    storage: Storage, engine: Engine, there: Path, into: Path
) -> None:
    """What has arrived over the connection that broke is not looked at again, whatever the policy."""
    receiving = Receiving(storage, engine)
    first = Fetch(engine, receiving.near, ["d", "a"], f"{into}/", "rename")
    first.run()
    receiving.finish()
    again = Receiving(storage, engine)
    second = Fetch(engine, again.near, ["d", "a"], f"{into}/", "rename")
    second.fetching, second.reporter = first.fetching, first.reporter
    second.run()
    assert (receiving.problem, again.finish(), second.problem) == (None, None, None)
    assert again.channel.bytes_sent < len(TREE["d/e/large"])
    assert files_in(into) == TREE
    assert first.reporter.delivered_count == len(TREE)
    assert first.reporter.problems == []


@pytest.mark.parametrize(
    "messages",
    [
        [Get(1, ("a",), True).encode(), Put(1, b"t" * 16, ("a",), "file", 0, None, None, "fail").encode()],
        [Get(1, ("a",), True).encode(), ListFolder(1, (), None).encode()],
        [Get(1, ("a",), True).encode(), BYE_MESSAGE],
        [Get(1, ("d", "empty"), False).encode(), Get(2, ("a",), False).encode()],
        [Get(1, ("d", "empty"), False).encode(), data(1, 0, b"x")],
        [Get(1, ("d", "empty"), False).encode(), BYE_MESSAGE],
        [Accept(1, 0).encode()],
        [receipt()],
        [Entries(1, (), False).encode()],
        [Cancel(1).encode()],
        [Check(1, 5, None).encode()],
        [Refuse(1, Code.EXISTS).encode()],
    ],
)
@pytest.mark.usefixtures("there")
def test_client_that_breaks_the_rules_of_get_is_told_so(
    storage: Storage, engine: Engine, messages: list[bytes]
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*messages)
    assert raw.hear_all()[-1] == Error(Code.PROTOCOL)
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


def test_more_gets_than_the_window_are_a_violation(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.server.requests, "WINDOW", 5)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(Get(number, ("a",), True).encode() for number in range(1, 7)))
    assert raw.hear_all() == [Error(Code.PROTOCOL)]
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


@pytest.mark.parametrize(
    ("path", "right", "code"), [(("n" * 255,) * 200, True, Code.NAME), (("a",), False, Code.DENIED)]
)
def test_get_that_is_refused_anyway_is_not_kept_until_the_last_one_came(
    storage: Storage, engine: Engine, path: tuple[str, ...], right: bool, code: Code
) -> None:
    """Thousands of paths as long as a message may be would be hundreds of megabytes."""

    def admit(_: str) -> None:
        if not right:
            raise Refused(Code.DENIED)

    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    for number in range(1, 4):
        raw.say(Get(number, path, True).encode())
        assert raw.hear() == Refuse(number, code)
    raw.say(Get(4, ("missing",), False).encode())
    assert [raw.hear(), raw.hear()] == [Refuse(4, Code.NOT_FOUND if right else code), Bye()]
    raw.say(BYE_MESSAGE)
    raw.stop()
    assert raw.hear_all() == []
    raw.close()
    assert receiving.finish() is None


def test_client_that_says_nothing_but_bye_gets_a_bye(storage: Storage, engine: Engine) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(PING_MESSAGE, BYE_MESSAGE)
    assert raw.hear_all() == [Bye()]
    raw.close()
    assert receiving.finish() is None


# --- a server that lies when it is asked to GET -----------------------------------------------------------------------


class Asked:
    """A client that fetches into a folder, and at the other end a server that is spoken by hand."""

    def __init__(self, engine: Engine, names: list[str], target: str, policy: str = "fail") -> None:
        near, far = tcp_pair()
        self.raw = Raw(far, S2C, C2S)
        self.fetch = Fetch(engine, near, names, target, policy)
        self.reporter = self.fetch.reporter
        self.thread = threading.Thread(target=self.fetch.run, daemon=True)
        self.thread.start()
        for number, path in enumerate(self.fetch.fetching.wanted, 1):
            assert self.raw.hear() == Get(number, path, number < len(names))

    def give(self, announced: Put, content: bytes = b"evil!") -> None:
        """A whole small file, unasked, as the rules have it."""
        self.raw.say(announced.encode(), data(announced.id, 0, content), end(announced, content).encode())

    def finish(self, bye: bool = True) -> tuple[list[Message], TransferError | None]:
        if bye:
            with contextlib.suppress(OSError):
                self.raw.say(BYE_MESSAGE)
        self.raw.stop()
        heard = self.raw.hear_all()
        self.raw.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        check_nothing_is_left(self.fetch.engine, self.fetch.channel)
        return heard, self.fetch.problem


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder, links as what they say."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


LONG = "n" * 256
# Asked for "box/d" and "box/f", into a folder: what a server may not place, and how each is refused.
NEVER: dict[str, tuple[str, ...]] = {  # names that are not allowed: a violation
    "above": ("..", "outside", "secret"),
    "above, behind what was asked": ("d", "..", "..", "outside", "secret"),
    "only dots": ("..",),
    "here": (".",),
    "nothing": (),
    "an empty component": ("", "etc", "passwd"),
    "an empty component inside": ("d", "", "x"),
    "absolute": ("/etc/passwd",),
    "absolute inside": ("d", "/tmp/x"),
    "a slash": ("d/x",),
    "slashes upwards": ("d", "../../outside/secret"),
    "nul": ("d", "x\0y"),
    "newline": ("d", "x\ny"),
    "escape": ("d", "\x1b[2J"),
    "too long": ("d", LONG),
    "too deep": ("d", *["x"] * 255),
    "a path too long": ("d", *["x" * 255] * 16),
}
EVIL: dict[str, tuple[Code, tuple[str, ...]]] = {
    "the way that was asked, not its end": (Code.DENIED, ("box", "d", "x")),
    "another name": (Code.DENIED, ("other",)),
    "another folder": (Code.DENIED, ("other", "d")),
    "the name in another case": (Code.DENIED, ("D", "x")),
    "the partial area": (Code.NAME, (".secure-file-transfer-partial", "x")),
    "through a link": (Code.LINK, ("d", "link", "secret")),
    "below a file": (Code.NOT_FOLDER, ("d", "mine", "x")),
    "onto a folder": (Code.IS_FOLDER, ("d", "sub")),
    "onto a file": (Code.EXISTS, ("d", "mine")),
    "onto a link": (Code.EXISTS, ("d", "link")),
}


@pytest.mark.parametrize("kind", ["small", "large", "folder"])
@pytest.mark.parametrize("trick", EVIL)
def test_server_places_nothing_but_below_what_was_asked(engine: Engine, into: Path, trick: str, kind: str) -> None:
    code, path = EVIL[trick]
    written(into / "d/mine", b"mine")
    (into / "d/sub").mkdir()
    (into / "d/link").symlink_to("../../outside")
    before = snapshot(into.parent)
    asked = Asked(engine, ["box/d", "box/f"], f"{into}/")
    if kind == "folder":
        asked.raw.say(put(1, *path, size=None, kind="folder", mtime=1, mode=0).encode())
        code = {Code.EXISTS: Code.NOT_FOLDER}.get(code, code)
    elif kind == "large":
        asked.raw.say(put(1, *path, size=LARGE).encode())
    else:
        asked.give(put(1, *path))
    if trick == "onto a link" and kind == "folder":
        code = Code.LINK
    fine = trick == "onto a folder" and kind == "folder"
    if kind == "large":
        assert asked.raw.hear() == Refuse(1, code), "before anything of it was sent"
        asked.raw.say(Cancel(1).encode())
    good = put(2, "f")
    asked.give(good, b"12345")
    heard, problem = asked.finish()
    assert problem is None
    refusals = [message.code for message in heard if isinstance(message, Refuse)]
    assert refusals == ([] if fine or kind == "large" else [code])
    assert asked.reporter.problems == ([] if fine else [(show_path(path), code)])
    after = snapshot(into.parent)
    assert after.pop("into/f") == b"12345"
    assert after == before


@pytest.mark.parametrize("kind", ["small", "large", "folder"])
@pytest.mark.parametrize("trick", NEVER)
def test_server_that_gives_a_name_that_is_not_allowed_breaks_the_protocol(
    engine: Engine, into: Path, trick: str, kind: str
) -> None:
    before = snapshot(into.parent)
    asked = Asked(engine, ["box/d", "box/f"], f"{into}/")
    size = {"small": 4, "large": LARGE, "folder": None}[kind]
    asked.raw.say(put(1, *NEVER[trick], size=size, kind="folder" if kind == "folder" else "file").encode())
    heard, problem = asked.finish(bye=False)
    assert isinstance(problem, ProtocolViolation)
    assert heard == [Error(Code.PROTOCOL)]
    assert asked.reporter.problems == []
    assert snapshot(into.parent) == before


class Spending(Pace):
    """A limit that nobody waits for, and a count."""

    def __init__(self) -> None:
        super().__init__(1)
        self.spent = 0

    def spend(self, count: int, before_waiting: Callable[[], None] = lambda: None) -> None:
        self.spent += count


def test_server_that_gives_more_than_one_file_to_standard_output_is_refused(engine: Engine, tmp_path: Path) -> None:
    near, far = tcp_pair()
    raw = Raw(far, S2C, C2S)
    reporter = Noted()
    fetching = Fetching(reporter, "fail", False, ["a"], "-")
    channel = Channel(near, C2S, S2C, engine)
    with (tmp_path / "stdout").open("wb") as file:
        stream = Stream(file.fileno())
        pace = Spending()
        receiver = Receiver(channel, channel.messages(), FILE_SECRET, stream, fetching.place, fetching, pace)
        thread = threading.Thread(target=receiver.run, daemon=True)
        thread.start()
        one, two = put(1, "a"), put(2, "a")
        three = put(3, "a", size=None, kind="folder").encode()
        said = [one.encode(), data(1, 0, b"first"), end(one, b"first").encode()]
        said += [two.encode(), data(2, 0, b"twice"), end(two, b"twice").encode(), three]
        raw.say(*said[:3])
        raw.say(*said[3:5])
        raw.say(*said[5:], BYE_MESSAGE)
        heard = list(iter(raw.hear, Bye()))
        thread.join(30)
        raw.close()
        channel.close()
    assert (tmp_path / "stdout").read_bytes() == b"first"
    assert stream.whole
    assert pace.spent == sum(map(len, said)), "what is refused came, too"
    assert [message for message in heard if isinstance(message, Refuse)] == [
        Refuse(2, Code.UNSUPPORTED),
        Refuse(3, Code.IS_FOLDER),
    ]
    assert reporter.outcomes == {"a": "stored"}
    assert len(reporter.problems) == 2


def test_server_that_gives_the_same_file_twice_changes_nothing(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.give(put(1, "a", mtime=1), b"first")
    asked.give(put(2, "a", mtime=2), b"other")
    asked.give(put(3, "a", mtime=1), b"third")
    heard, problem = asked.finish()
    assert problem is None
    assert Refuse(2, Code.EXISTS) in heard
    assert files_in(into) == {"a": b"first"}
    assert asked.reporter.delivered_count == 1


def test_server_that_gives_a_folder_for_a_file_keeps_to_the_name(engine: Engine, into: Path) -> None:
    """What was asked for may be a folder: it lands under the one name, and nowhere else."""
    asked = Asked(engine, ["box/a"], f"{into}/out.txt")
    asked.raw.say(put(1, "a", size=None, kind="folder").encode())
    asked.give(put(2, "a", "x"))
    asked.give(put(3, "out.txt", "y"))
    asked.give(put(4, "b"))
    heard, problem = asked.finish()
    assert problem is None
    assert [message for message in heard if isinstance(message, Refuse)] == [
        Refuse(3, Code.DENIED),
        Refuse(4, Code.DENIED),
    ]
    assert files_in(into) == {"out.txt/x": b"evil!"}
    assert files_in(into.parent / "outside") == {"secret": b"untouched"}


@pytest.mark.parametrize("policy", ["replace", "rename"])
def test_server_replaces_no_folder_and_no_link(engine: Engine, into: Path, policy: str) -> None:
    written(into / "d/sub/mine", b"mine")
    (into / "d/link").symlink_to("../../outside/secret")
    asked = Asked(engine, ["d"], f"{into}/", policy)
    asked.give(put(1, "d", "sub"))
    asked.give(put(2, "d", "link"))
    asked.give(put(3, "d", "link", "x"))
    asked.finish()
    assert (into / "d/sub/mine").read_bytes() == b"mine"
    assert files_in(into.parent / "outside") == {"secret": b"untouched"}


SERVER_BREAKS: dict[str, list[bytes]] = {
    "get": [Get(1, ("a",), False).encode()],
    "list": [ListFolder(1, (), None).encode()],
    "entries": [Entries(1, (), False).encode()],
    "accept": [Accept(1, 0).encode()],
    "receipt": [receipt()],
    "data never announced": [data(1, 0, b"x")],
    "check never announced": [Check(1, 5, bytes(32)).encode()],
    "id reused": [put(1, "a", size=None, kind="folder").encode()] * 2,
    "bye inside a file": [put(1, "a").encode(), BYE_MESSAGE],
    "refusal of what was not asked for": [Refuse(2, Code.NOT_FOUND).encode()],
}


@pytest.mark.parametrize("fault", SERVER_BREAKS)
def test_server_that_breaks_the_rules_ends_the_connection(engine: Engine, into: Path, fault: str) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.raw.say(*SERVER_BREAKS[fault])
    heard, problem = asked.finish(bye=False)
    assert isinstance(problem, ProtocolViolation)
    assert heard[-1] == Error(Code.PROTOCOL)
    assert files_in(into) == {}


def test_server_that_refuses_again_is_a_failure_and_no_more(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    asked.raw.say(Refuse(1, Code.NOT_FOUND).encode(), Refuse(1, Code.UNREADABLE).encode())
    _, problem = asked.finish()
    assert problem is None
    assert asked.reporter.problems == [("a", Code.NOT_FOUND), ("a", Code.UNREADABLE)]


def test_file_with_a_wrong_hmac_is_not_fetched(engine: Engine, into: Path) -> None:
    asked = Asked(engine, ["a"], f"{into}/")
    announced = put(1, "a")
    asked.raw.say(announced.encode(), data(1, 0, b"12345"), end(announced, b"12345", secret=C2S).encode())
    heard, problem = asked.finish()
    assert problem is None
    assert Refuse(1, Code.INTEGRITY) in heard
    assert asked.reporter.status == 5
    assert files_in(into) == {}


# --- LIST -------------------------------------------------------------------------------------------------------------


def listed(storage: Storage, engine: Engine, path: tuple[str, ...], admit: Admit = anything) -> list[list[Entry]]:
    """Every page of a listing."""
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    pages: list[list[Entry]] = []
    after: str | None = None
    while True:
        raw.say(ListFolder(len(pages) + 1, path, after).encode())
        page = raw.hear()
        assert isinstance(page, Entries)
        assert page.id == len(pages) + 1
        pages.append(list(page.entries))
        if not page.more:
            break
        after = page.entries[-1].name
    raw.say(BYE_MESSAGE)
    assert raw.hear_all() == [Bye()]
    raw.close()
    assert receiving.finish() is None
    return pages


def test_list_pages_through_many_names_in_order(storage: Storage, engine: Engine, home: Path) -> None:
    names = sorted({f"{number:x}-é" if number % 3 else f"Z{number}" for number in range(2_000)}, key=str.encode)
    for name in names:
        written(home / "box" / name, name.encode())
    pages = listed(storage, engine, ("box",))
    assert [entry.name for page in pages for entry in page] == names
    assert len(pages) >= 4
    assert all(entry.size == len(entry.name.encode()) for page in pages for entry in page)


@pytest.mark.parametrize("char", ["\\", '"', "é", "\U0001f4e6"])
def test_page_of_the_longest_names_fits_into_a_message(storage: Storage, engine: Engine, home: Path, char: str) -> None:
    """However they are written in JSON."""
    name = char * (250 // len(char.encode()))
    for number in range(300):
        written(home / f"{number:03}{name}", b"")
    pages = listed(storage, engine, ())
    assert sum(map(len, pages)) == 300


def test_list_tells_files_folders_sizes_and_times(storage: Storage, engine: Engine, there: Path) -> None:
    (entries,) = listed(storage, engine, ("d",))
    assert [(entry.name, entry.kind) for entry in entries] == [("e", "folder"), ("empty", "folder"), ("x", "file")]
    assert (entries[-1].size, entries[-1].mtime) == (1, 1_234_567_890_123_456_789)
    assert [entry.name for entry in listed(storage, engine, ())[0]] == ["a", "d"]
    assert listed(storage, engine, ("d", "empty")) == [[]]


def test_list_of_a_file_is_that_file(storage: Storage, engine: Engine, there: Path) -> None:
    ((entry,),) = listed(storage, engine, ("d", "x"))
    assert (entry.name, entry.kind, entry.size) == ("x", "file", 1)


def test_list_leaves_out_what_is_no_file_and_no_folder(storage: Storage, engine: Engine, there: Path) -> None:
    os.mkfifo(there / "fifo")
    (there / "link").symlink_to("a")
    assert [entry.name for entry in listed(storage, engine, ())[0]] == ["a", "d"]


def answers_to(storage: Storage, engine: Engine, *asked: ListFolder, admit: Admit = anything) -> list[Message]:
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(each.encode() for each in asked), BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert heard.pop() == Bye()
    return heard


def test_list_of_what_is_not_there_is_refused_and_the_next_is_answered(
    storage: Storage, engine: Engine, there: Path
) -> None:
    asked = [ListFolder(1, ("missing",), None), ListFolder(2, ("..",), None), ListFolder(3, ("a", "b"), None)]
    asked += [ListFolder(4, ("d", "link", "x"), None), ListFolder(5, ("d", "empty"), None)]
    assert answers_to(storage, engine, *asked) == [
        Refuse(1, Code.NOT_FOUND),
        Refuse(2, Code.NAME),
        Refuse(3, Code.NOT_FOLDER),
        Refuse(4, Code.LINK),
        Entries(5, (), False),
    ]


@pytest.mark.parametrize(
    "path",
    [("..", "out.txt"), ("..", "..", "out.txt"), ("/etc/passwd",), ("d/../..", "out.txt"), ("a\0b",), ("d", "..")],
)
@pytest.mark.usefixtures("there")
def test_list_says_nothing_of_files_outside_the_folder(
    storage: Storage, engine: Engine, home: Path, path: tuple[str, ...]
) -> None:
    (home.parent / "out.txt").write_bytes(b"somebody else's")
    assert answers_to(storage, engine, ListFolder(1, path, None)) == [Refuse(1, Code.NAME)]


@pytest.mark.parametrize(
    ("after", "names"),
    [(None, ["a", "d"]), ("!", ["a", "d"]), ("a", ["d"]), ("b", ["d"]), ("d", []), ("\U0010ffff", [])],
)
@pytest.mark.usefixtures("there")
def test_list_goes_on_behind_any_name(storage: Storage, engine: Engine, after: str | None, names: list[str]) -> None:
    (page,) = answers_to(storage, engine, ListFolder(1, (), after))
    assert isinstance(page, Entries)
    assert [entry.name for entry in page.entries] == names
    assert not page.more


@pytest.mark.parametrize("message", [Get(1, (), False).encode(), put(1, "a").encode(), Cancel(1).encode(), receipt()])
def test_other_message_on_a_connection_that_lists_is_a_violation(
    storage: Storage, engine: Engine, message: bytes
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(ListFolder(1, (), None).encode(), message)
    assert raw.hear_all() == [Entries(1, (), False), Error(Code.PROTOCOL)]
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


# --- rights -----------------------------------------------------------------------------------------------------------


def without(missing: str) -> Admit:
    def admit(right: str) -> None:
        if right == missing:
            raise Refused(Code.DENIED)

    return admit


def ended(right: str) -> None:
    raise Ended(Code.ACCOUNT)


@pytest.mark.usefixtures("there")
def test_account_without_the_right_to_get_is_given_nothing(storage: Storage, engine: Engine, into: Path) -> None:
    noted = fetch(Receiving(storage, engine, without("get")), ["a", "d"], f"{into}/")
    assert noted.problems == [("a", Code.DENIED), ("d", Code.DENIED)]
    assert files_in(into) == {}
    assert fetch(Receiving(storage, engine, without("put")), ["a"], f"{into}/").problems == []


@pytest.mark.usefixtures("there")
def test_account_without_the_right_to_list_sees_nothing(storage: Storage, engine: Engine) -> None:
    asked = [ListFolder(1, (), None), ListFolder(2, ("missing",), None)]
    assert answers_to(storage, engine, *asked, admit=without("list")) == [
        Refuse(1, Code.DENIED),
        Refuse(2, Code.DENIED),
    ]
    assert isinstance(answers_to(storage, engine, asked[0], admit=without("get"))[0], Entries)


@pytest.mark.parametrize(
    "ask", [Get(1, ("a",), False).encode(), ListFolder(1, (), None).encode(), put(1, "new").encode()]
)
@pytest.mark.usefixtures("there")
def test_changed_account_ends_each_kind_of_connection(storage: Storage, engine: Engine, ask: bytes) -> None:
    receiving = Receiving(storage, engine, ended)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(ask)
    assert raw.hear_all() == [Error(Code.ACCOUNT)]
    raw.close()
    assert isinstance(receiving.finish(), Ended)


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("policy", ["fail", "rename", "skip"])
def test_drop_only_account_learns_nothing_of_what_lies_there(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: str, size: int
) -> None:
    """The same answers, whether the name is free, taken by another file, or by the very same one."""
    content = os.urandom(size)
    for name in ("same", "other", "free"):
        written(here / name, content)
    written(home / "same", content)
    written(home / "other", b"x" * size)
    items = [item(here / name, policy=policy) for name in ("same", "other", "free")]
    told = Told()
    send(Receiving(storage, engine, private=True), items, told)
    assert set(told.outcomes().values()) == {"stored"}
    assert told.hashed == {}
    assert [told.bytes[each] for each in items] == [size] * 3
    found = on_disk(home)
    assert found.pop("same") == found.pop("same.1") == found.pop("other.1") == found.pop("free") == content
    assert found == {"other": b"x" * size}


def test_drop_only_account_replaces_nothing(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    written(home / "a", b"old")
    told = Told()
    items = [item(written(here / name, b"new"), policy="replace") for name in ("a", "b")]
    send(Receiving(storage, engine, private=True), items, told)
    assert told.codes() == {"a": Code.DENIED, "b": Code.DENIED}
    assert on_disk(home) == {"a": b"old"}


# --- no deadlock ------------------------------------------------------------------------------------------------------


class SlowDisk:
    """A user's folder whose flushes take their time."""

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder
        self.flushes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def commit(self, group: list[Partial]) -> list[Published | Refused]:
        self.flushes += 1
        done = threading.Event()
        timer = threading.Timer(0.01, done.set)
        timer.start()
        done.wait()
        timer.join()
        return self._folder.commit(group)


def test_many_tiny_files_over_tiny_buffers_to_a_slow_disk_do_not_lock(storage: Storage, here: Path, home: Path) -> None:
    engine = Engine(1)
    source = written(here / "a", b"tiny")
    told, receiving = Told(), Receiving(storage, engine, buffers=4096, around=SlowDisk)
    send(receiving, [item(source, f"{number}") for number in range(5_000)], told)
    assert receiving.problem is None
    assert len(told.receipts) == 5_000
    assert set(told.outcomes().values()) == {"stored"}
    assert len(on_disk(home)) == 5_000
    engine.close()


class Nowhere:
    """A user's folder where any folder is made, and nothing is."""

    def __init__(self, folder: UserFolder) -> None:
        pass

    def make_folder(self, *_: object) -> None:
        pass

    def finish_folders(self) -> list[tuple[str, ...]]:
        return []


def test_honest_ends_of_which_one_waits_for_each_answer_to_leave_do_not_lock(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.wire.channel, "_UNREAD_BYTES", 1000)
    engine, told, long = Engine(1), Told(), ("n" * 250,) * 12
    receiving = Receiving(storage, engine, buffers=4096, around=Nowhere)
    send(receiving, [folder_item(*long, f"{number}") for number in range(800)], told)
    assert receiving.problem is None
    assert len(told.receipts) == 800
    engine.close()


def test_client_that_lists_and_does_not_read_makes_the_server_wait(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(250):
        written(home / f"{number:0200}", b"")
    receiving = Receiving(storage, engine, buffers=4096)
    raw, due = Raw(receiving.near, C2S, S2C), 0
    post = Channel.post

    def counted(channel: Channel, message: bytes) -> None:
        nonlocal due
        post(channel, message)
        due = max(due, channel._answer_bytes)

    monkeypatch.setattr(Channel, "post", counted)
    raw.say(*(ListFolder(number, (), None).encode() for number in range(1, 61)), BYE_MESSAGE)
    wait_until(lambda: due > sft.wire.channel._UNREAD_BYTES)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert [message.id for message in heard if isinstance(message, Entries)] == list(range(1, 61))
    assert due < sft.wire.channel._UNREAD_BYTES + 2 * sft.wire.protocol.CONTROL_LIMIT
