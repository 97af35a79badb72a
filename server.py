"""The receiving end: `python server.py` takes files; `adduser`, `passwd`, `deluser` and `users` keep its accounts.

Rules: one thread for each connection, a bounded number of them, and "busy" beyond. Nobody is told why a login failed,
neither in words nor by what the connection does. SIGINT and SIGTERM stop the accepting, leave transfers a grace period
and then cut them off; what is not whole stays hidden. Errors are one line each; what surprises us goes to the log, and
the server lives on.
"""

from sft.common import python_version  # noqa: F401, I001  # first of all: an older Python can't import the others

import argparse
import contextlib
import errno
import gc
import logging
import os
import selectors
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

# isort: off
from sft.common.errors import NoThread, UsageError, reason_of
from sft.console.output import fill_closed_streams
from sft.console.report import announce, ended, fail, note, say

try:  # first of all: when the library is missing, every import below would fail, and not in one line
    from crypto_utils import check_library, engine_name
except UsageError as missing:
    fail(missing)
    sys.exit(missing.exit_status)

# isort: on
from config import DEFAULT_PORT, Loaded, ServerSettings, add_file_flags, add_flags, load, settings_of
from sft.accounts.store import Accounts, check_username
from sft.common.log_limits import NO_LOGIN, LineLimits, SourceLimits, Sparing
from sft.common.open_files import limit_of_files, raise_limit_of_files
from sft.common.private_files import check_area
from sft.common.rate_limit import Paces
from sft.common.sizes import counted
from sft.common.utf8_names import take_names_as_utf8
from sft.common.version import VERSION_HELP, version_line
from sft.console.command_line import Parser, check_account_command
from sft.console.log import no_log, open_log
from sft.disk.root import PARTIAL_AREA
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.server import admin as commands
from sft.server.admission import Admission
from sft.server.housekeeping import Housekeeping
from sft.server.origin import origin_of, shown_origin
from sft.server.session import Connection
from sft.server.throttle import Throttle
from sft.server.watch import Watch
from sft.transfer.places import Most, Places, most_for
from sft.wire.handshake import busy_frame
from sft.wire.protocol import VERSION
from sft.wire.sockets import close_gently
from sft.wire.workers import Engine

_BACKLOG = 512
_DAY_SECONDS = 24 * 3600
_CLOSERS = 64
_THREAD_PAUSE = 1.0  # before the next try to start a thread that runs as long as the server
_LAST_SECONDS = 5
_SILENT_SECONDS = 1  # at the end, for a client that has connected and said nothing yet
_ACCEPT_PAUSE = 0.2
_COMMAND = "python server.py"  # in advice; the flags in use are put behind it
_REPEATED = ("--config", "--accounts", "--storage")
_TELL_PAUSE = 10.0  # at most, between two looks at what strangers have caused
_VERSION = version_line("server.py", VERSION, engine_name())
_STOP_SECONDS = 1  # for housekeeping, which a daemon thread does


# --- the command ------------------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="server.py",
        description="Receive files. Without a command: listen and store what logged-in users send.",
        allow_abbrev=False,
    )
    add_flags(parser.add_argument_group("settings (each also as SFT_... or in the settings file)"), ServerSettings)
    more = parser.add_argument_group("more")
    add_file_flags(more)
    more.add_argument("--version", action="store_true", help=VERSION_HELP)
    for command in commands.add_parsers(parser):  # what says which accounts are meant is taken behind the command, too
        for flag in _REPEATED:
            command.add_argument(flag, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _own_command(options: argparse.Namespace) -> str:
    """How to start this program so that it means the same accounts: what an advice has to begin with."""
    given = [(flag, getattr(options, flag.removeprefix("--"))) for flag in _REPEATED]
    return shlex.join([*_COMMAND.split(), *(word for flag, value in given if value for word in (flag, value))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server or one of its commands; the exit status."""
    fill_closed_streams()
    return ended(lambda: _main(_parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    command = _own_command(options)
    try:
        return _do(options, command)
    except UsageError as problem:
        raise UsageError(problem.cause, problem.remedy.replace(_COMMAND, command)) from None


def _do(options: argparse.Namespace, command: str) -> int:
    if options.version:
        say(_VERSION)
        return 0
    if options.command is not None:
        given = [name for name in settings_of(ServerSettings) if getattr(options, name) is not None]
        check_account_command(options.command, given)
    loaded = load(ServerSettings, vars(options), os.environ, options.config)
    if options.show_config:
        say(*loaded.lines())
        return 0
    check_library()
    if options.command is None:
        # A few dozen small files make as many objects as Python by default searches for cycles, and none is in one.
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        return _serve(loaded, command)
    commands.run(options.command, loaded.values.accounts, loaded.values.storage, options)
    return 0


# --- starting ---------------------------------------------------------------------------------------------------------


def _serve(loaded: Loaded[ServerSettings], command: str) -> int:
    """Listen and store. On the first start the account is made last: if anything fails before, there is none."""
    settings = loaded.values
    is_first = _is_first_start(settings)
    place = settings.server_log
    log = no_log("sft.server") if place is None else open_log("sft.server", place, settings.log_level)
    log.info("%s", _VERSION)
    free, stale = settings.free_space or 0, settings.stale_days * _DAY_SECONDS
    rules = Rules(settings.portable_names, settings.file_mode, settings.max_file_size, free_space=free, stale=stale)

    def open_accounts() -> Accounts:
        return commands.open_accounts(settings.accounts, lambda line: log.error("%s", line.replace(_COMMAND, command)))

    accounts = None if is_first else open_accounts()
    storage = Storage(settings.storage, rules)
    check_area(settings.storage / PARTIAL_AREA)
    raise_limit_of_files()
    server = _Server(settings, storage, log)
    server.catch_signals()
    listeners = _listen(settings)
    addresses = ", ".join(_shown(listener.getsockname()) for listener in listeners)
    announce(f"listening on {addresses}")
    announce(
        f"storing under {settings.storage}",
        f"accounts in {settings.accounts}, {'no log' if place is None else f'log in {place}'}",
    )
    if accounts is None:
        name = _own_name()
        _show_first_account(name, commands.first_account(settings.accounts, name), listeners[0].getsockname()[1])
        accounts = open_accounts()
    elif not accounts.names():
        note(f"warning: there are no accounts; run: {command} adduser NAME")
    log.info("listening on %s, storing under %s", addresses, settings.storage)
    server.say_if_fewer()
    server.start(accounts)
    return server.run(listeners)


def _is_first_start(settings: ServerSettings) -> bool:
    """Whether an account is to be made: on a terminal, where there are neither accounts nor files yet.

    Raises UsageError where there are no accounts otherwise.
    """
    if Accounts.exists(settings.accounts):
        return False
    if _is_on_terminal() and not _holds_files(settings.storage):
        return True
    raise UsageError(f"there are no accounts yet ({settings.accounts})", f"Run: {_COMMAND} adduser NAME")


def _is_on_terminal() -> bool:
    """Whether somebody reads what is printed, and can stop this."""
    with contextlib.suppress(OSError, ValueError):  # a closed one
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return False


def _holds_files(storage: Path) -> bool:
    """Whether users have folders there: then their accounts are somewhere else, or were lost."""
    try:
        return any(name != PARTIAL_AREA for name in os.listdir(storage))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _own_name() -> str:
    """The name of whoever runs this, if it can be a username here."""
    import getpass

    try:
        name = getpass.getuser().lower()
        check_username(name)
    except (OSError, KeyError, ImportError, UsageError):
        return "user"
    return name


def _show_first_account(name: str, password: str, port: int) -> None:
    say("", "This is the first start, so an account was made. Its password is shown only now:", "")
    say(f"    username   {name}", f"    password   {password}", "")
    say("On the sending machine:", "")
    port_flag = "" if port == DEFAULT_PORT else f" --port {port}"
    say(f"    python client.py --host {socket.gethostname()}{port_flag} --user {name} secret.txt out.txt", "")


def _shown(address: tuple[object, ...]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"


def _listen(settings: ServerSettings) -> list[socket.socket]:
    """A listening socket for each address, all on one port. Raises UsageError."""
    named = [part.strip() for part in settings.listen.split(",") if part.strip()]
    if settings.listen and not named:
        raise UsageError(f"listen has no address ({settings.listen!r})", "Check --listen")
    wanted = named or (["::", "0.0.0.0"] if socket.has_dualstack_ipv6() else ["0.0.0.0"])  # noqa: S104 -- it is a server
    listeners: list[socket.socket] = []
    port = settings.port
    for address in wanted:
        try:
            listeners.append(_listen_on(address.strip("[]"), port))
        except (OSError, UnicodeError) as problem:
            if not named and address == "::":
                continue  # a machine without IPv6
            for listener in listeners:
                listener.close()
            where = f"{address} port {port}"
            if isinstance(problem, socket.gaierror | UnicodeError):
                raise UsageError(f"{address} is no address of this machine", "Check --listen") from None
            raise UsageError(f"can't listen on {where} ({problem.strerror})", _listen_remedy(problem)) from None
        port = listeners[0].getsockname()[1]
    return listeners


def _listen_remedy(problem: OSError) -> str:
    if problem.errno in (errno.EACCES, errno.EPERM):
        return "Choose a --port above 1023, or give this program the right to lower ones (CAP_NET_BIND_SERVICE)"
    if problem.errno == errno.EADDRINUSE:
        return "Another server may use it: stop that one, or choose --port"
    return "Check --listen: it takes addresses of this machine"


def _listen_on(address: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


# --- running ----------------------------------------------------------------------------------------------------------


class _Server:
    """The accepting loop, and what all connections share."""

    accounts: Accounts  # from `start` on
    housekeeping: Housekeeping

    def __init__(self, settings: ServerSettings, storage: Storage, log: logging.Logger) -> None:
        self.settings, self.storage, self.log = settings, storage, log
        self.throttle = Throttle()
        self.engine = Engine(settings.memory)
        self.paces = Paces()
        self.line_limits = LineLimits()
        self.strangers = SourceLimits(log)
        self.places = Places()
        self._wanted = Most(settings.max_connections, settings.max_connections_per_user, settings.max_logins, _CLOSERS)
        self._most = most_for(limit_of_files(), self._wanted)
        self.max_connections_per_user = self._most.per_user
        self.stopping = threading.Event()
        self._admission = Admission(self._most.connections, self._most.logins, settings.max_logins_per_source)
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._closers = threading.BoundedSemaphore(self._most.closing)
        self._often = Sparing(log)
        self._numbers = 0
        self._signals = 0
        self._wake_in, self._wake_out = socket.socketpair()
        self._unstarted: list[tuple[str, Callable[[], None]]] = []  # threads that run as long as the server
        self._is_late = False  # one of them could not be started at once

    def say_if_fewer(self) -> None:
        """Log it when the limit of open files allows fewer connections than the settings."""
        most, wanted = self._most, self._wanted
        if most.connections < wanted.connections or most.logins < wanted.logins:
            self.log.warning(
                "the limit of open files (%d) allows %s of logged-in users at once, %d of one user, and %d not logged"
                " in; raise it (ulimit -n, LimitNOFILE), or lower max_connections and max_logins",
                *(limit_of_files(), counted(most.connections, "connection", ""), most.per_user, most.logins),
            )

    def start(self, accounts: Accounts) -> None:
        """Begin the background tasks, which need the accounts; `run` starts those that get no thread now."""
        self.accounts = accounts
        self.housekeeping = Housekeeping(self.storage, accounts, self.log)
        watch = Watch(accounts, lambda: [connection for connection, _ in self._running()], self.log)
        self._unstarted = [("watching the accounts", watch.start), ("housekeeping", self.housekeeping.start)]
        self._start_threads()

    def _start_threads(self) -> float | None:
        """Start what does not run yet; the seconds until another try, None when all of it runs.

        Without the watch, the account of a connection is looked at before each request all the same.
        """
        try:
            while self._unstarted:
                name, begin = self._unstarted[0]
                begin()
                del self._unstarted[0]
                if self._is_late:
                    self.log.info("%s runs now", name)
        except NoThread as problem:
            if not self._is_late:
                self.log.error("no thread yet for %s, tried again every second: %s", name, problem.cause)
            self._is_late = True
            return _THREAD_PAUSE
        return None

    def catch_signals(self) -> None:
        """From now on SIGINT and SIGTERM stop the accepting; a second one does not wait for anybody."""
        self._wake_out.setblocking(False)

        def stop(number: int, frame: FrameType | None) -> None:
            # No Event is set here: its lock may be held by what this interrupts, an earlier signal included.
            self._signals += 1
            if self._signals > 1:
                self._cut_off()
            with contextlib.suppress(BlockingIOError):
                self._wake_out.send(b"x")

        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def run(self, listeners: list[socket.socket]) -> int:
        """Accept until a signal, then let transfers end. The exit status."""
        with selectors.DefaultSelector() as selector:
            for listener in (*listeners, self._wake_in):
                selector.register(listener, selectors.EVENT_READ)
            while not self._signals:
                try:
                    for key, _ in selector.select(self._start_threads() or _TELL_PAUSE):
                        if key.fileobj is not self._wake_in:
                            self._accept(key.fileobj)  # type: ignore[arg-type]
                    self.strangers.tell()
                except Exception as problem:  # whatever it is, the next connection is accepted
                    self._cant_accept(problem)
        self.stopping.set()
        for listener in listeners:
            self._accept_waiting(listener)
            listener.close()
        self._finish()
        return 0

    def _cant_accept(self, problem: Exception) -> None:
        """Say why, and let connections end before the next try."""
        if isinstance(problem, OSError | MemoryError):  # out of descriptors or memory
            self._often.error("can't accept a connection: %s", reason_of(problem))
        elif NoThread.is_why(problem):
            self._often.error("can't start a thread for a connection")
        else:
            self.log.exception("a bug: a connection could not be accepted")
        time.sleep(_ACCEPT_PAUSE)

    def _accept(self, listener: socket.socket) -> None:
        """Let a thread serve the next connection. What goes wrong closes that connection, and is raised."""
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            self._numbers += 1
            source = address[0]
            connection = Connection(self, sock, source, self._numbers)
            ticket = self._admission.enter(origin_of(source), connection.put_out)
            if ticket is None:
                self._turn_away(sock, source)
                undo.pop_all()
                return
            undo.callback(ticket.leave)
            connection.ticket = ticket
            thread = threading.Thread(target=connection.run, name=f"connection-{self._numbers}", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            undo.callback(self.ended, connection)
            thread.start()
            undo.pop_all()

    def _accept_waiting(self, listener: socket.socket) -> None:
        """Take the connections that were made already: closed with the listener, they would look like a fault."""
        before = -1
        while before != self._numbers:
            before = self._numbers
            try:
                self._accept(listener)
            except Exception as problem:  # the transfers under way have their grace period all the same
                self._cant_accept(problem)
                break

    def _turn_away(self, sock: socket.socket, source: str) -> None:
        """Say "busy", without letting anybody wait for it."""
        if self.strangers.may(NO_LOGIN, shown_origin(source)):
            self.log.warning("busy: turned away a connection from %s", source)
        if not self._closers.acquire(blocking=False):
            sock.close()
            return

        def close() -> None:
            try:
                with contextlib.suppress(OSError):
                    sock.settimeout(1)
                    sock.sendall(busy_frame())
                close_gently(sock)
            finally:
                self._closers.release()

        try:
            threading.Thread(target=close, name="turning-away", daemon=True).start()
        except BaseException:
            self._closers.release()
            raise

    def ended(self, connection: Connection) -> None:
        """A connection's thread is about to end."""
        with self._lock:
            self._connections.pop(connection, None)

    def _running(self) -> list[tuple[Connection, threading.Thread]]:
        with self._lock:
            return list(self._connections.items())

    def _cut_off(self) -> None:
        for connection in list(self._connections):  # no lock: this may run in a signal handler
            connection.cut_off()

    def _finish(self) -> None:
        """Wait for the transfers under way, as long as the grace period allows; then cut them off."""
        running = self._running()
        self.log.info("stopping; %s", counted(len(running), "connection", ""))
        now = time.monotonic()
        deadline = now + self.settings.grace
        for connection, _ in running:
            connection.put_out_if_silent(min(now + _SILENT_SECONDS, deadline))
        for _, thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._cut_off()
        deadline = time.monotonic() + _LAST_SECONDS
        for _, thread in self._running():
            thread.join(max(0.0, deadline - time.monotonic()))
        self.engine.close()
        if self.housekeeping.stop(_STOP_SECONDS) and not self._running():
            self.storage.ledgers.close()
        self._often.tell()
        self.strangers.tell(at_once=True)
        self.log.info("stopped")


if __name__ == "__main__":
    take_names_as_utf8()
    sys.exit(main())
