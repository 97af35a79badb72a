"""Frames: what is refused before it is decoded, and what comes out of one."""

import importlib.util
import subprocess
import sys

import pytest
from frames import bomb, frame, zstd
from tables import each_row

from sft.common.errors import ProtocolViolation, UsageError
from sft.wire import compression
from sft.wire.compression import PACKAGE, check_frame, check_zstd, decoded, is_installed, zstd_name
from sft.wire.protocol import DATA_SIZE

TEXT = b"All work and no play makes Jack a dull boy.\n" * 1000
MAGIC = b"\x28\xb5\x2f\xfd"


def header(descriptor: int, *fields: bytes) -> memoryview:
    return memoryview(MAGIC + bytes([descriptor]) + b"".join(fields) + b"rest")


def streamed(content: bytes, **options: int) -> bytes:
    """A frame that is made bit by bit, so that its header has a window."""
    named = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    maker = zstd.ZstdCompressor(options=named)
    maker.set_pledged_input_size(len(content))
    return maker.compress(content[:100]) + maker.compress(content[100:]) + maker.flush()


@each_row("size", [1, 255, 256, 257, 65_791, 65_792, DATA_SIZE])
@each_row("level", [-5, 1, 3])
def test_frame_of_any_size_becomes_what_it_was_made_of(size: int, level: int) -> None:
    content = (TEXT * 30)[:size]
    assert decoded(memoryview(frame(content, level)), size) == content


def test_frame_with_a_window_or_a_checksum_is_read_too() -> None:
    content = (TEXT * 30)[:DATA_SIZE]
    for made in (
        streamed(content, window_log=20),
        streamed(content, window_log=10),
        streamed(content, checksum_flag=1),
        streamed(content, window_log=18, checksum_flag=1),
    ):
        assert decoded(memoryview(made), DATA_SIZE) == content


@each_row(
    ("descriptor", "fields"),
    [
        (0x20, [b"\x05"]),
        (0x60, [(1000 - 256).to_bytes(2, "little")]),
        (0xA0, [(1000).to_bytes(4, "little")]),
        (0xE0, [(1000).to_bytes(8, "little")]),
        (0x40, [b"\x50", (1000 - 256).to_bytes(2, "little")]),  # a window of 2^20
        (0x44, [b"\x00", (1000 - 256).to_bytes(2, "little")]),  # with a checksum
        (0x50, [b"\x00", (1000 - 256).to_bytes(2, "little")]),  # the bit without a meaning
    ],
)
def test_header_that_says_the_size_is_accepted(descriptor: int, fields: list[bytes]) -> None:
    check_frame(header(descriptor, *fields), 5 if descriptor == 0x20 else 1000)


@each_row(
    ("descriptor", "fields"),
    [
        pytest.param(0x60, [(1001 - 256).to_bytes(2, "little")], id="a byte more"),
        pytest.param(0xE0, [(2**64 - 1).to_bytes(8, "little")], id="far more"),
        pytest.param(0xE0, [(1000 + 2**32).to_bytes(8, "little")], id="the same in its low half"),
        pytest.param(0x00, [b"\x50"], id="no size"),
        pytest.param(0x61, [b"\x00", (1000 - 256).to_bytes(2, "little")], id="a dictionary that is named 0"),
        pytest.param(0x62, [b"\1\1", (1000 - 256).to_bytes(2, "little")], id="a dictionary"),
        pytest.param(0x63, [b"\1\1\1\1", (1000 - 256).to_bytes(2, "little")], id="a dictionary with a long name"),
        pytest.param(0x68, [(1000 - 256).to_bytes(2, "little")], id="the reserved bit"),
        pytest.param(0x40, [b"\x51", (1000 - 256).to_bytes(2, "little")], id="a window just above 2^20"),
        pytest.param(0x40, [b"\xff", (1000 - 256).to_bytes(2, "little")], id="the largest window"),
        pytest.param(0x40, [b"\x58", (1000 - 256).to_bytes(2, "little")], id="a window of 2^21"),
    ],
)
def test_header_that_says_anything_else_is_refused(descriptor: int, fields: list[bytes]) -> None:
    with pytest.raises(ProtocolViolation):
        check_frame(header(descriptor, *fields), 1000)


def test_every_beginning_of_a_frame_is_refused() -> None:
    for made in (frame(TEXT), streamed(TEXT, window_log=15, checksum_flag=1)):
        for size in (*range(20), len(made) - 1):
            with pytest.raises(ProtocolViolation):
                decoded(memoryview(made)[:size], len(TEXT))


SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"


@each_row(
    "made",
    [
        pytest.param(frame(TEXT) + b"\0", id="a byte behind it"),
        pytest.param(frame(TEXT) + frame(TEXT), id="another frame behind it"),
        pytest.param(frame(TEXT) + SKIPPABLE, id="a skippable frame behind it"),
        pytest.param(SKIPPABLE + frame(TEXT), id="a skippable frame before it"),
        pytest.param(SKIPPABLE, id="a skippable frame alone"),
        pytest.param(frame(TEXT + b"x"), id="of more than was announced"),
        pytest.param(frame(TEXT[:-1]), id="of less than was announced"),
        pytest.param(bomb(1 << 30), id="of 1 GiB"),
        pytest.param(streamed(TEXT, content_size_flag=0), id="that does not say its size"),
        pytest.param(streamed(TEXT, checksum_flag=1)[:-1] + b"!", id="with a wrong checksum"),
        pytest.param(frame(TEXT)[:-3] + b"!!!", id="damaged"),
        pytest.param(TEXT[:100], id="that is none"),
        pytest.param(b"", id="that is nothing"),
    ],
)
def test_frame_that_is_not_exactly_what_was_announced_is_refused(made: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decoded(memoryview(made), len(TEXT))


def test_bomb_is_a_frame_like_those_of_the_library() -> None:
    for size in (1, DATA_SIZE - 1, DATA_SIZE):
        assert zstd.decompress(bomb(size)) == bytes(size)
        assert decoded(memoryview(bomb(size)), size) == bytes(size)


@each_row("held", [DATA_SIZE + 1, 2 * DATA_SIZE, 64 * DATA_SIZE])
def test_frame_that_holds_more_than_its_header_says_is_refused(held: int) -> None:
    lie = memoryview(bomb(held, said=DATA_SIZE))
    check_frame(lie, DATA_SIZE)
    with pytest.raises(ProtocolViolation):
        decoded(lie, DATA_SIZE)


def test_frame_that_holds_less_than_its_header_says_is_refused() -> None:
    lie = memoryview(bomb(DATA_SIZE - 1, said=DATA_SIZE))
    check_frame(lie, DATA_SIZE)
    with pytest.raises(ProtocolViolation):
        decoded(lie, DATA_SIZE)


BOMBS = """
import resource, sys
from frames import bomb, frame, zstd
from sft.common.errors import ProtocolViolation
from sft.wire.compression import decoded
from sft.wire.protocol import DATA_SIZE
bombs = [bomb(1 << 28), zstd.compress(bytes(1 << 28), options={zstd.CompressionParameter.window_log: 27})]
bombs.append(bomb(1 << 28, said=DATA_SIZE))
decoded(memoryview(frame(bytes(DATA_SIZE))), DATA_SIZE)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + (8 << 20),) * 2)
for bomb in bombs:
    try:
        decoded(memoryview(bomb), DATA_SIZE)
    except ProtocolViolation:
        print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of memory is asked for in Linux's way")
def test_bomb_takes_no_more_memory_than_a_piece_has() -> None:
    """256 MiB each, honest, with a large window, and with a header that says 1 MiB; with 8 MiB to spare."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBS],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ".:tests", "PATH": ""},
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("refused\n" * 3, 0), done.stderr


# --- the library ------------------------------------------------------------------------------------------------------


def test_library_is_here_and_loaded_when_it_is_used() -> None:
    code = (
        "import sys; import sft.wire.messages, sft.wire.compression as c; print(c.is_installed(), {!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code.format(PACKAGE)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True False\n", done.stderr


def test_missing_library_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_zstd()
    assert (is_installed(), zstd_name()) == (True, "zstd")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (is_installed(), zstd_name()) == (False, "no zstd")
    with pytest.raises(UsageError) as caught:
        check_zstd()
    assert PACKAGE in caught.value.cause and caught.value.remedy
    assert compression.PACKAGE == PACKAGE
