"""One announced file on its way in, as the receiving half knows it, until its END or CANCEL.

Rules: it does nothing by itself. Once it is settled nothing is left of it but where its content is, which the other
end may still send.
"""

from concurrent.futures import Future
from typing import TYPE_CHECKING

from crypto_utils import new_digest
from sft.disk.partials import Incoming, Partial
from sft.transfer.items import memory_of
from sft.wire.messages import Put
from sft.wire.protocol import UNASKED_LIMIT

if TYPE_CHECKING:
    from hashlib import _Hash


class Arriving:
    """One announced file on its way in. `partial` is None once nothing of it is wanted: what still comes is dropped."""

    __slots__ = (
        *("_put", "asked", "checks", "digest", "incoming", "kept", "last_seen", "memory", "partial", "proof"),
        *("resumable", "size", "told", "twin", "unasked"),
    )

    def __init__(self, put: Put, body: bytes, proof: "_Hash") -> None:
        """`proof`: the HMAC of END, begun with `body`."""
        self._put: Put | None = put
        self.proof: _Hash | None = proof
        self.memory = memory_of(body, put.path)
        self.incoming: Incoming | None = None
        self.partial: Partial | None = None
        self.twin: Future[bytes] | None = None
        self.kept: Future[_Hash] | None = None
        self.asked = 0  # the size of the CHECK that is not answered yet
        self.checks = 0  # how many were asked
        self.digest: _Hash = new_digest()
        self.size = 0
        self.last_seen = False
        self.told = False  # a receipt or a refusal was sent
        self.resumable = put.size is not None and put.size > UNASKED_LIMIT
        self.unasked = put.size is not None and put.size <= UNASKED_LIMIT

    @property
    def put(self) -> Put:
        """What was announced; nobody asks for it once that is forgotten."""
        if self._put is None:
            raise RuntimeError("a file that was settled is asked for its name")
        return self._put

    @property
    def is_settled(self) -> bool:
        """Whether a receipt or a refusal was sent: nothing of it is wanted any more."""
        return self._put is None

    @property
    def needs_descriptors(self) -> bool:
        """Whether files of it are open, or may be yet."""
        return not self.is_settled and (self.partial is not None or self.twin is not None)

    def forget(self) -> None:
        """It is settled: give back what it holds, and read nothing for it any more.

        Its id stays open until its END or CANCEL, and a peer may let thousands wait for that.
        """
        self._put = self.proof = self.incoming = None
        for job in (self.twin, self.kept):
            if job is not None:
                job.cancel()  # what has begun stops when it asks


class Deaf(Arriving):
    """A file that was refused for its name."""

    __slots__ = ()

    def __init__(self) -> None:
        self.asked = self.size = 0
        self.partial = self.twin = self.kept = None
        self.last_seen, self.told = False, True
        self.forget()
