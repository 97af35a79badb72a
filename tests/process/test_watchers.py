"""What programs see that watch a user's folder for files that arrive (inotify)."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import MIB, Client, make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

EVENTS = {
    0x2: "MODIFY",
    0x4: "ATTRIB",
    0x8: "CLOSE_WRITE",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
}
HEAD = struct.Struct("iIII")  # inotify(7)


class Watched:
    """A folder and what happens to the names in it."""

    def __init__(self, folder: Path) -> None:
        system = ctypes.CDLL(None)
        self.descriptor: int = system.inotify_init1(os.O_NONBLOCK)
        assert system.inotify_add_watch(self.descriptor, os.fsencode(folder), sum(EVENTS)) > 0

    def events(self, name: str) -> list[str]:
        """What has happened to that name since the last call."""
        found, at, data = [], 0, os.read(self.descriptor, 1 << 16)
        while at < len(data):
            _, mask, _, size = HEAD.unpack_from(data, at)
            at += HEAD.size + size
            if data[at - size : at].rstrip(b"\0").decode() == name:
                found.append(EVENTS[mask])
        return found


@pytest.fixture
def receiving(make_server: MakeServer, tmp_path: Path) -> Iterator[tuple[Client, Watched]]:
    server = make_server()
    client = Client(server.port, tmp_path / "client")
    assert client(make(tmp_path / "first"), "first").status == 0
    watched = Watched(server.path())
    yield client, watched
    os.close(watched.descriptor)


@pytest.mark.parametrize("size", [10, MIB])
def test_file_that_arrives_is_one_create_and_one_that_is_replaced_a_moved_to(
    receiving: tuple[Client, Watched], tmp_path: Path, size: int
) -> None:
    client, watched = receiving
    assert client(make(tmp_path / "new", size), "name").status == 0
    assert watched.events("name") == ["CREATE"]
    assert client("--if-exists=replace", make(tmp_path / "newer", size + 1), "name").status == 0
    assert watched.events("name") == ["MOVED_TO"]
