"""The sender against a receiver that lies or breaks the rules."""

import os
import threading
from pathlib import Path

import pytest
from peers import C2S, FILE_SECRET, S2C, Raw, check_nothing_is_left, data, tcp_pair
from transfers import BIG, CONTENT, HALF, LARGE, Clock, Lied, Told, item, path_of, receipt, written

from crypto_utils import digest
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    IntegrityError,
    PeerStopped,
    ProtocolViolation,
    SourceError,
    TransferError,
)
from sft.common.rate_limit import RateLimiter
from sft.disk.sources import PipeSource
from sft.transfer.items import Item
from sft.transfer.sender import Sender
from sft.wire.channel import Channel
from sft.wire.content import Data
from sft.wire.messages import (
    BYE_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    End,
    Entries,
    Error,
    Get,
    ListFolder,
    PolicyWord,
    Put,
    ReceiptOutcome,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE, MAX_ID
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def answered(engine: Engine, here: Path, answers: list[bytes], policy: PolicyWord = "fail") -> Lied:
    """One small file is sent whole, by PUT; then the receiver answers."""
    lied = Lied(engine, [item(written(here / "a.txt", CONTENT), "inbox", "a.txt", policy=policy)], limited=True)
    lied.hear(End)
    lied.raw.say(*answers)
    return lied


ACCEPTED: dict[str, tuple[PolicyWord, bytes]] = {
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


@pytest.mark.parametrize("case", ACCEPTED)
def test_receipt_that_matches_is_a_delivery(engine: Engine, here: Path, case: str) -> None:
    policy, answer = ACCEPTED[case]
    lied = answered(engine, here, [answer, BYE_MESSAGE], policy)
    assert isinstance(lied.hear(Bye)[-1], Bye)
    assert lied.finish() is None
    assert len(lied.told.receipts) == 1
    assert set(lied.told.ends.values()) == {1}


LIES: dict[str, tuple[PolicyWord, bytes]] = {
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
    "accept of a small file": [Accept(1, 0).encode()],
    "refuse for an unknown id": [Refuse(MAX_ID, Code.EXISTS).encode()],
    "accept with an offset": [Accept(1, 5).encode()],
    "check": [Check(1, 5, None).encode()],
    "check for an unknown id": [Check(2, 5, None).encode()],
    "put": [Put(1, b"t" * 16, ("a",), "file", 0, None, None, "fail").encode()],
    "data": [data(1, 0, b"x")],
    "end": [End(1, 0, bytes(32), bytes(32)).encode()],
    "cancel": [Cancel(1).encode()],
    "get": [Get(1, ("a",), False, True).encode()],
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
    lied = Lied(engine, [item(source, "first"), item(source, "inbox", "a.txt")], limited=True)
    lied.hear(End)
    lied.hear(End)
    lied.raw.say(Refuse(1, code).encode(), receipt(2), BYE_MESSAGE)
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


IN_PIECES = 3_000  # bytes of a small file that a limited sender does not send in a BATCH
CROSSING: dict[str, tuple[PolicyWord, list[bytes], bool]] = {
    "nothing": ("fail", [], True),
    "accept": ("fail", [Accept(1, 0).encode()], True),
    "refuse": ("fail", [Refuse(1, Code.EXISTS).encode()], True),
    "accept, then refuse": ("fail", [Accept(1, 0).encode(), Refuse(1, Code.NO_SPACE).encode()], True),
    "skipped": ("skip", [receipt(path=("a",), size=IN_PIECES, sha256=None, outcome="skipped")], True),
    "stored": ("fail", [receipt(path=("a",), size=IN_PIECES, sha256=digest(b"x" * IN_PIECES))], True),
    "check": ("fail", [Check(1, 50, None).encode()], True),
    "of an id never announced": ("fail", [Accept(9, 0).encode()], False),
}


@pytest.mark.parametrize(("answers", "size"), [*((answers, IN_PIECES) for answers in CROSSING), ("accept", LARGE)])
def test_answer_that_crosses_a_withdrawal_is_no_fault(engine: Engine, here: Path, answers: str, size: int) -> None:
    """The file shrinks between its announcement and its content, so that the sender withdraws it. The receiver could
    not know: what it says about that id is late, and changes nothing. Nothing of it is a delivery."""
    policy, said, is_accepted = CROSSING[answers]
    clock = Clock()
    limiter = RateLimiter(10_000 if size == IN_PIECES else None, clock.read, clock.wait)
    near, far = tcp_pair()
    told = Told(lambda item: os.truncate(path_of(item), 1))
    channel, raw = Channel(near, C2S, S2C, engine), Raw(far, S2C, C2S)

    def answer() -> None:
        kinds: list[type[Put | Cancel]] = [Put, Cancel] if size == LARGE else [Cancel]
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
        Sender(channel, channel.messages(), FILE_SECRET, told, limiter).run(
            [item(written(here / "a", b"x" * size), policy=policy), item(here / "missing")]
        )
    except TransferError as caught:
        problem = caught.with_traceback(None)
    channel.close()
    answering.join()
    check_nothing_is_left(engine, channel)
    assert told.codes() == {"a": SourceError, "missing": SourceError}
    assert (problem is None) is is_accepted
    assert told.receipts == {}


def big_receipt(sha256: bytes | None, size: int = len(BIG), outcome: ReceiptOutcome = "already") -> bytes:
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


@pytest.mark.parametrize("change", ["shrinks", "is rewritten"])
def test_source_that_changes_after_it_was_compared_is_withdrawn(engine: Engine, here: Path, change: str) -> None:
    source = written(here / "a", BIG)
    lied = Lied(engine, [item(source)])
    lied.hear(Put)
    lied.raw.say(Check(1, DATA_SIZE, None).encode())
    lied.hear(Check)
    if change == "shrinks":
        os.truncate(source, DATA_SIZE - 1)
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
