"""The commit of a group of whole files: their bytes to the disk, all of them at once, then each to its name.

Rules: what can't be put on the disk is discarded at once, and the others go on. The flush may run beside what the
caller does meanwhile; it uses the files' descriptors, so nobody closes them before `finish` or `settle` has returned.
No group takes the last descriptors of the process: what there are none for is left to the next one. How a file becomes
visible is the folder's business (`sft/disk/storage.py`).
"""

import contextlib
from collections.abc import Callable, Sequence

from sft.common.background import Aside
from sft.common.errors import NoThread, Refused
from sft.common.open_files import few_left_from
from sft.disk.durable import FileSystem, flush_all, refusal
from sft.disk.partials import Partial, Published

Outcome = Published | Refused
Problems = list[Refused | None]  # for each file what came in between; None for those that are on the disk


class Commit:
    """Takes the first `count` files of a group, at least one."""

    def __init__(
        self,
        group: Sequence[Partial],
        finish: Callable[[Partial], int],
        file_system: FileSystem,
        publish: Callable[[Sequence[Partial], Problems], list[Outcome]],
    ) -> None:
        """`finish`: see `Partial.finish`; asked here only. `file_system`: of all of them."""
        self._file_system, self._publish = file_system, publish
        self._problems: Problems = []
        self._descriptors: list[int] = []
        self._errors: list[OSError | None] = []
        self._flushing: Aside | None = None
        self.is_flushed = False
        few_left = few_left_from()
        for partial in group:
            try:
                self._descriptors.append(finish(partial))
                self._problems.append(None)
            except Refused as problem:
                partial.discard()
                self._problems.append(problem)
            else:
                if self._descriptors[-1] >= few_left:
                    break
        self.count = len(self._problems)
        self._group = group[: self.count]

    def flush_aside(self) -> None:
        """Begin to flush in a thread; where none can be had, `finish` does it."""
        with contextlib.suppress(NoThread):
            self._flushing = Aside("flushing", self._flush)

    def _flush(self) -> None:
        try:
            self._errors = list(flush_all(self._descriptors, self._file_system))
        finally:
            self.is_flushed = True

    def settle(self) -> None:
        """Return when no flush is under way any more, whatever became of it."""
        if self._flushing is not None:
            with contextlib.suppress(Exception):
                self._flushing.wait()

    def finish(self) -> list[Outcome]:
        """Make each of them visible that is on the disk now; for each what became of it."""
        if self._flushing is None:
            self._flush()
        else:
            self._flushing.wait()
        errors = iter(self._errors)
        for at, partial in enumerate(self._group):
            if self._problems[at] is None and (error := next(errors)) is not None:
                partial.discard()
                self._problems[at] = refusal(error)
        return self._publish(self._group, self._problems)
