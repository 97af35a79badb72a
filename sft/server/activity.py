"""What the connections of a server process do now, and what all of them have done since its start.

Rules: it is fed with the events of transfers, and asked from other threads. Everything is under one lock, which is
held for moments and takes no other. Files of a batch are counted together: 0.2 us each. Bytes are those of a
connection's records, read off its channel when somebody asks; the frames of a login are not among them. A total never
falls. Nothing is written or sent here.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from sft.common.errors import Refused
from sft.common.text import show_briefly
from sft.transfer.events import (
    BatchCutOff,
    BatchSettled,
    BatchStarted,
    CutOff,
    Delivered,
    Failed,
    Progress,
    ReceiveEvent,
    Rejected,
    Restarted,
    Resumed,
    SendEvent,
    Started,
    Withdrawn,
)
from sft.transfer.items import Item
from sft.wire.messages import Misnamed, Put, Receipt

Direction = Literal["received", "sent"]
LoginOutcome = Literal["accepted", "refused", "throttled", "none", "busy"]
FileOutcome = Literal["stored", "already", "skipped", "folder", "refused", "failed", "withdrawn", "cut_off"]
LOGIN_OUTCOMES: tuple[LoginOutcome, ...] = ("accepted", "refused", "throttled", "none", "busy")
_THERE: tuple[FileOutcome, ...] = ("stored", "already")  # the receiving end has the file, and has said so
FILE_OUTCOMES: Mapping[Direction, tuple[FileOutcome, ...]] = {
    "received": (*_THERE, "skipped", "folder", "refused", "withdrawn", "cut_off"),
    "sent": (*_THERE, "skipped", "folder", "refused", "failed"),
}

_BATCH_SECONDS = 2.0  # for so long after a batch its last file is the one that moves, unless a large one does


class Traffic(Protocol):
    """What counts the bytes of one connection."""

    @property
    def bytes_received(self) -> int: ...

    @property
    def bytes_sent(self) -> int: ...


class Moving(NamedTuple):
    """The file that moves now: its name, its bytes in all (None: nobody knows) and how many of them have moved."""

    name: str
    direction: Direction
    size: int | None
    done: int


class ConnectionState(NamedTuple):
    """One logged-in connection at one moment. `since`: seconds since 1970. Files are those with a receipt."""

    number: int
    user: str
    source: str
    since: float
    moving: Moving | None
    bytes_received: int
    bytes_sent: int
    files_received: int
    files_sent: int


class Totals(NamedTuple):
    """Everything since the start, what goes on now included. `connections`: how many there are now."""

    connections: int
    logins: Mapping[LoginOutcome, int]
    files: Mapping[tuple[Direction, FileOutcome], int]
    bytes_received: int
    bytes_sent: int
    connection_seconds: float


class _File:
    """A file on its way."""

    __slots__ = ("direction", "done", "size", "what")

    def __init__(self, what: Item | Put, direction: Direction, size: int | None, done: int = 0) -> None:
        self.what, self.direction, self.size, self.done = what, direction, size, done

    def shown(self) -> Moving:
        name = self.what.name if isinstance(self.what, Item) else show_briefly(self.what.path)
        return Moving(name, self.direction, self.size, self.done)


class ActiveConnection:
    """One logged-in connection: give it the events of its transfers, and call `end`."""

    def __init__(self, owner: "Activity", number: int, user: str, source: str, traffic: Traffic) -> None:
        self._owner, self._lock = owner, owner.lock
        self._number, self._user, self._source, self._traffic = number, user, source, traffic
        self._since, self.began = time.time(), owner.clock()
        self._files: Counter[tuple[Direction, FileOutcome]] = Counter()
        self._open: dict[int, _File] = {}  # large files, by the identity of what was announced
        self._latest: _File | None = None  # of those
        self._of_batch: _File | None = None
        self._batch_at = 0.0

    def on_receive_event(self, event: ReceiveEvent) -> None:
        """Note what happens to a file that comes."""
        self._note("received", event)

    def on_send_event(self, event: SendEvent) -> None:
        """Note what happens to a file that goes."""
        self._note("sent", event)

    def end(self) -> None:
        """It has ended; a second call does nothing."""
        self._owner.ended(self)

    @property
    def files_received(self) -> int:
        """How many files of the client are there, new or already."""
        return self._there("received")

    @property
    def files_sent(self) -> int:
        """How many files the client has said that it has, new or already."""
        return self._there("sent")

    def state(self) -> ConnectionState:
        """As it is now; under the lock."""
        traffic = self._traffic
        return ConnectionState(
            self._number,
            self._user,
            self._source,
            self._since,
            self._moving(),
            traffic.bytes_received,
            traffic.bytes_sent,
            self.files_received,
            self.files_sent,
        )

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent so far."""
        return self._traffic.bytes_received, self._traffic.bytes_sent

    def _there(self, direction: Direction) -> int:
        return sum(self._files[direction, outcome] for outcome in _THERE)

    def _moving(self) -> Moving | None:
        if self._latest is not None:
            return self._latest.shown()
        if self._of_batch is not None and self._owner.clock() - self._batch_at < _BATCH_SECONDS:
            return self._of_batch.shown()
        return None

    def _note(self, direction: Direction, event: ReceiveEvent | SendEvent) -> None:
        match event:
            case Progress(what, count):
                self._moved(what, direction, count)
            case BatchSettled(files) | BatchCutOff(files):
                self._settled_together(direction, files)
            case BatchStarted(files):
                self._begun_together(direction, files)
            case Started(what, size):
                with self._lock:
                    self._open[id(what)] = self._latest = _File(what, direction, size)
            case Resumed(what, offset):
                self._is_at(what, offset)
            case Restarted(what):
                self._is_at(what, 0)
            case Delivered(what, receipt):
                self._settled(direction, what, receipt.outcome)
            case Rejected(what):
                self._settled(direction, what, "refused")
            case Failed(what, problem):
                self._settled(direction, what, "refused" if isinstance(problem, Refused) else "failed")
            case Withdrawn(what):
                self._settled(direction, what, "withdrawn")
            case CutOff(what):
                self._settled(direction, what, "cut_off")

    def _moved(self, what: Item | Put, direction: Direction, count: int) -> None:
        with self._lock:
            file = self._open.get(id(what))
            if file is not None:
                file.done += count
                self._latest = file

    def _is_at(self, what: Item | Put, offset: int) -> None:
        with self._lock:
            file = self._open.get(id(what))
            if file is not None:
                file.done = offset

    def _settled(self, direction: Direction, what: Item | Put | Misnamed, outcome: FileOutcome) -> None:
        with self._lock:
            if self._open.pop(id(what), None) is self._latest:
                self._latest = next(reversed(self._open.values()), None)
            self._add({(direction, outcome): 1})

    def _begun_together(self, direction: Direction, files: Sequence[tuple[Item | Put, int]]) -> None:
        if files:
            what, size = files[-1]
            with self._lock:
                self._of_batch, self._batch_at = _File(what, direction, size, size), self._owner.clock()

    def _settled_together(
        self, direction: Direction, files: Sequence[tuple[Item | Put | Misnamed, Receipt | Refused]]
    ) -> None:
        outcomes: Counter[FileOutcome] = Counter(
            ["refused" if isinstance(became, Refused) else became.outcome for _, became in files]
        )
        with self._lock:
            self._add({(direction, outcome): count for outcome, count in outcomes.items()})

    def _add(self, files: Mapping[tuple[Direction, FileOutcome], int]) -> None:
        for key, count in files.items():
            self._files[key] += count
            self._owner.files[key] += count


class Activity:
    """One for a server process. Safe to use from several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.files: Counter[tuple[Direction, FileOutcome]] = Counter()  # under the lock
        self._logins: Counter[LoginOutcome] = Counter()
        self._connections: dict[ActiveConnection, None] = {}  # the oldest first
        # Of connections that have ended.
        self._bytes_received = self._bytes_sent = 0
        self._seconds = 0.0

    def login(self, outcome: LoginOutcome) -> None:
        """A login has ended like that, or was not allowed to begin (`busy`)."""
        with self.lock:
            self._logins[outcome] += 1

    def begin(self, number: int, user: str, source: str, traffic: Traffic) -> ActiveConnection:
        """A client has logged in; call `end` of what this returns."""
        connection = ActiveConnection(self, number, user, source, traffic)
        with self.lock:
            self._connections[connection] = None
        return connection

    def ended(self, connection: ActiveConnection) -> None:
        """See ActiveConnection.end."""
        with self.lock:
            if connection in self._connections:
                del self._connections[connection]
                received, sent = connection.traffic
                self._bytes_received += received
                self._bytes_sent += sent
                self._seconds += self.clock() - connection.began

    def connections(self) -> list[ConnectionState]:
        """All connections of logged-in users, the oldest first."""
        with self.lock:
            return [each.state() for each in self._connections]

    def totals(self) -> Totals:
        """Everything so far, each outcome included that has not come yet."""
        with self.lock:
            traffic = [each.traffic for each in self._connections]
            now = self.clock()
            return Totals(
                len(traffic),
                {outcome: self._logins[outcome] for outcome in LOGIN_OUTCOMES},
                {(way, outcome): self.files[way, outcome] for way, of in FILE_OUTCOMES.items() for outcome in of},
                self._bytes_received + sum(received for received, _ in traffic),
                self._bytes_sent + sum(sent for _, sent in traffic),
                self._seconds + sum(now - each.began for each in self._connections),
            )
