"""LIST: pages, order, refusals, and what it does not show."""

import os
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw
from transfers import Admit, Receiving, answers_to, anything, put, receipt, written

from sft.common.errors import (
    Code,
    ProtocolViolation,
)
from sft.disk.storage import Storage
from sft.wire.messages import (
    BYE_MESSAGE,
    Bye,
    Cancel,
    Entries,
    Entry,
    Error,
    Get,
    ListFolder,
    Refuse,
)
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def listed(storage: Storage, engine: Engine, path: tuple[str, ...], admit: Admit = anything) -> list[list[Entry]]:
    """Every page of a listing."""
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    pages: list[list[Entry]] = []
    after: str | None = None
    while True:
        raw.say(ListFolder(len(pages) + 1, path, after).encode())
        page = raw.hear()
        assert isinstance(page, Entries)
        assert page.id == len(pages) + 1
        pages.append(list(page.entries))
        if not page.more:
            break
        after = page.entries[-1].name
    raw.say(BYE_MESSAGE)
    assert raw.hear_all() == [Bye()]
    raw.close()
    assert receiving.finish() is None
    return pages


def test_list_pages_through_many_names_in_order(storage: Storage, engine: Engine, home: Path) -> None:
    names = sorted({f"{number:x}-é" if number % 3 else f"Z{number}" for number in range(2_000)}, key=str.encode)
    for name in names:
        written(home / "box" / name, name.encode())
    pages = listed(storage, engine, ("box",))
    assert [entry.name for page in pages for entry in page] == names
    assert len(pages) >= 4
    assert all(entry.size == len(entry.name.encode()) for page in pages for entry in page)


@pytest.mark.parametrize("char", ["\\", '"', "é", "\U0001f4e6"])
def test_page_of_the_longest_names_fits_into_a_message(storage: Storage, engine: Engine, home: Path, char: str) -> None:
    """However they are written in JSON."""
    name = char * (250 // len(char.encode()))
    for number in range(300):
        written(home / f"{number:03}{name}", b"")
    pages = listed(storage, engine, ())
    assert sum(map(len, pages)) == 300


def test_list_tells_files_folders_sizes_and_times(storage: Storage, engine: Engine, there: Path) -> None:
    (entries,) = listed(storage, engine, ("d",))
    assert [(entry.name, entry.kind) for entry in entries] == [
        *(("e", "folder"), ("empty", "folder")),
        *(("link", "link"), ("x", "file")),
    ]
    assert (entries[-1].size, entries[-1].mtime) == (1, 1_234_567_890_123_456_789)
    assert [entry.name for entry in listed(storage, engine, ())[0]] == ["a", "d"]
    assert listed(storage, engine, ("d", "empty")) == [[]]


def test_list_of_a_file_is_that_file(storage: Storage, engine: Engine, there: Path) -> None:
    ((entry,),) = listed(storage, engine, ("d", "x"))
    assert (entry.name, entry.kind, entry.size) == ("x", "file", 1)


def test_list_leaves_out_what_is_no_file_folder_or_link(storage: Storage, engine: Engine, there: Path) -> None:
    os.mkfifo(there / "fifo")
    assert [entry.name for entry in listed(storage, engine, ())[0]] == ["a", "d"]


def test_list_tells_where_links_lead_spelled_for_people(storage: Storage, engine: Engine, there: Path) -> None:
    targets = {"l0": "a", "l1": "/etc/passwd", "l2": "\x1b[2J\udcff", "l3": "x" * 4095}
    for name, target in targets.items():
        (there / name).symlink_to(target)
    found = {entry.name: (entry.kind, entry.size, entry.target) for entry in listed(storage, engine, ())[0]}
    assert found == {
        "a": ("file", found["a"][1], None),
        "d": ("folder", 0, None),
        "l0": ("link", 0, "a"),
        "l1": ("link", 0, "/etc/passwd"),
        "l2": ("link", 0, "\\x1b[2J\\xff"),
        "l3": ("link", 0, "x" * 4095),
    }


def test_page_of_the_longest_targets_fits_into_a_message(storage: Storage, engine: Engine, home: Path) -> None:
    home.mkdir()
    for number in range(40):
        (home / f"{number:03}{'é' * 120}").symlink_to("\\" * 4095)
    assert sum(map(len, listed(storage, engine, ()))) == 40


def test_list_of_what_is_not_there_is_refused_and_the_next_is_answered(
    storage: Storage, engine: Engine, there: Path
) -> None:
    asked = [ListFolder(1, ("missing",), None), ListFolder(2, ("..",), None), ListFolder(3, ("a", "b"), None)]
    asked += [ListFolder(4, ("d", "link", "x"), None), ListFolder(5, ("d", "empty"), None)]
    assert answers_to(storage, engine, *asked) == [
        Refuse(1, Code.NOT_FOUND),
        Refuse(2, Code.NAME),
        Refuse(3, Code.NOT_FOLDER),
        Refuse(4, Code.LINK),
        Entries(5, (), False),
    ]


@pytest.mark.parametrize(
    "path",
    [("..", "out.txt"), ("..", "..", "out.txt"), ("/etc/passwd",), ("d/../..", "out.txt"), ("a\0b",), ("d", "..")],
)
@pytest.mark.usefixtures("there")
def test_list_says_nothing_of_files_outside_the_folder(
    storage: Storage, engine: Engine, home: Path, path: tuple[str, ...]
) -> None:
    (home.parent / "out.txt").write_bytes(b"somebody else's")
    assert answers_to(storage, engine, ListFolder(1, path, None)) == [Refuse(1, Code.NAME)]


@pytest.mark.parametrize(
    ("after", "names"),
    [(None, ["a", "d"]), ("!", ["a", "d"]), ("a", ["d"]), ("b", ["d"]), ("d", []), ("\U0010ffff", [])],
)
@pytest.mark.usefixtures("there")
def test_list_goes_on_behind_any_name(storage: Storage, engine: Engine, after: str | None, names: list[str]) -> None:
    (page,) = answers_to(storage, engine, ListFolder(1, (), after))
    assert isinstance(page, Entries)
    assert [entry.name for entry in page.entries] == names
    assert not page.more


@pytest.mark.parametrize(
    "message", [Get(1, (), True, True, False, 0).encode(), put(1, "a").encode(), Cancel(1).encode(), receipt()]
)
def test_other_message_on_a_connection_that_lists_is_a_violation(
    storage: Storage, engine: Engine, message: bytes
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(ListFolder(1, (), None).encode(), message, BYE_MESSAGE)
    assert raw.hear_all() == [Entries(1, (), False), Error(Code.PROTOCOL)]
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)
