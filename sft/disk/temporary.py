"""A file on its way in: what was announced, the temporary file until it is published, and what became of it.

Rules: every kind of file on its way does what `Unpublished` lists, those whose content comes in pieces also what
`TemporaryFile` lists, and none inherits from another: partial files that can be resumed (`sft/disk/partials.py`),
anonymous files that can't (`sft/disk/anonymous.py`), small files that came whole (`sft/disk/small_files.py`), and
standard output (`sft/disk/stdout.py`). Nothing here touches the disk.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol, runtime_checkable

from sft.common.errors import Code, Refused
from sft.common.values import value
from sft.disk.folders import PathParts
from sft.disk.parents import Parent
from sft.disk.reservations import Reservation


@value
class Incoming:
    """What the sender announced of one file. `size` None: not known beforehand. `mtime` in ns.

    `may_replace`: whether the sender has the right to it, for a folder or with policy `replace`.
    """

    transfer: bytes
    path: PathParts
    size: int | None
    mtime: int | None
    mode: int | None
    policy: str
    may_replace: bool = True


@value
class Settled:
    """What became of a file: stored under `path`, `already` there, or `skipped` because of another one there."""

    path: PathParts
    skipped: bool = False
    already: bool = False
    size: int = 0
    sha256: bytes | None = None

    @property
    def word(self) -> Literal["stored", "already", "skipped"]:
        """In one word."""
        return "skipped" if self.skipped else "already" if self.already else "stored"


@value
class DeliveredBefore:
    """What this transfer has delivered, if it was the same content: `settled` is its receipt, which may be lost."""

    settled: Settled


@value
class Whole:
    """A small file of which everything is here. Its content was compared with its digest."""

    incoming: Incoming
    content: memoryview
    sha256: bytes


Outcome = Settled | Refused


class Unpublished(Protocol):
    """A file that is to be published by one connection. Methods raise Refused unless they name OSError."""

    incoming: Incoming
    size: int  # of what was written
    reservation: Reservation

    @property
    def sha256(self) -> bytes | None:
        """Of the whole file, once it is verified."""

    @property
    def refusal(self) -> Refused | None:
        """Why it has no reservation: it is only taken if it turns out to be there already."""

    @property
    def is_different(self) -> bool:
        """Whether its content was compared with the file of its name."""

    @property
    def has_time(self) -> bool:
        """Whether it has the time of its source; not every disk can hold every time."""

    @property
    def is_finished(self) -> bool:
        """Whether `finish` need not be called any more."""

    @property
    def descriptor(self) -> int:
        """Of its bytes; -1 where there is none yet."""

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        """Write all, set time and mode: what `parent` gives a file that is made with `bits`.

        Returns the descriptor, which is still to be flushed.
        """

    def publishing(self) -> AbstractContextManager[None]:
        """Around publishing: no other connection takes the file over meanwhile."""

    def link(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, never in place of a file. Raises FileExistsError, other OSError."""

    def rename(self, name: str, folder: int) -> None:
        """Make it visible as `name` in `folder`, in place of the file that may be there. Raises OSError."""

    def is_same_file(self, other: os.stat_result) -> bool:
        """Whether `other` is this very file, published before."""

    def discard(self) -> None:
        """Remove it and give back what it has; a published file stays visible. May be called again."""

    def keep(self) -> bool:
        """The connection has ended: keep the bytes if they can be resumed; whether they are kept."""


@runtime_checkable
class TemporaryFile(Unpublished, Protocol):
    """The bytes of one file that come in pieces, for one connection. Methods raise Refused unless they name OSError."""

    sha256: bytes | None  # set by the receiver
    offers: list[int]  # offsets to resume from, best first; compare digests, then call `resume_from`
    is_shared: bool  # another process had it open when this connection took it over
    refusal: Refused | None
    is_different: bool

    def digest_of_kept(self, size: int, goes_on: Callable[[], bool]) -> "hashlib._Hash":
        """A running SHA-256 over the first `size` bytes that are there, as long as `goes_on()` is true."""

    def resume_from(self, offset: int) -> None:
        """Keep the first `offset` bytes, and drop what lies behind them."""

    def write(self, content: memoryview) -> None:
        """Append `content`."""

    def write_zeros(self, count: int) -> None:
        """Append so many zero bytes, at most 1 MiB, as a hole where it can have one."""


def end_file(file: Unpublished, code: Code | None) -> None:
    """A file that is not published: remove it, or keep it when a disk's trouble that may pass is all that ends it."""
    file.keep() if code is Code.UNAVAILABLE else file.discard()
