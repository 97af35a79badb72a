"""Rounds of the crash loop (`make crash` runs as many as wished): one end killed at a random stage, under load."""

from pathlib import Path

import pytest
from claims import receipts, told
from crash.rounds import Crashes
from machine import compile_library, missing


def crash(folder: Path, *rounds: int) -> None:
    crashes = Crashes(folder, "two", None if missing() else compile_library(folder))
    try:
        for number in rounds:
            print(crashes.round(number).line)
        crashes.close()
    finally:
        crashes.kill()


def test_killed_at_a_random_stage_nothing_is_torn_and_the_same_commands_go_on(tmp_path: Path) -> None:
    crash(tmp_path, 35)  # the server, behind the first byte that it writes


@pytest.mark.long
def test_killed_at_twelve_random_stages_nothing_is_torn_and_the_same_commands_go_on(tmp_path: Path) -> None:
    crash(tmp_path, *range(1, 13))


def test_claims_are_read_from_what_clients_print_and_write(tmp_path: Path) -> None:
    digest = "0f" * 32
    line = f"a/b  c.txt  1,234 bytes  SHA-256 {digest}"
    out = f"skipped: x\ndelivered: {line}\nthere already: {line}\n1 file delivered to a@b\ndelivered: {line}"
    assert list(told(out)) == [("a/b  c.txt", digest)] * 2
    file = tmp_path / "receipts"
    assert list(receipts(file)) == []
    file.write_text(f'{{"path": "a", "sha256": "{digest}"}}\n{{"path": "b", "sh')
    assert list(receipts(file, torn=True)) == [("a", digest)]
    with pytest.raises(AssertionError, match="torn"):
        list(receipts(file))
