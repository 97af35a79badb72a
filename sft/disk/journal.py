"""What is kept about a large file between two attempts, beside its bytes: one JSON object in a file of its own.

Rules: a journal that was torn by a power cut is no journal. It is as long as it ever was, so that a shorter one leaves
nothing of a longer one. What it says is only an offer; nobody takes a digest from it. It opens nothing.
"""

import json
import os
from dataclasses import dataclass

from sft.common.flushing import flush

_LARGEST = 4096
_FIELDS = ("transfer", "size", "mtime", "durable", "generation")


@dataclass(slots=True)
class Journal:
    """`size` in bytes, `mtime` in ns: the source's. `durable`: bytes that were flushed. `generation`: of its holder."""

    transfer: str
    size: int
    mtime: int | None
    durable: int
    generation: int
    text: bytes = b""  # what was written last

    @classmethod
    def read(cls, descriptor: int) -> "Journal | None":
        """None when there is none, or it was torn by a power cut."""
        try:
            found = json.loads(os.pread(descriptor, _LARGEST, 0))
            journal = cls(*[found.pop(name) for name in _FIELDS], **found)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        numbers = (journal.size, journal.durable, journal.generation)
        fair = isinstance(journal.transfer, str) and all(type(number) is int and number >= 0 for number in numbers)
        return journal if fair else None

    def write(self, descriptor: int) -> None:
        """Put it there, flushed. Raises OSError."""
        text = json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()
        self.text = text.ljust(os.fstat(descriptor).st_size)
        os.pwrite(descriptor, self.text, 0)
        flush(descriptor)

    def is_last(self, descriptor: int) -> bool:
        """Whether nobody has raised the generation since; cheap, for it is asked before every write. Raises OSError."""
        if os.pread(descriptor, _LARGEST, 0) == self.text:
            return True
        there = self.read(descriptor)
        return there is not None and there.generation == self.generation
