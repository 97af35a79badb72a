"""What a script reads: one JSON object on each line, times in UTC.

Rules: plain ASCII, so that no encoding and no control character in a name can break a line.
"""

import time


def as_json(fields: dict[str, object]) -> str:
    """One line of it."""
    import json  # nothing else needs it at a start

    return json.dumps(fields, ensure_ascii=True)


def utc(time_ns: int) -> str:
    """`2026-01-31T12:00:00.123456Z`; a time that no calendar has stays a number."""
    try:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"
    except (OverflowError, ValueError, OSError):
        return str(time_ns)
