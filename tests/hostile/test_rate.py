"""The rate of an account holds for every byte, not for content alone."""

import time
from collections.abc import Callable

import pytest
from conftest import MakeServer
from processes import make
from scene import Stage
from speaker import Session, control, message, put_fields

RATE = 100_000
BYTES = 400_000
LONG = ["x" * 255] * 15  # a PUT of 4 kB


def announce(session: Session) -> None:
    for id in range(1, BYTES // 4_000):
        session.say(control("PUT", **put_fields(id, [*LONG, ".."], 1)), control("CANCEL", id=id))


def ask_to_get(session: Session) -> None:
    for id in range(1, BYTES // 4_000):
        session.say(control("GET", id=id, path=[*LONG, ".."], more=id < BYTES // 4_000 - 1))


def ask_for_lists(session: Session) -> None:
    for id in range(1, BYTES // 12_000):
        session.say(control("LIST", id=id, path=[], after=None))


FLOODS: dict[str, Callable[[Session], None]] = {"PUT": announce, "GET": ask_to_get, "LIST": ask_for_lists}


@pytest.mark.parametrize("kind", FLOODS)
def test_messages_without_content_keep_to_the_rate(make_server: MakeServer, kind: str) -> None:
    server = make_server()
    for number in range(100):  # a listing of 12 kB
        make(server.path(f"{number:03}-" + "n" * 60), 1)
    assert server.command("limits", "alice", f"--rate={RATE}").status == 0
    with Stage(server).session() as session:
        started = time.monotonic()
        FLOODS[kind](session)
        if kind != "GET":
            session.say(message("BYE"))
        while session.hear().kind != "BYE":
            pass
        took = time.monotonic() - started
        if kind == "GET":
            session.say(message("BYE"))
    assert took > BYTES / RATE * 0.8
