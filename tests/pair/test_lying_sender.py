"""The receiver against a sender that lies or breaks the rules."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data, end
from transfers import (
    BIG,
    HALF,
    NEXT,
    NEXT_DONE,
    Hostile,
    Receiving,
    files_in,
    kept,
    kept_of,
    on_disk,
    put,
    receipt,
    written,
)

import sft.transfer.hashing
import sft.transfer.receiver
from crypto_utils import digest
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    ProtocolViolation,
)
from sft.disk.folders import ExistingFile
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    End,
    Entries,
    Error,
    Get,
    Kind,
    ListFolder,
    PolicyWord,
    Put,
    Receipt,
    Refuse,
    encode_message,
)
from sft.wire.protocol import CONTROL_LIMIT, DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """With a limit for files that is larger than any disk."""
    storage = Storage(tmp_path / "received", Rules(max_file_size=1 << 62))
    yield storage
    storage.close()


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
    "get": [NEXT.encode(), data(2, 0, b"ab"), Get(1, ("good",), False, True).encode()],
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
    "unknown field": [encode_message(Kind.CANCEL, b"\x93\2\xc0\1")],
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
def test_same_transfer_announced_twice_gets_the_name_once(storage: Storage, engine: Engine, home: Path) -> None:
    one = Put(2, b"t" * 16, ("same",), "file", 5, None, None, "fail")
    two = Put(3, b"t" * 16, ("same",), "file", 5, None, None, "fail")
    hostile = Hostile(storage, engine)
    hostile.raw.say(one.encode(), two.encode(), data(2, 0, b"11111"), data(3, 0, b"22222"))
    hostile.raw.say(end(two, b"22222").encode(), end(one, b"11111").encode(), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert Refuse(2, Code.EXISTS) in heard
    assert on_disk(home) == {"good": b"12345", "same": b"22222"}


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


ABOUT_AN_EXISTING_FILE = ("another size", "no size", "no digest", "data meanwhile", "end meanwhile", "bye meanwhile")


@pytest.mark.parametrize(
    ("there", "lie"), [*(("kept", lie) for lie in SENDER_LIES), *(("existing", lie) for lie in ABOUT_AN_EXISTING_FILE)]
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
    assert files_in(home) == {"good": b"12345"} | ({"next": BIG} if there == "existing" else {})
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
    storage: Storage, engine: Engine, home: Path, policy: PolicyWord
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

    read = ExistingFile.digest

    def read_slowly(existing: ExistingFile, goes_on: Callable[[], bool] = lambda: True) -> bytes:
        go_on.wait()
        return read(existing, goes_on)

    monkeypatch.setattr(sft.transfer.hashing, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(ExistingFile, "digest", read_slowly)
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
