"""What the receiving end answers about single files, folders and links: RECEIPT, or REFUSE.

Rules: each is answered once, and with the answer goes its event. Of what is refused nothing is kept, unless it is to be
sent again. Only the thread that receives uses this.
"""

import time
from collections.abc import Callable

from sft.common.errors import Refused
from sft.disk.temporary import Settled, end_file
from sft.transfer.arriving import Arriving
from sft.transfer.batches import Batches
from sft.transfer.events import Delivered, ReceiveEvent, Rejected, TimeLost
from sft.transfer.groups import Published
from sft.wire.channel import Channel
from sft.wire.messages import FOLDER, Kind, ReceiptOutcome, Refuse


class Answers:
    """Those of one connection."""

    def __init__(self, channel: Channel, on_event: Callable[[ReceiveEvent], None]) -> None:
        self._channel, self._on_event = channel, on_event

    def group(self, group: Published, batches: Batches) -> None:
        """A group was published. Those of BATCHes are answered by `batches`."""
        answers: list[bytes] = []
        for arriving, partial, outcome in batches.settle(group):
            arriving.partial = None
            if isinstance(outcome, Refused):
                self._channel.post(*answers)
                answers.clear()
                self.refuse(arriving, outcome)
            else:
                word = "folder" if arriving.put.kind == FOLDER else outcome.word
                answers.append(self._receipt_for(arriving, outcome, word))
                if outcome.word == "stored" and not partial.has_time:
                    self._on_event(TimeLost(outcome.path))
        self._channel.post(*answers)

    def receipt(self, arriving: Arriving, published: Settled, outcome: ReceiptOutcome) -> None:
        """One that needs no content."""
        self._channel.post(self._receipt_for(arriving, published, outcome))
        arriving.forget()

    def _receipt_for(self, arriving: Arriving, published: Settled, outcome: ReceiptOutcome) -> bytes:
        arriving.sent(Kind.RECEIPT)
        ours, theirs = arriving.receipts(published, time.time_ns(), outcome)
        self._on_event(Delivered(arriving.put, ours))
        return theirs.encode()

    def refuse(self, arriving: Arriving, problem: Refused) -> None:
        """Say no to this one, now or in the middle of it, and keep nothing of it, unless it is to be sent again."""
        if arriving.partial is not None:
            end_file(arriving.partial, problem.code)
            arriving.partial = None
        arriving.sent(Kind.REFUSE)
        self._on_event(Rejected(arriving.put, problem))
        self._channel.post(Refuse(arriving.put.id, problem.code).encode())
        arriving.forget()
