"""The sending end: `python client.py SOURCE... TARGET`; and `--get`, `--list`.

Rules: everything that can be asked or refused without the network is, first; the password comes from the terminal, a
file, a descriptor or the environment, and never from the command line. A connection that breaks is made again, with
growing pauses, by a process that has logged in before; a refused login never is. Success (exit 0) means that for
everything that was named a receipt is here. Each error is one line.
"""

import _thread
import argparse
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import ClientSettings, Loaded, add_file_flags, add_flags, load
from errors import (
    Code,
    ConnectionTrouble,
    IntegrityError,
    LoginRefused,
    NoThread,
    PeerStopped,
    ProtocolViolation,
    Refused,
    TransferError,
    UsageError,
)
from report import INTERRUPTED, Reporter, ended, leave, no_log, note, open_log, open_receipts, say, warn

if TYPE_CHECKING:
    import logging
    import socket

    from transfer.plans import Fetching, Sending
    from transfer.receiver import Folder
    from wire.channel import Channel
    from wire.engine import Engine
    from wire.handshake import SessionKeys
    from wire.pace import Pace

_LOGIN_SECONDS = 30
_MEMORY = 64 << 20
_LONGEST_PAUSE = 30
_BUSY_PAUSE = 2.0
_MOMENT = 0.01  # seconds: Python has left the cleaning up by then
_BUSY_SECONDS = 45.0  # longer than a server takes to notice that a silent client is gone

_EXIT_CODES = """\
exit status:
  0    everything was delivered: a receipt is here for each file
  1    something named was not: refused, unreadable, disk full, name not allowed
  2    the command or a setting can't be used
  3    login refused
  4    can't connect, server busy, or connection lost for good
  5    what arrived is not what was sent; nothing of it was kept
  130  interrupted
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client.py",
        usage="client.py [options] SOURCE... TARGET\n       client.py --get [options] NAME... TARGET\n"
        "       client.py --list [options] [NAME]",
        description="Send files and folders to a receiver, fetch them, list them. A TARGET that ends in a slash, or\n"
        "more than one SOURCE, means: into this folder. Otherwise TARGET is the new name. `-` is\n"
        "standard input, with --get standard output. After an interruption the same command goes on\n"
        "where it was.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="SOURCE... TARGET", help=argparse.SUPPRESS)
    what = parser.add_argument_group("what to do").add_mutually_exclusive_group()
    what.add_argument("--get", action="store_true", help="fetch the NAMEs to TARGET here")
    what.add_argument("--list", action="store_true", help="list a folder there: size, time and name")
    how = parser.add_argument_group("how")
    how.add_argument("--follow", action="store_true", help="send what symbolic links lead to, instead of skipping them")
    how.add_argument("--preserve-mode", action="store_true", help="keep execute bits, too")
    how.add_argument("--receipts", metavar="FILE", help="append one JSON line for each delivered file to FILE")
    how.add_argument("--dry-run", action="store_true", help="say what would be sent, and where; connect to nobody")
    how.add_argument("--json", action="store_true", help="one JSON event on each line, for scripts")
    how.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    add_flags(parser.add_argument_group("settings (each also as SFT_... or in the settings file)"), ClientSettings)
    more = parser.add_argument_group("more")
    more.add_argument("--password-fd", metavar="N", help="read the password from the open descriptor N")
    add_file_flags(more)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the client; the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    return ended(lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    loaded = load(ClientSettings, vars(options), os.environ, options.config)
    if options.show_config:
        for line in loaded.lines():
            say(line)
        return 0
    if options.list and len(options.names) > 1:
        raise UsageError("--list takes one NAME at most", "See client.py --help")
    if not options.list and len(options.names) < 2:
        what = "NAME" if options.get else "SOURCE"
        raise UsageError(f"at least one {what} and a TARGET are needed", "See client.py --help")
    return _Run(loaded, options).run(options.names)


class _Run:
    """One run of the client: its one job, over as many connections as it takes."""

    def __init__(self, loaded: Loaded[ClientSettings], options: argparse.Namespace) -> None:
        self._settings, self._options = loaded.values, options
        self._log = self._open_log()
        receipts = None if options.receipts is None else open_receipts(Path(options.receipts))
        self._reporter = Reporter(self._log, options.quiet, options.json, receipts)
        self._user = self._password = ""
        self._logged_in = False
        self._scalars: dict[tuple[bytes, int], tuple[int, int]] = {}

    def _open_log(self) -> "logging.Logger":
        try:
            return open_log("sft.client", self._settings.client_log, self._settings.log_level)
        except UsageError as problem:
            warn(f"{problem.cause}; going on without a log")
            return no_log("sft.client")

    def run(self, names: list[str]) -> int:
        """Do what was asked for; the exit status."""
        try:
            if self._options.list:
                self._list(names[0] if names else "")
            elif self._options.get:
                self._get(names[:-1], names[-1])
            else:
                self._put(names[:-1], names[-1])
        except TransferError as problem:
            self._reporter.end()
            self._log.error("%s", problem)
            raise
        except KeyboardInterrupt:
            self._reporter.end()
            self._log.error("interrupted")
            if not self._logged_in:
                raise
            note("interrupted; the same command goes on where it was")
            return INTERRUPTED
        return self._reporter.status

    # --- the three jobs ---

    def _put(self, sources: list[str], target: str) -> None:
        from transfer.plans import Sending, is_regular, names_in_order

        follow, bits = self._options.follow, self._options.preserve_mode
        place = self._settings.client_log
        ours = (is_regular(path) for path in (place, *place.parent.glob(place.name + ".*")))
        logs = {identity for identity in ours if identity is not None}
        sending = Sending(self._reporter, self._settings.if_exists, follow, bits, logs)
        sending.plan(sources, target)
        if self._options.dry_run:
            for item in sending.left:
                say(f"would send: {item.name} as {'/'.join(item.target)}{'' if item.open else '/'}")
            return
        if not sending.left:
            return
        started = self._ready(sending.total)
        try:
            self._again_and_again(lambda channel, keys, pace: self._send_left(sending, channel, keys, pace))
            self._send_busy(sending)
        except (TransferError, KeyboardInterrupt):
            self._reporter.end()
            self._tell_left(list(names_in_order(sending.left)))
            raise
        self._done(f"delivered to {self._user}@{self._settings.host}", started)

    def _send_left(self, sending: "Sending", channel: "Channel", keys: "SessionKeys", pace: "Pace") -> None:
        from transfer.sender import Sender

        sending.busy.clear()
        sending.stopping = None
        try:
            Sender(channel, channel.messages(), keys.file_c2s, sending, pace).run(list(sending.left))
            if sending.stopping is not None:
                raise ConnectionTrouble(sending.stopping.cause, sending.stopping.remedy)
        except ConnectionTrouble as problem:
            if sending.pipe is not None and sending.pipe.begun:  # what was read of it is gone
                said_all = any(item.sha256 is not None for item in sending.left)
                visible = "it may be there, whole" if said_all else "nothing became visible"
                remedy = f"Start the whole command again; {visible}"
                raise ConnectionTrouble(problem.cause, remedy, final=True) from None
            raise

    def _send_busy(self, sending: "Sending") -> None:
        """Another transfer to a name may be an earlier one of ours, not missed by the server yet: wait for its end."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while sending.busy and time.monotonic() < deadline:
            self._reporter.note("another transfer to that name is under way: trying again")
            time.sleep(_BUSY_PAUSE)
            self._again_and_again(lambda channel, keys, pace: self._send_left(sending, channel, keys, pace))
        for item, problem in sending.busy.items():
            sending.left.pop(item, None)
            self._reporter.failed(item.name, problem)

    def _get(self, names: list[str], target: str) -> None:
        from disk.folders import allow_descriptors
        from disk.local import close_local, open_local
        from disk.storage import Rules
        from disk.stream import Stream
        from transfer.plans import Fetching

        if sys.platform == "win32":
            raise UsageError("this system can only send", "Fetch on Linux or macOS")
        fetching = Fetching(self._reporter, self._settings.if_exists, self._options.preserve_mode, names, target)
        if fetching.to_pipe:
            self._reporter.to_standard_error()
            if sys.stdout is None:
                raise UsageError("standard output is closed", "Name a file as TARGET")
            stream = Stream(sys.stdout.fileno())
            started = self._ready(0)
            try:
                self._again_and_again(
                    lambda channel, keys, pace: self._fetch(fetching, stream, channel, keys, pace),
                    once=lambda: stream.begun,
                )
            except (ConnectionTrouble, IntegrityError) as problem:
                if stream.begun:
                    raise IntegrityError(
                        f"what was written to standard output is not whole ({problem.cause})",
                        "Throw it away, try again",
                    ) from None
                raise
            if stream.begun and not stream.whole and not self._reporter.status:
                raise IntegrityError("what was written to standard output is not whole", "Throw it away, try again")
            return self._done("fetched", started)
        allow_descriptors()
        folder = open_local(fetching.base, Rules())
        try:
            started = self._ready(0)
            self._again_and_again(
                lambda channel, keys, pace: self._fetch(fetching, fetching.remembering(folder), channel, keys, pace)
            )
        finally:
            close_local(folder)
        self._done(f"fetched from {self._user}@{self._settings.host}", started)

    def _fetch(
        self, fetching: "Fetching", folder: "Folder", channel: "Channel", keys: "SessionKeys", pace: "Pace"
    ) -> None:
        from transfer.receiver import Receiver
        from wire.messages import Get

        for id, path in enumerate(fetching.wanted, 1):
            channel.post(Get(id, path, id < len(fetching.wanted)).encode())
        Receiver(
            channel,
            channel.messages(),
            keys.file_s2c,
            folder,
            fetching.place,
            fetching,
            pace,
        ).run()
        fetching.check_answered()

    def _list(self, name: str) -> None:
        self._credentials()
        self._listed: str | None = None
        self._again_and_again(lambda channel, keys, pace: self._list_on(name, channel))

    def _list_on(self, name: str, channel: "Channel") -> None:
        """List what comes behind the last name that was listed, over an earlier connection perhaps."""
        from transfer.plans import parts_of
        from wire.messages import Entries, ListFolder, Refuse

        path = parts_of(name)
        messages = (arrived[0] for arrived in channel.messages() if arrived is not None)
        asked = 0
        while True:
            asked += 1
            channel.post(ListFolder(asked, path, self._listed).encode())
            page = next(messages, None)
            if isinstance(page, Refuse) and page.id == asked:
                if page.code is Code.STOPPING:
                    raise PeerStopped(page.code)
                self._reporter.failed(name or "your folder", Refused(page.code))
                break
            if not isinstance(page, Entries) or page.id != asked or (page.more and not page.entries):
                raise ProtocolViolation("no answer to LIST")
            for entry in page.entries:
                if self._listed is not None and entry.name.encode() <= self._listed.encode():
                    raise ProtocolViolation("a listing that is out of its order")
                self._listed = entry.name
                self._reporter.listed(entry.name, entry.kind, entry.size, entry.mtime)
            if not page.more:
                break
        channel.say_bye()
        if next(messages, None) is not None:
            raise ProtocolViolation("a message behind a listing")

    # --- before and after ---

    def _ready(self, total: int | None) -> float:
        self._credentials()
        self._reporter.begin(total)
        return time.monotonic()

    def _done(self, where: str, started: float) -> None:
        self._reporter.end()
        self._reporter.summary(where, time.monotonic() - started)

    def _tell_left(self, names: list[str]) -> None:
        """After the end of a connection: what has no receipt."""
        if len(names) + self._reporter.delivered_count > 1:
            for name in names[:20]:
                note(f"not delivered: {name}")
            if len(names) > 20:
                note(f"not delivered: {len(names) - 20} more")

    def _credentials(self) -> None:
        """Username and password. They are asked for before connecting, because the login has a deadline."""
        from accounts.passwords import (
            ask_password,
            ask_username,
            read_password_fd,
            read_password_file,
            read_password_variable,
        )
        from wire.handshake import check_username

        self._user = self._settings.user or ask_username(_local_user())
        check_username(self._user)
        if self._options.password_fd is not None:
            if not self._options.password_fd.isdecimal():
                raise UsageError("--password-fd takes the number of an open descriptor", "Such as 3, with 3<FILE")
            self._password = read_password_fd(int(self._options.password_fd))
        elif self._settings.password_file is not None:
            if str(self._settings.password_file) == "-" and "-" in self._options.names[:-1]:
                raise UsageError("standard input can't be both the password and what is sent", "Use --password-fd")
            self._password = read_password_file(self._settings.password_file)
        elif (password := read_password_variable(os.environ)) is not None:
            self._password = password
        else:
            self._password = ask_password(f"Password of {self._user} on {self._settings.host}: ")

    # --- connections ---

    def _again_and_again(
        self,
        job: "Callable[[Channel, SessionKeys, Pace], None]",
        once: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do `job` over a connection, and over a new one when that breaks, unless `once` says that it is too late."""
        from wire.engine import Engine
        from wire.pace import Pace

        engine, pace = Engine(_MEMORY), Pace(self._settings.limit)
        tries = 0
        try:
            while True:
                before = self._reporter.progress_mark()
                try:
                    with self._connection(engine) as (channel, keys):
                        job(channel, keys, pace.turn(lambda: channel.ended))  # only used in `job`
                    return
                except RuntimeError as problem:
                    if NoThread.is_why(problem):
                        raise NoThread from None
                    raise
                except ConnectionTrouble as problem:
                    if self._reporter.progress_mark() > before:
                        tries = 0
                    tries += 1
                    if not self._worth_another(problem, tries) or once():
                        raise
                    pause = min(2 ** (tries - 1), _LONGEST_PAUSE)
                    self._reporter.note(
                        f"{problem.cause}: trying again in {pause} s ({tries} of {self._settings.retries})"
                    )
                    time.sleep(pause)
        finally:
            engine.close()

    def _worth_another(self, problem: ConnectionTrouble, tries: int) -> bool:
        if isinstance(problem, PeerStopped) and problem.code not in (Code.STOPPING, Code.FULL):
            return False
        return self._logged_in and tries <= self._settings.retries and not problem.final

    @contextlib.contextmanager
    def _connection(self, engine: "Engine") -> "Iterator[tuple[Channel, SessionKeys]]":
        """A channel, logged in; closed afterwards."""
        from crypto_utils import check_library
        from wire.channel import Channel
        from wire.link import connect, lost

        check_library()
        host, port = self._settings.host, self._settings.port
        self._log.info("connecting to %s port %d", host, port)
        with connect(host, port, self._settings.connect_timeout) as sock:
            try:
                self._log.info("connected to %s port %d", *sock.getpeername()[:2])
                keys = self._log_in(sock)
                self._log.info("authenticated as %s", self._user)
                self._logged_in = True
                channel = Channel(sock, keys.c2s, keys.s2c, engine)
            except OSError as problem:  # gone before a word was said
                raise lost(problem) from None
            try:
                yield channel, keys
            except KeyboardInterrupt:
                channel.fail(ConnectionTrouble("interrupted"))  # the user does not want to wait for a farewell
                raise
            except IntegrityError as problem:
                channel.close(Code.PROTOCOL if isinstance(problem, ProtocolViolation) else Code.INTEGRITY)
                raise
            finally:
                channel.close()

    def _log_in(self, sock: "socket.socket") -> "SessionKeys":
        from wire.handshake import ClientHandshake, check_username, password_scalars
        from wire.link import Link

        def scalars(salt: bytes, profile: int) -> tuple[int, int]:
            if (salt, profile) not in self._scalars:
                user = check_username(self._user)
                self._scalars[salt, profile] = password_scalars(self._password, user, salt, profile)
            return self._scalars[salt, profile]

        link = Link(sock, time.monotonic() + _LOGIN_SECONDS)
        handshake = ClientHandshake(self._user, scalars)
        try:
            link.send(handshake.hello())
            link.send(handshake.share(link.receive()))
            try:
                reply = link.receive()
            except ConnectionTrouble:
                raise ConnectionTrouble(
                    "the server closed the connection during the login: too many attempts, or the connection was lost",
                    "Wait a minute, then try again",
                ) from None
            confirm, keys = handshake.confirm(reply)
            link.send(confirm)
        except LoginRefused:
            self._log.error("authentication as %s failed", self._user)
            raise
        except ProtocolViolation:
            raise ConnectionTrouble(
                f"what answers at {self._settings.host} port {self._settings.port} is not this program's server",
                "Check --host and --port",
            ) from None
        return keys


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C while Python cleans up an object is lost there, with a traceback: let it come again, a moment later."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(_MOMENT, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def _local_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


if __name__ == "__main__":
    sys.unraisablehook = _interrupt_again
    # A few dozen small files make as many objects as Python by default searches for cycles, and none is in one.
    gc.set_threshold(20_000, 20, 50)
    try:
        status = main()
    except SystemExit as told:  # --help, or what can't be used
        status = int(told.code or 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said: now it would only be a traceback
    leave(status)
