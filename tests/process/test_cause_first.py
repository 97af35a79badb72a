"""A login that fails: why comes before what was found in the sources meanwhile."""

import os
from pathlib import Path

import pytest
from processes import Client, Server, make

from sft.console.repeated import FEW


@pytest.fixture
def source(folder: Path) -> Path:
    """A folder with more links than are named, which are found long before a login is through."""
    make(folder / "source" / "a")
    for number in range(FEW + 2):
        (folder / "source" / f"link {number}").symlink_to("a")
    os.mkfifo(folder / "source" / "fifo")
    return folder / "source"


def check_found(lines: list[str]) -> None:
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == FEW + 2 and sum("fifo" in line for line in skipped) == 1, lines
    assert sum("and 2 more (-v)" in line for line in skipped) == 1


def test_refused_login_comes_before_what_was_skipped(server: Server, source: Path, folder: Path) -> None:
    stranger = Client(server.port, folder / "client", password="a wrong password")
    result = stranger(source, "box")
    first, *others = result.err.splitlines()
    assert result.status == 3 and first.startswith("error: login refused: "), result
    check_found(others)


def test_receiver_that_is_not_there_comes_before_what_was_skipped(client: Client, source: Path) -> None:
    result = client.at(1)("--retries=0", source, "box")
    first, *others = result.err.splitlines()
    assert result.status == 4 and first.startswith("error: "), result
    check_found(others)


def test_what_was_skipped_is_told_once_the_login_is_through(client: Client, source: Path, box: str) -> None:
    result = client(source, box)
    assert result.status == 0
    check_found(result.err.splitlines())
