"""A large file that can't be begun without a free descriptor: nothing new stays, and kept bytes are not lost."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.common.errors import Code, Refused
from sft.disk.partials import PartialFile
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming
from sft.disk.user_folder import Rules, UserFolder

CONTENT = os.urandom(300_000)


def begin(folder: UserFolder, *path: str) -> PartialFile:
    begun = folder.begin(Incoming(b"1" * 16, path, len(CONTENT), None, None, "fail"), True)
    assert isinstance(begun, PartialFile)
    return begun


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[UserFolder]:
    with (
        contextlib.closing(Storage(tmp_path / "received", Rules())) as storage,
        contextlib.closing(storage.user("alice")) as folder,
    ):
        yield folder


@contextlib.contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """As long as this lasts, this process can open so many more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(more + 1)]
    for each in free:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def kept(tmp_path: Path) -> set[str]:
    return {each.name for each in (tmp_path / "received/.partial/alice").iterdir()} - {"receipts"}


def test_file_that_can_not_be_begun_without_descriptors_leaves_nothing(folder: UserFolder, tmp_path: Path) -> None:
    (tmp_path / "received/alice/below").mkdir()
    refused = 0
    for more in range(10):
        with few_descriptors(more):
            try:
                begin(folder, "below", "a").discard()
            except Refused:
                refused += 1
        assert kept(tmp_path) == set()
    assert 2 <= refused < 10


def test_bytes_that_were_kept_outlast_a_try_without_descriptors(folder: UserFolder, tmp_path: Path) -> None:
    first = begin(folder, "a")
    first.write(memoryview(CONTENT))
    assert first.keep()
    before = kept(tmp_path)
    for more in range(10):
        with few_descriptors(more), contextlib.suppress(Refused):
            begin(folder, "a").close()
        assert kept(tmp_path) == before
    second = begin(folder, "a")
    assert second.offers == [len(CONTENT)]
    second.discard()


def test_refusal_while_the_holder_has_removed_its_files_and_not_let_go_leaves_nothing(
    folder: UserFolder, tmp_path: Path
) -> None:
    holder = begin(folder, "a")
    holder._remove()  # as just after it was published
    with pytest.raises(Refused) as caught:
        folder.begin(Incoming(b"2" * 16, ("a",), len(CONTENT), None, None, "fail"), True)
    assert caught.value.code is Code.BUSY
    assert kept(tmp_path) == set()
    holder.discard()
