"""What is fetched to standard output: written as it comes, after each record was authenticated.

Rules: one file, from its start. It can't be taken back, resumed or compared: whether it was whole is known only at its
end, and is told by the exit status.
"""

import os
from collections.abc import Sequence

from sft.common.errors import Code, Refused
from sft.disk.durable import disk_errors
from sft.disk.partials import Incoming, Partial, PartialArea, PathParts, Published


class _Streamed(Partial):
    """The one file on its way to a descriptor."""

    def __init__(self, area: PartialArea, incoming: Incoming, stream: "Stream", descriptor: int) -> None:
        super().__init__(area, incoming, "", False)
        self._stream, self._to = stream, descriptor

    def resume_from(self, offset: int) -> None:
        if offset:
            raise Refused(Code.UNSUPPORTED)

    def write(self, content: memoryview) -> None:
        with disk_errors():
            while content:
                count = os.write(self._to, content)
                self._stream.begun = True
                self.size += count
                content = content[count:]

    def discard(self) -> None:
        self._stream.is_taken = False

    def keep(self) -> bool:
        self.discard()
        return False


class Stream:
    """Takes the place of a folder. `begun` (something was written) and `whole` tell what has become of the one file."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, True)  # else a slow reader would look like a full disk
        self._to = descriptor
        self.begun = self.whole = self.is_taken = False

    def begin(self, incoming: Incoming, resumable: bool) -> Partial:
        if self.begun or self.whole or self.is_taken:
            raise Refused(Code.UNSUPPORTED, why="only one file can go to standard output")
        self.is_taken = True
        return _Streamed(PartialArea.__new__(PartialArea), incoming, self, self._to)

    def begin_anyway(self, incoming: Incoming, resumable: bool) -> Partial:
        return self.begin(incoming, resumable)

    def commit(self, group: Sequence[Partial]) -> list[Published | Refused]:
        self.whole = True
        return [Published(partial.incoming.path, size=partial.size, sha256=partial.sha256) for partial in group]

    def begin_commit(self, group: Sequence[Partial]) -> None:
        """There is nothing to be flushed."""

    def make_folder(self, path: PathParts, mtime: int | None, mode: int | None) -> None:
        raise Refused(Code.IS_FOLDER)

    def finish_folders(self) -> list[PathParts]:
        return []
