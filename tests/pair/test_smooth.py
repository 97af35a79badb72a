"""A limited sender: what leaves in any half second, by a clock that only goes while somebody waits.

The client is one, and the server is, when a client that fetches or lists has asked it to be.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import C2S, FILE_SECRET, S2C, Raw, close_all, no_hang, tcp_pair
from source_files import open_source

from crypto_utils import digest
from sft.common.errors import Refused
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import PipeSource
from sft.disk.user_folder import UserFolder
from sft.server.requests import Requests
from sft.transfer.events import BatchSettled, Delivered, Failed, SendEvent
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.wire.batch import Batch, Outcome, Receipts
from sft.wire.channel import Channel
from sft.wire.content import Data
from sft.wire.handshake import SessionKeys
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, End, Entries, Get, ListFolder, Message, Put, Rate, Receipt
from sft.wire.outbox import Shrinks
from sft.wire.protocol import DATA_LEAST, DATA_SIZE, UNASKED_LIMIT
from sft.wire.workers import Buffers, Engine

HALF = 0.5
RATES = [10_000, 30_000, 1_000_000, 20_000_000]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def read(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Delivery:
    """What has a receipt."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def __call__(self, event: SendEvent) -> None:
        match event:
            case Delivered(item):
                self.items.append(item)
            case BatchSettled(files):
                self.items += [item for item, became in files if not isinstance(became, Refused)]
            case Failed(_, problem):
                raise problem


class Honest:
    """A receiver that takes everything, and remembers the sizes of the DATA of each file."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._puts: dict[int, Put] = {}
        self.pieces: dict[int, list[int]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (message := self._raw.hear()) is not None:
            for answer in self._answers(message):
                self._raw.say(answer)
            if isinstance(message, Bye):
                return

    def _answers(self, message: Message) -> Iterator[bytes]:
        if isinstance(message, Put):
            self._puts[message.id], self.pieces[message.id] = message, []
            if message.kind == "folder":
                yield Receipt(message.id, message.path, 0, None, 0, "folder").encode()
            elif message.size is None or message.size > UNASKED_LIMIT:
                yield Accept(message.id, 0).encode()
        elif isinstance(message, Data):
            self.pieces[message.id].append(message.size)
        elif isinstance(message, End):
            path = self._puts[message.id].path
            yield Receipt(message.id, path, message.size, message.sha256, 0, "stored").encode()
        elif isinstance(message, Batch):
            there = digest(b"".join(file.sha256 for file in message.files))
            yield Receipts(message.id, 0, there, (Outcome("stored"),) * len(message.files)).encode()
        elif isinstance(message, Bye):
            yield BYE_MESSAGE

    def wait(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def file_item(path: Path, size: int) -> Item:
    path.write_bytes(os.urandom(size))
    return Item(path.name, (path.name,), "fail", lambda: open_source(path))


def pipe_item(path: Path, size: int) -> Item:
    path.write_bytes(os.urandom(size))
    return Item(path.name, (path.name,), "fail", lambda: PipeSource(os.open(path, os.O_RDONLY)))


def text_item(path: Path, size: int) -> Item:
    """Text whose lines differ a little: it shrinks, and not to nothing."""
    lines = b"".join(
        b"%d %s some words that come again\n" % (number, os.urandom(8).hex().encode()) for number in range(9999)
    )
    path.write_bytes((lines * (size // len(lines) + 1))[:size])
    return Item(path.name, (path.name,), "fail", lambda: open_source(path))


def folders(count: int) -> list[Item]:
    return [Item(str(number), ("f" * 200, str(number)), "fail", None, 0, 0o755) for number in range(count)]


def items_of(case: str, rate: int, folder: Path) -> list[Item]:
    """What takes about three seconds at that rate."""
    size = 3 * rate
    if case == "one file":
        return [file_item(folder / "a", size)]
    if case == "text that is compressed":
        return [text_item(folder / "a", 2 * size)]
    if case == "pipe":
        return [pipe_item(folder / "a", size)]
    if case == "files that are just small":
        return [file_item(folder / f"{number}", UNASKED_LIMIT) for number in range(max(1, min(size, 1 << 22) >> 16))]
    if case == "folders":
        return folders(min(100, size // 400))
    return [file_item(folder / f"{number}", 10 + number % 50) for number in range(min(200, size // 400))]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    "case", [*("one file", "text that is compressed", "pipe"), *("files that are just small", "tiny files", "folders")]
)
def test_no_half_second_carries_more_than_twice_its_share(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, rate: int
) -> None:
    clock, left, near_and_far = Clock(), list[tuple[float, int]](), tcp_pair()
    channel, raw = Channel(near_and_far[0], C2S, S2C, engine), Raw(near_and_far[1], S2C, C2S)
    receiver, events = Honest(raw), Delivery()
    put_in_queue = channel._outbox._put_in_queue

    def noted(size: int, buffer: bytearray, buffers: Buffers | None, shrinks: Shrinks | None = None) -> None:
        assert shrinks is None, "its size is not known when it leaves"
        left.append((clock.now, size + 20))
        put_in_queue(size, buffer, buffers, shrinks)

    monkeypatch.setattr(channel._outbox, "_put_in_queue", noted)
    items = items_of(case, rate, tmp_path)
    with no_hang():
        limiter = RateLimiter(rate, clock.read, clock.wait)
        Sender(channel, channel.messages(), FILE_SECRET, events, limiter, compress="auto").run(items)
        receiver.wait()
    close_all(channel)
    raw.close()
    assert len(events.items) == len(items)
    if case == "text that is compressed":
        assert channel.bytes_sent < sum(map(sum, receiver.pieces.values())) * 0.9
    check_evenly(left, rate)
    for sizes in receiver.pieces.values():
        assert all(DATA_LEAST <= size <= DATA_SIZE for size in sizes[:-1])


@pytest.mark.parametrize("rate", RATES[:3])
@pytest.mark.parametrize("case", ["one file", "tiny files", "folders", "names that are not UTF-8", "listing"])
def test_no_half_second_of_what_is_fetched_carries_more_than_was_asked_for(
    engine: Engine, alice: UserFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, rate: int
) -> None:
    """The rate of the account is none."""
    home = tmp_path / "received/alice/box"
    home.mkdir()
    if case == "one file":
        (home / "a").write_bytes(os.urandom(3 * rate))
    for number in range(0 if case == "one file" else 120):
        name = os.fsencode(home) + f"/{number:03}{'n' * 90}".encode() + (b"\xff" if case.startswith("names") else b"")
        os.mkdir(name) if case == "folders" else os.close(os.open(name, os.O_CREAT))
    clock, left, (near, far) = Clock(), list[tuple[float, int]](), tcp_pair()
    channel, raw = Channel(near, S2C, C2S, engine), Raw(far, C2S, S2C)
    put_in_queue = channel._outbox._put_in_queue

    def noted(size: int, buffer: bytearray, buffers: Buffers | None, shrinks: Shrinks | None = None) -> None:
        assert shrinks is None, "its size is not known when it leaves"
        left.append((clock.now, size + 20))
        put_in_queue(size, buffer, buffers, shrinks)

    monkeypatch.setattr(channel._outbox, "_put_in_queue", noted)
    limiter, keys = RateLimiter(None, clock.read, clock.wait), SessionKeys(C2S, S2C, FILE_SECRET, FILE_SECRET)
    requests = Requests(channel, keys, alice, lambda right: None, lambda *line: None, limiter)
    serving = threading.Thread(target=requests.run, args=[lambda event: None, lambda event: None], daemon=True)
    raw.say(Rate(rate).encode())
    with no_hang():
        serving.start()
        if case == "listing":
            after, more = None, True
            while more:
                raw.say(ListFolder(1, ("box",), after).encode())
                page = raw.hear()
                assert isinstance(page, Entries)
                after, more = page.entries[-1].name, page.more
            raw.say(BYE_MESSAGE)
        else:
            raw.say(Get(1, ("box",), False, True).encode())
            Honest(raw).wait()
        serving.join(20)
    close_all(channel)
    raw.close()
    assert not serving.is_alive()
    assert clock.now - 1_000 >= sum(size for _, size in left) * 0.9 / rate - 0.5
    check_evenly(left, rate)


def check_evenly(left: list[tuple[float, int]], rate: int) -> None:
    """`left`: when each record left, and its size."""
    times = [at for at, _ in left]
    for first, (at, _) in enumerate(left):
        window = left[first : bisect_left(times, at + HALF)]
        assert sum(size for _, size in window) <= 2 * HALF * rate * 1.02


def test_without_a_limit_pieces_are_as_large_as_they_may_be(engine: Engine, tmp_path: Path) -> None:
    near, far = tcp_pair()
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
    receiver, events = Honest(raw), Delivery()
    with no_hang():
        item = file_item(tmp_path / "a", 2 * DATA_SIZE + 5)
        Sender(channel, channel.messages(), FILE_SECRET, events, RateLimiter(None)).run([item])
        receiver.wait()
    close_all(channel)
    raw.close()
    assert receiver.pieces == {1: [DATA_SIZE, DATA_SIZE, 5]}
