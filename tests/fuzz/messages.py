"""Harness: the plaintext of a record, split into messages, each read and written back; then read in one go."""

from collections.abc import Iterator

from errors import ProtocolViolation
from wire.messages import (
    BYE_MESSAGE,
    DATA_HEADER_SIZE,
    PING_MESSAGE,
    Bye,
    Control,
    Data,
    Message,
    Ping,
    decode_message,
    write_data_header,
)
from wire.protocol import CONTROL_LIMIT
from wire.records import Whole, messages_of, split_record

_NAMES = sorted({name for shape in Control.__subclasses__() for name in shape.CHECKS})
_VALUES = (
    b'"file"',
    b'"folder"',
    b'"stored"',
    b'"rename"',
    b'"protocol"',
    b"null",
    b"true",
    b"[]",
    b'"\\ud800"',
    b"{}",
)
WORDS = (*(f'"{name}":'.encode() for name in _NAMES), *_VALUES, b"9223372036854775807", b"4294967295")


def one_input(data: bytes) -> None:
    """A record is read to its exact end or refused; what was read means the same when it is written and read again.

    And the reader that takes a small file in one step says what reading message by message does.
    """
    assert in_one_go(data) == one_by_one(data)
    covered = 0
    try:
        for kind, body in split_record(memoryview(data)):
            covered += 5 + len(body)
            whole = data[covered - 5 - len(body) : covered]
            assert whole == bytes([kind]) + len(body).to_bytes(4, "big") + body
            try:
                message = decode_message(kind, body)
            except ProtocolViolation:
                continue
            written = _written(message)
            if isinstance(message, Control):
                assert len(written) <= 5 + CONTROL_LIMIT
                ((again, text),) = split_record(memoryview(written))
                assert decode_message(again, text) == message
            else:  # these have only one form
                assert written == whole
    except ProtocolViolation:
        return
    assert covered == len(data)


def said(message: Message | Whole) -> Iterator[object]:
    """What it says, content copied: message by message."""
    if isinstance(message, Whole):
        yield message.put
        yield (message.put.id, 0, bytes(message.content))
        yield message.end
    elif isinstance(message, Data):
        yield (message.id, message.offset, bytes(message.content))
    else:
        yield message


def one_by_one(text: bytes) -> list[object]:
    """What the record says, to its end or to where it breaks the rules, which is an item of its own."""
    found: list[object] = []
    try:
        for kind, body in split_record(memoryview(text)):
            found += said(decode_message(kind, body))
    except ProtocolViolation:
        found.append(ProtocolViolation)
    return found


def in_one_go(text: bytes) -> list[object]:
    found: list[object] = []
    try:
        for _, message, _ in messages_of(memoryview(text)):
            found += said(message)
    except ProtocolViolation:
        found.append(ProtocolViolation)
    return found


def _written(message: Message) -> bytes:
    if isinstance(message, Data):
        header = bytearray(DATA_HEADER_SIZE)
        write_data_header(memoryview(header), message.id, message.offset, len(message.content))
        return bytes(header) + bytes(message.content)
    if isinstance(message, Ping | Bye):
        return PING_MESSAGE if isinstance(message, Ping) else BYE_MESSAGE
    return message.encode()
