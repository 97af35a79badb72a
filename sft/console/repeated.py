"""Lines that differ in a name alone: the first few are printed as they are, the others counted.

Rules: the caller says of what kind a line is. The number of kinds is bounded, because a name may be a part of one. It
writes nothing, and any thread may call it.
"""

import threading
from collections import Counter

from sft.common.errors import Refused, TransferError

FEW = 5  # names under one cause; who wants all of them says -v
_MOST_KINDS = 50
_OTHERS = "other causes"


class Repeated:
    """How many lines of each kind there were, and which of them are printed."""

    def __init__(self, has_limit: bool) -> None:
        self._has_limit = has_limit
        self._seen: Counter[str] = Counter()
        self._unnamed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def may(self, kind: str) -> bool:
        """Whether one more line of that kind is printed; else it is counted."""
        if not self._has_limit:
            return True
        with self._lock:
            kind = kind if kind in self._seen or len(self._seen) < _MOST_KINDS else _OTHERS
            self._seen[kind] += 1
            return self._seen[kind] <= FEW

    def count(self, kind: str, count: int) -> bool:
        """Count lines whose names nobody knows; whether they are, so that they need no line of their own."""
        with self._lock:
            self._unnamed[kind] += count if self._has_limit else 0
        return self._has_limit

    def left_out(self) -> list[tuple[str, int]]:
        """Each kind with lines that were counted, and how many; they begin anew."""
        with self._lock:
            left = Counter({kind: count - FEW for kind, count in self._seen.items() if count > FEW}) + self._unnamed
            self._seen.clear()
            self._unnamed.clear()
            return list(left.items())


def begins_with(name: str, problem: TransferError) -> bool:
    """Whether the cause begins with the name, so that it need not be put before it."""
    return problem.path == name if isinstance(problem, Refused) else problem.cause.startswith(f"{name} ")


def kind_of(name: str, problem: TransferError) -> str:
    """The cause without the name, which is the same for all files that fail alike."""
    return problem.code.cause if isinstance(problem, Refused) else problem.cause.removeprefix(f"{name} ")
