"""The login of one connection, at the server: frames in and out, the account, the charge, and the log lines about it.

Rules: the client never learns why a login failed, neither in words nor by what the connection does; the log does. The
charge comes before anything is computed from the account, and success gives it back. Lines that anybody can cause, as
often as they like, are limited. This module knows no message that follows a login.
"""

import contextlib
import logging
from typing import NamedTuple

from sft.accounts.format import Account
from sft.common.errors import ConnectionTrouble, IntegrityError, LoginRefused, Refused
from sft.common.log_events import AUDIT, LogEvent
from sft.common.log_limits import NO_LOGIN, REFUSED_LOGINS, LineKind
from sft.server.admission import Ticket
from sft.server.origin import shown_origin
from sft.server.shared import Shared
from sft.server.throttle import Charge
from sft.wire.handshake import Candidate, ServerHandshake, SessionKeys, unavailable_frame
from sft.wire.protocol import SERVER_SHARE_SECONDS
from sft.wire.sockets import Link

Log = logging.LoggerAdapter[logging.Logger]


class LoggedIn(NamedTuple):
    """A login that succeeded: the account as it was then, and the keys of the session."""

    account: Account
    keys: SessionKeys


class Login:
    """One login. Call `run` once."""

    def __init__(
        self, shared: Shared, link: Link, ticket: Ticket, source: str, log: Log, is_check: bool = False
    ) -> None:
        """`is_check`: a proxy's own connection, which may end without a word and without a line in the log."""
        self._shared, self._link, self._ticket, self._source, self._log = shared, link, ticket, source, log
        self._is_check = is_check
        self._handshake = ServerHandshake(self._find, self._charge_for, shared.accounts.profile)
        self._account: Account | None = None
        self._charge: Charge | None = None
        self.has_heard = False  # the client's first frame has arrived

    def run(self) -> LoggedIn | None:
        """The account and keys; None when the login failed, which is in the log then. The link stays open."""
        try:
            return self._exchange()
        except LoginRefused:
            self._log_refused()
        except Refused as problem:  # the accounts can't be looked at: the same for every name
            self._log_none(logging.ERROR, problem.cause)
            with contextlib.suppress(ConnectionTrouble):
                self._link.send(unavailable_frame())
        except (ConnectionTrouble, IntegrityError) as problem:
            if self._charge is not None and not self._link.was_cut:
                # A client learns from our proof that its password is wrong, and says nothing more.
                self._log_refused()
            elif self.has_heard or not self._is_check:
                self._log_none(logging.WARNING, problem.cause, self._shown_name())
        return None

    def _exchange(self) -> LoggedIn | None:
        hello = self._link.receive()
        self.has_heard = True
        answer, go_on = self._handshake.hello(hello)
        self._ticket.progress()
        self._link.send(answer)
        if not go_on:
            self._shared.activity.login("none")
            line = LogEvent("login", "login refused: no common version", outcome="none", reason="no common version")
            self._log_stranger(NO_LOGIN, logging.WARNING, line)
            return None
        self._link.send(self._handshake.respond(self._link.receive(SERVER_SHARE_SECONDS)))
        self._ticket.progress()
        keys = self._handshake.finish(self._link.receive())
        if self._account is None or self._charge is None:
            raise RuntimeError("logged in without an account or a charge")
        self._charge.give_back()
        return LoggedIn(self._account, keys)

    def _find(self, username: bytes) -> Candidate:
        accounts = self._shared.accounts
        account = self._account = accounts.find(username)
        registration = accounts.dummy if account is None else account.registration
        return Candidate(account is not None, accounts.salt(username), registration)

    def _charge_for(self, username: bytes) -> bool:
        self._charge = self._shared.throttle.charge(username, self._source)
        return self._charge is not None

    def _log_refused(self) -> None:
        """In a form that programs look for (deploy/fail2ban): the address first, which no name can imitate."""
        self._shared.activity.login("throttled" if self._charge is None else "refused")
        reason = "too many attempts" if self._charge is None else "wrong password or unknown user"
        text = f"login{self._shown_name()} refused: {reason}"
        line = LogEvent("login", text, name=self._name(), outcome="refused", reason=reason)
        self._log_stranger(REFUSED_LOGINS, logging.WARNING, line)

    def _log_none(self, level: int, reason: str, name: str = "") -> None:
        """The connection ended before a password was tried."""
        self._shared.activity.login("none")
        line = LogEvent("login", f"no login{name}: {reason}", name=self._name(), outcome="none", reason=reason)
        self._log_stranger(NO_LOGIN, level, line)

    def _log_stranger(self, kind: LineKind, level: int, line: LogEvent) -> None:
        if self._shared.strangers.may(kind, shown_origin(self._source)):
            self._log.log(level, line, extra=AUDIT)

    def _shown_name(self) -> str:
        """` as alice`; nothing while the name is not known."""
        name = self._name()
        return f" as {name}" if name else ""

    def _name(self) -> str | None:
        name = self._handshake.username
        return name.decode("utf-8", "backslashreplace") if name else None
