"""What a server process says of its connections, by the events of their transfers."""

from types import SimpleNamespace

from tables import each_row

from sft.common.errors import Code, Refused, SourceError
from sft.server.activity import FILE_OUTCOMES, Activity, Direction, FileOutcome, Moving
from sft.transfer.events import (
    IDLE,
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
    TimeClamped,
    Withdrawn,
)
from sft.transfer.items import Item
from sft.wire.messages import FILE, Put, Receipt, ReceiptOutcome


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def put(name: str) -> Put:
    return Put(1, bytes(16), ("in", name), FILE, 1, None, None, "fail")


def receipt(outcome: ReceiptOutcome) -> Receipt:
    return Receipt(1, ("a",), 1, bytes(32), 0, outcome)


def item(name: str) -> Item:
    return Item(name, (name,), "skip", None)


PUT, ITEM = put("a"), item("a")
NO = Refused(Code.DENIED)
RECEIVED: list[tuple[ReceiveEvent, FileOutcome]] = [
    (Delivered(PUT, receipt("stored")), "stored"),
    (Delivered(PUT, receipt("already")), "already"),
    (Delivered(PUT, receipt("skipped")), "skipped"),
    (Delivered(PUT, receipt("folder")), "folder"),
    (Rejected(PUT, NO), "refused"),
    (Withdrawn(PUT, None), "withdrawn"),
    (CutOff(PUT, 1, True), "cut_off"),
    (BatchSettled([(PUT, receipt("stored"))]), "stored"),
    (BatchSettled([(PUT, NO)]), "refused"),
]
SENT: list[tuple[SendEvent, FileOutcome]] = [
    (Delivered(ITEM, receipt("stored")), "stored"),
    (Delivered(ITEM, receipt("skipped")), "skipped"),
    (Failed(ITEM, NO), "refused"),
    (Failed(ITEM, SourceError("it can't be read")), "failed"),
    (BatchSettled([(ITEM, receipt("already"))]), "already"),
    (BatchSettled([(ITEM, NO)]), "refused"),
]


def counted(activity: Activity) -> dict[tuple[Direction, FileOutcome], int]:
    return {key: count for key, count in activity.totals().files.items() if count}


@each_row(("event", "outcome"), RECEIVED)
def test_file_that_comes_is_counted_once_by_its_outcome(event: ReceiveEvent, outcome: FileOutcome) -> None:
    activity = Activity()
    connection = activity.begin(1, "alice", "192.0.2.1", SimpleNamespace(bytes_received=0, bytes_sent=0))
    for each in (Started(PUT, 9), Progress(PUT, 9), event, IDLE):
        connection.on_receive_event(each)
    assert counted(activity) == {("received", outcome): 1}
    assert connection.files_received == (outcome in ("stored", "already"))
    assert connection.files_sent == 0


@each_row(("event", "outcome"), SENT)
def test_file_that_goes_is_counted_once_by_its_outcome(event: SendEvent, outcome: FileOutcome) -> None:
    activity = Activity()
    connection = activity.begin(1, "alice", "192.0.2.1", SimpleNamespace(bytes_received=0, bytes_sent=0))
    for each in (TimeClamped(ITEM), Started(ITEM, 9), Progress(ITEM, 9), event, IDLE):
        connection.on_send_event(each)
    assert counted(activity) == {("sent", outcome): 1}
    assert connection.files_sent == (outcome in ("stored", "already"))


def test_each_outcome_is_there_before_it_has_come() -> None:
    totals = Activity().totals()
    assert set(totals.files) == {(way, outcome) for way, of in FILE_OUTCOMES.items() for outcome in of}
    assert set(totals.logins.values()) == set(totals.files.values()) == {0}


def test_file_that_moves_is_the_one_whose_content_came_last() -> None:
    activity = Activity()
    connection = activity.begin(7, "alice", "192.0.2.1", SimpleNamespace(bytes_received=5, bytes_sent=6))

    def moving() -> Moving | None:
        (state,) = activity.connections()
        assert (state.number, state.user, state.bytes_received, state.bytes_sent) == (7, "alice", 5, 6)
        return state.moving

    first, second = put("first"), put("second")
    assert moving() is None
    connection.on_receive_event(Started(first, 100))
    connection.on_receive_event(Started(second, None))
    connection.on_receive_event(Resumed(first, 60))
    connection.on_receive_event(Progress(first, 10))
    assert moving() == Moving("in/first", "received", 100, 70)
    connection.on_receive_event(Progress(second, 3))
    assert moving() == Moving("in/second", "received", None, 3)
    connection.on_receive_event(Delivered(second, receipt("stored")))
    assert moving() == Moving("in/first", "received", 100, 70)
    connection.on_receive_event(Rejected(first, NO))
    assert moving() is None


def test_content_that_starts_again_is_counted_from_zero() -> None:
    activity = Activity()
    connection = activity.begin(1, "alice", "192.0.2.1", SimpleNamespace(bytes_received=0, bytes_sent=0))
    for event in (Started(ITEM, 9), Resumed(ITEM, 8), Restarted(ITEM), Progress(ITEM, 2)):
        connection.on_send_event(event)
    assert activity.connections()[0].moving == Moving("a", "sent", 9, 2)


def test_last_file_of_a_batch_moves_for_a_moment() -> None:
    clock = Clock()
    activity = Activity(clock)
    connection = activity.begin(1, "alice", "192.0.2.1", SimpleNamespace(bytes_received=0, bytes_sent=0))
    connection.on_receive_event(BatchStarted([(put("a"), 3), (put("b"), 4)], 7))
    assert activity.connections()[0].moving == Moving("in/b", "received", 4, 4)
    clock.now += 2
    assert activity.connections()[0].moving is None


def test_total_keeps_what_a_connection_has_moved_when_it_ends() -> None:
    clock, traffic = Clock(), SimpleNamespace(bytes_received=10, bytes_sent=20)
    activity = Activity(clock)
    connection = activity.begin(1, "alice", "192.0.2.1", traffic)
    clock.now += 3
    before = activity.totals()
    assert (before.connections, before.bytes_received, before.bytes_sent, before.connection_seconds) == (1, 10, 20, 3)
    connection.end()
    connection.end()
    clock.now += 5
    traffic.bytes_received = 99
    assert activity.totals() == before._replace(connections=0)
