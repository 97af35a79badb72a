"""REMOVE, MOVE, USAGE and SET: what each needs, what it answers, and in which order."""

import socket
import stat
import struct
import threading
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data, end
from processes import LIMIT, wait_until
from test_batches import batch, file
from transfers import Receiving, answers_to, put, written

import sft.wire.outbox
from sft.common.errors import Code, Ended, ProtocolViolation, Refused
from sft.disk import removal
from sft.disk.storage import Storage
from sft.wire.batch import Receipts
from sft.wire.change_messages import Amounts, Done, Move, Remove, SetAttributes, Usage
from sft.wire.messages import (
    BYE_MESSAGE,
    Bye,
    Cancel,
    Control,
    Entries,
    Error,
    Get,
    ListFolder,
    Ping,
    Rate,
    Receipt,
    Refuse,
)
from sft.wire.tree_messages import Tree
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

TIME = 1_234_567_890_123_456_789
EACH = [Remove(1, ("a",), False), Move(1, ("a",), ("b",)), Usage(1), SetAttributes(1, ("a",), TIME, None)]
NAMES = ["REMOVE", "MOVE", "USAGE", "SET"]


@pytest.mark.usefixtures("there")
def test_requests_are_answered_in_their_order(storage: Storage, engine: Engine, home: Path) -> None:
    asked: list[Control] = [
        Remove(1, ("d",), False),
        Move(7, ("d", "x"), ("new", "y")),
        Remove(2, ("d",), True),
        ListFolder(3, (), None),
        SetAttributes(4, ("new", "y"), TIME, 0o600),
        Usage(5),
        Remove(6, ("missing",), True),
    ]
    heard = answers_to(storage, engine, *asked)
    entries, amounts = heard.pop(3), heard.pop(4)
    assert heard == [Refuse(1, Code.NOT_EMPTY), Done(7, 1), Done(2, 6), Done(4, 1), Refuse(6, Code.NOT_FOUND)]
    assert isinstance(entries, Entries) and [each.name for each in entries.entries] == ["a", "new"]
    assert isinstance(amounts, Amounts)
    assert (amounts.files, amounts.quota_bytes, amounts.quota_files) == (3, None, None)
    assert amounts.bytes == 3 * 512 and amounts.free is not None
    found = (home / "new/y").stat()
    assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode), found.st_size) == (TIME, 0o600, 1)


@pytest.mark.parametrize("asked", EACH, ids=NAMES)
@pytest.mark.usefixtures("there")
def test_first_message_makes_it_a_connection_of_questions(storage: Storage, engine: Engine, asked: Control) -> None:
    first, *others = answers_to(storage, engine, asked, Tree(2, (), None), ListFolder(3, (), None))
    assert isinstance(first, Done | Amounts)
    assert len(others) == 2


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (EACH[0], {"remove"}),
        (EACH[1], {"remove", "put"}),
        (EACH[2], {"list"}),
        (EACH[3], {"replace", "get"}),
    ],
    ids=NAMES,
)
@pytest.mark.usefixtures("there")
def test_each_needs_its_rights(storage: Storage, engine: Engine, home: Path, asked: Control, needed: set[str]) -> None:
    for missing in needed:

        def admit(right: str, missing: str = missing) -> None:
            if right == missing:
                raise Refused(Code.DENIED)

        before = (home / "a").stat()
        assert answers_to(storage, engine, asked, admit=admit) == [Refuse(1, Code.DENIED)]
        assert (home / "a").stat().st_mtime_ns == before.st_mtime_ns and not (home / "b").exists()

    def only(right: str) -> None:
        if right not in needed:
            raise Refused(Code.DENIED)

    assert not isinstance(answers_to(storage, engine, asked, admit=only)[0], Refuse)


@pytest.mark.parametrize("asked", EACH, ids=NAMES)
@pytest.mark.usefixtures("there")
def test_changed_account_ends_it(storage: Storage, engine: Engine, home: Path, asked: Control) -> None:
    def admit(right: str) -> None:
        raise Ended(Code.ACCOUNT)

    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(asked.encode())
    assert raw.hear_all() == [Error(Code.ACCOUNT)]
    raw.close()
    assert isinstance(receiving.finish(), Ended)
    assert (home / "a").exists()


@pytest.mark.parametrize(
    "message",
    [Get(2, (), False, False, False, 0).encode(), put(2, "a").encode(), Cancel(2).encode(), Done(2, 1).encode()],
)
@pytest.mark.parametrize("asked", EACH, ids=NAMES)
def test_other_message_on_a_connection_of_questions_is_a_violation(
    storage: Storage, engine: Engine, asked: Control, message: bytes
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    is_set = isinstance(asked, SetAttributes) and message == put(2, "a").encode()  # which may stand before a PUT
    raw.say(asked.encode(), put(2, "a").encode() + asked.encode() if is_set else message)
    assert raw.hear_all()[-1] == Error(Code.PROTOCOL)
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


def test_path_that_is_not_allowed_is_refused_and_the_next_is_answered(
    storage: Storage, engine: Engine, home: Path
) -> None:
    (home.parent / "bob").mkdir(parents=True)
    bad: list[tuple[str, ...]] = [(), ("..",), ("..", "bob"), ("..", ".partial"), ("a/b",), ("a\0",)]
    for path in bad:
        asked = [Remove(1, path, True), Move(2, path, ("b",)), Move(3, ("a",), path), SetAttributes(4, path, 0, None)]
        heard = answers_to(storage, engine, *asked, ListFolder(5, (), None))
        assert heard[:4] == [Refuse(id, Code.NAME) for id in (1, 2, 3, 4)]
        assert isinstance(heard[4], Entries)
    assert (home.parent / "bob").is_dir() and (home.parent / ".partial/alice").is_dir()


def test_usage_of_an_account_with_a_rate_may_come_behind_rate(storage: Storage, engine: Engine) -> None:
    heard = answers_to(storage, engine, Rate(100_000), Usage(1))
    assert isinstance(heard[0], Amounts)


# --- what is logged ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("there")
def test_log_names_what_was_changed_and_how_much_is_gone(storage: Storage, engine: Engine) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    asked = [Move(1, ("a",), ("b",)), Remove(2, ("d",), True), SetAttributes(3, ("b",), TIME, 0o600)]
    raw.say(*(each.encode() for each in [*asked, Remove(4, ("a",), True), Remove(5, ("..",), True)]), BYE_MESSAGE)
    raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert receiving.logged == [
        "moved a to b",
        "removed d: 3 files, 4 other names",
        "set the time and the mode of b",
        "not removed: a: nothing of that name is there",
        "not removed: ..: that name is not allowed (.. is not a name)",
    ]


def test_removal_ends_with_its_connection_and_the_log_tells_how_much_is_gone(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        written(home / f"d/{number:02}/x", b"")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    monkeypatch.setattr(removal, "_STEP_NAMES", 1)
    real = removal.Removal._unlink
    left, reached = 10, threading.Event()

    def cut(*words: object) -> bool:
        nonlocal left
        left -= 1
        if not left:
            reached.set()
            wait_until(lambda: receiving.channel.ended)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(removal.Removal, "_unlink", cut)
    raw.say(Remove(1, ("d",), True).encode())
    assert reached.wait(LIMIT)
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its close is a reset
    raw.close()
    assert receiving.finish() is not None
    rest = len(list((home / "d").rglob("*"))) + 1
    assert 1 < rest < 81
    assert len(receiving.logged) == 1 and receiving.logged[0].startswith("began to remove d: 10 files, ")
    assert answers_to(storage, engine, Remove(1, ("d",), True)) == [Done(1, rest)]
    assert not (home / "d").exists()


# --- SET among PUTs ---------------------------------------------------------------------------------------------------


def test_set_between_puts_finds_what_was_sent_before(storage: Storage, engine: Engine, home: Path) -> None:
    first, second = put(2, "a"), put(4, "b")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(
        SetAttributes(1, ("a",), 0, None).encode(),
        *(first.encode(), data(2, 0, b"12345"), end(first, b"12345").encode()),
        SetAttributes(3, ("a",), TIME, 0o600).encode(),
        *(second.encode(), data(4, 0, b"12345"), end(second, b"12345").encode()),
        SetAttributes(5, ("..",), 0, None).encode(),
        BYE_MESSAGE,
    )
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    answers = [each for each in heard if not isinstance(each, Receipt)]
    assert answers == [Refuse(1, Code.NOT_FOUND), Done(3, 1), Refuse(5, Code.NAME), Bye()]
    assert [each.id for each in heard if isinstance(each, Receipt)] == [2, 4]
    assert (home / "a").stat().st_mtime_ns == TIME


@pytest.mark.parametrize(
    "messages",
    [
        (put(2, "a"), SetAttributes(2, ("a",), 0, None)),
        (put(2, "a"), SetAttributes(1, ("a",), 0, None)),
        (SetAttributes(3, ("a",), 0, None), put(3, "a")),
        (put(1, "a"), Remove(2, ("a",), False)),
        (put(1, "a"), Move(2, ("a",), ("b",))),
        (put(1, "a"), Usage(2)),
        (SetAttributes(1, ("a",), 0, None), Remove(2, ("a",), False), put(3, "a")),
        (SetAttributes(1, ("a",), 0, None), Get(2, (), False, False, False, 0)),
        (Done(1, 1),),
        (Amounts(1, 0, 0, None, None, None),),
    ],
)
def test_question_at_a_wrong_place_or_with_a_used_id_is_a_violation(
    storage: Storage, engine: Engine, messages: tuple[Control, ...]
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(each.encode() for each in messages))
    assert raw.hear_all()[-1] == Error(Code.PROTOCOL)
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


# --- the right to replace ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 70_000])
def test_replacing_needs_a_right_of_its_own(storage: Storage, engine: Engine, home: Path, size: int) -> None:
    written(home / "a", b"old")

    def admit(right: str) -> None:
        if right == "replace":
            raise Refused(Code.DENIED)

    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    asked = put(1, "a", size=size, policy="replace")
    whole = [data(1, 0, b"other"), end(asked, b"other").encode()]  # the name of a small file is looked at in the end
    raw.say(asked.encode(), *(whole if size == 5 else [Cancel(1).encode()]))
    raw.say(put(2, "b", size=5, policy="rename").encode(), data(2, 0, b"12345"))
    raw.say(end(put(2, "b", size=5, policy="rename"), b"12345").encode(), BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert heard[0] == Refuse(1, Code.NOT_REPLACED)
    assert isinstance(heard[1], Receipt) and heard[1].path == ("b",)
    assert (home / "a").read_bytes() == b"old"


@pytest.mark.usefixtures("there")
def test_signs_of_life_go_on_while_something_is_removed(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard_of_it, real = threading.Event(), removal.Removal._unlink

    def wait(*words: object) -> bool:
        assert heard_of_it.wait(30)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(removal.Removal, "_unlink", wait)
    monkeypatch.setattr(sft.wire.outbox, "PING_AFTER", 0.05)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(Remove(1, ("d",), True).encode())
    assert isinstance(raw.hear_any(), Ping)
    heard_of_it.set()
    raw.say(BYE_MESSAGE)
    assert raw.hear_all() == [Done(1, 7), Bye()]
    raw.close()
    assert receiving.finish() is None


def test_set_behind_a_batch_finds_its_files_and_replacing_needs_the_right_there_too(
    storage: Storage, engine: Engine, home: Path
) -> None:
    written(home / "old", b"old")

    def admit(right: str) -> None:
        if right == "replace" and not is_allowed:
            raise Refused(Code.DENIED)

    is_allowed = True
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(batch(1, file("a", b"12345")), SetAttributes(2, ("a",), TIME, None).encode())
    heard = raw.hear(), raw.hear()
    assert isinstance(heard[0], Receipts) and heard[1] == Done(2, 1)
    is_allowed = False
    raw.say(batch(3, file("old", b"new"), policy="replace"), SetAttributes(4, ("a",), 0, None).encode(), BYE_MESSAGE)
    found = raw.hear()
    assert isinstance(found, Receipts) and [each.word for each in found.outcomes] == ["not-replaced"]
    assert raw.hear_all() == [Refuse(4, Code.DENIED), Bye()]
    raw.close()
    assert receiving.finish() is None
    assert ((home / "a").stat().st_mtime_ns, (home / "old").read_bytes()) == (TIME, b"old")
