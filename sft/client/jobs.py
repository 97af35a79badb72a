"""The client's jobs: sending, fetching, listing and changing, each over as many connections as it takes.

Rules: everything that can be asked or rejected without the network comes first, and before that nothing is loaded that
only the network needs. A connection that fails or breaks is made again by the rules of `sft/client/retries.py`; a
refused login never is. A job is done when a receipt is here for everything that was named. Passwords come from the
sources in `sft/accounts/passwords.py`. It knows no socket and opens no file but the log.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from crypto_utils import engine_name
from sft.client.asking import check_standard_input
from sft.client.refusals import refused_here
from sft.common import signals
from sft.common.background import BackgroundTask
from sft.common.errors import (
    ConnectionTrouble,
    IntegrityError,
    LoginRefused,
    Refused,
    TransferError,
    UsageError,
    threads_needed,
)
from sft.common.packages import INSTALL, check_installed
from sft.common.sizes import counted
from sft.common.version import version_line
from sft.console.command_line import PIPE
from sft.console.log import no_log, open_log
from sft.console.repeated import FEW
from sft.console.reporter import Reporter
from sft.console.screen import note, output_descriptor, warn
from sft.wire.compression import PACKAGE, is_installed, zstd_name
from sft.wire.protocol import VERSION

if TYPE_CHECKING:
    import argparse
    import logging

    from config import ClientSettings
    from sft.client.comparisons import Comparisons
    from sft.client.download import Download
    from sft.client.finishing import Finishing
    from sft.client.login import Credentials
    from sft.client.matching import Matching
    from sft.client.receipts_file import ReceiptsFile
    from sft.client.sending_plan import SendingPlan
    from sft.client.upload import Upload
    from sft.common.rate_limit import RateLimiter
    from sft.wire.channel import Channel
    from sft.wire.handshake import SessionKeys

_MEMORY = 64 << 20
_BUSY_PAUSE = 2.0
_NOT_WHOLE = "what was written to standard output is not whole"
_BUSY_SECONDS = 45.0  # longer than a server takes to notice that a silent client is gone


class Run:
    """One run of the client: its one job, over as many connections as it takes."""

    def __init__(self, settings: "ClientSettings", origins: Mapping[str, str], options: "argparse.Namespace") -> None:
        """`origins`: where each setting comes from. `options`: those of the command line that are not settings."""
        self._settings, self._origins, self._options = settings, origins, options
        self._log = self._open_log()
        self._log.info("%s", version_line("client.py", VERSION, f"{engine_name()}, {zstd_name()}"))
        self._reporter = Reporter(self._log, options.quiet, options.json, options.verbose)
        self._receipts: ReceiptsFile | None = None
        self._started = time.monotonic()
        self._where = ""  # to or from, once the job is done
        self._credentials: Credentials | None = None
        self._kept = "the same command goes on where it was"  # shown when the run is interrupted
        self._not_delivered: list[str] = []  # lines for an interruption

    def _open_log(self) -> "logging.Logger":
        place, level = self._settings.client_log, self._settings.log_level
        if place is None:
            return no_log("sft.client")
        try:
            is_ours = self._origins["client_log"] == "default"
            return open_log("sft.client", place, level, is_ours, self._warn)
        except UsageError as problem:
            self._warn(f"{problem.cause}; going on without a log")
            return no_log("sft.client")

    def _warn(self, line: str) -> None:
        if not self._options.quiet:
            warn(line)

    def run(self, names: list[str]) -> int:
        """Do what was asked for; the exit status. Raises TransferError, KeyboardInterrupt."""
        status = TransferError.exit_status
        try:
            self._do(names)
            self._reporter.end()
            status = self._reporter.status
        except TransferError as problem:
            self._reporter.end()
            self._log.error("%s", problem)
            problem.consequences += self._reporter.waiting.take()
            status = problem.exit_status
            raise
        except KeyboardInterrupt as stop:
            self._reporter.end()
            word, status = signals.ended_by(stop)
            self._log.error("%s", word)
            if self._credentials is None or not self._credentials.is_proven:
                raise
            note(f"{word}; {self._kept}", *self._not_delivered)
        finally:
            self._reporter.summary(self._where, time.monotonic() - self._started, status)
        return status

    def _do(self, names: list[str]) -> None:
        if self._options.get and names[-1] == PIPE:
            self._reporter.to_standard_error()
        check_installed("msgspec")  # it is loaded only once the login has begun
        if self._settings.compress == "on" and not is_installed():
            self._reporter.note(f"warning: nothing is compressed: {PACKAGE} is not installed. {INSTALL}")
        if self._options.receipts is not None and not self._options.dry_run:
            from sft.client.receipts_file import ReceiptsFile, check_apart

            check_apart(self._options.receipts, names[-1:] if self._options.get else names[:-1])
            self._receipts = ReceiptsFile(self._options.receipts)
            self._reporter.keep_receipts(self._receipts)
        options = self._options
        if options.remove and (matched := self._matched(names).found):
            self._question(matched)
        elif options.list or options.move or options.usage or (options.check and not options.get):
            self._question(names)
        elif options.get:
            self._get(names[:-1], names[-1])
        elif not options.remove:
            self._put(names[:-1], names[-1])

    # --- the jobs ---

    def _put(self, sources: list[str], target: str) -> None:
        from sft.client.uploads import prepare, take_up_waiting

        check_standard_input(self._settings, self._options)
        upload, finishing, plan = prepare(self._reporter, self._settings, self._options, self._receipts)
        upload.plan(sources, target)
        if upload.is_empty:
            return
        if plan is not None and finishing is not None:
            self._plan_put(upload, finishing, plan)
            return
        credentials = self._ask()
        looking = BackgroundTask("looking", upload.look_below)  # a folder may hold a million names

        def send() -> None:
            self._send(upload, credentials, looking)

        try:
            self._send_all(upload, send)
            if finishing is not None and finishing.prepare():
                self._again_and_again(credentials, lambda: None, lambda channel, *_: finishing.run(channel))
            if finishing is not None and take_up_waiting(upload, finishing, self._reporter):
                self._send_all(upload, send)
        except KeyboardInterrupt:
            upload.is_over = True
            if upload.pipe_is_spent:
                self._kept = "start the whole command again: what was read of standard input is gone"
            self._not_delivered = self._left_out(upload.names_left())
            raise
        except TransferError as problem:
            upload.is_over = finishing is not None  # nobody compares what is found from now on
            looking.wait()  # otherwise only some of what has not arrived would be named
            self._reporter.end()
            problem.consequences += self._left_out(upload.names_left())
            raise
        self._where = f"delivered to {credentials.user}@{credentials.host}"

    def _plan_put(self, upload: "Upload", finishing: "Finishing", plan: "SendingPlan") -> None:
        """Tell what sending would do."""
        from sft.client.uploads import compare

        self._kept = "nothing was changed"
        with compare(upload, finishing, plan) as read:
            self._again_and_again(self._ask(), lambda: None, lambda channel, *_: read(channel))

    def _send(self, upload: "Upload", credentials: "Credentials", looking: BackgroundTask) -> None:
        def load() -> None:
            import sft.transfer.sender  # noqa: F401

        def wait() -> None:
            looking.wait()
            self._reporter.begin(upload.total, upload.file_count)

        def job(channel: "Channel", keys: "SessionKeys", limiter: "RateLimiter") -> None:
            self._reporter.search(lambda: (upload.file_count, upload.total or 0))
            upload.send(channel, keys, limiter, self._settings.compress, wait)

        try:
            self._again_and_again(credentials, load, job)
        except ConnectionTrouble:
            if not credentials.is_proven or upload.left or not upload.to_send():
                raise
            # Every receipt is here; only the folders' times, which come last, may not be set.
            self._reporter.note("the connection was lost behind the last receipt: folders may have other times")

    def _send_all(self, upload: "Upload", send: Callable[[], None]) -> None:
        """Send, and try again what another transfer holds: an earlier one of ours that the server still waits for."""
        send()
        deadline = time.monotonic() + _BUSY_SECONDS
        while upload.busy and time.monotonic() < deadline:
            problem, *others = upload.busy.values()
            more = f" (and {counted(len(others), 'more file')})" if others else ""
            self._reporter.note(f"{problem.cause}{more}: trying again")
            time.sleep(_BUSY_PAUSE)
            send()
        for item, problem in upload.busy.items():
            upload.left.pop(item, None)
            self._reporter.failed(item.name, problem, within=item.within)

    def _get(self, names: list[str], target: str) -> None:
        from sft.client.comparisons import Comparisons
        from sft.client.download import Download
        from sft.disk.chosen import paths_below

        if sys.platform == "win32":
            raise UsageError("this system can only send", "Fetch on Linux or macOS")
        check_standard_input(self._settings, self._options)
        comparisons = Comparisons(self._reporter, self._options, self._settings.client_log)
        options, named = self._options, self._matched(names)
        if not named.found:
            return
        policy = "replace" if options.update else self._settings.if_exists
        modes, links, below = not options.no_modes, options.links, paths_below(options)
        download = Download(self._reporter, policy, modes, named.found, target, links, named.has_patterns, below)
        if options.dry_run or options.check:
            self._plan_get(download, comparisons)
        elif download.to.to_stdout:
            self._get_to_stdout(download)
        else:
            self._get_to_folder(download, comparisons)

    def _plan_get(self, download: "Download", comparisons: "Comparisons") -> None:
        self._kept = "nothing was changed"
        with comparisons.planned(download) as plan:
            self._again_and_again(self._ask(), lambda: None, lambda channel, *_: plan.read(channel))
            plan.end()

    def _load_receiver(self) -> None:
        import sft.transfer.receiver  # noqa: F401

        self._reporter.begin(0, 0)

    def _get_to_stdout(self, download: "Download") -> None:
        from sft.disk.stdout import StandardOutput

        stream, credentials = StandardOutput(output_descriptor()), self._ask()

        def job(channel: "Channel", keys: "SessionKeys", limiter: "RateLimiter") -> None:
            download.fetch(stream, channel, keys, self._settings.limit, self._settings.compress)

        try:
            self._again_and_again(credentials, self._load_receiver, job, once=lambda: stream.has_begun)
        except KeyboardInterrupt:
            self._kept = _NOT_WHOLE if stream.has_begun else "nothing was fetched"
            raise
        except (ConnectionTrouble, IntegrityError) as problem:
            if stream.has_begun:
                raise IntegrityError(f"{_NOT_WHOLE} ({problem.cause})", "Throw it away, try again") from None
            raise
        if stream.has_begun and not stream.is_whole and not self._reporter.status:
            raise IntegrityError(_NOT_WHOLE, "Throw it away, try again")
        if not download.reader_has_left:
            self._where = "fetched"

    def _get_to_folder(self, download: "Download", comparisons: "Comparisons") -> None:
        from sft.common.open_files import raise_limit_of_files
        from sft.disk.local import open_local
        from sft.disk.user_folder import Rules

        raise_limit_of_files()
        try:
            folder = open_local(download.to.base, Rules(), download.to.may_make_base)
        except Refused as problem:
            raise refused_here(problem, f"the folder {download.to.base}") from None
        if comparisons.are_needed:
            comparisons.begin(download, folder)

        def job(channel: "Channel", keys: "SessionKeys", limiter: "RateLimiter") -> None:
            remembering, settings = download.remembering(folder), self._settings
            download.fetch(remembering, channel, keys, settings.limit, settings.compress, folder.visible)

        try:
            credentials = self._ask()
            self._again_and_again(credentials, self._load_receiver, job)
            while not download.is_done or download.remove_extra():
                self._again_and_again(credentials, self._load_receiver, job)
        except TransferError as problem:
            self._reporter.end()
            problem.consequences += self._left_out(download.missing.names())
            raise
        finally:
            folder.close()
        self._where = f"fetched from {credentials.user}@{credentials.host}"

    def _question(self, names: list[str]) -> None:
        from sft.client.questions import question_job

        job = question_job(self._reporter, self._options, names, self._settings.client_log)
        self._kept = job.kept
        self._again_and_again(self._ask(), lambda: None, lambda channel, *_: job.run(channel))

    def _matched(self, names: list[str]) -> "Matching":
        from sft.client.matching import Matching

        matching = Matching(self._reporter, names, self._options.remove or self._options.links)
        if matching.has_patterns:
            self._again_and_again(self._ask(), lambda: None, lambda channel, *_: matching.run(channel))
        return matching

    # --- before and after ---

    def _left_out(self, names: list[str]) -> list[str]:
        """Lines about what has no receipt, when a connection has ended for good: a few names, and how many more."""
        if len(names) + self._reporter.delivered_count <= 1:
            return []
        few = names if self._options.verbose else names[:FEW]
        shown, more = [f"not delivered: {name}" for name in few], len(names) - len(few)
        return [*shown, f"not delivered: and {more:,} more (-v)"] if more else shown

    def _ask(self) -> "Credentials":
        """Username and password. They are asked for before connecting, because the login has a deadline."""
        from sft.client.asking import ask_credentials

        if self._credentials is not None:  # of an earlier part of this run
            return self._credentials
        self._credentials = ask_credentials(
            self._settings, self._options, lambda line: self._reporter.note(f"warning: {line}")
        )
        self._started = time.monotonic()
        self._reporter.waiting.hold()
        return self._credentials

    def _ask_again(self, credentials: "Credentials", refusal: LoginRefused, refusals: int) -> bool:
        """Whether there is another password to try."""
        from sft.client.asking import ask_again

        return ask_again(credentials, refusals, lambda: note(f"{refusal.cause}. Type it again"))

    # --- connections ---

    def _again_and_again(
        self,
        credentials: "Credentials",
        load: Callable[[], None],
        job: "Callable[[Channel, SessionKeys, RateLimiter], None]",
        once: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do `job` over a connection, and over a new one when that breaks, unless `once()` is true by then.

        `load` loads what it needs, while answers are waited for.
        """
        from sft.client.login import dialed
        from sft.client.retries import Again, Reached, after, reached_by
        from sft.common.rate_limit import RateLimiter
        from sft.wire.sockets import place_of
        from sft.wire.workers import Engine

        def is_slow() -> None:
            self._reporter.note(f"connecting to {place_of(credentials.host, credentials.port)} ...")

        engine, limiter = Engine(_MEMORY), RateLimiter(self._settings.limit)
        refusals, tries, reached, started = 0, 0, Reached.NOBODY, time.monotonic()
        try:
            while True:
                before = self._reporter.progress_mark()
                try:
                    seconds = self._settings.connect_timeout
                    call = dialed(credentials, seconds, engine, self._log, load, is_slow)
                    with threads_needed(), call as (channel, keys):
                        self._reporter.waiting.release()
                        try:
                            job(channel, keys, limiter.for_connection(lambda: channel.ended))  # only used in `job`
                        finally:
                            self._reporter.bytes_on_wire += channel.bytes_sent + channel.bytes_received
                    return
                except LoginRefused as refusal:
                    refusals += 1
                    self._reporter.pause()
                    if not self._ask_again(credentials, refusal, refusals):
                        raise
                    started = self._started = time.monotonic()
                except ConnectionTrouble as problem:
                    import random

                    if self._reporter.progress_mark() > before:
                        tries = 0
                    tries += 1
                    reached = Reached.LOGGED_IN if credentials.is_proven else reached_by(problem, reached)
                    lasted, retries = time.monotonic() - started, self._settings.retries
                    then = after(problem, reached, lasted, tries, retries, random.random())  # noqa: S311 -- no secret
                    if not isinstance(then, Again) or once():
                        raise
                    count = f" ({tries} of {retries})" if reached is Reached.LOGGED_IN else ""
                    self._reporter.note(f"{problem.cause}: trying again in {then.pause:.0f} s{count}")
                    time.sleep(then.pause)
        finally:
            engine.close()
