"""TREE with digests: what a page has, where it ends, what it costs, and what can't be read."""

import hashlib
import os
from pathlib import Path

import pytest
from transfers import answers_to, written

from sft.common.errors import Code, Refused
from sft.disk.sources import FileSource
from sft.disk.storage import Storage
from sft.server import listings
from sft.wire.messages import Message, Omitted, Refuse
from sft.wire.tree_messages import Branch, Node, Tree
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def branches(answers: list[Message]) -> list[Branch]:
    return [each for each in answers if isinstance(each, Branch)]


def test_files_have_their_digests_and_nothing_else_has(storage: Storage, engine: Engine, home: Path) -> None:
    contents = {"a": b"", "d/x": b"content", "d/large": os.urandom(3_000_000)}
    for name, content in contents.items():
        written(home / name, content)
    (home / "link").symlink_to("a")
    (with_them,) = branches(answers_to(storage, engine, Tree(1, (), None, True)))
    (without,) = branches(answers_to(storage, engine, Tree(1, (), None)))
    digests = {node.name: node.sha256 for node in with_them.entries}
    expected = {name.split("/")[-1]: hashlib.sha256(content).digest() for name, content in contents.items()}
    assert digests == {**expected, "d": None, "link": None}
    assert [_without(node) for node in with_them.entries] == list(without.entries)


def _without(node: Node) -> Node:
    return Node(node.depth, node.name, node.kind, node.size, node.mtime, node.mode, node.target)


def test_page_ends_before_a_file_that_is_too_much_and_goes_on_with_it(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_HASHED_BYTES", 1000)
    for name, size in (("a", 400), ("b", 600), ("c", 1), ("d", 5000), ("e/f", 10)):
        written(home / name, bytes(size))
    paths: list[tuple[str, ...] | None] = [None, ("b",), ("c",), ("e",)]
    asked = [Tree(id, (), after, True) for id, after in enumerate(paths, 1)]
    pages = branches(answers_to(storage, engine, *asked))
    assert [[node.name for node in page.entries] for page in pages] == [["a", "b"], ["c"], ["d", "e"], ["f"]]
    assert [page.more for page in pages] == [True, True, True, False]


@pytest.mark.parametrize("right", ["list", "get"])
def test_both_rights_are_needed(storage: Storage, engine: Engine, home: Path, right: str) -> None:
    def admit(wanted: str) -> None:
        if wanted == right:
            raise Refused(Code.DENIED)

    written(home / "a", b"a")
    assert answers_to(storage, engine, Tree(1, (), None, True), admit=admit) == [Refuse(1, Code.DENIED)]


@pytest.mark.parametrize("last", [None, "zz"])
def test_files_that_can_not_be_read_are_named_or_counted_whatever_their_number(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, last: str | None
) -> None:
    """A page that has no entry yet can't end."""
    hashed = listings.Listings._hashed

    def unreadable(self: listings.Listings, node: Node, path: tuple[str, ...]) -> Node:
        if path[-1].startswith("u"):
            raise Refused(Code.UNREADABLE)
        return hashed(self, node, path)

    monkeypatch.setattr(listings.Listings, "_hashed", unreadable)
    for number in range(400):
        written(home / f"u{number:03}", b"")
    if last is not None:
        written(home / last, b"")
    *omitted, page = answers_to(storage, engine, Tree(1, (), None, True))
    assert [node.name for node in branches([page])[0].entries] == ([] if last is None else [last])
    named = [each for each in omitted if isinstance(each, Omitted)]
    assert len(named) == len(omitted) <= 256
    assert len(named) + sum(each.more for each in named) == 400


def test_file_that_changes_while_it_is_read_is_left_out_and_named(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        written(home / name, b"content")

    class Changing(FileSource):
        def check_unchanged(self) -> None:
            if self.identity[1] == (home / "b").stat().st_ino:
                os.utime(home / "b", ns=(0, 0))
            super().check_unchanged()

    monkeypatch.setattr(listings, "FileSource", Changing)
    answers = answers_to(storage, engine, Tree(1, (), None, True))
    assert Omitted(1, "b", Code.CHANGED, 0) in answers
    assert [node.name for node in branches(answers)[0].entries] == ["a", "c"]
