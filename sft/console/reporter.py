"""What becomes of a client's run: lines for a person or JSON events for a script, the log, and kept receipts.

Rules: names are paths at either end, not escaped yet. A person reads a line for each thing that was named; the files in
a named folder are counted in its line, and have lines of their own only in a verbose run. What fails or is left out is
always reported, on standard error, the first few names of each cause. With --json every line on standard output is one
event, in plain ASCII, so that no encoding and no control character in a name can break a line; there each file has its
event. What is not needed for --help is loaded when it is needed.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sft.common.errors import OutputError, TransferError
from sft.common.log_limits import LineLimit, Sparing
from sft.common.sizes import amount, announced, counted
from sft.common.text import briefly, show_path
from sft.console.lines import ReceiptSink, Settled, Summary, arrival, as_json, listed_line, usage_lines, utc
from sft.console.named import NamedFolder
from sft.console.progress import Found, open_progress
from sft.console.repeated import Repeated, begins_with, kind_of
from sft.console.screen import is_unsaid, lines_of, note, say, say_beside
from sft.console.waiting import Waiting

if TYPE_CHECKING:
    import logging

_MOST_LOGGED = 500  # of what failed or was skipped
_EVENT_SECONDS, _MOST_LINES = 0.5, 256
_DEBUG = 10  # the level of `logging`, which --help need not load


class Reporter:
    """Shows and logs what becomes of a run. Each method may be called from any thread."""

    def __init__(self, log: "logging.Logger", quiet: bool, as_json: bool, verbose: bool = False) -> None:
        self._own_log, self._quiet, self._json, self._verbose = log, quiet, as_json, verbose
        self._receipts: ReceiptSink | None = None
        self._at_once = as_json  # a program may wait for each line
        self._arrived: deque[Settled] = deque()  # not worth a write of their own
        self._pausing = threading.Lock()
        self._lock = threading.Lock()
        self._folders: list[NamedFolder] = []
        self._failures, self._omissions = Repeated(not verbose), Repeated(not verbose)
        self.waiting = Waiting(self._note)
        self._is_debugging = log.isEnabledFor(_DEBUG)
        self._wants_bar = not quiet and not as_json
        self._progress, self._has_begun = open_progress(shown=False), False
        self._is_counting = False
        self.tells_starts = self._is_debugging or as_json  # otherwise the event is not shown
        self._sparing = Sparing(log, LineLimit(_MOST_LOGGED))
        self._last_progress, self._furthest = 0.0, 0
        self._result = say
        self.delivered_count = self.already_count = self.unchanged_count = self.changed_count = 0
        self.skipped_count = self.failed_count = self.set_count = 0
        self.bytes_done = self.bytes_moved = 0  # of those that were delivered, and of all
        self.bytes_on_wire = 0  # sent and received, all of it
        self.status = 0

    @property
    def _log(self) -> "logging.Logger":
        self.pause()  # lines stay in the order of what happened
        return self._own_log

    def pause(self) -> None:
        """Nothing more has arrived for now: what was not worth a write of its own is written."""
        if not self._arrived:
            return
        with self._pausing:  # several threads may come at once
            settled = [self._arrived.popleft() for _ in range(len(self._arrived))]
            if not settled:
                return
            self._own_log.info([each.logged for each in settled])
            if receipts := [each.receipt for each in settled if each.receipt is not None]:
                self._keep(receipts)
            if self._json:
                with self._lock:
                    self._result(*[each.event for each in settled if each.event is not None])
            elif shown := [each.shown for each in settled if each.shown is not None]:
                self._say(*shown)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What settles within belongs together, and is written once."""
        at_once, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = at_once
            if at_once:
                self.pause()

    def _keep(self, lines: list[str]) -> None:
        if self._receipts is not None:
            try:
                self._receipts.append(*lines)
            except OSError as problem:
                self._lose_receipts(self._receipts, problem)

    def name_folder(self, path: str) -> NamedFolder:
        """A folder was named, and goes to `path`: what is `within` it gets one line, when all of it is settled."""
        folder = NamedFolder(path)
        self._folders.append(folder)
        return folder

    def folder_found(self, folder: NamedFolder, count: int) -> None:
        """Everything in it is found: `count` things that are settled, one by one."""
        folder.found(count)
        self._tell_folder(folder)

    def _settle(self, folder: NamedFolder | None, word: str, size: int = 0, count: int = 1) -> None:
        if folder is not None and folder.settle(word, size, count):
            self._tell_folder(folder)

    def folder_there(self, within: NamedFolder | None) -> None:
        """A folder inside of one that was named is there: it has no line, and does not count."""
        self._settle(within, "folder")

    def _tell_folder(self, folder: NamedFolder, is_over: bool = False) -> None:
        if not self._json and (line := folder.line(is_over)) is not None:
            self.pause()
            self._say(line)

    def keep_receipts(self, receipts: ReceiptSink) -> None:
        """Append a line to `receipts` for each file that is delivered from now on."""
        self._receipts, self._at_once = receipts, True

    def to_standard_error(self) -> None:
        """Standard output is taken by content: results go elsewhere."""
        self._result = say_beside

    def expect(self, count: int, files: int = 0) -> None:
        """`count` more bytes are to come, in so many files."""
        self._progress.more(count, files)

    def listed(self, name: str, kind: str, size: int, mtime_ns: int, target: str | None = None) -> None:
        """One name in a listing; `target`: where a link leads."""
        more = {} if target is None else {"target": target}
        if not self._event("entry", name=name, kind=kind, size=size, time=utc(mtime_ns), **more):
            say(listed_line(name, kind, size, mtime_ns, target))

    def removed(self, name: str, count: int | None) -> None:
        """That is gone at the receiver, `count` things in all; None: the answer that has the number was lost."""
        self.changed_count += 1
        self._log.info("removed: %s, %s", name, "an answer was lost" if count is None else f"{count} in all")
        if not self._event("removed", name=name, count=count):
            more = "" if count is None or count == 1 else f"  {count:,} in all"
            self._say(f"removed: {name}{more}")

    def was_set(self, path: str) -> None:
        """What has that path was the same, but for its time or permission bits, which it has got now."""
        self.set_count += 1
        self._log.info("time or mode set: %s", path)
        if not self._event("set", path=path) and self._verbose:
            self._say(f"set: {path}")

    def moved_there(self, name: str, path: str) -> None:
        """That has another path at the receiver."""
        self.changed_count += 1
        self._log.info("moved: %s to %s", name, path)
        if not self._event("moved", name=name, path=path):
            self._say(f"moved: {name} to {path}")

    def used(
        self, size: int, count: int, quota: int | None, quota_files: int | None, free: int | None, human: bool
    ) -> None:
        """What the account uses at the receiver, its quota, and what is free there; None: no limit, or not known."""
        fields = {"bytes": size, "files": count, "quota_bytes": quota, "quota_files": quota_files, "free": free}
        if not self._event("usage", **fields):
            say(*usage_lines(size, count, quota, quota_files, free, human))

    def told(self, line: str, event: str, **fields: object) -> None:
        """One thing that was found: a line for a person, or the fields of an event."""
        if not self._event(event, **fields):
            say(line)

    def sealed(self, name: str, size: int, sha256: bytes) -> None:
        """The whole of a large file was read and sealed; its HMAC is on its way."""
        self._log.info(
            "read and sealed %s, %s, SHA-256 %s; sending its HMAC", name, counted(size, "byte", ""), sha256.hex()
        )

    def search(self, found: Found) -> None:
        """Show how much was found so far of what is to be sent, until it begins."""
        if not self._has_begun:
            self._show()
            self._progress.search(found)

    def _show(self) -> None:
        self._has_begun = True
        self._progress = open_progress(self._wants_bar)
        self.tells_starts = self.tells_starts or self._progress.is_shown

    def begin(self, total: int | None, files: int | None = None) -> None:
        """Show the bar from now on, unless it is there already: so many bytes are to come, in so many files."""
        if not self._has_begun:
            self._show()
        if not self._is_counting:
            self._is_counting = True
            self._progress.begin(total, files)

    def end(self) -> None:
        """Take the bar away, and flush the receipts: none of a run that ended well is lost with the power."""
        self.pause()
        self._sparing.tell()
        self._progress.close()
        for folder in self._folders:
            self._tell_folder(folder, is_over=True)
        self._count_unnamed()
        if self._receipts is not None:
            try:
                self._receipts.flush()
            except OSError as problem:
                self._lose_receipts(self._receipts, problem)

    def _count_unnamed(self) -> None:
        for word, repeated in (("skipped", self._omissions), ("error", self._failures)):
            for kind, count in repeated.left_out():
                self.waiting.add(f"{word}: and {count:,} more (-v): {kind}")

    def _lose_receipts(self, receipts: ReceiptSink, problem: OSError) -> None:
        self._receipts = None  # reported once; the files arrive all the same
        lost = OutputError(f"can't write the receipts to {receipts.name} ({problem.strerror})", "Name another file")
        self.status = max(self.status, lost.exit_status)
        self._own_log.error("%s", lost)
        self._note(*lines_of(lost))

    def _event(self, event: str, **fields: object) -> bool:
        """One JSON line; whether JSON is what is wanted."""
        if self._json:
            with self._lock:
                self._result(as_json({"event": event, **fields}))
        return self._json

    def _say(self, *lines: str) -> None:
        if not self._quiet and not self._json:
            with self._lock:
                self._progress.above(lambda: self._result(*lines))

    def note(self, line: str) -> None:
        """One line on standard error about the run, such as a new try; only in the log when errors alone are wanted."""
        self._log.warning("%s", line)
        if not self._quiet:
            self._note(line)

    def _note(self, *lines: str) -> None:
        with self._lock:
            self._progress.above(lambda: note(*lines))

    def started(self, name: str, path: tuple[str, ...], size: int | None) -> None:
        """One file is announced."""
        if self._is_debugging:
            self._own_log.debug("started: %s as %s, %s", name, show_path(path), announced(size))
        self._progress.name(name)
        if self._json:
            self._event("started", name=name, path=show_path(path), size=size)

    def checking(self, name: str, count: int) -> None:
        """`count` more bytes were read to compare them."""
        self._progress.name(f"checking {name}")
        self._progress.advance(count)

    def progress_mark(self) -> tuple[int, int]:
        """Grows when a new connection was worth it: a receipt more, or a place further on to resume from."""
        arrived = self.delivered_count + self.already_count + self.unchanged_count
        return arrived + self.changed_count + self.set_count, self._furthest

    def resumed(self, name: str, offset: int) -> None:
        """The transfer of a file goes on behind what was there."""
        self._furthest = max(self._furthest, offset)
        self._log.info("resumed: %s from byte %d on", name, offset)
        if not self._event("resumed", name=name, offset=offset):
            self._say(f"resumed: {name} from {amount(offset)} on")

    def restarted(self, name: str, checked: int) -> None:
        """What was kept is of another file."""
        self.unchecked(checked)
        self._log.info("restarted: %s", name)
        if not self._event("restarted", name=name):
            self._say(f"starting again: {name} is not what an earlier attempt has left behind")

    def unchecked(self, count: int) -> None:
        """`count` bytes that were compared turned out to be another file's: they are still to be sent."""
        self._progress.advance(-count)

    def moved(self, count: int, name: str = "") -> None:
        """`count` more bytes of content, of the file `name`, were sent or received."""
        self.bytes_moved += count
        if self._progress.is_shown:
            self._progress.name(name)  # which may have been compared, or waiting, since another one was named
            self._progress.advance(count)
        if self._json and (now := time.monotonic()) - self._last_progress >= _EVENT_SECONDS:
            self._last_progress = now
            self._event("progress", bytes=self.bytes_moved)

    def delivered(
        self,
        name: str,
        path: str,
        size: int,
        sha256: bytes,
        time_ns: int,
        outcome: str,
        within: NamedFolder | None = None,
        target: str | None = None,
    ) -> None:
        """A receipt is here, or what was fetched. `within`: the folder that was named; `target`: what a link says."""
        word = "there already" if outcome == "already" else "delivered"
        if outcome == "already":
            self.already_count += 1
        else:
            self.delivered_count += 1
            self.bytes_done += size
        digest = sha256.hex() if target is None else None
        logged = f"receipt ({outcome}): {arrival(path, size, digest, target, is_logged=True)}"
        fields: dict[str, object] = {} if target is None else {"target": target}
        if self._json or self._receipts is not None:
            fields |= {"name": name, "path": path, "size": size, "sha256": digest, "time": utc(time_ns)}
        event = as_json({"event": "delivered", "outcome": outcome, **fields}) if self._json else None
        receipt = as_json(fields) if self._receipts is not None and target is None else None
        shown = f"{word}: {arrival(path, size, digest, target)}" if self._is_shown(within) else None
        self._arrive(Settled(logged, shown, event, receipt))
        self._settle(within, word, size)

    def unchanged(self, name: str, path: str, size: int, within: NamedFolder | None = None) -> None:
        """It is there, as far as size and time tell, and was left alone: a million of them have no lines each night."""
        self.unchanged_count += 1
        if self.names_unchanged(within):
            line, fields = f"unchanged: {path}", {"event": "unchanged", "name": name, "path": path, "size": size}
            self._arrive(Settled(line, line, as_json(fields)) if self._is_shown(within) else Settled(line, None, None))
        self._settle(within, "unchanged", size)

    def unchanged_files(self, count: int, size: int, within: NamedFolder | None) -> None:
        """The same for many, of `size` bytes in all, unless it `names_unchanged`."""
        self.unchanged_count += count
        self._settle(within, "unchanged", size, count)

    def names_unchanged(self, within: NamedFolder | None) -> bool:
        """Whether each of them has a line, of whatever kind."""
        return self._is_shown(within) or self._is_debugging

    def _is_shown(self, within: NamedFolder | None) -> bool:
        return within is None or self._verbose

    def _arrive(self, settled: Settled) -> None:
        self._progress.file_done()
        self._arrived.append(settled)
        if self._at_once or len(self._arrived) >= _MOST_LINES:
            self.pause()

    def skipped(self, name: str, why: str, within: NamedFolder | None = None, is_wanted: bool = False) -> None:
        """Left out, which is no failure. `is_wanted`: by a choice of the user's, so it is a result like others."""
        self.skipped_count += 1
        self._progress.file_done()
        self.pause()
        self._sparing.info("skipped: %s: %s", briefly(name), why)
        line = f"skipped: {name}: {why}"
        if self._event("skipped", name=name, why=why):
            pass
        elif not is_wanted:
            if self._omissions.may(why):
                self.waiting.add(line)
        elif self._is_shown(within):
            self._say(line)
        self._settle(within, "skipped")

    def skipped_beside(self, name: str, count: int, why: str) -> None:
        """So many more in the same folder are left out for the same reason, and not named."""
        self.skipped_count += count
        self._sparing.info("skipped: %s beside %s: %s", counted(count, "more name"), briefly(name), why)
        if not self._event("skipped", name=name, why=why, more=count) and not self._omissions.count(why, count):
            self._note(f"skipped: {counted(count, 'more name')} beside it: {why}")

    def failed_beside(self, count: int, within: NamedFolder | None = None) -> None:
        """The last line also stands for `count` more things that do not arrive; for one, if it is `within` a folder."""
        self.failed_count += count
        self._settle(within, "failed")

    def failed(
        self, name: str, problem: TransferError, quietly: bool = False, within: NamedFolder | None = None
    ) -> None:
        """One thing that was named does not arrive. `quietly`: who reads our output knows it already."""
        self.failed_count += 1
        self._progress.file_done()
        self.status = max(self.status, problem.exit_status)
        self.pause()
        self._sparing.error("%s: %s", briefly(name), briefly(str(problem)))
        fields = {"name": name, "cause": problem.cause, "remedy": problem.remedy, "status": problem.exit_status}
        is_told = self._event("failed", **fields) and not is_unsaid()
        if not is_told and not quietly and self._failures.may(kind_of(name, problem)):
            self.waiting.add(*lines_of(problem, "" if begins_with(name, problem) else name))
        self._settle(within, "failed")

    def summary(self, where: str, seconds: float, status: int) -> None:
        """The last line. `where` is empty for a job that has not come to its end, or has no such line for a person."""
        self.waiting.release()
        words = ("delivered", "there already", "unchanged", "skipped", "failed")
        files = (self.delivered_count, self.already_count, self.unchanged_count, self.skipped_count, self.failed_count)
        counts = dict(zip(words, files, strict=True))
        summary = Summary(counts, self.bytes_done, self.bytes_moved, self.bytes_on_wire, seconds, self.set_count)
        if where:
            self._log.info("%s", summary.logged())
        if not self._event("summary", **summary.fields(), status=status) and where:
            self._say(summary.line(where))
