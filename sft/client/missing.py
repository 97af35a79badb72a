"""What a fetch or a listing does not deliver: reported once, however many connections it takes.

Rules: what another connection may bring is not reported but asked for again, while `sft/client/retries.py` allows it.
What a hostile server can name is remembered within bounds. It knows no channel and no folder.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sft.client.refusals import SKIPPED, omitted
from sft.common.errors import Code, PeerStopped, SourceError, TransferError
from sft.common.names import PathParts
from sft.common.sizes import counted
from sft.common.text import show_path
from sft.console.named import NamedFolder
from sft.console.reporter import Reporter

if TYPE_CHECKING:
    from sft.wire.messages import Omitted

_MOST_NAMED = 10_000
_MOST_WITHDRAWN = 1000  # files that may still come again; a hostile server withdraws any number


class Missing:
    """What has not arrived in one run that fetches."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._withdrawn: dict[PathParts, tuple[TransferError, NamedFolder | None]] = {}
        self._out_of_reach: dict[str, None] = {}  # in this connection
        self._stopping: Code | None = None  # why another connection is worth a try
        self._reported: set[str] = set()

    def begin(self) -> None:
        """Another connection: nothing was out of the receiver's reach in it yet."""
        self._stopping = None
        self._out_of_reach.clear()

    def fail(self, name: str, problem: TransferError, within: NamedFolder | None = None) -> bool:
        """Report it, unless that was done in an earlier connection of this run; whether it was not."""
        if self._is_new(name, problem.cause):
            self._reporter.failed(name, problem, within=within)
            return True
        return False

    def skip(self, omission: "Omitted", name: str, within: NamedFolder | None = None) -> None:
        """Report what the receiver leaves out, and not because of a fault, unless that was done before."""
        why = SKIPPED[omission.code]
        if self._is_new(name, why):
            self._reporter.skipped(name, why, within)
            if omission.more:
                self._reporter.skipped_beside(name, omission.more, why)

    def _is_new(self, name: str, why: str) -> bool:
        both = f"{name}\0{why}"
        if both in self._reported:
            return False
        if len(self._reported) < _MOST_NAMED:
            self._reported.add(both)
        return True

    def wait_for(self, name: str, code: Code) -> None:
        """The receiver can't give it now, and perhaps can later."""
        self._stopping = code
        if len(self._out_of_reach) < _MOST_NAMED:
            self._out_of_reach[name] = None

    def withdraw(self, path: PathParts, problem: TransferError, within: NamedFolder | None = None) -> None:
        """It has failed, unless it comes again, with an unknown size."""
        self._withdrawn[path] = problem, within
        self._report_withdrawn(_MOST_WITHDRAWN)

    def comes_again(self, path: PathParts) -> None:
        """It is announced, for the first time or again."""
        self._withdrawn.pop(path, None)

    def _report_withdrawn(self, left: int) -> None:
        while len(self._withdrawn) > left:
            path = next(iter(self._withdrawn))
            self.fail(show_path(path), *self._withdrawn.pop(path))

    def end(self) -> None:
        """The receiver has given all it could. Raises PeerStopped when it may give more another time."""
        if self._stopping is not None:
            raise PeerStopped(self._stopping)
        self._report_withdrawn(0)

    def names(self) -> list[str]:
        """What another connection was to bring."""
        return [*self._out_of_reach, *map(show_path, self._withdrawn)]


def report_omitted(
    reporter: Reporter, omission: "Omitted", name: str, fail: Callable[[str, TransferError], bool | None] | None = None
) -> None:
    """Something at the receiver, and perhaps more in its folder, can't be given or listed.

    `fail`, instead of the reporter's own, returns False for what was reported before; then patterns count, too.
    """
    is_new = (fail or reporter.failed)(name, omitted(omission.code, name, fail is not None)) is not False
    if is_new and omission.more:
        what = counted(omission.more, "more name")
        problem = SourceError(f"{what} beside it on the receiver can't be given", "Their reasons are in its server.log")
        reporter.failed(name, problem)
        reporter.failed_beside(omission.more - 1)
