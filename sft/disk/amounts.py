"""Amounts of disk space: bytes and files, and the quota that limits them.

Rules: values only. A folder and a link count as a file, and each counts as 512 bytes at least.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes in so many files."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.bytes - other.bytes, self.files - other.files)

    def least(self, most: "Amount") -> "Amount":
        """The smaller of the two, for bytes and for files."""
        return Amount(min(self.bytes, most.bytes), min(self.files, most.files))

    def beyond(self, limit: "Amount") -> "Amount":
        """How much more it is than `limit`, for bytes and for files; never negative."""
        return Amount(max(self.bytes - limit.bytes, 0), max(self.files - limit.files, 0))


NOTHING = Amount()
LEAST_BYTES = 512  # without it, a quota of bytes would allow any number of empty files


def file_of(size: int) -> Amount:
    """What a file of `size` bytes counts for; a folder and a link count like an empty file."""
    return Amount(max(size, LEAST_BYTES), 1)


def folders_of(count: int) -> Amount:
    """What so many folders count for."""
    return Amount(count * LEAST_BYTES, count)


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may use; None means no limit."""

    bytes: int | None = None
    files: int | None = None

    def left(self, used: Amount) -> Amount:
        """What may still be used; negative when more is used than allowed."""
        endless = 1 << 63
        return Amount(
            (endless if self.bytes is None else self.bytes) - used.bytes,
            (endless if self.files is None else self.files) - used.files,
        )


NO_QUOTA = Quota()
