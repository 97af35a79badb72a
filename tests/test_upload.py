"""What is sent: items made of sources, and what becomes of each."""

import os
from pathlib import Path

import pytest
from noted import Noted

from sft.client.own_logs import identity_of_file
from sft.client.upload import Upload
from sft.common.errors import Code, Refused, SourceError, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.transfer.events import Checked, Delivered, Failed, Progress, Started
from sft.transfer.items import Item
from sft.wire.messages import PolicyWord, Receipt


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sources, which is the current one: a, b, d/x, d/e/y, d/empty/, and a link."""
    place = tmp_path / "here"
    for name in ("a", "b", "d/x", "d/e/y"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "d/empty").mkdir()
    (place / "d/link").symlink_to("x")
    monkeypatch.chdir(place)
    return place


def planned(
    sources: list[str], target: str, follow: bool = False, logs: set[tuple[int, int]] | None = None
) -> tuple[Upload, Noted]:
    noted = Noted()
    sending = Upload(noted, "fail", follow, True, logs or set())
    sending.plan(sources, target)
    sending.look_below()
    return sending, noted


def targets(sending: Upload) -> list[str]:
    """What each item will be there; a folder with a slash at its end."""
    return ["/".join(item.target) + ("" if item.open else "/") for item in sending.left]


def test_what_is_wrong_with_a_source_is_told_before_its_folders_are_looked_into(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: str) -> list[str]:
        raise AssertionError("a folder was read")

    monkeypatch.setattr(os, "listdir", never)
    noted = Noted()
    sending = Upload(noted, "fail", False, True, set())
    sending.plan(["d", "missing", "a"], "box")
    assert [name for name, _ in noted.problems] == ["missing"]
    assert sending.is_deep and not sending.left


@pytest.mark.usefixtures("here")
def test_search_ends_when_nothing_more_is_wanted() -> None:
    sending = Upload(Noted(), "fail", False, True, set())
    sending.plan(["d", "a"], "box")
    sending.is_over = True
    sending.look_below()
    assert not sending.left


@pytest.mark.usefixtures("here")
def test_current_folder_goes_by_its_own_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert targets(planned(["."], "box/")[0])[0] == "box/here/"
    monkeypatch.chdir(here / "d")
    assert targets(planned([".."], "box/")[0])[0] == "box/here/"
    assert targets(planned(["."], "new")[0]) == ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]


@pytest.mark.parametrize("target", ["..", "../b", "box/../b", "../", "box/..", "a\nb", "x" * 256, "y/" * 256 + "z"])
@pytest.mark.usefixtures("here")
def test_target_that_no_receiver_allows_is_a_usage_error(target: str) -> None:
    with pytest.raises(UsageError, match="can't be a name on a receiver"):
        planned(["a"], target)


@pytest.mark.usefixtures("here")
def test_source_whose_own_name_no_receiver_allows_fails_alone() -> None:
    Path("b\nc").touch()
    sending, noted = planned(["b\nc", "a"], "box/")
    assert targets(sending) == ["box/a"]
    assert [(name, type(problem)) for name, problem in noted.problems] == [("b\nc", Refused)]


@pytest.mark.usefixtures("here")
def test_one_source_that_is_missing_does_not_hold_up_the_others() -> None:
    sending, noted = planned(["missing", "a"], "box")
    assert targets(sending) == ["box/a"]
    assert [type(problem) for _, problem in noted.problems] == [SourceError]
    assert "missing" in noted.problems[0][1].cause


@pytest.mark.usefixtures("here")
def test_links_below_a_source_are_left_out_or_followed() -> None:
    sending, noted = planned(["d"], "new")
    assert [os.path.basename(name) for name in noted.left_out] == ["link"]
    sending, noted = planned(["d"], "new", follow=True)
    assert "new/link" in targets(sending)
    assert noted.left_out == []


@pytest.mark.usefixtures("here")
def test_what_an_interrupted_fetch_has_left_is_nobodys_content(here: Path) -> None:
    (here / "d" / LOCAL_PARTIAL_AREA).mkdir()
    (here / "d" / LOCAL_PARTIAL_AREA / "key").write_bytes(b"half")
    sending, noted = planned(["d"], "new")
    assert targets(sending) == ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]
    assert noted.problems == []


@pytest.mark.usefixtures("here")
def test_named_fifo_fails_and_one_below_a_folder_is_left_out(here: Path) -> None:
    os.mkfifo(here / "fifo")
    os.mkfifo(here / "d" / "fifo")
    sending, noted = planned(["fifo", "d"], "box")
    assert not any("fifo" in target for target in targets(sending))
    assert [name for name, _ in noted.problems] == ["fifo"]
    assert sorted(map(os.path.basename, noted.left_out)) == ["fifo", "link"]


@pytest.mark.usefixtures("here")
def test_named_link_is_what_it_leads_to(here: Path) -> None:
    sending, noted = planned(["d/link"], ".")
    assert targets(sending) == ["link"]
    assert noted.left_out == []


@pytest.mark.usefixtures("here")
def test_own_log_is_never_sent(here: Path) -> None:
    """Also under another name: it is known by what it is. Named itself it is a failure, below a folder left out."""
    os.link(here / "a", here / "d" / "same")
    log = identity_of_file(here / "a")
    assert log is not None
    sending, noted = planned(["a", "d", "b"], "box", logs={log})
    assert "box/d/same" not in targets(sending)
    assert sorted(map(os.path.basename, noted.left_out)) == ["link", "same"]
    refused = []
    for item in sending.left:
        if item.open is not None:
            try:
                item.open().close()
            except SourceError as problem:
                refused.append("/".join(item.target))
                assert "log" in problem.cause
    assert refused == ["box/a"]


def test_identity_of_file_says_no_to_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert identity_of_file(tmp_path / "file") is not None
    assert identity_of_file(tmp_path) is None
    assert identity_of_file(tmp_path / "missing") is None
    assert identity_of_file(Path("/dev/null")) is None


@pytest.mark.usefixtures("here")
def test_total_is_the_sum_of_what_will_be_sent() -> None:
    assert planned(["a", "d"], "box")[0].total == len("a") + len("d/x") + len("d/e/y")
    assert planned(["-"], "box")[0].total is None


@pytest.mark.parametrize("keep_modes", [False, True])
def test_permission_bits_are_kept_unless_they_are_not_wanted(here: Path, keep_modes: bool) -> None:
    (here / "d").chmod(0o2711)
    sending = Upload(Noted(), "fail", False, keep_modes, set())
    sending.plan(["a", "d"], "box/")
    sending.look_below()
    file, folder = list(sending.left)[:2]
    assert file.keeps_mode is keep_modes and folder.mode == (0o711 if keep_modes else None)


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
@pytest.mark.usefixtures("here")
def test_every_item_has_the_policy_and_a_transfer_of_its_own(policy: PolicyWord) -> None:
    sending = Upload(Noted(), policy, False, True, set())
    sending.plan(["a", "b", "d"], "box")
    sending.look_below()
    assert {item.policy for item in sending.left if item.open} == {policy}
    assert len({item.transfer for item in sending.left}) == len(sending.left)


@pytest.mark.usefixtures("here")
def test_file_compared_in_vain_counts_only_what_is_sent() -> None:
    """Another file of its size has the name, and the policy is to replace it: no restart is reported."""
    sending, noted = planned(["a"], "box/a")
    (item,) = sending.left
    told: list[tuple[str, object]] = []
    noted.checking = lambda name, count: told.append((f"checking {name}", count))  # type: ignore[method-assign]
    noted.unchecked = lambda count: told.append(("unchecked", count))  # type: ignore[method-assign]
    noted.moved = lambda count, name="": told.append((name, count))  # type: ignore[method-assign]
    sending.on_event(Checked(item, 70))
    sending.on_event(Progress(item, 50))
    sending.on_event(Progress(item, 20))
    assert told == [("checking a", 70), ("unchecked", 70), ("a", 50), ("a", 20)]


def test_pipe_needs_a_name() -> None:
    sending, _ = planned(["-"], "box/dump")
    assert targets(sending) == ["box/dump"]
    assert sending.pipe is not None


def test_pipe_has_the_policy_of_the_command() -> None:
    sending = Upload(Noted(), "rename", False, True, set())
    sending.plan(["-"], "box/name")
    assert [item.policy for item in sending.left] == ["rename"]


def test_pipe_that_was_begun_is_not_opened_for_another_try() -> None:
    sending, _ = planned(["-"], "box/dump")
    (item,) = sending.left
    assert item.open is not None and sending.pipe is not None
    assert item.open() is sending.pipe, "nothing was read yet: a new connection may begin it"
    sending.pipe.begun = True
    with pytest.raises(SourceError, match="can't be read again"):
        item.open()


@pytest.mark.usefixtures("here")
def test_file_named_dash_can_be_sent_too(here: Path) -> None:
    (here / "-").write_bytes(b"dash")
    sending, _ = planned(["./-"], "box/")
    assert targets(sending) == ["box/-"]
    assert sending.pipe is None


@pytest.mark.usefixtures("here")
def test_each_verdict_takes_its_item_off_the_list_and_busy_keeps_it() -> None:
    sending, noted = planned(["a", "b", "d/x", "d/e/y"], "box")
    one, two, three, four = sending.left
    sending.on_event(Delivered(one, Receipt(1, one.target, 1, bytes(32), 0, "stored")))
    sending.on_event(Delivered(two, Receipt(2, two.target, 0, None, 0, "skipped")))
    sending.on_event(Failed(three, Refused(Code.EXISTS)))
    sending.on_event(Failed(four, Refused(Code.BUSY)))
    assert list(sending.left) == [four]
    assert list(sending.busy) == [four]
    assert noted.done == [("a", "box/a", "stored")]
    assert noted.left_out == ["box/b"]
    assert [name for name, _ in noted.problems] == ["d/x"]
    assert list(sending.names_left()) == ["d/e/y"]


@pytest.mark.usefixtures("here")
def test_folders_are_no_lines_for_a_person() -> None:
    sending, noted = planned(["d"], "box")
    folders = [item for item in sending.left if item.open is None]
    assert "d" not in sending.names_left()
    for number, item in enumerate(folders, 1):
        sending.on_event(Started(item, None))
        sending.on_event(Delivered(item, Receipt(number, item.target, 0, None, 0, "folder")))
    assert noted.done == []
    assert all(item.open for item in sending.left)


def test_item_is_itself_and_equal_to_no_other() -> None:
    """They are keys: two sources with the same words are two."""
    one, two = (Item("a", ("a",), "fail", None) for _ in range(2))
    assert len({one, two}) == 2


@pytest.mark.usefixtures("here")
def test_folder_is_sent_with_what_lies_in_it() -> None:
    sending, noted = planned(["d", "a"], "box")
    assert targets(sending) == ["box/d/", "box/d/e/", "box/d/e/y", "box/d/empty/", "box/d/x", "box/a"]
    assert noted.problems == []
    assert [os.path.basename(each) for each in noted.left_out] == ["link"]
    assert targets(planned(["d"], "new")[0]) == ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]


@pytest.mark.usefixtures("here")
def test_sources_with_one_path_are_rejected_before_anything_is_looked_for() -> None:
    sending = Upload(Noted(), "fail", False, True, set())
    with pytest.raises(UsageError):
        sending.plan(["a", "missing", "./a"], "box/")
    assert not sending.left


def test_files_found_together_become_the_items_that_each_alone_would(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether their names are plain, or have to be looked at one by one."""
    for name in ("a", "b", "d/c", "d/\u00e9", "e/f"):
        (here / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "top" / name).write_bytes(b"x" * len(name))

    def found() -> list[tuple[object, ...]]:
        upload = Upload(Noted(), "fail", False, True, set())
        upload.plan([str(here / "top")], "x/")
        upload.look_below()
        facts = [(each.name, each.target, each.kind, each.found_size, each.within is None) for each in upload.left]
        return [*facts, (upload.total, upload.file_count)]

    together = found()
    monkeypatch.setattr("sft.client.upload.items_of", lambda *_: [])
    assert found() == together
    assert together[-1] == (1 + 1 + 3 + 3 + 3, 5)
