"""What one run of the client fetches: where each thing goes here, and what becomes of it, over all its connections.

Rules: what can be rejected without the network is, first. A file that was fetched by an earlier connection of the run
is not looked at again. Everything that was asked for must be answered: a server that ends without that breaks the
protocol.
"""

import contextlib
from typing import TYPE_CHECKING

from sft.client.comparing import Criteria
from sft.client.extras import Extras
from sft.client.findings import Findings
from sft.client.local_tree import LocalChanges
from sft.client.missing import Missing, report_omitted
from sft.client.parting import part
from sft.client.refusals import SKIPPED, TIME_BEYOND, not_given, refused_here
from sft.client.remembering import Remembering, key_of
from sft.client.rounds import Asked, Rounds, asked_for
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
from sft.common.exclusions import Exclusions
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
    from collections.abc import Iterator, Sequence

    from sft.console.named import NamedFolder
    from sft.disk.temporary import Incoming
    from sft.disk.visible_files import VisibleFiles
    from sft.transfer.events import ReceiveEvent
    from sft.transfer.groups import Folder
    from sft.transfer.shrinking import Compress
    from sft.wire.channel import Arrived, Channel
    from sft.wire.handshake import SessionKeys
    from sft.wire.messages import Misnamed, Omitted, Put, Receipt


class Download:
    """What is fetched in one run: where each thing goes, and what becomes of it."""

    def __init__(
        self,
        reporter: Reporter,
        policy: str,
        keep_modes: bool,
        names: list[str],
        target: str,
        links: bool = False,
        are_matches: bool = False,
        below: "Sequence[PathParts]" = (),
    ) -> None:
        """`links`: links are wanted, too; `are_matches`: the names come from patterns. Raises UsageError.

        `below`: instead of the one name, these below it, each to its path below the target.
        """
        self._links = links
        self._reporter, self.policy, self._keep_modes = reporter, policy, keep_modes
        self.wanted = [checked_parts(name) for name in names]
        self.to = destination(names, self.wanted, target, are_matches or bool(below), below)
        self._named, self._are_listed = asked_for(self.wanted, below), bool(below)
        self._asked = {each.name[:1] for each in self._named}
        self.missing = Missing(reporter)
        self._has_written = False
        self.reader_has_left = False  # of standard output
        self._rounds: Rounds | None = None  # where what is asked for comes of a comparison
        self._asking: list[Asked]
        self._ask_for(self._named)
        self._settled: set[PathParts] = set()  # of this round
        self._done: set[bytes] = set()
        self._folders: dict[PathParts, NamedFolder] = {}

    def place(self, put: "Put | Misnamed") -> "Incoming":
        """Where a PUT of the server goes. Raises Refused; ProtocolViolation for a name that is not allowed."""
        from sft.disk.temporary import Incoming
        from sft.wire.messages import Misnamed

        if isinstance(put, Misnamed):
            raise ProtocolViolation(f"a name that is not allowed: {put.why}")
        path = local_path(put.path, self._asked, self.to)
        self._answers(put.path)
        mode = put.mode & PERMISSIONS if self._keep_modes and put.mode is not None else None
        return Incoming(put.transfer, path, put.size, put.mtime, mode, self.policy)

    def _answers(self, path: PathParts) -> None:
        """Something that may come has this name. Raises Refused when it was not asked for."""
        for depth in range(len(path) + 1):
            if (name := path[:depth]) in self._names:
                self._due.discard(name)
                return
        raise Refused(Code.DENIED, why="nobody asked for it")

    def remembering(self, folder: "Folder") -> "Folder":
        """`folder`, which needs no second look at what this run has fetched already."""
        return Remembering(folder, self._done)

    def findings(
        self,
        visible: "VisibleFiles | None",
        criteria: Criteria,
        in_whole: bool,
        exclusions: Exclusions,
        digests: bool = False,
    ) -> Findings:
        """What was named, compared with what is here in `visible`; None: nothing. See there for the others."""
        reporter, place, how = self._reporter, self._place_named, (in_whole, self._links)
        names = [(each.path, each.depth) for each in self._named]
        found = Findings(reporter, self.missing, names, place, visible, criteria, *how, exclusions, digests)
        found.within, found.are_listed = self._within, self._are_listed
        return found

    def follow(
        self, findings: Findings, criteria: Criteria, changes: LocalChanges, extras: Extras, takes_all: bool
    ) -> None:
        """Ask for what these find, instead of all that was named; with `takes_all` also for what does not differ."""
        self._ask_for([])
        reporter, missing, shown, within = self._reporter, self.missing, self.to.shown, self._within
        self._rounds = Rounds(reporter, missing, findings, changes, shown, within, criteria, extras, takes_all)

    def _place_named(self, name: PathParts) -> PathParts:
        """Where something goes here that has this name, as it was asked for. Raises Refused."""
        return local_path(name, self._asked, self.to) if name else tuple(filter(None, [self.to.new_name]))

    @property
    def is_done(self) -> bool:
        """Whether everything was asked for."""
        return self._rounds is None or (self._rounds.is_over and not self._asking)

    def remove_extra(self) -> bool:
        """What an update removes here, once all has arrived; whether there is more to ask for, in its place."""
        return self._rounds is not None and self._rounds.remove_extra()

    def _look_here(self, visible: "VisibleFiles | None") -> list[Asked]:
        """All that was named; where something is here already, small files are worth an offer."""
        if visible is None:
            return self._named
        return [each._replace(offers=self._has_content(visible, each.name)) for each in self._named]

    def _has_content(self, visible: "VisibleFiles", name: PathParts) -> bool:
        if place := self._place_named(name):
            seen = visible.look(place)
            return seen is not None and seen.is_folder
        with contextlib.suppress(Refused):
            return any(name != LOCAL_PARTIAL_AREA for name in visible.names(place)[0])
        return False

    def fetch(
        self,
        folder: "Folder",
        channel: "Channel",
        keys: "SessionKeys",
        limit: int | None,
        compress: "Compress",
        visible: "VisibleFiles | None" = None,
    ) -> None:
        """Ask for everything over one connection, and receive it into `folder`; with --update for some of it.

        `limit`: bytes per second, which the server keeps to; `compress`: `off` asks for content as it is; `visible`:
        what is in `folder`. Raises what `Receiver.run` and `check_answered` raise.
        """
        from sft.common.rate_limit import RateLimiter
        from sft.transfer.groups import make_folders
        from sft.transfer.receiver import Receiver
        from sft.wire.compression import is_installed
        from sft.wire.messages import Rate

        self.missing.begin()
        zstd = compress != "off" and is_installed()
        if limit is not None:
            channel.send(Rate(limit).encode())  # in order with the GETs; what is posted may overtake those
            channel.flush()
        messages, secret = channel.messages(), keys.file_s2c
        self._choose(channel, messages, visible)
        if self._rounds is not None:
            for here, problem in make_folders(folder, self._rounds.folders_to_make()):
                self._rounds.not_made(here, problem)
        if self._asking:
            self._ask(channel, zstd)
            free, links = RateLimiter(None), self._links
            Receiver(channel, messages, secret, folder, self.place, self.on_event, free, zstd=zstd, links=links).run()
            self.check_answered()
        else:
            folder.finish_folders()
            part(channel, messages)
        if self._rounds is not None and self._rounds.is_last:
            self._settle_folders()
        self._asking = []

    def _choose(self, channel: "Channel", messages: "Iterator[Arrived | None]", visible: "VisibleFiles | None") -> None:
        """What is asked for in this connection."""
        if self._rounds is None:
            self._ask_for(self._look_here(visible))
        elif self._asking:
            self._ask_for([each for each in self._asking if each.name not in self._settled])
        else:
            self._settled.clear()
            answers = (arrived[0] for arrived in messages if arrived is not None)
            self._ask_for(self._rounds.next(channel, answers))

    def _ask_for(self, asking: list[Asked]) -> None:
        """In this connection, and in the next one if it breaks."""
        self._asking = asking
        self._names = {each.name for each in asking}  # with which the names begin that may come
        self._due = self._names - {()}  # about which nothing has come yet; an empty folder is an answer, too

    def _ask(self, channel: "Channel", zstd: bool) -> None:
        from sft.wire.messages import Get

        last = len(self._asking)
        for id, (path, depth, offers) in enumerate(self._asking, 1):
            channel.send(Get(id, path, id < last, zstd, offers, depth, self._links).encode())
        channel.flush()

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
        key = key_of(self.place(put))
        within = self._folder_of(put)
        if receipt.outcome == "folder" or key in self._done:
            return
        if self._rounds is not None:
            self._settled.add(put.path)
            if receipt.outcome == "already" and put.kind == "file" and not self._rounds.takes_all:
                incoming = self.place(put)
                self._rounds.is_there(put.path, incoming.path, put.mtime, incoming.mode)
        if receipt.outcome == "skipped":
            self._reporter.skipped(path, "it is there", within, is_wanted=True)
            return
        sha256, name = receipt.sha256 or b"", show_path(put.path)
        self._done.add(key)
        size, time, outcome = receipt.size, receipt.time, receipt.outcome
        self._reporter.delivered(name, path, size, sha256, time, outcome, within, put.target)

    def _folder_of(self, put: "Put") -> "NamedFolder | None":
        return self._within(put.path, put.kind == "folder")

    def _within(self, name: PathParts, is_folder: bool = False) -> "NamedFolder | None":
        """The folder that was named and has this in it; None for a file that was named itself."""
        asked = () if () in self._asked else name[:1]
        if asked not in self._asked or (asked == name and not is_folder):
            return None
        if asked not in self._folders:
            self._folders[asked] = self._reporter.name_folder(self.to.shown(self._place_named(asked)))
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
        if id > len(self._asking):
            raise ProtocolViolation("a refusal of what was not asked for")
        asked = self._asking[id - 1]
        self._due.discard(asked.name)
        name = show_path(asked.path) or "your folder"
        if problem.code in PASSING_CODES:  # it is there again soon, perhaps
            self.missing.wait_for(name, problem.code)
        else:
            self.missing.fail(name, not_given(problem, name))

    def _missed(self, omission: "Omitted") -> None:
        if omission.id > len(self._asking):
            raise ProtocolViolation("word of something that was not asked for")
        asked = self._asking[omission.id - 1]
        self._due.discard(asked.name)
        name = "/".join((*asked.path[: len(asked.path) - asked.depth], omission.name))
        if omission.code is Code.UNAVAILABLE:
            self.missing.wait_for(name, omission.code)
        elif omission.code in SKIPPED:
            self.missing.skip(omission, name, self._within(tuple(omission.name.split("/"))))
        else:
            report_omitted(self._reporter, omission, name, self.missing.fail)

    def check_answered(self) -> None:
        """After the server's BYE: what was withdrawn has failed, unless it came again, with an unknown size.

        Raises ProtocolViolation when the server has ended without a word about something that was asked for, and
        PeerStopped when something was out of its reach.
        """
        if self._due:
            raise ProtocolViolation("no answer to a GET")
        self.missing.end()
        if self._rounds is None:
            self._settle_folders()

    def _settle_folders(self) -> None:
        """The lines of the named folders, once all that is in them is settled."""
        for folder in self._folders.values():
            self._reporter.folder_found(folder, 0)
