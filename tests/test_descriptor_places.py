"""A budget of open files for large files: what an account may take, and what is left to others."""

import pytest

from transfer import places
from transfer.places import Places


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
    import resource

    monkeypatch.undo()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 4000))
    assert places.limit_of_process() == 250
