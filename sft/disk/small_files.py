"""Small files that are here as a whole, as a BATCH brings them: stored in one go, then published with a group.

    (no name)         a file that is gone with its descriptor, made in its folder, with its content, mode and time
    small-<hex>       for a moment, while it takes the place of another file: only a name can do that

Rules: what comes together is reserved together, in one step, before the first byte. Where that can't be, because the
quota is nearly used up or the system has no files without a name, each is begun by itself, like a small file that came
by a PUT of its own (`sft/disk/anonymous.py`). A crash leaves nothing of them.
"""

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from sft.common.errors import Refused, UsageError
from sft.common.open_files import close, few_left_from
from sft.disk.durable import refusal_of, set_time
from sft.disk.parents import Parent
from sft.disk.publish import Publisher
from sft.disk.quota import Allowance
from sft.disk.reservations import NOT_RESERVED, Reservation
from sft.disk.staging import StagingArea, hide_anonymous, link_anonymous
from sft.disk.temporary import Incoming, Whole

_NOTHING_TO_GUARD: AbstractContextManager[None] = contextlib.nullcontext()


class SmallFile:
    """One of them; does what `sft.disk.temporary.Unpublished` lists."""

    __slots__ = ("_hidden", "_staging", "descriptor", "has_time", "incoming", "reservation", "sha256", "size")

    is_finished = True
    is_different = False
    refusal: Refused | None = None

    def __init__(self, incoming: Incoming, size: int, sha256: bytes, staging: int, reservation: Reservation) -> None:
        """`staging`: the open staging area."""
        self.incoming, self.size, self.sha256 = incoming, size, sha256
        self._staging, self.reservation = staging, reservation
        self.descriptor = -1
        self.has_time = True
        self._hidden = ""  # its name in the staging area, while it has one

    def fill(self, content: memoryview, bits: int, parent: Parent) -> None:
        """Make it in `parent`, with its whole content and its time. Raises OSError."""
        descriptor = self.descriptor = parent.make(bits)
        while (count := os.write(descriptor, content)) < len(content):
            content = content[count:]
        self.has_time = set_time(descriptor, self.incoming.mtime)

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        return self.descriptor

    def publishing(self) -> AbstractContextManager[None]:
        return _NOTHING_TO_GUARD

    def link(self, name: str, folder: int) -> None:
        link_anonymous(self.descriptor, name, folder)

    def rename(self, name: str, folder: int) -> None:
        if not self._hidden:
            self._hidden = hide_anonymous(self.descriptor, self._staging)
        os.replace(self._hidden, name, src_dir_fd=self._staging, dst_dir_fd=folder)
        self._hidden = ""

    def is_same_file(self, other: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self.descriptor), other)

    def discard(self) -> None:
        reservation, self.reservation = self.reservation, NOT_RESERVED
        if reservation.is_used:
            self._close()
            return
        with contextlib.suppress(OSError), reservation.ending():
            self._close()
            reservation.end(None)

    def keep(self) -> bool:
        self.discard()
        return False

    def _close(self) -> None:
        if self._hidden:
            with contextlib.suppress(OSError):
                os.unlink(self._hidden, dir_fd=self._staging)
            self._hidden = ""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            try:
                close(descriptor)
            except OSError:  # it is closed all the same
                pass


class SmallFiles:
    """Stores the small files of one connection."""

    def __init__(self, area: StagingArea, allowance: Allowance, publisher: Publisher) -> None:
        self._area, self._allowance, self._publisher = area, allowance, publisher

    def reserve(self, files: Sequence[Incoming]) -> list[Reservation] | None:
        """What `store` needs for all of these files; None when each has to be begun by itself."""
        if not self._area.has_anonymous:
            return None
        if not self._allowance.is_limited:
            return [NOT_RESERVED] * len(files)
        with contextlib.suppress(Refused, OSError):  # each by itself may be less than what is left, or be there
            return self._allowance.try_twice(lambda: self._allowance.reserve_together(files))
        return None

    def store(
        self, files: Sequence[tuple[Incoming, Whole]], reserved: Sequence[Reservation]
    ) -> list[SmallFile | Refused]:
        """Store the first of some files, at least one; of one that is refused nothing is left.

        It stops behind a file that got one of the last descriptors. What it raises leaves nothing of them.
        """
        few_left, staging = few_left_from(), self._area.folder
        made = [
            SmallFile(incoming, len(whole.content), whole.sha256, staging, reservation)
            for (incoming, whole), reservation in zip(files, reserved, strict=True)
        ]
        stored: list[SmallFile | Refused] = []
        try:
            with self._publisher.parents() as parents:
                bits_of = self._publisher.bits_of
                for file, (incoming, whole) in zip(made, files, strict=True):
                    try:
                        file.fill(whole.content, bits_of(incoming), parents.get(incoming.path[:-1]))
                    except (Refused, OSError, UsageError) as problem:
                        file.discard()
                        stored.append(problem if isinstance(problem, Refused) else refusal_of(problem))
                        continue
                    stored.append(file)
                    if file.descriptor >= few_left:
                        break
        except BaseException:
            stored = []
            raise
        finally:
            for file in made[len(stored) :]:
                file.discard()
        return stored
