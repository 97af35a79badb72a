"""What CHECK costs at most: three for one file, and no byte is read for one that is settled."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data
from processes import wait_until
from transfers import Lied, Receiving, item, put, written

from crypto_utils import digest
from sft.common.errors import Code, ConnectionTrouble, ProtocolViolation
from sft.disk.partials import PartialFile
from sft.disk.storage import Storage
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, Cancel, Check, Put, Receipt, Refuse
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

ENDLESS = 1 << 36  # bytes of a sparse file: to hash it takes minutes
LONG = 1 << 24
CONTENT = bytes(1 << 20)


def sparse(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(ENDLESS)
    return path


def test_sender_answers_three_checks_of_a_file_and_no_fourth(engine: Engine, tmp_path: Path) -> None:
    lied = Lied(engine, [item(written(tmp_path / "a", CONTENT))])
    lied.hear(Put)
    for size in (1000, 100, 10):
        lied.raw.say(Check(1, size, None).encode())
        assert lied.hear(Check) == [Check(1, size, digest(CONTENT[:size]))]
    lied.raw.say(Check(1, 1, None).encode())
    assert isinstance(lied.finish(), ProtocolViolation)


def test_sender_that_is_refused_while_it_hashes_stops_at_once(engine: Engine, tmp_path: Path) -> None:
    lied = Lied(engine, [item(sparse(tmp_path / "a"))])
    lied.hear(Put)
    lied.raw.say(Check(1, ENDLESS, None).encode())
    wait_until(lambda: lied.told.hashed)
    lied.raw.say(Refuse(1, Code.QUOTA).encode())
    assert lied.hear(Cancel) == [Cancel(1)]
    lied.raw.say(BYE_MESSAGE)
    assert lied.finish() is None
    assert lied.told.hashed.total() < ENDLESS


def test_receiver_stops_hashing_a_file_that_is_cancelled(storage: Storage, engine: Engine, tmp_path: Path) -> None:
    """The next file that is compared has not to wait until the first one is read."""
    home = tmp_path / "received/alice"
    sparse(home / "endless")
    written(home / "short", CONTENT)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "endless", size=ENDLESS).encode())
    assert raw.hear() == Check(1, ENDLESS, None)
    raw.say(Cancel(1).encode(), put(2, "short", size=len(CONTENT)).encode())
    assert raw.hear() == Check(2, len(CONTENT), None)
    raw.say(Check(2, len(CONTENT), digest(CONTENT)).encode())
    answer = raw.hear()
    assert isinstance(answer, Receipt)
    assert (answer.id, answer.outcome) == (2, "already")
    raw.say(Cancel(2).encode(), BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None


def test_cancelled_file_is_closed_when_nothing_reads_from_it_any_more(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thread that hashes would go on reading from whatever gets the descriptor's number next."""
    cut_off(storage, engine)
    reading, begun, closed = [], threading.Event(), []
    of_kept, close = PartialFile.digest_of_kept, PartialFile.close

    def endless(partial: PartialFile, size: int, *goes_on: Callable[[], bool]) -> "hashlib._Hash":
        os.truncate(partial.descriptor, ENDLESS)
        reading.append(partial)
        begun.set()
        try:
            return of_kept(partial, ENDLESS, *goes_on)
        finally:
            reading.remove(partial)

    def note(partial: PartialFile) -> None:
        closed.append(partial not in reading)
        close(partial)

    monkeypatch.setattr(PartialFile, "digest_of_kept", endless)
    monkeypatch.setattr(PartialFile, "close", note)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "long", size=LONG).encode())
    assert raw.hear() == Check(1, len(CONTENT), None)
    assert begun.wait(10)
    raw.say(Cancel(1).encode(), BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None
    assert closed == [True]


def test_receiver_stops_hashing_when_the_connection_ends(storage: Storage, engine: Engine, tmp_path: Path) -> None:
    """Nobody waits for the digest any more."""
    sparse(tmp_path / "received/alice/endless")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "endless", size=ENDLESS).encode())
    assert raw.hear() == Check(1, ENDLESS, None)
    raw.close()
    receiving.finish()


def cut_off(storage: Storage, engine: Engine) -> None:
    """A connection that ends in the middle of a large file: something of it is kept."""
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "long", size=LONG).encode())
    assert raw.hear() == Accept(1, 0)
    raw.say(data(1, 0, CONTENT))
    raw.close()
    receiving.finish()


def test_receiver_stops_hashing_what_was_kept_when_the_connection_ends(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(storage, engine)
    hashing, of_kept = threading.Event(), PartialFile.digest_of_kept

    def endless(partial: PartialFile, size: int, *goes_on: Callable[[], bool]) -> "hashlib._Hash":
        os.truncate(partial.descriptor, ENDLESS)  # as after a cut of a file that is that large
        hashing.set()
        return of_kept(partial, ENDLESS, *goes_on)

    monkeypatch.setattr(PartialFile, "digest_of_kept", endless)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "long", size=LONG).encode())
    assert raw.hear() == Check(1, len(CONTENT), None)
    assert hashing.wait(10)
    raw.close()
    assert isinstance(receiving.finish(), ConnectionTrouble)
