"""A login in which nothing is random, for the two harnesses that play one end of it against any bytes at all.

Both ends draw the same bytes each time, and ML-KEM's part is replaced by the one that the library is checked with. So
the frames of the honest other end are always the same, and no others may ever lead to keys.
"""

import functools
import socket
import time
from collections.abc import Callable

from crypto_utils import DEFAULT_PROFILE, KEM_CHECK_SEED, SCRYPT_PROFILES, stretch
from sft.wire import pake
from sft.wire.handshake import Candidate, ClientHandshake, ServerHandshake, SessionKeys
from sft.wire.sockets import Link
from tools.worked_example import CLIENT_SCALAR, SALT, SERVER_SCALAR, USERNAME, Draws, Login, fixed_encapsulation, log_in

STRANGER = "nobody"
_W0, _W1 = 3, 5
_WRONG_W0 = 7
_SECONDS = 20.0


@functools.cache
def honest() -> Login:
    """The five frames of the two ends with each other."""
    return log_in(_W0, _W1)


def client(username: str = USERNAME, w0: int = _W0) -> ClientHandshake:
    """The client's end. What it refuses before the password's hash it refuses; the hash itself is left out."""

    def scalars(salt: bytes, profile: int) -> tuple[int, int]:
        if profile not in SCRYPT_PROFILES:
            stretch(b"", salt, profile)
        return w0, _W1

    return ClientHandshake(username, scalars, Draws(KEM_CHECK_SEED, CLIENT_SCALAR))


def server(may_try: bool = True) -> ServerHandshake:
    """The server's end, which has one account."""
    return ServerHandshake(_find, lambda username: may_try, DEFAULT_PROFILE, Draws(SERVER_SCALAR))


@functools.cache
def _registrations() -> tuple[pake.Registration, pake.Registration]:
    return pake.Registration.of(_W0, _W1), pake.Registration.of(_WRONG_W0, _W1)


def _find(username: bytes) -> Candidate:
    known, nobody = _registrations()
    return Candidate(True, SALT, known) if username == USERNAME.encode() else Candidate(False, SALT, nobody)


def play_server(link: Link) -> SessionKeys | None:
    """The server's half of a login, as `sft/server/session.py` has it; None when there is no common version."""
    end = server()
    with fixed_encapsulation(honest().ss_pq):
        answer, go_on = end.hello(link.receive())
    link.send(answer)
    if not go_on:
        return None
    link.send(end.respond(link.receive()))
    return end.finish(link.receive())


def play_client(link: Link) -> SessionKeys:
    """The client's half of a login, as `client.py` has it."""
    end = client()
    link.send(end.hello())
    link.send(end.share(link.receive()))
    last, keys = end.confirm(link.receive())
    link.send(last)
    return keys


def against(data: bytes, play: Callable[[Link], SessionKeys | None]) -> SessionKeys | None:
    """Let one end play against a peer that says `data` and no more. Raises what the end raises."""
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)
        if data:
            far.send(data)  # what does not fit is cut off: a login has 2.5 kB
        far.shutdown(socket.SHUT_WR)
        return play(Link(near, time.monotonic() + _SECONDS))
