"""Rules of docs/PROTOCOL.md that no other test holds, said to a real server by the second speaker."""

import os
from collections.abc import Iterator

import pytest
from conftest import MakeServer
from frames import zstd
from processes import PASSWORD, USER, Server, make
from scene import Stage
from speaker import (
    BLOCK,
    SMALL,
    Broken,
    ClientLogin,
    Session,
    body_of,
    control,
    data,
    log_in,
    message,
    pack,
    put_fields,
)

CONTENT = b"content"


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def put(id: int, *path: str, size: int | None = 1, **more: object) -> bytes:
    return control("PUT", **put_fields(id, list(path), size, **more))


# --- 4., 8. The login -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"\xed\xa0\x80", b"Alice", b"alice\0", b"-", b"\xc3\xa9" * 16, b"x" * 32]
)
def test_username_of_any_bytes_is_an_unknown_user_and_no_malformed_hello(stage: Stage, name: bytes) -> None:
    with stage.line() as line, pytest.raises(Broken, match="confirmV"):
        log_in(line, name, None)


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_client_whose_x_is_zero_logs_in_with_the_right_password_alone(stage: Stage, password: str) -> None:
    login = ClientLogin(USER, password)
    login.x = 0
    with stage.line() as line:
        line.send(login.hello())
        login.hear_hello(line.login_frame())
        line.send(login.share())
        whole = line.login_frame()
        if password == PASSWORD:
            login.hear_proof(whole)
            line.send(login.proof())
            login.session(line).farewell()
        else:
            with pytest.raises(Broken, match="confirmV"):
                login.hear_proof(whole)


# --- 15. Sending files ------------------------------------------------------------------------------------------------


def begun(session: Session, count: int) -> None:
    session.say(*(put(id, f"n{id}") for id in range(1, count + 1)))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_put_while_256_files_are_begun_is_a_violation(stage: Stage, kind: str) -> None:
    with stage.session() as session:
        begun(session, 256)
        size = 1 if kind == "file" else None
        session.say(put(257, "honestly", size=size, kind=kind))
        session.expect("ERROR", code="protocol")
    stage.check()


def test_cancel_gives_the_place_of_a_file_back_at_once(stage: Stage) -> None:
    with stage.session() as session:
        begun(session, 256)
        session.say(*(control("CANCEL", id=id, code=None) for id in range(1, 257)))
        session.say(*(put(id, f"n{id}") for id in range(300, 556)))
        session.say(*(control("CANCEL", id=id, code=None) for id in range(300, 556)))
        session.farewell()
    stage.check()


def test_content_of_a_small_file_may_come_later_and_receipts_come_by_themselves(stage: Stage) -> None:
    one, two = (body_of(put_fields(id, [f"later{id}"], len(CONTENT))) for id in (5, 9))
    with stage.session() as session:
        session.say(message("PUT", one), message("PUT", two))
        session.say(data(9, 0, CONTENT), session.end(two, CONTENT))
        session.expect("RECEIPT", id=9)
        session.say(data(5, 0, CONTENT), session.end(one, CONTENT))
        session.expect("RECEIPT", id=5)
        session.farewell()
    stage.check(later5=CONTENT, later9=CONTENT)
    for name in ("later5", "later9"):
        (stage.home / name).unlink()


def test_pipe_that_is_too_large_is_refused_in_the_middle(make_server: MakeServer) -> None:
    stage = Stage(make_server(f"--max-file-size={2 * BLOCK}"))
    with stage.session() as session:
        session.say(put(1, "pipe", size=None))
        session.expect("ACCEPT", id=1, offset=0)
        session.say(data(1, 0, bytes(BLOCK)))
        session.say(data(1, BLOCK, bytes(BLOCK)))
        session.say(data(1, 2 * BLOCK, b"x"))
        session.expect("REFUSE", id=1, code="too-large")
        session.say(control("CANCEL", id=1, code=None))
        session.say(put(2, "large", size=2 * BLOCK + 1))
        session.expect("REFUSE", id=2, code="too-large")
        session.say(control("CANCEL", id=2, code=None))
        session.farewell()
    stage.check()


TEXT = b"All work and no play makes Jack a dull boy.\n" * 20_000


def test_content_of_every_form_lands(stage: Stage) -> None:
    """As it is, as a frame of each kind, and as zeros."""
    content = TEXT + bytes(BLOCK) + TEXT + os.urandom(3000)
    put = body_of(put_fields(1, ["forms"], len(content)))
    with stage.session() as session:
        session.say(message("PUT", put))
        session.expect("ACCEPT", id=1, offset=0)
        session.say(data(1, 0, zstd.compress(TEXT), len(TEXT)))
        session.say(data(1, len(TEXT), b"", BLOCK))
        options = {int(zstd.CompressionParameter.checksum_flag): 1}
        session.say(data(1, len(TEXT) + BLOCK, zstd.compress(TEXT, options=options), len(TEXT)))
        session.say(data(1, 2 * len(TEXT) + BLOCK, content[-3000:]))
        session.say(session.end(put, content))
        session.expect("RECEIPT", id=1, outcome="stored")
        session.farewell()
    stage.check(forms=content)
    (stage.home / "forms").unlink()


def test_server_compresses_for_who_reads_it(make_server: MakeServer) -> None:
    server = make_server("--compress=on")
    make(server.path("text")).write_bytes(TEXT + bytes(3 * BLOCK))
    for reads in (True, False):
        with Stage(server).session() as session:
            session.say(control("GET", id=1, path=["text"], more=False, zstd=reads))
            session.expect("PUT")
            session.say(control("ACCEPT", id=1, offset=0))
            heard = session.hear()
            assert (heard.kind, heard.body) == ("DATA", (TEXT + bytes(BLOCK))[:BLOCK])
            assert (heard.fields["on_wire"] < 100_000) is reads
            rest = [session.hear() for _ in range(3)]
            assert [each.fields["on_wire"] for each in rest[:2]] == [0, 0]


def test_error_behind_bye_changes_nothing(stage: Stage) -> None:
    with stage.session() as session:
        session.say(message("BYE"))
        session.say(control("ERROR", code="integrity"))
        session.expect("BYE")


# --- 12., 18., 19. What is in the way ---------------------------------------------------------------------------------

LINK_IS_IN_THE_WAY = [
    (put(1, "link", "x"), "link"),
    (put(1, "link", "x", size=SMALL + 1), "link"),
    (put(1, "link", size=None, kind="folder"), "link"),
    (put(1, "link", size=SMALL + 1), "exists"),
    (put(1, "link"), "exists"),
    (put(1, "link", size=None), "exists"),
    (control("GET", id=1, path=["link"], more=False), "link"),
    (control("GET", id=1, path=["link", "x"], more=False), "link"),
    (control("GET", id=1, path=["fifo"], more=False), "special"),
    (put(1, "fifo", policy="replace"), "special"),
    (put(1, "fifo", size=SMALL + 1, policy="replace"), "special"),
    (control("GET", id=1, path=["fifo", "x"], more=False), "not-folder"),
    (control("LIST", id=1, path=["link"], after=None), "link"),
    (control("LIST", id=1, path=["fifo"], after=None), "not-folder"),
    (control("GET", id=1, path=["a\n"], more=False), "name"),
    (control("LIST", id=1, path=["..", "x"], after=None), "name"),
    (control("LIST", id=1, path=[], after=""), "name"),
]


@pytest.fixture
def odd(stage: Stage) -> Iterator[Stage]:
    """A link, a FIFO, and names that the protocol can't say, in a user's folder."""
    home = stage.home
    (home / "link").symlink_to(home.parent / "outside")
    os.mkfifo(home / "fifo")
    (home / "odd").mkdir()
    for name in (b"good", b"\xff", b"new\nline", b"\xc2\x85"):
        (home / "odd" / os.fsdecode(name)).write_bytes(CONTENT)
    stage.remember()
    yield stage
    (home / "link").unlink()
    (home / "fifo").unlink()
    for path in (home / "odd").iterdir():
        path.unlink()
    (home / "odd").rmdir()


@pytest.mark.parametrize(("asked", "code"), LINK_IS_IN_THE_WAY, ids=range(len(LINK_IS_IN_THE_WAY)))
def test_what_is_in_the_way_has_its_code(odd: Stage, asked: bytes, code: str) -> None:
    with odd.session() as session:
        session.say(asked)
        if pack("file") + pack(1) in asked:  # a small file: it is looked for the name when all of it is there
            session.say(data(1, 0, b"x"), session.end(asked[5:], b"x"))
        found = session.hear()
        assert (found.kind, found.fields["code"]) == ("REFUSE", code)
    odd.check()


def test_names_that_can_not_be_said_are_spelled_to_a_listing_and_to_a_get(odd: Stage) -> None:
    spelled = ["new\\x0aline", "\\xc2\\x85", "\\xff"]
    with odd.session() as session:
        session.say(control("LIST", id=1, path=["odd"], after=None))
        told = [session.hear() for _ in range(4)]
    assert [(each.kind, each.fields.get("name"), each.fields.get("code")) for each in told[:3]] == [
        ("OMITTED", name, "name") for name in spelled
    ]
    assert [name for name, *_ in told[3].fields["entries"]] == ["good"]
    with odd.session() as session:
        session.say(control("GET", id=7, path=["odd"], more=False))
        heard = [session.hear() for _ in range(5)]
    omitted = [each.fields for each in heard if each.kind == "OMITTED"]
    assert omitted == [{"id": 7, "name": f"odd/{name}", "code": "name", "more": 0} for name in spelled]
    assert [each.fields["path"] for each in heard if each.kind == "PUT"] == [["odd"]]
    assert [file["path"] for each in heard if each.kind == "BATCH" for file in each.fields["files"]] == [
        ["odd", "good"]
    ]
