"""Long paths, hundreds and thousands of them: what a connection holds at the other end stays below a figure.

It is counted in a real process, above what that has after an honest connection; docs/OPERATIONS.md has the figure.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeServer
from processes import Client, wait_until
from scene import Stage
from speaker import SMALL, Fields, Session, batch, batch_file, batch_header, body_of, control, message, pack, put_fields
from test_hostile_server import hostile, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in /proc")

FIGURE = 24 << 20  # what OPERATIONS.md says of one connection
LETTERS = [chr(number) for number in range(0x100, 0x800)]  # two bytes in UTF-8, and a string of its own in memory
ENDLESS = [pack(letter) for letter in LETTERS] * 13
LONGEST = b"".join(pack(f"{letter}#####{at:03}vwxyz") for at, letter in enumerate(LETTERS[:254]))

# Paths as the bytes of a message: thousands of them are made here, and what they cost there is the subject.


def memory_of(pid: int | None) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def endless(number: int) -> bytes:
    """A path that fills its message: 21,800 names of one letter."""
    return array(21_800) + b"".join(ENDLESS[number : number + 21_800])


def longest(number: int) -> bytes:
    """The allowed path that costs most: 255 names, 4,096 bytes."""
    return array(255) + LONGEST.replace(b"#####", b"%05d" % number) + pack(f"{number:05}{'x' * 26}")


def array(count: int) -> bytes:
    """The header of an array of so many, more than 15."""
    return b"\xdc" + count.to_bytes(2, "big")


def below(first: str, path: bytes) -> bytes:
    """The longest path, with another first name."""
    return path[:3] + pack(first) + path[4 + path[3] - 0xA0 :]


def put(id: int, path: bytes) -> bytes:
    """A large file."""
    return _put(put_fields(id, ["PATH"], SMALL + 1, policy="skip"), path)


def folder(id: int, path: bytes) -> bytes:
    return _put(put_fields(id, ["PATH"], None, kind="folder"), path)


def _put(fields: Fields, path: bytes) -> bytes:
    return message("PUT", body_of(fields).replace(pack(["PATH"]), path))


def get(id: int, path: bytes) -> bytes:
    usual = control("GET", id=id, path=["PATH"], more=True)
    return message("GET", usual[5:].replace(pack(["PATH"]), path))


def puts(session: Session, path: Callable[[int], bytes], answer: str, first: int = 1) -> None:
    """As many as may be begun and not ended, each answered."""
    for begun in range(first, first + 256, 8):
        session.say(*(put(id, path(id)) for id in range(begun, begun + 8)))
        for id in range(begun, begun + 8):
            session.expect(answer, id=id)


def gets(session: Session) -> None:
    """As many as their paths may be long, and none is the last."""
    for first in range(1, 1_025, 32):
        session.say(*(get(id, longest(id)) for id in range(first, first + 32)))
    session.say(control("GET", id=2_000, path=[".."], more=True))
    session.expect("REFUSE", id=2_000, code="name")


def short_gets(session: Session) -> None:
    """As many as there may be; none is the last."""
    rest = control("GET", id=0, path=["a"], more=True)[-8:]
    for first in range(1, 1 << 17, 4_096):
        ids = range(first, min(first + 4_096, 1 << 17))
        session.say(*(message("GET", b"\x97" + pack(id) + rest) for id in ids))
    session.say(control("GET", id=1, path=[".."], more=True))
    session.expect("REFUSE", id=1, code="name")


def folders(session: Session) -> None:
    """Folders that can't be made, for a file is in the way, each with a time; then files that are taken."""
    for first in range(1, 1_501, 15):
        session.say(*(folder(id, below("honest", longest(id))) for id in range(first, first + 15)))
        for id in range(first, first + 15):
            session.expect("REFUSE", id=id, code="not-folder")
    puts(session, longest, "ACCEPT", 1_501)


def batches(session: Session) -> None:
    """Headers that are full of one letter, one after the other; each file is refused for its path."""
    for id in range(1, 257):
        file = batch_file(["PATH"], b"")
        header = batch_header(id, [file]).replace(pack(["PATH"]), endless(id))
        session.say(message("BATCH", batch(session.file_key, header, b"")))
        session.expect("RECEIPTS", id=id, outcomes=[["name", None]])


def batches_that_are_taken(session: Session) -> None:
    """The longest paths, as many as a header holds: files with a file in the place of their folder, and offers."""
    for id in range(1, 65):
        files = [batch_file([f"PATH{at}"], b"", offered=bool(at % 2)) for at in range(12)]
        header = batch_header(id, files)
        for at in range(12):
            header = header.replace(pack([f"PATH{at}"]), below("honest", longest(12 * id + at)))
        session.say(message("BATCH", batch(session.file_key, header, b"")))
        session.expect("RECEIPTS", id=id, outcomes=[["not-folder", None], ["wanted", None]] * 6)


AT_THE_SERVER: dict[str, Callable[[Session], None]] = {
    "256 PUTs that are refused": lambda session: puts(session, endless, "REFUSE"),
    "256 PUTs that are taken": lambda session: puts(session, longest, "ACCEPT"),
    "folders and PUTs": folders,
    "GETs that wait for the last": gets,
    "short GETs that wait for the last": short_gets,
    "BATCHes that are refused": batches,
    "BATCHes with long paths": batches_that_are_taken,
}


@pytest.mark.parametrize("what", AT_THE_SERVER)
def test_long_paths_cost_the_server_less_than_its_figure(make_server: MakeServer, what: str) -> None:
    stage = Stage(make_server())
    assert stage.server.process is not None
    pid = stage.server.process.pid
    with stage.session() as session:
        session.send(1, ["honest"], b"honest")
        session.farewell()
    stage.quiet()
    before = memory_of(pid)
    with stage.session() as session:
        AT_THE_SERVER[what](session)
        assert memory_of(pid) - before < FIGURE


def asked(session: Session) -> None:
    """The client has asked, and reads; nothing has come yet."""
    session.hear()
    session.say(control("REFUSE", id=1, code="unreadable"))


def given(session: Session) -> None:
    """As many files as may be begun and not ended, all of them wanted."""
    session.hear()
    puts(session, lambda number: below("box", longest(number)), "ACCEPT")


def memory_of_client(serve: Callable[[Session], None], folder: Path) -> int:
    """What a client that fetches has when `serve` is through."""
    ready: list[int] = []

    def behave(session: Session) -> None:
        serve(session)
        ready.append(1)
        session.hear_all()

    with hostile(served(behave)) as impostor:
        client = Client(impostor.port, folder).start("--get", "--retries=0", "--quiet", "box", f"{folder / 'here'}/")
        wait_until(lambda: ready)
        found = memory_of(client.process.pid)
        client.kill()
        client.finish()
    return found


def test_long_paths_of_a_server_cost_a_client_less_than_the_figure(tmp_path: Path) -> None:
    before = memory_of_client(asked, tmp_path / "before")
    assert memory_of_client(given, tmp_path / "client") - before < FIGURE


def test_server_that_gives_a_path_without_end_is_left_at_once(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.hear()
        session.say(*(put(id, endless(id)) for id in range(1, 9)))
        session.expect("ERROR", code="protocol")

    with hostile(served(serve)) as impostor:
        result = Client(impostor.port, tmp_path)("--get", "--retries=0", "box", f"{tmp_path / 'here'}/")
    assert (result.status, len(result.err) < 500) == (5, True)
