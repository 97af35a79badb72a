"""What the limit of open files is shared out for: large files, by account; connections and logins."""

import pytest
from tables import each_row

from sft.transfer import places
from sft.transfer.places import Most, Places, most_for


@pytest.fixture(autouse=True)
def twelve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "limit_of_process", lambda: 12)


def taken(all_places: Places, account: str) -> int:
    share = all_places.of(account)
    while share.take():
        pass
    return share.held


def test_account_takes_at_most_half_and_leaves_something_to_every_other() -> None:
    all_places = Places()
    assert [taken(all_places, account) for account in ("alice", "bob", "carol")] == [6, 3, 1]


def test_connections_of_an_account_share_what_it_may_have_and_each_has_one() -> None:
    all_places = Places()
    assert [taken(all_places, "alice") for _ in range(4)] == [6, 1, 1, 1]
    assert taken(all_places, "bob") == 1


def test_place_that_is_given_back_is_free_for_others() -> None:
    all_places = Places()
    share = all_places.of("alice")
    while share.take():
        pass
    share.keep(2)
    assert share.held == 2
    assert taken(all_places, "bob") == 5
    share.keep(0)
    assert share.take()


def test_limit_is_half_of_the_open_files_and_each_place_takes_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(places, "limit_of_files", lambda: 1000)
    assert places.limit_of_process() == 250


DEFAULT = Most(256, 64, 128, 64)


@each_row(
    ("files", "most"),
    [
        (1 << 62, DEFAULT),
        (8192, DEFAULT),
        (4096, Most(183, 64, 128, 64)),
        (1024, Most(30, 15, 128, 64)),
        (280, Most(6, 3, 35, 17)),
        (256, Most(6, 3, 32, 16)),
        (64, Most(1, 1, 8, 4)),
        (3, Most(1, 1, 1, 1)),
    ],
)
def test_connections_and_logins_are_as_many_as_open_files_allow(files: int, most: Most) -> None:
    assert most_for(files, DEFAULT) == most


def test_settings_below_what_open_files_allow_hold() -> None:
    for wanted in (Most(2, 64, 3, 4), Most(1, 1, 1, 1)):
        assert most_for(256, wanted) == wanted


@each_row("files", [128, 129, 255, 256, 1000, 1024, 4096, 5000, 1 << 20])
def test_all_together_take_no_more_than_the_limit_of_open_files(files: int) -> None:
    most = most_for(files, DEFAULT)
    large = files // 2 // 2 * 2
    assert 20 + most.logins + most.closing + most.connections * 10 + large <= files
