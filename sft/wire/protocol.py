"""The constants of the wire, frames, and the messages of the login, to bytes and back; docs/PROTOCOL.md in code.

Rules: one writer and one strict reader for each message; a reader ends exactly at the end, and raises ProtocolViolation
for everything that it does not accept. Every announced length meets its ceiling before anything of that size is read or
allocated. This module knows no socket, no file, no clock and no key.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from crypto_utils import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_SIZE, SALT_SIZE, TAG_SIZE
from sft.common.errors import ProtocolViolation

# --- Specification constants: both ends must agree on these -----------------------------------------------------------

MAGIC = b"SFTlogin"
VERSION = 1
VERSIONS = (VERSION,)
MAX_USERNAME = 32
LOGIN_FRAME_LIMIT = 8 * 1024
DATA_SIZE = 1 << 20
DATA_LEAST = 2048  # unless it is a file's last
RECORD_TEXT_LIMIT = DATA_SIZE + 4096
RECORD_CONTENT_LIMIT = 64 << 20  # bytes of files that the messages of one record stand for
RECORD_FRAME_LIMIT = RECORD_TEXT_LIMIT + TAG_SIZE
CONTROL_LIMIT = 64 * 1024
UNASKED_LIMIT = 64 * 1024
BATCH_FILES = 512  # in one BATCH
BATCH_CONTENT = 1 << 20  # bytes of all contents in one BATCH
BATCH_HEADER_LIMIT = CONTROL_LIMIT
WINDOW = 4096
OPEN_LIMIT = 256
CHECK_LIMIT = 3  # for one file
ENTRIES_LIMIT = 500  # in one ENTRY
BRANCH_LIMIT = 256 * 1024  # bytes of one BRANCH: a page for each 64 KiB would take four times the round trips
BRANCH_ENTRIES_LIMIT = 8192
OMITTED_LIMIT = 256  # before one ENTRY or BRANCH
SPELLED_LIMIT = 4096  # bytes of a name in OMITTED
GETS_LIMIT = 1 << 17  # in one connection
ASKED_LIMIT = 4 << 20  # bytes of all paths that the GETs of a connection name
TRANSFER_ID_SIZE = 16
MAX_INTEGER = (1 << 63) - 1
MAX_ID = (1 << 32) - 1
MAX_MODE = 0o7777
PING_AFTER = 10.0
SILENCE_LIMIT = 30.0

# --- Implementation constants: how long each end waits during a login, in seconds -------------------------------------

SERVER_FRAME_SECONDS = 10.0  # for a frame of the client
SERVER_SHARE_SECONDS = 40.0  # for the one behind the client's scrypt: many on one machine wait for each other's
SERVER_LOGIN_SECONDS = 60.0
CLIENT_FRAME_SECONDS = 20.0
CLIENT_LOGIN_SECONDS = 60.0


def nearest_time(nanoseconds: int) -> int:
    """The nearest time that fits into PUT and ENTRY, in ns since 1970."""
    return max(-MAX_INTEGER, min(nanoseconds, MAX_INTEGER))


# --- Frames -----------------------------------------------------------------------------------------------------------

_LENGTH = struct.Struct(">I")
HEADER_SIZE = _LENGTH.size


def frame(payload: bytes) -> bytes:
    """`payload` behind its length, 4 bytes big-endian."""
    return _LENGTH.pack(len(payload)) + payload


def frame_header(size: int) -> bytes:
    """The header of a frame of `size` bytes."""
    return _LENGTH.pack(size)


def frame_size(header: bytes | bytearray, least: int, ceiling: int) -> int:
    """The size that a header announces. Raises ProtocolViolation outside `least` .. `ceiling`."""
    size: int = _LENGTH.unpack(header)[0]
    if not least <= size <= ceiling:
        raise ProtocolViolation(f"a frame of {size} bytes where {least} to {ceiling} are allowed")
    return size


def unframe(whole: bytes) -> bytes:
    """The payload of one whole login frame. Raises ProtocolViolation when its header has another length."""
    if len(whole) < HEADER_SIZE or frame_size(whole[:HEADER_SIZE], 1, LOGIN_FRAME_LIMIT) != len(whole) - HEADER_SIZE:
        raise ProtocolViolation("a frame with another length than its header has")
    return whole[HEADER_SIZE:]


# --- Login ------------------------------------------------------------------------------------------------------------


class _Reader:
    """Takes fields off the front of `data`; `end` refuses what is left over."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ProtocolViolation("a message ends too early")
        return self._data[start : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def end(self) -> None:
        if self._at != len(self._data):
            raise ProtocolViolation("a message has bytes left over")


class ClientHello(NamedTuple):
    """magic ‖ count ‖ versions ‖ length ‖ username ‖ ML-KEM-768 encapsulation key. Up to the versions: for ever."""

    versions: bytes
    username: bytes
    kem_public: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                MAGIC,
                bytes([len(self.versions)]),
                self.versions,
                bytes([len(self.username)]),
                self.username,
                self.kem_public,
            )
        )

    @staticmethod
    def decode_versions(payload: bytes) -> bytes:
        """The versions alone, which every release can read. Raises ProtocolViolation on another magic."""
        reader = _Reader(payload)
        if reader.take(len(MAGIC)) != MAGIC:
            raise ProtocolViolation("not a client of this program")
        versions = reader.take(reader.byte())
        if not versions:
            raise ProtocolViolation("a client without versions")
        return versions

    @classmethod
    def decode(cls, payload: bytes) -> "ClientHello":
        versions = cls.decode_versions(payload)
        reader = _Reader(payload[len(MAGIC) + 1 + len(versions) :])
        username = reader.take(reader.byte())
        if not 1 <= len(username) <= MAX_USERNAME:
            raise ProtocolViolation("a username of a wrong length")
        hello = cls(versions, username, reader.take(KEM_PUBLIC_SIZE))
        reader.end()
        return hello


class Status(IntEnum):
    """The first byte of a ServerHello."""

    GO_ON = 0
    NO_COMMON_VERSION = 1
    BUSY = 2
    UNAVAILABLE = 3


class ServerHello(NamedTuple):
    """status ‖ version ‖ scrypt profile ‖ salt ‖ ML-KEM ciphertext; or 1 ‖ count ‖ versions; or status 2 or 3 alone."""

    status: Status
    version: int = 0
    profile: int = 0
    salt: bytes = b""
    kem_ciphertext: bytes = b""
    spoken: bytes = b""

    def encode(self) -> bytes:
        if self.status is Status.GO_ON:
            return bytes([self.status, self.version, self.profile]) + self.salt + self.kem_ciphertext
        if self.status is Status.NO_COMMON_VERSION:
            return bytes([self.status, len(self.spoken)]) + self.spoken
        return bytes([self.status])

    @classmethod
    def decode(cls, payload: bytes) -> "ServerHello":
        reader = _Reader(payload)
        number = reader.byte()
        if number == Status.GO_ON:
            version, profile = reader.byte(), reader.byte()
            hello = cls(Status.GO_ON, version, profile, reader.take(SALT_SIZE), reader.take(KEM_CIPHERTEXT_SIZE))
        elif number == Status.NO_COMMON_VERSION:
            hello = cls(Status.NO_COMMON_VERSION, spoken=reader.take(reader.byte()))
        elif number in (Status.BUSY, Status.UNAVAILABLE):
            hello = cls(Status(number))
        else:
            raise ProtocolViolation("an unknown status")
        reader.end()
        return hello
