"""One file that is fetched to standard output: written as it comes, after each record was authenticated.

Rules: one file, from its start. It can't be taken back, resumed or compared: whether it was whole is known only at its
end, and the exit status reports it.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from crypto_utils import new_digest
from sft.common.errors import Code, Refused
from sft.common.zeros import zeros
from sft.disk.durable import disk_errors
from sft.disk.folders import PathParts
from sft.disk.parents import Parent
from sft.disk.reservations import NOT_RESERVED
from sft.disk.temporary import Incoming, Outcome, Settled, TemporaryFile, Unpublished, Whole


class _OutputFile:
    """The one file; of what `sft.disk.temporary.TemporaryFile` lists it does all but publishing."""

    descriptor = -1  # none of its own

    def __init__(self, incoming: Incoming, output: "StandardOutput", to: int) -> None:
        self.incoming, self._output, self._to = incoming, output, to
        self.size = 0
        self.sha256: bytes | None = None
        self.offers: list[int] = []
        self.is_shared = False
        self.reservation = NOT_RESERVED
        self.refusal: Refused | None = None
        self.is_different = False
        self.has_time = True
        self.is_finished = False

    def digest_of_kept(self, size: int, goes_on: Callable[[], bool]) -> "hashlib._Hash":
        return new_digest()

    def resume_from(self, offset: int) -> None:
        if offset:
            raise Refused(Code.UNSUPPORTED)

    def write(self, content: memoryview) -> None:
        with disk_errors():
            while content:
                before, self._output.has_begun = self._output.has_begun, True  # a signal may end us right behind write
                try:
                    count = os.write(self._to, content)
                except OSError:
                    self._output.has_begun = before
                    raise
                self.size += count
                content = content[count:]

    def write_zeros(self, count: int) -> None:
        self.write(zeros(count))

    def discard(self) -> None:
        self._output.is_taken = False

    def keep(self) -> bool:
        self.discard()
        return False

    def finish(self, bits: int, parent: Parent | None = None) -> int:
        raise NotImplementedError

    def publishing(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def link(self, name: str, folder: int) -> None:
        raise NotImplementedError

    def rename(self, name: str, folder: int) -> None:
        raise NotImplementedError

    def is_same_file(self, other: os.stat_result) -> bool:
        return False


class StandardOutput:
    """Takes the place of a folder. `has_begun`: something was written; `is_whole`: the file was published."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, True)  # else a slow reader would look like a full disk
        self._to = descriptor
        self.has_begun = self.is_whole = self.is_taken = False

    def begin(self, incoming: Incoming, resumable: bool) -> TemporaryFile:
        if self.has_begun or self.is_whole or self.is_taken:
            raise Refused(Code.UNSUPPORTED, why="only one file can go to standard output")
        self.is_taken = True
        return _OutputFile(incoming, self, self._to)

    def begin_link(self, incoming: Incoming, target: str) -> Unpublished:
        raise Refused(Code.UNSUPPORTED, why="only a file can go to standard output")

    def begin_anyway(self, incoming: Incoming, resumable: bool) -> TemporaryFile:
        return self.begin(incoming, resumable)

    def take(self, files: Sequence[Whole]) -> list[Unpublished | Outcome]:
        """The first of these files, written at once."""
        whole = files[0]
        try:
            file = self.begin(whole.incoming, resumable=False)
        except Refused as problem:
            return [problem]
        file.sha256 = whole.sha256
        try:
            file.write(whole.content)
        except Refused as problem:
            file.discard()
            return [problem]
        return [file]

    def have(self, offered: Sequence[object]) -> list[Outcome | None]:
        """What was written can't be compared."""
        return [None] * len(offered)

    def publish(self, group: Sequence[Unpublished]) -> list[Outcome]:
        self.is_whole = True
        return [Settled(file.incoming.path, size=file.size, sha256=file.sha256) for file in group]

    def start_publishing(self, group: Sequence[Unpublished]) -> None:
        """There is nothing to flush."""

    def finish_publishing(self, batch: object) -> list[Outcome]:
        raise NotImplementedError

    def begin_folder(self, incoming: Incoming) -> Unpublished:
        raise Refused(Code.IS_FOLDER)

    def finish_folders(self) -> list[PathParts]:
        return []
