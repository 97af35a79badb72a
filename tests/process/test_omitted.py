"""What lies at the receiver and can't be given is named, counted, and never passed over in silence."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from processes import Client, Server, make

from sft.common.errors import Code, ProtocolViolation
from sft.wire.messages import Kind, Omitted, decode_message
from sft.wire.spelling import is_spelled, spell

CAFE = b"caf\xe9.txt"  # as Latin-1 writes it
WORDS = "on the receiver has a name that can't be sent (not UTF-8, a control character, or a path too long)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf\\xe9"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"a\nb", "a\\x0ab"),
        ("a\u0085b".encode(), "a\\xc2\\x85b"),
        (b"a\\b\xff", "a\\x5cb\\xff"),
    ],
    ids=ascii,
)
def test_name_is_spelled_so_that_people_can_read_it(name: bytes, shown: str) -> None:
    assert spell(("box", os.fsdecode(name))) == f"box/{shown}"
    assert is_spelled(f"box/{shown}")


def test_spelled_name_has_a_bound() -> None:
    shown = spell(("\udcff" * 255,) * 16)
    assert len(shown) <= 4096 and is_spelled(shown)


@pytest.mark.parametrize("name", ["", "a\nb", "\x7f", "\x9b", "n" * 4097, 5, None], ids=ascii)
def test_refuse_spelled_name(name: object) -> None:
    body = msgspec.msgpack.encode([1, name, "name", 0])
    with pytest.raises(ProtocolViolation):
        decode_message(Kind.OMITTED, memoryview(body))


def test_message_comes_back_as_it_was_sent() -> None:
    sent = Omitted(7, "box/caf\\xe9", Code.NAME, 3)
    assert decode_message(Kind.OMITTED, memoryview(sent.body())) == sent


@pytest.fixture
def odd(server: Server, box: str) -> Path:
    """A folder at the receiver with a good name, two that can't be said, and one deeper."""
    folder = make(server.path(box, "good")).parent
    make(folder / "sub" / "good")
    for place in (os.fsencode(folder) + b"/" + CAFE, os.fsencode(folder) + b"/sub/new\nline"):
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
    return folder


@pytest.mark.usefixtures("odd")
def test_listing_names_what_it_can_not_list(client: Client, box: str) -> None:
    result = client("--list", box)
    assert [line.split()[-1] for line in result.out.splitlines()] == ["good", "sub/"]
    assert (result.status, result.err) == (1, f"error: {box}/caf\\xe9.txt {WORDS}. Rename it there\n")
    result = client("--list", "--json", f"{box}/sub")
    (failed,) = [event for event in map(json.loads, result.out.splitlines()) if event["event"] == "failed"]
    assert result.status == failed["status"] == 1 and failed["name"] == f"{box}/sub/new\\x0aline"


@pytest.mark.usefixtures("odd")
def test_fetch_names_what_it_can_not_fetch_and_brings_the_rest(client: Client, box: str, tmp_path: Path) -> None:
    result = client("--get", box, f"{tmp_path}/here/")
    assert result.status == 1 and "2 files fetched" in result.out and ", 2 failed: " in result.out
    told = sorted(result.err.splitlines())
    assert told == [
        f"error: {box}/caf\\xe9.txt {WORDS}. Rename it there, or leave it out: --exclude 'caf\\\\xe9.txt'",
        f"error: {box}/sub/new\\x0aline {WORDS}. Rename it there, or leave it out: --exclude 'new\\\\x0aline'",
    ]
    assert (tmp_path / "here" / box / "sub" / "good").exists()


def test_hundred_links_are_named_and_the_others_counted_and_none_is_a_failure(
    server: Server, client: Client, box: str, tmp_path: Path
) -> None:
    make(server.path(box, "file"))
    for number in range(230):
        server.path(box, f"{number:03d}").symlink_to("file")
    result = client("--get", "-v", box, f"{tmp_path}/here/")
    assert result.status == 0 and result.err.count(": a symbolic link on the receiver") == 101
    assert "skipped: 130 more names beside it: a symbolic link on the receiver (--links keeps it)\n" in result.err
    assert ", 230 skipped" in result.out
    result = client("--get", box, f"{tmp_path}/few/")
    assert result.err.count("\n") == 6
    assert result.err.endswith("\nskipped: and 225 more (-v): a symbolic link on the receiver (--links keeps it)\n")
    result = client("--get", "--json", box, f"{tmp_path}/again/")
    told = [event for event in map(json.loads, result.out.splitlines()) if event["event"] == "skipped"]
    assert len(told) == 101 and told[-1]["more"] == 130


def test_tree_listing_names_a_fifo_and_is_whole(server: Server, client: Client, box: str) -> None:
    make(server.path(box, "a"))
    os.mkfifo(server.path(box, "b"))
    result = client("--list", "-R", box)
    assert [line.split()[-1] for line in result.out.splitlines()] == ["a"]
    assert (result.status, result.err) == (0, f"{box}/b: neither a file nor a folder on the receiver\n")


def test_hundred_names_are_said_and_the_others_counted(
    server: Server, client: Client, box: str, tmp_path: Path
) -> None:
    folder = server.path(box)
    folder.mkdir()
    for number in range(230):
        os.close(os.open(os.fsencode(folder) + b"/%03d\xff" % number, os.O_CREAT | os.O_WRONLY, 0o600))
    for job in (["--list", box], ["--get", box, f"{tmp_path}/here/"]):
        assert client(*job).err.count(WORDS) == 5
        result = client("-v", *job)
        assert result.status == 1 and result.err.count(WORDS) == 100
        assert "130 more names beside it on the receiver can't be given" in result.err
    assert ", 230 failed\n" in result.out
