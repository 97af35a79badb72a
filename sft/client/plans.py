"""What the client's words mean: sources and a target as items to send, names and a target as things to fetch.

Rules: where something goes never depends on what exists at the other end: into the target when it ends in a slash, `.`
or `..`, or when there are several sources; otherwise the target is the new name, and folders merge. Two sources with
one target are refused before anything is sent. What can be refused without the network, is. A server can place nothing
but below what the user named.
"""

import itertools
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_utils import digest
from sft.client.missing import Missing, report_omitted
from sft.client.refusals import not_given, refused_here, refused_there
from sft.common.errors import (
    PASSING,
    Code,
    IntegrityError,
    ProtocolViolation,
    Refused,
    SourceError,
    TransferError,
    UsageError,
)
from sft.common.names import LOCAL_PARTIAL_AREA, judge_path, size_of
from sft.console.command_line import PIPE
from sft.console.report import Reporter, show_path
from sft.disk.sources import PipeSource, Source
from sft.disk.tree import Folders, Found, Skipped, Tree
from sft.transfer.items import ALL_BITS, FILE_BITS, Item
from sft.wire.protocol import ASKED_LIMIT, MAX_INTEGER, WINDOW

if TYPE_CHECKING:  # who only sends need not wait for what receives, and nobody for what is needed after the login
    from sft.disk.folders import ExistingFile
    from sft.disk.temporary import Incoming, Settled, TemporaryFile
    from sft.transfer.receiver import Folder
    from sft.wire.messages import Misnamed, Omitted, Put, Receipt

TIME_BEYOND = "its time lies outside the years 1677 to 2262, and becomes the nearest that can be sent"

Parts = tuple[str, ...]


def parts_of(path: str) -> Parts:
    """The components of a path at the receiver, without `.` and doubled slashes. Raises UsageError if absolute."""
    if path.startswith("/") and path.strip("/"):
        raise UsageError(f"{path} starts with a slash", "Names there are relative to your folder on the receiver")
    return tuple(part for part in path.split("/") if part not in ("", "."))


def named(path: str) -> Parts:
    """The same for what is asked for, judged. Raises TransferError for a name that nothing there can have."""
    parts = parts_of(path)
    try:
        judge_path(parts or ("all",))
    except Refused as problem:
        raise TransferError(f"{path} can't be the name of anything there ({problem.why})", "Check the name") from None
    return parts


def _goes_into(target: str, count: int) -> bool:
    return os.path.basename(target) in ("", ".", "..") or count > 1


def _own_name(source: str) -> str:
    """What a source is called itself, also when it is given as `.` or `..`. Raises UsageError."""
    name = os.path.basename(os.path.normpath(source))
    if name not in ("", ".", ".."):
        return name
    try:
        return os.path.basename(os.path.abspath(source))
    except OSError as problem:
        raise UsageError(
            f"{source} has no name: the current folder can't be found ({problem.strerror})",
            "Change into another folder",
        ) from None


def _refuse_clash(taken: dict[Parts, str], target: Parts, source: str) -> None:
    if target in taken:
        both = f"{taken[target]} and {source}"
        raise UsageError(f"{both} would both become {show_path(target)}", "Send one of them elsewhere")
    taken[target] = source


# --- sending ----------------------------------------------------------------------------------------------------------


class Sending:
    """The items of one run, in order, and what becomes of them; told on to the reporter."""

    def __init__(
        self, reporter: Reporter, policy: str, follow: bool, preserve_mode: bool, logs: set[tuple[int, int]]
    ) -> None:
        """`logs`: device and inode of each of our own logs, which are never sent."""
        self._reporter, self._policy, self._follow, self._logs = reporter, policy, follow, logs
        self._mask = ALL_BITS if preserve_mode else FILE_BITS
        self._checked: dict[Item, int] = {}
        self.left: dict[Item, None] = {}
        self._folders: dict[Item, None] = {}  # that are there; each gets its time at the end of a connection
        self.busy: dict[Item, Refused] = {}
        self.stopping: Refused | None = None
        self.total: int | None = 0
        self.pipe: PipeSource | None = None
        self.is_over = False  # nothing more of it is wanted
        self.is_deep = False  # a source is a folder: there may be more than was found yet
        self._opened = Folders()
        self._found: deque[tuple[Found, Iterator[Found | Skipped | SourceError], Tree, Parts]] = deque()

    def plan(self, sources: list[str], target: str) -> None:
        """Find what is to be sent; when a source is a folder, `look_below` does, which may take its time.

        Raises UsageError. What is wrong with one source is reported.
        """
        into, folder = _goes_into(target, len(sources)), parts_of(target)
        placed: list[tuple[str, Parts]] = []
        taken: dict[Parts, str] = {}
        for source in sources:
            if source == PIPE and into:
                raise UsageError("standard input has no name of its own", "Send it alone, to a TARGET that is a name")
            place = (*folder, _own_name(source)) if into else folder
            _refuse_clash(taken, place, source)
            placed.append((source, place))
        for source, place in placed:
            if source == PIPE:
                if sys.stdin is None:
                    raise SourceError("standard input is closed", "Name a file as SOURCE")
                self.pipe = PipeSource(0)
                self._add("standard input", place, self._open_pipe)
                self.total = None
            else:
                tree = Tree(str(Path(source)), self._follow, self._opened)
                found = tree.walk()
                first = next(found)
                if isinstance(first, Found):
                    self._found.append((first, found, tree, place))
                    self.is_deep = self.is_deep or first.is_folder
                else:
                    self._take(first, tree, place)
        if not self.is_deep:
            self.look_below()

    def look_below(self) -> None:
        """Find everything, in order, from any thread; what is wrong with something in a folder is reported."""
        while self._found:
            first, below, tree, place = self._found.popleft()
            for each in itertools.chain([first], below):
                if self.is_over:
                    return
                self._take(each, tree, place)

    def to_send(self) -> list[Item]:
        """What the next connection sends: what is left, and folders whose time a connection that broke did not set."""
        return [*self._folders, *self.left]

    def connection_ended(self) -> None:
        """The receiver has said BYE, and has set the times: those of folders that still get something change again."""
        above = {item.target[:depth] for item in self.left for depth in range(1, len(item.target))}
        self._folders = {folder: None for folder in self._folders if folder.target in above}

    def _take(self, found: Found | Skipped | SourceError, tree: Tree, place: Parts) -> None:
        if isinstance(found, Skipped) and found.is_source:
            problem = SourceError(f"{found.path} is {found.why}", "Only files and folders can be sent")
            self._reporter.failed(found.path, problem)
        elif isinstance(found, Skipped):
            self._reporter.skipped(found.path, found.why)
        elif isinstance(found, SourceError):
            self._reporter.failed(found.name, found)
        elif LOCAL_PARTIAL_AREA in found.parts:
            pass  # what an interrupted --get has left: nobody's content
        elif not found.is_folder and found.parts and found.identity in self._logs:
            self._reporter.skipped(found.path, "this program's own log")
        elif not found.is_folder:
            if self._add(found.path, (*place, *found.parts), self._opener(tree, found)) and self.total is not None:
                self.total += found.size
        elif target := (*place, *found.parts):
            self._add(found.path, target, None, found.mtime, found.mode)

    def _open_pipe(self) -> Source:
        """Once only: what was read of it can't be read again."""
        if self.pipe is None or self.pipe.begun:
            raise SourceError("standard input can't be read again", "Start the whole command again")
        return self.pipe

    def _opener(self, tree: Tree, found: Found) -> Callable[[], Source]:
        path, parts = found.path, found.parts

        def open_it() -> Source:
            source = tree.open(path, parts)
            if source.identity in self._logs:
                source.close()
                raise SourceError(f"{path} is this program's own log", "Name another log with --client-log")
            return source

        return open_it

    def _add(
        self,
        name: str,
        target: Parts,
        open: Callable[[], Source] | None,
        mtime: int | None = None,
        mode: int | None = None,
    ) -> bool:
        item = Item(name, target, self._policy, open, mtime, mode, self._mask)
        try:
            item.judge()
        except Refused as problem:
            self._reporter.failed(name, refused_there(problem, show_path(target)))
            return False
        self.left[item] = None
        return True

    # --- what the sender tells; see sft.transfer.sender.Events ---

    def started(self, item: Item, size: int | None) -> None:
        if item.open is not None and self._reporter.tells_starts:
            self._reporter.started(item.name, item.target, size)

    def checking(self, item: Item, count: int) -> None:
        self._checked[item] = self._checked.get(item, 0) + count
        self._reporter.checking(item.name, count)

    def resumed(self, item: Item, offset: int) -> None:
        self._checked.pop(item, None)
        self._reporter.resumed(item.name, offset)

    def restarted(self, item: Item) -> None:
        self._reporter.restarted(item.name, self._checked.pop(item, 0))

    def progress(self, item: Item, count: int) -> None:
        if checked := self._checked.pop(item, 0):
            self._reporter.unchecked(checked)
        self._reporter.moved(count, item.name)

    def sealed(self, item: Item, size: int, sha256: bytes) -> None:
        self._reporter.sealed(item.name, size, sha256)

    def delivered(self, item: Item, receipt: "Receipt") -> None:
        self.left.pop(item, None)
        if receipt.outcome == "folder":
            self._folders[item] = None
            return
        path = show_path(receipt.path)
        if receipt.outcome == "skipped":
            self._reporter.skipped(path, "it is there")
        else:
            sha256 = receipt.sha256 or b""
            self._reporter.delivered(item.name, path, receipt.size, sha256, receipt.time, receipt.outcome)

    def failed(self, item: Item, problem: TransferError) -> None:
        if isinstance(problem, Refused):
            problem = refused_there(problem, show_path(item.target))
        if isinstance(problem, Refused) and problem.code is Code.BUSY:
            self.busy[item] = problem
            return
        if isinstance(problem, Refused) and problem.code in PASSING:
            self.stopping = problem
            return
        self.left.pop(item, None)
        self._reporter.failed(item.name, problem)

    def time_changed(self, item: Item) -> None:
        self._reporter.note(f"{item.name}: {TIME_BEYOND}")

    def pause(self) -> None:
        self._reporter.pause()


# --- fetching ---------------------------------------------------------------------------------------------------------


class Fetching:
    """What is fetched in one run: where each thing lands here, and what becomes of it; told on to the reporter."""

    def __init__(self, reporter: Reporter, policy: str, preserve_mode: bool, names: list[str], target: str) -> None:
        """Raises UsageError."""
        self._reporter, self._policy = reporter, policy
        self._mask = ALL_BITS if preserve_mode else FILE_BITS
        self.wanted = [named(name) for name in names]
        self.to_pipe = target == PIPE
        if self.to_pipe and (len(names) > 1 or not all(self.wanted)):
            raise UsageError("only one file can go to standard output", "Name a folder as TARGET")
        path = Path(target)
        into = not self.to_pipe and _goes_into(target, len(names))
        self.base, self.may_make_base = (path, True) if into else (path.parent, False)
        self._new_name = None if into else path.name
        if not into and not path.name:
            raise UsageError(f"{target} is no name", "Name a file, or a folder with a slash at its end")
        taken: dict[Parts, str] = {}
        for name, wanted in zip(names, self.wanted, strict=True):
            _refuse_clash(taken, wanted[-1:], name)
        if len(names) > WINDOW or sum(map(size_of, self.wanted)) > ASKED_LIMIT:
            raise UsageError(
                f"more than {WINDOW} names, or too long ones", "Name their folders, or use several commands"
            )
        self._last_names = {wanted[-1:] for wanted in self.wanted}
        self.missing = Missing(reporter)
        self._has_written = False
        self.reader_has_left = False  # of standard output
        self._answered: set[Parts] = {()}  # an empty folder is an answer of its own
        self._done: set[bytes] = set()

    def place(self, put: "Put | Misnamed") -> "Incoming":
        """Where a PUT of the server lands. Raises Refused for what nobody asked for, ProtocolViolation for no name."""
        from sft.disk.temporary import Incoming
        from sft.wire.messages import Misnamed

        if isinstance(put, Misnamed):
            raise ProtocolViolation(f"a name that is not allowed: {put.why}")
        path = put.path
        if path[:1] in self._last_names:
            self._answered.add(path[:1])
        if path[0] == LOCAL_PARTIAL_AREA:
            raise Refused(Code.NAME, why="it is used here")
        if () not in self._last_names and path[:1] not in self._last_names:
            raise Refused(Code.DENIED, why="nobody asked for it")
        if self.to_pipe and len(path) > 1:
            raise Refused(Code.UNSUPPORTED)
        if self._new_name is not None:
            path = (self._new_name, *(path if self.wanted == [()] else path[1:]))
        mode = None if put.mode is None else put.mode & (self._mask if put.kind == "file" else ALL_BITS)
        return Incoming(put.transfer, path, put.size, put.mtime, mode, self._policy)

    def remembering(self, folder: "Folder") -> "Folder":
        """`folder`, which needs no second look at what this run has fetched already."""
        return _Remembering(folder, self._done)

    # --- what the receiver tells; see sft.transfer.receiver.Events ---

    def taking(self, put: "Put", size: int | None) -> None:
        if not self.to_pipe:  # what is written there can't be taken back
            self.missing.comes_again(put.path)
        self._reporter.expect(size or 0)
        self._reporter.started(show_path(put.path), self.place(put).path, size)

    def resumed(self, put: "Put", offset: int) -> None:
        self._reporter.checking(show_path(put.path), offset)
        self._reporter.resumed(show_path(put.path), offset)

    def arrived(self, put: "Put", count: int) -> None:
        self._has_written = True
        self._reporter.moved(count, show_path(put.path))

    def stored(self, put: "Put", receipt: "Receipt") -> None:
        path = str(self.base.joinpath(*receipt.path)) if not self.to_pipe else "standard output"
        if receipt.outcome in ("folder", "stored") and put.mtime is not None and abs(put.mtime) == MAX_INTEGER:
            self._reporter.note(f"{path}: {TIME_BEYOND}")
        key = _key(self.place(put))
        if receipt.outcome == "folder" or key in self._done:
            return
        if receipt.outcome == "skipped":
            self._reporter.skipped(path, "it is there")
            return
        sha256 = receipt.sha256 or b""
        self._done.add(key)
        self._reporter.delivered(show_path(put.path), path, receipt.size, sha256, receipt.time, receipt.outcome)

    def refused(self, put: "Put | Misnamed", problem: Refused) -> None:
        from sft.wire.messages import Misnamed

        if isinstance(put, Misnamed):
            return  # `place` has ended the connection
        name = show_path(put.path)
        if self.to_pipe and len(put.path) > 1:
            return  # what lies in a folder, which was refused itself
        if self.to_pipe and isinstance(problem.__cause__, BrokenPipeError):
            self.reader_has_left = True
            self._reporter.failed(name, refused_here(problem, "standard output"), quietly=True)
            return
        if self.to_pipe and problem.code is Code.IS_FOLDER:
            told: TransferError = SourceError(
                f"{name} is a folder on the receiver", "Only one file can go to standard output"
            )
        elif self.to_pipe:
            told = refused_here(problem, "standard output")
        else:
            told = refused_here(problem, self._place_of(put))
        self.missing.fail(name, told)

    def _place_of(self, put: "Put") -> str:
        """Where it was to go, here. What nobody asked for, or has a name that can't be used, has no place."""
        try:
            return str(self.base.joinpath(*self.place(put).path))
        except Refused:
            return show_path(put.path)

    def time_lost(self, path: Parts) -> None:
        self._reporter.note(f"{self.base.joinpath(*path)}: its time can't be kept by the disk here")

    def withdrawn(self, put: "Put", code: Code | None) -> None:
        name = show_path(put.path)
        if code is Code.UNAVAILABLE:
            self.missing.wait_for(name, code)
            return
        code = Code.CHANGED if code in (None, Code.CHANGED) else Code.UNREADABLE
        told: TransferError = not_given(Refused(code), name)
        if self.to_pipe and self._has_written:
            told = IntegrityError(
                f"what was written to standard output is not whole ({told.cause})", "Throw it away, try again"
            )
        self.missing.withdraw(put.path, told)

    def cut_off(self, put: "Put", size: int, kept: bool) -> None:
        pass

    def pause(self) -> None:
        self._reporter.pause()

    def not_given(self, id: int, problem: Refused) -> None:
        if id > len(self.wanted):
            raise ProtocolViolation("a refusal of what was not asked for")
        self._answered.add(self.wanted[id - 1][-1:])
        name = show_path(self.wanted[id - 1]) or "your folder"
        if problem.code in PASSING:  # it is there again soon, perhaps
            self.missing.wait_for(name, problem.code)
        else:
            self.missing.fail(name, not_given(problem, name))

    def omitted(self, told: "Omitted") -> None:
        if told.id > len(self.wanted):
            raise ProtocolViolation("word of something that was not asked for")
        wanted = self.wanted[told.id - 1]
        self._answered.add(wanted[-1:])
        name = "/".join((*wanted[:-1], told.name))
        if told.code is Code.UNAVAILABLE:
            self.missing.wait_for(name, told.code)
        else:
            report_omitted(self._reporter, told, name, self.missing.fail)

    def check_answered(self) -> None:
        """After the server's BYE: what was withdrawn has failed, unless it came again, with an unknown size.

        Raises ProtocolViolation when the server has ended without a word about something that was asked for, and
        PeerStopped when something was out of its reach.
        """
        if any(wanted[-1:] not in self._answered for wanted in self.wanted):
            raise ProtocolViolation("no answer to a GET")
        self.missing.end()


class _Remembering:
    """A folder that answers for what was fetched by an earlier connection of this run."""

    def __init__(self, folder: "Folder", done: set[bytes]) -> None:
        self._folder, self._done = folder, done
        self.publish, self.start_publishing = folder.publish, folder.start_publishing
        self.finish_publishing = folder.finish_publishing
        self.finish_folders = folder.finish_folders
        self.begin_anyway, self.make_folder = folder.begin_anyway, folder.make_folder

    def begin(self, incoming: "Incoming", resumable: bool) -> "TemporaryFile | Settled | ExistingFile":
        from sft.disk.temporary import Settled

        if _key(incoming) in self._done:
            return Settled(incoming.path, skipped=True)
        return self._folder.begin(incoming, resumable)


def _key(incoming: "Incoming") -> bytes:
    """What a file that was fetched is known by; there may be millions."""
    return digest(f"{'/'.join(incoming.path)}\0{incoming.size}\0{incoming.mtime}".encode())[:16]


def names_in_order(items: Iterable[Item]) -> Iterator[str]:
    """What has not arrived, for people: folders say nothing that their files do not."""
    return (item.name for item in items if item.open is not None)


def is_regular(path: Path) -> tuple[int, int] | None:
    """Device and inode of a regular file; None when there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_dev, state.st_ino) if stat.S_ISREG(state.st_mode) else None
