"""The measures behind the table of sizing, run small: each gives its figures, and leaves nothing."""

import json
import sys
from pathlib import Path

import pytest

from bench.sizing import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it this way")
FEW = ["--logins=1", "--connections=2", "--size=100000", "--small-files=5", "--accounts=9", "--files=1001"]


def measured(tmp_path: Path, *flags: str) -> dict[str, float]:
    """The figures of a run."""
    place = tmp_path / "place"
    place.mkdir()
    written = tmp_path / "figures.json"
    assert main([f"--folder={place}", f"--disk={place}", f"--json={written}", *FEW, *flags]) == 0
    assert list(place.iterdir()) == []
    found = json.loads(written.read_text())
    assert found["machine"]["cores"] >= 1
    return {each["what"]: each["value"] for each in found["figures"]}


def test_logins_are_measured_at_both_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(tmp_path, "--only=logins")
    assert list(found) == [
        "a login and an empty listing, CPU of the server",
        "the same, CPU of the client with its start",
        "the same, seconds in all",
    ]
    assert found["the same, CPU of the client with its start"] > 0.01
    assert capsys.readouterr().out.count("\n| ") == 4


@pytest.mark.long
def test_everything_is_measured(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert len(found) > 20 and all(value >= 0 for value in found.values())
    assert found["9 accounts: start of the server"] > 0
    assert found["1,001 files: --list -R, memory of the client"] > 10
    assert found["memory of each idle connection"] < 20
