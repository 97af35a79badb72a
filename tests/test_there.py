"""Which small files are offered before they are sent: the decision, what it is made from, and what that costs."""

import tracemalloc
from collections.abc import Iterator
from itertools import product

import pytest
from tables import each_row

from sft.client.there import There, places_to_look, worth_offering
from sft.common.errors import Code
from sft.disk.decisions import Existing, Policy
from sft.wire.messages import Message, Omitted, Refuse
from sft.wire.protocol import UNASKED_LIMIT
from sft.wire.tree_messages import Branch, Node

Parts = tuple[str, ...]

# policy, what is there: for a small file. Larger ones and pipes are compared in another way, if at all.
OFFERED = {
    (Policy.FAIL, Existing.NOTHING): False,
    (Policy.FAIL, Existing.SAME): True,
    (Policy.FAIL, Existing.SAME_SIZE): True,
    (Policy.FAIL, Existing.OTHER): True,
    (Policy.FAIL, Existing.FOLDER): True,
    (Policy.FAIL, Existing.LINK): True,
    (Policy.FAIL, Existing.SPECIAL): True,
    (Policy.RENAME, Existing.NOTHING): False,
    (Policy.RENAME, Existing.SAME): True,
    (Policy.RENAME, Existing.SAME_SIZE): True,
    (Policy.RENAME, Existing.OTHER): False,
    (Policy.RENAME, Existing.FOLDER): False,
    (Policy.RENAME, Existing.LINK): False,
    (Policy.RENAME, Existing.SPECIAL): False,
    (Policy.REPLACE, Existing.NOTHING): False,
    (Policy.REPLACE, Existing.SAME): True,
    (Policy.REPLACE, Existing.SAME_SIZE): True,
    (Policy.REPLACE, Existing.OTHER): False,
    (Policy.REPLACE, Existing.FOLDER): False,
    (Policy.REPLACE, Existing.LINK): False,
    (Policy.REPLACE, Existing.SPECIAL): False,
    (Policy.SKIP, Existing.NOTHING): False,
    (Policy.SKIP, Existing.SAME): True,
    (Policy.SKIP, Existing.SAME_SIZE): True,
    (Policy.SKIP, Existing.OTHER): True,
    (Policy.SKIP, Existing.FOLDER): True,
    (Policy.SKIP, Existing.LINK): True,
    (Policy.SKIP, Existing.SPECIAL): True,
}


def test_matrix_is_whole() -> None:
    assert set(OFFERED) == set(product(Policy, Existing))


@each_row(("policy", "existing"), OFFERED)
def test_file_is_offered_where_that_may_spare_its_content(policy: Policy, existing: Existing) -> None:
    for size in (0, 1, UNASKED_LIMIT):
        assert worth_offering(policy, size, existing) is OFFERED[policy, existing]
    for size_of_others in (UNASKED_LIMIT + 1, 1 << 40, None):
        assert not worth_offering(policy, size_of_others, existing)


class Silent:
    """A channel that answers nothing by itself."""

    def post(self, message: bytes) -> None:
        pass


def looked(policy: Policy, *answers: Message, places: tuple[Parts, ...] = (("in",),)) -> There:
    there = There(policy)
    there.look_below(places)
    there.read(Silent(), iter(answers))  # type: ignore[arg-type]
    return there


NODES = (
    Node(1, "big", "file", UNASKED_LIMIT + 1, 0, 0, None),
    Node(1, "folder", "folder", 0, 0, 0, None),
    Node(2, "small", "file", 7, 0, 0, None),
    Node(1, "link", "link", 0, 0, 0, "big"),
)
FOUND = {("in", "big"): UNASKED_LIMIT + 1, ("in", "folder", "small"): 7}


def existing_at(path: Parts, size: int) -> Existing:
    if path in FOUND:
        return Existing.SAME_SIZE if FOUND[path] == size else Existing.OTHER
    if path == ("in", "link"):
        return Existing.OTHER
    return Existing.FOLDER if path == ("in", "folder") else Existing.NOTHING


@each_row("policy", Policy)
def test_what_was_read_leads_to_the_decision_of_the_matrix(policy: Policy) -> None:
    there = looked(policy, Branch(1, NODES, False))
    paths = [*FOUND, ("in", "folder"), ("in", "link"), ("in", "else"), ("in", "small"), ("folder", "small")]
    for path, size in product(paths, (0, 6, 7, UNASKED_LIMIT, UNASKED_LIMIT + 1)):
        assert there.is_worth_offering(path, size) is worth_offering(policy, size, existing_at(path, size)), path
    assert not there.is_worth_offering(("in", "folder", "small"), None)


@each_row("policy", Policy)
@each_row("code", Code)
def test_where_nothing_can_be_listed_nothing_is_offered(policy: Policy, code: Code) -> None:
    there = looked(policy, Refuse(1, code))
    assert not there.is_worth_offering(("in", "folder", "small"), 7)


def test_what_is_left_out_is_no_trouble_and_the_next_place_is_looked_at() -> None:
    answers = (Refuse(1, Code.DENIED), Omitted(2, "x", Code.NAME, 9), Branch(2, NODES[2:0:-1], False))
    node = Node(1, "small", "file", 7, 0, 0, None)
    there = looked(Policy.FAIL, *answers[:2], Branch(2, (node,), False), places=(("no",), ("yes",)))
    assert there.is_worth_offering(("yes", "small"), 7)
    assert not there.is_worth_offering(("no", "small"), 7)


def test_ids_go_on_over_all_places() -> None:
    there = There(Policy.FAIL)
    there.look_below([("a",), ("b",), ("c",)])
    one, two = (Node(1, name, "file", 1, 0, 0, None) for name in "xy")
    answers = [Branch(1, (one,), True), Branch(2, (two,), False), Refuse(3, Code.NOT_FOUND), Branch(4, (), False)]
    assert there.read(Silent(), iter(answers)) == 4  # type: ignore[arg-type]
    assert there.read(Silent(), iter([])) == 0  # type: ignore[arg-type]


def endless() -> Iterator[Message]:
    id = 0
    while True:
        id += 1
        nodes = tuple(Node(1, f"{id:06}-{number:04}", "file", 1, 0, 0, None) for number in range(1000))
        yield Branch(id, nodes, True)


@pytest.mark.parametrize(("count", "pages"), [(0, 11), (1, 11), (5_000, 31)])
def test_what_is_out_of_proportion_is_not_read_on(count: int, pages: int) -> None:
    there = There(Policy.FAIL)
    there.look_below([("in",)])
    counts = iter([None] * 3)  # what is to be sent is not known at once
    assert there.read(Silent(), endless(), lambda: next(counts, count)) == pages  # type: ignore[arg-type]
    assert there.is_worth_offering(("in", "000001-0000"), 1)
    assert there.read(Silent(), iter([])) == 0  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("policy", [Policy.FAIL, Policy.REPLACE])
def test_million_entries_take_less_than_300_mib(policy: Policy) -> None:
    """Measured: 65 MiB."""
    tracemalloc.start()
    try:
        there = There(policy)
        there.look_below([("in", "a folder of many")])
        pages = (each for each, _ in zip(endless(), range(1000), strict=False))
        there.read(Silent(), pages, lambda: None if there._seen < 1_000_000 else 0)  # type: ignore[arg-type]
        assert there._seen == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert there.is_worth_offering(("in", "a folder of many", "001000-0999"), 1)


@each_row(
    ("folders", "files", "places"),
    [
        ([], [("a",)], []),
        ([], [("d", str(number)) for number in range(7)], []),
        ([], [("d", str(number)) for number in range(8)], [("d",)]),
        ([], [(str(number),) for number in range(8)], [()]),
        ([("d", "e")], [("a",)], [("d", "e")]),
        ([("d", "e"), ("d", "f")], [], [("d", "e"), ("d", "f")]),
        ([("d", "e"), ("d", "f")], [("d", str(number)) for number in range(8)], [("d",)]),
        ([("d", "e")], [(str(number),) for number in range(8)], [()]),
        ([("d", "e"), ("d",)], [], [("d",)]),
    ],
)
def test_places_to_look_are_few_and_none_is_below_another(
    folders: list[Parts], files: list[Parts], places: list[Parts]
) -> None:
    assert places_to_look(folders, files) == places
