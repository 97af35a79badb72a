"""Counting what lies below a folder: at any depth, with few descriptors, whatever is moved and removed meanwhile."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sft.disk.amounts import Amount
from sft.disk.measuring import Measuring, measure


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def folder(home: Path) -> Iterator[int]:
    descriptor = os.open(home, os.O_RDONLY)
    before = len(os.listdir("/dev/fd"))
    yield descriptor
    assert len(os.listdir("/dev/fd")) == before, "descriptors leak"
    os.close(descriptor)


def make_deep(folder: int, depth: int) -> None:
    """Deeper than a path may be long."""
    at = os.dup(folder)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_deep_folder_is_counted_with_few_descriptors(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make_deep(folder, 700)
    free = os.dup(folder)
    os.close(free)
    real, highest = os.open, 0

    def opened(*words: object, **more: object) -> int:
        nonlocal highest
        descriptor: int = real(*words, **more)  # type: ignore[arg-type]
        highest = max(highest, descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    assert measure(folder) == Amount(0, 700)
    assert highest <= free + 4


def test_each_counts_as_so_much_at_least_and_what_links_lead_to_does_not(folder: int, home: Path) -> None:
    (home / "d/e").mkdir(parents=True)
    (home / "d/a").write_bytes(b"1" * 700)
    (home / "d/e/b").write_bytes(b"1")
    (home / "link").symlink_to("d")
    assert measure(folder) == Amount(701, 5)
    assert measure(folder, 512) == Amount(700 + 4 * 512, 5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
def test_folder_that_may_not_be_entered_hides_nothing_beside_it(folder: int, home: Path, mode: int) -> None:
    for name in ("a", "b", "c"):
        (home / name / "below").mkdir(parents=True)
    (home / "b").chmod(mode)
    try:
        assert measure(folder) == Amount(0, 5)
    finally:
        (home / "b").chmod(0o700)


def _move(home: Path) -> None:
    (home / "b/0/x").rename(home / "moved")


def _replace(home: Path) -> None:
    _move(home)
    (home / "b/0/x").symlink_to(home / "moved")


def _move_all(home: Path) -> None:
    _move(home)
    (home / "b").rename(home / "moved/b")


@pytest.mark.parametrize(
    ("change", "more"),
    [(_move, 4 + 9), (_replace, 4 + 9), (_move_all, 9), (lambda home: shutil.rmtree(home / "b"), 9)],
    ids=["moved", "replaced by a link", "moved with what it was in", "removed"],
)
def test_folder_that_is_moved_or_removed_while_it_is_counted_hides_nothing_beside_it(
    folder: int, home: Path, change: Callable[[Path], object], more: int
) -> None:
    for name in ("a", "b", "c"):
        for number in range(3):
            (home / name / f"{number}/x/y").mkdir(parents=True)
    until = 3 + 9 + 3 + 1 + 1
    with Measuring(folder, 0, lambda: None) as measuring:
        while measuring.amount.files < until:  # all of a, and b/0/x/y
            measuring.step()
        change(home)
        while measuring.has_more:
            measuring.step()
    assert measuring.amount.files == until + more
