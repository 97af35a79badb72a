"""What a large file that waits for a place costs the small ones beside it: nothing."""

from typing import Any

import pytest
from peers import C2S, S2C, Raw, data, end
from transfers import Receiving, put

from sft.disk.storage import Storage
from sft.disk.user_folder import UserFolder
from sft.transfer import places
from sft.wire.messages import BYE_MESSAGE, Accept, Bye, Cancel, Receipt
from sft.wire.workers import Engine

pytestmark = pytest.mark.usefixtures("watched")

LARGE, SMALL = 100_000, 5


class Counting:
    """A user's folder, and how many files were published together."""

    groups: list[int]

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def publish(self, group: list[Any]) -> Any:
        self.groups.append(len(group))
        return self._folder.publish(group)


def test_small_files_are_published_together_beside_a_large_one_that_waits(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "limit_of_process", lambda: 1)
    monkeypatch.setattr(Counting, "groups", [], raising=False)
    receiving = Receiving(storage, engine, around=Counting)
    raw = Raw(receiving.near, C2S, S2C)
    raw.say(put(1, "first", size=LARGE).encode(), put(2, "waits", size=LARGE).encode())
    assert raw.hear() == Accept(1, 0)
    small = [put(id, f"small{id}", size=SMALL) for id in range(3, 23)]
    raw.say(*(each.encode() + data(each.id, 0, b"small") + end(each, b"small").encode() for each in small))
    assert all(isinstance(raw.hear(), Receipt) for _ in small)
    assert Counting.groups == [len(small)]
    raw.say(Cancel(1).encode(), Cancel(2).encode(), BYE_MESSAGE)
    while (heard := raw.hear()) != Bye():
        assert heard == Accept(2, 0)
    raw.close()
    assert receiving.finish() is None
