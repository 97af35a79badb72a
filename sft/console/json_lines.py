"""The lines of a log as JSON, for programs: one object for each event.

    {"time": "2026-01-31T12:00:00.123Z", "level": "info", "event": "stored", "connection": 13, "user": "alice", ...}

Rules: those of `sft/console/log_lines.py`. `extra` of a call may have `fields`, in the place of a head. What is only a
text is the event `note`.
"""

import json
import logging

from sft.common.log_events import LogEvent
from sft.common.text import cut
from sft.console.log_lines import LINE_BYTES, TextLines, events_of


class JsonLines(TextLines):
    """Writes them."""

    def _lines(self, record: logging.LogRecord) -> list[str]:
        begin = {"time": self.formatTime(record), "level": record.levelname.lower()}
        fields = getattr(record, "fields", {})
        return [json.dumps(begin | _named(event, fields)) for event in events_of(record)]


def _named(event: LogEvent | str, fields: dict[str, object]) -> dict[str, object]:
    if isinstance(event, LogEvent):
        return {"event": event.event, **fields, **event.fields}
    return {"event": "note", **fields, "text": cut(event, LINE_BYTES)}
