"""One BATCH at the sending end: small files are added while they fit, then it is sent, and answered by RECEIPTS.

Rules: it has no thread, no channel and no lock. It is filled by the thread that reads and packs; once it is sent, only
its answer is taken. What the answer says of files that are there is believed only with the digest of all of them.
"""

from collections.abc import Callable

from crypto_utils import Mac, digest, equal, new_digest
from sft.common.errors import Code, IntegrityError, ProtocolViolation, Refused
from sft.common.names import why_not_allowed
from sft.disk.sources import Source
from sft.transfer.items import Item, memory_of
from sft.transfer.outgoing import sayable_time
from sft.wire.batch import (
    BATCH_OVERHEAD,
    BATCH_SPACE,
    MOST_HEADER_SPACE,
    BatchFile,
    BatchHeader,
    Receipts,
    batch_mac_input,
    header_space,
    write_batch,
)
from sft.wire.messages import OUTCOMES, Receipt, ReceiptOutcome
from sft.wire.protocol import BATCH_CONTENT, BATCH_FILES, BATCH_HEADER_LIMIT, UNASKED_LIMIT

_FIXED = 48  # bytes of a header beside its files, at most
_CODES = {code.value: code for code in Code}
_WORDS: dict[str, ReceiptOutcome] = {word: word for word in OUTCOMES}

Results = list[tuple[Item, Receipt | Refused]]


def space_for(piece: int | None) -> int:
    """Bytes for header and contents of one BATCH, when no more than `piece` bytes may leave at once."""
    return BATCH_SPACE if piece is None else min(BATCH_SPACE, piece - BATCH_OVERHEAD)


def can_hold(item: Item, size: int, space: int) -> bool:
    """Whether a file of `size` bytes can go in a BATCH with that space at all."""
    if size > UNASKED_LIMIT:
        return False
    return _FIXED + MOST_HEADER_SPACE + size <= space or _FIXED + header_space(item.target) + size <= space


class OutgoingBatch:
    """The files of one BATCH."""

    source = None  # each file is closed when it is here

    __slots__ = (
        "_header",
        "_space",
        "_targets",
        "content_size",
        "contents",
        "files",
        "has_offers",
        "id",
        "is_closed",
        "items",
        "memory",
    )

    def __init__(self, space: int) -> None:
        self._space = space
        self.id = 0  # once it is sent
        self.items: list[Item] = []
        self.files: list[BatchFile] = []
        self.contents: list[bytes] = []
        self.content_size = 0
        self.memory = 0  # that it costs until it is answered
        self.is_closed = False  # its answer is here
        self.has_offers = False  # some files are offered without their content
        self._header = _FIXED  # bytes of it, at most
        self._targets: set[tuple[str, ...]] = set()

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.items)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be sent about it, whatever is answered."""
        return not self.has_offers

    def has_space_for(self, item: Item, size: int, header: int) -> bool:
        """Whether a file of `size` bytes may be added, which takes `header` bytes of the header."""
        if not self.items:
            return True
        if item.target in self._targets:
            return False
        header += self._header
        content = self.content_size + (0 if item.offer else size)
        is_full = len(self.items) >= BATCH_FILES or content > BATCH_CONTENT or header > BATCH_HEADER_LIMIT
        return not is_full and header + content <= self._space and item.policy == self.items[0].policy

    def add(self, item: Item, source: Source, content: bytes, header: int) -> bool:
        """One more file; whether the time in it is the nearest to an mtime that can't be expressed."""
        mtime, is_other = sayable_time(source.mtime)
        mode = source.mode if item.keeps_mode else None
        self.items.append(item)
        self._targets.add(item.target)
        self.files.append(BatchFile(item.target, len(content), mtime, mode, digest(content), not item.offer))
        self._header += header
        self.memory += header + memory_of(b"", len(item.target))
        if item.offer:
            self.has_offers = True
        else:
            self.contents.append(content)
            self.content_size += len(content)
        return is_other

    def write(self, space: Callable[[int], memoryview], id: int, transfer: bytes, mac: Mac) -> int:
        """Write the whole message into `space(size)`; its size. Nothing is added then, and no content is kept."""
        self.id = id
        header = BatchHeader(id, transfer, self.items[0].policy, tuple(self.files)).body()
        proof = mac.finish(mac.begin(*batch_mac_input(header)))
        size = BATCH_OVERHEAD + len(header) + self.content_size
        write_batch(space(size), proof, header, self.contents)
        self.contents.clear()
        self._targets.clear()
        return size

    @property
    def hashed_size(self) -> int:
        """Bytes of all files, whether their content comes with it or not."""
        return sum([file.size for file in self.files])

    def sizes(self) -> list[tuple[Item, int]]:
        """Each file with its size."""
        return [(item, file.size) for item, file in zip(self.items, self.files, strict=True)]

    def answered(self, receipts: Receipts) -> tuple[Results, list[Item]]:
        """What became of the files, and those whose content is wanted. Raises ProtocolViolation, IntegrityError."""
        if len(receipts.outcomes) != len(self.items):
            raise ProtocolViolation("RECEIPTS of other files than a batch has")
        self.is_closed = True
        results: Results = []
        wanted: list[Item] = []
        there = new_digest()
        for item, file, outcome in zip(self.items, self.files, receipts.outcomes, strict=True):
            word = _WORDS.get(outcome.word)
            if outcome.word == "wanted":
                if file.with_content:
                    raise ProtocolViolation("content is wanted that is there")
                wanted.append(item)
            elif word is None:
                results.append((item, Refused(_CODES[outcome.word])))
            elif word == "skipped":
                if item.policy != "skip":
                    raise IntegrityError(f"the receipt for {item.name} does not match what was sent")
                results.append((item, Receipt(self.id, item.target, 0, None, receipts.time, word)))
            else:
                if word == "stored" and not file.with_content:
                    raise ProtocolViolation("a file is stored without its content")
                there.update(file.sha256)
                path = item.target if outcome.name is None else _renamed(item, outcome.name)
                results.append((item, Receipt(self.id, path, file.size, file.sha256, receipts.time, word)))
        if not equal(there.digest(), receipts.sha256):
            raise IntegrityError("the receipts for small files do not match what was sent")
        return results, wanted


def _renamed(item: Item, name: str) -> tuple[str, ...]:
    """The path that the receiver has chosen. Raises IntegrityError for one that it may not choose."""
    path = (*item.target[:-1], name)
    if item.policy == "replace" or why_not_allowed(path):
        raise IntegrityError(f"the receipt for {item.name} does not match what was sent")
    return path
