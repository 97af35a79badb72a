"""One announced item on its way out, as the sending half knows it.

Rules: it does nothing by itself. It lives until it is settled by the other end and closed by this one.
"""

from typing import TYPE_CHECKING

from sft.disk.sources import Source
from sft.transfer.items import Item, memory_of
from sft.wire.protocol import UNASKED_LIMIT

if TYPE_CHECKING:
    from hashlib import _Hash


class Outgoing:
    """One announced item, until it is settled (RECEIPT, REFUSE or withdrawn) and closed (END or CANCEL sent)."""

    __slots__ = (
        *("accepted", "asked", "begun", "checked", "checks", "closed", "digest", "id", "item", "memory", "proof"),
        *("settled", "sha256", "size", "source", "unasked"),
    )

    digest: "_Hash"  # of what is asked for first, from its first byte on

    def __init__(
        self, item: Item, source: Source | None, id: int, size: int | None, body: bytes, proof: "_Hash"
    ) -> None:
        """`body`: that of the PUT, whose `id` and `size` they are; `proof`: the HMAC of END, begun with it."""
        self.item, self.source, self.id, self.size, self.proof = item, source, id, size, proof
        self.memory = memory_of(body, item.target)
        self.settled = False
        self.closed = source is None  # a folder is all said with its PUT
        self.begun = False
        self.asked = False  # a CHECK is here and not answered yet
        self.accepted = False  # an ACCEPT is here that was waited for
        self.checks = 0  # how many have come
        self.checked = 0  # the size of the last CHECK that was answered; `digest` has so many bytes of the source
        self.sha256: bytes | None = None
        self.unasked = source is None or (size is not None and size <= UNASKED_LIMIT)
