"""A record's plaintext to the messages in it, back to back to its exact end; docs/PROTOCOL.md in code.

Rules: every announced length meets its ceiling, and the end of the record, before anything behind it is looked at. A
small file that is all there is read in one go: that is one step instead of three for what there are ten thousand of in
a second, and it takes nothing that message by message would be refused. It knows no socket, no file, no clock, no key.
"""

from collections.abc import Iterator

from errors import ProtocolViolation
from values import value
from wire.canonical import read_end, read_put
from wire.messages import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    END_SIZE_LIMIT,
    MESSAGE_HEADER,
    MESSAGE_HEADER_SIZE,
    End,
    Kind,
    Message,
    Put,
    decode_message,
)
from wire.protocol import CONTROL_LIMIT, UNASKED_LIMIT

_PUT, _DATA, _END = int(Kind.PUT), int(Kind.DATA), int(Kind.END)
_PLACE_SIZE = DATA_HEADER_SIZE - MESSAGE_HEADER_SIZE  # id and offset


@value
class Whole:
    """A small file that is all there, back to back in one record: its PUT, that one's body, the content, its END."""

    put: Put
    body: memoryview
    content: memoryview
    end: End


def _message_at(text: memoryview, at: int, end: int) -> tuple[int, int, int]:
    """(type, where its body begins, where it ends). Raises ProtocolViolation like `split_record`."""
    if end - at < MESSAGE_HEADER_SIZE:
        raise ProtocolViolation("a record that ends inside a message")
    kind, size = MESSAGE_HEADER.unpack_from(text, at)
    at += MESSAGE_HEADER_SIZE
    if size > end - at:
        raise ProtocolViolation("a message longer than its record")
    if kind != _DATA and size > CONTROL_LIMIT:
        raise ProtocolViolation("a control message over its ceiling")
    return kind, at, at + size


def split_record(text: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, body) of each message in a record's plaintext, back to back to its exact end.

    Raises ProtocolViolation for an empty record, a length past its end or over the ceiling of its type.
    """
    if not text:
        raise ProtocolViolation("an empty record")
    at, end = 0, len(text)
    while at < end:
        kind, start, at = _message_at(text, at, end)
        yield kind, text[start:at]


def messages_of(text: memoryview) -> Iterator[tuple[int, Message | Whole, memoryview]]:
    """(type, message, body) of each message in a record's plaintext; a `Whole` counts as a PUT.

    Raises ProtocolViolation like `split_record` and `decode_message`, when it comes to what they refuse.
    """
    if not text:
        raise ProtocolViolation("an empty record")
    at, end = 0, len(text)
    while at < end:
        kind, start, next_at = _message_at(text, at, end)
        body = text[start:next_at]
        if kind == _PUT and (found := _whole(text, body, next_at, end)) is not None:
            message, at = found
            yield kind, message, body
        else:
            yield kind, decode_message(kind, body), body
            at = next_at


def _whole(text: memoryview, body: memoryview, at: int, end: int) -> tuple[Whole, int] | None:
    """A small file that is all there behind the body of its PUT, and where the next message begins.

    None when it is anything else, or not in the form that our writer gives it: then it is read message by message.
    """
    content_at = at + DATA_HEADER_SIZE
    if content_at > end:
        return None
    kind, length, id, offset = DATA_HEADER.unpack_from(text, at)
    size = length - _PLACE_SIZE
    content_end = content_at + size
    if kind != _DATA or offset or not 0 < size <= UNASKED_LIMIT or content_end + MESSAGE_HEADER_SIZE > end:
        return None
    kind, length = MESSAGE_HEADER.unpack_from(text, content_end)
    next_at = content_end + MESSAGE_HEADER_SIZE + length
    if kind != _END or length > END_SIZE_LIMIT or next_at > end:
        return None
    put, last = read_put(body), read_end(text[content_end + MESSAGE_HEADER_SIZE : next_at])
    if put is None or last is None or not put[0] == last[0] == id or put[4] != size:
        return None
    return Whole(Put(*put), body, text[content_at:content_end], End(*last)), next_at
