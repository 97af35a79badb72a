"""Harness: the server's half of a login, against a client that says these bytes."""

from fuzz.login import against, honest, play_server
from sft.common.errors import TransferError

WORDS = (b"SFTlogin", b"\x01\x01\x05alice", b"\x00\x00\x00\x41\x04", b"\x00\x00\x00\x20")


def one_input(data: bytes) -> None:
    """Only the frames of the one who knows the password lead to keys."""
    try:
        keys = against(data, play_server)
    except TransferError:
        return
    if keys is not None:
        first, _, third, _, fifth = honest().frames
        assert data.startswith(first + third + fifth)
        assert keys == honest().keys
