"""The journal of a partial file: what it says of flushed bytes is on the disk before it is believed."""

import os
from pathlib import Path

import pytest

from sft.disk.journal import Journal


def test_journal_is_flushed_before_writing_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: on_disk.append(os.pread(descriptor, 4096, 0)))
    monkeypatch.setattr("sys.platform", "linux")  # macOS asks the drive itself, by another call
    with (tmp_path / "journal").open("w+b") as file:
        for durable in (0, 5):
            Journal("aa", 10, None, durable, 1, "0" * 16).write(file.fileno())
            read = Journal.read(file.fileno())
            assert read is not None and read.durable == durable
            assert on_disk[-1] == os.pread(file.fileno(), 4096, 0)
    assert len(on_disk) == 2
