"""How long each end of a login waits for the other: the values of docs/PROTOCOL.md, without waiting for them."""

import logging
import re
import socket
import time
from types import SimpleNamespace
from typing import cast

import pytest
from processes import HOME, PASSWORD, USER, Server

import sft.client.login
import sft.server.listener
from sft.accounts.store import Accounts
from sft.client.login import Credentials
from sft.common.background import BackgroundTask
from sft.common.log_limits import SourceLimits
from sft.server.admission import Admission
from sft.server.listener import login_link
from sft.server.login import Login
from sft.server.shared import Shared
from sft.server.throttle import Throttle
from sft.wire.handshake import ClientHandshake
from sft.wire.protocol import frame
from sft.wire.sockets import Link

Waits = list[tuple[float, float]]

LOG = logging.getLogger("sft.test")


def documented(who: str) -> dict[str, int]:
    """The seconds of PROTOCOL's table for that end, by frame."""
    rows = re.findall(r"^\| (\w+) \| ([\w' ]+) \| (\d+) \|$", (HOME / "docs/PROTOCOL.md").read_text(), re.MULTILINE)
    return {frame: int(seconds) for frame, end, seconds in rows if end == who}


def recording(waits: Waits) -> type[Link]:
    """Links that note how long they may wait for each frame, and for all that is left of the login."""

    class Recording(Link):
        def receive(self, seconds: float | None = None) -> bytes:
            before = time.monotonic()
            frame = super().receive(seconds)
            waits.append((self._deadline - before, self._last - before))
            return frame

    return Recording


def login_at(server: Server, link: Link) -> Login:
    """A login at a server with the same accounts."""
    shared = SimpleNamespace(
        accounts=Accounts(server.accounts), log=LOG, throttle=Throttle(), strangers=SourceLimits(LOG)
    )
    ticket = Admission(1, 1, 1).enter(b"source", lambda: None)
    assert ticket is not None
    return Login(cast(Shared, shared), link, ticket, "127.0.0.1", logging.LoggerAdapter(LOG))


def test_each_end_waits_for_each_frame_as_long_as_the_document_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_server, of_client, keys = Waits(), Waits(), list[object]()
    monkeypatch.setattr(sft.server.listener, "Link", recording(of_server))
    monkeypatch.setattr(sft.client.login, "Link", recording(of_client))
    account = Credentials("here", 1, USER, PASSWORD)
    near, far = socket.socketpair()
    with near, far:
        link = login_link(far)
        serving = BackgroundTask("server", lambda: keys.append(login_at(server, link).run()))
        handshake = ClientHandshake(USER, account.scalars)
        keys.append(sft.client.login._log_in(near, handshake, account, lambda: None, LOG))
        assert serving.wait(10) and len(keys) == 2 and None not in keys
    for who, waits, frames in (("server", of_server, "135"), ("project's client", of_client, "24")):
        expected = documented(who)
        assert [pytest.approx(expected[each], abs=0.1) for each in frames] == [step for step, _ in waits]
        assert waits[0][1] == pytest.approx(expected["all"], abs=2)


def test_frame_may_have_a_time_of_its_own_within_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now, (near, far) = [1_000.0], socket.socketpair()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with near, far:
        link = Link(near, 1_060.0, 10)
        for seconds, waits_until in ((40, 1_040.0), (None, 1_010.0), (90, 1_060.0)):
            far.sendall(frame(b"a"))
            assert link.receive(seconds) == frame(b"a") and link._deadline == waits_until
