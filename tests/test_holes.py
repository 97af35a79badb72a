"""Holes: where a file has them, and which zeros become some."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tables import each_row

from sft.common.zeros import ZEROS_SIZE, are_zeros, zeros
from sft.disk import holes
from sft.disk.holes import HOLE_LEAST, may_have_holes, run_at, without_holes

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    made = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


def write(descriptor: int, size: int, *parts: tuple[int, int]) -> None:
    """Parts from an offset to another one have content, and the rest is a hole."""
    os.ftruncate(descriptor, size)
    for start, end in parts:
        os.pwrite(descriptor, b"x" * (end - start), start)
    if parts and not may_have_holes(os.fstat(descriptor)) and sum(end - start for start, end in parts) < size - MIB:
        pytest.skip("this disk has no holes")


def runs(descriptor: int, size: int, at: int = 0) -> list[tuple[int, bool]]:
    found = []
    while at < size:
        found.append(run_at(descriptor, at, size))
        at += found[-1][0]
    assert at == size
    return found


def test_file_without_holes_is_never_asked(descriptor: int) -> None:
    write(descriptor, MIB, (0, MIB))
    assert not may_have_holes(os.fstat(descriptor))


def test_holes_and_content_follow_each_other(descriptor: int) -> None:
    write(descriptor, 20 * MIB, (0, 64 * KIB), (4 * MIB, 5 * MIB), (10 * MIB, 10 * MIB + 4 * KIB))
    assert may_have_holes(os.fstat(descriptor))
    assert runs(descriptor, 20 * MIB) == [
        *((64 * KIB, False), (4 * MIB - 64 * KIB, True), (MIB, False)),
        *((5 * MIB, True), (4 * KIB, False), (10 * MIB - 4 * KIB, True)),
    ]


def test_run_begins_anywhere(descriptor: int) -> None:
    write(descriptor, 4 * MIB, (MIB, MIB + 4 * KIB))
    assert run_at(descriptor, 5, 4 * MIB) == (MIB - 5, True)
    assert run_at(descriptor, MIB + 4 * KIB - 1, 4 * MIB) == (1, False)
    assert run_at(descriptor, 4 * MIB - 1, 4 * MIB) == (1, False)
    assert run_at(descriptor, 4 * MIB, 4 * MIB) == (0, False)


def test_small_hole_counts_as_content(descriptor: int) -> None:
    small = HOLE_LEAST - 4 * KIB
    write(descriptor, 8 * MIB, (0, 4 * KIB), (4 * KIB + small, 8 * KIB + small))
    assert runs(descriptor, 8 * MIB) == [(8 * KIB + small, False), (8 * MIB - 8 * KIB - small, True)]


def test_small_hole_at_the_end_counts_as_content(descriptor: int) -> None:
    write(descriptor, 4 * MIB + 4 * KIB, (2 * MIB, 4 * MIB))
    assert sum(count for count, is_hole in runs(descriptor, 4 * MIB + 4 * KIB) if not is_hole) == 2 * MIB + 4 * KIB


def test_file_that_is_nothing_but_a_hole(descriptor: int) -> None:
    write(descriptor, 3 * MIB)
    assert runs(descriptor, 3 * MIB) == [(3 * MIB, True)]


def test_many_small_holes_are_not_looked_through_to_the_end(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(descriptor, 8 * MIB, *((at, at + 4 * KIB) for at in range(0, 8 * MIB, 8 * KIB)))
    seen = []
    real = os.lseek

    def noted(*asked: int) -> int:
        seen.append(asked)
        return real(*asked)

    monkeypatch.setattr(os, "lseek", noted)
    count, is_hole = run_at(descriptor, 0, 8 * MIB)
    assert MIB <= count < 2 * MIB and not is_hole
    assert len(seen) < 300


def test_disk_that_does_not_know_holes_has_none(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(descriptor, 3 * MIB)

    def refuse(*asked: object) -> int:
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(os, "lseek", refuse)
    assert run_at(descriptor, 0, 3 * MIB) == (3 * MIB, False)


def test_system_that_does_not_know_holes_has_none(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(descriptor, 3 * MIB)
    monkeypatch.setattr(holes, "_SEEK_DATA", -1)
    assert not may_have_holes(os.fstat(descriptor))


# --- zeros that need not be written ----------------------------------------------------------------------------------

X, Z = b"x" * HOLE_LEAST, bytes(HOLE_LEAST)
B = HOLE_LEAST


@each_row(
    ("content", "at", "parts"),
    [
        (b"", 0, []),
        (b"x", 0, [(0, 1)]),
        (bytes(100), 0, [(0, 100)]),
        (Z, 0, []),
        (Z * 3, 0, []),
        (Z, 1, [(0, B)]),
        (Z * 2, 1, [(0, B - 1), (2 * B - 1, 2 * B)]),
        (X + Z + X, 0, [(0, B), (2 * B, 3 * B)]),
        (Z + X + Z, 0, [(B, 2 * B)]),
        (Z[:-1] + b"x" + X, 0, [(0, 2 * B)]),
        (X + Z[:-1], 0, [(0, 2 * B - 1)]),
        (b"x" + Z + Z, 5 * B - 1, [(0, 1)]),
        (Z + b"\0\0", 7 * B, [(B, B + 2)]),
        (b"\0" + b"x" * (B - 1) + Z, 0, [(0, B)]),
    ],
)
def test_whole_blocks_of_zeros_are_left_out(content: bytes, at: int, parts: list[tuple[int, int]]) -> None:
    assert list(without_holes(memoryview(content), at)) == parts
    rebuilt = bytearray(len(content))
    for start, end in parts:
        rebuilt[start:end] = content[start:end]
    assert rebuilt == content


def test_zeros_are_zero_and_nothing_else_is() -> None:
    assert bytes(zeros(ZEROS_SIZE)) == bytes(ZEROS_SIZE)
    assert len(zeros(5)) == 5
    for size in (1, 100, ZEROS_SIZE):
        piece = bytearray(size)
        assert are_zeros(memoryview(piece))
        for at in (0, size // 2, size - 1):
            piece[at] = 1
            assert not are_zeros(memoryview(piece))
            piece[at] = 0
