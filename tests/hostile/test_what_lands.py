"""Faults of a client about files: traps on the disk, lies about size and content, writers that race, stolen offsets."""

import os
import shutil
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from conftest import MakeServer
from processes import PASSWORD, USER, Server, wait_until
from scene import OTHER, OUTSIDE, Stage, ending, said
from speaker import (
    BLOCK,
    SMALL,
    Heard,
    Line,
    Session,
    body_of,
    control,
    data,
    file_mac,
    log_in,
    message,
    pack,
    put_fields,
    sha256,
)

POLICIES = ("fail", "rename", "replace", "skip")
SIZES = {"small": 5, "large": SMALL + 5}


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def offer(session: Session, id: int, path: list[str], content: bytes, **more: Any) -> Heard:
    """One file, given up when it is refused; what became of it."""
    body = body_of({**put_fields(id, path, len(content)), **more})
    rest = [data(id, at, content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]
    rest.append(session.end(body, content))
    session.say(message("PUT", body))
    if len(content) <= SMALL:
        session.say(*rest)
        return session.hear()
    found = session.hear()
    while found.kind == "CHECK":  # a smaller file is there, of which this one may be a longer state
        size = found.fields["size"]
        session.say(control("CHECK", id=id, size=size, sha256=sha256(content[:size])))
        found = session.hear()
    if found.kind != "ACCEPT":
        session.say(control("CANCEL", id=id, code=None))
        return found
    session.say(*rest)
    return session.hear()


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folder_has_its_time_also_when_only_the_farewell_is_lost(stage: Stage) -> None:
    then, place = 1_500_000_000 * 10**9, stage.home / "with a time"
    try:
        with stage.session() as session:
            session.say(message("PUT", body_of({**put_fields(1, [place.name], None), "kind": "folder", "mtime": then})))
            assert said(session.hear()) == "RECEIPT"
            assert said(offer(session, 2, [place.name, "file"], b"hello")) == "RECEIPT"
            assert place.stat().st_mtime_ns != then
        wait_until(lambda: place.stat().st_mtime_ns == then)
    finally:
        remove(place)


# --- traps ------------------------------------------------------------------------------------------------------------


def make_trap(kind: str, place: Path, outside: Path) -> None:
    if kind == "live link":
        place.symlink_to(outside / "secret")
    elif kind == "link to a folder":
        place.symlink_to(outside)
    elif kind == "link to another user":
        place.symlink_to(f"../{OTHER}")
    elif kind == "dangling link":
        place.symlink_to(outside / "new")
    elif kind == "link to itself":
        place.symlink_to(place.name)
    elif kind == "FIFO":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_bytes(b"a file")


def remove(*places: Path) -> None:
    for place in places:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


LINKS = ("live link", "link to a folder", "link to another user", "dangling link", "link to itself")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*LINKS, "FIFO", "folder"])
def test_trap_at_the_final_name_is_never_followed_written_or_waited_for(stage: Stage, kind: str, size: str) -> None:
    """`replace` puts the file in place of a link itself, and else no policy removes it; `rename` goes round it."""
    place, content = stage.home / "trap.x", b"n" * SIZES[size]
    try:
        for policy in POLICIES:
            make_trap(kind, place, stage.server.folder / OUTSIDE)
            stage.remember()
            with stage.session() as session:
                found = offer(session, 1, ["trap.x"], content, policy=policy)
                session.farewell()
            if kind == "folder":
                assert said(found) == "REFUSE is-folder"
                stage.check()
            elif policy == "fail":
                assert said(found) == "REFUSE exists"
                stage.check()
            elif policy == "skip":
                assert found.fields["outcome"] == "skipped"
                stage.check()
            elif policy == "replace" and kind == "FIFO":
                assert said(found) == "REFUSE special"
                stage.check()
            elif policy == "replace":
                assert (found.fields["outcome"], found.fields["path"]) == ("stored", ["trap.x"])
                stage.check(**{"trap.x": content})
            else:
                assert (found.fields["outcome"], found.fields["path"]) == ("stored", ["trap.1.x"])
                stage.check(**{"trap.1.x": content})
            remove(place, stage.home / "trap.1.x")
    finally:
        remove(place, stage.home / "trap.1.x")


@pytest.mark.parametrize(
    ("kind", "code"), [*((link, "link") for link in LINKS), ("FIFO", "not-folder"), ("file", "not-folder")]
)
def test_trap_in_the_path_is_never_walked(stage: Stage, kind: str, code: str) -> None:
    """Neither to send, whatever the policy, nor to fetch, nor to list."""
    top = stage.home / "top"
    top.mkdir()
    make_trap(kind, top / "trap", stage.server.folder / OUTSIDE)
    stage.remember()
    path = ["top", "trap", "secret"]
    try:
        with stage.session() as session:
            for id, policy in enumerate(POLICIES, 1):
                assert said(offer(session, id, path, b"new", policy=policy)) == f"REFUSE {code}"
            session.say(control("PUT", **put_fields(5, path, None) | {"kind": "folder"}))
            session.expect("REFUSE", id=5, code=code)
            session.say(control("PUT", **put_fields(6, path[:2], None) | {"kind": "folder"}))
            session.expect("REFUSE", id=6, code=code)
            assert said(offer(session, 7, path, b"n" * SIZES["large"])) == f"REFUSE {code}"
            session.farewell()
        with stage.session() as session:
            session.say(control("LIST", id=1, path=path, after=None))
            session.expect("REFUSE", id=1, code=code)
            session.farewell()
        with stage.session() as session:
            session.say(control("GET", id=1, path=path, more=False))
            session.expect("REFUSE", id=1, code=code)
            session.expect("BYE")
        stage.check()
    finally:
        remove(top)


@pytest.mark.parametrize("kind", [*LINKS, "FIFO"])
def test_trap_is_not_given_and_a_link_is_listed_as_one(stage: Stage, kind: str) -> None:
    top = stage.home / "top"
    top.mkdir()
    (top / "good").write_bytes(b"good")
    make_trap(kind, top / "trap", stage.server.folder / OUTSIDE)
    stage.remember()
    try:
        with stage.session() as session:
            session.say(control("LIST", id=1, path=["top"], after=None))
            listed = {name: about for name, *about in session.expect("ENTRY", id=1)["entries"]}
            assert listed.keys() == ({"good"} if kind == "FIFO" else {"good", "trap"})
            if kind != "FIFO":
                said_kind, size, _, target = listed["trap"]
                assert (said_kind, size, target) == ("link", 0, os.readlink(top / "trap"))
            session.farewell()
        with stage.session() as session:
            assert session.fetch("top") == {("top", "good"): b"good"}
            assert session.left_out == [("top/trap", "special" if kind == "FIFO" else "link")]
        with stage.session() as session:
            session.say(control("GET", id=1, path=["top", "trap"], more=False))
            assert said(session.hear()) == ("REFUSE special" if kind == "FIFO" else "REFUSE link")
            session.expect("BYE")
        stage.check()
    finally:
        remove(top)


@pytest.mark.parametrize("kind", ["link to a folder", "dangling link", "FIFO"])
def test_trap_that_takes_a_folders_place_midway_is_never_walked(stage: Stage, kind: str) -> None:
    """The folder was a real one when the file was announced; at its END it is a trap."""
    top, content = stage.home / "top", b"n" * SIZES["large"]
    top.mkdir()
    try:
        with stage.session() as session:
            body = body_of(put_fields(1, ["top", "secret"], len(content), policy="replace"))
            session.say(message("PUT", body))
            session.expect("ACCEPT")
            top.rmdir()
            make_trap(kind, top, stage.server.folder / OUTSIDE)
            stage.remember_all_but_partials()
            session.say(data(1, 0, content), session.end(body, content))
            session.expect("REFUSE", code="not-folder" if kind == "FIFO" else "link")
            session.farewell()
        stage.check()
    finally:
        remove(top)


@pytest.mark.parametrize("where", ["visible", "hidden"])
@pytest.mark.parametrize("kind", ["link to a folder", "link to another user", "dangling link", "FIFO", "file"])
def test_user_folder_that_is_a_trap_is_never_used(stage: Stage, kind: str, where: str) -> None:
    home = stage.server.path(user=USER) if where == "visible" else stage.server.storage / ".partial" / USER
    aside = stage.server.folder / "aside"
    home.rename(aside)
    try:
        make_trap(kind, home, stage.server.folder / OUTSIDE)
        stage.remember()
        with stage.session() as session:
            assert ending(session) == (["ERROR storage"], "closed")
        assert stage.unchanged()
    finally:
        remove(home)
        aside.rename(home)
    stage.remember()
    stage.check()


# --- lies about content -----------------------------------------------------------------------------------------------


LIES: dict[str, tuple[str, Callable[[Session, bytes, bytes], bytes]]] = {
    "HMAC of zeros": ("integrity", lambda session, put, content: session.end(put, content, mac=bytes(32))),
    "HMAC of the other direction": (
        "integrity",
        lambda session, put, content: session.end(put, content, mac=file_mac(session.their_file_key, put, content)),
    ),
    "HMAC of another announcement": (
        "integrity",
        lambda session, put, content: session.end(
            put, content, mac=file_mac(session.file_key, put.replace(pack(0o644), pack(0o777)), content)
        ),
    ),
    "HMAC of other content": (
        "integrity",
        lambda session, put, content: session.end(put, content, mac=file_mac(session.file_key, put, b"")),
    ),
    "digest of other content": (
        "integrity",
        lambda session, put, content: session.end(put, content, sha256=sha256(b"")),
    ),
    "digest and HMAC of other content": (
        "integrity",
        lambda session, put, content: session.end(put, content[::-1]),
    ),
    "END with one byte less": ("size", lambda session, put, content: session.end(put, content, size=len(content) - 1)),
    "END with one byte more": ("size", lambda session, put, content: session.end(put, content, size=len(content) + 1)),
    "END with 2^63-1": ("size", lambda session, put, content: session.end(put, content, size=2**63 - 1)),
    "END of a shorter file": ("size", lambda session, put, content: session.end(put, content[:-1])),
    "END of nothing": ("size", lambda session, put, content: session.end(put, b"")),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lie", LIES)
def test_refuse_end_that_lies_keep_nothing_and_go_on(stage: Stage, lie: str, size: str) -> None:
    code, end = LIES[lie]
    content = os.urandom(SIZES[size])
    with stage.session() as session:
        body = body_of(put_fields(1, ["lie"], len(content)))
        session.say(message("PUT", body), data(1, 0, content), end(session, body, content))
        if len(content) > SMALL:
            session.expect("ACCEPT")
        session.expect("REFUSE", id=1, code=code)
        assert session.send(2, ["truth"], b"truth")["outcome"] == "stored"
        session.farewell()
    stage.check(truth=b"truth")
    remove(stage.home / "truth")


ANNOUNCED: dict[str, tuple[int | None, int]] = {
    "one byte more than announced": (5, 6),
    "a byte where none was announced": (0, 1),
    "a block more than announced": (SMALL + 1, SMALL + 2),
    "one byte less than announced": (6, 5),
    "nothing of what was announced": (6, 0),
}


@pytest.mark.parametrize("lie", ANNOUNCED)
def test_refuse_content_of_another_size_than_announced(stage: Stage, lie: str) -> None:
    announced, size = ANNOUNCED[lie]
    content = b"c" * size
    with stage.session() as session:
        body = body_of(put_fields(1, ["lie"], announced))
        session.say(message("PUT", body), *([data(1, 0, content)] if size else []), session.end(body, content))
        if announced is None or announced > SMALL:
            session.expect("ACCEPT")
        session.expect("REFUSE", id=1, code="size")
        session.farewell()
    stage.check()


@pytest.mark.parametrize("size", [2**62, 2**63 - 1])
@pytest.mark.parametrize("then", ["CANCEL", "BYE", "cut"])
def test_announcement_of_more_than_any_disk_holds_is_refused_before_a_byte(stage: Stage, size: int, then: str) -> None:
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["huge"], size)))
        session.expect("REFUSE", id=1, code="no-space")
        session.say(data(1, 0, b"x"))
        if then == "cut":
            session.line.stop()
            assert ending(session) == ([], "closed")
        elif then == "BYE":
            session.say(message("BYE"))
            assert ending(session) == (["ERROR protocol"], "closed")
        else:
            session.say(control("CANCEL", id=1, code=None))
            session.farewell()
    stage.check()


def test_announcement_of_what_fits_takes_no_more_than_what_was_sent(stage: Stage) -> None:
    """Half of the free space, and one byte of it: the disk holds that byte and a note, until it is withdrawn."""
    space = os.statvfs(stage.home)
    size = max(space.f_bavail * space.f_frsize // 2, SMALL + 1)
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["half"], size)))
        session.expect("ACCEPT")
        session.say(data(1, 0, b"x"))
        session.line.stop()
        assert ending(session) == ([], "closed")
    stage.quiet()
    kept = stage.server.kept("half")
    assert (kept.read_bytes(), kept.stat().st_blocks <= 16) == (b"x", True)
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["half"], size)))
        session.expect("CHECK", size=1)
        session.say(control("CANCEL", id=1, code=None))
        session.farewell()
    stage.check()


TWO_ENDS: dict[str, Callable[[Session, bytes], bytes]] = {
    "two ENDs": lambda session, put: session.end(put, b"x") * 2,
    "DATA behind END": lambda session, put: session.end(put, b"x") + data(1, 1, b"y"),
    "CANCEL behind END": lambda session, put: session.end(put, b"x") + control("CANCEL", id=1, code=None),
    "PUT again behind END": lambda session, put: session.end(put, b"x") + message("PUT", put),
    "END behind CANCEL": lambda session, put: control("CANCEL", id=1, code=None) + session.end(put, b"x"),
}


@pytest.mark.parametrize("fault", TWO_ENDS)
def test_refuse_what_follows_an_end(stage: Stage, fault: str) -> None:
    """In one record with it: nothing of it is there. Once it has its receipt, the file is there, and stays."""
    with stage.session() as session:
        put = body_of(put_fields(1, ["x"], 1))
        session.say(message("PUT", put), data(1, 0, b"x"), TWO_ENDS[fault](session, put))
        assert ending(session) == (["ERROR protocol"], "closed")
    stage.check()
    if fault.endswith("behind END"):
        with stage.session() as session:
            session.send(1, ["x"], b"x")
            session.say(control("CANCEL", id=1, code=None))
            assert ending(session) == (["ERROR protocol"], "closed")
        stage.check(x=b"x")
        remove(stage.home / "x")


@pytest.mark.parametrize("size", SIZES)
def test_cut_before_the_end_publishes_nothing(stage: Stage, size: str) -> None:
    """All content is there, and no END: of a large file it is kept, hidden, until it is withdrawn."""
    content = b"c" * SIZES[size]
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["cut"], len(content))), data(1, 0, content))
        session.line.stop()
        assert ending(session) == (["ACCEPT"] if size == "large" else [], "closed")
    stage.quiet()
    assert not (stage.home / "cut").exists()
    if size == "large":
        wait_until(lambda: stage.server.kept("cut").exists())
        with stage.session() as session:
            session.say(control("PUT", **put_fields(1, ["cut"], len(content))))
            session.expect("CHECK")
            session.say(control("CANCEL", id=1, code=None))
            session.farewell()
    stage.check()


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writers", [8, pytest.param(32, marks=pytest.mark.long)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", ["fail", "replace", "rename"])
def test_of_many_writers_of_one_name_the_published_are_whole(
    stage: Stage, policy: str, size: str, writers: int
) -> None:
    """With `fail` one is published, with `replace` each may be in its turn; never two of them mixed."""
    contents = [bytes([65 + number]) * (SIZES[size] + number) for number in range(writers)]
    outcomes: list[Heard | None] = [None] * writers
    together = Barrier(writers)

    def write(session: Session, number: int) -> None:
        together.wait(20)
        outcomes[number] = offer(session, 1, ["one"], contents[number], policy=policy)
        session.farewell()

    with ExitStack() as opened:
        sessions = [opened.enter_context(stage.session()) for _ in range(writers)]
        threads = [Thread(target=write, args=(session, number)) for number, session in enumerate(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    heard = [outcome for outcome in outcomes if outcome is not None]
    assert len(heard) == writers
    stored = {
        tuple(found.fields["path"]): contents[number]
        for number, found in enumerate(heard)
        if found.kind == "RECEIPT" and found.fields["outcome"] == "stored"
    }
    assert {said(found) for found in heard} <= {"RECEIPT", "REFUSE exists", "REFUSE busy"}
    assert stored
    stage.quiet()
    landed = {path.name: path.read_bytes() for path in stage.home.glob("one*")}
    if policy == "replace":
        assert list(landed) == ["one"]
        assert landed["one"] in contents
    else:
        assert landed == {path[0]: content for path, content in stored.items()}
        assert len(landed) == (1 if policy == "fail" else [said(found) for found in heard].count("RECEIPT"))
    stage.check(**landed)
    remove(*stage.home.glob("one*"))


# --- going on where another was ---------------------------------------------------------------------------------------

SIZE = 2 * BLOCK
TRANSFER = b"\x5a" * 16


@pytest.fixture
def kept(stage: Stage) -> Path:
    """The first mebibyte of a file of `USER`, kept from a connection that was cut."""
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.expect("ACCEPT")
        session.say(data(1, 0, b"k" * BLOCK))
        session.line.stop()
        ending(session)
    stage.quiet()
    place = stage.server.kept("kept")
    assert place.read_bytes() == b"k" * BLOCK
    stage.forget_journal(place)
    return place


def withdraw(stage: Stage) -> None:
    """Let go of what was kept."""
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.hear()
        session.say(control("CANCEL", id=1, code=None))
        session.farewell()


ANSWERS: dict[str, bytes] = {
    "size of 0": control("CHECK", id=1, size=0, sha256=bytes(32)),
    "size of -1": control("CHECK", id=1, size=-1, sha256=bytes(32)),
    "one byte less": control("CHECK", id=1, size=BLOCK - 1, sha256=bytes(32)),
    "one byte more": control("CHECK", id=1, size=BLOCK + 1, sha256=bytes(32)),
    "the whole file": control("CHECK", id=1, size=SIZE, sha256=bytes(32)),
    "2^63-1": control("CHECK", id=1, size=2**63 - 1, sha256=bytes(32)),
    "2^63": control("CHECK", id=1, size=2**63, sha256=bytes(32)),
    "no digest": control("CHECK", id=1, size=BLOCK, sha256=None),
    "another id": control("CHECK", id=2, size=BLOCK, sha256=bytes(32)),
    "DATA at once": data(1, BLOCK, b"x"),
    "DATA from the start": data(1, 0, b"x" * BLOCK),
    "END at once": control("END", id=1, size=SIZE, sha256=bytes(32), mac=bytes(32)),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_refuse_answer_to_check(stage: Stage, kept: Path, answer: str) -> None:
    """What was kept stays as it is."""
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.expect("CHECK", size=BLOCK)
        session.say(ANSWERS[answer])
        assert ending(session) == (["ERROR protocol"], "closed")
    stage.check()
    withdraw(stage)
    assert not kept.exists()


@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1, BLOCK + 1, SIZE, 2**63 - 3, 2**63, 2**64 - 1])
def test_refuse_content_from_another_offset_than_was_agreed_on(stage: Stage, kept: Path, offset: int) -> None:
    digest = sha256(b"k" * BLOCK)
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.expect("CHECK", size=BLOCK)
        session.say(control("CHECK", id=1, size=BLOCK, sha256=digest))
        session.expect("ACCEPT", offset=BLOCK)
        session.say(data(1, offset, b"xx"))
        assert ending(session) == (["ERROR protocol"], "closed")
    stage.check()
    withdraw(stage)


def test_kept_part_of_another_user_is_neither_offered_nor_touched(stage: Stage, kept: Path) -> None:
    """The same path, size and transfer id, said by somebody else, begin from nothing."""
    with stage.session(OTHER) as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.expect("ACCEPT", id=1, offset=0)
        session.say(data(1, BLOCK, b"x"))
        assert ending(session) == (["ERROR protocol"], "closed")
    with stage.session(OTHER) as session:
        for path in ([f"../{USER}/kept"], ["..", USER, "kept"], [".partial", USER, kept.name]):
            session.say(control("GET", id=1, path=path, more=True))
        session.say(control("GET", id=1, path=["kept"], more=False))
        codes = [said(session.hear()) for _ in range(4)]
        assert codes == ["REFUSE name", "REFUSE name", "REFUSE not-found", "REFUSE not-found"]
        session.expect("BYE")
    with stage.session(OTHER) as session:
        session.say(control("PUT", **put_fields(1, ["kept"], SIZE) | {"transfer": TRANSFER}))
        session.hear()
        session.say(control("CANCEL", id=1, code=None))
        session.farewell()
    stage.check()
    withdraw(stage)


# --- holding on -------------------------------------------------------------------------------------------------------


def test_peer_that_takes_nothing_does_not_hold_up_the_end_of_the_server(make_server: MakeServer) -> None:
    """It has asked for more than any buffer holds and reads none of it; another sends half a record."""
    server = make_server("--grace=0")
    with Line(server.port) as deaf, Line(server.port) as slow:
        first, second = log_in(deaf, USER, PASSWORD), log_in(slow, USER, PASSWORD)
        wait_until(server.path().exists)
        with open(server.path("large"), "wb") as file:
            file.truncate(1 << 30)
        first.say(control("GET", id=1, path=["large"], more=False))
        first.expect("PUT")
        first.say(control("ACCEPT", id=1, offset=0))
        slow.send(second.seal(bytes(1 << 20))[:1000])
        assert server.stop(20) == 0


def test_many_signs_of_life_cost_nothing(stage: Stage) -> None:
    with stage.session() as session:
        for _ in range(50):
            session.say(*[message("PING")] * 4000)
        session.send(1, ["x"], b"x")
        session.farewell()
    stage.check(x=b"x")
    remove(stage.home / "x")


@pytest.mark.parametrize("end", ["reset of the connection", "end of the server"])
def test_wait_for_an_accounts_rate_ends_with_the_connection(make_server: MakeServer, end: str) -> None:
    """One mebibyte at 1,000 bytes a second is a quarter of an hour: nobody is held up by it who need not be."""
    server = make_server("--grace=0")
    accounts = server.accounts.read_text()
    assert accounts.count("rate=-") == 1
    server.accounts.write_text(accounts.replace("rate=-", "rate=1000"))
    with Line(server.port) as line:
        session = log_in(line, USER, PASSWORD)
        session.say(control("PUT", **put_fields(1, ["slow"], SIZE)))
        session.expect("ACCEPT")
        session.say(data(1, 0, b"s" * BLOCK))
        wait_until(lambda: (kept := server.kept("slow")).exists() and kept.stat().st_size == BLOCK)
        if end == "end of the server":
            assert server.stop(10) == 0
        else:
            line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()
        wait_until(lambda: f"cut off: slow, {BLOCK} bytes" in server.told(), 10)
