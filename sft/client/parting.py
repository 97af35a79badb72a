"""The end of a connection in which the client has only asked.

Rules: with every answer here, an end without the receiver's BYE is as good as one with it.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sft.common.errors import ConnectionTrouble, ProtocolViolation

if TYPE_CHECKING:
    from sft.wire.channel import Channel


def part(channel: "Channel", answers: Iterator[object]) -> None:
    """Say BYE, once everything is answered; a pause in `answers` is None. Raises ProtocolViolation."""
    channel.say_bye()
    with contextlib.suppress(ConnectionTrouble):
        if any(answer is not None for answer in answers):
            raise ProtocolViolation("a message behind the last answer")
