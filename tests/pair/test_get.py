"""GET between our own client and our own server, and a server against a client that breaks the rules."""

import os
import shutil
import threading
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data, tcp_pair
from transfers import OVERHEAD, SIZE, TREE, Fetch, Receiving, fetch, files_in, put, receipt, written

import sft.common.names
import sft.server.asked
from sft.common.errors import (
    Code,
    ConnectionTrouble,
    ProtocolViolation,
    Refused,
)
from sft.common.names import size_of
from sft.disk.storage import Storage
from sft.disk.visible_files import VisibleFiles
from sft.wire.messages import (
    BYE_MESSAGE,
    PING_MESSAGE,
    Accept,
    Bye,
    Cancel,
    Check,
    Entries,
    Error,
    Get,
    ListFolder,
    Put,
    Refuse,
)
from sft.wire.protocol import DATA_SIZE
from sft.wire.tree_messages import Branch, Tree
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


@pytest.mark.parametrize(
    ("names", "target", "found"),
    [
        (["a"], "b", {"b": TREE["a"]}),
        (["a"], "b/", {"b/a": TREE["a"]}),
        (["a"], ".", {"a": TREE["a"]}),
        (["d/x"], "z", {"z": b"x"}),
        (["d/e"], "new", {"new/y": b"", "new/large": TREE["d/e/large"]}),
        (["d/e"], "new/", {"new/e/y": b"", "new/e/large": TREE["d/e/large"]}),
        (["d/"], ".", {name: content for name, content in TREE.items() if name != "a"}),
        ([""], "all/", {f"all/{name}": content for name, content in TREE.items()}),
        (["."], "all", {f"all/{name}": content for name, content in TREE.items()}),
        (["/"], ".", TREE),
        (["a", "d/x", "d/e/y"], "box", {"box/a": TREE["a"], "box/x": b"x", "box/y": b""}),
        (["d", "a"], "box/", {f"box/{name}": content for name, content in TREE.items()}),
    ],
)
@pytest.mark.usefixtures("there")
def test_get_brings_what_was_named(
    storage: Storage, engine: Engine, into: Path, names: list[str], target: str, found: dict[str, bytes]
) -> None:
    into.mkdir()
    noted = fetch(Receiving(storage, engine), names, f"{into}/{target}")
    assert noted.problems == []
    assert files_in(into) == found
    assert set(noted.outcomes.values()) == {"stored"}
    assert not list(into.rglob("link"))


@pytest.mark.usefixtures("there")
def test_get_keeps_times_and_brings_empty_folders(storage: Storage, engine: Engine, into: Path) -> None:
    fetch(Receiving(storage, engine), ["d"], f"{into}/")
    assert (into / "d/empty").is_dir()
    assert (into / "d/x").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (into / "d").stat().st_mtime_ns == 1_200_000_000_000_000_000


@pytest.mark.usefixtures("there")
def test_get_again_brings_nothing_again(storage: Storage, engine: Engine, into: Path) -> None:
    fetch(Receiving(storage, engine), ["d", "a"], into)
    receiving = Receiving(storage, engine)
    noted = fetch(receiving, ["d", "a"], into)
    assert set(noted.outcomes.values()) == {"already"}
    assert len(noted.outcomes) == len(TREE)
    assert noted.problems == []
    large = len(TREE["d/e/large"])
    assert receiving.channel.bytes_sent < large
    assert files_in(into) == TREE


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
@pytest.mark.usefixtures("there")
def test_get_onto_a_name_that_is_taken(storage: Storage, engine: Engine, into: Path, policy: str) -> None:
    written(into / "a", b"mine")
    noted = fetch(Receiving(storage, engine), ["a", "d/x"], into, policy)
    found = files_in(into)
    assert found.pop("x") == b"x"
    assert (
        found
        == {
            "fail": {"a": b"mine"},
            "rename": {"a": b"mine", "a.1": TREE["a"]},
            "replace": {"a": TREE["a"]},
            "skip": {"a": b"mine"},
        }[policy]
    )
    assert noted.problems == ([("a", Code.EXISTS)] if policy == "fail" else [])
    assert noted.skipped_count == (1 if policy == "skip" else 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", Code.NOT_FOUND),
        ("d/missing", Code.NOT_FOUND),
        ("missing/deeper", Code.NOT_FOUND),
        ("a/below", Code.NOT_FOLDER),
        ("d/link", Code.LINK),
        ("d/e/large/y", Code.NOT_FOLDER),
    ],
)
@pytest.mark.usefixtures("there")
def test_get_of_what_can_not_be_given_is_refused_and_the_rest_comes(
    storage: Storage, engine: Engine, into: Path, name: str, code: Code
) -> None:
    noted = fetch(Receiving(storage, engine), ["a", name, "d/x"], into)
    assert noted.problems == [(name, code)]
    assert files_in(into) == {"a": TREE["a"], "x": b"x"}
    assert noted.status == 1


def test_refusal_of_a_get_has_its_id(storage: Storage, engine: Engine, there: Path) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(
        Get(41, ("missing",), True, True).encode(),
        Get(7, ("..",), True, True).encode(),
        Get(9, ("d", "empty"), False, True).encode(),
    )
    heard = [raw.hear() for _ in range(3)]
    assert Refuse(41, Code.NOT_FOUND) in heard
    assert Refuse(7, Code.NAME) in heard
    (announced,) = [message for message in heard if isinstance(message, Put)]
    assert (announced.path, announced.kind) == (("empty",), "folder")
    raw.say(receipt(announced.id, ("empty",), 0, None, "folder"))
    assert raw.hear() == Bye()
    raw.say(BYE_MESSAGE)
    raw.hear_all()
    raw.close()
    assert receiving.finish() is None


def test_files_there_that_can_not_be_read_are_each_named_and_the_rest_comes(
    storage: Storage, engine: Engine, there: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = VisibleFiles.open_file

    def open_some(folder: VisibleFiles, path: tuple[str, ...]) -> int:
        if path[-1] in ("x", "y"):
            raise Refused(Code.STORAGE, why="Permission denied")
        return opened(folder, path)

    monkeypatch.setattr(VisibleFiles, "open_file", open_some)
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    assert noted.problems == [("d/e/y", Code.UNREADABLE), ("d/x", Code.UNREADABLE)]
    assert files_in(into) == {name: TREE[name] for name in ("a", "d/e/large")}


@pytest.mark.parametrize("name", ["evil\nname", "\x1b[2J"])
def test_names_there_that_no_end_may_have_are_each_told_and_the_rest_comes(
    storage: Storage, engine: Engine, there: Path, into: Path, name: str
) -> None:
    """Put there by other means: not silently left out, because then the client would believe that it has all."""
    written(there / "d" / name, b"evil")
    written(there / "d" / f"{name}2", b"evil")
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    shown = name.replace("\n", "\\x0a").replace("\x1b", "\\x1b")
    assert noted.problems == [(f"d/{shown}", Code.NAME), (f"d/{shown}2", Code.NAME)]
    assert noted.status == 1
    assert files_in(into) == TREE


@pytest.mark.parametrize(("name", "levels"), [("n" * 230, 18), ("n", 12)], ids=["long", "deep"])
def test_path_there_that_is_too_long_is_told_and_the_rest_comes(
    storage: Storage,
    engine: Engine,
    there: Path,
    into: Path,
    name: str,
    levels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "n":
        monkeypatch.setattr(sft.common.names, "MAX_DEPTH", 10)
    place = os.open(there / "d", os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    noted = fetch(Receiving(storage, engine), ["d", "a"], f"{into}/")
    shutil.rmtree(there / "d" / name)
    shutil.rmtree(into / "d" / name)
    ((told, code),) = noted.problems
    assert told.startswith(f"d/{name}/{name}") and code is Code.NAME
    assert files_in(into) == TREE


@pytest.mark.parametrize("offset", [1, DATA_SIZE, SIZE - 1, SIZE])
def test_get_goes_on_where_an_earlier_one_was_cut(
    storage: Storage, engine: Engine, home: Path, into: Path, offset: int
) -> None:
    content = os.urandom(SIZE)
    written(home / "a", content)
    mtime = (home / "a").stat().st_mtime_ns
    near, far = tcp_pair()
    raw = Raw(far, S2C, C2S)
    cut = Fetch(engine, near, ["a"], f"{into}/")
    thread = threading.Thread(target=cut.run, daemon=True)
    thread.start()
    assert raw.hear() == Get(1, ("a",), False, True)
    raw.say(put(1, "a", size=SIZE, mtime=mtime).encode())
    assert raw.hear() == Accept(1, 0)
    for at in range(0, offset, DATA_SIZE):
        raw.say(data(1, at, content[at : min(at + DATA_SIZE, offset)]))
    raw.stop()
    raw.hear_all()
    raw.close()
    thread.join(30)
    assert isinstance(cut.problem, ConnectionTrouble)
    assert not (into / "a").exists()
    receiving = Receiving(storage, engine)
    noted = fetch(receiving, ["a"], f"{into}/")
    assert files_in(into) == {"a": content}, "and nothing of the staging area is left"
    assert noted.offsets == {"a": offset}
    assert noted.bytes_moved == SIZE - offset
    assert SIZE - offset <= receiving.channel.bytes_sent <= SIZE - offset + OVERHEAD


def test_get_over_a_second_connection_of_the_same_run_tells_each_file_once(
    storage: Storage, engine: Engine, there: Path, into: Path
) -> None:
    """What has arrived over the connection that broke is not looked at again, whatever the policy."""
    receiving = Receiving(storage, engine)
    first = Fetch(engine, receiving.near, ["d", "a"], f"{into}/", "rename")
    first.run()
    receiving.finish()
    again = Receiving(storage, engine)
    second = Fetch(engine, again.near, ["d", "a"], f"{into}/", "rename")
    second.fetching, second.reporter = first.fetching, first.reporter
    second.run()
    assert (receiving.problem, again.finish(), second.problem) == (None, None, None)
    assert again.channel.bytes_sent < len(TREE["d/e/large"])
    assert files_in(into) == TREE
    assert first.reporter.delivered_count == len(TREE)
    assert first.reporter.problems == []


@pytest.mark.parametrize(
    "messages",
    [
        [Get(1, ("a",), True, True).encode(), Put(1, b"t" * 16, ("a",), "file", 0, None, None, "fail").encode()],
        [Get(1, ("a",), True, True).encode(), ListFolder(1, (), None).encode()],
        [Get(1, ("a",), True, True).encode(), BYE_MESSAGE],
        [Get(1, ("d", "empty"), False, True).encode(), Get(2, ("a",), False, True).encode()],
        [Get(1, ("d", "empty"), False, True).encode(), data(1, 0, b"x")],
        [Get(1, ("d", "empty"), False, True).encode(), BYE_MESSAGE],
        [Accept(1, 0).encode()],
        [receipt()],
        [Entries(1, (), False).encode()],
        [Cancel(1).encode()],
        [Check(1, 5, None).encode()],
        [Refuse(1, Code.EXISTS).encode()],
    ],
)
@pytest.mark.usefixtures("there")
def test_client_that_breaks_the_rules_of_get_is_told_so(
    storage: Storage, engine: Engine, messages: list[bytes]
) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*messages)
    assert raw.hear_all()[-1] == Error(Code.PROTOCOL)
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


def test_more_gets_than_are_allowed_are_a_violation(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.server.asked, "GETS_LIMIT", 5)
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(Get(number, ("a",), True, True).encode() for number in range(1, 7)))
    assert raw.hear_all() == [Error(Code.PROTOCOL)]
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


@pytest.mark.usefixtures("there")
def test_trees_and_listings_may_come_before_the_first_get(storage: Storage, engine: Engine) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(Tree(4, ("d",), None).encode(), ListFolder(2, (), None).encode(), Tree(1, ("no",), None).encode())
    tree, listing, refused = (raw.hear() for _ in range(3))
    assert isinstance(tree, Branch) and isinstance(listing, Entries) and refused == Refuse(1, Code.NOT_FOUND)
    raw.say(Get(1, ("missing",), False, False).encode())
    assert [raw.hear(), raw.hear()] == [Refuse(1, Code.NOT_FOUND), Bye()]
    raw.say(BYE_MESSAGE)
    raw.stop()
    assert raw.hear_all() == []
    raw.close()
    assert receiving.finish() is None


def test_gets_with_more_path_than_is_allowed_are_a_violation(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.server.asked, "ASKED_LIMIT", 4 * size_of(("a", "b")))
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(*(Get(number, ("a", "b"), True, True).encode() for number in range(1, 5)))
    raw.say(Get(5, (), True, True, False, 0).encode(), Get(6, ("a",), True, True).encode())
    assert raw.hear_all() == [Error(Code.PROTOCOL)]
    raw.close()
    assert isinstance(receiving.finish(), ProtocolViolation)


@pytest.mark.parametrize(
    ("path", "right", "code"), [(("n" * 255,) * 200, True, Code.NAME), (("a",), False, Code.DENIED)]
)
def test_get_that_is_refused_anyway_is_not_kept_until_the_last_one_came(
    storage: Storage, engine: Engine, path: tuple[str, ...], right: bool, code: Code
) -> None:
    """Thousands of paths as long as a message may be would be hundreds of megabytes."""

    def admit(_: str) -> None:
        if not right:
            raise Refused(Code.DENIED)

    receiving = Receiving(storage, engine, admit)
    raw = Raw(receiving.near, C2S, S2C)
    for number in range(1, 4):
        raw.say(Get(number, path, True, True).encode())
        assert raw.hear() == Refuse(number, code)
    raw.say(Get(4, ("missing",), False, True).encode())
    assert [raw.hear(), raw.hear()] == [Refuse(4, Code.NOT_FOUND if right else code), Bye()]
    raw.say(BYE_MESSAGE)
    raw.stop()
    assert raw.hear_all() == []
    raw.close()
    assert receiving.finish() is None


def test_client_that_says_nothing_but_bye_gets_a_bye(storage: Storage, engine: Engine) -> None:
    receiving = Receiving(storage, engine)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(PING_MESSAGE, BYE_MESSAGE)
    assert raw.hear_all() == [Bye()]
    raw.close()
    assert receiving.finish() is None
