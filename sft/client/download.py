"""What one run of the client fetches: where each thing goes here, and what becomes of it, over all its connections.

Rules: what can be rejected without the network is, first. A file that was fetched by an earlier connection of the run
is not looked at again. Everything that was asked for must be answered: a server that ends without that breaks the
protocol.
"""

import contextlib
from typing import TYPE_CHECKING

from crypto_utils import digest
from sft.client.missing import Missing, report_omitted
from sft.client.refusals import SKIPPED, TIME_BEYOND, not_given, refused_here
from sft.client.targets import checked_parts, destination, local_path
from sft.common.errors import (
    PASSING_CODES,
    Code,
    IntegrityError,
    ProtocolViolation,
    Refused,
    SourceError,
    TransferError,
)
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts
from sft.common.text import show_path
from sft.console.reporter import Reporter
from sft.disk.sources import PERMISSIONS
from sft.transfer.events import (
    BatchSettled,
    BatchStarted,
    Delivered,
    Idle,
    Missed,
    NotGiven,
    Progress,
    Rejected,
    Resumed,
    Started,
    TimeLost,
    Withdrawn,
)
from sft.wire.protocol import MAX_INTEGER

if TYPE_CHECKING:  # a client sends its hello before it loads these
    from collections.abc import Sequence

    from sft.console.named import NamedFolder
    from sft.disk.temporary import Incoming, Outcome, Unpublished, Whole
    from sft.disk.visible_files import VisibleFiles
    from sft.transfer.events import ReceiveEvent
    from sft.transfer.groups import Begun, Folder
    from sft.transfer.shrinking import Compress
    from sft.wire.channel import Channel
    from sft.wire.handshake import SessionKeys
    from sft.wire.messages import Misnamed, Omitted, Put, Receipt


class Download:
    """What is fetched in one run: where each thing goes, and what becomes of it."""

    def __init__(self, reporter: Reporter, policy: str, keep_modes: bool, names: list[str], target: str) -> None:
        """Raises UsageError."""
        self._reporter, self._policy, self._keep_modes = reporter, policy, keep_modes
        self.wanted = [checked_parts(name) for name in names]
        self.to = destination(names, self.wanted, target)
        self._asked = {wanted[-1:] for wanted in self.wanted}
        self.missing = Missing(reporter)
        self._has_written = False
        self.reader_has_left = False  # of standard output
        self._answered: set[PathParts] = {()}  # an empty folder is an answer, too
        self._done: set[bytes] = set()
        self._folders: dict[PathParts, NamedFolder] = {}
        self._offered: set[PathParts] = set()  # those of `wanted` whose small files are offered first

    def place(self, put: "Put | Misnamed") -> "Incoming":
        """Where a PUT of the server goes. Raises Refused; ProtocolViolation for a name that is not allowed."""
        from sft.disk.temporary import Incoming
        from sft.wire.messages import Misnamed

        if isinstance(put, Misnamed):
            raise ProtocolViolation(f"a name that is not allowed: {put.why}")
        if put.path[:1] in self._asked:
            self._answered.add(put.path[:1])
        path = local_path(put.path, self._asked, self.to)
        mode = put.mode & PERMISSIONS if self._keep_modes and put.mode is not None else None
        return Incoming(put.transfer, path, put.size, put.mtime, mode, self._policy)

    def remembering(self, folder: "Folder") -> "Folder":
        """`folder`, which needs no second look at what this run has fetched already."""
        return _Remembering(folder, self._done)

    def look_here(self, visible: "VisibleFiles") -> None:
        """Note for which of the names something is here already, so that small files are worth an offer."""
        self._offered = {path for path in self.wanted if self._has_content(visible, path)}

    def _has_content(self, visible: "VisibleFiles", path: PathParts) -> bool:
        place = local_path(path[-1:], self._asked, self.to) if path else tuple(filter(None, [self.to.new_name]))
        if place:
            seen = visible.look(place)
            return seen is not None and seen.is_folder
        with contextlib.suppress(Refused):
            return any(name != LOCAL_PARTIAL_AREA for name in visible.names(place)[0])
        return False

    def fetch(
        self, folder: "Folder", channel: "Channel", keys: "SessionKeys", limit: int | None, compress: "Compress"
    ) -> None:
        """Ask for everything over one connection, and receive it into `folder`.

        `limit`: bytes per second, which the server keeps to; `compress`: `off` asks for content as it is. Raises what
        `Receiver.run` and `check_answered` raise.
        """
        from sft.common.rate_limit import RateLimiter
        from sft.transfer.receiver import Receiver
        from sft.wire.compression import is_installed
        from sft.wire.messages import Get, Rate

        self.missing.begin()
        zstd = compress != "off" and is_installed()
        if limit is not None:
            channel.post(Rate(limit).encode())
        for id, path in enumerate(self.wanted, 1):
            channel.post(Get(id, path, id < len(self.wanted), zstd, path in self._offered, min(1, len(path))).encode())
        messages, secret = channel.messages(), keys.file_s2c
        Receiver(channel, messages, secret, folder, self.place, self.on_event, RateLimiter(None), zstd=zstd).run()
        self.check_answered()

    # --- what becomes of the files ---

    def on_event(self, event: "ReceiveEvent") -> None:
        """Note it, and pass it on to the reporter. Raises ProtocolViolation for an answer to nothing."""
        match event:
            case Delivered():
                self._delivered(event.what, event.receipt)
            case BatchSettled() | BatchStarted():
                self._of_batch(event)
            case Progress():
                self._moved(event.count, event.what)
            case Started(put, size):
                self._started([(put, size)])
            case Idle():
                self._reporter.pause()
            case Resumed(put, offset):
                self._reporter.checking(show_path(put.path), offset)
                self._reporter.resumed(show_path(put.path), offset)
            case Rejected(put, problem):
                self._rejected(put, problem)
            case Withdrawn(put, code):
                self._withdrawn(put, code)
            case TimeLost(path):
                self._reporter.note(f"{self.to.shown(path)}: its time can't be kept by the disk here")
            case NotGiven(id, problem):
                self._not_given(id, problem)
            case Missed(omitted):
                self._missed(omitted)

    def _started(self, files: "Sequence[tuple[Put, int | None]]") -> None:
        self._reporter.expect(sum([size or 0 for _, size in files]), len(files))
        for put, size in files:
            if not self.to.to_stdout:  # what is written there can't be taken back
                self.missing.comes_again(put.path)
            if self._reporter.tells_starts:
                self._reporter.started(show_path(put.path), self.place(put).path, size)

    def _moved(self, count: int, put: "Put | None") -> None:
        if put is not None and count:
            self._has_written = True
            self._reporter.moved(count, show_path(put.path))

    def _of_batch(self, event: "BatchStarted[Put] | BatchSettled[Put | Misnamed]") -> None:
        from sft.wire.messages import Misnamed

        if isinstance(event, BatchStarted):
            self._started(event.files)
            self._moved(event.count, event.files[-1][0] if event.files else None)
            return
        with self._reporter.together():
            for put, became in event.files:
                if isinstance(became, Refused):
                    self._rejected(put, became)
                elif not isinstance(put, Misnamed):
                    self._delivered(put, became)

    def _delivered(self, put: "Put", receipt: "Receipt") -> None:
        path = self.to.shown(receipt.path)
        if receipt.outcome in ("folder", "stored") and put.mtime is not None and abs(put.mtime) == MAX_INTEGER:
            self._reporter.note(f"{path}: {TIME_BEYOND}")
        key = _key(self.place(put))
        within = self._folder_of(put)
        if receipt.outcome == "folder" or key in self._done:
            return
        if receipt.outcome == "skipped":
            self._reporter.skipped(path, "it is there", within, is_wanted=True)
            return
        sha256, name = receipt.sha256 or b"", show_path(put.path)
        self._done.add(key)
        self._reporter.delivered(name, path, receipt.size, sha256, receipt.time, receipt.outcome, within)

    def _folder_of(self, put: "Put") -> "NamedFolder | None":
        """The folder that was asked for and has this in it; None for a file that was asked for itself."""
        asked = () if () in self._asked else put.path[:1]
        if asked not in self._asked or (asked == put.path and put.kind != "folder"):
            return None
        if asked not in self._folders:
            path = local_path(asked, self._asked, self.to) if asked else tuple(filter(None, [self.to.new_name]))
            self._folders[asked] = self._reporter.name_folder(self.to.shown(path))
        return self._folders[asked]

    def _rejected(self, put: "Put | Misnamed", problem: Refused) -> None:
        from sft.wire.messages import Misnamed

        if isinstance(put, Misnamed):
            return  # `place` has ended the connection
        name = show_path(put.path)
        if self.to.to_stdout and len(put.path) > 1:
            return  # what lies in a folder, which was refused itself
        if self.to.to_stdout and isinstance(problem.__cause__, BrokenPipeError):
            self.reader_has_left = True
            self._reporter.failed(name, refused_here(problem, "standard output"), quietly=True)
            return
        if self.to.to_stdout and problem.code is Code.IS_FOLDER:
            reported: TransferError = SourceError(
                f"{name} is a folder on the receiver", "Only one file can go to standard output"
            )
        elif self.to.to_stdout:
            reported = refused_here(problem, "standard output")
        else:
            reported = refused_here(problem, self._place_of(put))
        self.missing.fail(name, reported, None if self.to.to_stdout else self._folder_of(put))

    def _place_of(self, put: "Put") -> str:
        """Where it was to go here; the name at the receiver for what was not asked for or can't have a place."""
        try:
            return self.to.shown(self.place(put).path)
        except Refused:
            return show_path(put.path)

    def _withdrawn(self, put: "Put", code: Code | None) -> None:
        name = show_path(put.path)
        if code is Code.UNAVAILABLE:
            self.missing.wait_for(name, code)
            return
        code = Code.CHANGED if code in (None, Code.CHANGED) else Code.UNREADABLE
        reported: TransferError = not_given(Refused(code), name)
        if self.to.to_stdout and self._has_written:
            reported = IntegrityError(
                f"what was written to standard output is not whole ({reported.cause})", "Throw it away, try again"
            )
        self.missing.withdraw(put.path, reported, None if self.to.to_stdout else self._folder_of(put))

    def _not_given(self, id: int, problem: Refused) -> None:
        if id > len(self.wanted):
            raise ProtocolViolation("a refusal of what was not asked for")
        self._answered.add(self.wanted[id - 1][-1:])
        name = show_path(self.wanted[id - 1]) or "your folder"
        if problem.code in PASSING_CODES:  # it is there again soon, perhaps
            self.missing.wait_for(name, problem.code)
        else:
            self.missing.fail(name, not_given(problem, name))

    def _missed(self, omission: "Omitted") -> None:
        if omission.id > len(self.wanted):
            raise ProtocolViolation("word of something that was not asked for")
        wanted = self.wanted[omission.id - 1]
        self._answered.add(wanted[-1:])
        name = "/".join((*wanted[:-1], omission.name))
        if omission.code is Code.UNAVAILABLE:
            self.missing.wait_for(name, omission.code)
        elif omission.code in SKIPPED:
            self.missing.skip(omission, name)
        else:
            report_omitted(self._reporter, omission, name, self.missing.fail)

    def check_answered(self) -> None:
        """After the server's BYE: what was withdrawn has failed, unless it came again, with an unknown size.

        Raises ProtocolViolation when the server has ended without a word about something that was asked for, and
        PeerStopped when something was out of its reach.
        """
        if any(wanted[-1:] not in self._answered for wanted in self.wanted):
            raise ProtocolViolation("no answer to a GET")
        self.missing.end()
        for folder in self._folders.values():
            self._reporter.folder_found(folder, 0)  # and settled


class _Remembering:
    """A folder that answers for what was fetched by an earlier connection of this run."""

    def __init__(self, folder: "Folder", done: set[bytes]) -> None:
        self._folder, self._done = folder, done
        self.publish, self.start_publishing = folder.publish, folder.start_publishing
        self.finish_publishing = folder.finish_publishing
        self.finish_folders = folder.finish_folders
        self.begin_anyway, self.make_folder, self.have = folder.begin_anyway, folder.make_folder, folder.have

    def take(self, files: "Sequence[Whole]") -> "list[Unpublished | Outcome]":
        """Those that were fetched are skipped; the others are taken up to the next one that was."""
        from sft.disk.temporary import Settled

        done = [_key(whole.incoming) in self._done for whole in files]
        if not any(done):
            return self._folder.take(files)
        if done[0]:
            return [Settled(files[0].incoming.path, skipped=True)]
        return self._folder.take(files[: done.index(True)])

    def begin(self, incoming: "Incoming", resumable: bool) -> "Begun":
        from sft.disk.temporary import Settled

        if _key(incoming) in self._done:
            return Settled(incoming.path, skipped=True)
        return self._folder.begin(incoming, resumable)


def _key(incoming: "Incoming") -> bytes:
    """What a file that was fetched is known by; there may be millions."""
    return digest(f"{'/'.join(incoming.path)}\0{incoming.size}\0{incoming.mtime}".encode())[:16]
