"""What a sender has announced and what is not settled yet, by id; its two threads share it under one lock.

Rules: `changed` guards everything here, and the state of each Outgoing; methods that say so are called with it held.
The window counts files: a batch counts for each of its files.
"""

import threading
from collections.abc import Callable, Iterator

from sft.common.names import MAX_DEPTH, MAX_PATH
from sft.transfer.items import memory_of
from sft.transfer.outgoing import Outgoing
from sft.transfer.outgoing_batch import OutgoingBatch
from sft.wire.protocol import WINDOW

_ROOM = 16  # once the window is full, this part of it has to be free before more is announced
_OPEN_MEMORY = 4 << 20  # of what is announced and not settled; reached only by paths near their limits
_MOST_OF_ONE = MAX_PATH + memory_of(b"", MAX_DEPTH) + 1024  # what one file costs, whatever its path


class Unsettled:
    """Until each is answered and closed."""

    def __init__(self, last_id: int = 0) -> None:
        """`last_id`: the highest that was used before."""
        self.changed = threading.Condition()
        self.last_id = last_id
        self._open: dict[int, Outgoing | OutgoingBatch] = {}
        self._count = self._memory = 0  # of all files and folders
        self._enough = -1  # the packing thread waits until no more than this are open

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Outgoing | OutgoingBatch]:
        return iter(list(self._open.values()))

    def add(self, outgoing: Outgoing | OutgoingBatch) -> None:
        """It goes out now, with the next id."""
        with self.changed:
            self.last_id = outgoing.id
            self._open[outgoing.id] = outgoing
            self._count += outgoing.count
            self._memory += outgoing.memory

    def find(self, id: int) -> Outgoing | OutgoingBatch | None:
        """What has that id, unless it is settled. With the lock held."""
        return self._open.get(id)

    def forget_if_closed(self, outgoing: Outgoing | OutgoingBatch) -> None:
        """With the lock held."""
        if outgoing.is_closed and self._open.pop(outgoing.id, None) is not None:
            self._count -= outgoing.count
            self._memory -= outgoing.memory
            if self._count <= self._enough:
                self.changed.notify_all()

    def is_full(self, more: int = 0, memory: int = 0) -> bool:
        """Whether nothing may be announced beside `more` files that are read already."""
        return self._count + more >= WINDOW or self._memory + memory >= _OPEN_MEMORY

    def free_places(self, more: int, memory: int) -> int:
        """How many files may be announced for certain, beside `more` that are read and cost `memory`; at least one."""
        left = (_OPEN_MEMORY - self._memory - memory) // _MOST_OF_ONE
        return max(1, min(WINDOW - self._count - more, left))

    def is_finished(self) -> bool:
        """Whether nothing more is to be sent about any of them."""
        with self.changed:
            return all(outgoing.is_finished for outgoing in self._open.values())

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for `until`, or until enough are closed to go on. With the lock held."""
        self._enough = self._count - (max(1, self._count // _ROOM) if self.is_full() else 1)
        self.changed.wait_for(lambda: until() or self._count <= self._enough)
        self._enough = -1
