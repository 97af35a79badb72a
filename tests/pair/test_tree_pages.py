"""TREE: pages, order, refusals, what is left out; alone, among LISTs, and beside what is sent."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from peers import C2S, S2C, Raw, data, end
from transfers import Admit, Receiving, anything, files_in, kept_of, put, written

from sft.common.errors import Code, ProtocolViolation, Refused
from sft.disk import tree_walk
from sft.disk.storage import Storage
from sft.wire.change_messages import SetAttributes
from sft.wire.messages import (
    BYE_MESSAGE,
    Bye,
    Entries,
    Error,
    Get,
    ListFolder,
    Message,
    Omitted,
    Put,
    Rate,
    Receipt,
    Refuse,
)
from sft.wire.protocol import BRANCH_LIMIT
from sft.wire.tree_messages import Branch, Node, Tree
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def said(storage: Storage, engine: Engine, *messages: bytes, admit: Admit = anything) -> list[Message]:
    """The answers to all that, in one record, and BYE."""
    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*messages, BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    problem = receiving.finish()
    assert isinstance(heard.pop(), Error) if problem else heard.pop() == Bye()
    if problem:
        assert isinstance(problem, ProtocolViolation)
    return heard


def whole(file: Put, content: bytes) -> list[bytes]:
    """A file from its PUT to its END."""
    return [file.encode(), data(file.id, 0, content), end(file, content).encode()]


def answers_to(storage: Storage, engine: Engine, *asked: Tree | ListFolder, admit: Admit = anything) -> list[Message]:
    return said(storage, engine, *(each.encode() for each in asked), admit=admit)


def broken(storage: Storage, engine: Engine, *messages: bytes) -> bool:
    """Whether that is a violation."""
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*messages, BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    problem = receiving.finish()
    assert (heard[-1] == Error(Code.PROTOCOL)) is isinstance(problem, ProtocolViolation)
    return problem is not None


def paths_of(*pages: Message, after: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Of all their entries, in order."""
    found: list[tuple[str, ...]] = []
    for page in pages:
        if isinstance(page, Branch):
            for node in page.entries:
                after = (*after[: node.depth - 1], node.name)
                assert len(after) == node.depth
                found.append(after)
    return found


def all_pages(raw: Raw, path: tuple[str, ...]) -> list[Branch]:
    pages: list[Branch] = []
    after: tuple[str, ...] = ()
    more = True
    while more:
        raw.say(Tree(len(pages) + 1, path, after or None).encode())
        page = raw.hear()
        assert isinstance(page, Branch) and page.id == len(pages) + 1
        after = [after, *paths_of(page, after=after)][-1]
        pages.append(page)
        more = page.more
    return pages


def test_tree_pages_through_all_that_is_below(storage: Storage, engine: Engine, home: Path) -> None:
    for number in range(3000):
        written(home / "box" / f"{number % 60:0120}" / f"{number:0150}-é", b"")
    (home / "box/link").symlink_to("../elsewhere\n")
    written(home / "other", b"")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    pages = all_pages(raw, ("box",))
    raw.say(BYE_MESSAGE)
    assert raw.hear_all() == [Bye()]
    raw.close()
    assert receiving.finish() is None
    found = [path.relative_to(home / "box").parts for path in (home / "box").rglob("*")]
    assert paths_of(*pages) == sorted(found, key=lambda path: [part.encode() for part in path])
    assert len(pages) == 3
    assert all(BRANCH_LIMIT - 30_000 < len(page.body()) <= BRANCH_LIMIT for page in pages[:-1])


def test_page_of_the_longest_names_and_targets_fits(storage: Storage, engine: Engine, home: Path) -> None:
    home.mkdir(parents=True)
    for number in range(150):
        (home / f"{number:03}{'é' * 126}").symlink_to("\n" * 4000)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    pages = all_pages(raw, ())
    assert sum(len(page.entries) for page in pages) == 150
    assert all(len(page.body()) <= BRANCH_LIMIT for page in pages)
    raw.say(BYE_MESSAGE)
    raw.hear_all()
    raw.close()
    assert receiving.finish() is None


@pytest.mark.usefixtures("there")
def test_tree_tells_kinds_sizes_times_and_targets(storage: Storage, engine: Engine, there: Path) -> None:
    os.utime(there / "d/link", ns=(1, 7), follow_symlinks=False)
    for name in ("d/e", "d/empty"):
        os.utime(there / name, ns=(1, 5))
        (there / name).chmod(0o755)
    (there / "d/x").chmod(0o604)
    (page,) = answers_to(storage, engine, Tree(9, ("d",), None))
    assert isinstance(page, Branch) and page.id == 9 and not page.more
    assert page.entries[0] == Node(1, "e", "folder", 0, 5, 0o755, None)
    assert page.entries[3:] == (
        Node(1, "empty", "folder", 0, 5, 0o755, None),
        Node(1, "link", "link", 0, 7, 0o777, "x"),
        Node(1, "x", "file", 1, 1_234_567_890_123_456_789, 0o604, None),
    )
    assert paths_of(page)[1:3] == [("e", "large"), ("e", "y")]


def test_tree_of_what_is_no_folder_is_refused_and_the_next_is_answered(
    storage: Storage, engine: Engine, there: Path
) -> None:
    os.mkfifo(there / "fifo")
    asked = [Tree(1, ("missing",), None), Tree(2, ("..",), None), Tree(3, ("a",), None), Tree(4, ("a", "b"), None)]
    asked += [Tree(5, ("d", "link"), None), Tree(6, ("fifo",), None), Tree(7, ("d",), ("..",))]
    asked += [Tree(8, ("d", "empty"), None)]
    codes = [Code.NOT_FOUND, Code.NAME, Code.NOT_FOLDER, Code.NOT_FOLDER, Code.LINK, Code.NOT_FOLDER, Code.NAME]
    refused = [Refuse(id, code) for id, code in enumerate(codes, 1)]
    assert answers_to(storage, engine, *asked) == [*refused, Branch(8, (), False)]


@pytest.mark.parametrize(
    "path", [("..", "out"), ("..",), ("/etc",), ("d/../..",), ("a\0b",), ("d", ".."), ("d", "link", "..", "..", "out")]
)
@pytest.mark.usefixtures("there")
def test_tree_says_nothing_of_what_is_outside(
    storage: Storage, engine: Engine, home: Path, path: tuple[str, ...]
) -> None:
    written(home.parent / "out/secret", b"somebody else's")
    (home / "d/out").symlink_to(home.parent / "out")
    asked = [Tree(1, path, None), Tree(2, (), path), Tree(3, ("d",), ("out", "a")), Tree(4, ("d", "out"), None)]
    first, second, page, last = answers_to(storage, engine, *asked)
    assert (first, second) == (Refuse(1, Code.NAME), Refuse(2, Code.NAME))
    assert paths_of(page) == [("x",)]
    assert last == Refuse(4, Code.LINK)


@pytest.mark.parametrize(
    ("after", "left"),
    [
        (("zzz",) * 200, []),
        (("d", "e", "y", "nothing", "of", "the", "kind"), [("d", "empty"), ("d", "link"), ("d", "x")]),
        (("d", "link", "x"), [("d", "x")]),
        (("\U0010ffff",), []),
        (("d", "x"), []),
    ],
)
@pytest.mark.usefixtures("there")
def test_tree_goes_on_behind_any_path(
    storage: Storage, engine: Engine, after: tuple[str, ...], left: list[tuple[str, ...]]
) -> None:
    assert paths_of(*answers_to(storage, engine, Tree(1, (), after)), after=after) == left


def test_names_that_can_not_be_said_are_omitted_before_their_page(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sft.server.listings.BRANCH_ENTRIES_LIMIT", 2)
    written(home / "d/e/x", b"")
    written(home / "d/f", b"")
    for number in range(130):
        written(home / "d/e" / f"{number:03}\n", b"")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(Tree(1, (), None).encode(), Tree(2, (), ("d", "e")).encode(), BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    first, *omitted, second, _ = heard
    assert paths_of(first, second) == [("d",), ("d", "e"), ("d", "e", "x"), ("d", "f")]
    assert omitted == [
        Omitted(2, f"d/e/{number:03}\\x0a", Code.NAME, 30 if number == 99 else 0) for number in range(100)
    ]


def test_what_does_not_fit_before_the_last_page_is_counted(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder has many names for each of three reasons, and no page comes behind them."""
    home.mkdir()
    codes = (Code.NAME, Code.UNREADABLE, Code.SPECIAL)
    steps = iter([*(tree_walk.LeftOut((), [f"{code}{n:03}" for n in range(130)], code) for code in codes), None])
    monkeypatch.setattr(tree_walk.TreeWalk, "next", lambda walk: next(steps))
    *omitted, page = answers_to(storage, engine, Tree(1, (), None))
    assert page == Branch(1, (), False)
    told = [each for each in omitted if isinstance(each, Omitted)]
    assert len(told) == 256 and sum(1 + each.more for each in told) == 3 * 130


def test_no_page_has_more_omitted_than_may_come(storage: Storage, engine: Engine, home: Path) -> None:
    for folder in range(12):
        for number in range(120):
            written(home / f"{folder:02}" / f"{number:03}\n", b"")
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    after: tuple[str, ...] = ()
    counts: list[int] = []
    more = True
    while more:
        raw.say(Tree(1, (), after or None).encode())
        heard = [raw.hear()]
        while isinstance(heard[-1], Omitted):
            heard.append(raw.hear())
        counts.append(len(heard) - 1)
        assert isinstance(heard[-1], Branch)
        after = [after, *paths_of(heard[-1], after=after)][-1]
        more = heard[-1].more
    raw.say(BYE_MESSAGE)
    raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert sum(counts) == 1200 and max(counts) <= 256


def test_what_one_page_can_not_name_comes_before_the_next(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that one folder has is omitted, then what those above it have."""
    left_out = [
        tree_walk.LeftOut(("d",) * (5 - depth), [f"{number}" for number in range(90)], Code.UNREADABLE)
        for depth in range(5)
    ]
    nodes = [tree_walk.Node(1, name, "folder", 0, 0, 0o755, None) for name in "ef"]
    walk = iter([*left_out, *nodes])
    fake = SimpleNamespace(next=lambda: next(walk, None), files=lambda most: [], pause=lambda: None)
    monkeypatch.setattr("sft.server.listings.TreeWalk", lambda *_: fake)
    asked = [Tree(id, (), after) for id, after in ((1, None), (2, ("e",)), (3, ("f",)))]
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(each.encode() for each in asked), BYE_MESSAGE)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    omitted = [each for each in heard if isinstance(each, Omitted)]
    assert len({each.name for each in omitted}) == len(omitted) == 5 * 90
    assert max(sum(each.id == id for each in omitted) for id in (1, 2, 3)) <= 256
    assert [each.name for page in heard if isinstance(page, Branch) for each in page.entries] == ["e", "f"]


def all_but_list(right: str) -> None:
    if right == "list":
        raise Refused(Code.DENIED)


@pytest.mark.usefixtures("there")
def test_account_without_the_right_to_list_is_denied_and_may_send(storage: Storage, engine: Engine, home: Path) -> None:
    sent = [*whole(put(2, "new"), b"abcde")]
    heard = said(storage, engine, Tree(1, (), None).encode(), *sent, admit=all_but_list)
    assert heard[0] == Refuse(1, Code.DENIED)
    assert isinstance(heard[1], Receipt) and heard[1].id == 2
    assert files_in(home)["new"] == b"abcde"


# --- the jobs that TREE goes with -------------------------------------------------------------------------------------

TREE, LIST = Tree(1, (), None), ListFolder(2, (), None)
NEW = put(5, "new")


@pytest.mark.usefixtures("there")
def test_tree_and_list_go_together_in_any_order(storage: Storage, engine: Engine) -> None:
    for asked in ([TREE], [TREE, LIST], [LIST, TREE], [TREE, LIST, TREE, LIST]):
        heard = answers_to(storage, engine, *asked)
        assert [type(answer) for answer in heard] == [{Tree: Branch, ListFolder: Entries}[type(each)] for each in asked]
    rated = said(storage, engine, Rate(1 << 30).encode(), TREE.encode())
    assert [type(answer) for answer in rated] == [Branch]


@pytest.mark.parametrize("is_large", [False, True])
def test_tree_before_between_and_behind_files_is_answered_and_all_arrives(
    storage: Storage, engine: Engine, home: Path, there: Path, is_large: bool
) -> None:
    size = 100_000 if is_large else 5
    file = put(3, "new", size=size)
    trees = [Tree(id, ("d",), None).encode() for id in (1, 2, 4, 6)]
    begin, *rest = whole(file, bytes(size))
    heard = said(storage, engine, *trees[:2], begin, trees[2], *rest, trees[3])
    assert [answer.id for answer in heard if isinstance(answer, Branch)] == [1, 2, 4, 6]
    assert [answer.id for answer in heard if isinstance(answer, Receipt)] == [3]
    assert files_in(home)["new"] == bytes(size)
    assert kept_of(home) == []


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([SetAttributes(1, ("a",), 1, None).encode(), Get(2, ("a",), False, True).encode()], id="set, get"),
        pytest.param([Get(1, ("a",), True, True).encode(), Tree(2, (), None).encode()], id="tree between gets"),
        pytest.param([LIST.encode(), NEW.encode()], id="put behind list"),
        pytest.param([TREE.encode(), LIST.encode(), *whole(NEW, b"abcde")], id="put behind tree and list"),
        pytest.param([*whole(NEW, b"abcde"), Tree(6, (), None).encode(), LIST.encode()], id="list behind put and tree"),
        pytest.param([Rate(1 << 30).encode(), TREE.encode(), *whole(NEW, b"abcde")], id="rate, tree and put"),
        pytest.param([TREE.encode(), Rate(1 << 30).encode()], id="rate behind tree"),
        pytest.param([TREE.encode(), *whole(put(1, "new"), b"abcde")], id="id of a put that a tree had"),
        pytest.param([*whole(NEW, b"abcde"), Tree(5, (), None).encode()], id="id of a tree that a put had"),
        pytest.param([*whole(NEW, b"abcde"), Tree(5, ("..",), None).encode()], id="the same with a wrong path"),
        pytest.param(
            [*whole(NEW, b"abcde"), Tree(7, (), None).encode(), *whole(put(6, "b"), b"abcde")], id="id between"
        ),
        pytest.param([Branch(1, (), False).encode()], id="branch"),
        pytest.param([NEW.encode(), Branch(6, (), False).encode()], id="branch behind put"),
    ],
)
def test_tree_at_a_wrong_place_is_a_violation(storage: Storage, engine: Engine, messages: list[bytes]) -> None:
    assert broken(storage, engine, *messages)


def test_thousands_of_trees_are_answered(storage: Storage, engine: Engine, there: Path) -> None:
    heard = answers_to(storage, engine, *(Tree(id, ("d", "e"), None) for id in range(1, 2001)))
    assert [page.id for page in heard if isinstance(page, Branch)] == list(range(1, 2001))
