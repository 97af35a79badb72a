"""What a person sees on the server's terminal: a line for each connection that ends and each login that is refused.

Rules: it shows what the log has, in fewer words, so the limits of the log keep strangers from flooding it. Connections
that never came to a login are in the log alone. A terminal that can't be written to is left alone.
"""

import logging
from collections.abc import Callable

from sft.common.log_events import LogEvent
from sft.common.sizes import amount, counted
from sft.common.text import briefly


class OnTerminal(logging.Handler):
    """A handler of the server's log; `show` prints a line."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line, if the event has one."""
        if isinstance(record.msg, LogEvent):
            line = shown(record.msg, getattr(record, "fields", {}))
            if line is not None:
                self._show(line)


def shown(event: LogEvent, who: dict[str, object]) -> str | None:
    """The line for an event of the connection of `who`; None when it has none."""
    source = f"{who.get('user') or ''} from {who.get('source')}".lstrip()
    fields = event.fields
    if event.event == "login" and fields.get("outcome") == "refused":
        return f"{source}: {briefly(event.text)}"
    if event.event != "done":
        return None
    parts = []
    for word in ("received", "sent"):
        if files := _number(fields, f"files_{word}"):
            parts.append(f"{counted(files, 'file')} {word}")
    size = amount(_number(fields, "bytes_received") + _number(fields, "bytes_sent"))
    parts.append(f"{size} on the line in {float(str(fields.get('seconds', 0))):.1f} s")
    reason = fields.get("reason")
    return f"{source}: {', '.join(parts)}" + (f"; ended: {briefly(str(reason))}" if reason else "")


def _number(fields: dict[str, object], name: str) -> int:
    value = fields.get(name, 0)
    return value if isinstance(value, int) else 0
