"""A file that has grown: what the receiver has of it is copied there, and its new end alone is sent."""

import os
from pathlib import Path

import pytest
from peers import C2S, S2C, Raw, data, end
from transfers import Receiving, Told, files_in, item, kept_of, on_disk, put, send, written

from crypto_utils import digest
from sft.common.errors import Code, Refused
from sft.disk import grown
from sft.disk.storage import Storage
from sft.transfer.items import Item
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, Cancel, Check, Receipt, Refuse
from sft.wire.protocol import DATA_SIZE, UNASKED_LIMIT
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

OLD = os.urandom(3_000_000)
NEW = OLD + os.urandom(10_000)


def grown_item(here: Path, content: bytes = NEW) -> Item:
    return item(written(here / "log", content), policy="replace")


@pytest.mark.parametrize("can_share", [True, False], ids=["copy_file_range", "read and written"])
def test_only_the_new_end_is_sent(
    storage: Storage,
    engine: Engine,
    here: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    can_share: bool,
) -> None:
    if not can_share:
        monkeypatch.delattr(os, "copy_file_range")
    written(home / "log", OLD)
    told = Told()
    each = grown_item(here)
    passed = send(Receiving(storage, engine), [each], told)
    assert told.outcomes() == {"log": "stored"} and told.bytes[each] == len(NEW) - len(OLD)
    assert passed < 20_000
    assert on_disk(home) == {"log": NEW} and kept_of(home) == []


@pytest.mark.parametrize("at", [0, 1_000_000, len(OLD) - 1])
def test_file_that_is_another_one_is_sent_as_a_whole(
    storage: Storage, engine: Engine, here: Path, home: Path, at: int
) -> None:
    other = OLD[:at] + bytes([OLD[at] ^ 1]) + OLD[at + 1 :]
    written(home / "log", other)
    told = Told()
    each = grown_item(here)
    send(Receiving(storage, engine), [each], told)
    assert told.outcomes() == {"log": "stored"} and told.bytes[each] == len(NEW)
    assert on_disk(home) == {"log": NEW} and kept_of(home) == []


@pytest.mark.parametrize("policy", ["fail", "rename", "skip"])
def test_nothing_is_copied_for_a_policy_that_replaces_nothing(
    storage: Storage, engine: Engine, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(grown, "copy_piece", None)
    written(home / "log", OLD)
    send(Receiving(storage, engine), [item(written(here / "log", NEW), policy=policy)], Told())  # type: ignore[arg-type]
    assert (home / "log").read_bytes() == OLD


@pytest.mark.parametrize("size", [0, 1, UNASKED_LIMIT])
def test_small_file_is_not_asked_for_when_it_has_grown(
    storage: Storage, engine: Engine, here: Path, home: Path, size: int
) -> None:
    written(home / "log", OLD[:size])
    told = Told()
    each = grown_item(here)
    send(Receiving(storage, engine), [each], told)
    assert told.bytes[each] == len(NEW) and on_disk(home) == {"log": NEW} and not told.hashed


def begin(storage: Storage, engine: Engine, **more: object) -> tuple[Receiving, Raw]:
    """Until the digest of the old file was asked for."""
    receiving = Receiving(storage, engine, **more)  # type: ignore[arg-type]
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "log", size=len(NEW), policy="replace").encode())
    return receiving, raw


def test_old_file_is_whole_and_visible_until_the_new_one_is(storage: Storage, engine: Engine, home: Path) -> None:
    written(home / "log", OLD)
    receiving, raw = begin(storage, engine)
    assert raw.hear() == Check(1, len(OLD), None)
    assert files_in(home) == {"log": OLD}
    raw.say(Check(1, len(OLD), digest(OLD)).encode())
    assert raw.hear() == Accept(1, len(OLD))
    raw.say(data(1, len(OLD), NEW[len(OLD) : -1]))
    assert files_in(home) == {"log": OLD}
    raw.say(data(1, len(NEW) - 1, NEW[-1:]), end(put(1, "log", size=len(NEW), policy="replace"), NEW).encode())
    receipt = raw.hear()
    assert isinstance(receipt, Receipt) and (receipt.outcome, receipt.sha256) == ("stored", digest(NEW))
    assert on_disk(home) == {"log": NEW}
    raw.say(BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None


def test_what_was_sent_behind_the_old_end_survives_a_cut(
    storage: Storage, engine: Engine, home: Path, here: Path
) -> None:
    written(home / "log", OLD)
    receiving, raw = begin(storage, engine)
    raw.hear()
    raw.say(Check(1, len(OLD), digest(OLD)).encode())
    raw.hear()
    raw.say(data(1, len(OLD), NEW[len(OLD) : len(OLD) + 7_000]))
    raw.close()
    receiving.finish()
    assert kept_of(home) == [len(OLD) + 7_000] and files_in(home) == {"log": OLD}
    told = Told()
    each = grown_item(here)
    send(Receiving(storage, engine), [each], told)
    assert told.bytes[each] == 3_000
    assert on_disk(home) == {"log": NEW} and kept_of(home) == []


def test_copy_that_nobody_has_confirmed_is_not_kept(storage: Storage, engine: Engine, home: Path) -> None:
    """The old file is still there, and the next attempt copies it again."""
    written(home / "log", OLD)
    receiving, raw = begin(storage, engine)
    assert raw.hear() == Check(1, len(OLD), None)
    raw.close()
    receiving.finish()
    assert kept_of(home) == [] and on_disk(home) == {"log": OLD}


@pytest.mark.parametrize("change", ["other bytes", "shorter", "gone", "link"])
def test_old_file_that_changes_meanwhile_spoils_nothing(
    storage: Storage, engine: Engine, home: Path, here: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It changes between the look at it and its copying: what counts is what was copied."""
    look = grown.OldFile.of

    def look_and_change(*words: object) -> grown.OldFile | None:
        found = look(*words)  # type: ignore[arg-type]
        if change == "other bytes":
            written(home / "log", bytes(len(OLD)))
        elif change == "shorter":
            os.truncate(home / "log", 100_000)
        else:
            (home / "log").unlink()
            if change == "link":
                written(home / "secret", OLD)
                (home / "log").symlink_to("secret")
        return found

    monkeypatch.setattr(grown.OldFile, "of", look_and_change)
    written(home / "log", OLD)
    told = Told()
    each = grown_item(here)
    send(Receiving(storage, engine), [each], told)
    assert told.bytes[each] == len(NEW)
    secret = {"secret": OLD} if change == "link" else {}
    assert told.outcomes() == {"log": "stored"} and on_disk(home) == {"log": NEW} | secret
    assert not (home / "log").is_symlink()


def test_kept_part_goes_before_the_old_file(storage: Storage, engine: Engine, home: Path, here: Path) -> None:
    content = os.urandom(len(NEW))
    receiving, raw = begin(storage, engine)
    assert raw.hear() == Accept(1, 0)
    raw.say(data(1, 0, content[:DATA_SIZE]))
    raw.close()
    receiving.finish()
    written(home / "log", OLD)
    told = Told()
    each = grown_item(here, content)
    send(Receiving(storage, engine), [each], told)
    assert told.bytes[each] == len(NEW) - DATA_SIZE and on_disk(home) == {"log": content}


def test_holes_of_the_old_file_stay_holes(storage: Storage, engine: Engine, home: Path, here: Path) -> None:
    size = 64 << 20
    written(home / "log", b"start")
    os.truncate(home / "log", size)
    with (home / "log").open("r+b") as file:
        file.seek(size - 5)
        file.write(b"finis")
    content = b"start" + bytes(size - 10) + b"finis" + b"and more"
    send(Receiving(storage, engine), [grown_item(here, content)], Told())
    assert (home / "log").read_bytes() == content
    assert (home / "log").stat().st_blocks * 512 < size // 2


@pytest.mark.parametrize("private", [False, True])
def test_account_that_may_not_replace_has_nothing_copied(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    def admit(right: str) -> None:
        if right == "replace":
            raise Refused(Code.DENIED)

    monkeypatch.setattr(grown, "copy_piece", None)
    written(home / "log", OLD)
    receiving, raw = begin(storage, engine, admit=admit, private=private)
    assert raw.hear() == Refuse(1, Code.NOT_REPLACED)
    raw.say(Cancel(1).encode(), BYE_MESSAGE)
    assert raw.hear() == Bye()
    raw.close()
    assert receiving.finish() is None
    assert on_disk(home) == {"log": OLD} and kept_of(home) == []
