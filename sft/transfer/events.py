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

from sft.common.errors import Code, Refused, TransferError
from sft.common.values import value
from sft.transfer.items import Item

if TYPE_CHECKING:  # a client says hello before it loads the messages
    from sft.wire.messages import Misnamed, Omitted, Put, Receipt

What = TypeVar("What", bound="Item | Put | Misnamed")


@value
class Started(Generic[What]):
    """It is announced; `size` in bytes, None for a stream or a folder."""

    what: What
    size: int | None


@value
class BatchStarted(Generic[What]):
    """Small files in one message, each with its size, and so many bytes of content, which were sent or are here."""

    files: Sequence[tuple[What, int]]
    count: int


@value
class BatchSettled(Generic[What]):
    """What became of files that came in one message: for each its receipt, or why it is not accepted."""

    files: Sequence[tuple[What, "Receipt | Refused"]]


@value
class BatchCutOff:
    """The connection ended before all files of a message had their outcome: what had become of these."""

    files: Sequence[tuple["Put | Misnamed", "Receipt | Refused"]]


@value
class Checked:
    """`count` more bytes were read, to compare them with what an earlier attempt left at the other end."""

    what: Item
    count: int


@value
class Resumed(Generic[What]):
    """Its content goes on from `offset`."""

    what: What
    offset: int


@value
class Restarted:
    """What an earlier attempt left is not its beginning: its content starts again."""

    what: Item


@value
class Progress(Generic[What]):
    """`count` more bytes of its content were sent, or have arrived."""

    what: What
    count: int


@value
class Sealed:
    """The whole content of a large file was sent; its END is next."""

    what: Item
    size: int
    sha256: bytes


@value
class TimeClamped:
    """Its modification time can't be expressed, and is sent as the nearest one that can."""

    what: Item


@value
class Grown:
    """It has grown since it was opened: what is sent are the `size` bytes that it had then."""

    what: Item
    size: int


@value
class Delivered(Generic[What]):
    """It is at its place on the receiving end's disk, or was skipped on purpose: the receipt has the outcome."""

    what: What
    receipt: "Receipt"


@value
class Failed:
    """It does not arrive."""

    what: Item
    problem: TransferError


@value
class Rejected:
    """This end does not accept it."""

    what: "Put | Misnamed"
    problem: Refused


@value
class Withdrawn:
    """The other end began to send it and gave up, because of `code` (None: unknown); it may announce it again."""

    what: "Put"
    code: Code | None


@value
class CutOff:
    """The connection ended in the middle of it, after `size` bytes; `kept`: another attempt can resume it."""

    what: "Put"
    size: int
    kept: bool


@value
class TimeLost:
    """The disk can't hold the modification time of the file or folder at `path`."""

    path: tuple[str, ...]


@value
class NotGiven:
    """The other end refuses the GET with that `id`."""

    id: int
    problem: Refused


@value
class Missed:
    """The other end does not give a name, and perhaps more, in a folder that was asked for."""

    omitted: "Omitted"


@value
class Idle:
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
