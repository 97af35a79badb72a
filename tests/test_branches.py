"""The client's reading of a tree: a server's pages are believed when they fit together, and not otherwise."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import each_row

from sft.client.branches import BranchEntries, Branches, Glimpses, Page, just_before
from sft.common.errors import Code, ProtocolViolation, Refused
from sft.common.names import why_not_allowed
from sft.disk.tree import Line
from sft.wire.messages import Entries, Message, Omitted, Refuse, decode_message
from sft.wire.tree_messages import Branch, Node, Tree

Parts = tuple[str, ...]


class Asked:
    """A channel that keeps the TREEs."""

    def __init__(self) -> None:
        self.trees: list[Tree] = []

    def post(self, message: bytes) -> None:
        tree = decode_message(message[0], memoryview(message)[5:])
        assert isinstance(tree, Tree)
        self.trees.append(tree)


def node(depth: int, name: str, kind: str = "file") -> Node:
    target = "x" if kind == "link" else None
    return Node(depth, name, kind, 0, 0, 0, target)  # type: ignore[arg-type]


def nodes(text: str) -> tuple[Node, ...]:
    """`1a/ 2b 1c@`: a folder, a file in it, and a link beside it."""
    kinds = {"/": "folder", "@": "link"}
    words = [(word.rstrip("/@"), kinds.get(word[-1], "file")) for word in text.split()]
    return tuple(node(int(word[0]), word[1:], kind) for word, kind in words)


def pages(*texts: str) -> Iterator[Message]:
    for id, text in enumerate(texts, 1):
        yield Branch(id, nodes(text), id < len(texts))


def read(branches: Branches, messages: Iterator[Message], asked: Any = None) -> list[Parts]:
    found: list[Page] = list(branches.pages(asked or Asked(), messages))  # type: ignore[arg-type]
    return [path for page in found for path, _ in page.entries]


GOOD: dict[str, list[str]] = {
    "nothing": [""],
    "all kinds": ["1a 1b/ 2c/ 3d 2e@ 1f@ 1g/"],
    "pages within a folder": ["1a/ 2b", "2c/", "3d/ 4e", "1f", ""],
    "order of bytes": ["1a 1b. 1b.txt/ 2x 1é 1\U0001f600"],
    "an empty folder at the end of a page": ["1a/", "1b"],
    "up by many": ["1a/ 2a/ 3a/ 4a", "1b"],
    "the same name deeper": ["1a/ 2a/ 3a"],
}


@each_row("case", GOOD)
def test_tree_that_fits_together_is_read_to_its_end(case: str) -> None:
    asked = Asked()
    branches = Branches(("in",))
    found = read(branches, pages(*GOOD[case]), asked)
    assert branches.is_whole
    flat = nodes(" ".join(GOOD[case]))
    assert [(len(path), path[-1]) for path in found] == [(each.depth, each.name) for each in flat]
    assert found == sorted(found, key=lambda path: [part.encode() for part in path])
    assert [tree.id for tree in asked.trees] == list(range(1, len(GOOD[case]) + 1))
    assert all(tree.path == ("in",) for tree in asked.trees)
    starts = [sum(len(nodes(text)) for text in GOOD[case][:number]) for number in range(len(GOOD[case]))]
    assert [tree.after for tree in asked.trees] == [found[start - 1] if start else None for start in starts]


BAD: dict[str, list[str]] = {
    "a name twice": ["1a 1a"],
    "a name twice, on two pages": ["1a", "1a"],
    "a folder twice": ["1a/ 2b 1a/ 2c"],
    "backwards": ["1b 1a"],
    "backwards, on two pages": ["1b", "1a"],
    "backwards in a folder": ["1a/ 2c 2b"],
    "order of the characters and not of the bytes": ["1\U0001f600 1\uffee"],
    "below a file": ["1a 2b"],
    "below a link": ["1a@ 2b"],
    "below a file, on the next page": ["1a", "2b"],
    "a file that is a folder, too": ["1a 1a/ 2b"],
    "two levels at once": ["1a/ 3b"],
    "deeper than anything": ["2a"],
    "back into a folder that was left": ["1a/ 2b 1c 2b"],
    "nothing for ever": ["1a", "", ""],
}


@each_row("case", BAD)
def test_tree_that_does_not_fit_together_is_a_violation(case: str) -> None:
    with pytest.raises(ProtocolViolation):
        read(Branches(("in",)), pages(*BAD[case]))


def test_path_that_would_be_too_deep_or_too_long_is_a_violation() -> None:
    chain = tuple(node(depth, "d", "folder") for depth in range(1, 256))
    assert len(read(Branches(()), iter([Branch(1, chain, False)]))) == 255
    with pytest.raises(ProtocolViolation):
        read(Branches(("in",)), iter([Branch(1, chain, False)]))
    long = tuple(node(depth, "n" * 255, "folder") for depth in range(1, 18))
    assert len(read(Branches(()), iter([Branch(1, long[:16], False)]))) == 16
    for path, few in (((), long), (("in",), long[:16])):
        with pytest.raises(ProtocolViolation):
            read(Branches(path), iter([Branch(1, few, False)]))


@each_row(
    "answer",
    [
        Branch(2, (), False),
        Entries(1, (), False),
        Refuse(2, Code.NOT_FOUND),
        Omitted(2, "a", Code.NAME, 0),
        Branch(1, (), True),
        None,
    ],
)
def test_anything_else_than_an_answer_to_the_tree_is_a_violation(answer: Message | None) -> None:
    with pytest.raises(ProtocolViolation):
        read(Branches(()), iter([] if answer is None else [answer]))


def test_refusal_is_raised_with_its_code() -> None:
    with pytest.raises(Refused) as refused:
        read(Branches(()), iter([Refuse(1, Code.DENIED)]))
    assert refused.value.code is Code.DENIED


def test_omissions_come_with_their_page_and_not_without_end() -> None:
    omitted = Omitted(1, "a", Code.NAME, 0)
    (page,) = Branches(()).pages(Asked(), iter([omitted] * 256 + [Branch(1, (), False)]))  # type: ignore[arg-type]
    assert page.omitted == [omitted] * 256
    with pytest.raises(ProtocolViolation):
        read(Branches(()), iter([omitted] * 257 + [Branch(1, (), False)]))


def test_another_connection_goes_on_behind_the_last_path_and_holds_the_server_to_it() -> None:
    for rest, is_good in (("2c 1d", True), ("2b", False), ("3x", False), ("1a", False)):
        branches, asked = Branches(()), Asked()
        reading = branches.pages(asked, iter([Branch(1, nodes("1a/ 2b"), True)]))  # type: ignore[arg-type]
        assert len(next(reading).entries) == 2
        with pytest.raises(ProtocolViolation):
            next(reading)
        again = Asked()
        if is_good:
            assert read(branches, iter([Branch(1, nodes(rest), False)]), again) == [("a", "c"), ("d",)]
        else:
            with pytest.raises(ProtocolViolation):
                read(branches, iter([Branch(1, nodes(rest), False)]), again)
        assert [(tree.id, tree.after) for tree in again.trees] == [(1, ("a", "b"))]


def test_of_any_number_of_pages_no_more_is_kept_than_the_last_path() -> None:
    count = 400  # 40,000 entries are several MiB

    def made() -> Iterator[Message]:
        for id in range(1, count + 1):
            yield Branch(id, tuple(node(1, f"{id:06}-{number:03}") for number in range(100)), id < count)

    class Silent:
        def post(self, message: bytes) -> None:
            pass

    branches, found = Branches(()), 0
    reading = branches.pages(Silent(), made())  # type: ignore[arg-type]
    next(reading)
    tracemalloc.start()
    try:
        for page in reading:
            found += len(page.entries)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert found == 100 * (count - 1) and branches.is_whole


# --- single names -----------------------------------------------------------------------------------------------------


class Folder:
    """A receiver's folder, answering TREE as one does: a channel and its messages."""

    def __init__(self, names: list[str], most: int) -> None:
        self.names, self.most = sorted(names, key=str.encode), most
        self.asked: list[Tree] = []

    def post(self, message: bytes) -> None:
        tree = decode_message(message[0], memoryview(message)[5:])
        assert isinstance(tree, Tree)
        self.asked.append(tree)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        tree = self.asked[-1]
        behind = [name for name in self.names if tree.after is None or name.encode() > tree.after[0].encode()]
        page = tuple(node(1, name) for name in behind[: self.most])
        return Branch(tree.id, page, len(behind) > self.most)


NAMES = ["a", "ab", "b", "0", ".0", "..0", " ", "a ", "a!", "é", "\ue000", "\U00010000", "n" * 255, "\xa0", "z"]


@each_row("most", [1, 2, 5, 100])
def test_single_names_are_found_among_others(most: int) -> None:
    there, glimpses = Folder(NAMES[::2], most), Glimpses()
    for name in (*NAMES, *reversed(NAMES)):
        found = glimpses.find(("in", name), there, there)  # type: ignore[arg-type]
        assert (found is not None) == (name in NAMES[::2]), name
    assert all(tree.path == ("in",) for tree in there.asked)
    assert [tree.id for tree in there.asked] == list(range(1, len(there.asked) + 1))


def test_name_is_found_behind_the_content_of_a_folder_that_comes_just_before_it() -> None:
    class Nested(Folder):
        def __next__(self) -> Message:
            tree = self.asked[-1]
            paths = [("a",), *(("a", f"{number}") for number in range(9)), ("a ",), ("b",)]
            behind = [path for path in paths if path > (tree.after or ())]
            page = tuple(
                node(len(path), path[-1], "folder" if path == ("a",) else "file") for path in behind[: self.most]
            )
            return Branch(tree.id, page, len(behind) > self.most)

    there, glimpses = Nested([], 2), Glimpses()
    for name in ("a ", "a", "b", "a  ", "a "):
        found = glimpses.find((name,), there, there)  # type: ignore[arg-type]
        assert (found is not None) == (name != "a  "), name


def test_names_of_one_page_cost_one_question() -> None:
    there, glimpses = Folder([f"{number:04}" for number in range(5000)], 8192), Glimpses()
    for number in range(1000, 2000):
        assert glimpses.find((f"{number:04}",), there, there) is not None  # type: ignore[arg-type]
    assert len(there.asked) == 1


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=60))
def test_name_before_another_one_is_allowed_and_comes_before_it(name: str) -> None:
    if name not in (".", ".."):
        before = just_before(name)
        assert before.encode() < name.encode()
        assert not before or not why_not_allowed((before,))


# --- files that are the same at both ends ---


def line(depth: int, name: str, size: int = 0) -> Line:
    """A file as `node` makes one, found here."""
    return depth, name, "file", size, 0, 0, None, None


def entries(*texts: str) -> BranchEntries:
    found = BranchEntries(("in",))
    found.connect(Asked(), pages(*texts), 0)  # type: ignore[arg-type]
    return found


def test_files_that_are_the_same_are_passed_by_within_a_page() -> None:
    theirs = entries("1a/ 2b 2c 2d", "2e 2f 1g")
    assert next(theirs)[0] == ("a",)
    lines = [line(2, name) for name in "bcdefz"]
    assert theirs.pass_by(("a",), lines) == 3
    assert theirs.pass_by(("a",), lines[3:]) == 0  # not read yet
    assert next(theirs)[0] == ("a", "e")
    assert theirs.pass_by(("a",), lines[4:]) == 1
    assert [path for path, _ in theirs] == [("g",)]


@pytest.mark.parametrize(
    ("folder", "lines", "count"),
    [
        (("a",), [line(2, "b"), line(2, "d")], 1),
        (("a",), [line(2, "b"), line(2, "c", 1)], 1),
        (("a",), [line(2, "c")], 0),
        (("a",), [], 0),
        (("b",), [line(2, "b")], 0),
        ((), [line(2, "b")], 0),
        (("a", "b"), [line(2, "b")], 0),
    ],
)
def test_file_that_differs_in_anything_or_is_elsewhere_is_not_passed_by(
    folder: Parts, lines: list[Line], count: int
) -> None:
    theirs = entries("1a/ 2b 2c")
    next(theirs)
    assert theirs.pass_by(folder, lines) == count
    assert [path for path, _ in theirs] == [("a", "b"), ("a", "c")][count:]


@pytest.mark.parametrize(
    ("text", "before", "lines"),
    [
        ("1a 2b", 1, [line(2, "b")]),  # below a file
        ("1a/ 2b 2a", 2, [line(2, "a")]),
        ("1a/ 2b 2b", 2, [line(2, "b")]),
        ("1a/ 2b 2c 2b", 1, [line(2, "b"), line(2, "c")]),
    ],
)
def test_what_breaks_the_order_of_a_tree_is_a_violation_though_it_is_the_same_here(
    text: str, before: int, lines: list[Line]
) -> None:
    theirs = entries(text)
    for _ in range(before):
        next(theirs)
    with pytest.raises(ProtocolViolation):
        theirs.pass_by(("a",), lines)
        list(theirs)


def test_next_page_is_asked_for_while_one_is_read() -> None:
    asked, theirs = Asked(), BranchEntries(("in",))
    theirs.connect(asked, pages("1a/ 2b 3c 2d", "2e", "1f"), 0)  # type: ignore[arg-type]
    assert next(theirs)[0] == ("a",)
    assert [tree.after for tree in asked.trees] == [None, ("a", "d")]
    assert next(theirs)[0] == ("a", "b")
    with pytest.raises(ProtocolViolation):
        list(theirs)
