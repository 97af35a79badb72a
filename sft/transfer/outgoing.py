"""One announced item at the sending end: its state, its messages, and what an answer about it may say.

Rules: it has no thread, no channel and no lock. `state`, `offset`, `check_size`, `compared`, `size` and `sha256` are
changed under the sender's lock, because both of its threads use them; the rest belongs to the thread that reads and
packs.
"""

from typing import TYPE_CHECKING

from crypto_utils import Mac, new_digest
from sft.common.errors import IntegrityError, ProtocolViolation
from sft.disk.sources import Source
from sft.transfer.items import Item, memory_of
from sft.transfer.states import SENDER_GETS, SENDER_SENDS, Sending, after_getting, after_sending
from sft.wire.messages import (
    FILE,
    FOLDER,
    LINK,
    Accept,
    Check,
    End,
    Kind,
    Put,
    Receipt,
    Refuse,
    encode_message,
    file_mac_begin,
    file_mac_rest,
)
from sft.wire.protocol import CHECK_LIMIT, MAX_INTEGER, UNASKED_LIMIT, nearest_time

if TYPE_CHECKING:
    from hashlib import _Hash

Answer = Accept | Check | Refuse | Receipt


def sayable_time(mtime: int | None) -> tuple[int | None, bool]:
    """The time that stands in a message for `mtime`, in ns; and whether that is another, because it can't be said."""
    if mtime is None or abs(mtime) <= MAX_INTEGER:
        return mtime, False
    return nearest_time(mtime), True


class Outgoing:
    """One announced item, from its PUT until it is answered and closed."""

    count = 1

    __slots__ = (
        *("check_size", "checks", "compared", "digest", "id", "is_begun", "item", "memory", "offset", "sha256", "size"),
        *("source", "state", "_proof"),
    )

    def __init__(self, item: Item, source: Source | None, id: int) -> None:
        """`source`: None for a folder or a link."""
        self.item, self.source, self.id = item, source, id
        self.size = None if source is None else source.size  # that of a pipe is known at its END
        self.memory = 0  # that it costs until it is closed; known with `put`
        self.sha256: bytes | None = None  # of the whole content, once that is sent
        self.digest: _Hash = new_digest()  # of the content up to where it was sent
        self.offset = 0  # where ACCEPT wants content from
        self.check_size = 0  # of the CHECK that is to be answered
        self.checks = 0  # how many have come
        self.compared: tuple[int, bytes] | None = None  # size and digest of the CHECK that was answered last
        if source is None:
            self.state = Sending.SENT
        elif self.size is not None and self.size <= UNASKED_LIMIT:
            self.state = Sending.SENDING
        else:
            self.state = Sending.ANNOUNCED
        self.is_begun = self.state is not Sending.ANNOUNCED  # it no longer waits for ACCEPT

    # --- its messages ---

    def put(self, mac: Mac) -> tuple[bytes, bool]:
        """PUT; and whether the time in it is the nearest to an mtime that it can't say."""
        item, source = self.item, self.source
        if source is None:
            mtime, mode = item.mtime, item.mode
        else:
            mtime, mode = source.mtime, source.mode if item.keeps_mode else None
        mtime, has_other_time = sayable_time(mtime)
        put = Put(
            self.id, item.transfer, item.target, self.item.kind, self.size, mtime, mode, item.policy, item.leads_to
        )
        body = put.body()
        self._proof = mac.begin(*file_mac_begin(body))
        self.memory = memory_of(body, len(item.target))
        return encode_message(Kind.PUT, body), has_other_time

    def end(self, mac: Mac, size: int, sha256: bytes) -> bytes:
        """END, for content of that size and digest."""
        proof = mac.finish(self._proof, *file_mac_rest(size, sha256))
        return End(self.id, size, sha256, proof).encode()

    # --- its state ---

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes from either end."""
        return self.state is Sending.CLOSED

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be sent about it, whatever is answered."""
        return self.state is Sending.SENT

    def got(self, answer: Answer) -> Sending:
        """Move on by an answer; the state before. Raises ProtocolViolation, or IntegrityError for a wrong RECEIPT."""
        before = self.state
        after = after_getting(SENDER_GETS, before, answer.KIND)
        if before not in (Sending.ANSWERED, Sending.CLOSED):  # else it has crossed our CANCEL
            self._take(answer)
        self.state = after
        return before

    def sent(self, kind: Kind) -> Sending:
        """Move on by a message that goes out now; the state before."""
        before = self.state
        self.state = after_sending(SENDER_SENDS, before, kind)
        return before

    # --- what an answer may say ---

    def _take(self, answer: Answer) -> None:
        match answer:
            case Accept(offset=offset):
                if offset not in (0, self.compared[0] if self.compared else 0):
                    raise ProtocolViolation("ACCEPT from an offset that was not compared")
                self.offset = offset
            case Check(size=size, sha256=sha256):
                self.checks += 1
                if self.checks > CHECK_LIMIT:
                    raise ProtocolViolation(f"more than {CHECK_LIMIT} CHECKs of one file")
                if sha256 is not None or not 0 < size <= (self.size or 0):
                    raise ProtocolViolation("CHECK of more than the file has, or with a digest")
                self.check_size = size
            case Receipt():
                if not (self._names_the_target(answer) and self._names_the_content(answer)):
                    raise IntegrityError(f"the receipt for {self.item.name} does not match what was sent")

    def _names_the_target(self, receipt: Receipt) -> bool:
        """The receiver may choose another last name, under `rename` and for accounts without the right `get`."""
        target = self.item.target
        if receipt.outcome in ("folder", "skipped") or self.item.policy == "replace":
            return receipt.path == target
        return len(receipt.path) == len(target) and receipt.path[:-1] == target[:-1]

    def _names_the_content(self, receipt: Receipt) -> bool:
        if receipt.outcome == "folder":
            return self.item.kind == FOLDER
        if receipt.outcome == "skipped":
            return self.item.kind != FOLDER and self.item.policy == "skip"
        if self.item.kind != FILE:
            return self.item.kind == LINK and receipt.sha256 is None and receipt.size == 0
        sent = {self.sha256, self.item.sha256}  # over this connection, or an earlier one
        if self.compared is not None and self.compared[0] == self.size:
            sent.add(self.compared[1])
        return receipt.sha256 is not None and receipt.sha256 in sent and receipt.size == self.size
