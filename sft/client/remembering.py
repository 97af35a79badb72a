"""What one run has fetched already, so that another connection of it needs no second look.

Rules: a file is known by its path here, its size and its time at the receiver; there may be millions.
"""

from typing import TYPE_CHECKING

from crypto_utils import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sft.disk.temporary import Incoming, Outcome, Unpublished, Whole
    from sft.transfer.groups import Begun, Folder


class Remembering:
    """A folder that answers for what was fetched by an earlier connection of this run."""

    def __init__(self, folder: "Folder", done: set[bytes]) -> None:
        self._folder, self._done = folder, done
        self.publish, self.start_publishing = folder.publish, folder.start_publishing
        self.finish_publishing = folder.finish_publishing
        self.finish_folders = folder.finish_folders
        self.begin_anyway, self.begin_folder, self.have = folder.begin_anyway, folder.begin_folder, folder.have

    def take(self, files: "Sequence[Whole]") -> "list[Unpublished | Outcome]":
        """Those that were fetched are skipped; the others are taken up to the next one that was."""
        from sft.disk.temporary import Settled

        done = [key_of(whole.incoming) in self._done for whole in files]
        if not any(done):
            return self._folder.take(files)
        if done[0]:
            return [Settled(files[0].incoming.path, skipped=True)]
        return self._folder.take(files[: done.index(True)])

    def begin_link(self, incoming: "Incoming", target: str) -> "Unpublished":
        return self._folder.begin_link(incoming, target)

    def begin(self, incoming: "Incoming", resumable: bool) -> "Begun":
        from sft.disk.temporary import Settled

        if key_of(incoming) in self._done:
            return Settled(incoming.path, skipped=True)
        return self._folder.begin(incoming, resumable)


def key_of(incoming: "Incoming") -> bytes:
    """What a file that was fetched is known by; there may be millions."""
    return digest(f"{'/'.join(incoming.path)}\0{incoming.size}\0{incoming.mtime}".encode())[:16]
