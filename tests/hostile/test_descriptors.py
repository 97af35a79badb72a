"""An account that begins as many large files as it can: it waits, and others are served."""

import contextlib
from pathlib import Path

from processes import PASSWORD, USER, Server
from scene import OTHER, new_source
from speaker import SMALL, Line, Session, body_of, control, data, log_in, message, put_fields
from test_housekeeping import changed_server

PLAIN = "import sys, server; sys.exit(server.main(sys.argv[1:]))"
LARGE = b"x" * (SMALL + 1)
MANY = 100


def announce(session: Session, count: int, name: str = "") -> list[bytes]:
    bodies = [body_of(put_fields(id, [f"{name}{id}"], len(LARGE))) for id in range(1, count + 1)]
    for body in bodies:
        session.say(message("PUT", body))
    return bodies


def test_account_that_begins_many_large_files_waits_and_is_refused_none(besieged: Server, tmp_path: Path) -> None:
    with (
        changed_server(tmp_path / "server", besieged.accounts, PLAIN, 200) as (server, port),
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
    with changed_server(tmp_path / "server", besieged.accounts, PLAIN, 200) as (_, port), Line(port) as line:
        session = log_in(line, USER, PASSWORD)
        announce(session, MANY)
        session.say(control("CANCEL", id=MANY - 1))
        session.say(data(MANY, 0, LARGE))
        heard = session.hear_all()
        assert {each.kind for each in heard[:-1]} == {"ACCEPT"} and 20 <= len(heard) <= 30
        assert heard[-1].fields == {"code": "protocol"}
