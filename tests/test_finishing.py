"""What is changed behind an update: which modes are set, what is removed and in which order, and what is spared."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from noted import Noted
from tables import each_row

from sft.client.comparing import Entry
from sft.client.finishing import Finishing
from sft.common.errors import Code, ConnectionTrouble, ProtocolViolation
from sft.wire.change_messages import Done, Remove, SetAttributes
from sft.wire.messages import Control, Message, Refuse, decode_message
from sft.wire.tree_messages import Branch, Node, Tree

Parts = tuple[str, ...]


class Receiver:
    """One that changes what it is asked to: a channel and its messages; it breaks before the answer number `breaks`.

    `there`: what TREE shows in it, or nothing.
    """

    def __init__(
        self,
        answer: Callable[[Any], Control] = lambda asked: Done(asked.id, 1),
        breaks: int = -1,
        there: dict[str, Node] | None = None,
    ) -> None:
        self.asked: list[Message] = []
        self._answer, self._breaks, self._at, self._there = answer, breaks, 0, there or {}

    def post(self, *messages: bytes) -> None:
        for each in messages:
            self.asked.append(decode_message(each[0], memoryview(each)[5:]))

    def say_bye(self) -> None:
        self._breaks = -1

    def messages(self) -> Iterator[Any]:
        while self._at < len(self.asked):
            if self._at == self._breaks:
                raise ConnectionTrouble("it broke", "")
            yield None
            asked = self.asked[self._at]
            yield self._branch(asked) if isinstance(asked, Tree) else self._answer(asked), memoryview(b"")
            self._at += 1

    def _branch(self, asked: Tree) -> Branch:
        whole = dict(sorted((tuple(name.split("/")), node) for name, node in self._there.items()))
        depth = len(asked.path)
        behind = {
            path[depth:]: node for path, node in whole.items() if len(path) > depth and path[:depth] == asked.path
        }
        shown = [(path, node) for path, node in behind.items() if asked.after is None or path > asked.after]
        return Branch(asked.id, tuple(node._replace(depth=len(path)) for path, node in shown), False)

    @property
    def done(self) -> list[str]:
        return [
            f"{'remove' if isinstance(each, Remove) else 'set'} {'/'.join(each.path)}"
            for each in self.asked
            if isinstance(each, Remove | SetAttributes)
        ]


def finish(finishing: Finishing, receiver: Receiver | None = None) -> list[str]:
    receiver = receiver or Receiver()
    if finishing.prepare():
        finishing.run(receiver)  # type: ignore[arg-type]
    return receiver.done


def removing(*paths: str, most: str | None = None, reporter: Noted | None = None) -> Finishing:
    finishing = Finishing(reporter or Noted(), True, most)
    for path in paths:
        finishing.remove(tuple(path.split("/")), FILE, 5)
    return finishing


FILE, FOLDER = Entry("file", 30, 7, 0o600), Entry("folder", 0, 7, 0o700)


def file(name: str, size: int = 30, mtime: int = 7) -> Node:
    return Node(1, name, "file", size, mtime, 0o640, None)


def folder(name: str, mtime: int) -> Node:
    return Node(1, name, "folder", 0, mtime, 0o700, None)


def test_content_of_a_folder_goes_before_it_and_folders_get_their_times_last() -> None:
    finishing = removing("d/a", "d/f", "d/f/b", "e")
    finishing.set(("x",), 7, None)
    assert finish(finishing) == ["set x", "remove e", "remove d/f/b", "remove d/f", "remove d/a", "set d", "set d/f"]


@each_row(("most", "count"), [("3", 3), ("2", 0), ("0", 0)])
def test_nothing_is_removed_when_it_is_more_than_may_be(most: str, count: int) -> None:
    reporter = Noted()
    done = finish(removing("a", "b", "c", most=most, reporter=reporter))
    assert len([each for each in done if each.startswith("remove")]) == count
    assert [name for name, _ in reporter.problems] == ([] if count else ["--delete"])


def test_nothing_is_removed_behind_a_failure_or_where_it_is_not_known_what_is_there() -> None:
    failed, unknown = Noted(), removing("a")
    failed.failed_count = 1
    unknown.remove_nothing()
    assert finish(removing("a", reporter=failed)) == finish(unknown) == finish(Finishing(Noted(), False, None)) == []


def test_nothing_is_removed_while_a_named_folder_is_empty_here() -> None:
    reporter = Noted()
    finishing = removing("a", reporter=reporter)
    finishing.is_empty_here("/media/disk")
    assert finish(finishing) == []
    assert [name for name, _ in reporter.problems] == ["--delete"]


@each_row(
    ("now", "is_changed"),
    [
        (None, False),
        (file("a"), False),
        (file("a", size=31), True),
        (file("a", mtime=8), True),
        (folder("a", 7), True),
        (Node(1, "a", "link", 0, 7, 0o777, "b"), True),
    ],
)
def test_what_is_another_thing_by_now_stays(now: Node | None, is_changed: bool) -> None:
    reporter = Noted()
    there = {"b": file("b"), **({"a": now} if now else {})}
    assert finish(removing("a", "b", reporter=reporter), Receiver(there=there)) == (
        ["remove b"] if is_changed else ["remove b", "remove a"]
    )
    assert [name for name, _ in reporter.problems] == (["a"] if is_changed else [])


def test_what_has_changed_in_a_folder_keeps_it_and_nothing_else_there() -> None:
    reporter = Noted()
    finishing = Finishing(reporter, True, None)
    for path in ("d", "d/e", "d/e/a", "d/e/b", "d/f", "d/f/a"):
        finishing.remove(tuple(path.split("/")), FILE if path[-1] in "ab" else FOLDER, None)
    there = {"d": folder("d", 9), "d/e": folder("e", 9), "d/e/a": file("a"), "d/e/b": file("b", mtime=8)}
    there |= {"d/f": folder("f", 9), "d/f/a": file("a")}
    assert finish(finishing, Receiver(there=there)) == ["remove d/f/a", "remove d/f", "remove d/e/a"]
    assert [name for name, _ in reporter.problems] == ["d/e/b"]


def test_content_of_a_folder_that_is_something_else_by_now_stays() -> None:
    reporter = Noted()
    finishing = Finishing(reporter, True, None)
    finishing.set(("x",), 7, None)
    finishing.remove(("d",), FOLDER, None)
    finishing.remove(("d", "a"), FILE, None)
    assert finish(finishing, Receiver(there={"d": file("d")})) == ["set x"]
    assert [name for name, _ in reporter.problems] == ["d", "d/a"]


def test_folders_of_what_is_spared_stay() -> None:
    finishing = removing("d", "d/e", "d/e/a", "d/f")
    finishing.spare(("d", "e", "kept"))
    assert [each for each in finish(finishing) if each.startswith("remove")] == ["remove d/f", "remove d/e/a"]


@each_row(
    ("sent", "there", "stays"),
    [("a.TXT", "A.txt", True), ("caf\u00e9", "cafe\u0301", True), ("a", "b", False), ("d/A", "d/a", True)],
)
def test_other_spelling_of_what_was_sent_stays(sent: str, there: str, stays: bool) -> None:
    """A disk that knows one name for both has stored the one under the other."""
    finishing = removing(there)
    finishing.sent(tuple(sent.split("/")))
    assert (f"remove {there}" in finish(finishing)) is not stays


# What the receiver has, what is asked for, which bits other files there have; whether it is set.
MODES = [
    (0o644, 0o664, 0o644, False),  # umask 022
    (0o600, 0o664, 0o600, False),  # umask 077
    (0o644, 0o664, 0o664, True),  # another file there has them
    (0o644, 0o600, 0o644, True),  # fewer than there
    (0o644, 0o600, 0o000, True),
    (0o664, 0o755, 0o664, True),  # some fewer, some more
    (0o644, 0o755, 0o644, True),  # it may just have become executable
    (0o644, 0o655, 0o644, False),
]


@each_row(("there", "asked", "given", "is_set"), MODES)
def test_bits_that_the_receiver_gives_nothing_are_not_asked_for(
    there: int, asked: int, given: int, is_set: bool
) -> None:
    finishing = Finishing(Noted(), False, None)
    finishing.see_mode("folder", 0o777)
    finishing.see_mode("file", there)
    finishing.see_mode("file", given)
    finishing.set_mode(("a",), "file", asked, there)
    assert finish(finishing) == (["set a"] if is_set else [])


def test_where_nothing_is_executable_a_few_files_are_made_so_in_each_run() -> None:
    """A receiver that takes these bits away is not asked for all of them every night."""
    finishing = Finishing(Noted(), False, None)
    for number in range(100):
        finishing.see_mode("file", 0o644)
        finishing.set_mode((f"{number}",), "file", 0o755, 0o644)
    assert finish(finishing) == [f"set {number}" for number in range(16)]


def test_connection_that_breaks_leaves_the_rest_to_the_next() -> None:
    finishing = removing(*"abcdef")
    assert finishing.prepare()
    broken, whole = Receiver(breaks=5), Receiver()  # the first question is what is there now
    with pytest.raises(ConnectionTrouble):
        finishing.run(broken)  # type: ignore[arg-type]
    finishing.run(whole)  # type: ignore[arg-type]
    assert broken.done[:4] + whole.done == [f"remove {name}" for name in "fedcba"]


def test_what_is_gone_already_is_removed_and_what_is_not_allowed_is_one_error() -> None:
    reporter = Noted()
    finish(removing("a", "b", reporter=reporter), Receiver(lambda asked: Refuse(asked.id, Code.NOT_FOUND)))
    assert (reporter.changed_count, reporter.problems) == (2, [])
    finish(removing(*"abc", reporter=reporter), Receiver(lambda asked: Refuse(asked.id, Code.DENIED)))
    assert [name for name, _ in reporter.problems] == ["c"] and reporter.failed_count == 2


@each_row(
    "answer", [lambda asked: Done(asked.id + 1, 1), lambda asked: Done(asked.id, 2), lambda asked: Done(asked.id, 0)]
)
def test_other_answer_is_a_violation(answer: Callable[[Any], Control]) -> None:
    with pytest.raises(ProtocolViolation):
        finish(removing("a"), Receiver(answer))


def test_questions_run_ahead_and_not_without_end() -> None:
    receiver, most = Receiver(), 0

    def answer(asked: Any) -> Control:
        nonlocal most
        most = max(most, len(receiver.asked) - asked.id)
        return Done(asked.id, 1)

    receiver._answer = answer
    assert len(finish(removing(*map(str, range(1000))), receiver)) == 1000
    assert 100 < most < 1000


def making_way(
    *extra: str, deletes: bool, was: Entry = FOLDER, reporter: Noted | None = None, most: str | None = None
) -> Finishing:
    """Of `d`, for something of another kind."""
    finishing = Finishing(reporter or Noted(), deletes, most)
    finishing.make_way(("d",), was, None)
    for path in extra:
        finishing.remove(tuple(path.split("/")), FILE, None)
    return finishing


@pytest.mark.parametrize(
    ("deletes", "extra", "done", "is_free"),
    [
        (False, [], ["remove d"], True),
        (True, [], ["remove d"], True),
        (False, ["d/a"], [], False),
        (True, ["d/a", "e"], ["remove e", "remove d/a", "remove d"], True),
        (False, ["dd", "e"], ["remove d"], True),
    ],
)
def test_what_is_in_the_way_goes_and_its_content_only_with_delete(
    deletes: bool, extra: list[str], done: list[str], is_free: bool
) -> None:
    reporter = Noted()
    finishing = making_way(*extra, deletes=deletes, reporter=reporter)
    there = {"d": folder("d", 9), **{path: file(path.split("/")[-1]) for path in extra}}
    assert finish(finishing, Receiver(there=there)) == done
    assert (finishing.way.blocked(("d",)) is None) is is_free
    assert reporter.problems == []  # what waits for it tells


@pytest.mark.parametrize("now", [file("d", mtime=8), folder("d", 9)])
def test_what_is_in_the_way_and_has_changed_stays(now: Node) -> None:
    for deletes in (False, True):
        finishing = making_way(deletes=deletes, was=FILE)
        assert finish(finishing, Receiver(there={"d": now})) == []
        problem = finishing.way.blocked(("d",))
        assert problem is not None and problem.code is Code.CHANGED


@pytest.mark.parametrize("code", [Code.NOT_EMPTY, Code.DENIED, Code.BUSY])
def test_what_is_in_the_way_and_is_not_removed_stays_with_its_cause(code: Code) -> None:
    reporter = Noted()
    finishing = making_way(deletes=True, reporter=reporter)
    finish(finishing, Receiver(lambda asked: Refuse(asked.id, code), there={"d": folder("d", 7)}))
    problem = finishing.way.blocked(("d",))
    assert problem is not None and problem.code is code and reporter.problems == []


def test_what_is_in_the_way_counts_as_gone_when_an_answer_was_lost() -> None:
    finishing = making_way(deletes=False, was=FILE)
    assert finish(finishing, Receiver(lambda asked: Refuse(asked.id, Code.NOT_FOUND))) == ["remove d"]
    assert finishing.way.blocked(("d",)) is None


def test_folder_with_something_excluded_in_it_is_not_emptied_for_another_thing() -> None:
    for deletes in (False, True):
        finishing = making_way(deletes=deletes)
        finishing.spare(("d", "kept"))
        assert finish(finishing) == []
        problem = finishing.way.blocked(("d",))
        assert problem is not None and "something in it stays" in problem.cause and "by hand" in problem.remedy


@each_row(("most", "count"), [("3", 3), ("2", 0), ("0", 0)])
def test_no_more_makes_way_without_delete_than_may_be_removed(most: str, count: int) -> None:
    reporter = Noted()
    finishing = Finishing(reporter, False, most)
    for name in "abc":
        finishing.make_way((name,), FILE, None)
    done = finish(finishing, Receiver(there={name: file(name) for name in "abc"}))
    assert len([each for each in done if each.startswith("remove")]) == count
    assert [name for name, _ in reporter.problems] == ([] if count else ["--update"])
    assert (finishing.way.blocked(("a",)) is None) == bool(count)


def test_nothing_makes_way_behind_a_failure() -> None:
    reporter = Noted()
    reporter.failed_count = 1
    finishing = making_way(deletes=False, was=FILE, reporter=reporter)
    assert finish(finishing, Receiver(there={"d": file("d")})) == []
    problem = finishing.way.blocked(("d",))
    assert problem is not None and "nothing was removed" in problem.cause
