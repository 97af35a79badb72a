"""Which paths of one user are being removed, so that nothing is moved out of them or into them meanwhile.

Rules: a removal goes down and up by what it has open. A folder that was moved away would be emptied where it is then,
after the answer that it was moved. It knows the connections of this process only. It opens nothing.
"""

import contextlib
import threading
import unicodedata
from collections.abc import Iterator

from sft.common.errors import Code, Refused
from sft.common.names import PathParts


class Removals:
    """Of one user. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[PathParts] = []

    @contextlib.contextmanager
    def removing(self, path: PathParts) -> Iterator[None]:
        """Around removing a path with all that is in it."""
        key = _key(path)
        with self._lock:
            self._running.append(key)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(key)

    @contextlib.contextmanager
    def moving(self, *paths: PathParts) -> Iterator[None]:
        """Around the step that moves something between paths; no removal begins in it.

        Raises Refused (BUSY) when one at, below or above any of them is being removed.
        """
        keys = [_key(path) for path in paths]
        with self._lock:
            for one in self._running:
                for key in keys:
                    shorter = min(len(one), len(key))
                    if one[:shorter] == key[:shorter]:
                        raise Refused(Code.BUSY, why="it is being removed")
            yield


def _key(path: PathParts) -> PathParts:
    """The same for all spellings that a disk may take for one name."""
    return tuple(unicodedata.normalize("NFC", name.casefold()) for name in path)
