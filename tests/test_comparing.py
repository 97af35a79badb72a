"""Two trees compared: which paths are looked at, and the whole matrix of what is different at one path."""

import tracemalloc
from collections.abc import Iterator
from itertools import product

import pytest
from tables import each_row

from sft.client.comparing import (
    HIDDEN,
    Criteria,
    Difference,
    Entry,
    Pair,
    Way,
    difference,
    is_same_time,
    paired,
    way_for,
)
from sft.common.errors import ConnectionTrouble

D = Difference
Parts = tuple[str, ...]

FILE = Entry("file", 5, 1_700_000_000_000_000_007, 0o640)
FOLDER = Entry("folder", 0, 1_700_000_000_000_000_007, 0o750)
LINK = Entry("link", 0, 1_700_000_000_000_000_007, None, "a/b")
TIMES, MODES = Criteria(), Criteria(modes=0o777)

# what the sender has, what the receiver has, what counts
MATRIX = [
    (None, FILE, MODES, D.EXTRA),
    (None, FOLDER, MODES, D.EXTRA),
    (None, LINK, MODES, D.EXTRA),
    (FILE, None, MODES, D.NEW),
    (FOLDER, None, MODES, D.NEW),
    (LINK, None, MODES, D.NEW),
    (FILE, FOLDER, MODES, D.KIND),
    (FILE, LINK, MODES, D.KIND),
    (FOLDER, FILE, MODES, D.KIND),
    (FOLDER, LINK, MODES, D.KIND),
    (LINK, FILE, MODES, D.KIND),
    (LINK, FOLDER, MODES, D.KIND),
    (FILE, FILE, MODES, D.NONE),
    (FOLDER, FOLDER, MODES, D.NONE),
    (LINK, LINK, MODES, D.NONE),
    (FILE, FILE._replace(size=6), MODES, D.SIZE),
    (FILE, FILE._replace(size=4, mtime=0, mode=0), MODES, D.SIZE),
    (FILE, FILE._replace(mtime=0), TIMES, D.TIME),
    (FILE, FILE._replace(mtime=0, mode=0), MODES, D.TIME),
    (FILE, FILE._replace(mtime=0), Criteria(times=False), D.NONE),
    (FILE, FILE._replace(mtime=None), TIMES, D.NONE),
    (FILE._replace(mtime=None), FILE, TIMES, D.NONE),
    (FILE, FILE._replace(mode=0o600), MODES, D.MODE),
    (FILE, FILE._replace(mode=0o641), Criteria(modes=0o666), D.NONE),
    (FILE, FILE._replace(mode=0o600), TIMES, D.NONE),
    (FILE, FILE._replace(mode=None), MODES, D.NONE),
    (FILE._replace(mode=None), FILE, MODES, D.NONE),
    (FILE._replace(mode=0o040), FILE._replace(mode=0o440), MODES, D.NONE),
    (FILE._replace(mode=0o040), FILE._replace(mode=0o640), MODES, D.MODE),
    (FOLDER._replace(mode=0o050), FOLDER._replace(mode=0o550), MODES, D.NONE),
    (FOLDER._replace(mode=0o550), FOLDER, MODES, D.MODE),
    (FOLDER, FOLDER._replace(mtime=0), TIMES, D.TIME),
    (FOLDER, FOLDER._replace(mode=0o700), MODES, D.MODE),
    (LINK, LINK._replace(target="b"), MODES, D.TARGET),
    (LINK, LINK._replace(mtime=0), TIMES, D.TIME),
    (LINK, LINK._replace(mode=0o777), MODES, D.NONE),
    (FILE._replace(sha256=b"1"), FILE._replace(sha256=b"2"), TIMES, D.CONTENT),
    (FILE._replace(sha256=b"1"), FILE._replace(sha256=b"2", mtime=0), TIMES, D.CONTENT),
    (FILE._replace(sha256=b"1"), FILE._replace(sha256=b"2", size=6), TIMES, D.SIZE),
    (FILE._replace(sha256=b"1"), FILE._replace(sha256=b"1"), TIMES, D.NONE),
    (FILE._replace(sha256=b"1"), FILE._replace(sha256=b"1", mtime=0), TIMES, D.TIME),
    (FILE._replace(sha256=b"1"), FILE, TIMES, D.NONE),
    (FILE, FILE._replace(sha256=b"1"), TIMES, D.NONE),
]


@each_row(("sender", "receiver", "criteria", "is_different"), MATRIX)
def test_weightiest_difference_is_named(
    sender: Entry | None, receiver: Entry | None, criteria: Criteria, is_different: Difference
) -> None:
    assert difference(sender, receiver, criteria) is is_different


def test_matrix_has_every_kind_at_either_end() -> None:
    there = (FILE, FOLDER, LINK, None)
    kinds = {(sender and sender.kind, receiver and receiver.kind) for sender, receiver, _, _ in MATRIX}
    assert kinds == {(one and one.kind, two and two.kind) for one, two in product(there, there)} - {(None, None)}
    assert {case[3] for case in MATRIX} == set(Difference)


def test_matrix_is_the_same_in_both_directions() -> None:
    """But for a time that the receiver's disk keeps coarsely, and for the bits that every receiver gives."""
    for sender, receiver, criteria, is_different in MATRIX:
        if is_different not in (D.EXTRA, D.NEW) and (sender is None or (sender.mode or 0o400) & 0o400):
            assert difference(receiver, sender, criteria) is is_different


# what the sender has, what the receiver has: without --delete, and with it
WAYS = {
    (FILE, LINK): (Way.OVER, Way.OVER),
    (LINK, FILE): (Way.OVER, Way.OVER),
    (FOLDER, FILE): (Way.AFTER, Way.AFTER),
    (FOLDER, LINK): (Way.AFTER, Way.AFTER),
    (FILE, FOLDER): (Way.AFTER, Way.WITH_ALL),
    (LINK, FOLDER): (Way.AFTER, Way.WITH_ALL),
    **{(HIDDEN, entry): (Way.NEVER, Way.NEVER) for entry in (FILE, FOLDER, LINK)},
    **{(entry, HIDDEN): (Way.NEVER, Way.NEVER) for entry in (FILE, FOLDER, LINK)},
}


@pytest.mark.parametrize("kinds", WAYS)
def test_other_kind_is_replaced_as_rsync_does(kinds: tuple[Entry, Entry]) -> None:
    assert (way_for(*kinds, deletes=False), way_for(*kinds, deletes=True)) == WAYS[kinds]


def test_each_pair_of_kinds_has_its_way() -> None:
    entries = (FILE, FOLDER, LINK, HIDDEN)
    assert WAYS.keys() == {(one, two) for one, two in product(entries, entries) if one is not two}


SECOND = 1_000_000_000


@each_row(
    ("sender", "receiver", "is_same"),
    [
        (3 * SECOND + 1, 3 * SECOND + 1, True),
        (-SECOND - 1, -SECOND - 1, True),
        (3 * SECOND, None, True),
        (None, 3 * SECOND, True),
        (3 * SECOND, 2 * SECOND, False),  # written a second later, or kept by FAT: only a digest can tell
        (3 * SECOND + 123_456_789, 3 * SECOND, False),
        (3 * SECOND + 123_456_789, 2 * SECOND, False),
        (3 * SECOND + 123_456_789, 3 * SECOND + 123_456_700, False),
        (3 * SECOND + 123_456_789, 3 * SECOND + 123_456_788, False),
        (3 * SECOND, 4 * SECOND, False),
    ],
)
def test_time_is_the_same_only_if_it_is_exactly_that(sender: int | None, receiver: int | None, is_same: bool) -> None:
    assert is_same_time(sender, receiver) is is_same


def entries(*paths: str, hidden: tuple[str, ...] = ()) -> Iterator[tuple[Parts, Entry]]:
    for path in paths:
        yield tuple(path.split("/")), HIDDEN if path in hidden else FILE


def shown(pairs: Iterator[Pair]) -> list[str]:
    return [f"{'s' if pair.sender else ''}{'r' if pair.receiver else ''} {'/'.join(pair.path)}" for pair in pairs]


def test_both_trees_are_merged_in_their_order() -> None:
    ours = entries("a", "a/b", "a/b/c", "a!", "b", "e", "\ue000", "\U00010000")
    theirs = entries("a", "a/a", "a/b", "a/b/d", "a!", "c", "c/c", "\U00010000")
    merged = ["sr a", "r a/a", "sr a/b", "s a/b/c", "r a/b/d", "sr a!", "s b", "r c", "r c/c", "s e"]
    assert shown(paired(ours, theirs)) == [*merged, "s \ue000", "sr \U00010000"]


@each_row(("ours", "theirs"), [((), ()), (("a",), ()), ((), ("a",)), (("b",), ("a",)), (("a",), ("b",))])
def test_one_end_may_have_nothing_more(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    expected = sorted([*(f"s {path}" for path in ours), *(f"r {path}" for path in theirs)], key=lambda line: line[2:])
    assert shown(paired(entries(*ours), entries(*theirs))) == expected


def test_what_is_hidden_is_left_out_with_what_the_receiver_has_below_it() -> None:
    ours = entries("a", "a/x", "b", "c", "d", hidden=("a/x", "c"))
    theirs = entries("a", "a/w", "a/x", "a/x/1", "a/x/1/2", "a/x!", "a/y", "c/1", "c!", "d", "d/c")
    assert shown(paired(ours, theirs)) == ["sr a", "r a/w", "r a/x!", "r a/y", "s b", "r c!", "sr d", "r d/c"]


@each_row("paths", [("b", "a"), ("a", "a"), ("a/b", "a"), ("a", "b", "a/c")])
def test_tree_out_of_order_is_never_compared(paths: tuple[str, ...]) -> None:
    for ours, theirs in ((paths, ()), ((), paths), (paths, paths)):
        with pytest.raises(RuntimeError, match="out of order"):
            list(paired(entries(*ours), entries(*theirs)))


def test_comparison_goes_on_behind_what_reading_an_end_has_raised() -> None:
    class Broken(Iterator[tuple[Parts, Entry]]):
        def __init__(self) -> None:
            self._entries, self._is_broken = entries("a", "c", "d"), True

        def __next__(self) -> tuple[Parts, Entry]:
            self._is_broken = not self._is_broken
            if not self._is_broken:
                raise ConnectionTrouble("it broke", "")
            return next(self._entries)

    pairs, found, broken = paired(entries("a", "b", "d"), Broken()), list[Pair](), 0
    while True:
        try:
            found.append(next(pairs))
        except ConnectionTrouble:
            broken += 1
        except StopIteration:
            break
    assert shown(iter(found)) == ["sr a", "s b", "r c", "sr d"] and broken == 4


def test_memory_does_not_grow_with_the_trees() -> None:
    def many(step: int) -> Iterator[tuple[Parts, Entry]]:
        for number in range(0, 100_000, step):
            yield ("folder", f"{number:09}"), FILE

    tracemalloc.start()
    try:
        assert sum(pair.receiver is None for pair in paired(many(1), many(2))) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
