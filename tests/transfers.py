"""Sender and receiver for the tests: over real sockets to a real disk, or against an end that is spoken by hand."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers import C2S, FILE_SECRET, S2C, Raw, check_nothing_is_left, close_all, data, end, tcp_pair
from source_files import open_source

from crypto_utils import digest
from sft.client.download import Download
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    IntegrityError,
    ProtocolViolation,
    Refused,
    TransferError,
)
from sft.common.rate_limit import RateLimiter
from sft.console.log import no_log
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter
from sft.disk.journal import key_of
from sft.disk.local import open_local
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules, UserFolder
from sft.server.connection_log import GiveLog
from sft.server.requests import Requests
from sft.transfer.events import (
    BatchCutOff,
    BatchSettled,
    BatchStarted,
    Checked,
    CutOff,
    Delivered,
    Failed,
    Grown,
    Missed,
    NotGiven,
    Progress,
    ReceiveEvent,
    Rejected,
    Restarted,
    Resumed,
    Sealed,
    SendEvent,
    Started,
    TimeClamped,
    TimeLost,
    Withdrawn,
)
from sft.transfer.items import Item
from sft.transfer.receiver import Receiver
from sft.transfer.sender import Sender
from sft.transfer.shrinking import Compress
from sft.wire.channel import Channel
from sft.wire.handshake import SessionKeys
from sft.wire.messages import (
    BYE_MESSAGE,
    Accept,
    Bye,
    Control,
    Get,
    Message,
    Misnamed,
    PolicyWord,
    Put,
    Receipt,
    ReceiptOutcome,
)
from sft.wire.protocol import DATA_SIZE, UNASKED_LIMIT
from sft.wire.tree_messages import NodeKind
from sft.wire.workers import Engine

LARGE = UNASKED_LIMIT + 1
KEYS = SessionKeys(C2S, S2C, FILE_SECRET, FILE_SECRET)
Admit = Callable[[str], None]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept_of(home: Path) -> list[int]:
    """The sizes of what is kept for another try, each with its journal beside it."""
    found = {path.name: path for path in (home.parent / PARTIAL_AREA).glob("*/*") if path.name != "receipts"}
    journals = sorted(name.removesuffix(".journal") for name in found if name.endswith(".journal"))
    bytes = sorted(name for name in found if not name.endswith(".journal"))
    assert [key_of(name) for name in bytes] == journals
    return sorted(found[name].stat().st_size for name in bytes)


def on_disk(home: Path) -> dict[str, bytes]:
    """Every visible file with its content; and nothing may be left in the staging area."""
    assert kept_of(home) == []
    return files_in(home)


def one_by_one(event: Any) -> Iterator[Any]:
    """The events of each file of a batch, as if it had come alone; any other event as it is."""
    match event:
        case BatchStarted(files):
            for what, size in files:
                yield Started(what, size)
                yield Progress(what, size)
        case BatchSettled(files) | BatchCutOff(files):
            for what, became in files:
                if not isinstance(became, Refused):
                    yield Delivered(what, became)
                else:
                    yield Failed(what, became) if isinstance(what, Item) else Rejected(what, became)
        case _:
            yield event


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
        self.grown: list[Item] = []

    def __call__(self, event: SendEvent) -> None:
        for each in one_by_one(event):
            self._take(each)

    def _take(self, event: Any) -> None:
        match event:
            case Started(item) if self._hook is not None:
                self._hook(item)
            case Checked(item, count):
                self.hashed[item] += count
            case Resumed(item, offset):
                self.offsets[item] = offset
            case Restarted(item):
                self.again.append(item)
            case Progress(item, count):
                self.bytes[item] += count
                if self._on_progress is not None:
                    self._on_progress(self.bytes.total())
            case Sealed(item, _, sha256):
                self.digests[item] = sha256
            case Delivered(item, receipt):
                with self._lock:
                    self.ends[item] += 1
                    self.receipts[item] = receipt
            case Failed(item, problem):
                with self._lock:
                    self.ends[item] += 1
                    self.problems[item] = problem
            case Grown(item):
                self.grown.append(item)
            case TimeClamped(item):
                self.clamped.append(item)

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

    def __call__(self, event: ReceiveEvent) -> None:
        for each in one_by_one(event):
            self._take(each)

    def _take(self, event: Any) -> None:
        match event:
            case Started(put, size):
                self.sizes["/".join(put.path)] = size
            case Resumed(put, offset):
                self.offsets["/".join(put.path)] = offset
            case Progress(put, count):
                self.bytes["/".join(put.path)] += count
            case Delivered(put, receipt):
                self.receipts["/".join(put.path)] = receipt
            case Rejected(put, problem):
                self.problems[put.shown if isinstance(put, Misnamed) else "/".join(put.path)] = problem
            case Withdrawn(put):
                self.gone.append("/".join(put.path))
            case CutOff(put, size, kept):
                self.cut["/".join(put.path)] = (size, kept)
            case TimeLost(path):
                self.timeless.append("/".join(path))
            case NotGiven() | Missed():
                raise ProtocolViolation("an answer to a GET, from a client")


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
        limiter: RateLimiter | None = None,
        compress: Compress = "off",
    ) -> None:
        self._compress = compress
        self._limiter = limiter or RateLimiter(None)
        self.near, far = tcp_pair(buffers)
        self.engine, self.folder, self.taken = engine, storage.user("alice", private), Taken()
        self.channel = Channel(far, S2C, C2S, engine)
        self.logged: list[str] = []
        self.problem: TransferError | None = None
        self.thread = threading.Thread(target=self._run, args=(admit, around(self.folder)), daemon=True)
        self.thread.start()

    def _log(self, lines: object, *values: object) -> None:
        for line in lines if isinstance(lines, list) else [lines]:
            self.logged.append(str(line) % values if values else str(line))

    def _run(self, admit: Admit, folder: UserFolder) -> None:
        code: Code | None = None
        try:
            Requests(self.channel, KEYS, folder, admit, self._log, self._limiter, compress=self._compress).run(
                self.taken, GiveLog(self._log, self._log).on_event
            )
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


def send(
    receiving: Receiving,
    items: list[Item],
    told: Told,
    compress: Compress = "off",
    transfer: bytes | None = None,
    rate: int | None = None,
) -> int:
    """Send the items and end the connection; how many bytes went over the wire. Raises what the Sender raises.

    `transfer`: the id of the run, in its BATCHes.
    """
    channel, limiter = Channel(receiving.near, C2S, S2C, receiving.engine), RateLimiter(rate)
    try:
        messages = channel.messages()
        sender = Sender(channel, messages, FILE_SECRET, told, limiter, compress=compress, transfer=transfer)
        sender.run(items)
    finally:
        close_all(channel)
        receiving.finish()
        check_nothing_is_left(receiving.engine, channel)
    return channel.bytes_sent


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def item(source: Path, *target: str, policy: PolicyWord = "fail", transfer: bytes = b"") -> Item:
    made = Item(str(source), target or (source.name,), policy, lambda: open_source(source))
    if transfer:
        made.transfer = transfer
    return made


def path_of(item: Item) -> Path:
    return Path(item.name)


def folder_item(*target: str, mtime: int | None = None, mode: int | None = None) -> Item:
    return Item("/".join(target), target, "fail", None, mtime, mode)


class Clock:
    """It only goes while somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def read(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Lied:
    """A Sender in a thread, and at the other end a receiver that is spoken by hand.

    `limited`: a sender with a limit so low that small files go in pieces, by PUT, and not in a BATCH.
    """

    def __init__(self, engine: Engine, items: list[Item], limited: bool = False) -> None:
        clock = Clock()
        self._limiter = RateLimiter(10_000 if limited else None, clock.read, clock.wait)
        near, far = tcp_pair()
        self.engine, self.told = engine, Told()
        self.channel, self.raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
        self.problem: TransferError | None = None
        self.thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self.thread.start()

    def _run(self, items: list[Item]) -> None:
        try:
            Sender(self.channel, self.channel.messages(), FILE_SECRET, self.told, self._limiter).run(items)
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


CONTENT = b"the content of a small file" * 100


def receipt(
    id: int = 1,
    path: tuple[str, ...] = ("inbox", "a.txt"),
    size: int = len(CONTENT),
    sha256: bytes | None = digest(CONTENT),
    outcome: ReceiptOutcome = "stored",
) -> bytes:
    return Receipt(id, path, size, sha256, 0, outcome).encode()


def put(
    id: int,
    *path: str,
    size: int | None = 5,
    policy: PolicyWord = "fail",
    kind: NodeKind = "file",
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


NEXT = put(2, "next")
NEXT_DONE = [NEXT.encode(), data(2, 0, b"abcde"), end(NEXT, b"abcde").encode()]
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


BIG = bytes(range(256)) * 8192  # 2 MiB, of which DATA_SIZE is the first half
HALF = digest(BIG[:DATA_SIZE])


class Noted(Reporter):
    """A reporter that keeps all events."""

    def __init__(self) -> None:
        super().__init__(no_log("test.transfer"), quiet=True, as_json=False)
        self.outcomes: dict[str, str] = {}
        self.problems: list[tuple[str, Code | type[TransferError]]] = []
        self.offsets: dict[str, int] = {}

    def delivered(
        self,
        name: str,
        path: str,
        size: int,
        sha256: bytes,
        time_ns: int,
        outcome: str,
        within: NamedFolder | None = None,
        target: str | None = None,
    ) -> None:
        self.outcomes[name] = outcome
        super().delivered(name, path, size, sha256, time_ns, outcome, within, target)

    def failed(
        self, name: str, problem: TransferError, quietly: bool = False, within: NamedFolder | None = None
    ) -> None:
        self.problems.append((name, problem.code if isinstance(problem, Refused) else type(problem)))
        super().failed(name, problem, within=within)

    def resumed(self, name: str, offset: int) -> None:
        self.offsets[name] = offset
        super().resumed(name, offset)


class Fetch:
    """The client's side of a GET, as the program does it, on one end of a connection."""

    def __init__(
        self,
        engine: Engine,
        near: Any,
        names: list[str],
        target: str,
        policy: str = "fail",
        keep_modes: bool = True,
        zstd: bool = True,
        links: bool = False,
    ) -> None:
        self._zstd, self._links = zstd, links
        self.reporter = Noted()
        self.fetching = Download(self.reporter, policy, keep_modes, names, target, links)
        self.engine, self.channel = engine, Channel(near, C2S, S2C, engine)
        self.problem: TransferError | None = None

    def run(self) -> None:
        folder = open_local(self.fetching.to.base, Rules())
        code: Code | None = None
        try:
            for id, path in enumerate(self.fetching.wanted, 1):
                more, depth = id < len(self.fetching.wanted), min(1, len(path))
                self.channel.post(Get(id, path, more, self._zstd, False, depth, self._links).encode())
            Receiver(
                self.channel,
                self.channel.messages(),
                FILE_SECRET,
                self.fetching.remembering(folder),
                self.fetching.place,
                self.fetching.on_event,
                RateLimiter(None),
                zstd=self._zstd,
                links=self._links,
            ).run()
        except TransferError as problem:
            self.problem = problem.with_traceback(None)
            code = Code.PROTOCOL if isinstance(problem, ProtocolViolation) else None
        finally:
            folder.close()
            self.channel.close(code)


def fetch(
    receiving: Receiving, names: list[str], target: Path | str, policy: str = "fail", keep_modes: bool = True
) -> Noted:
    """Fetch from our own server, and end the connection."""
    fetched = Fetch(receiving.engine, receiving.near, names, str(target), policy, keep_modes)
    fetched.run()
    assert receiving.finish() is None
    assert fetched.problem is None
    check_nothing_is_left(receiving.engine, fetched.channel)
    return fetched.reporter


TREE = {"a": b"content of a", "d/x": b"x", "d/e/y": b"", "d/e/large": bytes(range(256)) * 1000}


def answers_to(storage: Storage, engine: Engine, *asked: Control, admit: Admit = anything) -> list[Message]:
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(each.encode() for each in asked), BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert heard.pop() == Bye()
    return heard
