"""The log lines of one connection at the server: what becomes of its client's files, and of those it is given.

Rules: what a client can cause at will, without storing anything, is limited. Lines about stored files are written
together, at the latest when nothing more arrives, and all lines stay in the order of what happened.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sft.common.errors import Code, ProtocolViolation, Refused
from sft.common.log_events import LogEvent
from sft.common.log_limits import Sparing
from sft.common.sizes import announced, counted
from sft.common.text import briefly, show_briefly, show_path
from sft.server.login import Log
from sft.transfer.events import (
    BatchCutOff,
    BatchSettled,
    BatchStarted,
    CutOff,
    Delivered,
    Failed,
    Grown,
    Idle,
    Missed,
    NotGiven,
    Progress,
    ReceiveEvent,
    Rejected,
    Resumed,
    SendEvent,
    Started,
    TimeClamped,
    TimeLost,
    Withdrawn,
)
from sft.transfer.items import Item
from sft.wire.messages import Misnamed, Put, Receipt

_LINES_TOGETHER = 512  # at most


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """Says of each line whose it is: by a head for people, by fields for programs."""

    def __init__(self, log: logging.Logger, number: int, user: str, source: str) -> None:
        """`user`: empty before the login."""
        fields = {"connection": number, "user": user or None, "source": source}
        who = f"{user}@{source}" if user else source
        super().__init__(log, {"head": f"#{number} {who}: ", "fields": fields})

    def process(self, msg: object, kwargs: Any) -> tuple[object, Any]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


class ReceiveLog:
    """Writes what becomes of a client's files to the log."""

    def __init__(self, log: Log, sparing: Sparing) -> None:
        """`sparing`: for what a client can cause at will, without storing anything."""
        self._own_log, self._own_sparing = log, sparing
        self._is_verbose = log.isEnabledFor(logging.DEBUG)
        self._stored: list[LogEvent] = []  # lines that are written together, at the latest when nothing more arrives

    @property
    def _sparing(self) -> Sparing:
        self._write_stored()  # lines stay in the order of what happened
        return self._own_sparing

    def _write_stored(self) -> None:
        if self._stored:
            lines, self._stored = self._stored, []
            self._own_log.info(lines)

    def on_event(self, event: ReceiveEvent) -> None:
        """Raises ProtocolViolation for an answer to a GET, which only a server gives."""
        match event:
            case Progress():
                pass
            case Delivered():
                self._delivered(event.receipt, event.what.target)
            case BatchSettled() | BatchStarted() | BatchCutOff():
                self._of_batch(event)
            case Started():
                self._started([(event.what, event.size)])
            case Idle():
                self._write_stored()
            case Resumed():
                path, offset = show_briefly(event.what.path), event.offset
                self._sparing.info(
                    LogEvent("resumed", f"resumed {path} from byte {offset} on", path=path, offset=offset)
                )
            case Rejected():
                self._rejected(event.what, event.problem)
            case Withdrawn():
                path, why = show_briefly(event.what.path), "" if event.code is None else f" ({event.code})"
                text = f"withdrawn by the sender{why}: {path}"
                self._sparing.info(LogEvent("withdrawn", text, path=path, reason=event.code))
            case CutOff():
                what = "kept for another try" if event.kept else "nothing kept"
                path = show_briefly(event.what.path)
                text = f"cut off: {path}, {counted(event.size, 'byte', '')}, {what}"
                self._sparing.warning(LogEvent("cut off", text, path=path, bytes=event.size, kept=event.kept))
            case TimeLost():
                self._sparing.info("the disk can't hold the time of %s", show_briefly(event.path))
            case NotGiven() | Missed():
                raise ProtocolViolation("an answer to a GET, from a client")

    def _started(self, files: Sequence[tuple[Put, int | None]]) -> None:
        if self._is_verbose:
            self._own_log.debug([f"receiving {show_path(put.path)}, {announced(size)}" for put, size in files])

    def _of_batch(self, event: "BatchStarted[Put] | BatchSettled[Put | Misnamed] | BatchCutOff") -> None:
        if isinstance(event, BatchStarted):
            self._started(event.files)
            return
        for put, became in event.files:
            if isinstance(became, Refused):
                self._rejected(put, became)
            else:
                self._delivered(became)

    def _delivered(self, receipt: Receipt, target: str | None = None) -> None:
        if receipt.outcome != "stored":  # which a client can cause without end
            self._sparing.info(lambda: _settled(receipt, target, show_briefly(receipt.path)))
            return
        self._stored.append(_settled(receipt, target, show_path(receipt.path)))
        if len(self._stored) >= _LINES_TOGETHER:
            self._write_stored()

    def _rejected(self, put: Put | Misnamed, problem: Refused) -> None:
        name = briefly(put.shown) if isinstance(put, Misnamed) else show_briefly(put.path)
        level = logging.ERROR if problem.code in (Code.STORAGE, Code.INTERNAL) else logging.WARNING
        text = f"refused: {name}: {problem.cause}"
        self._sparing.log(level, LogEvent("refused", text, path=name, outcome=problem.code, reason=problem.cause))


def _settled(receipt: Receipt, target: str | None, path: str) -> LogEvent:
    """What became of a file, folder or link; `target`: what a link says."""
    outcome = receipt.outcome
    if target is not None:
        says = briefly(target)
        return LogEvent(outcome, f"{outcome} {path}, a link to {says}", path=path, target=says)
    if receipt.sha256 is None:  # a folder, or skipped
        return LogEvent(outcome, f"{outcome} {path}", path=path)
    sha256 = receipt.sha256.hex()
    text = f"{outcome} {path}, {counted(receipt.size, 'byte', '')}, SHA-256 {sha256}"
    return LogEvent(outcome, text, path=path, bytes=receipt.size, sha256=sha256)


class GiveLog:
    """Writes what becomes of the files that a client asked for to the log. Its events come from two threads."""

    def __init__(self, log: Callable[..., None], log_sparingly: Callable[..., None]) -> None:
        """`log_sparingly`: for what a client can cause at will, without being given anything."""
        self._log, self._log_sparingly = log, log_sparingly

    def on_event(self, event: SendEvent) -> None:
        """Log what an administrator may want to know of it."""
        match event:
            case Delivered(item, receipt):
                self._settled([(item, receipt)])
            case BatchSettled(files):
                self._settled(files)
            case Failed(item, problem):
                self._log_sparingly("not given: %s: %s", briefly(item.name), problem.cause)
            case Resumed(item, offset):
                self._log_sparingly("giving %s from byte %d on", briefly(item.name), offset)
            case Grown(item, size):
                self._log_sparingly("%s has grown, and is given as it was: %d bytes", briefly(item.name), size)
            case TimeClamped(item):
                self._log_sparingly("the time of %s is given as the nearest that can be expressed", briefly(item.name))

    def _settled(self, files: Sequence[tuple[Item, Receipt | Refused]]) -> None:
        lines: list[LogEvent] = []
        for item, became in files:
            if isinstance(became, Refused):
                name, reason = briefly(item.name), became.cause
                self._log_sparingly(LogEvent("not given", f"not given: {name}: {reason}", path=name, reason=reason))
            elif became.outcome == "skipped":
                name = briefly(item.name)
                self._log_sparingly(LogEvent("not wanted", f"skipped: {name}", path=name))
            elif became.outcome != "folder":
                text = f"given ({became.outcome}): {item.name}, {counted(became.size, 'byte', '')}"
                lines.append(LogEvent("given", text, path=item.name, bytes=became.size, outcome=became.outcome))
        if lines:
            self._log(lines)
