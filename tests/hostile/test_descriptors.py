"""Accounts and strangers that take as many descriptors as they can: they wait, and others are served."""

import contextlib
import os
from pathlib import Path

from processes import PASSWORD, USER, Server, make
from scene import OTHER, new_source
from speaker import SMALL, Heard, Line, Session, body_of, control, data, log_in, message, put_fields
from test_housekeeping import changed_server

PLAIN = "import sys, server; sys.exit(server.main(sys.argv[1:]))"
LARGE = b"x" * (SMALL + 1)
MANY = 100
LIMIT = 280  # open files: 70 places for large files, and 6 connections, 3 of one user
WAITING = 32  # how many large files a connection announces ahead of their content
SILENT = 130


def announce(session: Session, count: int, name: str = "") -> list[bytes]:
    bodies = [body_of(put_fields(id, [f"{name}{id}"], len(LARGE))) for id in range(1, count + 1)]
    for body in bodies:
        session.say(message("PUT", body))
    return bodies


def test_account_that_begins_many_large_files_waits_and_is_refused_none(besieged: Server, tmp_path: Path) -> None:
    with (
        changed_server(tmp_path / "server", besieged.accounts, PLAIN, LIMIT) as (server, port),
        contextlib.ExitStack() as on,
    ):
        sessions = [
            log_in(on.enter_context(Line(port, new_source())), user, PASSWORD) for user in (USER, USER, USER, OTHER)
        ]
        first, *others, bob = sessions
        bodies = announce(first, MANY)
        for session, name in zip(others, "ab", strict=True):
            announce(session, 200, name)
            session.expect("ACCEPT", id=1, offset=0)
        announce(bob, 5)
        for id in range(1, 6):
            bob.expect("ACCEPT", id=id, offset=0)
        for id, body in enumerate(bodies, 1):
            accepted = first.hear()
            while accepted.kind == "RECEIPT":
                accepted = first.hear()
            assert (accepted.kind, accepted.fields["id"]) == ("ACCEPT", id)
            first.say(data(id, 0, LARGE), first.end(body, LARGE))
        first.say(message("BYE"))
        while first.hear().kind != "BYE":
            pass
        assert len(list(server.path().iterdir())) == MANY
        assert "refused" not in server.told() and "Too many open files" not in server.told()


def test_refuse_content_of_a_file_that_waits_for_a_place(besieged: Server, tmp_path: Path) -> None:
    with changed_server(tmp_path / "server", besieged.accounts, PLAIN, LIMIT) as (_, port), Line(port) as line:
        session = log_in(line, USER, PASSWORD)
        announce(session, MANY)
        session.say(control("CANCEL", id=MANY - 1, code=None))
        session.say(data(MANY, 0, LARGE))
        heard = session.hear_all()
        assert {each.kind for each in heard[:-1]} == {"ACCEPT"} and 30 <= len(heard) <= 40
        assert heard[-1].fields == {"code": "protocol"}


def open_files_of(server: Server) -> list[str]:
    """What each descriptor of the server leads to."""
    assert server.process is not None
    found = []
    for each in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(each))
    return found


def refuse(session: Session, put: Heard) -> Heard:
    """Want nothing of that file; what comes behind its CANCEL."""
    session.say(control("REFUSE", id=put.fields["id"], code="exists"))
    session.expect("CANCEL", id=put.fields["id"])
    return session.hear()


def test_account_that_gets_many_large_files_and_answers_nothing_waits(besieged: Server, tmp_path: Path) -> None:
    with (
        changed_server(tmp_path / "server", besieged.accounts, PLAIN, LIMIT) as (server, port),
        contextlib.ExitStack() as on,
    ):
        for number in range(WAITING + 1):
            make(server.path("many", str(number)), len(LARGE))
        silent: list[Heard] = []
        for _ in range(3):
            session = log_in(on.enter_context(Line(port, new_source())), USER, PASSWORD)
            session.say(control("GET", id=1, path=["many"], more=False))
            session.say(session.receipt(session.expect("PUT", id=1)))
            if not silent:
                silent = [session.hear() for _ in range(WAITING)]
        put = session.hear()  # the last has one place, whatever the others took
        for id in range(2, WAITING + 3):
            assert (put.kind, put.fields["id"]) == ("PUT", id)
            assert sum("/many/" in each for each in open_files_of(server)) <= 36
            put = refuse(session, put)
        assert put.kind == "BYE"


def test_silent_strangers_and_a_greedy_account_leave_room_for_others(besieged: Server, tmp_path: Path) -> None:
    with (
        changed_server(tmp_path / "server", besieged.accounts, PLAIN, LIMIT) as (server, port),
        contextlib.ExitStack() as on,
    ):
        sources = [new_source() for _ in range(3)]
        for number in range(SILENT):
            on.enter_context(Line(port, sources[number % len(sources)]))
        for number in range(3):
            session = log_in(on.enter_context(Line(port, new_source())), USER, PASSWORD)
            announce(session, MANY, str(number))
            session.expect("ACCEPT", id=1)
        beyond = log_in(on.enter_context(Line(port, new_source())), USER, PASSWORD)
        assert [each.fields for each in beyond.hear_all()] == [{"code": "full"}]
        for number in range(3):
            bob = log_in(on.enter_context(Line(port, new_source())), OTHER, PASSWORD)
            bob.send(1, [str(number)], LARGE)
            announce(bob, MANY, str(number))
        assert len(open_files_of(server)) < LIMIT
        told = server.told()
        assert "Too many open files" not in told and "refused" not in told
        assert f"the limit of open files ({LIMIT}) allows 6 connections" in told
