"""What one run of the client sends: items made of the sources, and what becomes of each, over all its connections.

Rules: what can be rejected without the network is, first. Our own log, the file of our receipts and what an interrupted
fetch left are not sent. What is wrong with one source is reported, and the others are sent. An item leaves `left` with
its receipt or when it has failed; one that another transfer holds (`busy`) or that a stopping server refuses stays for
another connection.
"""

import functools
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_utils import random_bytes
from sft.client.finishing import Finishing
from sft.client.own_logs import OwnFiles
from sft.client.refusals import GROWN, TIME_BEYOND, refused_name, refused_there
from sft.client.sending_plan import SendingPlan
from sft.client.sources import NamedSource, check_named, counts, items_of, tell_unsent
from sft.client.targets import name_of_source, remote_paths
from sft.client.there import There, places_to_look
from sft.client.updating import Sending, Updating
from sft.common.errors import (
    PASSING_CODES,
    Code,
    ConnectionTrouble,
    Failure,
    PeerStopped,
    Refused,
    SourceError,
    TransferError,
)
from sft.common.names import LOCAL_PARTIAL_AREA, PathParts
from sft.common.text import show_path
from sft.console.command_line import PIPE
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter
from sft.disk.chosen import Chosen
from sft.disk.source_folders import Folders
from sft.disk.sources import PipeSource, Source
from sft.disk.tree import Files, Found, Tree, Walked, one_by_one
from sft.transfer.events import (
    BatchSettled,
    BatchStarted,
    Checked,
    Delivered,
    Failed,
    Grown,
    Idle,
    Progress,
    Restarted,
    Resumed,
    Sealed,
    Started,
    TimeClamped,
)
from sft.transfer.items import Item
from sft.wire.protocol import TRANSFER_ID_SIZE

if TYPE_CHECKING:  # a client sends its hello before it loads the messages
    from sft.common.rate_limit import RateLimiter
    from sft.transfer.events import SendEvent
    from sft.transfer.shrinking import Compress
    from sft.wire.channel import Arrived, Channel
    from sft.wire.handshake import SessionKeys
    from sft.wire.messages import PolicyWord, Receipt

_EVERYTHING = Chosen()


class Upload:
    """The items of one run, in order, and what becomes of them."""

    def __init__(
        self,
        reporter: Reporter,
        policy: "PolicyWord",
        follow: bool,
        keep_modes: bool,
        logs: set[tuple[int, int]],
        chosen: Chosen = _EVERYTHING,
        finishing: Finishing | None = None,
        links: bool = False,
        plan: SendingPlan | None = None,
    ) -> None:
        """`logs`: device and inode of each of our own logs, which are never sent. `chosen`: what of the sources is.

        `finishing`: only what has changed is sent, and that is done behind it, or told in a `plan`.
        """
        self._reporter, self._policy, self._follow = reporter, policy, follow
        self._own_files = OwnFiles(logs)
        self._keep_modes, self._links, self._chosen = keep_modes, links, chosen
        self._transfer = random_bytes(TRANSFER_ID_SIZE)  # of all small files
        self._checked: dict[Item, int] = {}
        self.left: dict[Item, None] = {}
        self._waiting: dict[Item, PathParts] = {} if finishing is None else finishing.way.waiting
        self._folders: dict[Item, None] = {}  # that are there; each gets its time at the end of a connection
        self.busy: dict[Item, Refused] = {}
        self.stopping: Refused | None = None
        self.total: int | None = 0
        self.file_count = 0
        self.pipe: PipeSource | None = None
        self.is_over = self._is_found = False  # nothing more of it is wanted; all of it is found
        self.is_deep = False  # a source is a folder: there may be more than was found yet
        self._there = There(policy)
        self._updating: Updating | None = None
        if finishing is not None:
            excluded = chosen.exclusions.is_excluded
            sending = Sending(self._take, self.left, self._own_files, excluded, lambda: self.is_over)
            sets_modes = keep_modes and (plan is None or plan.is_update)
            self._updating = Updating(reporter, sets_modes, finishing, sending, plan)
        self._opened = Folders()
        self._found: deque[NamedSource] = deque()

    def leave_out(self, identity: tuple[int, int], what: str) -> None:
        """Never send that file, which is `what`."""
        self._own_files.add(identity, what)

    def plan(self, sources: list[str], target: str) -> None:
        """Find what is to be sent; what lies in folders is left to `look_below`, because it may take long.

        Raises UsageError. What is wrong with one source is reported.
        """
        folders: list[PathParts] = []
        files: list[PathParts] = []
        for source, path in remote_paths(sources, target):
            if source == PIPE:
                self._add_pipe(path)
                continue
            tree = Tree(str(Path(source)), self._follow, self._opened, self._chosen, self._links)
            found = tree.walk_by_runs()
            first = next(found)
            if isinstance(first, Found):
                check_named(source, first.is_folder, self._chosen)
                if self._chosen.exclusions.is_source_excluded(name_of_source(source), first.is_folder):
                    self._reporter.skipped(source, "excluded", is_wanted=True)
                    continue
                folder = self._reporter.name_folder(show_path(path)) if first.is_folder else None
                self._found.append(NamedSource(first, found, tree, path, folder))
                self.is_deep = self.is_deep or first.is_folder
                (folders if first.is_folder else files).append(path)
            elif not isinstance(first, Files):
                self._take(first, tree, path)
        if self._updating is None:
            self._there.look_below(places_to_look(folders, files))
            if not self.is_deep:
                self.look_below()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send, as far as is known yet."""
        return not self.left and not self._found

    def look_below(self) -> None:
        """Find everything below the sources, in order; called from one thread of any kind."""
        if self._updating is not None:
            self._updating.look(self._found)
            return
        while self._found:
            source, count = self._found.popleft(), 0
            for each in itertools.chain([source.first], source.below):
                if self.is_over:
                    return
                many = self._take_files(each, source) if isinstance(each, Files) else 0
                count += many
                for one in one_by_one([] if many else [each]):
                    self._take(one, source.tree, source.place, source.folder)
                    count += counts(one, source.place)
            if source.folder is not None:
                self._reporter.folder_found(source.folder, count)
        self._is_found = True

    def _take_files(self, files: Files, source: NamedSource) -> int:
        """Make items of all; how many, or 0 where each has to be looked at by itself."""
        if not self._own_files.has_none(files):
            return 0
        items = items_of(files, source, self._policy, self._keep_modes, self._open)
        self.left.update(dict.fromkeys(items))
        self.file_count += len(items)
        self.total = None if self.total is None else self.total + sum([line[3] for line in files.lines if items])
        return len(items)

    def to_send(self) -> list[Item]:
        """What the next connection sends: what is left, and folders whose time a connection that broke did not set."""
        return [*self._folders, *self.left]

    def connection_ended(self) -> None:
        """The receiver has ended well and set the times of the folders, which change again where more is to be sent."""
        above = {item.target[:depth] for item in [*self.left, *self._waiting] for depth in range(1, len(item.target))}
        self._folders = {folder: None for folder in self._folders if folder.target in above}

    def _take(self, found: Walked, tree: Tree, place: PathParts, within: NamedFolder | None = None) -> Item | None:
        """Make an item of it, or report why not."""
        if isinstance(found, Found):
            return self._take_found(found, tree, place, within)
        tell_unsent(self._reporter, found, within)
        return None

    def _take_found(self, found: Found, tree: Tree, place: PathParts, within: NamedFolder | None) -> Item | None:
        if self._own_files.has(found):
            if LOCAL_PARTIAL_AREA not in found.parts:  # left by an interrupted --get, and not the user's content
                what = self._own_files.what(found.identity) or ""
                self._reporter.skipped(found.path, what, within, is_wanted=True)
            return None
        path = (*place, *found.parts)
        if found.is_folder:
            return self._add(found.path, path, None, found.mtime, found.mode, within) if path else None
        if found.leads_to is not None:
            return self._add(found.path, path, None, found.mtime, None, within, found.leads_to)
        opens = functools.partial(self._open, tree, found.path, found.parts)
        item = self._add(found.path, path, opens, None, None, within)
        if item is not None:
            item.found_size = found.size
            self.total = None if self.total is None else self.total + found.size
        return item

    def _add_pipe(self, path: PathParts) -> None:
        if sys.stdin is None:
            raise SourceError("standard input is closed", "Name a file as SOURCE")
        self.pipe = PipeSource(0)
        self._add("standard input", path, self._open_pipe)
        self.total = None

    def _open_pipe(self) -> Source:
        """Once only: what was read of it can't be read again."""
        if self.pipe is None or self.pipe_is_spent:
            raise SourceError("standard input can't be read again", "Start the whole command again")
        return self.pipe

    def _open(self, tree: Tree, path: str, parts: PathParts) -> Source:
        source = tree.open(path, parts)
        if (own := self._own_files.what(source.identity)) is not None:
            source.close()
            raise SourceError(f"{path} is {own}", "Name another file for that, or leave it out")
        return source

    def _add(
        self,
        name: str,
        target: PathParts,
        open: Callable[[], Source] | None,
        mtime: int | None = None,
        mode: int | None = None,
        within: NamedFolder | None = None,
        leads_to: str | None = None,
    ) -> Item | None:
        keeps = self._keep_modes
        item = Item(name, target, self._policy, open, mtime, mode if keeps else None, keeps, leads_to=leads_to)
        item.within = within
        try:
            item.judge()
        except Refused as problem:
            self._reporter.failed(name, refused_name(problem, target), within=within)
            return None
        self.left[item] = None
        self.file_count += open is not None
        return item

    def names_left(self) -> list[str]:
        """The files without a receipt, in order; a folder is not a line of its own."""
        return [item.name for item in [*self.left, *self._waiting] if item.kind != "folder"]

    def look_there(self, channel: "Channel", messages: "Iterator[Arrived | None]") -> int:
        """Ask the receiver what it has where things are going to; the id of the last question."""
        answers = (arrived[0] for arrived in messages if arrived is not None)
        if self._updating is not None:
            return self._updating.compare(channel, answers)
        return self._there.read(channel, answers, lambda: len(self.left) if self._is_found else None)

    def _offered(self, items: list[Item]) -> Iterator[Item]:
        """The items, of which those that may be there are offered first."""
        for item in items:
            if self._updating is not None:
                item.offer = self._updating.is_worth_offering(item)
            else:
                item.offer = self._there.is_worth_offering(item.target, item.found_size)
            yield item

    def send(
        self,
        channel: "Channel",
        keys: "SessionKeys",
        limiter: "RateLimiter",
        compress: "Compress",
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Send what is left over one connection. Raises what `Sender.run` raises, and PeerStopped.

        Meanwhile more may be found; `wait()` waits until everything is.
        """
        from sft.transfer.sender import Sender
        from sft.wire.compression import is_installed

        messages = channel.messages()
        last_id = self.look_there(channel, messages)
        wait()
        self.busy.clear()
        self.stopping = None
        try:
            how, secret, transfer = compress if is_installed() else "off", keys.file_c2s, self._transfer
            sender = Sender(
                channel, messages, secret, self.on_event, limiter, compress=how, transfer=transfer, last_id=last_id
            )
            sender.run(self._offered(self.to_send()))
            self.connection_ended()
            if self.stopping is not None:
                raise PeerStopped(self.stopping.code)
        except ConnectionTrouble as problem:
            if not self.to_send():
                return  # with a receipt for everything, an end without BYE is as good as one with
            if self.pipe_is_spent:
                (item,) = self.left  # it is sent alone
                visible = "nothing became visible" if item.sha256 is None else "the whole file may be there"
                remedy = f"Start the whole command again; {visible}"
                raise ConnectionTrouble(problem.cause, remedy, Failure.FINAL) from None
            raise

    @property
    def pipe_is_spent(self) -> bool:
        """Whether standard input was read from: what was read can't be read again."""
        return self.pipe is not None and self.pipe.begun

    # --- what becomes of the items ---

    def on_event(self, event: "SendEvent") -> None:
        """Note it, and pass it on to the reporter. Called from two threads."""
        match event:
            case Delivered():
                self._delivered(event.what, event.receipt)
            case BatchSettled(files):
                self._settled(files)
            case BatchStarted(files, count):
                self._started(files)
                self._reporter.moved(count, files[-1][0].name)
            case Progress():
                if self._checked and (checked := self._checked.pop(event.what, 0)):
                    self._reporter.unchecked(checked)
                self._reporter.moved(event.count, event.what.name)
            case Started():
                self._started([(event.what, event.size)])
            case Idle():
                self._reporter.pause()
            case Failed():
                self._failed(event.what, event.problem)
            case Checked() | Resumed() | Restarted():
                self._compared(event)
            case Sealed(item, size, sha256):
                self._reporter.sealed(item.name, size, sha256)
            case TimeClamped(item) | Grown(item):
                self._reporter.note(f"{item.name}: {TIME_BEYOND if isinstance(event, TimeClamped) else GROWN}")

    def _started(self, files: "Sequence[tuple[Item, int | None]]") -> None:
        if self._reporter.tells_starts:
            for item, size in files:
                if item.open is not None:
                    self._reporter.started(item.name, item.target, size)

    def _settled(self, files: "Sequence[tuple[Item, Receipt | Refused]]") -> None:
        with self._reporter.together():
            for item, became in files:
                if isinstance(became, Refused):
                    self._failed(item, became)
                else:
                    self._delivered(item, became)

    def _compared(self, event: "Checked | Resumed[Item] | Restarted") -> None:
        match event:
            case Checked(item, count):
                self._checked[item] = self._checked.get(item, 0) + count
                self._reporter.checking(item.name, count)
            case Resumed(item, offset):
                self._checked.pop(item, None)
                self._reporter.resumed(item.name, offset)
            case Restarted(item) if item.policy == "replace":  # than the file that it is going to replace
                self._reporter.unchecked(self._checked.pop(item, 0))
            case Restarted(item):
                self._reporter.restarted(item.name, self._checked.pop(item, 0))

    def _delivered(self, item: Item, receipt: "Receipt") -> None:
        was_left = item in self.left
        self.left.pop(item, None)
        if receipt.outcome == "folder":
            self._folders[item] = None
            if was_left:
                self._reporter.folder_there(item.within)
            return
        if receipt.outcome == "already" and self._updating is not None:
            self._updating.is_there(item)
        path, within = show_path(receipt.path), item.within
        if receipt.outcome == "skipped":
            self._reporter.skipped(path, "it is there", within, is_wanted=True)
        else:
            sha256 = receipt.sha256 or b""
            size, time, outcome = receipt.size, receipt.time, receipt.outcome
            self._reporter.delivered(item.name, path, size, sha256, time, outcome, within, item.leads_to)

    def _failed(self, item: Item, problem: TransferError) -> None:
        if isinstance(problem, Refused):
            is_blind = self._updating is not None and self._updating.is_blind
            problem = refused_there(problem, show_path(item.target), item.leads_to is not None, is_blind)
        if isinstance(problem, Refused) and problem.code is Code.BUSY:
            self.busy[item] = problem
        elif isinstance(problem, Refused) and problem.code in PASSING_CODES:
            self.stopping = problem
        else:
            self.left.pop(item, None)
            self._reporter.failed(item.name, problem, within=item.within)
