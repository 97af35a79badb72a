"""The journal beside the bytes of a large file, for a later attempt: one JSON object in a file of its own.

Rules: a journal that was torn by a power cut counts as none. It always has the same size, so that a short text leaves
nothing of a longer one. The bytes have a name of their own for each attempt, which nobody can guess and only the
journal tells: so no machine that remembers an old name comes to a file that was published since. What it holds is only
an offer, and no digest is taken from it. It opens nothing.
"""

import json
import os
import re
from dataclasses import dataclass

from crypto_utils import random_bytes
from sft.common.flushing import flush
from sft.disk.coherent import forget_cached
from sft.disk.file_systems import may_be_shared

JOURNAL = ".journal"  # ends the name of the file; before it stands that of the bytes
JOURNAL_WORDS = "the journal of a partial file"  # what a person calls it
_SIZE = 512  # no text of these fields is longer
_FIELDS = ("transfer", "size", "mtime", "durable", "generation", "attempt")
_ATTEMPT = re.compile(r"[0-9a-f]{16}")
_BYTES = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{16}")


def new_attempt() -> str:
    """What ends the name of the bytes, for one attempt."""
    return random_bytes(8).hex()


def name_of_bytes(key: str, attempt: str) -> str:
    """The name of the bytes beside the journal of `key`."""
    return f"{key}.{attempt}"


def key_of(name: str) -> str:
    """The key that bytes or a journal of that name belong to; `name` itself for other files."""
    found = _BYTES.fullmatch(name)
    return found[1] if found else name.removesuffix(JOURNAL)


@dataclass(slots=True)
class Journal:
    """`size` in bytes and `mtime` in ns are the source's.

    `durable`: bytes that were flushed. `generation`: higher with each connection that takes the file over. `attempt`:
    see `name_of_bytes`.
    """

    transfer: str
    size: int
    mtime: int | None
    durable: int
    generation: int
    attempt: str
    text: bytes = b""  # as it was written last

    @classmethod
    def read(cls, descriptor: int) -> "Journal | None":
        """None when there is none, or it was torn by a power cut. Raises OSError."""
        forget_cached(descriptor)
        try:
            found = json.loads(os.pread(descriptor, _SIZE, 0))
            journal = cls(*[found.pop(name) for name in _FIELDS], **found)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        numbers = (journal.size, journal.durable, journal.generation)
        is_sound = all(type(number) is int and number >= 0 for number in numbers) and isinstance(journal.transfer, str)
        is_sound = is_sound and isinstance(journal.attempt, str) and bool(_ATTEMPT.fullmatch(journal.attempt))
        return journal if is_sound else None

    def write(self, descriptor: int) -> None:
        """Write and flush it. Raises OSError."""
        text = json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()
        self.text = text.ljust(_SIZE)
        os.pwrite(descriptor, self.text, 0)
        flush(descriptor)

    def is_last(self, descriptor: int) -> bool:
        """Whether no other connection has raised the generation since; cheap, for each write asks. Raises OSError."""
        forget_cached(descriptor)
        if os.pread(descriptor, _SIZE, 0) == self.text:
            return True
        there = self.read(descriptor)
        return there is not None and (there.generation, there.attempt) == (self.generation, self.attempt)


def empty(descriptor: int) -> None:
    """Say that there are no bytes any more, to machines that may still come to a journal that was removed.

    Raises OSError.
    """
    if may_be_shared(descriptor):
        os.pwrite(descriptor, b"".ljust(_SIZE), 0)
        flush(descriptor)
