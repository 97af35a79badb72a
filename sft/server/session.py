"""One connection at the server, from its first byte to its last: the login, then its one job, then a gentle end.

Rules: the account is looked at again after the login and before each request, and by the server's watch all the time;
when it was changed or removed, or its folder has got its first quota or lost its last one, the connection ends.
Whatever happens stays within this connection: what is unexpected goes to the log. A connection without a channel is in
its login; from then on its channel decides what still happens.
"""

import contextlib
import logging
import math
import time

from sft.accounts.format import Account
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    Ended,
    IntegrityError,
    NoThread,
    ProtocolViolation,
    Refused,
    TransferError,
)
from sft.common.log_events import AUDIT, LogEvent
from sft.common.log_limits import NO_LOGIN, LineLimit, Sparing
from sft.common.sizes import counted
from sft.disk.amounts import Quota
from sft.server.activity import ActiveConnection
from sft.server.admission import Ticket
from sft.server.connection_log import ConnectionLog, GiveLog, ReceiveLog
from sft.server.deliveries import Deliveries
from sft.server.login import Log, LoggedIn, Login
from sft.server.origin import origin_of, shown_origin
from sft.server.requests import Requests
from sft.server.shared import Shared
from sft.transfer.events import IDLE, ReceiveEvent, SendEvent
from sft.wire.channel import Channel
from sft.wire.handshake import busy_frame
from sft.wire.sockets import Link

_LAST_WORD_SECONDS = 0.4  # for the reason to reach the client of a changed account, before its socket is cut
# The account is not looked at again within this time: in a run of small files, not each then costs a look.
_ACCOUNT_SECONDS = 0.002


class Connection:
    """One client, in a thread of its own."""

    def __init__(
        self, shared: Shared, link: Link, ticket: Ticket, source: str, number: int, is_proxied: bool = False
    ) -> None:
        """`is_proxied`: it comes from a trusted proxy, which names its client first."""
        self._shared, self._link, self._ticket, self._source, self._number = shared, link, ticket, source, number
        self._log: Log = ConnectionLog(shared.log, number, "", source)
        self._is_proxied, self._is_check = is_proxied, False
        self._login: Login | None = None  # once the client's address is known
        self._account: Account | None = None  # as it was at the login
        self._is_counted: bool | None = None  # whether what it puts into its folder is counted
        self._channel: Channel | None = None  # after the login
        self._looked_at = -math.inf  # when the account was last looked at
        self._expelled_at: float | None = None

    def run(self) -> None:
        """Log the client in, do what it asks for, and close the link. Never raises."""
        try:
            self._log.debug("connected")
            logged_in = self._log_in() if self._find_source() else None
            if logged_in is None:
                self._link.close(gently=True)
            else:
                self._serve(logged_in)
        except Exception as problem:
            self._log_unexpected(problem)
            self._link.cut()  # a thread of a channel that did not come to be may still read from it
            self._link.close()

    # --- called from other threads ---

    def cut_off_if_silent(self) -> None:
        """End it if its client has not sent the first frame of a login yet."""
        if self._login is None or not self._login.has_heard:
            self._link.cut()

    def cut_off(self) -> None:
        """End it now, whatever it does, because the server stops."""
        if self._channel is None:
            self._link.cut()
        else:
            self._channel.cut(Ended(Code.STOPPING))  # what has arrived may take long

    @property
    def account(self) -> Account | None:
        """The account that the client has logged in to; None before."""
        return None if self._channel is None else self._account

    @property
    def is_counted(self) -> bool | None:
        """Whether it counts what it puts into its folder; None before that is decided."""
        return self._is_counted

    def expel(self, code: Code) -> None:
        """The account was changed or removed, or can't be looked at: end it. Called again until it has ended."""
        if self._channel is None:
            self._link.cut()
        elif self._expelled_at is None:
            self._expelled_at = time.monotonic()
            self._channel.cut(Ended(code))
        elif time.monotonic() - self._expelled_at > _LAST_WORD_SECONDS:
            self._channel.fail(Ended(code))

    # --- its own thread ---

    def _find_source(self) -> bool:
        """Let the proxy in front name the client's address, if there is one; whether the connection goes on."""
        if not self._is_proxied:
            return True
        try:
            client = self._link.receive_proxy_header()
        except ConnectionTrouble:  # it looks whether somebody listens
            return False
        except ProtocolViolation as problem:
            self._shared.activity.login("none")
            if self._shared.strangers.may(NO_LOGIN, shown_origin(self._source)):
                line = LogEvent("login", f"no login: {problem.cause}", outcome="none", reason=problem.cause)
                self._log.warning(line, extra=AUDIT)
            return False
        if client is None:
            self._is_check = True
            return True
        self._source = client
        self._log = ConnectionLog(self._shared.log, self._number, "", client)
        if self._ticket.comes_from(origin_of(client)):
            return True
        self._shared.activity.login("busy")
        if self._shared.strangers.may(NO_LOGIN, shown_origin(client)):
            self._log.warning(LogEvent("busy", "busy: turned away"), extra=AUDIT)
        with contextlib.suppress(ConnectionTrouble):
            self._link.send(busy_frame())
        return False

    def _log_in(self) -> LoggedIn | None:
        self._login = Login(self._shared, self._link, self._ticket, self._source, self._log, self._is_check)
        return self._login.run()

    def _serve(self, logged_in: LoggedIn) -> None:
        account, keys = self._account, _ = logged_in
        self._log, began = ConnectionLog(self._shared.log, self._number, account.name, self._source), time.monotonic()
        channel = self._channel = Channel(self._link.sock, keys.s2c, keys.c2s, self._shared.engine)
        active = self._shared.activity.begin(self._number, account.name, self._source, channel)
        code: Code | None = None
        reason: str | None = None
        try:
            self._do_job(channel, logged_in, active)
        except TransferError as problem:
            code, level, line = ending_of(problem)
            reason = problem.cause
            self._log.log(level, LogEvent("ended", line, outcome=code, reason=problem.cause), extra=AUDIT)
        except Exception as problem:
            code, reason = Code.INTERNAL, Code.INTERNAL.cause
            self._log_unexpected(problem)
        channel.close(code)
        active.end()
        size = channel.bytes_received
        counts = {"files_received": active.files_received, "files_sent": active.files_sent}
        counts |= {"bytes_received": size, "bytes_sent": channel.bytes_sent}
        seconds = round(time.monotonic() - began, 3)
        text = f"done, {counted(size, 'byte', '')} received"
        self._log.info(LogEvent("done", text, **counts, seconds=seconds, reason=reason))

    def _do_job(self, channel: Channel, logged_in: LoggedIn, active: ActiveConnection) -> None:
        """What the client asks for, until its BYE. Raises what ends the connection before."""
        shared, (account, keys) = self._shared, logged_in
        if shared.stopping.is_set():
            raise Ended(Code.STOPPING)
        self._check_account(account)  # from here on the server's watch does that, too
        if not self._ticket.logged_in(account.name, account.connections or shared.max_connections_per_user):
            shared.activity.login("busy")
            raise Ended(Code.FULL)
        shared.activity.login("accepted")
        self._log.info(LogEvent("login", "logged in", outcome="accepted"), extra=AUDIT)
        quota = Quota(account.quota, account.quota_files)
        is_counted = self._is_counted = account.home in shared.accounts.counted_folders()
        is_private = "get" not in account.rights
        folder = shared.storage.user(account.home, is_private, quota, account.largest, is_counted, account.name)
        sparing = Sparing(self._log, shared.line_limits.setdefault(account.name, LineLimit()))
        received, given = ReceiveLog(self._log, sparing), GiveLog(self._log.info, sparing.info)
        deliveries = Deliveries(shared.hooks, account, self._source, shared.storage.path)
        try:
            limiter = shared.limiters.of(account.name, account.rate).for_connection(lambda: channel.ended)
            share = shared.places.of(account.name)

            def admit(right: str) -> None:
                self._admit(account, right)

            def on_receive_event(event: ReceiveEvent) -> None:
                active.on_receive_event(event)
                received.on_event(event)
                deliveries.on_event(event)

            def on_send_event(event: SendEvent) -> None:
                active.on_send_event(event)
                given.on_event(event)

            requests = Requests(
                channel, keys, folder, admit, self._log.info, limiter, sparing.info, share, shared.compress
            )
            requests.run(on_receive_event, on_send_event)
        finally:
            folder.close()
            if not is_counted:
                self._count_afterwards(account)
            received.on_event(IDLE)
            deliveries.on_event(IDLE)
            sparing.tell()

    def _count_afterwards(self, account: Account) -> None:
        """If its folder has got a quota meanwhile, those that count since then have missed what this one stored."""
        if account.home in self._shared.accounts.counted_folders():
            try:
                self._shared.storage.ledgers.recount(account.home)
            except Refused as problem:
                self._log.error("counting what %s has failed: %s", account.home, problem.why or problem.cause)

    def _admit(self, account: Account, right: str) -> None:
        """Asked before each PUT, GET and LIST. Raises Refused for one request, Ended for the connection."""
        self._check_account(account)
        if self._shared.stopping.is_set():
            raise Refused(Code.STOPPING)
        if right not in account.rights:
            raise Refused(Code.DENIED)

    def _check_account(self, account: Account) -> None:
        """Raises Ended unless the account is still as it was at the login, Refused when it can't be looked at."""
        now = time.monotonic()
        if now - self._looked_at > _ACCOUNT_SECONDS:
            found = self._shared.accounts.find(account.name.encode())
            has_changed = found is not account and found != account
            is_counted = account.home in self._shared.accounts.counted_folders()
            if has_changed or self._is_counted not in (None, is_counted):
                raise Ended(Code.ACCOUNT)
            self._looked_at = now

    def _log_unexpected(self, problem: Exception) -> None:
        if self._channel is None and not self._shared.strangers.may(NO_LOGIN, shown_origin(self._source)):
            return  # whatever it was, a stranger may repeat it without end
        if NoThread.is_why(problem):
            self._log.error("ended: %s", NoThread().cause)
        else:
            self._log.exception("a bug: this connection ended with an unexpected error")


def ending_of(problem: TransferError) -> tuple[Code | None, int, str]:
    """How a connection ends by an error: the code for the client (None: it gets none), the log line and its level."""
    if isinstance(problem, Ended):
        return problem.code, logging.WARNING, f"ended: {problem.cause}"
    if isinstance(problem, ProtocolViolation):
        return Code.PROTOCOL, logging.ERROR, f"ended: {problem.cause}"
    if isinstance(problem, IntegrityError):
        return Code.INTEGRITY, logging.ERROR, f"ended: {problem.cause}"
    if not isinstance(problem, Refused):
        return None, logging.WARNING, f"ended: {problem.cause}"
    # Not of one file: the accounts or the user's folder can't be used.
    if problem.code is Code.UNAVAILABLE:
        return Code.UNAVAILABLE, logging.ERROR, f"ended: {problem.cause}"
    code = Code.STORAGE if problem.code in (Code.LINK, Code.NOT_FOLDER) else Code.UNAVAILABLE
    return code, logging.ERROR, f"can't open the user's folder: {problem.cause}"
