"""What is there already, what an earlier attempt has left, two transfers at once, and lost receipts."""

import json
import os
import threading
from pathlib import Path

import pytest
from peers import C2S, FILE_SECRET, S2C, Raw, close_all, data, end
from transfers import (
    LARGE,
    OVERHEAD,
    SIZE,
    Hostile,
    Receiving,
    Told,
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

from crypto_utils import digest
from sft.common.errors import (
    Code,
    ConnectionTrouble,
)
from sft.common.rate_limit import RateLimiter
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.transfer.sender import Sender
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    PolicyWord,
    Put,
    Receipt,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE, UNASKED_LIMIT
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def partial_of(home: Path) -> Path:
    """The bytes that are kept, of the one file."""
    (journal,) = (home.parent / PARTIAL_AREA / "alice").glob("*.journal")
    (found,) = (each for each in journal.parent.glob(f"{journal.stem}.*") if each != journal)
    return found


def wait_for_bytes(home: Path, count: int) -> None:
    """Until the receiver has written so many; `no_hang` watches."""
    waiting = threading.Event()
    while kept_of(home) != [count]:
        waiting.wait(0.005)


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
        Sender(channel, channel.messages(), FILE_SECRET, told, RateLimiter(None)).run([one])
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
    storage.sweep()  # an empty one does not tell that there were bytes
    assert on_disk(home) == {"a": content}
    assert told.bytes[again] == SIZE


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
@pytest.mark.parametrize("size", [LARGE, DATA_SIZE, SIZE])
def test_identical_large_file_is_not_sent_again(
    storage: Storage, engine: Engine, here: Path, home: Path, size: int, policy: PolicyWord
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
    storage: Storage, engine: Engine, here: Path, home: Path, size: int, policy: PolicyWord
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
    storage: Storage, engine: Engine, here: Path, home: Path, policy: PolicyWord, size: int
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
@pytest.mark.parametrize(
    ("policy", "taken"),
    [("fail", False), ("rename", False), ("replace", False), ("rename", True), ("replace", True)],
)
def test_lost_receipt_is_repeated_and_not_the_file(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: PolicyWord, size: int, taken: bool
) -> None:
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
    send(Receiving(storage, engine), [one], told, transfer=one.transfer)
    assert told.outcomes() == {"a": "already"}
    assert told.receipts[one].path == (("a.1",) if taken and policy == "rename" else ("a",))
    assert told.receipts[one].sha256 == digest(content)
    assert on_disk(home) == before
