"""The listening server: accepts connections, gives each a thread of its own, and stops in order.

    accepting --first signal--> draining: still accepting --its end, or a second signal--> grace period
              --its end, or a second signal--> connections cut off --> stopped

Rules: the number of connections is bounded; beyond it a client gets "busy". Whatever goes wrong with one connection,
the next is accepted. What transfers left incomplete stays hidden. Only the thread that calls `run` accepts, takes new
settings, waits and stops; a signal wakes it (`sft/server/signals.py`). This module knows no message and no password.
"""

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

from config import ServerSettings
from sft.accounts.store import Accounts
from sft.common.errors import NoThread, UsageError, reason_of
from sft.common.log_events import AUDIT, LogEvent
from sft.common.log_limits import NO_LOGIN, Sparing
from sft.common.open_files import limit_of_files
from sft.common.sizes import counted
from sft.console.screen import note
from sft.disk.storage import Storage
from sft.server.admission import Admission, Ticket
from sft.server.housekeeping import Housekeeping
from sft.server.origin import origin_of, shown_origin
from sft.server.service_manager import ServiceManager
from sft.server.session import Connection
from sft.server.shared import Shared
from sft.server.signals import Signals
from sft.server.watch import Watch
from sft.transfer.places import Most, most_for
from sft.wire.handshake import busy_frame
from sft.wire.protocol import SERVER_FRAME_SECONDS, SERVER_LOGIN_SECONDS
from sft.wire.sockets import Link, close_gently
from sft.wire.workers import Engine

_BACKLOG = 512
_ALL_IPV4 = "0.0.0.0"  # noqa: S104 -- it is a server
_SERVING = "accepting connections"
_LISTEN_REMEDY = "Give addresses of this machine, separated by commas, or leave it out for all of them"
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # errors for an address that no interface has
_PORTS_TRIED = 16
_TURNED_AWAY_AT_ONCE = 64  # connections that get the answer "busy"
_BUSY_SECONDS = 1  # for a client to take that answer

_ACCEPT_PAUSE = 0.2  # after a connection that could not be accepted
_THREAD_PAUSE = 1.0  # before the next try to start a background task
_DRAIN_PAUSE = 0.2  # between two looks at whether the drain is over
_SUMMARY_PAUSE = 10.0  # between two looks at whether a summary of limited log lines is due

_SILENT_SECONDS = 1  # when stopping, for a client that has connected and sent nothing yet
_LAST_SECONDS = 5  # for connections that were cut off to end
_HOUSEKEEPING_SECONDS = 1  # for housekeeping to end
_HOOK_SECONDS = 5  # for the administrator's programs, if the grace period is over before
_HOOK_PAUSE = 0.05  # between two looks at them


# --- the listening sockets ---


def listen(addresses: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of a list with commas (empty: all), all on one port.

    Raises UsageError.
    """
    named = [part.strip() for part in addresses.split(",") if part.strip()]
    if addresses and not named:
        raise UsageError(f"listen: {addresses!r} has no address in it", _LISTEN_REMEDY)
    if named:
        return _listen_on_all(named, port)
    with contextlib.suppress(_NoAddress):  # a machine without IPv6
        if socket.has_dualstack_ipv6():
            return _listen_on_all(["::", _ALL_IPV4], port)
    return _listen_on_all([_ALL_IPV4], port)


def _listen_on_all(addresses: list[str], port: int) -> list[socket.socket]:
    """Port 0: one that is free at each address. Raises UsageError."""
    for _ in range(_PORTS_TRIED if port == 0 else 0):
        with contextlib.suppress(_PortTaken):  # the one that the first address got, at another address
            return _listen_on_one_port(addresses, port)
    return _listen_on_one_port(addresses, port)


def _listen_on_one_port(addresses: list[str], port: int) -> list[socket.socket]:
    listening: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for address in addresses:
            try:
                listening.append(undo.enter_context(_listen_on(address.strip("[]"), port)))
            except (OSError, UnicodeError) as problem:
                raise _cant_listen(address, port, problem) from None
            port = listening[0].getsockname()[1]
        undo.pop_all()
    return listening


def _listen_on(address: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(place)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


class _NoAddress(UsageError):
    """The machine does not have the address."""


class _PortTaken(UsageError):
    """Another program listens there."""


def _cant_listen(address: str, port: int, problem: OSError | UnicodeError) -> UsageError:
    if isinstance(problem, socket.gaierror | UnicodeError) or problem.errno in _NOT_OURS:
        return _NoAddress(f"listen: {address} is not an address of this machine", _LISTEN_REMEDY)
    kind, remedy = UsageError, _LISTEN_REMEDY
    if problem.errno in (errno.EACCES, errno.EPERM):
        remedy = "Choose a --port above 1023, or give this program the right to lower ones (CAP_NET_BIND_SERVICE)"
    elif problem.errno == errno.EADDRINUSE:
        kind, remedy = _PortTaken, "Another server may use it: stop that one, or choose another --port"
    return kind(f"can't listen on {address} port {port} ({problem.strerror})", remedy)


def login_link(sock: socket.socket) -> Link:
    """The link for the login on an accepted connection, whose time begins now."""
    return Link(sock, time.monotonic() + SERVER_LOGIN_SECONDS, SERVER_FRAME_SECONDS)


# --- background tasks ---


class _BackgroundTasks:
    """Starts tasks that run as long as the server; what gets no thread is tried again.

    Without the watch, a connection's account is still looked at before each request.
    """

    def __init__(self, log: logging.Logger, tasks: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """`tasks`: the name of each for the log, and what starts it, or raises NoThread."""
        self._log, self._waiting, self._is_late = log, list(tasks), False

    def add(self, name: str, start: Callable[[], None]) -> None:
        """Another one, behind the others."""
        self._waiting.append((name, start))

    def start(self) -> float | None:
        """Start those that do not run yet. The seconds until another try; None when all of them run."""
        try:
            while self._waiting:
                name, begin = self._waiting[0]
                begin()
                del self._waiting[0]
                if self._is_late:
                    self._log.info("%s runs now", name)
        except NoThread as problem:
            if not self._is_late:
                self._log.error("no thread yet for %s, tried again every second: %s", name, problem.cause)
            self._is_late = True
            return _THREAD_PAUSE
        return None


# --- accepting and stopping ---


class Listener:
    """Accepts connections until a signal, then lets them end."""

    def __init__(
        self,
        settings: ServerSettings,
        storage: Storage,
        accounts: Accounts,
        log: logging.Logger,
        signals: Signals,
        engine: Engine,
        manager: ServiceManager,
        load_again: Callable[[], ServerSettings | None],
    ) -> None:
        """`engine` stays the caller's. `load_again`: the settings after a SIGHUP; None to keep those that hold."""
        self._log, self._signals, self._grace = log, signals, settings.grace
        self._proxies, self._drain = settings.trusted_proxies, settings.drain
        self._manager, self._load_again = manager, load_again
        most = self._most(settings)
        self.shared = Shared(accounts, storage, log, engine, most.per_user, settings.compress, settings.shared_counts)
        self.shared.hooks.take(settings)
        self._admission = Admission(most.connections, most.logins, settings.max_logins_per_source)
        self._turning_away = threading.BoundedSemaphore(most.closing)
        self._troubles = Sparing(log)  # of accepting
        self._accepted = 0
        self._lock = threading.Lock()  # guards the set of connections
        self._connections: set[Connection] = set()
        self._housekeeping = Housekeeping(storage, accounts, log)
        watch = Watch(accounts, self.running, log)
        self._background = _BackgroundTasks(
            log, [("watching the accounts", watch.start), ("housekeeping", self._housekeeping.start)]
        )

    def also(self, name: str, start: Callable[[], None]) -> None:
        """Another task for the time that it runs: see _BackgroundTasks."""
        self._background.add(name, start)

    def _most(self, settings: ServerSettings) -> Most:
        """How many connections these settings and the limit of open files allow; fewer than the settings are logged."""
        wanted = Most(
            settings.max_connections, settings.max_connections_per_user, settings.max_logins, _TURNED_AWAY_AT_ONCE
        )
        most = most_for(limit_of_files(), wanted)
        if most.connections < wanted.connections or most.logins < wanted.logins:
            self._log.warning(
                "the limit of open files (%d) allows %s of logged-in users at once, %d of one user, and %d not logged"
                " in; raise it (ulimit -n, LimitNOFILE), or lower max_connections and max_logins",
                *(limit_of_files(), counted(most.connections, "connection", ""), most.per_user, most.logins),
            )
        return most

    def _reload(self) -> None:
        """Take the settings that hold from now on, for connections that come and for the end."""
        self._manager.reloading()
        if (settings := self._load_again()) is not None:
            most = self._most(settings)
            self._grace, self._drain, self._proxies = settings.grace, settings.drain, settings.trusted_proxies
            self.shared.max_connections_per_user, self.shared.compress = most.per_user, settings.compress
            self._admission.limit(most.connections, most.logins, settings.max_logins_per_source)
            self.shared.hooks.take(settings)
        self._manager.ready(_SERVING)

    def run(self, listening: Sequence[socket.socket]) -> None:
        """Accept from these sockets until a signal comes; then stop, and close them."""
        self._manager.ready(_SERVING)
        self._accept_until(listening, lambda: self._signals.stops > 0)
        if self._drain:
            end = time.monotonic() + self._drain
            self._log.info("shutting down; connections are accepted for %d s more", self._drain)
            self._accept_until(listening, lambda: self._signals.stops > 1 or time.monotonic() >= end, _DRAIN_PAUSE)
        self._manager.stopping(f"stopping; {counted(len(self.running()), 'connection', '')}")
        self.shared.stopping.set()
        for each in listening:
            self._accept_waiting(each)
            each.close()
        self._stop()

    def _accept_until(
        self, listening: Sequence[socket.socket], is_over: Callable[[], bool], pause: float = _SUMMARY_PAUSE
    ) -> None:
        """Accept until `is_over`, which is asked after each signal, and every `pause` seconds."""
        with selectors.DefaultSelector() as selector:
            for each in (*listening, self._signals.waker):
                selector.register(each, selectors.EVENT_READ)
            while not is_over():
                try:
                    if self._signals.takes_reload():
                        self._reload()
                    for key, _ in selector.select(self._background.start() or pause):
                        if key.fileobj is self._signals.waker:
                            self._signals.wait(0)
                        else:
                            self._accept(key.fileobj)  # type: ignore[arg-type]
                    self.shared.strangers.tell()
                except Exception as problem:  # whatever it is, the next connection is accepted
                    self._log_not_accepted(problem)
                    time.sleep(_ACCEPT_PAUSE)  # meanwhile others may end, and free what was missing

    def _accept_waiting(self, listening: socket.socket) -> None:
        """Accept the connections that wait: if closed with the socket, they would look to clients like a fault."""
        try:
            while self._accept(listening):
                pass
        except Exception as problem:  # the transfers under way have their grace period all the same
            self._log_not_accepted(problem)

    def _log_not_accepted(self, problem: Exception) -> None:
        if isinstance(problem, OSError | MemoryError):  # out of descriptors or memory
            self._troubles.error("can't accept a connection: %s", reason_of(problem))
        elif NoThread.is_why(problem):
            self._troubles.error("can't start a thread for a connection")
        else:
            self._log.exception("a bug: a connection could not be accepted")

    def _accept(self, listening: socket.socket) -> bool:
        """Let a thread serve the next connection; whether there was one. Whatever this raises, it closes it first."""
        try:
            sock, address = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        source = address[0]
        self._accepted += 1
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            link = login_link(sock)
            is_proxied = source in self._proxies
            ticket = self._admission.enter(origin_of(source), link.cut, is_proxied)
            if ticket is None:
                self._turn_away(sock, source)
            else:
                undo.callback(ticket.leave)
                self._start(Connection(self.shared, link, ticket, source, self._accepted, is_proxied), ticket)
            undo.pop_all()
        return True

    def _start(self, connection: Connection, ticket: Ticket) -> None:
        def serve() -> None:
            try:
                connection.run()
            finally:
                ticket.leave()
                self._forget(connection)

        with self._lock:
            self._connections.add(connection)
        try:
            threading.Thread(target=serve, name=f"connection-{self._accepted}", daemon=True).start()
        except BaseException:
            self._forget(connection)
            raise

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        if self.shared.stopping.is_set():
            self._signals.wake()

    def running(self) -> list[Connection]:
        """All connections, those in their login included."""
        with self._lock:
            return list(self._connections)

    def _turn_away(self, sock: socket.socket, source: str) -> None:
        """Answer "busy" from a thread of its own, if there are not many of those already, and close."""
        self.shared.activity.login("busy")
        if self.shared.strangers.may(NO_LOGIN, shown_origin(source)):
            line = LogEvent("busy", f"busy: turned away a connection from {source}", source=source)
            self._log.warning(line, extra=AUDIT)
        if not self._turning_away.acquire(blocking=False):
            sock.close()
            return

        def answer() -> None:
            try:
                with contextlib.suppress(OSError):
                    sock.settimeout(_BUSY_SECONDS)
                    sock.sendall(busy_frame())
                close_gently(sock)
            finally:
                self._turning_away.release()

        try:
            threading.Thread(target=answer, name="turning-away", daemon=True).start()
        except BaseException:
            self._turning_away.release()
            raise

    def _stop(self) -> None:
        """Give the connections their grace period, then cut them off."""
        self._log.info("stopping; %s", counted(len(self.running()), "connection", ""))
        now = time.monotonic()
        end_of_grace = now + self._grace
        self._wait_for_ends(min(now + _SILENT_SECONDS, end_of_grace))
        for connection in self.running():
            connection.cut_off_if_silent()
        if self._grace and (left := len(self.running())):
            note(f"stopping; {counted(left, 'connection')} may go on for {self._grace} s, or until another Ctrl-C")
        self._wait_for_ends(end_of_grace)
        for connection in self.running():
            connection.cut_off()
        self._wait_for_ends(time.monotonic() + _LAST_SECONDS, heed_signals=False)
        self._wait_for_hooks(max(end_of_grace, time.monotonic() + _HOOK_SECONDS))
        if self._housekeeping.stop(_HOUSEKEEPING_SECONDS) and not self.running():
            self.shared.storage.ledgers.close()
        self._troubles.tell()
        self.shared.strangers.tell(at_once=True)
        self._log.info("stopped")

    def _wait_for_hooks(self, until: float) -> None:
        """Wait for what is to be run after deliveries, until that time, or for a second signal; then kill it."""
        while self.shared.hooks.is_busy and self._signals.stops < 2 and time.monotonic() < until:
            self._signals.wait(_HOOK_PAUSE)
        self.shared.hooks.stop()

    def _wait_for_ends(self, until: float, heed_signals: bool = True) -> None:
        """Wait until no connection is left, until that time, or for a second signal."""
        while self.running() and (left := until - time.monotonic()) > 0:
            if heed_signals and self._signals.stops > 1:
                return
            self._signals.wait(left)
