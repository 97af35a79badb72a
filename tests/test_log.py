"""A server's log: as JSON, on standard error, and the second one with logins only."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sft.common.log_events import AUDIT, LogEvent
from sft.console.json_lines import JsonLines
from sft.console.log import STANDARD_ERROR, LogStyle, add_audit_log, no_log, open_log
from sft.server.connection_log import ConnectionLog

NAME = "test.log"
JSON = LogStyle(lines=JsonLines)
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    no_log(NAME)


def objects(path: Path) -> list[dict[str, Any]]:
    """The lines of a log in JSON, without their times."""
    found = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert all(re.fullmatch(TIME, each.pop("time")) for each in found)
    return found


def test_event_is_one_object_with_whose_it_is(tmp_path: Path) -> None:
    log = ConnectionLog(open_log(NAME, tmp_path / "log", "info", style=JSON), 13, "alice", "203.0.113.9")
    log.info(LogEvent("stored", "stored a, 3 bytes", path="a\n\u202e\udcff", bytes=3))
    log.info([LogEvent("stored", "", path="b", bytes=4), LogEvent("stored", "", path="c", bytes=None)])
    log.warning("something else: %d", 5)
    whose = {"connection": 13, "user": "alice", "source": "203.0.113.9"}
    assert objects(tmp_path / "log") == [
        {"level": "info", "event": "stored", **whose, "path": "a\n\u202e\udcff", "bytes": 3},
        {"level": "info", "event": "stored", **whose, "path": "b", "bytes": 4},
        {"level": "info", "event": "stored", **whose, "path": "c", "bytes": None},
        {"level": "warning", "event": "note", **whose, "text": "something else: 5"},
    ]


def test_text_says_the_same_with_a_head(tmp_path: Path) -> None:
    log = ConnectionLog(open_log(NAME, tmp_path / "log", "info"), 13, "alice", "203.0.113.9")
    log.info(LogEvent("stored", "stored a, 3 bytes", path="a", bytes=3))
    log.info([LogEvent("stored", "stored b", path="b"), "plain"])
    lines = (tmp_path / "log").read_text().splitlines()
    texts = ["stored a, 3 bytes", "stored b", "plain"]
    assert [re.sub(f"^{TIME} ", "", line) for line in lines] == [
        f"INFO #13 alice@203.0.113.9: {text}" for text in texts
    ]


def test_traceback_and_endless_text_are_one_object(tmp_path: Path) -> None:
    log = open_log(NAME, tmp_path / "log", "info", style=JSON)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("a bug")
    log.info("x" * 100_000)
    trace, long = objects(tmp_path / "log")
    assert trace["text"].startswith("a bug\nTraceback") and trace["text"].endswith("second")
    assert len(long["text"]) <= 5_000


def test_audit_log_has_what_is_marked_and_nothing_else_pushes_it_out(tmp_path: Path) -> None:
    style = LogStyle(1000, 1)
    for log in (open_log(NAME, tmp_path / "log", "info", style=style), no_log(NAME)):
        add_audit_log(log, tmp_path / "audit", style)
        connection = ConnectionLog(log, 1, "", "203.0.113.9")
        connection.warning(LogEvent("login", "login refused"), extra=AUDIT)
        for number in range(200):
            connection.info("stored %d", number)
        lines = (tmp_path / "audit").read_text().splitlines()
        assert [line.partition(" ")[2] for line in lines] == ["WARNING #1 203.0.113.9: login refused"]
        (tmp_path / "audit").unlink()
    assert "login refused" not in (tmp_path / "log").read_text(), "it was rotated away"
    assert not (tmp_path / "audit.1").exists()


@pytest.mark.parametrize(
    ("journal", "style", "shown"),
    [
        ("", LogStyle(), TIME + " ERROR it failed\n" + TIME + " INFO it goes on\n"),
        ("8:1234", LogStyle(), "<3>ERROR it failed\n<6>INFO it goes on\n"),
        ("8:1234", JSON, '{"time".*"text": "it failed"}\n{"time".*"text": "it goes on"}\n'),
    ],
)
def test_log_on_standard_error_has_the_levels_that_the_journal_reads(
    monkeypatch: pytest.MonkeyPatch, journal: str, style: LogStyle, shown: str
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", journal)
    if not journal:
        monkeypatch.delenv("JOURNAL_STREAM")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = open_log(NAME, STANDARD_ERROR, "info", style=style)
    log.error("it failed")
    log.info("it goes on")
    assert re.fullmatch(shown, sys.stderr.getvalue())  # type: ignore[union-attr]


def test_standard_error_that_is_closed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    log = open_log(NAME, STANDARD_ERROR, "info")
    closed.close()
    log.info("lost")
    assert isinstance(log.handlers[0], logging.StreamHandler)
