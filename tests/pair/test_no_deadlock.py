"""Small buffers, small windows and slow disks: two honest ends never wait for each other for ever."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from peers import C2S, S2C, Raw
from processes import wait_until
from transfers import LARGE, Receiving, Told, folder_item, item, on_disk, send, written

import sft.transfer.receiver
import sft.transfer.unsettled
import sft.wire.outbox
import sft.wire.protocol
from sft.common.errors import (
    Refused,
)
from sft.disk.new_folders import MadeFolder
from sft.disk.storage import Storage
from sft.disk.temporary import Incoming, Settled, TemporaryFile
from sft.disk.user_folder import UserFolder
from sft.wire.channel import Channel
from sft.wire.messages import (
    BYE_MESSAGE,
    Entries,
    ListFolder,
)
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")


def test_tiny_socket_buffers_and_many_files_do_not_lock(storage: Storage, here: Path, home: Path) -> None:
    engine = Engine(1)
    source = written(here / "a", b"x" * 3_000)
    large = written(here / "b", os.urandom(LARGE))
    items = [item(source, f"{number}") for number in range(1_000)]
    items[500:500] = [item(large, f"large{number}") for number in range(20)]
    told = Told()
    send(Receiving(storage, engine, buffers=4096), items, told)
    assert len(told.receipts) == 1_020
    assert len(on_disk(home)) == 1_020
    engine.close()


def test_small_window_slows_down_and_does_not_lock(
    storage: Storage, engine: Engine, here: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.transfer.unsettled, "WINDOW", 3)
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 3)
    source = written(here / "a", b"a")
    told = Told()
    send(Receiving(storage, engine), [item(source, f"{number}") for number in range(100)], told)
    assert len(on_disk(home)) == 100


def test_many_folders_do_not_lock(storage: Storage, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the window: a folder is closed by its receipt, and by nothing else."""
    monkeypatch.setattr(sft.transfer.unsettled, "WINDOW", 50)
    monkeypatch.setattr(sft.transfer.receiver, "WINDOW", 50)
    engine = Engine(1)
    told = Told()
    items = [folder_item(f"{number % 10}", f"{number}") for number in range(400)]
    send(Receiving(storage, engine, buffers=4096), items, told)
    assert len(told.receipts) == 400
    engine.close()


class SlowDisk:
    """A user's folder whose flushes take their time."""

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder
        self.flushes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def publish(self, group: list[TemporaryFile]) -> list[Settled | Refused]:
        self.flushes += 1
        done = threading.Event()
        timer = threading.Timer(0.01, done.set)
        timer.start()
        done.wait()
        timer.join()
        return self._folder.publish(group)


def test_many_tiny_files_over_tiny_buffers_to_a_slow_disk_do_not_lock(storage: Storage, here: Path, home: Path) -> None:
    engine = Engine(1)
    source = written(here / "a", b"tiny")
    told, receiving = Told(), Receiving(storage, engine, buffers=4096, around=SlowDisk)
    send(receiving, [item(source, f"{number}") for number in range(5_000)], told)
    assert receiving.problem is None
    assert len(told.receipts) == 5_000
    assert set(told.outcomes().values()) == {"stored"}
    assert len(on_disk(home)) == 5_000
    engine.close()


class Nowhere:
    """A user's folder where any folder is there, and nothing is."""

    def __init__(self, folder: UserFolder) -> None:
        pass

    def begin_folder(self, incoming: Incoming) -> MadeFolder:
        return MadeFolder(incoming)

    def start_publishing(self, group: Sequence[MadeFolder]) -> None:
        return None

    def publish(self, group: Sequence[MadeFolder]) -> list[Settled]:
        return [Settled(each.incoming.path) for each in group]

    def finish_folders(self) -> list[tuple[str, ...]]:
        return []


def test_honest_ends_of_which_one_waits_for_each_answer_to_leave_do_not_lock(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft.wire.outbox, "_UNREAD_BYTES", 1000)
    engine, told, long = Engine(1), Told(), ("n" * 250,) * 12
    receiving = Receiving(storage, engine, buffers=4096, around=Nowhere)
    send(receiving, [folder_item(*long, f"{number}") for number in range(800)], told)
    assert receiving.problem is None
    assert len(told.receipts) == 800
    engine.close()


def test_client_that_lists_and_does_not_read_makes_the_server_wait(
    storage: Storage, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(250):
        written(home / f"{number:0200}", b"")
    receiving = Receiving(storage, engine, buffers=4096)
    raw, due = Raw(receiving.near, C2S, S2C), 0
    post = Channel.post

    def counted(channel: Channel, message: bytes) -> None:
        nonlocal due
        post(channel, message)
        due = max(due, channel._outbox._answer_bytes)

    monkeypatch.setattr(Channel, "post", counted)
    raw.say(*(ListFolder(number, (), None).encode() for number in range(1, 61)), BYE_MESSAGE)
    wait_until(lambda: due > sft.wire.outbox._UNREAD_BYTES)
    heard = raw.hear_all()
    raw.close()
    assert receiving.finish() is None
    assert [message.id for message in heard if isinstance(message, Entries)] == list(range(1, 61))
    assert due < sft.wire.outbox._UNREAD_BYTES + 2 * sft.wire.protocol.CONTROL_LIMIT
