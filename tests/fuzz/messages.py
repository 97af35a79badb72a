"""Harness: the plaintext of a record, split into messages, each read and written back."""

import contextlib

import msgspec

from sft.common.errors import ProtocolViolation
from sft.common.names import why_not_allowed
from sft.wire.batch import BATCH_OVERHEAD, Batch, BatchHeader, write_batch
from sft.wire.content import DATA_HEADER_SIZE, Data, write_data_header
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Bye,
    Kind,
    Message,
    Misnamed,
    Ping,
    decode_message,
    split_record,
)
from sft.wire.protocol import BRANCH_LIMIT, CONTROL_LIMIT

WORDS = (
    *(b"\xa4file", b"\xa6folder", b"\xa6stored", b"\xa6rename", b"\xa8protocol", b"\xa4name"),
    *(
        b"\xc0",
        b"\xc2",
        b"\xc3",
        b"\xc4\x10",
        b"\xc4\x20",
        b"\xcc\x80",
        b"\xcd\1\0",
        b"\xce\xff\xff\xff\xff",
        b"\xd0\x80",
    ),
    *(b"\xcf\x7f" + b"\xff" * 7, b"\xd3\x80" + bytes(7), b"\xd9\x20", b"\xdc\0\x10", b"\xdd\0\0\0\1"),
    *(bytes([0x90 + count]) for count in range(9)),
)


def one_input(data: bytes) -> None:
    """A record is read to its exact end or refused; what was read is written again as the same bytes."""
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
            assert _written(message) == whole
            if isinstance(message, Data | Batch):
                with contextlib.suppress(ProtocolViolation):
                    assert len(message.plain()) == message.size
            assert isinstance(message, Data | Batch) or len(body) <= (
                BRANCH_LIMIT if kind == Kind.BRANCH else CONTROL_LIMIT
            )
    except ProtocolViolation:
        return
    assert covered == len(data)


def _check_misnamed(message: Misnamed, body: memoryview) -> None:
    """Its name is truly not allowed, and nothing of its length is kept."""
    asked = msgspec.msgpack.decode(body)
    names = list(asked[2 if message.kind is Kind.PUT else 1])
    if message.kind is Kind.LIST and asked[2] is not None:
        names.append(asked[2])
    if message.kind is Kind.TREE:
        names += asked[2] or []
    if message.kind is Kind.MOVE:
        names = names and asked[2] and [*names, *asked[2]]
    assert message.why
    assert message.id == asked[0]
    assert msgspec.msgpack.encode(asked) == body
    assert not names or not all(_is_plain(name) for name in names) or len(names) > 10
    assert len(message.shown) <= 203


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isalnum() and len(name) < 100


def _batch(batch: Batch) -> bytes:
    header = BatchHeader(batch.id, batch.transfer, batch.policy, batch.files).body()
    assert header == batch.header
    assert sum(file.size for file in batch.files if file.with_content) == batch.size <= 1 << 20
    assert len(batch.contents) <= batch.size
    for at, file in enumerate(batch.files):
        assert at in batch.not_allowed or not why_not_allowed(file.path)
    space = memoryview(bytearray(BATCH_OVERHEAD + len(header) + len(batch.contents)))
    write_batch(space, batch.mac, header, [bytes(batch.contents)])
    return bytes(space)


def _written(message: Message) -> bytes:
    if isinstance(message, Data):
        header = bytearray(DATA_HEADER_SIZE)
        write_data_header(memoryview(header), message.id, message.offset, message.size, len(message.content))
        return bytes(header) + bytes(message.content)
    if isinstance(message, Ping | Bye):
        return PING_MESSAGE if isinstance(message, Ping) else BYE_MESSAGE
    if isinstance(message, Batch):
        return _batch(message)
    assert not isinstance(message, Misnamed)
    return message.encode()
