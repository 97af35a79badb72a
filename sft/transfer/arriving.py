"""One announced file at the receiving end, from its PUT until it is answered and closed.

Rules: it has no channel and no folder. Once it is answered nothing is kept of it but where its content is, which the
other end may still send. Only the thread that receives changes it.
"""

from concurrent.futures import Future
from typing import TYPE_CHECKING

from crypto_utils import Mac, equal, new_digest
from sft.common.errors import Code, ProtocolViolation, Refused
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.transfer.items import memory_of
from sft.transfer.states import RECEIVER_GETS, RECEIVER_SENDS, Receiving, after_getting, after_sending
from sft.wire.content import Data
from sft.wire.messages import FILE, End, Kind, Put, Receipt, ReceiptOutcome, file_mac_rest
from sft.wire.protocol import DATA_LEAST, UNASKED_LIMIT

if TYPE_CHECKING:
    from hashlib import _Hash
    from hmac import HMAC


class Arriving:
    """One announced file. `partial` is None while, and once, nothing of it is written."""

    __slots__ = (
        *(
            "_put",
            "before",
            "check_size",
            "checks",
            "digest",
            "has_last",
            "incoming",
            "is_small",
            "is_stream",
            "kept",
            "memory",
        ),
        *("partial", "proof", "size", "state", "existing"),
    )

    def __init__(self, put: Put | None, body: bytes = b"", proof: "HMAC | None" = None) -> None:
        """`body`: the PUT's; `proof`: the HMAC of END, begun with it. Without a PUT, a name that is refused."""
        self._put, self.proof = put, proof
        is_file = put is None or put.kind == FILE
        self.state = Receiving.ANNOUNCED if is_file else Receiving.WAITING
        self.is_stream = put is not None and put.size is None
        self.is_small = put is not None and put.size is not None and put.size <= UNASKED_LIMIT
        self.memory = 0 if put is None else memory_of(body, len(put.path))
        self.incoming: Incoming | None = None
        self.partial: TemporaryFile | None = None
        self.before: Settled | None = None  # what this transfer has delivered, if it is the same
        self.existing: Future[bytes] | None = None  # the digest of a visible file that may be the same
        self.kept: Future[_Hash] | None = None  # the digest of what was kept of an earlier try
        self.check_size = 0  # of the CHECK that was sent last
        self.checks = 0  # how many were sent
        self.digest: _Hash = new_digest()  # of the content so far
        self.size = 0  # of the content so far
        self.has_last = False  # a DATA came that must be the last one

    @property
    def put(self) -> Put:
        """What was announced; not to be asked for once it is answered."""
        if self._put is None:
            raise RuntimeError("a file that was answered is asked for its PUT")
        return self._put

    def put_at(self, at: int) -> Put:
        """The same."""
        return self.put

    @property
    def is_answered(self) -> bool:
        """Whether a receipt or a refusal was sent: nothing of it is wanted any more."""
        return self._put is None

    @property
    def is_resumable(self) -> bool:
        """Whether what arrived is kept when the connection breaks."""
        return not (self.is_small or self.is_stream)

    @property
    def needs_descriptors(self) -> bool:
        """Whether files of it are open, or may be yet."""
        return not self.is_answered and (self.partial is not None or self.existing is not None)

    def got(self, kind: Kind) -> Receiving:
        """Move on by a message of the sender; the state before. Raises ProtocolViolation."""
        before = self.state
        self.state = after_getting(RECEIVER_GETS, before, kind)
        return before

    def sent(self, kind: Kind) -> None:
        """Move on by an answer that goes out now."""
        self.state = after_sending(RECEIVER_SENDS, self.state, kind)

    def count(self, data: Data) -> None:
        """One more DATA. Raises ProtocolViolation for one that may not come, or not with that offset."""
        self.got(Kind.DATA)
        if self.has_last:
            raise ProtocolViolation("DATA behind one that was so short that it must be the last")
        if data.offset != self.size:
            raise ProtocolViolation("DATA from another offset than was next")
        self.has_last = data.size < DATA_LEAST
        self.size += data.size

    def write(self, data: Data, partial: TemporaryFile) -> None:
        """Write what it stands for into `partial`, and hash it. Raises Refused, ProtocolViolation."""
        content = data.plain()
        if data.is_zeros:
            partial.write_zeros(data.size)
        else:
            partial.write(content)
        self.digest.update(content)

    def verify(self, end: End, mac: Mac) -> bytes:
        """The SHA-256 of its content, once that is what the sender read. Raises Refused (SIZE, INTEGRITY)."""
        if self.proof is None:
            raise RuntimeError("a file that was answered is verified")
        sha256 = self.digest.digest()
        proof = mac.finish(self.proof, *file_mac_rest(self.size, sha256))
        if end.size != self.size or self.put.size not in (None, end.size):
            raise Refused(Code.SIZE, why="not what was announced")
        if not equal(end.sha256 + end.mac, sha256 + proof):
            raise Refused(Code.INTEGRITY)
        return sha256

    def receipts(self, published: Settled, time: int, outcome: ReceiptOutcome) -> tuple[Receipt, Receipt]:
        """Its receipt for this end and for the other: the name at this end stays private."""
        put, path = self.put, published.path
        sha256 = published.sha256 if put.kind == FILE else None
        ours = Receipt(put.id, path, published.size, sha256, time, outcome)
        if self.incoming is None or self.incoming.path == put.path:
            return ours, ours
        return ours, Receipt(put.id, put.path, published.size, sha256, time, outcome)

    def forget(self) -> None:
        """It is answered: give back what it holds, and read nothing for it any more.

        Its id stays open until its END or CANCEL, and a peer may let thousands wait for that.
        """
        self._put = self.proof = self.incoming = self.before = None
        for job in (self.existing, self.kept):
            if job is not None:
                job.cancel()  # what has begun stops when it asks

    def withdraw(self) -> None:
        """Forget it, and return when nothing is read any more of what was kept, so that it can be closed."""
        self.forget()
        if self.kept is not None and not self.kept.cancel():
            self.kept.exception()  # waits
