"""What the server's terminal shows of connections that end, and of logins that are refused."""

import logging

from tables import each_row

from sft.common.log_events import LogEvent
from sft.server.on_terminal import OnTerminal, shown

ALICE = {"connection": 3, "user": "alice", "source": "192.0.2.1"}
STRANGER = {"connection": 4, "user": None, "source": "192.0.2.9"}
DONE = {"bytes_received": 3_400_000, "bytes_sent": 1_000, "seconds": 1.23, "reason": None}


@each_row(
    ("event", "who", "line"),
    [
        (
            LogEvent("done", "", **DONE, files_received=12, files_sent=0),
            ALICE,
            "alice from 192.0.2.1: 12 files received, 3.4 MB on the line in 1.2 s",
        ),
        (
            LogEvent("done", "", **DONE, files_received=1, files_sent=2),
            ALICE,
            "alice from 192.0.2.1: 1 file received, 2 files sent, 3.4 MB on the line in 1.2 s",
        ),
        (
            LogEvent("done", "", **{**DONE, "reason": "the connection was lost\x1b"}),
            ALICE,
            "alice from 192.0.2.1: 3.4 MB on the line in 1.2 s; ended: the connection was lost\\x1b",
        ),
        (
            LogEvent("login", "login as x refused: wrong password", outcome="refused"),
            STRANGER,
            "from 192.0.2.9: login as x refused: wrong password",
        ),
        (LogEvent("login", "no login: the connection was lost", outcome="none"), STRANGER, None),
        (LogEvent("login", "logged in", outcome="accepted"), ALICE, None),
        (LogEvent("stored", "stored a"), ALICE, None),
    ],
)
def test_line_of_an_event(event: LogEvent, who: dict[str, object], line: str | None) -> None:
    assert shown(event, who) == line


def test_handler_shows_the_end_of_a_connection_and_no_other_line() -> None:
    lines: list[str] = []
    log = logging.Logger("test", logging.DEBUG)
    log.addHandler(OnTerminal(lines.append))
    log.info("listening")
    log.info([LogEvent("stored", "stored a")], extra={"fields": ALICE})
    log.info(LogEvent("done", "", **DONE), extra={"fields": ALICE})
    assert lines == ["alice from 192.0.2.1: 3.4 MB on the line in 1.2 s"]
