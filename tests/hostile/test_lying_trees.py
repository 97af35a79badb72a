"""A server whose answers to TREE make no tree: the client says so, and prints nothing that was not said in order."""

from pathlib import Path
from typing import Any

import pytest
from speaker import Session, control, message
from test_hostile_server import Serve, meet, served

INTEGRITY, FAILED = 5, 1
PAGES = 30

Node = list[Any]


def node(depth: int, name: str, kind: str = "file", target: str | None = None) -> Node:
    return [depth, name, kind, 0, 1, 0o644, target]


def tree(*pages: list[Node]) -> Serve:
    """Page by page, each but the last with more to come."""

    def serve(session: Session) -> None:
        for number, entries in enumerate(pages, 1):
            session.hear()
            session.say(control("BRANCH", id=number, entries=entries, more=number < len(pages)))
        session.hear()
        session.say(message("BYE"))

    return serve


FOLDER = node(1, "d", "folder")
LIES: dict[str, list[list[Node]]] = {
    "one name for ever": [[node(1, "a")]] * PAGES,
    "twice": [[node(1, "a"), node(1, "a")]],
    "backwards": [[node(1, "b"), node(1, "a")]],
    "backwards in pages": [[FOLDER, node(2, "b")], [node(2, "a")]],
    "nothing for ever": [[node(1, "a")], *[[]] * PAGES, [node(1, "b")]],
    "below a file": [[node(1, "a"), node(2, "b")]],
    "below a link": [[node(1, "a", "link", "/"), node(2, "etc")]],
    "a file that is a folder, too": [[node(1, "a"), node(1, "a", "folder"), node(2, "b")]],
    "two levels at once": [[FOLDER, node(3, "b")]],
    "dots": [[FOLDER, node(2, "..")]],
    "a dot": [[node(1, ".")]],
    "a slash": [[node(1, "a/b")]],
    "an absolute name": [[node(1, "/etc")]],
    "an escape": [[node(1, "a\x1b[2J")]],
    "an escape in a target": [[node(1, "a", "link", "\x1b[2J")]],
    "no target": [[node(1, "a", "link")]],
    "a target of a file": [[node(1, "a", "file", "b")]],
    "a size of a folder": [[[1, "a", "folder", 5, 1, 0, None]]],
    "an unknown kind": [[node(1, "a", "device")]],
    "depth 0": [[node(0, "a")]],
    "depth 256": [[node(256, "a")]],
    "more entries than a page has": [[node(1, f"{number:04}") for number in range(8193)]],
    "too deep": [[node(depth, "d", "folder") for depth in range(1, 256)]],
    "no tree": [[1, 2, 3]],  # type: ignore[list-item]
}


@pytest.mark.parametrize("lie", LIES)
def test_what_makes_no_tree_is_no_listing(tmp_path: Path, lie: str) -> None:
    result = meet(served(tree(*LIES[lie])), tmp_path, "--list", "-R", "in")
    assert result.status == INTEGRITY
    assert "\x1b" not in result.out + result.err
    assert result.err.count("\n") == 1


def test_what_makes_a_tree_is_one(tmp_path: Path) -> None:
    """Else the ones above would fail for another reason."""
    pages = [[FOLDER, node(2, "a")], [node(2, "b\\", "link", "../\\x1b"), node(1, "é", "folder")], []]
    result = meet(served(tree(*pages)), tmp_path, "--list", "-R", "in")
    assert (result.status, result.err) == (0, "")
    names = [line.split("Z  ")[1] for line in result.out.splitlines()]
    assert [name.encode("ascii", "replace").decode() for name in names][:2] == ["d/", "d/a"]
    assert len(names) == 4


@pytest.mark.parametrize("code", ["denied", "not-found", "link", "storage", "name"])
def test_refused_tree_is_one_line(tmp_path: Path, code: str) -> None:
    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("REFUSE", id=1, code=code))
        session.expect("BYE")
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, "--list", "-R", "in")
    assert result.status == FAILED
    assert result.out == ""
    assert result.err.count("\n") == 1 and "in" in result.err


def test_list_in_the_place_of_a_tree_of_no_folder_is_asked_for(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.expect("TREE", id=1)
        session.say(control("REFUSE", id=1, code="not-folder"))
        session.expect("LIST", path=["in"])
        session.say(control("ENTRY", id=1, entries=[["in", "file", 7, 1]], more=False))
        session.expect("BYE")
        session.say(message("BYE"))

    result = meet(served(serve), tmp_path, "--list", "-R", "in")
    assert (result.status, result.err) == (0, "")
    assert result.out.split() == ["7", "1970-01-01T00:00:00Z", "in"]
