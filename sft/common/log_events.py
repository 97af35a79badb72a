"""A line of a log twice: as text for people, and as a kind of event with fields for programs.

Rules: the text says all that the fields say, but for what stands before each line of a connection. A field is text, a
number or None. Nothing is written here.
"""

AUDIT = {"audit": True}  # `extra` of a line that the audit log has, too


class LogEvent:
    """One line. `event`: its kind, a word or two that never change."""

    __slots__ = ("event", "fields", "text")

    def __init__(self, event: str, text: str, **fields: object) -> None:
        self.event, self.text, self.fields = event, text, fields

    def __str__(self) -> str:
        return self.text
