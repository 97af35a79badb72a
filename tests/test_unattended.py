"""The commands for cron and systemd in the guide are those whose sample is run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from test_architecture import TOP

from client import _parser
from sft.console.command_line import read_intermixed

GUIDE = (TOP / "docs/GUIDE.md").read_text("utf-8")
PAGE = GUIDE[GUIDE.index("\n## Unattended") : GUIDE.index("\n## Coming from")]
SAMPLE = next(line for line in PAGE.splitlines() if line.startswith("$ python client.py -q -u --links"))
CRON = next(line for line in PAGE.splitlines() if line.startswith("15 2 * * *"))
UNIT = re.search(r"ExecStart=/bin/sh -c '(.*)'", PAGE)
TODAY = "2026-05-01"


def meant(words: list[str]) -> dict[str, object]:
    """What a command line means, however it names the source."""
    options = vars(read_intermixed(_parser(), words[words.index("client.py") + 1 :], "names"))
    options["names"] = [name.replace("~/photos", "photos") for name in options["names"]]
    return options


@pytest.mark.parametrize(
    "written", [(CRON.split(None, 5)[5], "\\%"), (UNIT[1] if UNIT else "", "%%")], ids=["cron", "systemd"]
)
def test_command_of_a_timer_is_the_one_whose_sample_is_run(written: tuple[str, str]) -> None:
    text, percent = written
    assert f"$(date +{percent}F)" in text, "cron and systemd have meanings of their own for a percent sign"
    words = shlex.split(text.replace(f"$(date +{percent}F)", TODAY))
    assert meant(words) == meant(shlex.split(SAMPLE))


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd")
    units = re.findall(r"```ini\n(.*?)```", PAGE, re.S)
    for name, text in zip(("backup.service", "backup.timer"), units, strict=True):
        (tmp_path / name).write_text(text.replace("%h/secure-file-transfer", "/tmp"))
    command = [
        "systemd-analyze",
        "verify",
        "--user",
        *(str(tmp_path / name) for name in ("backup.service", "backup.timer")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "backup" not in done.stderr, done.stderr
