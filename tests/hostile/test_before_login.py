"""Faults before the login is done: each is answered by the same silent close, leaves nothing, and keeps nobody out."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import PASSWORD, USER, Server, wait_until
from scene import Stage, new_source
from speaker import (
    MAGIC,
    PRIME,
    Broken,
    ClientLogin,
    Ended,
    Line,
    body_of,
    client_hello,
    data,
    frame,
    log_in,
    message,
    put_fields,
    u32,
)

UNKNOWN = "nobody"
WRONG = "some other password"
GO_ON, ANSWERED = 1127, 101  # whole frames 2 and 4
STATES = ("hello", "share", "proof")

Say = Callable[[Line, ClientLogin], None]


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def go_to(state: str, line: Line, login: ClientLogin) -> bytes:
    """Keep to the rules until the frame named `state` is due; that frame."""
    whole = login.hello()
    if state == "hello":
        return whole
    line.send(whole)
    login.hear_hello(line.login_frame())
    whole = login.share()
    if state == "share":
        return whole
    line.send(whole)
    login.hear_proof(line.login_frame())
    return login.proof()


def check_refused(stage: Stage, speak: Say, user: str = USER) -> None:
    """The server closes gently without a word more, and the fault has led to nothing."""
    with stage.line() as line:
        speak(line, ClientLogin(user, PASSWORD))
        line.stop()
        assert line.rest() == (b"", "closed")
    wait_until(lambda: ": no login" in stage.told() or ": login as " in stage.told(), 5)
    stage.check()


# --- lies about lengths -----------------------------------------------------------------------------------------------

LIES: dict[str, Callable[[bytes], bytes]] = {
    "zero": lambda whole: bytes(4) + whole[4:],
    "zero, and nothing behind it": lambda whole: bytes(4),
    "one over the ceiling": lambda whole: u32(8193) + whole[4:],
    "the ceiling, and less sent": lambda whole: u32(8192) + whole[4:],
    "as a record may have": lambda whole: u32(2**20 + 4096 + 16) + whole[4:],
    "2^31": lambda whole: u32(2**31) + whole[4:],
    "2^32-1": lambda whole: u32(2**32 - 1) + whole[4:],
    "one too many": lambda whole: u32(len(whole) - 3) + whole[4:],
    "one too few": lambda whole: u32(len(whole) - 5) + whole[4:],
    "little-endian": lambda whole: whole[3::-1] + whole[4:],
    "half a length": lambda whole: whole[:2],
    "only a length": lambda whole: whole[:4],
    "cut in the middle": lambda whole: whole[: len(whole) // 2],
    "nothing at all": lambda whole: b"",
    "another program's words": lambda whole: b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("lie", LIES)
def test_refuse_lie_about_a_length(stage: Stage, state: str, lie: str) -> None:
    check_refused(stage, lambda line, login: line.send(LIES[lie](go_to(state, line, login))))


# --- frames that are none ---------------------------------------------------------------------------------------------

USERNAME = USER.encode()


def hello_without(change: Callable[[bytes], bytes]) -> Say:
    """A hello with another payload."""
    return lambda line, login: line.send(frame(change(login.hello()[4:])))


HELLOS: dict[str, Say] = {
    "other magic": hello_without(lambda hello: b"SFTLOGIN" + hello[8:]),
    "nothing but the magic": hello_without(lambda hello: MAGIC),
    "no versions": hello_without(lambda hello: MAGIC + b"\0" + hello[10:]),
    "fewer versions than announced": hello_without(lambda hello: MAGIC + b"\xff\1"),
    "no username": hello_without(lambda hello: client_hello(b"", hello[-1184:])),
    "username of 33 bytes": hello_without(lambda hello: client_hello(b"a" * 33, hello[-1184:])),
    "username beyond the end": hello_without(lambda hello: MAGIC + b"\1\1\x20" + b"a" * 31),
    "no key": hello_without(lambda hello: client_hello(USERNAME, b"")),
    "key one byte short": hello_without(lambda hello: hello[:-1]),
    "key one byte long": hello_without(lambda hello: hello + b"\0"),
    "key with coefficients beyond the modulus": hello_without(lambda hello: hello[:-1184] + b"\xff" * 1184),
    "a byte of zero": hello_without(lambda hello: b"\0"),
    "8,192 zeros": hello_without(lambda hello: bytes(8192)),
}


@pytest.mark.parametrize("fault", HELLOS)
def test_refuse_hello(stage: Stage, fault: str) -> None:
    check_refused(stage, HELLOS[fault])


def test_versions_that_nobody_speaks_get_those_that_are_spoken(stage: Stage) -> None:
    with stage.line() as line:
        line.send(frame(MAGIC + b"\3\0\2\xff"))
        assert line.rest() == (frame(b"\1\1\1"), "closed")
    stage.check()


def beyond(point: bytes, at: int) -> bytes:
    """The same point with the prime added to one coordinate, or the prime itself where that does not fit."""
    coordinate = int.from_bytes(point[at : at + 32], "big") + PRIME
    return point[:at] + (coordinate if coordinate < 2**256 else PRIME).to_bytes(32, "big") + point[at + 32 :]


SHARES: dict[str, Callable[[bytes], bytes]] = {
    "identity of one byte": lambda point: b"\0",
    "identity written as zeros": lambda point: b"\4" + bytes(64),
    "only zeros": lambda point: bytes(65),
    "compressed": lambda point: bytes([2 + (point[64] & 1)]) + point[1:33],
    "compressed, padded": lambda point: bytes([2 + (point[64] & 1)]) + point[1:33] + bytes(32),
    "hybrid": lambda point: bytes([6 + (point[64] & 1)]) + point[1:],
    "not on the curve": lambda point: point[:-1] + bytes([point[-1] ^ 1]),
    "x of zero": lambda point: b"\4" + bytes(32) + point[33:],
    "x and y changed for each other": lambda point: b"\4" + point[33:] + point[1:33],
    "x not below the prime": lambda point: beyond(point, 1),
    "y not below the prime": lambda point: beyond(point, 33),
    "x of the prime": lambda point: b"\4" + PRIME.to_bytes(32, "big") + point[33:],
    "both coordinates 2^256-1": lambda point: b"\4" + b"\xff" * 64,
    "one byte short": lambda point: point[:-1],
    "one byte long": lambda point: point + b"\0",
    "a key in DER": lambda point: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + point,
    "a key in PEM": lambda point: b"-----BEGIN PUBLIC KEY-----\n",
    "8,192 bytes": lambda point: point.ljust(8192, b"\0"),
}


@pytest.mark.parametrize("fault", SHARES)
def test_refuse_share(stage: Stage, fault: str) -> None:
    check_refused(stage, lambda line, login: line.send(frame(SHARES[fault](go_to("share", line, login)[4:]))))
    assert "too many attempts" not in stage.told()


def instead(state: str, make: Callable[[ClientLogin], bytes]) -> Say:
    """Keep to the rules until the frame named `state`, and say something else then."""

    def say(line: Line, login: ClientLogin) -> None:
        go_to(state, line, login)
        line.send(make(login))

    return say


def with_proof(change: Callable[[bytes], bytes]) -> Say:
    """A whole file rides on another proof than the right one."""

    def say(line: Line, login: ClientLogin) -> None:
        whole = go_to("proof", line, login)
        session, put = login.session(line), body_of(put_fields(1, ["x"], 1))
        text = message("PUT", put) + data(1, 0, b"x") + session.end(put, b"x")
        line.send(change(whole) + session.seal(text) + session.seal(message("BYE")))

    return say


def twice(line: Line, login: ClientLogin) -> None:
    line.send(login.hello() * 2)
    assert len(line.login_frame()) == GO_ON


ORDERS: dict[str, Say] = {
    "share first": lambda line, login: line.send(frame(b"\4" + os.urandom(64))),
    "proof first": lambda line, login: line.send(frame(os.urandom(32))),
    "record first": lambda line, login: line.send(frame(os.urandom(8000))),
    "hello twice": twice,
    "hello where the share belongs": instead("share", lambda login: login.hello()),
    "proof where the share belongs": instead("share", lambda login: frame(os.urandom(32))),
    "hello where the proof belongs": instead("proof", lambda login: login.hello()),
    "share where the proof belongs": instead("proof", lambda login: frame(login.share_p)),
    "the server's own proof": instead("proof", lambda login: frame(login.proofs.confirm_v)),
    "proof of 8,192 bytes": instead("proof", lambda login: frame(bytes(8192))),
    "records instead of the proof": with_proof(lambda whole: b""),
    "proof of zeros": with_proof(lambda whole: frame(bytes(32))),
    "proof with one bit changed": with_proof(lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])),
    "proof one byte short": with_proof(lambda whole: frame(whole[4:-1])),
    "proof one byte long": with_proof(lambda whole: frame(whole[4:] + b"\0")),
}


@pytest.mark.parametrize("fault", ORDERS)
def test_refuse_what_is_out_of_order(stage: Stage, fault: str) -> None:
    check_refused(stage, ORDERS[fault])


# --- guesses ----------------------------------------------------------------------------------------------------------


def heard_of(stage: Stage, source: str, user: str, password: str = WRONG, blind: bool = False) -> list[int | str]:
    """The sizes of the server's frames to one login, and how the connection ended. With `blind` the share is w0'·M."""
    heard: list[int | str] = []
    with stage.line(source) as line:
        login = ClientLogin(user, password)
        login.x = 0 if blind else login.x
        line.send(login.hello())
        try:
            hello = line.login_frame()
            heard.append(len(hello))
            login.hear_hello(hello)
            line.send(login.share())
            heard.append(len(line.login_frame()))
            line.send(frame(os.urandom(32)))
        except Ended:
            pass
        rest, how = line.rest()
        return [*heard, len(rest), how]


def test_known_and_unknown_user_meet_the_same_until_the_throttle_and_behind_it(stage: Stage) -> None:
    """Twenty wrong tries, and the next ones; the right password is refused then like a wrong one."""
    known, unknown = new_source(), new_source()
    met = [heard_of(stage, known, USER) for _ in range(22)] + [heard_of(stage, known, USER, PASSWORD)]
    assert met == [[GO_ON, ANSWERED, 0, "closed"]] * 20 + [[GO_ON, 0, "closed"]] * 3
    assert met == [heard_of(stage, unknown, UNKNOWN) for _ in range(22)] + [heard_of(stage, unknown, UNKNOWN, PASSWORD)]
    stage.check()


@pytest.mark.parametrize("fault", SHARES)
def test_throttled_try_and_share_that_is_no_point_meet_the_same(stage: Stage, fault: str) -> None:
    """For a known and an unknown user."""
    met = []
    for user in (USER, UNKNOWN):
        with stage.line() as line:
            login = ClientLogin(user, WRONG)
            line.send(frame(SHARES[fault](go_to("share", line, login)[4:])))
            met.append(line.rest())
    assert met == [(b"", "closed")] * 2


def test_right_and_wrong_guess_made_into_a_share_are_treated_alike(stage: Stage) -> None:
    """With w0'·M as its share, Z is the identity exactly when w0' is right: nothing may show it, nor be free."""
    right, wrong, unknown = new_source(), new_source(), new_source()
    met = [heard_of(stage, right, USER, PASSWORD, blind=True) for _ in range(21)]
    assert met == [[GO_ON, ANSWERED, 0, "closed"]] * 20 + [[GO_ON, 0, "closed"]]
    assert met == [heard_of(stage, wrong, USER, WRONG, blind=True) for _ in range(21)]
    assert met == [heard_of(stage, unknown, UNKNOWN, WRONG, blind=True) for _ in range(21)]
    lines = {line.partition(": login as ")[2] for line in stage.told().splitlines() if ": login as " in line}
    for user in (USER, UNKNOWN):
        reasons = ("too many attempts", "wrong password or unknown user")
        assert {line for line in lines if line.startswith(user)} == {f"{user} refused: {reason}" for reason in reasons}
    stage.check()


def test_salt_of_an_unknown_user_is_as_steady_as_that_of_a_known_one(stage: Stage) -> None:
    def salts(user: str) -> set[bytes]:
        found = set()
        for _ in range(3):
            with stage.line() as line:
                line.send(ClientLogin(user, WRONG).hello())
                found.add(line.login_frame()[6:39])
        return found

    assert [len(salts(user)) for user in (USER, UNKNOWN, "nobody2")] == [1, 1, 1]
    assert len(salts(USER) | salts(UNKNOWN) | salts("nobody2")) == 3
    assert {profile_and_salt[0] for profile_and_salt in salts(USER) | salts(UNKNOWN)} == {1}


@contextlib.contextmanager
def lines(port: int, number: int, source: str | None = None) -> Iterator[list[Line]]:
    """So many connections, from one source or each from its own."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(Line(port, source or new_source())) for _ in range(number)]


def hear_hellos(opened: list[Line], logins: list[ClientLogin]) -> None:
    """All of them have a ServerHello."""
    for line, login in zip(opened, logins, strict=True):
        line.send(login.hello())
    for line, login in zip(opened, logins, strict=True):
        login.hear_hello(line.login_frame())


def test_two_hundred_parallel_guesses_get_no_more_answers_than_the_throttle_allows(make_server: MakeServer) -> None:
    stage = Stage(make_server("--max-logins=400", "--max-logins-per-source=400"))
    source = new_source()
    with lines(stage.server.port, 200, source) as opened:
        logins = [ClientLogin(USER, WRONG) for _ in opened]
        hear_hellos(opened, logins)
        for line, login in zip(opened, logins, strict=True):
            line.send(login.share())
        answers = 0
        for line in opened:
            with contextlib.suppress(Ended):
                answers += len(line.login_frame()) == ANSWERED
        assert answers == 20
        with stage.line(source) as line, pytest.raises(Ended, match="closed"):
            log_in(line, USER, PASSWORD)
    stage.check()


def test_twenty_parallel_logins_with_the_right_password_all_succeed(stage: Stage) -> None:
    source = new_source()
    with lines(stage.server.port, 20, source) as opened:
        logins = [ClientLogin(USER, PASSWORD) for _ in opened]
        hear_hellos(opened, logins)
        for line, login in zip(opened, logins, strict=True):
            line.send(login.share())
        for line, login in zip(opened, logins, strict=True):
            login.hear_proof(line.login_frame())
            line.send(login.proof())
        sessions = [login.session(line) for line, login in zip(opened, logins, strict=True)]
        for number, session in enumerate(sessions):
            session.send(1, [f"parallel {number}"], b"one of twenty")
            session.farewell()
    with stage.line(source) as line:  # twenty that were not given back would leave no try
        log_in(line, USER, PASSWORD).farewell()
    stage.check(**{f"parallel {number}": b"one of twenty" for number in range(20)})


# --- silence and slowness ---------------------------------------------------------------------------------------------


def held(server: Server) -> tuple[int, int]:
    """Descriptors and threads of the server."""
    assert server.process is not None
    return tuple(len(os.listdir(f"/proc/{server.process.pid}/{what}")) for what in ("fd", "task"))  # type: ignore[return-value]


def most_memory(server: Server) -> int:
    """The most bytes that the server has ever had at once."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def let_in_at_last(stage: Stage) -> bool:
    """Whether an honest login gets a place."""
    with contextlib.suppress(Broken, Ended), stage.session() as session:
        session.farewell()
        return True
    return False


def test_five_hundred_that_fall_silent_keep_nobody_out_and_give_everything_back(make_server: MakeServer) -> None:
    """Before their first byte, in the middle of a hello, or when they have their answer."""
    stage = Stage(make_server())
    assert let_in_at_last(stage)
    stage.quiet()
    before, memory = held(stage.server), most_memory(stage.server)
    hello = ClientLogin(USER, WRONG).hello()
    with lines(stage.server.port, 500) as opened:
        for number, line in enumerate(opened):
            line.send((b"", hello[:600], hello)[number % 3])
        wait_until(lambda: let_in_at_last(stage), 8)
    wait_until(lambda: held(stage.server) <= before, 15)
    assert most_memory(stage.server) - memory < 64 << 20
    stage.check()


def trickle(opened: dict[str, tuple[Line, bytes]], seconds: float) -> dict[str, float]:
    """Send one byte a second on each line; after how long each was closed by the server."""
    begun, closed, never = time.monotonic(), dict[str, float](), threading.Event()
    at = 0
    while len(closed) < len(opened) and time.monotonic() - begun < seconds:
        for name, (line, whole) in opened.items():
            if name in closed:
                continue
            line.send(whole[at : at + 1])
            line.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionError):
                    assert line.sock.recv(1) == b"", name
                closed[name] = time.monotonic() - begun
            line.sock.setblocking(True)
        at += 1
        never.wait(1)
    return closed


@pytest.mark.long
def test_one_byte_a_second_and_silence_end_at_the_deadline_in_every_state(stage: Stage) -> None:
    """Nobody is closed early for it, nobody has a second more than the ten of each frame, and others get in.

    A client that hashes its password has longer; `tests/test_deadlines.py` has that.
    """
    with contextlib.ExitStack() as opened:
        slow: dict[str, tuple[Line, bytes]] = {}
        for state in STATES:
            for name in (f"one byte a second in {state}", f"silence in {state}"):
                line = opened.enter_context(stage.line())
                whole = go_to(state, line, ClientLogin(USER, PASSWORD))
                slow[name] = line, whole if "byte" in name else b""
        assert let_in_at_last(stage)
        closed = trickle(slow, 15)
        assert let_in_at_last(stage)
    assert set(closed) == {name for name in slow if not name.endswith("share")}
    assert all(8 <= seconds <= 12 for seconds in closed.values()), closed
    stage.check()


@pytest.mark.long
def test_five_hundred_silent_connections_are_all_put_out_by_the_server(make_server: MakeServer) -> None:
    """Nobody closes them: their slots, threads and descriptors come back at the deadline."""
    stage = Stage(make_server())
    assert let_in_at_last(stage)
    stage.quiet()
    before = held(stage.server)
    with lines(stage.server.port, 500):
        wait_until(lambda: let_in_at_last(stage), 8)
        wait_until(lambda: held(stage.server) <= before, 20)
    stage.check()
