"""What an account may not do is refused file by file, whichever way the file goes."""

import os
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data
from transfers import (
    LARGE,
    NEXT,
    NEXT_DONE,
    Admit,
    Hostile,
    Receiving,
    Told,
    answers_to,
    fetch,
    files_in,
    item,
    on_disk,
    put,
    send,
    written,
)

from sft.common.errors import (
    Code,
    Ended,
    PeerStopped,
    Refused,
)
from sft.disk.storage import Storage
from sft.wire.messages import (
    BYE_MESSAGE,
    Bye,
    Entries,
    Error,
    Get,
    ListFolder,
    PolicyWord,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def without(missing: str) -> Admit:
    def admit(right: str) -> None:
        if right == missing:
            raise Refused(Code.DENIED)

    return admit


def ended(right: str) -> None:
    raise Ended(Code.ACCOUNT)


def test_account_without_the_right_is_refused_file_by_file(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    def admit(right: str) -> None:
        raise Refused(Code.DENIED)

    told = Told()
    items = [item(written(here / "a", b"a")), item(written(here / "b", bytes(5 * DATA_SIZE)))]
    send(Receiving(storage, engine, admit), items, told)
    assert told.codes() == {"a": Code.DENIED, "b": Code.DENIED}
    assert on_disk(home) == {}


def test_account_that_was_changed_ends_the_connection(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    asked = []

    def admit(right: str) -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Ended(Code.ACCOUNT)

    told = Told()
    items = [item(written(here / name, bytes(LARGE))) for name in "abcdef"]
    receiving = Receiving(storage, engine, admit)
    with pytest.raises(PeerStopped) as caught:
        send(receiving, items, told)
    assert caught.value.code is Code.ACCOUNT
    assert isinstance(receiving.problem, Ended)
    assert set(on_disk(home)) == {"/".join(each.target) for each in told.receipts} <= {"a", "b"}


def test_denied_file_is_thrown_away_as_it_comes(storage: Storage, engine: Engine, home: Path) -> None:
    def admit(right: str) -> None:
        raise Refused(Code.DENIED)

    hostile = Hostile(storage, engine, admit, good=False)
    hostile.raw.say(*NEXT_DONE, BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert heard == [Refuse(2, Code.DENIED), Bye()]
    assert problem is None
    assert on_disk(home) == {}


def test_changed_account_is_told_and_leaves_nothing_unfinished(storage: Storage, engine: Engine, home: Path) -> None:
    asked: list[int] = []

    def admit(right: str) -> None:
        asked.append(1)
        if len(asked) > 2:
            raise Ended(Code.ACCOUNT)

    hostile = Hostile(storage, engine, admit)
    hostile.raw.say(NEXT.encode(), data(2, 0, b"ab"), put(3, "third").encode())
    heard, problem = hostile.finish()
    assert heard == [Error(Code.ACCOUNT)]
    assert isinstance(problem, Ended)
    assert on_disk(home) == {"good": b"12345"}


@pytest.mark.usefixtures("there")
def test_account_without_the_right_to_get_is_given_nothing(storage: Storage, engine: Engine, into: Path) -> None:
    noted = fetch(Receiving(storage, engine, without("get")), ["a", "d"], f"{into}/")
    assert noted.problems == [("a", Code.DENIED), ("d", Code.DENIED)]
    assert files_in(into) == {}
    assert fetch(Receiving(storage, engine, without("put")), ["a"], f"{into}/").problems == []


@pytest.mark.usefixtures("there")
def test_account_without_the_right_to_list_sees_nothing(storage: Storage, engine: Engine) -> None:
    asked = [ListFolder(1, (), None), ListFolder(2, ("missing",), None)]
    assert answers_to(storage, engine, *asked, admit=without("list")) == [
        Refuse(1, Code.DENIED),
        Refuse(2, Code.DENIED),
    ]
    assert isinstance(answers_to(storage, engine, asked[0], admit=without("get"))[0], Entries)


@pytest.mark.parametrize(
    "ask", [Get(1, ("a",), False, True).encode(), ListFolder(1, (), None).encode(), put(1, "new").encode()]
)
@pytest.mark.usefixtures("there")
def test_changed_account_ends_each_kind_of_connection(storage: Storage, engine: Engine, ask: bytes) -> None:
    receiving = Receiving(storage, engine, ended)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(ask)
    assert raw.hear_all() == [Error(Code.ACCOUNT)]
    raw.close()
    assert isinstance(receiving.finish(), Ended)


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("policy", ["fail", "rename", "skip"])
def test_drop_only_account_learns_nothing_of_what_lies_there(
    storage: Storage, engine: Engine, here: Path, home: Path, policy: PolicyWord, size: int
) -> None:
    """The same answers, whether the name is free, taken by another file, or by the very same one."""
    content = os.urandom(size)
    for name in ("same", "other", "free"):
        written(here / name, content)
    written(home / "same", content)
    written(home / "other", b"x" * size)
    items = [item(here / name, policy=policy) for name in ("same", "other", "free")]
    told = Told()
    send(Receiving(storage, engine, private=True), items, told)
    assert set(told.outcomes().values()) == {"stored"}
    assert told.hashed == {}
    assert [told.bytes[each] for each in items] == [size] * 3
    found = on_disk(home)
    assert found.pop("same") == found.pop("same.1") == found.pop("other.1") == found.pop("free") == content
    assert found == {"other": b"x" * size}


def test_drop_only_account_replaces_nothing(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    written(home / "a", b"old")
    told = Told()
    items = [item(written(here / name, b"new"), policy="replace") for name in ("a", "b")]
    send(Receiving(storage, engine, private=True), items, told)
    assert told.codes() == {"a": Code.NOT_REPLACED} and told.outcomes() == {"b": "stored"}
    assert on_disk(home) == {"a": b"old", "b": b"new"}


@pytest.mark.parametrize("size", [5, 70_000])
@pytest.mark.parametrize("private", [False, True])
def test_account_that_may_not_replace_sends_what_is_new(
    storage: Storage, engine: Engine, here: Path, home: Path, size: int, private: bool
) -> None:
    contents = {"same": b"s" * size, "other": b"o" * size, "new": b"n" * size}
    written(home / "same", contents["same"]), written(home / "other", b"x" * size)
    told, receiving = Told(), Receiving(storage, engine, without("replace"), private=private)
    send(receiving, [item(written(here / name, each), policy="replace") for name, each in contents.items()], told)
    refused = {"other", "same"} if private else {"other"}
    assert told.codes() == dict.fromkeys(refused, Code.NOT_REPLACED)
    assert told.outcomes() == ({"new": "stored"} if private else {"new": "stored", "same": "already"})
    assert on_disk(home) == contents | {"other": b"x" * size}
