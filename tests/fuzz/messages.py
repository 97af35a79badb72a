"""Harness: the plaintext of a record, split into messages, each read and written back."""

import json

from sft.common.errors import ProtocolViolation
from sft.wire.messages import (
    BYE_MESSAGE,
    DATA_HEADER_SIZE,
    PING_MESSAGE,
    Bye,
    Control,
    Data,
    Message,
    Misnamed,
    Ping,
    decode_message,
    split_record,
    write_data_header,
)
from sft.wire.protocol import CONTROL_LIMIT

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
    """A record is read to its exact end or refused; what was read means the same when it is written and read again."""
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
            if isinstance(message, Misnamed):
                _check_misnamed(message, body)
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


def _check_misnamed(message: Misnamed, body: memoryview) -> None:
    """Its name is truly not allowed, and nothing of its length is kept."""
    asked = json.loads(bytes(body))
    names = [*asked["path"], *([asked["after"]] if asked.get("after") is not None else [])]
    assert message.why
    assert message.id == asked["id"]
    assert not names or not all(_is_plain(name) for name in names) or len(names) > 10
    assert len(message.shown) <= 203


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isalnum() and len(name) < 100


def _written(message: Message) -> bytes:
    if isinstance(message, Data):
        header = bytearray(DATA_HEADER_SIZE)
        write_data_header(memoryview(header), message.id, message.offset, len(message.content))
        return bytes(header) + bytes(message.content)
    if isinstance(message, Ping | Bye):
        return PING_MESSAGE if isinstance(message, Ping) else BYE_MESSAGE
    assert not isinstance(message, Misnamed)
    return message.encode()
