"""The rate of an account holds for every byte, not for content alone."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import Client, make
from scene import Stage
from speaker import Heard, Session, control, message, put_fields
from test_hostile_server import hostile, served

RATE = 100_000
BYTES = 400_000
LONG = ["x" * 255] * 15  # a PUT of 4 kB


def announce(session: Session) -> None:
    for id in range(1, BYTES // 4_000):
        session.say(control("PUT", **put_fields(id, [*LONG, ".."], 1)), control("CANCEL", id=id, code=None))


def ask_to_get(session: Session) -> None:
    for id in range(1, BYTES // 4_000):
        session.say(control("GET", id=id, path=[*LONG, ".."], more=id < BYTES // 4_000 - 1))


def ask_for_lists(session: Session) -> None:
    for id in range(1, BYTES // 8_000):
        session.say(control("LIST", id=id, path=[], after=None))


FLOODS: dict[str, Callable[[Session], None]] = {"PUT": announce, "GET": ask_to_get, "LIST": ask_for_lists}


@pytest.mark.parametrize("kind", FLOODS)
def test_messages_without_content_keep_to_the_rate(make_server: MakeServer, kind: str) -> None:
    server = make_server()
    for number in range(100):  # a listing of 8 kB
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


@pytest.mark.parametrize("account", [None, 1_000_000, 10_000])
def test_who_asks_for_less_gets_less_from_the_first_second_on(make_server: MakeServer, account: int | None) -> None:
    """Else the server would first fill the buffers of the line. A rate of the account that is lower counts."""
    asked = 40_000 if account != 10_000 else 1_000_000
    server = make_server()
    make(server.path("large"), 4_000_000)
    if account is not None:
        assert server.command("limits", "alice", f"--rate={account}").status == 0
    with Stage(server).session() as session:
        started, got = time.monotonic(), 0
        session.say(control("RATE", rate=asked), control("GET", id=1, path=["large"], more=False))
        session.expect("PUT")
        session.say(control("ACCEPT", id=1, offset=0))
        while time.monotonic() - started < 1.2:
            got += len(session.hear().body)
            assert got <= min(asked, account or asked) * (time.monotonic() - started + 0.4)
        assert got > 0


def test_our_client_asks_for_its_limit_first(tmp_path: Path) -> None:
    heard: list[Heard] = []

    def serve(session: Session) -> None:
        heard.extend((session.hear(), session.hear()))
        session.say(control("REFUSE", id=1, code="not-found"), message("BYE"))
        session.hear_all()

    with hostile(served(serve)) as impostor:
        client = Client(impostor.port, tmp_path / "client")
        assert client("--retries=0", "--limit=30k", "--get", "a", f"{tmp_path}/").status == 1
    assert [(each.kind, each.fields) for each in heard] == [
        ("RATE", {"rate": 30_000}),
        ("GET", {"id": 1, "path": ["a"], "more": False, "zstd": True, "offers": False, "depth": 1, "links": False}),
    ]
