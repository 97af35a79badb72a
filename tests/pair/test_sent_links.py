"""Symbolic links between two ends: what is answered, and what a server may not do with them."""

import os
import threading
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, check_nothing_is_left, data, end, tcp_pair
from transfers import Fetch, Lied, Receiving, Told, item, send, written

from sft.common.errors import Code, ProtocolViolation, Refused
from sft.disk.storage import Storage
from sft.transfer.items import Item
from sft.wire.messages import (
    BYE_MESSAGE,
    Cancel,
    Error,
    Get,
    PolicyWord,
    Put,
    Receipt,
    Refuse,
)
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

MTIME = 1_700_000_000_000_000_000


def link_item(*target: str, says: str = "nowhere", policy: PolicyWord = "fail") -> Item:
    return Item("/".join(target), target, policy, None, MTIME, leads_to=says)


def link_put(id: int, *path: str, says: str = "nowhere", policy: PolicyWord = "fail") -> Put:
    return Put(id, bytes([id]) * 16, path, "link", None, MTIME, None, policy, says)


def links_in(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): os.readlink(each) for each in sorted(folder.rglob("*")) if each.is_symlink()}


def test_links_among_files_are_stored_and_each_is_receipted(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    told = Told()
    small, large = written(tmp_path / "small", b"small"), written(tmp_path / "large", os.urandom(200_000))
    items = [link_item("d", f"l{number}", says=f"../{number}") for number in range(1000)]
    receiving = Receiving(storage, engine)
    send(receiving, [item(small), *items[:500], item(large), *items[500:]], told)
    assert links_in(home) == dict(sorted((f"d/l{number}", f"../{number}") for number in range(1000)))
    assert not told.problems and len(told.receipts) == 1002
    assert {told.receipts[each].sha256 for each in items} == {None}


def test_link_that_is_there_is_already_there_and_another_is_refused(storage: Storage, engine: Engine) -> None:
    told = Told()
    once, same, other = link_item("l"), link_item("l"), link_item("l", says="elsewhere")
    for each in (once, same, other):
        send(Receiving(storage, engine), [each], told)
    assert [told.receipts[each].outcome for each in (once, same)] == ["stored", "already"]
    assert told.codes() == {"l": Code.EXISTS}


def test_account_without_the_right_sends_its_files_and_no_link(
    storage: Storage, engine: Engine, home: Path, tmp_path: Path
) -> None:
    def admit(right: str) -> None:
        if right == "links":
            raise Refused(Code.DENIED)

    told, link, small = Told(), link_item("l"), item(written(tmp_path / "small", b"small"))
    send(Receiving(storage, engine, admit), [link, small], told)
    assert told.codes() == {"l": Code.DENIED}
    assert [each.name for each in home.iterdir()] == ["small"]


# --- answers that lie -------------------------------------------------------------------------------------------------

SHA256 = bytes(32)
LIES = {
    "another target's digest": Receipt(1, ("l",), 0, SHA256, 0, "stored"),
    "a size": Receipt(1, ("l",), 7, None, 0, "already"),
    "a folder": Receipt(1, ("l",), 0, None, 0, "folder"),
    "skipped, which nobody asked for": Receipt(1, ("l",), 0, None, 0, "skipped"),
    "another folder": Receipt(1, ("d", "l"), 0, None, 0, "stored"),
}


@pytest.mark.parametrize("lie", LIES)
def test_receipt_that_does_not_fit_a_link_is_no_delivery(engine: Engine, lie: str) -> None:
    lied = Lied(engine, [link_item("l")])
    assert isinstance(lied.raw.hear(), Put)
    lied.raw.say(LIES[lie].encode())
    problem = lied.finish()
    assert problem is not None and problem.exit_status == 5 and not lied.told.receipts


# --- a server that lies -----------------------------------------------------------------------------------------------


def hostile(
    engine: Engine,
    target: Path,
    first: Put,
    *said: bytes,
    links: bool = True,
    policy: str = "fail",
    waits: bool = False,
) -> tuple[list[object], Exception | None]:
    """What a client that fetches `box` answers to a server that says this; and its problem.

    `waits`: all but the first message comes once that has its answer.
    """
    near, far = tcp_pair()
    raw, fetch = Raw(far, S2C, C2S), Fetch(engine, near, ["box"], f"{target}/", policy, links=links)
    thread = threading.Thread(target=fetch.run, daemon=True)
    thread.start()
    assert raw.hear() == Get(1, ("box",), False, True, links=links)
    raw.say(first.encode(), *([] if waits else said))
    heard: list[object] = [raw.hear()] if waits else []
    raw.say(*(said if waits else []), BYE_MESSAGE)
    raw.stop()
    heard += raw.hear_all()
    raw.close()
    thread.join(30)
    check_nothing_is_left(engine, fetch.channel)
    return heard, fetch.problem


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    written(tmp_path / "outside" / "secret", b"secret")
    return tmp_path / "outside"


@pytest.mark.parametrize("says", ["{outside}", "../outside"])
@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
@pytest.mark.parametrize("waits", [False, True])
def test_nothing_is_written_through_a_link_that_the_server_gave_before(
    engine: Engine, tmp_path: Path, outside: Path, says: str, policy: str, waits: bool
) -> None:
    says = says.format(outside=outside)
    small = Put(2, b"2" * 16, ("box", "secret"), "file", 5, MTIME, 0o644, "skip")
    said = [small.encode(), data(2, 0, b"evil!"), end(small, b"evil!").encode(), link_put(3, "box", "l").encode()]
    if waits:
        large = Put(5, b"5" * 16, ("box", "large"), "file", 100_000, MTIME, 0o644, "skip")
        said += [Put(4, b"4" * 16, ("box", "x"), "folder", None, MTIME, 0o755, "skip").encode()]
        said += [large.encode(), Cancel(5).encode()]
    link = link_put(1, "box", says=says)
    heard, problem = hostile(engine, tmp_path / "here", link, *said, policy=policy, waits=waits)
    assert problem is None
    refused = {each.id for each in heard if isinstance(each, Refuse) and each.code is Code.LINK}
    assert refused == ({2, 3, 4, 5} if waits else {2, 3})
    assert {each.name for each in outside.iterdir()} == {"secret"}
    assert (outside / "secret").read_bytes() == b"secret"
    assert links_in(tmp_path / "here") == {"box": says}


def test_link_that_was_not_asked_for_is_a_violation(engine: Engine, tmp_path: Path) -> None:
    heard, problem = hostile(engine, tmp_path / "here", link_put(1, "box"), links=False)
    assert isinstance(problem, ProtocolViolation)
    assert heard == [Error(Code.PROTOCOL)]
    assert links_in(tmp_path) == {}


@pytest.mark.parametrize("path", [("other",), ("..", "box"), ("box", "..", "x")])
def test_link_lands_only_where_it_was_asked_for(engine: Engine, tmp_path: Path, path: tuple[str, ...]) -> None:
    hostile(engine, tmp_path / "here", link_put(1, *path))
    assert links_in(tmp_path) == {}
