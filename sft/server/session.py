"""One client at the server, from its first byte to its last: the login, then its one job, then a gentle end.

Rules: nobody is told why a login failed, neither in words nor by what the connection does. The account is looked at
again after the login and before each request, and by the server's watch all the time; when it was changed or removed,
the connection ends. Whatever happens stays within this connection: what surprises us goes to the log.
"""

import contextlib
import logging
import math
import threading
import time
from typing import Protocol

from sft.accounts.store import Account, Accounts
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    IntegrityError,
    LoginRefused,
    NoThread,
    ProtocolViolation,
    Refused,
    TransferError,
)
from sft.common.log_limits import NO_LOGIN, REFUSED_LOGINS, Kind, LineLimits, SourceLimits, Sparing
from sft.common.rate_limit import Paces
from sft.common.sizes import announced, counted
from sft.console.report import briefly, show_briefly, show_path
from sft.disk.amounts import Quota
from sft.disk.storage import Storage
from sft.server.admission import Ticket
from sft.server.origin import shown_origin
from sft.server.requests import Requests
from sft.server.throttle import Charge, Throttle
from sft.transfer.places import Places
from sft.wire.channel import Channel
from sft.wire.handshake import Known, ServerHandshake, SessionKeys, unavailable_frame
from sft.wire.messages import Misnamed, Omitted, Put, Receipt
from sft.wire.protocol import SERVER_FRAME_SECONDS, SERVER_LOGIN_SECONDS, SERVER_SHARE_SECONDS
from sft.wire.sockets import Link, Socket, close_gently, cut
from sft.wire.workers import Engine

_LAST_WORD_SECONDS = 0.4  # for the reason to reach the client of a changed account, before its socket is cut
_ADMITTED_SECONDS = 0.002  # between two looks at the accounts file: of a run of small files not each costs one

_Log = logging.LoggerAdapter[logging.Logger]


class Shared(Protocol):
    """What all connections of a server have in common."""

    accounts: Accounts
    storage: Storage
    log: logging.Logger
    throttle: Throttle
    engine: Engine
    paces: Paces
    line_limits: LineLimits
    strangers: SourceLimits
    places: Places
    max_connections_per_user: int
    stopping: threading.Event

    def ended(self, connection: "Connection") -> None:
        """That connection's thread is about to end."""


class Connection:
    """One client, from its first byte to its last, in a thread of its own."""

    ticket: Ticket

    def __init__(self, server: Shared, sock: Socket, source: str, number: int) -> None:
        self._server, self._sock, self._source = server, sock, source
        self._log: _Log = _Prefixed(server.log, {"number": number, "who": source})
        self._channel: Channel | None = None
        self._charge: Charge | None = None
        self._account: Account | None = None
        self._admitted_at = -math.inf  # when the account was last looked at
        self._expelled_at: float | None = None
        self._is_put_out = False  # by this end
        self._has_spoken = threading.Event()  # a first frame has come, or will not come any more

    def run(self) -> None:
        """Log the client in and take its files. Never raises."""
        try:
            self._log.debug("connected")
            keys = self._log_in()
            if keys is not None:
                self._take_files(keys)
        except Exception as problem:
            self._surprised(problem)
            cut(self._sock)  # a thread of a channel that did not come to be may still read from it
            self._sock.close()
        finally:
            self._has_spoken.set()
            self.ticket.leave()
            self._server.ended(self)

    # --- called from other threads ---

    def put_out(self) -> None:
        """End a login that makes no progress."""
        self._is_put_out = True
        cut(self._sock)

    def put_out_if_silent(self, until: float) -> None:
        """The server stops: end this unless the first frame of its login comes in time; what has begun goes on."""
        if not self._has_spoken.wait(max(0.0, until - time.monotonic())):
            self.put_out()

    def cut_off(self) -> None:
        """End it now, whatever it does."""
        channel = self._channel
        if channel is None:
            self.put_out()
        else:
            channel.stop(Ended(Code.STOPPING))

    @property
    def account(self) -> Account | None:
        """The account that the client has logged in to; None before."""
        return None if self._channel is None else self._account

    def expel(self, code: Code) -> None:
        """The account was changed or removed, or nobody can tell: end it. Called again until it has ended."""
        channel = self._channel
        if channel is None:
            self.put_out()
        elif self._expelled_at is None:
            self._expelled_at = time.monotonic()
            channel.cut(Ended(code))
        elif time.monotonic() - self._expelled_at > _LAST_WORD_SECONDS:
            channel.fail(Ended(code))

    # --- its own thread ---

    def _log_in(self) -> SessionKeys | None:
        """The keys; None when the client is not let in, and the socket is closed then."""
        link = Link(self._sock, time.monotonic() + SERVER_LOGIN_SECONDS, SERVER_FRAME_SECONDS)
        handshake = ServerHandshake(self._find, self._charge_for, self._server.accounts.profile)
        try:
            hello = link.receive()
            self._has_spoken.set()
            answer, go_on = handshake.hello(hello)
            self.ticket.progress()
            link.send(answer)
            if go_on:
                link.send(handshake.respond(link.receive(SERVER_SHARE_SECONDS)))
                self.ticket.progress()
                keys = handshake.finish(link.receive())
                if self._charge is not None:
                    self._server.throttle.refund(self._charge)
                return keys
            self._log_stranger(NO_LOGIN, logging.WARNING, "login refused: no common version")
        except LoginRefused:
            self._log_refused(handshake.username)
        except Refused as problem:  # the accounts can't be looked at: the same for every name
            self._log_stranger(NO_LOGIN, logging.ERROR, f"no login: {problem.cause}")
            with contextlib.suppress(ConnectionTrouble):
                link.send(unavailable_frame())
        except (ConnectionTrouble, IntegrityError) as problem:
            # Who has seen by our proof that the password is wrong has nothing more to say: most likely it was that.
            if self._charge is not None and not self._is_put_out:
                self._log_refused(handshake.username)
            else:
                what = f"no login{_shown_as(handshake.username)}: {problem.cause}"
                self._log_stranger(NO_LOGIN, logging.WARNING, what)
        close_gently(self._sock)
        return None

    def _log_refused(self, username: bytes) -> None:
        """In a form that programs look for (deploy/fail2ban): the address first, which no name can imitate."""
        reason = "too many attempts" if self._charge is None else "wrong password or unknown user"
        self._log_stranger(REFUSED_LOGINS, logging.WARNING, f"login{_shown_as(username)} refused: {reason}")

    def _log_stranger(self, kind: Kind, level: int, line: str) -> None:
        """What anybody can cause, as often as they like."""
        if self._server.strangers.may(kind, shown_origin(self._source)):
            self._log.log(level, "%s", line)

    def _find(self, username: bytes) -> Known:
        accounts = self._server.accounts
        account = self._account = accounts.find(username)
        registration = accounts.dummy if account is None else account.registration
        return Known(account is not None, accounts.salt(username), registration)

    def _charge_for(self, username: bytes) -> bool:
        self._charge = self._server.throttle.charge(username, self._source)
        return self._charge is not None

    def _take_files(self, keys: SessionKeys) -> None:
        account = self._account
        if account is None:
            raise RuntimeError("logged in without an account")
        self._log.extra = {"number": self._log.extra["number"], "who": f"{account.name}@{self._source}"}  # type: ignore[index]
        channel = self._channel = Channel(self._sock, keys.s2c, keys.c2s, self._server.engine)
        code: Code | None = None
        try:
            if self._server.stopping.is_set():
                raise Ended(Code.STOPPING)
            self._check_account()  # from here on the server's watch sees to it
            most = account.connections or self._server.max_connections_per_user
            if not self.ticket.logged_in(account.name, most):
                raise Ended(Code.FULL)
            self._log.info("logged in")
            quota = Quota(account.quota, account.quota_files)
            folder = self._server.storage.user(account.name, "get" not in account.rights, quota, account.largest)
            sparing = Sparing(self._log, self._server.line_limits.of(account.name))
            try:
                pace = self._server.paces.of(account.name, account.rate).turn(lambda: channel.ended)
                share = self._server.places.of(account.name)
                requests = Requests(channel, keys, folder, self._admit, self._log.info, pace, sparing.info, share)
                requests.run(_Taking(self._log, sparing))
            finally:
                folder.close()
                sparing.tell()
        except Ended as problem:
            code = problem.code
            self._log.warning("ended: %s", problem.cause)
        except ProtocolViolation as problem:
            code = Code.PROTOCOL
            self._log.error("ended: %s", problem.cause)
        except IntegrityError as problem:
            code = Code.INTEGRITY
            self._log.error("ended: %s", problem.cause)
        except Refused as problem:  # not of one file: the user's folder, or the accounts, can't be used
            code = Code.STORAGE if problem.code in (Code.LINK, Code.NOT_FOLDER) else Code.UNAVAILABLE
            what = "ended" if problem.code is Code.UNAVAILABLE else "can't open the user's folder"
            self._log.error("%s: %s", what, problem.cause)
        except TransferError as problem:
            self._log.warning("ended: %s", problem.cause)
        except Exception as problem:
            code = Code.INTERNAL
            self._surprised(problem)
        channel.close(code)
        self._log.info("done, %s received", counted(channel.bytes_received, "byte", ""))

    def _surprised(self, problem: Exception) -> None:
        if self._channel is None and not self._server.strangers.may(NO_LOGIN, shown_origin(self._source)):
            return  # whatever surprised us, a stranger may repeat it without end
        if NoThread.is_why(problem):
            self._log.error("ended: %s", NoThread().cause)
        else:
            self._log.exception("a bug: this connection ended with an unexpected error")

    def _check_account(self) -> Account:
        """The account, as it was at the login and still is. Raises Ended."""
        before = self._account
        now = time.monotonic()
        if before is None or now - self._admitted_at > _ADMITTED_SECONDS:
            found = None if before is None else self._server.accounts.find(before.name.encode())
            if before is None or (found is not before and found != before):
                raise Ended(Code.ACCOUNT)
            self._admitted_at = now
        return before

    def _admit(self, right: str) -> None:
        """Asked before each PUT, GET and LIST: is the account as it was at the login, and has it that right?"""
        before = self._check_account()
        if self._server.stopping.is_set():
            raise Refused(Code.STOPPING)
        if right not in before.rights:
            raise Refused(Code.DENIED)


def _shown_as(username: bytes) -> str:
    """` as alice`; nothing while the name is not known."""
    return f" as {username.decode('utf-8', 'backslashreplace')}" if username else ""


class _Taking:
    """What becomes of what a client sends, for the log."""

    def __init__(self, log: _Log, sparing: Sparing) -> None:
        """`sparing`: for what a client can cause at will, without storing anything."""
        self._own_log, self._own_sparing = log, sparing
        self._is_verbose = log.isEnabledFor(logging.DEBUG)
        self._stored: list[str] = []  # lines for the log; a group's are written together

    @property
    def _log(self) -> _Log:
        self.pause()  # lines stay in the order of what happened
        return self._own_log

    @property
    def _sparing(self) -> Sparing:
        self.pause()
        return self._own_sparing

    def pause(self) -> None:
        if self._stored:
            lines, self._stored = self._stored, []
            self._own_log.info(lines)

    def taking(self, put: Put, size: int | None) -> None:
        if self._is_verbose:
            self._own_log.debug("taking %s, %s", show_path(put.path), announced(size))

    def resumed(self, put: Put, offset: int) -> None:
        self._sparing.info("resumed %s from byte %d on", show_briefly(put.path), offset)

    def arrived(self, put: Put, count: int) -> None:
        pass

    def stored(self, put: Put, receipt: Receipt) -> None:
        if receipt.sha256 is None:  # a folder, or skipped
            self._sparing.info("%s %s", receipt.outcome, show_briefly(receipt.path))
            return
        sha256, path = receipt.sha256.hex(), show_path(receipt.path)
        self._stored.append(f"{receipt.outcome} {path}, {counted(receipt.size, 'byte', '')}, SHA-256 {sha256}")

    def refused(self, put: Put | Misnamed, problem: Refused) -> None:
        name = briefly(put.shown) if isinstance(put, Misnamed) else show_briefly(put.path)
        level = logging.ERROR if problem.code in (Code.STORAGE, Code.INTERNAL) else logging.WARNING
        self._sparing.log(level, "refused: %s: %s", name, problem.cause)

    def withdrawn(self, put: Put, code: Code | None) -> None:
        why = "" if code is None else f" ({code})"
        self._sparing.info("withdrawn by the sender%s: %s", why, show_briefly(put.path))

    def cut_off(self, put: Put, size: int, kept: bool) -> None:
        what = "kept for another try" if kept else "nothing kept"
        self._sparing.warning("cut off: %s, %s, %s", show_briefly(put.path), counted(size, "byte", ""), what)

    def time_lost(self, path: tuple[str, ...]) -> None:
        self._sparing.info("the disk can't hold the time of %s", show_briefly(path))

    def not_given(self, id: int, problem: Refused) -> None:
        raise ProtocolViolation("a REFUSE from a client")

    def omitted(self, omitted: Omitted) -> None:
        raise ProtocolViolation("an OMITTED from a client")


class _Prefixed(_Log):
    """Puts the connection's number and who it is before each line."""

    def process(self, msg: object, kwargs: object) -> tuple[object, object]:  # type: ignore[override]
        extra = self.extra or {}
        head = f"#{extra['number']} {extra['who']}: "
        return [head + line for line in msg] if isinstance(msg, list) else f"{head}{msg}", kwargs
