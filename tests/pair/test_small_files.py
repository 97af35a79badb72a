"""Small files by PUT: content without waiting for ACCEPT, one answer each, and BYE ahead of the receipts."""

import os
from pathlib import Path

import pytest
from peers import data, end
from transfers import CONTENT, GOOD, LARGE, Hostile, Lied, item, put, receipt, written

from crypto_utils import digest
from sft.common.errors import (
    Code,
    ProtocolViolation,
)
from sft.disk.storage import Storage
from sft.wire.content import Data
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, Cancel, End, Put, Receipt, Refuse
from sft.wire.protocol import UNASKED_LIMIT
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


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
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt")], limited=True)
    assert [type(message) for message in lied.hear(Bye)] == [Put, Data, Data, End, Bye]
    lied.raw.say(receipt(), BYE_MESSAGE)
    assert lied.finish() is None
    assert lied.told.outcomes() == {"inbox/a.txt": "stored"}


def test_refusal_behind_the_senders_bye_is_told(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt")], limited=True)
    lied.hear(Bye)
    lied.raw.say(Refuse(1, Code.EXISTS).encode(), BYE_MESSAGE)
    assert lied.finish() is None
    assert set(lied.told.codes().values()) == {Code.EXISTS}


def test_receivers_bye_behind_the_senders_without_the_last_receipt_is_a_violation(engine: Engine, here: Path) -> None:
    items = [item(written(here / name, CONTENT), "inbox", name) for name in ("a.txt", "b.txt")]
    lied = Lied(engine, items, limited=True)
    lied.hear(Bye)
    lied.raw.say(receipt(), BYE_MESSAGE)
    assert isinstance(lied.finish(), ProtocolViolation)
    assert lied.told.outcomes() == {"inbox/a.txt": "stored"}


def test_sender_does_not_say_bye_while_a_large_file_waits_for_its_accept(engine: Engine, here: Path) -> None:
    content = os.urandom(LARGE)
    items = [item(written(here / "big", content)), item(written(here / "a.txt", CONTENT), "inbox", "a.txt")]
    lied = Lied(engine, items, limited=True)
    assert [type(message) for message in lied.hear(End)] == [Put, Put, Data, Data, End]
    lied.raw.say(receipt(2))
    lied.raw.say(Accept(1, 0).encode())
    assert [type(message) for message in lied.hear(Bye)][-2:] == [End, Bye]
    lied.raw.say(receipt(1, ("big",), LARGE, digest(content)), BYE_MESSAGE)
    assert lied.finish() is None
    assert lied.told.outcomes() == {"inbox/a.txt": "stored", "big": "stored"}
