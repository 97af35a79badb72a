"""Ceilings and promises of one line each, which nothing else would miss."""

import gc
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from peers import C2S, S2C, Raw, close_all, data, end, tcp_pair
from processes import wait_until
from transfers import Lied, Receiving, kept_of, put, written

import sft.transfer.receiver
from crypto_utils import digest
from sft.common.errors import Code, IntegrityError, ProtocolViolation, Refused
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import PipeSource
from sft.disk.storage import Storage
from sft.disk.temporary import Outcome, TemporaryFile
from sft.disk.user_folder import Rules, UserFolder
from sft.server.admission import Ticket
from sft.server.session import Connection
from sft.server.shared import Shared
from sft.transfer.items import Item
from sft.wire.channel import Channel
from sft.wire.handshake import ClientHandshake
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    End,
    Entries,
    ListFolder,
    Put,
    Receipt,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE, frame, unframe
from sft.wire.sockets import Link
from sft.wire.workers import Engine
from tools import worked_example

pytestmark = pytest.mark.usefixtures("watched")

CONTENT = bytes(range(256)) * 8192  # 2 MiB


def test_no_more_than_64_records_are_read_ahead(engine: Engine) -> None:
    near, far = tcp_pair()
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)
    for _ in range(200):
        raw.say(PING_MESSAGE)
    wait_until(lambda: channel._inbox._to_read._waiters or len(channel._inbox._queue) > 64)  # type: ignore[attr-defined]
    assert len(channel._inbox._queue) == 64
    raw.close()
    close_all(channel)


@pytest.mark.parametrize("change", [lambda reply: reply + b"\0", lambda reply: reply[:-1], lambda reply: reply[:65]])
def test_frame_4_of_another_size_is_no_proof_and_breaks_the_protocol(change: Callable[[bytes], bytes]) -> None:
    scalars = (int.from_bytes(digest(b"w0"), "big"), int.from_bytes(digest(b"w1"), "big"))
    login = worked_example.log_in(*scalars)
    client = ClientHandshake(worked_example.USERNAME, lambda salt, profile: scalars, worked_example.client_draws())
    client.hello()
    client.share(login.frames[1])
    with pytest.raises(ProtocolViolation):
        client.confirm(frame(change(unframe(login.frames[3]))))


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "account", "most"), [(2, 4, 2), (4, 2, 2), (2, None, 2)])
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_the_smaller_limit_of_server_and_account_holds(
    tmp_path: Path, engine: Engine, server: int, account: int | None, most: int, kind: str
) -> None:
    """In MiB; for a pipe it is found out on its way."""
    storage = Storage(tmp_path / "limited", Rules(max_file_size=server * DATA_SIZE))
    folder = storage.user("alice", largest=None if account is None else account * DATA_SIZE)
    receiving = Receiving(storage, engine, around=lambda _: folder)
    raw = Raw(receiving.near, C2S, S2C)
    if kind == "file":
        raw.say(put(1, "a", size=most * DATA_SIZE + 1).encode())
        assert raw.hear() == Refuse(1, Code.TOO_LARGE)
        raw.say(put(2, "b", size=most * DATA_SIZE).encode())
        assert raw.hear() == Accept(2, 0)
        raw.say(Cancel(1).encode(), Cancel(2).encode())
    else:
        raw.say(put(1, "a", size=None).encode())
        assert raw.hear() == Accept(1, 0)
        for at in range(most):
            raw.say(data(1, at * DATA_SIZE, bytes(DATA_SIZE)))
        raw.say(data(1, most * DATA_SIZE, b"x"))
        assert raw.hear() == Refuse(1, Code.TOO_LARGE)
        raw.say(Cancel(1).encode())
    raw.say(BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None
    assert list((tmp_path / "limited/alice").iterdir()) == []
    folder.close()
    storage.close()


@pytest.mark.parametrize("size", [0, 1, 6])
def test_receipt_of_another_size_is_none_for_a_pipe_too(engine: Engine, size: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    lied = Lied(engine, [Item("pipe", ("a",), "fail", lambda: PipeSource(reading))])
    lied.hear(Put)
    lied.raw.say(Accept(1, 0).encode())
    lied.hear(End)
    lied.raw.say(Receipt(1, ("a",), size, digest(b"piped"), 0, "stored").encode(), BYE_MESSAGE)
    assert isinstance(lied.finish(), IntegrityError)
    assert lied.told.receipts == {}
    os.close(reading)


@pytest.mark.parametrize("fault", ["HMAC", "size", "too much"])
def test_large_file_that_is_refused_leaves_nothing_to_go_on_from(
    storage: Storage, engine: Engine, tmp_path: Path, fault: str
) -> None:
    announced = put(1, "a", size=len(CONTENT))
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(announced.encode())
    assert raw.hear() == Accept(1, 0)
    last = {
        "HMAC": end(announced, CONTENT[::-1]).encode(),
        "size": end(announced, CONTENT[:-1]).encode(),
        "too much": data(1, len(CONTENT), b"x") + Cancel(1).encode(),
    }[fault]
    for at in range(0, len(CONTENT), DATA_SIZE):
        raw.say(data(1, at, CONTENT[at : at + DATA_SIZE]))
    raw.say(last)
    assert raw.hear() == Refuse(1, Code.INTEGRITY if fault == "HMAC" else Code.SIZE)
    raw.say(BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None
    assert kept_of(tmp_path / "received/alice") == []


# --- already ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, len(CONTENT)])
def test_a_file_that_is_there_already_is_flushed_with_its_folders(
    storage: Storage, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Somebody may have put it there a moment ago; the receipt says that it is on the disk."""
    content = CONTENT[:size]
    there = written(tmp_path / "received/alice/folder/deeper/a", content)
    flushed: set[int] = set()
    flush = os.fsync

    def remember(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    announced = put(1, "folder", "deeper", "a", size=size)
    raw.say(announced.encode())
    if size > 65536:
        assert raw.hear() == Check(1, size, None)
        raw.say(Check(1, size, digest(content)).encode())
    else:
        raw.say(data(1, 0, content), end(announced, content).encode())
    answer = raw.hear()
    assert isinstance(answer, Receipt)
    assert answer.outcome == "already"
    assert {path.stat().st_ino for path in (there, *list(there.parents)[:4])} <= flushed
    if size > 65536:
        raw.say(Cancel(1).encode())
    raw.say(BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_pipes_that_wait_to_be_published_do_not_take_the_last_descriptors(
    storage: Storage, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has an open file from its first byte on."""
    groups: list[int] = []
    publish = UserFolder.publish

    def counted(folder: UserFolder, group: Sequence[TemporaryFile]) -> list[Outcome]:
        groups.append(len(group))
        return publish(folder, group)

    monkeypatch.setattr(UserFolder, "publish", counted)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    monkeypatch.setattr(sft.transfer.receiver, "few_left_from", lambda: lowest_free + 20)
    pipes = [put(id, f"{id}", size=None) for id in range(1, 101)]
    raw.say(*(each.encode() + data(each.id, 0, b"x") + end(each, b"x").encode() for each in pipes), BYE_MESSAGE)
    heard = raw.hear_all()
    assert sum(isinstance(answer, Receipt) for answer in heard) == 100
    raw.close()
    assert receiving.finish() is None
    assert max(groups) < 30


# --- a rate -----------------------------------------------------------------------------------------------------------


def test_first_message_of_a_connection_counts_for_the_rate(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else connections of one message each would cost nothing; the answer is paid for by who asked."""
    paid: list[int] = []
    monkeypatch.setattr(RateLimiter, "spend", lambda limiter, count, *_: paid.append(count))
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    asked = ListFolder(1, (), None)
    raw.say(asked.encode(), BYE_MESSAGE)
    assert [type(answer) for answer in raw.hear_all()] == [Entries, Bye]
    raw.close()
    assert receiving.finish() is None
    assert paid[0] == len(asked.encode())


# --- an account that is gone ------------------------------------------------------------------------------------------


def test_connection_of_a_removed_account_has_less_than_half_a_second_for_a_last_word(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its channel would go on for seconds while the other end does not read."""
    near, far = tcp_pair()
    shared = SimpleNamespace(log=logging.getLogger("test"), accounts=SimpleNamespace(profile=1))
    link, ticket = Link(far, math.inf), SimpleNamespace()
    connection = Connection(cast(Shared, shared), link, cast(Ticket, ticket), "192.0.2.1", 1)
    connection._channel = channel = Channel(far, S2C, C2S, engine)
    broken: list[bool] = []
    for seconds in (0.0, 0.3, 0.5):
        now = time.monotonic() + seconds
        with monkeypatch.context() as later:
            later.setattr(time, "monotonic", lambda now=now: now)
            connection.expel(Code.ACCOUNT)
        broken.append(not channel._life.state.sends)
    assert broken == [False, False, True]
    near.close()
    channel.close()


# --- what is settled --------------------------------------------------------------------------------------------------


def announcements() -> int:
    """How many PUTs this process still holds."""
    gc.collect()
    return sum(isinstance(each, Put) for each in gc.get_objects())


@pytest.mark.parametrize("answer", ["refused", "skipped"])
def test_of_a_file_that_is_settled_and_not_closed_no_announcement_is_kept(
    storage: Storage, engine: Engine, tmp_path: Path, answer: str
) -> None:
    def admit(_: str) -> None:
        if answer == "refused":
            raise Refused(Code.DENIED)

    written(tmp_path / "received/alice/a", b"there")
    before = announcements()
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    for id in range(1, 101):
        raw.say(put(id, "a", size=DATA_SIZE, policy="skip").encode())
        assert isinstance(raw.hear(), Refuse if answer == "refused" else Receipt)
    assert announcements() - before <= 2, "the last ones"
    raw.say(*(Cancel(id).encode() for id in range(1, 101)), BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None
