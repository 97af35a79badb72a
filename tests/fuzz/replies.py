"""Harness: what a hostile server replies to a client that sends some files, in any order; over real sockets.

    4 bytes each      kind of reply, number of the file, and two that say what of it (see `_Server._reply`)

The server knows the keys of its records, and its messages are well-formed: this is about their order and their content.
"""

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers import C2S, FILE_SECRET, S2C, SECONDS, Raw, tcp_pair
from source_files import open_source

from fuzz.requests import MOST_STEPS, SIZES, Heard, check_nothing_is_left, content_of, open_now, the_place
from sft.common.background import BackgroundTask
from sft.common.errors import Code, Refused, TransferError
from sft.common.rate_limit import RateLimiter
from sft.transfer.events import BatchSettled, Delivered, Failed, SendEvent
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.wire.batch import BATCH_WORDS, Batch, Outcome, Receipts
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    OUTCOMES,
    PING_MESSAGE,
    Accept,
    Cancel,
    Check,
    End,
    Error,
    PolicyWord,
    Put,
    Receipt,
    ReceiptOutcome,
    Refuse,
)
from sft.wire.protocol import UNASKED_LIMIT
from sft.wire.workers import Engine

WORDS: tuple[bytes, ...] = ()
_LARGE = UNASKED_LIMIT + 1
_LARGE_IDS = (2, 3)
_BATCH_IDS = (4, 5)  # of one file each, because their policies differ
_KINDS = range(10)  # as `_Server._reply` has them
_SETTLING, _WANTING = (0, 3, 5), (1, 4)


@dataclass(frozen=True)
class _Sent:
    """One thing that the client sends; `size` None: a folder."""

    target: tuple[str, ...]
    policy: PolicyWord
    size: int | None

    @property
    def content(self) -> bytes:
        return content_of(1, self.size or 0)

    @property
    def sha256(self) -> bytes | None:
        return None if self.size is None else hashlib.sha256(self.content).digest()


SENT = (  # in the order of their ids
    _Sent(("d", "folder"), "fail", None),
    _Sent(("large",), "replace", _LARGE),
    _Sent(("larger",), "skip", 100_000),
    _Sent(("small",), "fail", 5),
    _Sent(("d", "empty"), "rename", 0),
)


def one_input(replies: bytes) -> None:
    """Nothing but our errors; delivered is only what has a receipt for its own bytes; nothing is left open."""
    place, folder, told = the_place(), _sources(), _Told()
    before = open_now()
    _converse(replies, place.engine, folder, told)
    told.check()
    check_nothing_is_left(place, before)


def _converse(replies: bytes, engine: Engine, folder: Path, told: "_Told") -> None:
    near, far = tcp_pair()
    channel = Channel(far, C2S, S2C, engine)
    client = BackgroundTask("client", lambda: _client(channel, folder, told))
    peer, heard = Raw(near, S2C, C2S), Heard()
    with contextlib.suppress(OSError):
        _Server(peer).play(replies)
        near.shutdown(1)
    listener = BackgroundTask("listener", lambda: heard.listen(peer))
    for thread in (client, listener):
        assert thread.wait(SECONDS), "it hangs"
    peer.close()


@functools.cache
def _sources() -> Path:
    folder = the_place().root.parent / "sources"
    folder.mkdir()
    for number, sent in enumerate(SENT):
        if sent.size is not None:
            (folder / str(number)).write_bytes(sent.content)
    return folder


def _client(channel: Channel, folder: Path, told: "_Told") -> None:
    """As `client.py` sends."""
    items = []
    for number, sent in enumerate(SENT):
        path = folder / str(number)
        opener = None if sent.size is None else lambda path=path: open_source(path)
        items.append(Item(str(number), sent.target, sent.policy, opener))
    try:
        Sender(channel, channel.messages(), FILE_SECRET, told, RateLimiter(None)).run(items)
        assert told.ends.total() == len(SENT), "an item has no end"
    except TransferError:
        pass
    finally:
        channel.close()


class _Told:
    """Keeps what became of each item."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.receipts: dict[str, Receipt] = {}

    def __call__(self, event: SendEvent) -> None:
        if isinstance(event, BatchSettled):
            for item, became in event.files:
                self(Failed(item, became) if isinstance(became, Refused) else Delivered(item, became))
        if isinstance(event, Delivered | Failed):
            self.ends[event.what.name] += 1
        if isinstance(event, Delivered):
            self.receipts[event.what.name] = event.receipt

    def check(self) -> None:
        """Each item ended at most once, and what counts as delivered has a receipt that fits."""
        assert not self.ends or max(self.ends.values()) == 1
        for name, receipt in self.receipts.items():
            sent = SENT[int(name)]
            assert receipt.path[:-1] == sent.target[:-1]
            assert len(receipt.path) == len(sent.target)
            if sent.size is None:
                assert receipt.outcome == "folder"
            elif receipt.outcome == "skipped":
                assert sent.policy == "skip"
            else:
                assert receipt.outcome in ("stored", "already")
                assert (receipt.size, receipt.sha256) == (sent.size, sent.sha256)


class _Server:
    """Waits until everything was announced, and for content that is certain to come; else it does not listen."""

    def __init__(self, peer: Raw) -> None:
        self._peer = peer
        self._wanted: set[int] = set()  # content that was asked for, once, of what was not settled yet
        self._settled: set[int] = set()
        self._ended: set[int] = set()
        self._announced = 0

    def _hear_until(self, heard: Callable[[], bool]) -> None:
        while not heard() and (message := self._peer.hear()) is not None:
            if isinstance(message, Put | Batch):
                self._announced = message.id
            elif isinstance(message, End | Cancel):
                self._ended.add(message.id)

    def play(self, replies: bytes) -> None:
        self._hear_until(lambda: self._announced == len(SENT))
        known = [replies[at : at + 4] for at in range(0, min(len(replies), 4 * MOST_STEPS) - 3, 4)]
        for kind, which, one, two in known:
            self._play(kind, 1 + which % (len(SENT) + 1), one, two)

    def _play(self, kind: int, id: int, one: int, two: int) -> None:
        if kind % len(_KINDS) in _SETTLING:
            if id in self._wanted - self._settled:
                self._hear_until(lambda: id in self._ended)
            self._settled.add(id)
        elif kind % len(_KINDS) in _WANTING and id in _LARGE_IDS:
            self._wanted.add(id)
        self._peer.say(self._reply(kind, id, one, two))

    def _reply(self, kind: int, id: int, one: int, two: int) -> bytes:
        """`one`: a size, or an outcome; `two`: what is wrong about it, if anything."""
        sent = SENT[id - 1] if id <= len(SENT) else SENT[0]
        if id in _BATCH_IDS and kind % len(_KINDS) in _SETTLING:
            code = (*BATCH_WORDS, *Code)[(one if kind % len(_KINDS) != _SETTLING[1] else two) % (4 + len(Code))]
            return self._receipts(id, sent, "stored" if kind % len(_KINDS) == _SETTLING[2] else code, two)
        size = (*SIZES, sent.size or 0)[one % (len(SIZES) + 1)]
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: self._receipt(id, sent, OUTCOMES[one % len(OUTCOMES)], two),
            lambda: Accept(id, size).encode(),
            lambda: Check(id, size, bytes(32) if two % 4 == 3 else None).encode(),
            lambda: Refuse(id, list(Code)[two % len(Code)]).encode(),
            lambda: Accept(id, 0).encode(),
            lambda: self._receipt(id, sent, "folder" if sent.size is None else "stored", 0),
            lambda: PING_MESSAGE,
            lambda: Cancel(id, (None, *Code)[one % (1 + len(Code))]).encode(),
            lambda: Error(list(Code)[two % len(Code)]).encode(),
            lambda: BYE_MESSAGE,
        )
        return makers[kind % len(_KINDS)]()

    @staticmethod
    def _receipts(id: int, sent: _Sent, word: str, wrong: int) -> bytes:
        there = sent.sha256 or b""
        if wrong & 8:
            there = b"" if wrong & 16 else bytes(32)
        outcome = Outcome(word, sent.target[-1] + ".1" if wrong & 1 else None)
        outcomes = (outcome,) * (2 if wrong & 2 else 1)
        is_there = word in ("stored", "already") or wrong & 4
        digests = there * len(outcomes) if is_there else b""
        return Receipts(id, 1_700_000_000 * 10**9, hashlib.sha256(digests).digest(), outcomes).encode()

    @staticmethod
    def _receipt(id: int, sent: _Sent, outcome: ReceiptOutcome, wrong: int) -> bytes:
        path, size, sha256 = sent.target, sent.size or 0, sent.sha256
        if wrong & 1:
            path = (*path[:-1], path[-1] + ".1")
        if wrong & 2:
            path = (*path, "x")
        if wrong & 4:
            size += 1
        if wrong & 8:
            sha256 = None if wrong & 16 else bytes(32)
        return Receipt(id, path, size, sha256, 1_700_000_000 * 10**9, outcome).encode()
