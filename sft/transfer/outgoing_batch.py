"""One BATCH at the sending end: small files are added while they fit, then it is sent, and answered by RECEIPTS.

Rules: it has no thread, no channel and no lock. It is filled by the thread that reads and packs; once it is sent, only
its answer is taken. What the answer says of files that are there is believed only with the digest of all of them.
"""

from collections.abc import Callable

from crypto_utils import Mac, digest, equal
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
    name_space,
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
        "_above",
        "_above_space",
        "_header",
        "_space",
        "_targets",
        "clamped",
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
        self._above: tuple[str, ...] | None = None  # the folder of the last file, and what it takes of the header
        self._above_space = 0
        self.clamped: list[Item] = []  # whose time is the nearest to one that can't be expressed

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.items)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be sent about it, whatever is answered."""
        return not self.has_offers

    def add(self, item: Item, source: Source, content: bytes) -> bool:
        """One more file, which was read; False, with nothing changed, when there is no space for it."""
        target, size, is_offer = item.target, len(content), item.offer
        space = self._space_of(target)
        header, content_size = self._header + space, self.content_size + (0 if is_offer else size)
        if self.items and (
            header + content_size > self._space
            or len(self.items) >= BATCH_FILES
            or content_size > BATCH_CONTENT
            or header > BATCH_HEADER_LIMIT
            or target in self._targets
            or item.policy != self.items[0].policy
        ):
            return False
        mtime, is_other = sayable_time(source.mtime)
        if is_other:
            self.clamped.append(item)
        self.items.append(item)
        self._targets.add(target)
        mode = source.mode if item.keeps_mode else None
        self.files.append(BatchFile(target, size, mtime, mode, digest(content), not is_offer))
        self._header, self.content_size = header, content_size
        self.memory += space + memory_of(b"", len(target))
        if is_offer:
            self.has_offers = True
        else:
            self.contents.append(content)
        return True

    def _space_of(self, target: tuple[str, ...]) -> int:
        """Bytes that a file takes of the header, at most; mostly the one before lies in the same folder."""
        above, name = target[:-1], target[-1:]
        if above != self._above:
            self._above, self._above_space = above, header_space(above)
        return self._above_space + name_space(name[0]) if name else self._above_space

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
        there: list[bytes] = []
        id, time = self.id, receipts.time
        for item, file, outcome in zip(self.items, self.files, receipts.outcomes, strict=True):
            word = _WORDS.get(outcome.word)
            if word == "stored" and outcome.name is None and file.with_content:  # mostly it is so
                there.append(file.sha256)
                results.append((item, Receipt(id, item.target, file.size, file.sha256, time, word)))
            elif outcome.word == "wanted":
                if file.with_content:
                    raise ProtocolViolation("content is wanted that is there")
                wanted.append(item)
            elif word is None:
                results.append((item, Refused(_CODES[outcome.word])))
            elif word == "skipped":
                if item.policy != "skip":
                    raise IntegrityError(f"the receipt for {item.name} does not match what was sent")
                results.append((item, Receipt(id, item.target, 0, None, time, word)))
            else:
                if word == "stored" and not file.with_content:
                    raise ProtocolViolation("a file is stored without its content")
                there.append(file.sha256)
                path = item.target if outcome.name is None else _renamed(item, outcome.name)
                results.append((item, Receipt(id, path, file.size, file.sha256, time, word)))
        if not equal(digest(b"".join(there)), receipts.sha256):
            raise IntegrityError("the receipts for small files do not match what was sent")
        return results, wanted


def _renamed(item: Item, name: str) -> tuple[str, ...]:
    """The path that the receiver has chosen. Raises IntegrityError for one that it may not choose."""
    path = (*item.target[:-1], name)
    if item.policy == "replace" or why_not_allowed(path):
        raise IntegrityError(f"the receipt for {item.name} does not match what was sent")
    return path
