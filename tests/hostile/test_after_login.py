"""Faults of a client that is logged in: what it sends is refused or ends the connection, and nothing else changes."""

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from processes import PASSWORD, USER, Server, wait_until
from scene import OTHER, Stage, Tree, ending, said, some
from speaker import (
    BLOCK,
    RECORD_LIMIT,
    SMALL,
    ClientLogin,
    Line,
    Session,
    batch,
    batch_file,
    batch_header,
    body_of,
    control,
    data,
    frame,
    log_in,
    message,
    pack,
    put_fields,
    u32,
)

from sft.common.errors import ProtocolViolation
from sft.wire.messages import Misnamed, decode_message

NO_SUCH = "NO SUCH"
ENDED_BY_US = "ERROR protocol"
LARGE = SMALL + 5

Speak = Callable[[Session], None]


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def put(id: int = 1, path: tuple[str, ...] = ("x",), size: int | None = 1, **more: Any) -> bytes:
    return control("PUT", **put_fields(id, list(path), size, **more))


def whole(session: Session, id: int = 1, name: str = "x", content: bytes = b"x", **more: Any) -> bytes:
    """A small file, with its END, in one piece; `more` takes the place of fields of its END."""
    body = body_of(put_fields(id, [name], len(content)))
    return message("PUT", body) + data(id, 0, content) + session.end(body, content, **more)


# --- records and frames -----------------------------------------------------------------------------------------------


def spoilt(record: bytes, at: int) -> bytes:
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


def of_another_connection(session: Session) -> None:
    with Line(session.line.sock.getpeername()[1]) as line:
        other = log_in(line, USER, PASSWORD)
        session.line.send(other.seal(whole(other)))


RECORDS: dict[str, tuple[Speak, str]] = {
    "length of zero": (lambda session: session.line.send(bytes(4)), ENDED_BY_US),
    "length without a text": (lambda session: session.line.send(frame(bytes(16))), ENDED_BY_US),
    "length over the ceiling": (lambda session: session.line.send(u32(2**20 + 4096 + 17)), ENDED_BY_US),
    "length of 2^31": (lambda session: session.line.send(u32(2**31)), ENDED_BY_US),
    "length of 2^32-1": (lambda session: session.line.send(u32(2**32 - 1)), ENDED_BY_US),
    "length of the ceiling, and less sent": (lambda session: session.line.send(u32(2**20 + 4096 + 16) + b"x"), ""),
    "half a length": (lambda session: session.line.send(b"\0\0"), ""),
    "half a record": (lambda session: session.line.send(session.seal(whole(session))[:100]), ""),
    "tag changed": (lambda session: session.line.send(spoilt(session.seal(whole(session)), -1)), "ERROR integrity"),
    "text changed": (lambda session: session.line.send(spoilt(session.seal(whole(session)), 9)), "ERROR integrity"),
    "random bytes": (lambda session: session.line.send(frame(os.urandom(500))), "ERROR integrity"),
    "large random bytes": (lambda session: session.line.send(frame(os.urandom(1 << 20))), "ERROR integrity"),
    "number left out": (lambda session: session.line.send(session.seal(whole(session), 1)), "ERROR integrity"),
    "number beyond 2^48": (lambda session: session.line.send(session.seal(whole(session), 2**48)), "ERROR integrity"),
    "record twice": (lambda session: session.line.send(session.seal(message("PING")) * 2), "ERROR integrity"),
    "records in the other order": (
        lambda session: session.line.send(session.seal(whole(session), 1) + session.seal(message("BYE"), 0)),
        "ERROR integrity",
    ),
    "another connection's record": (of_another_connection, "ERROR integrity"),
    "second hello": (lambda session: session.line.send(ClientLogin(USER, PASSWORD).hello()), "ERROR integrity"),
}


@pytest.mark.parametrize("fault", RECORDS)
def test_refuse_record(stage: Stage, fault: str) -> None:
    speak, code = RECORDS[fault]
    with stage.session() as session:
        speak(session)
        session.line.stop()
        assert ending(session) == ([code] if code else [], "closed")
    stage.check()


def test_refuse_own_record_reflected(stage: Stage) -> None:
    with stage.session() as session:
        session.say(whole(session))
        answer = session.line.frame(17, RECORD_LIMIT)
        session.heard += 1
        wait_until((stage.home / "x").exists)
        session.line.send(answer)
        assert said(session.hear_all()[-1]) == "ERROR integrity"
    stage.check(x=b"x")
    (stage.home / "x").unlink()


def test_any_byte_of_a_login_and_a_file_may_be_the_last(stage: Stage) -> None:
    """A client that vanishes after so many bytes: nothing is there until all of END is."""
    ends = []
    for cut in (1, 30, 75, 90, 150, -1):
        with stage.session() as session:
            record = session.seal(whole(session))
            session.line.send(record[:cut])
            session.line.stop()
            ends.append(ending(session))
    assert ends == [([], "closed")] * 6
    stage.check()


# --- messages ---------------------------------------------------------------------------------------------------------

MESSAGES: dict[str, bytes] = {
    "type 0": message(0),
    "type 15": message(15),
    "type 255": message(255, b"\x90"),
    "half a header": b"\1\0\0",
    "size beyond the record": message("PUT")[:1] + u32(1000) + b"\x90",
    "size of 2^32-1": b"\1" + u32(2**32 - 1) + b"\x90",
    "PING with a body": message("PING", b"x"),
    "BYE with a body": message("BYE", b"\x90"),
    "message behind BYE": message("BYE") + put(),
    "BYE twice": message("BYE") * 2,
    "control message of 65,537 bytes": message("PUT", body_of(put_fields(1, ["x"], 1)).ljust(65537, b"\xc0")),
    "control message of a mebibyte": message("PUT", body_of(put_fields(1, ["x" * (1 << 20)], 1))),
    "DATA first": data(1, 0, b"x"),
    "END first": control("END", id=1, size=1, sha256=bytes(32), mac=bytes(32)),
    "CANCEL first": control("CANCEL", id=1, code=None),
    "CHECK first": control("CHECK", id=1, size=1, sha256=bytes(32)),
    "ACCEPT": control("ACCEPT", id=1, offset=0),
    "REFUSE": control("REFUSE", id=1, code="busy"),
    "RECEIPT": control("RECEIPT", id=1, path=["x"], size=0, sha256=None, time=0, outcome="folder"),
    "ENTRY": control("ENTRY", id=1, entries=[], more=False),
    "PUT, ACCEPT": put() + control("ACCEPT", id=1, offset=0),
    "PUT, REFUSE": put() + control("REFUSE", id=1, code="busy"),
    "PUT, RECEIPT": put() + control("RECEIPT", id=1, path=["x"], size=0, sha256=None, time=0, outcome="folder"),
    "PUT, GET": put() + control("GET", id=1, path=["x"], more=False),
    "PUT, LIST": put() + control("LIST", id=1, path=[], after=None),
    "PUT, BYE": put() + message("BYE"),
    "PUT, DATA, BYE": put() + data(1, 0, b"x") + message("BYE"),
    "PUT twice": put() + put(),
    "PUT with a lower id": put(2) + put(1, ("y",)),
    "DATA of an id never PUT": put(1) + data(2, 0, b"x"),
    "END of an id never PUT": put(1) + control("END", id=2, size=1, sha256=bytes(32), mac=bytes(32)),
    "CANCEL of an id never PUT": put(1) + control("CANCEL", id=2, code=None),
    "CANCEL twice": put(1) + control("CANCEL", id=1, code=None) * 2,
    "DATA behind CANCEL": put(1) + control("CANCEL", id=1, code=None) + data(1, 0, b"x"),
    "DATA of a folder": put(size=None, kind="folder", path=("honestly",)) + data(1, 0, b"x"),
    "CHECK that nobody asked for": put() + control("CHECK", id=1, size=1, sha256=bytes(32)),
    "DATA beyond its place": put() + data(1, 1, b"x"),
    "DATA at 2^63": put() + data(1, 2**63, b"x"),
    "DATA at -1": put() + data(1, 2**64 - 1, b"x"),
    "DATA at its place again": put(size=BLOCK) + data(1, 0, bytes(BLOCK)) + data(1, 0, bytes(BLOCK)),
    "DATA of nothing": put() + data(1, 0, b""),
    "DATA without an offset": put() + message("DATA", u32(1) + b"\0"),
    "DATA of id 0": put() + data(0, 0, b"x"),
    "DATA of more than a block": put(size=2 * BLOCK) + data(1, 0, bytes(BLOCK + 1)),
    "DATA behind a short one": put(size=10) + data(1, 0, b"x") + data(1, 1, b"x"),
    "257 files begun and not ended": b"".join(put(id, (f"n{id}",)) for id in range(1, 258)),
    "GET, PUT": control("GET", id=1, path=[NO_SUCH], more=True) + put(),
    "GET, BYE": control("GET", id=1, path=[NO_SUCH], more=True) + message("BYE"),
    "GET, LIST": control("GET", id=1, path=[NO_SUCH], more=True) + control("LIST", id=1, path=[], after=None),
    "RATE, PUT": control("RATE", rate=1000) + put(),
    "RATE, BYE": control("RATE", rate=1000) + message("BYE"),
    "RATE twice": control("RATE", rate=1000) * 2 + control("GET", id=1, path=[NO_SUCH], more=True),
    "RATE of 0": control("RATE", rate=0) + control("GET", id=1, path=[NO_SUCH], more=True),
    "RATE of 2^63": control("RATE", rate=2**63) + control("GET", id=1, path=[NO_SUCH], more=True),
    "RATE that is null": control("RATE", rate=None) + control("GET", id=1, path=[NO_SUCH], more=True),
    "GET, RATE": control("GET", id=1, path=[NO_SUCH], more=True) + control("RATE", rate=1000),
    "LIST, RATE": control("LIST", id=1, path=[NO_SUCH], after=None) + control("RATE", rate=1000),
    "PUT, RATE": put() + control("RATE", rate=1000),
    "CANCEL without a code": put() + control("CANCEL", id=1),
    "CANCEL with an unknown code": put() + control("CANCEL", id=1, code="tired"),
    "LIST, PUT": control("LIST", id=1, path=[NO_SUCH], after=None) + put(),
    "BRANCH": control("BRANCH", id=1, entries=[], more=False),
    "GET, TREE": control("GET", id=1, path=[NO_SUCH], more=True) + control("TREE", id=2, path=[], after=None),
    "SET, GET": control("SET", id=1, path=[NO_SUCH], mtime=1, mode=None) + control("GET", id=2, path=[], more=False),
    "GET of no depth": control("GET", id=1, path=[NO_SUCH], more=False, depth=0),
    "GET deeper than its path": control("GET", id=1, path=[NO_SUCH, "x"], more=False, depth=3),
    "GET of all with a depth": control("GET", id=1, path=[], more=False, depth=1),
    "GET of a negative depth": control("GET", id=1, path=[NO_SUCH], more=False, depth=-1),
    "GET without a depth": message("GET", body_of({"a": 1, "b": [NO_SUCH], "c": False, "d": False, "e": False})),
    "TREE, GET, LIST": control("TREE", id=1, path=[NO_SUCH], after=None)
    + control("GET", id=2, path=[NO_SUCH], more=True)
    + control("LIST", id=3, path=[], after=None),
    "TREE, LIST, PUT": control("TREE", id=1, path=[NO_SUCH], after=None)
    + control("LIST", id=2, path=[NO_SUCH], after=None)
    + put(3),
    "PUT, TREE, LIST": put() + control("TREE", id=2, path=[], after=None) + control("LIST", id=3, path=[], after=None),
    "RATE, TREE, PUT": control("RATE", rate=1000) + control("TREE", id=1, path=[NO_SUCH], after=None) + put(2),
    "TREE, RATE": control("TREE", id=1, path=[NO_SUCH], after=None) + control("RATE", rate=1000),
    "TREE, PUT with the same id": control("TREE", id=1, path=[NO_SUCH], after=None) + put(1),
    "TREE twice with one id, PUT": control("TREE", id=1, path=[NO_SUCH], after=None) * 2 + put(2),
    "TREE, TREE with a lower id, PUT": control("TREE", id=2, path=[NO_SUCH], after=None)
    + control("TREE", id=1, path=[NO_SUCH], after=None)
    + put(3),
    "PUT, TREE with the same id": put(1) + control("TREE", id=1, path=[NO_SUCH], after=None),
    "TREE behind an empty path": control("TREE", id=1, path=[], after=[]),
    "TREE behind a name": control("TREE", id=1, path=[], after="a"),
    "USAGE, GET": control("USAGE", id=1) + control("GET", id=1, path=[], more=False),
}
LEAVES = {"DATA of a folder": {"honestly": "d"}}


@pytest.mark.parametrize("fault", MESSAGES)
def test_refuse_message(stage: Stage, fault: str) -> None:
    with stage.session() as session:
        session.say(MESSAGES[fault])
        kinds, how = ending(session)
        assert (kinds[-1], how) == (ENDED_BY_US, "closed")
        assert "RECEIPT" not in kinds or fault in LEAVES
    stage.check_tree({f"received/{USER}/{name}": kind for name, kind in LEAVES.get(fault, {}).items()})
    for name in LEAVES.get(fault, {}):
        (stage.home / name).rmdir()


@pytest.mark.parametrize("more", [0, 1])
def test_one_record_stands_for_so_much_content_and_no_more(stage: Stage, more: int) -> None:
    with stage.session() as session:
        session.say(put(size=None))
        session.expect("ACCEPT", id=1)
        zeros = b"".join(data(1, at * BLOCK, b"", BLOCK) for at in range(64 + more))
        session.say(zeros + control("CANCEL", id=1, code=None) + message("BYE"))
        kinds, how = ending(session)
        assert (kinds, how) == ([ENDED_BY_US] if more else ["BYE"], "closed")
    stage.check()


@pytest.mark.parametrize("more", [0, 1])
def test_one_record_has_so_much_compared_and_no_more(stage: Stage, more: int) -> None:
    with stage.session() as session:
        files = [batch_file([f"{number}"], b"", offered=True, size=65536) for number in range(512)]
        batches = [batch_header(id, files[: 512 if id < 3 else more]) for id in range(1, 3 + more)]
        said = b"".join(message("BATCH", batch(session.file_key, each, b"")) for each in batches)
        session.say(said + message("BYE"))
        kinds, how = ending(session)
        assert kinds[-1] == (ENDED_BY_US if more else "BYE") and how == "closed"
    stage.check()


def test_refuse_more_files_than_the_window_holds(stage: Stage) -> None:
    """4,096 that are refused and never closed by END or CANCEL are 257 too many much earlier."""
    with stage.session() as session:
        for first in range(1, 4098, 200):
            session.say(*(put(id, ("..",)) for id in range(first, min(first + 200, 4098))))
        assert ending(session)[0][-1] == ENDED_BY_US
    stage.check()


def fields(**more: Any) -> bytes:
    return body_of({**put_fields(1, ["x"], 1), **more})


def without(name: str) -> bytes:
    return body_of({key: value for key, value in put_fields(1, ["x"], 1).items() if key != name})


def replaced(old: bytes, new: bytes) -> bytes:
    """A body with other bytes in one place."""
    body = body_of(put_fields(1, ["x"], 1) | {"transfer": TRANSFER})
    assert body.count(old) == 1
    return body.replace(old, new)


TRANSFER = bytes(16)
PATH, NAME, KIND, POLICY = pack(["x"]), pack("x"), pack("file"), pack("fail")
MTIME, MODE = pack(1700000000000000000), pack(0o644)
ID, SIZE = b"\x99\1", KIND + b"\1"  # with what stands before them
BIN = pack(TRANSFER)

BODIES: dict[str, bytes] = {
    "empty": b"",
    "nil": b"\xc0",
    "a number": b"\1",
    "an empty array": b"\x90",
    "a text": pack("PUT"),
    "a map": pack(put_fields(1, ["x"], 1)),
    "a map of numbers": pack(dict(enumerate(put_fields(1, ["x"], 1).values()))),
    "JSON": json.dumps({**put_fields(1, ["x"], 1), "transfer": "0" * 32}).encode(),
    "the fields without an array": fields()[1:],
    "an array in an array": b"\x91" + fields(),
    "not ended": fields()[:-1],
    "only its header": fields()[:1],
    "two arrays": fields() * 2,
    "a byte before": b"\0" + fields(),
    "a byte behind": fields() + b"\0",
    "nil behind": fields() + b"\xc0",
    "a byte that begins nothing": replaced(ID, b"\x99\xc1"),
    "a field more": fields(more=1),
    "a nil more": fields(more=None),
    "two fields in the other order": replaced(MTIME + MODE, MODE + MTIME),
    **{f"without {name}": without(name) for name in put_fields(1, ["x"], 1)},
    "array of one field more than there are": b"\x9a" + fields()[1:],
    "array of one field less than there are": b"\x98" + fields()[1:],
    "array of 2^16-1 fields": b"\xdc\xff\xff" + fields()[1:],
    "array of 2^32-1 fields": b"\xdd\xff\xff\xff\xff" + fields()[1:],
    "text of 2^32-1 bytes": replaced(NAME, b"\xdb\xff\xff\xff\xffx"),
    "bin of 2^32-1 bytes": replaced(BIN, b"\xc6\xff\xff\xff\xff" + TRANSFER),
    "path of 2^32-1 names": replaced(PATH, b"\xdd\xff\xff\xff\xff" + NAME),
    "map of 2^32-1 pairs": replaced(PATH, b"\xdf\xff\xff\xff\xff" + NAME),
    "extension for the path": replaced(PATH, b"\xd4\1x"),
    "timestamp for the time": replaced(MTIME, b"\xd6\xff\x65\x53\xf1\0"),
    "extension of 2^32-1 bytes": replaced(PATH, b"\xc9\xff\xff\xff\xff\1x"),
    "float of 32 bits": replaced(SIZE, KIND + b"\xca\x3f\x80\0\0"),
    "float of 64 bits": fields(size=1.0),
    "float of minus zero": fields(size=-0.0),
    "infinity": fields(size=float("inf")),
    "not a number": fields(size=float("nan")),
    "true for one": fields(mode=True),
    "text for a number": fields(size="1"),
    "bin for a number": fields(size=b"1"),
    "list for a number": fields(size=[1]),
    "size of -1": fields(size=-1),
    "size of 2^63": fields(size=2**63),
    "size of 2^64-1": fields(size=2**64 - 1),
    "mtime of 2^63": fields(mtime=2**63),
    "mtime of -2^63": fields(mtime=-(2**63)),
    "mode of -1": fields(mode=-1),
    "mode of 0o10000": fields(mode=0o10000),
    "id 0": fields(id=0),
    "id -1": fields(id=-1),
    "id 2^32": fields(id=2**32),
    "id nil": fields(id=None),
    "transfer one byte short": fields(transfer=bytes(15)),
    "transfer one byte long": fields(transfer=bytes(17)),
    "transfer a text": fields(transfer="a" * 16),
    "transfer a list": fields(transfer=[0] * 16),
    "transfer in hex": fields(transfer="a" * 32),
    "transfer nil": fields(transfer=None),
    "unknown kind": fields(kind="link"),
    "folder with a size": fields(kind="folder"),
    "kind in capitals": fields(kind="FILE"),
    "kind a bin": fields(kind=b"file"),
    "kind nil": fields(kind=None),
    "unknown policy": fields(policy="overwrite"),
    "policy nil": fields(policy=None),
    "path a text": fields(path="x"),
    "path nil": fields(path=None),
    "path of numbers": fields(path=[1]),
    "path of nil": fields(path=[None]),
    "path of a bin": fields(path=[b"x"]),
    "path of a list": fields(path=[["x"]]),
    "path a map": fields(path={"0": "x"}),
    "name a lone surrogate": fields(path=["\ud800"]),
    "name two surrogates in the wrong order": fields(path=["\udc00\ud800"]),
    "name two surrogates in the right order": fields(path=["\ud83d", "\ude00"]),
    "name not UTF-8": replaced(NAME, b"\xa1\xff"),
    "name that ends within a letter": replaced(NAME, b"\xa1\xc3"),
    "name overlong UTF-8 for a slash": replaced(NAME, b"\xa6..\xc0\xaf.."),
    "name overlong UTF-8 for a dot": replaced(NAME, b"\xa4\xc0\xae\xc0\xae"),
    "name beyond Unicode": replaced(NAME, b"\xa4\xf4\x90\x80\x80"),
    "deep lists": replaced(PATH, b"\x91" * 60000 + b"\x90"),
    "deep lists that do not end": b"\x91" * 65536,
    "deep maps": b"\x81\xa1a" * 20000,
    "deep path": fields(path=[[[["x"]]]]),
    # One encoding: a longer one of the same values is none.
    "fields in array 16": b"\xdc\0\x08" + fields()[1:],
    "fields in array 32": b"\xdd\0\0\0\x08" + fields()[1:],
    "path in array 16": replaced(PATH, b"\xdc\0\1" + NAME),
    "path in array 32": replaced(PATH, b"\xdd\0\0\0\1" + NAME),
    "id in uint 8": replaced(ID, b"\x99\xcc\1"),
    "id in uint 16": replaced(ID, b"\x99\xcd\0\1"),
    "id in uint 32": replaced(ID, b"\x99\xce\0\0\0\1"),
    "id in uint 64": replaced(ID, b"\x99\xcf\0\0\0\0\0\0\0\1"),
    "id in int 8": replaced(ID, b"\x99\xd0\1"),
    "id in int 64": replaced(ID, b"\x99\xd3\0\0\0\0\0\0\0\1"),
    "mode in int 16": replaced(MODE, b"\xd1\1\xa4"),
    "mode in uint 32": replaced(MODE, b"\xce\0\0\1\xa4"),
    "mtime in int 64": replaced(MTIME, b"\xd3" + MTIME[1:]),
    "mtime of -1 in int 8": replaced(MTIME, b"\xd0\xff"),
    "mtime of -33 in int 16": replaced(MTIME, b"\xd1\xff\xdf"),
    "name in str 8": replaced(NAME, b"\xd9\1x"),
    "name in str 16": replaced(NAME, b"\xda\0\1x"),
    "name in str 32": replaced(NAME, b"\xdb\0\0\0\1x"),
    "kind in str 8": replaced(KIND, b"\xd9\4file"),
    "policy in str 16": replaced(POLICY, b"\xda\0\4fail"),
    "transfer in bin 16": replaced(BIN, b"\xc5\0\x10" + TRANSFER),
    "transfer in bin 32": replaced(BIN, b"\xc6\0\0\0\x10" + TRANSFER),
}


SOME_BODIES = (
    *("empty", "a map", "a field more", "without id", "array of 2^32-1 fields", "extension of 2^32-1 bytes"),
    *("float of 64 bits", "mode of -1", "path of a list", "name not UTF-8", "name a lone surrogate"),
    *("deep lists", "deep lists that do not end", "id in uint 8", "name in str 8", "transfer in bin 16"),
)


@pytest.mark.parametrize("fault", some(BODIES, *SOME_BODIES))
def test_refuse_body(stage: Stage, fault: str) -> None:
    with stage.session() as session:
        session.say(message("PUT", BODIES[fault]))
        assert ending(session) == ([ENDED_BY_US], "closed")
    stage.check()


ENDS: dict[str, bytes] = {
    "of two fields": b"\x92\1\1",
    "without its mac": pack([1, 1, bytes(32)]),
    "digest in hex": pack([1, 1, "0" * 64, bytes(32)]),
    "digest one byte short": pack([1, 1, bytes(31), bytes(32)]),
    "digest one byte long": pack([1, 1, bytes(33), bytes(32)]),
    "digest nil": pack([1, 1, None, bytes(32)]),
    "mac one byte short": pack([1, 1, bytes(32), bytes(31)]),
    "mac a text": pack([1, 1, bytes(32), "0" * 32]),
    "mac nil": pack([1, 1, bytes(32), None]),
    "size nil": pack([1, None, bytes(32), bytes(32)]),
    "size in uint 8": b"\x94\1\xcc\1" + pack(bytes(32)) * 2,
    "digest in bin 16": b"\x94\1\1\xc5\0\x20" + bytes(32) + pack(bytes(32)),
}


def test_reader_takes_none_of_these_bodies() -> None:
    """Each of them by the reader alone; a server meets some, and all of them in the long run."""
    taken = []
    for kind, bodies in (("PUT", BODIES), ("END", ENDS)):
        for fault, body in bodies.items():
            try:
                decode_message(message(kind)[0], memoryview(body))
            except ProtocolViolation:
                continue
            taken.append(fault)
    assert taken == []


@pytest.mark.parametrize("fault", some(ENDS, "of two fields", "mac nil", "size in uint 8"))
def test_refuse_body_of_an_end(stage: Stage, fault: str) -> None:
    with stage.session() as session:
        session.say(put(), data(1, 0, b"x"), message("END", ENDS[fault]))
        assert ending(session) == ([ENDED_BY_US], "closed")
    stage.check()


LARGEST: dict[str, dict[str, Any]] = {
    "largest numbers": {"id": 2**32 - 1, "mtime": 2**63 - 1, "mode": 0o7777},
    "earliest time": {"mtime": -(2**63) + 1},
    "nothing known": {"mtime": None, "mode": None},
}


@pytest.mark.parametrize("form", LARGEST)
def test_take_body_at_the_edge_of_what_is_allowed(stage: Stage, form: str) -> None:
    body = fields(**LARGEST[form])
    id = LARGEST[form].get("id", 1)
    with stage.session() as session:
        session.say(message("PUT", body), data(id, 0, b"x"), session.end(body, b"x"))
        session.expect("RECEIPT", outcome="stored", path=["x"])
        session.farewell()
    assert (stage.home / "x").stat().st_mode & 0o7022 == 0
    stage.check(x=b"x")
    (stage.home / "x").unlink()


# --- names ------------------------------------------------------------------------------------------------------------

EVIL: dict[str, list[str]] = {
    "no name": [],
    "empty": [""],
    "empty at the end": ["a", ""],
    "empty in between": ["a", "", "b"],
    "dot": ["."],
    "dot in between": ["a", ".", "b"],
    "dot dot": [".."],
    "dot dot first": ["..", OTHER, "x"],
    "dot dot in between": ["a", "..", "..", OTHER, "x"],
    "dot dot last": ["a", ".."],
    "many dot dots": [".."] * 20 + ["etc", "passwd"],
    "slash": ["/"],
    "absolute": ["/etc/passwd"],
    "absolute in parts": ["/", "etc", "passwd"],
    "slash within": ["a/b"],
    "dot dot in one part": ["../x"],
    "dot dot to the hidden area": ["../.partial/alice/x"],
    "dot dot behind a name": ["a/../../x"],
    "slash behind": ["a/"],
    "zero": ["a\0b"],
    "zero first": ["\0"],
    "zero behind dot dot": ["..\0"],
    "line feed": ["a\nb"],
    "carriage return": ["a\rb"],
    "tab": ["a\tb"],
    "backspace": ["a\bb"],
    "bell": ["\a"],
    "escape": ["\x1b[2J\x1b]0;title\a"],
    "delete": ["\x7f"],
    "next line (C1)": ["a\x85b"],
    "control sequence introducer (C1)": ["\x9b31m"],
    "operating system command (C1)": ["\x9d0;x\x9c"],
    "256 bytes": ["a" * 256],
    "256 bytes of two each": ["é" * 128],
    "256 bytes of four each": ["\U0001f600" * 64],
    "60,000 bytes": ["a" * 60000],
    "256 parts": ["a"] * 256,
    "4,097 bytes": ["a" * 255] * 16 + ["a"],
    "15,000 parts": ["a"] * 15000,
}


def test_reader_takes_none_of_these_names() -> None:
    """As a file, as a folder, to fetch and to list."""
    for path in EVIL.values():
        for asked in (
            control("PUT", **put_fields(1, path, 1)),
            control("PUT", **put_fields(1, path, None, kind="folder")),
            *([control("GET", id=1, path=path, more=False)] if path else []),
            *([control("LIST", id=1, path=path, after=None)] if path else []),
        ):
            assert isinstance(decode_message(asked[0], memoryview(asked)[5:]), Misnamed), path


SOME_NAMES = (
    *("no name", "empty", "dot in between", "dot dot first", "slash within", "dot dot to the hidden area"),
    *("zero first", "escape", "next line (C1)", "60,000 bytes", "15,000 parts"),
)


@pytest.mark.parametrize("name", some(EVIL, *SOME_NAMES))
def test_refuse_name(stage: Stage, name: str) -> None:
    """As a file, as a folder, to fetch and to list; the connection goes on."""
    path = EVIL[name]
    body = body_of(put_fields(1, path, 1))
    with stage.session() as session:
        session.say(message("PUT", body), data(1, 0, b"x"), session.end(body, b"x"))
        session.expect("REFUSE", id=1, code="name")
        session.say(put(2, tuple(path), None, kind="folder"))
        session.expect("REFUSE", id=2, code="name")
        session.say(put(3, tuple(path), LARGE))
        session.expect("REFUSE", id=3, code="name")
        session.say(control("CANCEL", id=3, code=None))
        session.farewell()
    if path:
        with stage.session() as session:
            session.say(control("LIST", id=1, path=path, after=None))
            session.expect("REFUSE", id=1, code="name")
            session.farewell()
        with stage.session() as session:
            session.say(control("GET", id=1, path=path, more=False))
            assert [said(session.hear()), said(session.hear())] == ["REFUSE name", "BYE"]
            session.say(message("BYE"))
            assert session.line.rest() == (b"", "closed")
    stage.check()


ODD: dict[str, list[str]] = {
    "three dots": ["..."],
    "dots with more": ["..a"],
    "tilde": ["~"],
    "another's home": ["~root", "x"],
    "a flag": ["-rf", "--help"],
    "backslashes": ["..\\..\\x"],
    "drive": ["C:"],
    "device": ["con"],
    "percent signs": ["%2e%2e%2f"],
    "dots that only look so": ["\u2024\u2024", "\uff0e\uff0e"],
    "slashes that only look so": ["..\u2215..\u2044x\uff0f"],
    "right to left": ["\u202egnp.exe"],
    "line separator": ["a\u2028b\u2029c"],
    "zero width": ["a\u200bb\ufeff"],
    "space": [" "],
    "dot behind": ["x."],
    "the hidden area's name": [".partial", OTHER, "x"],
    "the client's hidden area's name": [".secure-file-transfer-partial", "x"],
    "the receipts' name": ["receipts"],
    "hash and journal": ["0" * 64 + ".journal"],
    "composed": ["\u00e9"],
    "decomposed": ["e\u0301"],
    "a shell's words": ["$(touch x); `id` | 'x' \"y\" *?[a]"],
    "format signs": ["%s%n{0}{x.__class__}"],
    "255 bytes": ["a" * 255],
    "4,096 bytes": ["a" * 254] * 16 + ["a" * 15],
    "255 parts": ["a"] * 255,
}


@pytest.mark.parametrize("name", ODD)
def test_take_name_as_it_is(stage: Stage, name: str) -> None:
    """Odd, and allowed: it lands under exactly this name in the user's folder, and is one line in the log."""
    path = ODD[name]
    with stage.session() as session:
        assert session.send(1, path, b"x")["path"] == path
        session.farewell()
    with stage.session() as session:
        assert list(session.fetch(*path).values()) == [b"x"]
    landed: Tree = {"/".join(["received", USER, *path[:depth]]): "d" for depth in range(1, len(path))}
    stage.check_tree({**landed, "/".join(["received", USER, *path]): b"x"})
    lines = stage.told().split("\n")
    assert len([line for line in lines if ": stored " in line and ": stored honest" not in line]) == 1
    assert all(line.isprintable() for line in lines)
    top = stage.home / path[0]
    top.unlink() if len(path) == 1 else shutil.rmtree(top)
