"""BATCHes between two ends: each file is settled by itself, all are answered together, and what is offered may stay."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import FILE_SECRET
from source_files import open_source
from transfers import (
    GOOD,
    TREE,
    Hostile,
    Lied,
    Receiving,
    Told,
    fetch,
    files_in,
    folder_item,
    item,
    on_disk,
    path_of,
    put,
    send,
    written,
)

from crypto_utils import digest, mac
from sft.common.errors import Code, ConnectionTrouble, Ended, IntegrityError, ProtocolViolation, Refused, SourceError
from sft.disk.durable import FileSystem
from sft.disk.offers import Offered
from sft.disk.small_files import SmallFile
from sft.disk.sources import FileSource
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, Whole
from sft.disk.user_folder import Rules, UserFolder
from sft.transfer.items import Item
from sft.wire.batch import (
    BATCH_OVERHEAD,
    Batch,
    BatchFile,
    BatchHeader,
    Outcome,
    Receipts,
    batch_mac_input,
    write_batch,
)
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, Error, PolicyWord, Receipt, Refuse
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

TRANSFER = b"r" * 16


def of(*contents: bytes) -> bytes:
    """The digest in RECEIPTS when these are there."""
    return digest(b"".join(map(digest, contents)))


def file(path: str, content: bytes, offered: bool = False) -> tuple[BatchFile, bytes]:
    parts = tuple(path.split("/")) if path else ()
    return BatchFile(parts, len(content), None, None, digest(content), not offered), b"" if offered else content


def batch(
    id: int,
    *files: tuple[BatchFile, bytes],
    policy: PolicyWord = "fail",
    secret: bytes = FILE_SECRET,
    transfer: bytes = TRANSFER,
) -> bytes:
    header = BatchHeader(id, transfer, policy, tuple(each for each, _ in files)).body()
    contents = [content for _, content in files]
    into = memoryview(bytearray(BATCH_OVERHEAD + len(header) + sum(map(len, contents))))
    write_batch(into, mac(secret, *batch_mac_input(header)), header, contents)
    return bytes(into)


def words(message: object) -> list[str]:
    assert isinstance(message, Receipts)
    return [outcome.word if outcome.name is None else f"{outcome.word} {outcome.name}" for outcome in message.outcomes]


# --- the receiver -----------------------------------------------------------------------------------------------------


def test_each_file_of_a_batch_is_settled_by_itself(storage: Storage, engine: Engine, home: Path) -> None:
    written(home / "there", b"12345")
    hostile = Hostile(storage, engine)
    broken = BatchFile(("broken",), 5, None, None, digest(b"other"), True), b"12345"
    files = [
        file("a", b"a"),
        file("good", b"54321"),
        broken,
        file("../x", b"x"),
        file("good/below", b"b"),
        file("d/b", b""),
    ]
    hostile.raw.say(batch(2, *files, file("there", b"12345")), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert words(heard[0]) == ["stored", "exists", "integrity", "name", "not-folder", "stored", "already"]
    assert isinstance(heard[0], Receipts) and heard[0].sha256 == of(b"a", b"", b"12345")
    assert heard[1:] == [Bye()]
    assert on_disk(home) == {"good": b"12345", "there": b"12345", "a": b"a", "d/b": b""}
    problems = {name: refused.code for name, refused in hostile.receiving.taken.problems.items()}
    assert problems == {
        "good": Code.EXISTS,
        "broken": Code.INTEGRITY,
        "../x": Code.NAME,
        "good/below": Code.NOT_FOLDER,
    }


def test_batch_with_a_wrong_hmac_stores_nothing(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(batch(2, file("a", b"a"), file("good", b"12345"), secret=b"s" * 32))
    hostile.raw.say(batch(3, file("b", b"b")), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert [words(message) for message in heard[:2]] == [["integrity", "integrity"], ["stored"]]
    assert on_disk(home) == {"good": b"12345", "b": b"b"}


@pytest.mark.parametrize(
    ("policy", "word", "there"),
    [
        ("fail", "exists", {"a": b"old"}),
        ("rename", "stored a.1", {"a": b"old", "a.1": b"new"}),
        ("replace", "stored", {"a": b"new"}),
        ("skip", "skipped", {"a": b"old"}),
    ],
)
def test_taken_name_in_a_batch_is_what_the_policy_makes_of_it(
    storage: Storage, engine: Engine, home: Path, policy: PolicyWord, word: str, there: dict[str, bytes]
) -> None:
    written(home / "a", b"old")
    hostile = Hostile(storage, engine, good=False)
    hostile.raw.say(batch(1, file("a", b"new"), policy=policy), BYE_MESSAGE)
    heard, _ = hostile.finish()
    assert words(heard[0]) == [word]
    assert on_disk(home) == there


@pytest.mark.parametrize("private", [False, True], ids=["", "drop-only"])
def test_lost_receipts_of_a_batch_are_repeated_for_the_same_content_alone(
    storage: Storage, engine: Engine, home: Path, private: bool
) -> None:
    written(home / "a", b"old")
    first = batch(1, file("a", b"one"), file("b", b"two"), policy="rename")
    again = batch(1, file("a", b"one"), file("b", b"TWO"), policy="rename")
    for said, expected in (
        *((first, ["stored a.1", "stored"]), (first, ["already a.1", "already"])),
        (again, ["already a.1", "stored b.1"]),
        (batch(1, file("a", b"one"), policy="rename", transfer=b"s" * 16), ["stored a.2"]),
    ):
        hostile = Hostile(storage, engine, good=False, private=private)
        hostile.raw.say(said, BYE_MESSAGE)
        heard, problem = hostile.finish()
        assert (problem, words(heard[0])) == (None, expected)
    assert on_disk(home) == {"a": b"old", "a.1": b"one", "a.2": b"one", "b": b"two", "b.1": b"TWO"}


def test_quota_is_each_files_own(storage: Storage, engine: Engine, home: Path) -> None:
    storage.rules = Rules(max_file_size=3)
    hostile = Hostile(storage, engine, good=False)
    hostile.raw.say(batch(1, file("a", b"123"), file("b", b"1234"), file("c", b"")), BYE_MESSAGE)
    heard, _ = hostile.finish()
    assert words(heard[0]) == ["stored", "too-large", "stored"]
    assert on_disk(home) == {"a": b"123", "c": b""}


def test_what_is_offered_is_compared_and_only_wanted_when_it_is_another(
    storage: Storage, engine: Engine, home: Path
) -> None:
    for name, content in (("same", b"12345"), ("other", b"54321"), ("longer", b"123456")):
        written(home / "d" / name, content)
    (home / "link").symlink_to(home / "d" / "same")
    (home / "folder").mkdir()
    offered = [file(f"d/{name}", b"12345", offered=True) for name in ("same", "other", "longer", "missing")]
    more = [file(name, b"12345", offered=True) for name in ("link", "folder", "no/such", "../up", "link/x")]
    hostile = Hostile(storage, engine, good=False)
    hostile.raw.say(batch(1, *offered, *more, file("sent", b"x"), policy="replace"))
    hostile.raw.say(
        batch(2, *offered), batch(3, *offered, policy="skip"), batch(4, *offered, policy="rename"), BYE_MESSAGE
    )
    heard, problem = hostile.finish()
    assert problem is None
    answers = {message.id: message for message in heard if isinstance(message, Receipts)}
    assert words(answers[1]) == ["already", *["wanted"] * 4, "is-folder", "wanted", "name", "wanted", "stored"]
    assert answers[1].sha256 == of(b"12345", b"x")
    assert words(answers[2]) == ["already", "exists", "exists", "wanted"]
    assert words(answers[3]) == ["skipped", "skipped", "skipped", "wanted"]
    assert words(answers[4]) == ["already", "wanted", "wanted", "wanted"]


def test_account_that_may_not_read_is_told_nothing_of_what_is_there(
    storage: Storage, engine: Engine, home: Path
) -> None:
    written(home / "same", b"12345")
    hostile = Hostile(storage, engine, good=False, private=True)
    for id, policy in enumerate(("fail", "rename", "skip"), 1):
        hostile.raw.say(batch(id, file("same", b"12345", offered=True), file("no", b"x", offered=True), policy=policy))  # type: ignore[arg-type]
    hostile.raw.say(BYE_MESSAGE)
    heard, _ = hostile.finish()
    assert [words(message) for message in heard[:3]] == [["wanted", "wanted"]] * 3


def test_already_is_promised_only_for_what_can_be_flushed(
    storage: Storage, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home / "d" / "a", b"12345")
    written(home / "e" / "b", b"12345")
    folder = storage.user("alice")

    def offer(*path: str) -> Offered:
        return Offered(Incoming(TRANSFER, path, 5, None, None, "fail"), digest(b"12345"))

    there = Settled(("d", "a"), already=True, size=5, sha256=digest(b"12345"))
    assert folder.have([offer("d", "a")]) == [there]
    failed = {("e",): Refused(Code.STORAGE)}
    monkeypatch.setattr(type(folder.flush), "flush", lambda self, paths: failed if ("e",) in paths else {})
    assert folder.have([offer("d", "a"), offer("e", "b")]) == [there, None]
    monkeypatch.setattr("sft.disk.offers.flush_each", lambda files: iter([OSError(5, "broken")] * len(files)))
    assert folder.have([offer("d", "a")]) == [None]
    folder.close()


def test_unexpected_error_at_one_file_leaves_nothing_of_those_before(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = storage.user("alice")
    files = [
        Whole(Incoming(TRANSFER, (f"{number}",), 1, None, None, "fail"), memoryview(b"x"), digest(b"x"))
        for number in range(3)
    ]
    begun: list[SmallFile] = []
    real = SmallFile.fill

    def fill(file: SmallFile, *more: Any) -> None:
        begun.append(file)
        real(file, *more)
        if len(begun) == len(files):
            raise RuntimeError("not foreseen")

    monkeypatch.setattr(SmallFile, "fill", fill)
    before = os.listdir("/dev/fd")
    with pytest.raises(RuntimeError, match="not foreseen"):
        folder.take(files)
    assert len(begun) == len(files) and os.listdir("/dev/fd") == before
    folder.close()


@pytest.fixture
def many(storage: Storage, home: Path) -> Iterator[tuple[UserFolder, list[Offered]]]:
    """A folder, and offers of all the files that are there."""
    offered: list[Offered] = []
    for number in range(200):
        written(home / f"{number % 20}" / f"{number}", b"12345")
        path = (f"{number % 20}", f"{number}")
        offered.append(Offered(Incoming(TRANSFER, path, 5, None, None, "fail"), digest(b"12345")))
    folder = storage.user("alice")
    yield folder, offered
    folder.close()


def together(monkeypatch: pytest.MonkeyPatch, works: bool = True) -> list[int]:
    """Where the file system can be flushed at once; how often that was done."""
    times: list[int] = []

    def flush(_: FileSystem) -> bool:
        times.append(1)
        return works

    monkeypatch.setattr(FileSystem, "can_flush", True)
    monkeypatch.setattr(FileSystem, "flush", flush)
    return times


def test_many_that_are_there_are_flushed_together(
    many: tuple[UserFolder, list[Offered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = together(monkeypatch)
    monkeypatch.setattr("sft.disk.offers.flush_each", lambda files: iter([OSError(5, "broken")] * len(files)))
    folder, offered = many
    assert all(isinstance(each, Settled) and each.already for each in folder.have(offered))
    assert len(times) == 2  # the files, then their folders


def test_many_that_are_there_are_wanted_when_they_can_not_be_flushed_together(
    many: tuple[UserFolder, list[Offered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    together(monkeypatch, works=False)
    folder, offered = many
    assert folder.have(offered) == [None] * len(offered)


def test_what_lies_on_another_file_system_is_flushed_by_itself(
    many: tuple[UserFolder, list[Offered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    together(monkeypatch)
    folder, offered = many
    folder.flush.file_system.device += 1
    flushed: list[int] = []
    monkeypatch.setattr("sft.disk.durable.flush", flushed.append)
    monkeypatch.setattr("sft.disk.folders.flush", flushed.append)
    assert all(isinstance(each, Settled) and each.already for each in folder.have(offered))
    assert len(flushed) >= len(offered) + 20


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
@pytest.mark.parametrize("function", ["open", "read"])
def test_offer_of_what_can_not_be_read_now_is_wanted(
    many: tuple[UserFolder, list[Offered]], monkeypatch: pytest.MonkeyPatch, policy: PolicyWord, function: str
) -> None:
    folder, there = many
    offered = Offered(Incoming(TRANSFER, there[21].incoming.path, 5, None, None, policy), there[21].sha256)
    real = getattr(os, function)

    def fails(what: object, *more: object, **options: object) -> object:
        if function == "read" or (what == offered.incoming.path[-1] and options.get("dir_fd") is not None):
            raise OSError(errno.EMFILE, "no more")
        return real(what, *more, **options)

    monkeypatch.setattr(f"sft.disk.offers.os.{function}", fails)
    assert folder.have([offered]) == [None]


def test_offers_take_none_of_the_last_descriptors(
    many: tuple[UserFolder, list[Offered]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, offered = many
    monkeypatch.setattr(FileSystem, "can_flush", False)
    first = os.dup(folder.visible.descriptor)
    os.close(first)
    monkeypatch.setattr("sft.disk.offers.few_left_from", lambda: first + 10)
    opened = [False if each is None else each.already for each in folder.have(offered) if not isinstance(each, Refused)]
    assert 1 <= opened.count(True) <= 10 and not any(opened[10:])


VIOLATIONS: dict[str, list[bytes]] = {
    "id of the last one": [batch(1, file("a", b"a"))],
    "id of another batch": [batch(2, file("a", b"a")), batch(2, file("b", b"b"))],
    "put with the id of a batch": [batch(2, file("a", b"a")), put(2, "b").encode()],
    "receipts": [Receipts(1, 0, of(), (Outcome("stored"),)).encode()],
}


@pytest.mark.parametrize("fault", VIOLATIONS)
def test_sender_of_batches_that_breaks_the_rules_is_told_so(
    storage: Storage, engine: Engine, home: Path, fault: str
) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(*VIOLATIONS[fault])
    heard, problem = hostile.finish()
    assert isinstance(problem, ProtocolViolation)
    assert heard[-1] == Error(Code.PROTOCOL)
    assert files_in(home) in ({"good": b"12345"}, {"good": b"12345", "a": b"a"})


def test_files_of_batches_count_for_the_window(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sft.transfer.receiver.WINDOW", 5)
    hostile = Hostile(storage, engine)
    hostile.raw.say(put(2, "open", size=None).encode())
    assert hostile.raw.hear() == Accept(2, 0)
    hostile.raw.say(batch(3, *(file(f"{number}", b"x") for number in range(4))))
    assert words(hostile.raw.hear()) == ["stored"] * 4
    hostile.raw.say(batch(4, *(file(f"one too many {number}", b"x") for number in range(5))))
    heard, problem = hostile.finish()
    assert isinstance(problem, ProtocolViolation) and heard[-1] == Error(Code.PROTOCOL)
    assert set(on_disk(home)) == {"good", "0", "1", "2", "3"}


def test_cut_behind_a_batch_leaves_whole_files_or_none(storage: Storage, engine: Engine, home: Path) -> None:
    hostile = Hostile(storage, engine)
    hostile.raw.say(batch(2, *(file(f"{number}", b"%d" % number) for number in range(300))))
    heard, problem = hostile.finish()
    assert isinstance(problem, ConnectionTrouble)
    there = on_disk(home)
    del there["good"]
    assert all(content == name.encode() for name, content in there.items())
    assert not heard or len(there) == 300


def test_batch_needs_few_descriptors_at_a_time(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = len(os.listdir("/dev/fd")) + 30
    deciding = ("transfer.batches", "transfer.receiver", "disk.user_folder", "disk.small_files", "disk.publish")
    for module in deciding:
        monkeypatch.setattr(f"sft.{module}.few_left_from", lambda: few)
    most = 0
    dup = os.dup

    def counting(descriptor: int) -> int:
        nonlocal most
        most = max(most, len(os.listdir("/dev/fd")))
        return dup(descriptor)

    monkeypatch.setattr(os, "dup", counting)
    hostile = Hostile(storage, engine)
    hostile.raw.say(batch(2, *(file(f"{number}", b"%d" % number) for number in range(300))), BYE_MESSAGE)
    heard, problem = hostile.finish()
    assert problem is None
    assert words(heard[0]) == ["stored"] * 300
    assert most <= few + 10
    assert len(on_disk(home)) == 301


def test_files_of_a_batch_that_became_visible_before_the_end_are_told_of(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, published = len(os.listdir("/dev/fd")) + 40, [0]
    for module in ("transfer.batches", "transfer.receiver", "disk.user_folder", "disk.small_files", "disk.publish"):
        monkeypatch.setattr(f"sft.{module}.few_left_from", lambda: few)
    publish = UserFolder.publish

    def fail_later(folder: UserFolder, group: Any) -> list[Any]:
        published[0] += 1
        if published[0] == 3:
            raise Ended(Code.ACCOUNT)
        return publish(folder, group)

    hostile = Hostile(storage, engine)
    monkeypatch.setattr(UserFolder, "publish", fail_later)
    hostile.raw.say(batch(2, *(file(f"{number}", b"%d" % number) for number in range(300))))
    heard, problem = hostile.finish()
    assert isinstance(problem, Ended) and not [each for each in heard if isinstance(each, Receipts)]
    there = set(on_disk(home))
    assert 1 < len(there) < 300
    assert set(hostile.receiving.taken.receipts) == there


# --- the sender -------------------------------------------------------------------------------------------------------


def test_small_files_go_in_batches_and_folders_before_them(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    items = [folder_item("d", mode=0o750), *(item(written(here / f"{n}", b"%d" % n), "d", f"{n}") for n in range(700))]
    lied = Lied(engine, items)
    heard = [message for message in lied.hear(Bye) if isinstance(message, Batch)]
    assert [len(each.files) for each in heard] == [512, 188]
    assert heard[0].transfer == heard[1].transfer
    assert heard[0].files[7].sha256 == hashlib.sha256(b"7").digest() and bytes(heard[0].header)
    lied.raw.say(Error(Code.STOPPING).encode())
    lied.finish()
    receiving, told = Receiving(storage, engine), Told()
    send(receiving, items, told)
    assert receiving.problem is None
    assert set(told.ends.values()) == {1} and len(told.receipts) == 701
    assert on_disk(home) == {f"d/{n}": b"%d" % n for n in range(700)}


def answered(lied: Lied, *outcomes: Outcome, there: bytes) -> None:
    lied.hear(Bye)
    lied.raw.say(Receipts(1, 7, there, outcomes).encode(), BYE_MESSAGE)


def test_answer_to_a_batch_ends_each_item_once(engine: Engine, here: Path) -> None:
    items = [item(written(here / name, name.encode())) for name in ("a", "b", "c")]
    lied = Lied(engine, items)
    answered(lied, Outcome("stored", "a.1"), Outcome("quota"), Outcome("already"), there=of(b"a", b"c"))
    assert lied.finish() is None
    assert lied.told.codes() == {"b": Code.QUOTA}
    assert lied.told.outcomes() == {"a": "stored", "c": "already"}
    assert lied.told.receipts[items[0]].path == ("a.1",)


def test_answer_that_names_another_content_is_no_delivery(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [item(written(here / "a", b"a"))])
    answered(lied, Outcome("stored"), there=of(b"b"))
    assert isinstance(lied.finish(), IntegrityError)
    assert not lied.told.receipts


@pytest.mark.parametrize(
    "said",
    [
        Receipts(2, 0, of(), (Outcome("stored"),)).encode(),
        Receipts(1, 0, of(), (Outcome("wanted"),)).encode(),
        Receipt(1, ("a",), 1, digest(b"a"), 0, "stored").encode(),
        Refuse(1, Code.QUOTA).encode(),
        Accept(1, 0).encode(),
        Receipts(1, 0, of(b"a"), (Outcome("stored"),)).encode() * 2,
        batch(1, file("a", b"a")),
    ],
    ids=["of no batch", "wants what is here", "receipt", "refuse", "accept", "twice", "a batch"],
)
def test_answer_that_no_batch_has_is_a_violation(engine: Engine, here: Path, said: bytes) -> None:
    lied = Lied(engine, [item(written(here / "a", b"a"))])
    lied.hear(Bye)
    lied.raw.say(said, BYE_MESSAGE)
    assert isinstance(lied.finish(), ProtocolViolation)


def test_receipts_about_a_put_are_a_violation(engine: Engine, here: Path) -> None:
    lied = Lied(engine, [folder_item("d")])
    lied.hear(Bye)
    lied.raw.say(Receipts(1, 0, of(), (Outcome("stored"),)).encode(), BYE_MESSAGE)
    assert isinstance(lied.finish(), ProtocolViolation)


def offering(items: list[Item]) -> Iterator[Item]:
    for each in items:
        each.offer = True
        yield each


def test_offered_file_is_sent_when_it_is_wanted_and_stays_when_it_is_there(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    for name in ("same", "other", "new"):
        written(here / name, name.encode())
    written(home / "same", b"same")
    written(home / "other", b"OTHER")
    items = [item(here / name, policy="replace") for name in ("same", "other", "new")]
    told = Told()
    sent = send(Receiving(storage, engine), list(offering(items)), told)
    assert told.outcomes() == {"same": "already", "other": "stored", "new": "stored"}
    assert set(told.ends.values()) == {1}
    assert on_disk(home) == {name: name.encode() for name in ("same", "other", "new")}
    assert sent < 2_000


def test_offers_alone_bring_no_content(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    items = [item(written(here / f"{n}", os.urandom(60_000)), policy="replace") for n in range(20)]
    for each in items:
        written(home / each.target[0], path_of(each).read_bytes())
    told = Told()
    assert send(Receiving(storage, engine), list(offering(items)), told) < 3_000
    assert set(told.outcomes().values()) == {"already"}


class Changing(FileSource):
    """A file that changes while it is read."""

    def has_grown(self) -> bool:
        os.utime(self._descriptor, ns=(0, 0))
        return super().has_grown()


def test_source_that_changes_is_the_trouble_of_its_file_alone(
    storage: Storage, engine: Engine, here: Path, home: Path
) -> None:
    changing = Item("changing", ("changing",), "fail", lambda: Changing("changing", os.open(here / "b", os.O_RDONLY)))
    items = [item(written(here / "a", b"a")), changing, item(written(here / "b", b"b")), item(here / "missing")]
    told = Told()
    send(Receiving(storage, engine), items, told)
    assert told.codes() == {"changing": SourceError, "missing": SourceError}
    assert on_disk(home) == {"a": b"a", "b": b"b"}


class Longer(FileSource):
    """A file of another size than its file system says, as in /proc."""

    def read_small(self, size: int) -> bytes:
        return super().read_small(100)


def test_file_with_a_wrong_size_goes_as_a_stream(storage: Storage, engine: Engine, here: Path, home: Path) -> None:
    written(here / "a", b"the whole content")

    def open_it() -> FileSource:
        source = Longer("a", open_source(here / "a")._descriptor)
        source.size = 3
        return source

    told = Told()
    send(Receiving(storage, engine), [Item("a", ("a",), "fail", open_it), item(here / "a", "b")], told)
    assert told.outcomes() == {"a": "stored", "b": "stored"}
    assert on_disk(home) == {"a": b"the whole content", "b": b"the whole content"}


def test_fetched_tree_comes_in_batches(storage: Storage, engine: Engine, home: Path, tmp_path: Path) -> None:
    for name, content in TREE.items():
        written(home / name, content)
    target = tmp_path / "here"
    reporter = fetch(Receiving(storage, engine), [""], f"{target}/")
    assert files_in(target) == TREE
    assert set(reporter.outcomes.values()) == {"stored"}
    assert GOOD.size == 5
