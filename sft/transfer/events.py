"""What happens to each file in a transfer: events, which both halves give to one function, `on_event`.

    of each file      sending half                    receiving half
    begins            Started, BatchStarted           Started, BatchStarted
    goes on           Checked, Resumed, Restarted,    Resumed, Progress
                      Progress, Sealed, TimeClamped,
                      Grown
    ends              Delivered | Failed              Delivered | Rejected | Withdrawn | CutOff
    ends, in a batch  BatchSettled                    BatchSettled | BatchCutOff | CutOff

and of no file in particular: NotGiven and Missed (an answer to a GET), TimeLost, Idle.

Rules: each file that is sent ends with exactly one Delivered or Failed, or in one BatchSettled. The sending half calls
`on_event` from two threads, the receiving half from one. What `on_event` raises ends the connection. Events are values:
nothing is done here. `what` is the Item that is sent, or the PUT that was received; a file of a BATCH has one, too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from sft.common.errors import Code, Refused, TransferError
from sft.transfer.items import Item

if TYPE_CHECKING:  # a client says hello before it loads the messages
    from sft.wire.messages import Misnamed, Omitted, Put, Receipt

What = TypeVar("What", bound="Item | Put | Misnamed")


class Started(Struct, Generic[What], frozen=True):
    """It is announced; `size` in bytes, None for a stream or a folder."""

    what: What
    size: int | None


class BatchStarted(Struct, Generic[What], frozen=True):
    """Small files in one message, each with its size, and so many bytes of content, which were sent or are here."""

    files: Sequence[tuple[What, int]]
    count: int


class BatchSettled(Struct, Generic[What], frozen=True):
    """What became of files that came in one message: for each its receipt, or why it is not accepted."""

    files: Sequence[tuple[What, "Receipt | Refused"]]


class BatchCutOff(Struct, frozen=True):
    """The connection ended before all files of a message had their outcome: what had become of these."""

    files: Sequence[tuple["Put | Misnamed", "Receipt | Refused"]]


class Checked(Struct, frozen=True):
    """`count` more bytes were read, to compare them with what an earlier attempt left at the other end."""

    what: Item
    count: int


class Resumed(Struct, Generic[What], frozen=True):
    """Its content goes on from `offset`."""

    what: What
    offset: int


class Restarted(Struct, frozen=True):
    """What an earlier attempt left is not its beginning: its content starts again."""

    what: Item


class Progress(Struct, Generic[What], frozen=True):
    """`count` more bytes of its content were sent, or have arrived."""

    what: What
    count: int


class Sealed(Struct, frozen=True):
    """The whole content of a large file was sent; its END is next."""

    what: Item
    size: int
    sha256: bytes


class TimeClamped(Struct, frozen=True):
    """Its modification time can't be expressed, and is sent as the nearest one that can."""

    what: Item


class Grown(Struct, frozen=True):
    """It has grown since it was opened: what is sent are the `size` bytes that it had then."""

    what: Item
    size: int


class Delivered(Struct, Generic[What], frozen=True):
    """It is at its place on the receiving end's disk, or was skipped on purpose: the receipt has the outcome."""

    what: What
    receipt: "Receipt"


class Failed(Struct, frozen=True):
    """It does not arrive."""

    what: Item
    problem: TransferError


class Rejected(Struct, frozen=True):
    """This end does not accept it."""

    what: "Put | Misnamed"
    problem: Refused


class Withdrawn(Struct, frozen=True):
    """The other end began to send it and gave up, because of `code` (None: unknown); it may announce it again."""

    what: "Put"
    code: Code | None


class CutOff(Struct, frozen=True):
    """The connection ended in the middle of it, after `size` bytes; `kept`: another attempt can resume it."""

    what: "Put"
    size: int
    kept: bool


class TimeLost(Struct, frozen=True):
    """The disk can't hold the modification time of the file or folder at `path`."""

    path: tuple[str, ...]


class NotGiven(Struct, frozen=True):
    """The other end refuses the GET with that `id`."""

    id: int
    problem: Refused


class Missed(Struct, frozen=True):
    """The other end does not give a name, and perhaps more, in a folder that was asked for."""

    omitted: "Omitted"


class Idle(Struct, frozen=True):
    """Nothing more has arrived for now: a good moment to write what was collected."""


IDLE = Idle()

SendEvent = (
    Started[Item]
    | BatchStarted[Item]
    | BatchSettled[Item]
    | Checked
    | Resumed[Item]
    | Restarted
    | Progress[Item]
    | Sealed
    | TimeClamped
    | Grown
    | Delivered[Item]
    | Failed
    | Idle
)
ReceiveEvent = (
    Started["Put"]
    | BatchStarted["Put"]
    | BatchSettled["Put | Misnamed"]
    | BatchCutOff
    | Resumed["Put"]
    | Progress["Put"]
    | Delivered["Put"]
    | Rejected
    | Withdrawn
    | CutOff
    | TimeLost
    | NotGiven
    | Missed
    | Idle
)
