"""The journal beside the bytes of a large file, for a later attempt: one JSON object in a file of its own.

Rules: a journal that was torn by a power cut counts as none. The file never gets shorter, so that a short text leaves
nothing of a longer one. What it holds is only an offer, and no digest is taken from it. It opens nothing.
"""

import json
import os
from dataclasses import dataclass

from sft.common.flushing import flush

JOURNAL = ".journal"  # ends the name of the file; before it stands that of the bytes
JOURNAL_WORDS = "the journal of a partial file"  # what a person calls it
_LARGEST = 4096
_FIELDS = ("transfer", "size", "mtime", "durable", "generation")


@dataclass(slots=True)
class Journal:
    """`size` in bytes and `mtime` in ns are the source's.

    `durable`: bytes that were flushed. `generation`: higher with each connection that takes the file over.
    """

    transfer: str
    size: int
    mtime: int | None
    durable: int
    generation: int
    text: bytes = b""  # as it was written last

    @classmethod
    def read(cls, descriptor: int) -> "Journal | None":
        """None when there is none, or it was torn by a power cut. Raises OSError."""
        try:
            found = json.loads(os.pread(descriptor, _LARGEST, 0))
            journal = cls(*[found.pop(name) for name in _FIELDS], **found)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        numbers = (journal.size, journal.durable, journal.generation)
        is_sound = isinstance(journal.transfer, str) and all(type(number) is int and number >= 0 for number in numbers)
        return journal if is_sound else None

    def write(self, descriptor: int) -> None:
        """Write and flush it. Raises OSError."""
        text = json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()
        self.text = text.ljust(os.fstat(descriptor).st_size)
        os.pwrite(descriptor, self.text, 0)
        flush(descriptor)

    def is_last(self, descriptor: int) -> bool:
        """Whether no other connection has raised the generation since; cheap, for each write asks. Raises OSError."""
        if os.pread(descriptor, _LARGEST, 0) == self.text:
            return True
        there = self.read(descriptor)
        return there is not None and there.generation == self.generation
