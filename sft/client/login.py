"""Reaching a receiver: the connection, the login on it, and the channel that comes of it.

    here                                                   on the way
    key for the hello                                      connecting
    all that is needed later: load it, and check it        the hello, and the server's answer
    the password's hash, on cores that are free            -
    shares and proofs                                      two more round trips

Rules: nothing waits that could be done meanwhile: on a distant line the start of a program fits between two answers.
What the library computes is checked before anything that it made of the password leaves. Each answer of a login has a
deadline, and the whole has one. It asks for no password, prints nothing and tries once: the error's `failure`
shows whether another try makes sense.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sft.common.background import BackgroundTask
from sft.common.errors import Code, ConnectionTrouble, Failure, IntegrityError, LoginRefused, ProtocolViolation
from sft.wire.handshake import ClientHandshake, encode_username, password_scalars
from sft.wire.protocol import CLIENT_FRAME_SECONDS, CLIENT_LOGIN_SECONDS
from sft.wire.sockets import Link, Socket, connect, lost

if TYPE_CHECKING:
    import logging

    from sft.wire.channel import Channel
    from sft.wire.handshake import SessionKeys
    from sft.wire.workers import Engine

_SLOW_SECONDS = 1.0  # after which a person wants to know what is waited for


class Credentials:
    """Who logs in, and where. What scrypt has made of the password is kept for the next connection."""

    def __init__(self, host: str, port: int, user: str, password: str, is_typed: bool = False) -> None:
        """`is_typed`: by a person, who may type another one. Raises UsageError for a username that can't be one."""
        self.host, self.port, self.user, self._password, self.is_typed = host, port, user, password, is_typed
        self._name = encode_username(user)
        self.is_proven = False  # a login has succeeded
        self._scalars: dict[tuple[bytes, int], tuple[int, int]] = {}

    def replace_password(self, password: str) -> None:
        """Use another one from now on."""
        self._password = password
        self._scalars.clear()

    def scalars(self, salt: bytes, profile: int) -> tuple[int, int]:
        """(w0, w1), for the server's salt and profile. Raises UsageError, ConnectionTrouble (an unknown profile)."""
        if (salt, profile) not in self._scalars:
            self._scalars[salt, profile] = password_scalars(self._password, self._name, salt, profile)
        return self._scalars[salt, profile]


@contextlib.contextmanager
def dialed(
    credentials: Credentials,
    seconds: float,
    engine: "Engine",
    log: "logging.Logger",
    load: Callable[[], None],
    is_slow: Callable[[], None] = lambda: None,
) -> Iterator[tuple["Channel", "SessionKeys"]]:
    """A channel, logged in; closed afterwards. `load` loads what the caller needs next.

    `is_slow` is called when the connection takes over a second. Raises ConnectionTrouble, LoginRefused, UsageError.
    """
    log.info("connecting to %s port %d", credentials.host, credentials.port)
    with _Call(credentials.host, credentials.port, seconds) as call:
        preparations = _Preparations(load)

        def scalars(salt: bytes, profile: int) -> tuple[int, int]:
            preparations.wait_for_hash()
            found = credentials.scalars(salt, profile)
            preparations.wait()
            return found

        handshake = ClientHandshake(credentials.user, scalars)
        sock = call.answer(is_slow)
        try:
            log.info("connected to %s port %d", *sock.getpeername()[:2])
            keys = _log_in(sock, handshake, credentials, preparations.start, log)
            log.info("authenticated as %s", credentials.user)
            credentials.is_proven = True
            from sft.wire.channel import Channel

            channel = Channel(sock, keys.c2s, keys.s2c, engine)
        except OSError as problem:  # lost before anything was sent
            raise lost(problem) from None
        try:
            yield channel, keys
        except KeyboardInterrupt:
            channel.fail(ConnectionTrouble("interrupted"))  # the user does not want to wait for an orderly end
            raise
        except IntegrityError as problem:
            channel.close(Code.PROTOCOL if isinstance(problem, ProtocolViolation) else Code.INTEGRITY)
            raise
        finally:
            channel.close()


def _log_in(
    sock: Socket,
    handshake: ClientHandshake,
    credentials: Credentials,
    once_greeted: Callable[[], None],
    log: "logging.Logger",
) -> "SessionKeys":
    link = Link(sock, time.monotonic() + CLIENT_LOGIN_SECONDS, CLIENT_FRAME_SECONDS)
    try:
        link.send(handshake.hello())
        once_greeted()
        link.send(handshake.share(link.receive()))
        try:
            reply = link.receive()
        except ConnectionTrouble:
            raise ConnectionTrouble(
                "the login was cut off: too many attempts, it took too long, or the connection was lost",
                "Wait a minute, then try again",
            ) from None
        confirm, keys = handshake.confirm(reply)
        link.send(confirm)
    except LoginRefused:
        log.error("authentication as %s failed", credentials.user)
        raise
    except ProtocolViolation:
        raise ConnectionTrouble(
            f"what answers at {credentials.host} port {credentials.port} is not this program's server",
            "Check --host and --port",
            Failure.FINAL,
        ) from None
    return keys


class _Call:
    """A connection that is made while the caller does something else; closed at the end, whenever it comes."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._where = host, port, seconds
        self._sock: Socket | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> "_Call":
        self._connecting = BackgroundTask("call", self._connect)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_over = True
            if self._sock is not None:
                self._sock.close()

    def _connect(self) -> None:
        sock = connect(*self._where)
        with self._lock:
            self._sock = sock
            if self._is_over:
                sock.close()

    def answer(self, is_slow: Callable[[], None] = lambda: None) -> Socket:
        """The socket, once it is connected; `is_slow` is called when that takes long. Raises what `connect` does."""
        if not self._connecting.wait(_SLOW_SECONDS):
            is_slow()
            self._connecting.wait()
        if self._sock is None:
            raise lost()
        return self._sock


class _Preparations:
    """What there is to load and check before the password's hash is used, done while others are waited for."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self._can_hash = threading.Event()
        self._under_way: BackgroundTask | None = None

    def start(self) -> None:
        """Begin."""
        self._under_way = BackgroundTask("preparations", self._prepare)

    def _prepare(self) -> None:
        # In this order, and one thread at a time: two that import each other's half would see unfinished modules.
        from crypto_utils import check_library, load_hash
        from sft.wire.pake import load_points

        try:
            load_hash()
            self._can_hash.set()
            check_library()
            load_points()
            import sft.wire.channel  # noqa: F401

            self._load()
        finally:
            self._can_hash.set()

    def wait_for_hash(self) -> None:
        """Return when the password can be hashed, which needs nothing else."""
        self._can_hash.wait()

    def wait(self) -> None:
        """Return when all is ready. Raises UsageError when the library is not what it should be."""
        if self._under_way is not None:
            self._under_way.wait()
