"""Harness: the client's half of a login, against a server that says these bytes."""

from fuzz.login import against, honest, play_client
from sft.common.errors import TransferError

WORDS = (b"\x00\x00\x04\x63\x00\x01\x01", b"\x00\x00\x00\x61\x04", b"\x00\x00\x00\x03\x01\x01", b"\x00\x00\x00\x01\x02")


def one_input(data: bytes) -> None:
    """Only the frames of the one who has the verifier lead to keys."""
    try:
        keys = against(data, play_client)
    except TransferError:
        return
    _, second, _, fourth, _ = honest().frames
    assert data.startswith(second + fourth)
    assert keys == honest().keys
