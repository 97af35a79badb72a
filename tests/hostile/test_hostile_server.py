"""Faults of a server, said to the real client: it never says "delivered" for what is not, writes nothing that was not
asked for, shows nothing raw, and ends with the exit status that fits.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import PASSWORD, Client, Impostor, Result, Terminal
from scene import Tree, some, tree
from speaker import (
    BLOCK,
    PRIME,
    SMALL,
    Broken,
    Ended,
    Heard,
    Line,
    ServerLogin,
    Session,
    body_of,
    control,
    data,
    frame,
    is_asked_for,
    let_in,
    message,
    put_fields,
    sha256,
    u32,
)

REFUSED, LOGIN, LOST, INTEGRITY = 1, 3, 4, 5
CONTENT = bytes(range(100))
LARGE = bytes(range(256)) * 257  # goes by PUT
LARGE = os.urandom(2 * BLOCK + 9)

Behave = Callable[[Line], None]
Serve = Callable[[Session], None]


def served(serve: Serve) -> Behave:
    """A login as it should be, then that; the client may leave whenever it likes."""

    def behave(line: Line) -> None:
        serve(let_in(line, PASSWORD))

    return behave


@contextlib.contextmanager
def hostile(behave: Behave) -> Iterator[Impostor]:
    def take(sock: Any) -> None:
        with contextlib.suppress(Ended), Line(sock) as line:
            behave(line)
            line.stop()
            line.rest()

    impostor = Impostor(take)
    try:
        yield impostor
    finally:
        impostor.close()


def check_shown(*texts: str) -> None:
    """Nothing but printable lines: no escape, no control character, nothing that turns the direction round."""
    for text in texts:
        assert all(line.isprintable() for line in text.split("\n")), ascii(text)


def meet(behave: Behave, folder: Path, *arguments: str | Path) -> Result:
    """What becomes of the client, whose output and log are judged, too."""
    with hostile(behave) as impostor:
        client = Client(impostor.port, folder / "client")
        result = client("--retries=0", *arguments)
    check_shown(result.out, result.err, client.log.read_text("utf-8"))
    assert result.status == 0 or result.err.count("\n") < 20
    return result


def send(behave: Behave, folder: Path, content: bytes = LARGE, *flags: str) -> Result:
    """Send one file, `x`, to `box/x`; it stays what it was."""
    source = folder / "x"
    source.write_bytes(content)
    result = meet(behave, folder, *flags, source, "box/x")
    assert source.read_bytes() == content
    return result


def fetch(behave: Behave, folder: Path, name: str = "box", *flags: str) -> tuple[Result, Tree]:
    """Fetch into an empty folder; what is in it, and beside it, afterwards."""
    (folder / "here").mkdir()
    (folder / "secret").write_text("secret")
    result = meet(behave, folder, "--get", *flags, name, f"{folder / 'here'}/")
    found = {name: what for name, what in tree(folder).items() if not name.startswith("client")}
    assert found.pop("secret") == b"secret"
    assert found.pop("here") == "d"
    return result, found


# --- the login --------------------------------------------------------------------------------------------------------


def changed(step: str, change: Callable[[bytes], bytes]) -> Behave:
    """One of the server's two frames is another; what the client says then is no proof."""

    def behave(line: Line) -> None:
        login = ServerLogin(PASSWORD)
        hello = login.hello(line.login_frame())
        said = change(hello) if step == "hello" else hello
        line.send(said)
        if len(said) == len(hello):
            with contextlib.suppress(Ended):
                proof = login.proof(line.login_frame())
                line.send(change(proof) if step == "proof" else proof)
        line.stop()
        assert line.rest()[0] == b""

    return behave


def hello_of(change: Callable[[bytes], bytes]) -> Behave:
    return changed("hello", lambda whole: frame(change(whole[4:])))


def share_of(change: Callable[[bytes], bytes]) -> Behave:
    """Another shareV, with the confirmV of the right one."""
    return changed("proof", lambda whole: frame(change(whole[4:69]) + whole[69:]))


def closed_after_hello(line: Line) -> None:
    line.login_frame()


def knows_w0_alone(line: Line) -> None:
    """With y = 0 the share is w0·N, Z and V are the identity, and neither L nor w1 is needed for a right confirmV."""
    login = ServerLogin(PASSWORD)
    login.y = 0
    line.send(login.hello(line.login_frame()))
    line.send(login.proof(line.login_frame()))
    line.stop()
    assert line.rest()[0] == b""


LOGINS: dict[str, tuple[Behave, int]] = {
    "closed at once": (lambda line: None, LOST),
    "closed after the hello": (closed_after_hello, LOST),
    "closed after ServerHello": (changed("proof", lambda whole: b""), LOST),
    "half a frame": (changed("hello", lambda whole: whole[:500]), LOST),
    "length of zero": (changed("hello", lambda whole: bytes(4)), LOST),
    "length over the ceiling": (changed("hello", lambda whole: u32(8193) + whole[4:]), LOST),
    "length of 2^32-1": (changed("hello", lambda whole: u32(2**32 - 1) + whole[4:]), LOST),
    "length of 2^32-1 later": (changed("proof", lambda whole: u32(2**32 - 1) + whole[4:]), LOST),
    "status 3": (hello_of(lambda hello: b"\3" + hello[1:]), LOST),
    "busy": (hello_of(lambda hello: b"\2"), LOST),
    "busy with a text": (hello_of(lambda hello: b"\2\x1b[2Jgo away"), LOST),
    "no common version": (hello_of(lambda hello: b"\1\2\7\x1b"), LOST),
    "version that was not offered": (hello_of(lambda hello: b"\0\2" + hello[2:]), LOST),
    "weaker scrypt": (hello_of(lambda hello: b"\0\1\0" + hello[3:]), LOST),
    "another scrypt": (hello_of(lambda hello: b"\0\1\2" + hello[3:]), LOST),
    "hello one byte long": (hello_of(lambda hello: hello + b"\0"), LOST),
    "another salt": (hello_of(lambda hello: hello[:3] + bytes(32) + hello[35:]), LOGIN),
    "another ciphertext": (hello_of(lambda hello: hello[:35] + os.urandom(1088)), LOGIN),
    "confirmV of zeros": (changed("proof", lambda whole: whole[:-32] + bytes(32)), LOGIN),
    "shareV made of w0 alone": (knows_w0_alone, LOGIN),
    "shareV the identity": (share_of(lambda share: b"\4" + bytes(64)), LOGIN),
    "shareV not on the curve": (share_of(lambda share: share[:-1] + bytes([share[-1] ^ 1])), LOGIN),
    "shareV beyond the prime": (share_of(lambda share: b"\4" + PRIME.to_bytes(32, "big") + share[33:]), LOGIN),
    "frame 4 one byte long": (changed("proof", lambda whole: frame(whole[4:] + b"\0")), LOST),
}


@pytest.mark.parametrize(
    "fault",
    some(
        LOGINS,
        "closed after ServerHello",
        "weaker scrypt",
        "confirmV of zeros",
        "shareV made of w0 alone",
    ),
)
def test_server_that_is_none_gets_no_file_and_no_proof(tmp_path: Path, fault: str) -> None:
    behave, status = LOGINS[fault]
    result = send(behave, tmp_path)
    assert result.status == status
    assert "delivered" not in result.out


# --- taking files -----------------------------------------------------------------------------------------------------


def ended(session: Session) -> tuple[Heard, bytes]:
    """Take a file up to its END: its PUT, and its content."""
    put, content = session.hear(), b""
    if is_asked_for(put.fields):
        session.say(control("ACCEPT", id=1, offset=0))
    while (found := session.hear()).kind == "DATA":
        content += found.body
    assert (put.kind, found.kind) == ("PUT", "END")
    return put, content


def receipted(**more: Any) -> Serve:
    """A file is taken whole; its RECEIPT says something else."""

    def serve(session: Session) -> None:
        put, content = ended(session)
        session.say(session.receipt(put.fields, content, **more), message("BYE"))

    return serve


def answered(*messages: bytes) -> Serve:
    """The PUT is answered so."""

    def serve(session: Session) -> None:
        session.hear()
        if messages:
            session.say(*messages)

    return serve


def said_bye(session: Session) -> None:
    ended(session)
    session.say(message("BYE"))


def said_nothing(session: Session) -> None:
    ended(session)


def receipted_and(*last: bytes, raw: bytes = b"") -> Serve:
    """A file is taken whole and receipted; then no BYE comes, but this."""

    def serve(session: Session) -> None:
        put, content = ended(session)
        session.say(session.receipt(put.fields, content))
        if last:
            session.say(*last)
        session.line.send(raw)

    return serve


ENDS_WITHOUT_BYE: dict[str, Serve] = {
    "closed": receipted_and(),
    "half a record": receipted_and(raw=u32(40) + b"half"),
    "stopping": receipted_and(control("ERROR", code="stopping")),
    "internal": receipted_and(control("ERROR", code="internal")),
    "bytes behind BYE": receipted_and(message("BYE"), raw=frame(os.urandom(60))),  # nobody looks at them
}


@pytest.mark.parametrize("end", some(ENDS_WITHOUT_BYE, "closed", "stopping"))
def test_receipt_for_everything_is_a_success_whatever_the_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    with hostile(served(ENDS_WITHOUT_BYE[end])) as impostor:
        result = Client(impostor.port, tmp_path / "client")(tmp_path / "x", "box/x")
    assert (result.status, result.err) == (0, "") and "delivered: box/x  " in result.out


def test_listing_that_is_whole_is_a_success_without_bye(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.expect("LIST", id=1)
        session.say(control("ENTRY", id=1, entries=[["there", "file", 0, 0, None]], more=False))

    with hostile(served(serve)) as impostor:
        result = Client(impostor.port, tmp_path / "client")("--list")
    assert (result.status, result.err) == (0, "") and result.out.endswith("  there\n")


EMPTY = {"size": 0, "sha256": None}
NOW = {"id": 1, "path": ["box", "x"], "time": 0}

RECEIPTS: dict[str, tuple[Serve, int]] = {
    "another digest": (receipted(sha256=sha256(b"")), INTEGRITY),
    "no digest": (receipted(sha256=None), INTEGRITY),
    "another size": (receipted(size=99), INTEGRITY),
    "size of zero": (receipted(size=0), INTEGRITY),
    "another name": (receipted(path=["box", "y", "z"]), INTEGRITY),
    "another folder": (receipted(path=["elsewhere", "x"]), INTEGRITY),
    "no path": (receipted(path=[]), INTEGRITY),
    "folder": (receipted(outcome="folder", **EMPTY), INTEGRITY),
    "skipped": (receipted(outcome="skipped", **EMPTY), INTEGRITY),
    "already, with another digest": (receipted(outcome="already", sha256=bytes(32)), INTEGRITY),
    "unknown outcome": (receipted(outcome="delivered"), INTEGRITY),
    "an id never sent": (receipted(id=2), INTEGRITY),
    "id 0": (receipted(id=0), INTEGRITY),
    "before the content": (
        answered(
            control("ACCEPT", id=1, offset=0),
            control("RECEIPT", **NOW, size=len(LARGE), sha256=sha256(b""), outcome="stored"),
        ),
        INTEGRITY,
    ),
    "none, and BYE": (said_bye, INTEGRITY),
    "BYE at once": (answered(message("BYE")), INTEGRITY),
    "none, and an end": (said_nothing, LOST),
    "an end after PUT": (answered(), LOST),
    "an end before PUT": (lambda session: None, LOST),
    "half a record": (lambda session: session.line.send(session.seal(bytes(100))[:50]), LOST),
    "ACCEPT from beyond": (answered(control("ACCEPT", id=1, offset=101)), INTEGRITY),
    "ACCEPT from the middle": (answered(control("ACCEPT", id=1, offset=50)), INTEGRITY),
    "ACCEPT from -1": (answered(control("ACCEPT", id=1, offset=-1)), INTEGRITY),
    "ACCEPT twice": (answered(control("ACCEPT", id=1, offset=0) * 3, message("BYE")), INTEGRITY),
    "CHECK of more than there is": (answered(control("CHECK", id=1, size=len(LARGE) + 1, sha256=None)), INTEGRITY),
    "PUT from a receiver": (answered(control("PUT", **put_fields(1, ["x"], 1))), INTEGRITY),
    "DATA from a receiver": (answered(data(1, 0, b"x")), INTEGRITY),
    "record with a wrong tag": (lambda session: session.line.send(frame(os.urandom(60))), INTEGRITY),
    "record of 2^32-1 bytes": (lambda session: session.line.send(u32(2**32 - 1)), INTEGRITY),
    "REFUSE": (answered(control("REFUSE", id=1, code="denied"), message("BYE")), REFUSED),
    "REFUSE, then RECEIPT": (
        answered(
            control("REFUSE", id=1, code="no-space"),
            control("RECEIPT", **NOW, size=len(LARGE), sha256=sha256(LARGE), outcome="stored"),
            message("BYE"),
        ),
        REFUSED,
    ),
    "ERROR internal": (answered(control("ERROR", code="internal")), LOST),
    "ERROR integrity": (answered(control("ERROR", code="integrity")), INTEGRITY),
}


@pytest.mark.parametrize(
    "fault",
    some(
        RECEIPTS,
        "another digest",
        "before the content",
        "none, and BYE",
        "REFUSE, then RECEIPT",
    ),
)
def test_server_that_lies_about_a_file_has_not_got_it(tmp_path: Path, fault: str) -> None:
    serve, status = RECEIPTS[fault]
    result = send(served(serve), tmp_path)
    assert (result.status, "delivered:" in result.out) == (status, False), result


def batched(**more: Any) -> Serve:
    """A small file is taken in its BATCH; its RECEIPTS say something else."""

    def serve(session: Session) -> None:
        session.take_batch(session.expect_batch(), **more)
        session.say(message("BYE"))

    return serve


def to_batch(*said: bytes) -> Serve:
    """Something else answers it."""

    def serve(session: Session) -> None:
        session.expect_batch()
        session.say(*said, message("BYE"))

    return serve


BATCHES: dict[str, tuple[Serve, int]] = {
    "another digest": (batched(sha256=sha256(CONTENT)), INTEGRITY),
    "digest of nothing": (batched(sha256=sha256(b"")), INTEGRITY),
    "one outcome more": (batched(outcomes=[["stored", None]] * 2), INTEGRITY),
    "no outcome": (batched(outcomes=[]), INTEGRITY),
    "wanted": (batched(outcomes=[["wanted", None]], sha256=sha256(b"")), INTEGRITY),
    "skipped": (batched(outcomes=[["skipped", None]], sha256=sha256(b"")), INTEGRITY),
    "folder": (batched(outcomes=[["folder", None]], sha256=sha256(b"")), INTEGRITY),
    "a name with a slash": (batched(outcomes=[["stored", "../y"]]), INTEGRITY),
    "a name of what is not there": (batched(outcomes=[["quota", "y"]], sha256=sha256(b"")), INTEGRITY),
    "an id never sent": (batched(id=2), INTEGRITY),
    "quota": (batched(outcomes=[["quota", None]], sha256=sha256(b"")), REFUSED),
    "ACCEPT": (to_batch(control("ACCEPT", id=1, offset=0)), INTEGRITY),
    "REFUSE": (to_batch(control("REFUSE", id=1, code="quota")), INTEGRITY),
    "RECEIPT": (
        to_batch(control("RECEIPT", **NOW, size=len(CONTENT), sha256=sha256(CONTENT), outcome="stored")),
        INTEGRITY,
    ),
    "BYE": (to_batch(), INTEGRITY),
}


@pytest.mark.parametrize("fault", some(BATCHES, "another digest", "wanted", "REFUSE"))
def test_server_that_lies_about_a_small_file_has_not_got_it(tmp_path: Path, fault: str) -> None:
    serve, status = BATCHES[fault]
    result = send(served(serve), tmp_path, CONTENT)
    assert (result.status, "delivered:" in result.out) == (status, False), result


OFFSETS: dict[str, bytes] = {
    "CHECK of nothing": control("CHECK", id=1, size=0, sha256=None),
    "CHECK from beyond": control("CHECK", id=1, size=len(LARGE) + 1, sha256=None),
    "CHECK of 2^63-1": control("CHECK", id=1, size=2**63 - 1, sha256=None),
    "CHECK of -1": control("CHECK", id=1, size=-1, sha256=None),
    "CHECK with a digest": control("CHECK", id=1, size=1, sha256=bytes(32)),
    "ACCEPT from where nothing was asked": control("ACCEPT", id=1, offset=BLOCK),
}


@pytest.mark.parametrize("fault", some(OFFSETS, "ACCEPT from where nothing was asked"))
def test_server_that_names_an_impossible_part_ends_the_connection(tmp_path: Path, fault: str) -> None:
    assert send(served(answered(OFFSETS[fault])), tmp_path, LARGE).status == INTEGRITY


def test_server_that_ends_behind_its_accept_has_lost_the_connection(tmp_path: Path) -> None:
    assert send(served(answered(control("ACCEPT", id=1, offset=0))), tmp_path, LARGE).status == LOST


# --- giving files -----------------------------------------------------------------------------------------------------


def given(path: list[str], content: bytes = b"evil", **more: Any) -> Serve:
    """The GET is answered with a file of that path."""

    def serve(session: Session) -> None:
        session.hear()
        body = body_of({**put_fields(1, path, len(content), policy="skip"), **more})
        session.say(message("PUT", body))
        if more.get("kind") != "folder" and len(content) <= SMALL:
            session.say(data(1, 0, content), session.end(body, content))
        while session.hear().kind == "ACCEPT":
            pass
        session.say(message("BYE"))
        session.hear()

    return serve


PATHS: dict[str, list[str]] = {
    "dot dot": ["box", "..", "..", "secret"],
    "dot dot first": ["..", "secret"],
    "dot dot alone": [".."],
    "absolute": ["/etc/cron.d/x"],
    "absolute below": ["box", "/tmp/x"],
    "slash": ["box/../../secret"],
    "slash below": ["box", "../../secret"],
    "empty": [""],
    "no name": [],
    "empty below": ["box", ""],
    "zero": ["box", "a\0b"],
    "escapes": ["box", "\x1b]0;title\a\x1b[2Jx\r\n"],
    "another name": ["other"],
    "name that begins so": ["box2"],
    "name in capitals": ["BOX"],
    "hidden area": [".secure-file-transfer-partial", "x"],
    "too long": ["box", "x" * 256],
}


def check_places_nothing(folder: Path, serve: Serve) -> None:
    result, found = fetch(served(serve), folder)
    assert (found, result.status) == ({}, INTEGRITY), result


@pytest.mark.parametrize("trick", some(PATHS, "dot dot", "another name"))
def test_server_that_gives_another_file_than_was_asked_for_places_nothing(tmp_path: Path, trick: str) -> None:
    check_places_nothing(tmp_path, given(PATHS[trick]))


@pytest.mark.parametrize("trick", some(PATHS, "dot dot"))
def test_server_that_gives_another_folder_than_was_asked_for_places_nothing(tmp_path: Path, trick: str) -> None:
    check_places_nothing(tmp_path, given(PATHS[trick], kind="folder", size=None))


def test_server_that_gives_allowed_odd_names_places_them_below_and_shows_them_escaped(tmp_path: Path) -> None:
    result, found = fetch(served(given(["box", "\u202egnp.\u2028exe\u200b"])), tmp_path)
    assert result.status == 0
    assert found == {"here/box": "d", "here/box/\u202egnp.\u2028exe\u200b": b"evil"}


def cut_after(*steps: str) -> Serve:
    """A large file is given, as far as that; then nothing more."""

    def serve(session: Session) -> None:
        session.hear()
        body = body_of(put_fields(1, ["box"], len(LARGE), policy="skip"))
        said = {
            "PUT": message("PUT", body),
            "a block": data(1, 0, LARGE[:BLOCK]),
            "two blocks": data(1, BLOCK, LARGE[BLOCK : 2 * BLOCK]),
            "the rest": data(1, 2 * BLOCK, LARGE[2 * BLOCK :]),
            "BYE": message("BYE"),
        }
        for step in steps:
            session.say(said[step])
            if step == "PUT":
                session.expect("ACCEPT")
        session.line.stop()
        session.hear_all()

    return serve


WAY = ("PUT", "a block", "two blocks", "the rest")
STOPS: dict[str, tuple[Serve, int]] = {
    "before the file": (cut_after(), LOST),
    "after PUT": (cut_after(*WAY[:1]), LOST),
    "after a block": (cut_after(*WAY[:2]), LOST),
    "in the middle": (cut_after(*WAY[:3]), LOST),
    "before END": (cut_after(*WAY), LOST),
    "with BYE instead of END": (cut_after(*WAY, "BYE"), INTEGRITY),
}


@pytest.mark.parametrize("fault", some(STOPS, "with BYE instead of END"))
def test_server_that_stops_giving_leaves_no_visible_file(tmp_path: Path, fault: str) -> None:
    serve, status = STOPS[fault]
    result, found = fetch(served(serve), tmp_path)
    assert result.status == status
    assert all(name.startswith("here/.secure-file-transfer-partial") for name in found), list(found)


def lying(**more: Any) -> Serve:
    """A small file is given, with something else in its END."""

    def serve(session: Session) -> None:
        session.hear()
        body = body_of(put_fields(1, ["box"], len(CONTENT), policy="skip"))
        session.say(message("PUT", body), data(1, 0, CONTENT), session.end(body, CONTENT, **more))
        session.expect("REFUSE", id=1)
        session.say(message("BYE"))
        session.expect("BYE")

    return serve


WRONG: dict[str, tuple[Serve, int]] = {
    "HMAC": (lying(mac=bytes(32)), INTEGRITY),
    "digest": (lying(sha256=bytes(32)), INTEGRITY),
    "size": (lying(size=99), REFUSED),
}


@pytest.mark.parametrize("fault", some(WRONG, "HMAC"))
def test_server_that_gives_another_content_than_it_says_has_given_nothing(tmp_path: Path, fault: str) -> None:
    serve, status = WRONG[fault]
    result, found = fetch(served(serve), tmp_path)
    assert (result.status, found) == (status, {})


# --- the terminal and the log -----------------------------------------------------------------------------------------

EVIL = "\x1b[2J\x1b]0;pwned\a\r\n\x9b31m\x85\u202e\u2028\0"

TEXTS: dict[str, bytes] = {
    "ERROR with a text": control("ERROR", code=EVIL),
    "ERROR with a mebibyte of text": control("ERROR", code=EVIL * 80000),
    "ERROR with a field more": control("ERROR", code="internal", text=EVIL),
    "ERROR of raw bytes": message("ERROR", EVIL.encode() * 3000),
    "REFUSE with a text": control("REFUSE", id=1, code=EVIL),
    "unknown type": message(200, EVIL.encode()),
    "RECEIPT with an evil outcome": control("RECEIPT", **NOW, **EMPTY, outcome=EVIL),
    "RECEIPT with an evil path": control("RECEIPT", **{**NOW, "path": [EVIL]}, **EMPTY, outcome="skipped"),
}


@pytest.mark.parametrize("fault", some(TEXTS, "ERROR with a mebibyte of text", "REFUSE with a text"))
def test_text_of_a_server_never_reaches_the_terminal_or_the_log(tmp_path: Path, fault: str) -> None:
    result = send(served(answered(TEXTS[fault])), tmp_path)
    assert result.status == INTEGRITY
    assert len(result.out + result.err) < 1000
    assert "pwned" not in result.out + result.err


ODD = "\u202egnp.\u2028exe\u200b\ufeff"  # allowed, and not printable


def test_name_that_a_server_chooses_is_shown_escaped(tmp_path: Path) -> None:
    result = send(served(receipted(path=["box", ODD])), tmp_path, LARGE, "--if-exists=rename")
    assert result.status == 0
    assert "box/\\u202egnp.\\u2028exe\\u200b" in result.out


@pytest.mark.parametrize(("policy", "status"), [("rename", 0), ("fail", 0), ("skip", 0), ("replace", INTEGRITY)])
def test_another_last_name_is_taken_with_every_policy_but_replace(tmp_path: Path, policy: str, status: int) -> None:
    """A client can't know whether its account may look at what lies there."""
    result = send(served(receipted(path=["box", "x.1"])), tmp_path, LARGE, f"--if-exists={policy}")
    assert (result.status, "delivered: box/x.1" in result.out) == (status, not status), result


NAMES: dict[str, str] = {
    "dot dot": "..",
    "upwards": "../../../etc/passwd",
    "slash": "a/b",
    "absolute": "/etc/passwd",
    "empty": "",
    "line feed": "x\nd41d8cd98f00b204e9800998ecf8427e  evil",
    "escapes": EVIL,
    "5,000 characters": "pwned" * 1000,
}


def check_nothing_is_said_of(name: str, *texts: str) -> None:
    said = "".join(texts)
    assert "pwned" not in said
    assert "d41d8cd98f" not in said
    assert not name or name in ("..", "a/b") or name not in said


def has_delivered(out: str) -> bool:
    return "delivered: " in out or '"event": "delivered"' in out


@pytest.mark.parametrize("policy", ["rename", "fail"])
@pytest.mark.parametrize("name", some(NAMES, "upwards", "line feed"))
def test_receipt_with_a_name_that_is_not_allowed_is_none(tmp_path: Path, name: str, policy: str) -> None:
    """Nothing of it is delivered, in the file of receipts, in JSON, on the screen or in the log."""
    receipts = tmp_path / "receipts"
    flags = (f"--if-exists={policy}", f"--receipts={receipts}")
    for folder, more in ((tmp_path / "text", ()), (tmp_path / "json", ("--json",))):
        folder.mkdir()
        result = send(served(receipted(path=["box", NAMES[name]])), folder, LARGE, *flags, *more)
        assert (result.status, has_delivered(result.out)) == (INTEGRITY, False), result
        assert receipts.read_text() == ""
        check_nothing_is_said_of(NAMES[name], result.out, result.err, (folder / "client/client.log").read_text("utf-8"))


def listing(name: str) -> Serve:
    """A page whose second name is that one."""

    def serve(session: Session) -> None:
        session.hear()
        entries = [["!", "file", 2**63 - 1, 1 - 2**63, None], [name, "file", 2**63 - 1, 2**63 - 1, None]]
        session.say(control("ENTRY", id=1, entries=entries, more=False))
        with contextlib.suppress(Broken):  # the client has had enough
            session.expect("BYE")
        session.say(message("BYE"))

    return serve


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("name", some(NAMES, "upwards", "empty"))
def test_listing_with_a_name_that_is_not_allowed_is_none(tmp_path: Path, name: str, flags: tuple[str, ...]) -> None:
    result = meet(served(listing(NAMES[name])), tmp_path, "--list", *flags, "box")
    assert result.status == INTEGRITY, result
    assert [json.loads(line)["event"] for line in result.out.splitlines()] == ["summary"] * len(flags)
    check_nothing_is_said_of(NAMES[name], result.err, (tmp_path / "client/client.log").read_text("utf-8"))


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_listing_of_odd_names_is_shown_escaped(tmp_path: Path, flags: tuple[str, ...]) -> None:
    result = meet(served(listing(ODD)), tmp_path, "--list", *flags, "box")
    assert result.status == 0
    assert "\\u202egnp.\\u2028exe\\u200b" in result.out


def test_listing_of_odd_names_leaves_a_terminal_as_it_is(tmp_path: Path) -> None:
    with hostile(served(listing(ODD))) as impostor:
        client = Client(impostor.port, tmp_path / "client")
        with Terminal("client.py", *client.flags, "--list", "box") as terminal:
            assert terminal.finish() == 0
    check_shown(terminal.screen)
    assert "gnp." in terminal.screen


def test_listing_with_more_entries_than_a_page_has_is_none(tmp_path: Path) -> None:
    entries = [[f"{number:03}", "file", 0, 0, None] for number in range(501)]
    page = control("ENTRY", id=1, entries=entries, more=False)
    assert meet(served(answered(page)), tmp_path, "--list", "box").status == INTEGRITY


def refusing(code: str) -> Serve:
    """An honest one that is stopped, or whose disk is gone, just when somebody has logged in."""

    def serve(session: Session) -> None:
        heard = session.hear()
        if heard.kind == "BATCH":
            session.say(session.receipts(heard.fields, sha256=sha256(b""), outcomes=[[code, None]]), message("BYE"))
        else:
            session.say(control("REFUSE", id=1, code=code), message("BYE"))

    return serve


@pytest.mark.parametrize("code", ["stopping", "unavailable"])
@pytest.mark.parametrize("job", ["send", "send small", "fetch", "list"])
def test_server_that_can_not_serve_now_has_refused_nothing(tmp_path: Path, job: str, code: str) -> None:
    """The job is not done, and worth another try: exit 4, not 1."""
    source = tmp_path / "x"
    source.write_bytes(LARGE if job == "send" else CONTENT)
    jobs = {"fetch": ("--get", "box", f"{tmp_path / 'here'}/"), "list": ("--list", "box")}
    result = meet(served(refusing(code)), tmp_path, *jobs.get(job, (source, "box/x")))
    assert (result.status, len(result.err.splitlines())) == (LOST, 1)
    assert ("shutting down" if code == "stopping" else "can't use its accounts or its storage") in result.err


def page(
    name: object, kind: str = "file", times: int = 1, id: int = 1, more: bool = False, target: object = None
) -> bytes:
    """An ENTRY that has one name so many times."""
    return control("ENTRY", id=id, entries=[[name, kind, 0, 0, target]] * times, more=more)


LISTINGS: dict[str, bytes] = {
    "another id": page("a", id=2),
    "more of nothing": page("a", times=0, more=True),
    "the same name twice": page("a", times=2),
    "a link without a target": page("a", kind="link"),
    "a file with a target": page("a", target="b"),
    "a target that clears the screen": page("a", kind="link", target="\x1b[2J"),
    "a name that is a list": page([]),
    "a file": control("PUT", **put_fields(1, ["x"], 1)),
    "BYE": message("BYE"),
}


@pytest.mark.parametrize("fault", some(LISTINGS, "the same name twice"))
def test_refuse_listing(tmp_path: Path, fault: str) -> None:
    assert meet(served(answered(LISTINGS[fault])), tmp_path, "--list", "box").status == INTEGRITY
