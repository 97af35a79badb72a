"""Limits, full and broken disks: the code that each has, and that nothing is kept."""

import errno
import os
import sys
from pathlib import Path

import pytest
from processes import run_python, run_python_on_small_disk
from stored_files import announced, begun, code_of, commit, left, opened, put, tree, using
from tables import each_row

from sft.common.errors import Code, Refused
from sft.disk.durable import refusal
from sft.disk.temporary import Settled
from sft.disk.user_folder import Rules, UserFolder


def test_max_file_size_is_the_last_size_taken(root: Path) -> None:
    with opened(root, Rules(max_file_size=100)) as storage, using(storage) as folder:
        assert code_of(put(folder, "a", size=101)) is Code.TOO_LARGE
        assert isinstance(put(folder, "a", size=100), Settled)


def test_more_than_the_disk_has_free_is_refused_before_the_content(alice: UserFolder, root: Path) -> None:
    with pytest.raises(Refused) as caught:
        alice.begin(announced("a", size=1 << 62), resumable=True)
    assert caught.value.code is Code.NO_SPACE
    assert left(root) == []


FULL_DISK = """
import os, sys
from pathlib import Path
from sft.disk.temporary import Incoming
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.common.errors import Refused
root = Path(sys.argv[1]) / "r"
folder = Storage(root, Rules()).user("alice")
small = folder.begin(Incoming(b"s" * 16, ("small",), 5, None, None, "fail"), False)
small.write(memoryview(b"small"))
for resumable in (False, True):
    large = folder.begin(Incoming(b"l" * 16, ("large",), 1000, None, None, "fail"), resumable)
    try:
        for _ in range(64):
            large.write(memoryview(bytes(100_000)))
        print("written")
    except Refused as problem:
        large.discard()
        print(problem.code, end=" ")
outcome, = folder.publish([small])
print(type(outcome).__name__, sorted(os.listdir(root / "alice")), len(os.listdir(root / ".partial/alice")))
"""


def test_full_disk_refuses_the_file_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a small file system")
    done = run_python_on_small_disk(FULL_DISK, tmp_path / "small", "size=1m,nr_inodes=64")
    if done is None:
        pytest.skip("no file system can be mounted here")
    assert done == "no-space no-space Settled ['small'] 0"


def test_file_over_the_systems_limit_is_refused_and_keeps_nothing(tmp_path: Path) -> None:
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    assert run_python(code + FULL_DISK, tmp_path) == "too-large too-large Settled ['small'] 0"


@each_row(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.NO_SPACE),
        (errno.EDQUOT, Code.NO_SPACE),
        (errno.ENAMETOOLONG, Code.NAME),
        (errno.EILSEQ, Code.NAME),
        (errno.EFBIG, Code.TOO_LARGE),
        (errno.EIO, Code.UNAVAILABLE),
        (errno.EROFS, Code.UNAVAILABLE),
    ],
)
def test_each_error_of_the_disk_has_its_code(number: int, code: Code) -> None:
    assert refusal(OSError(number, "words")).code is code
    assert refusal(OSError("words")).code is Code.STORAGE


def test_failed_flush_of_the_bytes_publishes_nothing(
    alice: UserFolder, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails at fsync can't be had here, so that one call is made to fail."""

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    partial = begun(alice, announced("a"))
    monkeypatch.setattr(os, "fsync", broken)
    (outcome,) = commit(alice, partial)
    assert code_of(outcome) is Code.UNAVAILABLE
    assert (tree(home), left(root)) == (set(), [])
