"""Tables of what a person types, and where each thing goes by it; nothing here looks at the other end."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sft.client.plans import Fetching, Sending, is_regular, names_in_order, parts_of
from sft.common.errors import Code, PeerStopped, ProtocolViolation, Refused, SourceError, TransferError, UsageError
from sft.common.names import LOCAL_PARTIAL_AREA
from sft.console.log import no_log
from sft.console.report import Reporter
from sft.disk.temporary import Incoming, Settled
from sft.transfer.items import Item
from sft.wire.messages import Misnamed, Put, Receipt, decode_message


class Noted(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(no_log("test.plans"), quiet=True, as_json=False, receipts=None)
        self.problems: list[tuple[str, TransferError]] = []
        self.left_out: list[str] = []
        self.done: list[tuple[str, str, str]] = []

    def failed(self, name: str, problem: TransferError, quietly: bool = False) -> None:
        self.problems.append((name, problem))

    def skipped(self, name: str, why: str) -> None:
        self.left_out.append(name)

    def delivered(self, name: str, path: str, size: int, sha256: bytes, time_ns: int, outcome: str) -> None:
        self.done.append((name, path, outcome))


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
) -> tuple[Sending, Noted]:
    noted = Noted()
    sending = Sending(noted, "fail", follow, False, logs or set())
    sending.plan(sources, target)
    sending.look_below()
    return sending, noted


def targets(sending: Sending) -> list[str]:
    """What each item shall be there; a folder with a slash behind it."""
    return ["/".join(item.target) + ("" if item.open else "/") for item in sending.left]


def test_what_is_wrong_with_a_source_is_told_before_its_folders_are_looked_into(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: str) -> list[str]:
        raise AssertionError("a folder was read")

    monkeypatch.setattr(os, "listdir", never)
    noted = Noted()
    sending = Sending(noted, "fail", False, False, set())
    sending.plan(["d", "missing", "a"], "box")
    assert [name for name, _ in noted.problems] == ["missing"]
    assert sending.is_deep and not sending.left


@pytest.mark.usefixtures("here")
def test_search_ends_when_nothing_more_is_wanted() -> None:
    sending = Sending(Noted(), "fail", False, False, set())
    sending.plan(["d", "a"], "box")
    sending.is_over = True
    sending.look_below()
    assert not sending.left


# --- where a source goes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "target", "found"),
    [
        (["a"], "b", ["b"]),
        (["a"], "box/b", ["box/b"]),
        (["a"], "box/", ["box/a"]),
        (["a"], "box/deep/", ["box/deep/a"]),
        (["a"], "box//deep///", ["box/deep/a"]),
        (["a"], ".", ["a"]),
        (["a"], "./", ["a"]),
        (["a"], "/", ["a"]),
        (["a"], "", ["a"]),
        (["a"], "./b", ["b"]),
        (["a"], "box/.", ["box/a"]),
        (["a"], "box/./b", ["box/b"]),
        (["./a"], "box/", ["box/a"]),
        (["d/../a"], "box/", ["box/a"]),
        (["d/x"], ".", ["x"]),
        (["d/x"], "y", ["y"]),
        (["a", "b"], "box", ["box/a", "box/b"]),
        (["a", "b"], "box/", ["box/a", "box/b"]),
        (["a", "b"], ".", ["a", "b"]),
        (["a", "d/x"], "box", ["box/a", "box/x"]),
        (["d"], "new", ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]),
        (["d/"], "new", ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]),
        (["d"], "box/", ["box/d/", "box/d/e/", "box/d/e/y", "box/d/empty/", "box/d/x"]),
        (["d/"], "box/", ["box/d/", "box/d/e/", "box/d/e/y", "box/d/empty/", "box/d/x"]),
        (["d"], ".", ["d/", "d/e/", "d/e/y", "d/empty/", "d/x"]),
        (["d/."], "box/", ["box/d/", "box/d/e/", "box/d/e/y", "box/d/empty/", "box/d/x"]),
        (["d/e/.."], "box/", ["box/d/", "box/d/e/", "box/d/e/y", "box/d/empty/", "box/d/x"]),
        (["d/e", "a"], "box", ["box/e/", "box/e/y", "box/a"]),
    ],
)
@pytest.mark.usefixtures("here")
def test_source_goes_where_the_words_say(sources: list[str], target: str, found: list[str]) -> None:
    sending, noted = planned(sources, target)
    assert targets(sending) == found
    assert noted.problems == []
    assert [os.path.basename(each) for each in noted.left_out] == ["link"] * (len(found) == 5)


@pytest.mark.usefixtures("here")
def test_current_folder_goes_by_its_own_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert targets(planned(["."], "box/")[0])[0] == "box/here/"
    monkeypatch.chdir(here / "d")
    assert targets(planned([".."], "box/")[0])[0] == "box/here/"
    assert targets(planned(["."], "new")[0]) == ["new/", "new/e/", "new/e/y", "new/empty/", "new/x"]


@pytest.mark.usefixtures("here")
def test_target_does_not_depend_on_what_is_here(here: Path) -> None:
    """A folder of that name on this side means nothing."""
    (here / "box").mkdir()
    assert targets(planned(["a"], "box")[0]) == ["box"]


@pytest.mark.parametrize("target", ["/etc/passwd", "/box/", "//box"])
@pytest.mark.usefixtures("here")
def test_absolute_target_is_a_usage_error(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(["a"], target)
    assert "slash" in caught.value.cause
    with pytest.raises(UsageError):
        parts_of(target)


@pytest.mark.parametrize(
    ("path", "parts"),
    [("", ()), (".", ()), ("/", ()), ("//", ()), ("./.", ()), ("a", ("a",)), ("a//b/", ("a", "b")), ("./a", ("a",))]
    + [("..", ("..",)), ("a/../b", ("a", "..", "b")), ("a b/ c", ("a b", " c")), ("...", ("...",))],
)
def test_parts_of_a_path(path: str, parts: tuple[str, ...]) -> None:
    """`..` is not worked out: it is refused where names are judged."""
    assert parts_of(path) == parts


@pytest.mark.parametrize(
    ("sources", "target"),
    [
        (["a", "a"], "box/"),
        (["a", "./a"], "box"),
        (["a", "d/../a"], "."),
        (["d/x", "other/x"], "box"),
        (["d", "other/d"], "box"),
        (["a", "b", "a"], "."),
    ],
)
@pytest.mark.usefixtures("here")
def test_two_sources_with_one_target_are_a_usage_error(sources: list[str], target: str) -> None:
    sending = Sending(Noted(), "fail", False, False, set())
    with pytest.raises(UsageError) as caught:
        sending.plan(sources, target)
    assert "would both become" in caught.value.cause
    assert not sending.left, "before anything is sent"


@pytest.mark.parametrize("target", ["..", "../b", "box/../b", "../", "box/..", "a\nb", "x" * 256, "y/" * 256 + "z"])
@pytest.mark.usefixtures("here")
def test_target_that_no_receiver_allows_fails_before_connecting(target: str) -> None:
    sending, noted = planned(["a"], target)
    assert not sending.left
    assert [(name, type(problem)) for name, problem in noted.problems] == [("a", Refused)]


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
    log = is_regular(here / "a")
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


def test_is_regular_says_no_to_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert is_regular(tmp_path / "file") is not None
    assert is_regular(tmp_path) is None
    assert is_regular(tmp_path / "missing") is None
    assert is_regular(Path("/dev/null")) is None


@pytest.mark.usefixtures("here")
def test_total_is_the_sum_of_what_will_be_sent() -> None:
    assert planned(["a", "d"], "box")[0].total == len("a") + len("d/x") + len("d/e/y")
    assert planned(["-"], "box")[0].total is None


@pytest.mark.parametrize(("preserve", "mode"), [(False, 0o666), (True, 0o777)])
@pytest.mark.usefixtures("here")
def test_permission_bits_are_masked(preserve: bool, mode: int) -> None:
    sending = Sending(Noted(), "fail", False, preserve, set())
    sending.plan(["a"], "b")
    assert [item.mode_mask for item in sending.left] == [mode]


@pytest.mark.parametrize("policy", ["fail", "rename", "replace", "skip"])
@pytest.mark.usefixtures("here")
def test_every_item_has_the_policy_and_a_transfer_of_its_own(policy: str) -> None:
    sending = Sending(Noted(), policy, False, False, set())
    sending.plan(["a", "b", "d"], "box")
    sending.look_below()
    assert {item.policy for item in sending.left if item.open} == {policy}
    assert len({item.transfer for item in sending.left}) == len(sending.left)


@pytest.mark.usefixtures("here")
def test_file_compared_in_vain_counts_only_what_is_sent() -> None:
    """Another file of its size has the name, and the policy is to replace it: no restart is told."""
    sending, noted = planned(["a"], "box/a")
    (item,) = sending.left
    told: list[tuple[str, object]] = []
    noted.checking = lambda name, count: told.append((f"checking {name}", count))  # type: ignore[method-assign]
    noted.unchecked = lambda count: told.append(("unchecked", count))  # type: ignore[method-assign]
    noted.moved = lambda count, name="": told.append((name, count))  # type: ignore[method-assign]
    sending.checking(item, 70)
    sending.progress(item, 50)
    sending.progress(item, 20)
    assert told == [("checking a", 70), ("unchecked", 70), ("a", 50), ("a", 20)]


# --- standard input ---------------------------------------------------------------------------------------------------


def test_pipe_needs_a_name() -> None:
    sending, _ = planned(["-"], "box/dump")
    assert targets(sending) == ["box/dump"]
    assert sending.pipe is not None


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (Refused(Code.NO_SPACE), "there is no room for box/a here"),
        (Refused(Code.STORAGE, why="Permission denied"), "box/a can't be written here (Permission denied)"),
    ],
)
def test_trouble_of_this_disk_is_not_blamed_on_the_other_end(problem: Refused, cause: str) -> None:
    noted = Noted()
    fetching = Fetching(noted, "fail", False, ["a"], "box/")
    fetching.refused(Put(1, bytes(16), ("a",), "file", 1, 0, 0o644, "skip"), problem)
    assert [(str(each.cause), each.exit_status) for _, each in noted.problems] == [(cause, 1)]


def test_pipe_that_was_begun_is_not_opened_for_another_try() -> None:
    sending, _ = planned(["-"], "box/dump")
    (item,) = sending.left
    assert item.open is not None and sending.pipe is not None
    assert item.open() is sending.pipe, "nothing was read yet: a new connection may begin it"
    sending.pipe.begun = True
    with pytest.raises(SourceError, match="can't be read again"):
        item.open()


@pytest.mark.parametrize(
    ("sources", "target"), [(["-"], "box/"), (["-"], "."), (["-"], ""), (["-", "a"], "box"), (["-", "-"], "box")]
)
@pytest.mark.usefixtures("here")
def test_pipe_without_a_name_of_its_own_is_a_usage_error(sources: list[str], target: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(sources, target)
    assert "standard input" in caught.value.cause


@pytest.mark.usefixtures("here")
def test_file_named_dash_can_be_sent_too(here: Path) -> None:
    (here / "-").write_bytes(b"dash")
    sending, _ = planned(["./-"], "box/")
    assert targets(sending) == ["box/-"]
    assert sending.pipe is None


# --- what becomes of what is sent -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_each_verdict_takes_its_item_off_the_list_and_busy_keeps_it() -> None:
    sending, noted = planned(["a", "b", "d/x", "d/e/y"], "box")
    one, two, three, four = sending.left
    sending.delivered(one, Receipt(1, one.target, 1, bytes(32), 0, "stored"))
    sending.delivered(two, Receipt(2, two.target, 0, None, 0, "skipped"))
    sending.failed(three, Refused(Code.EXISTS))
    sending.failed(four, Refused(Code.BUSY))
    assert list(sending.left) == [four]
    assert list(sending.busy) == [four]
    assert noted.done == [("a", "box/a", "stored")]
    assert noted.left_out == ["box/b"]
    assert [name for name, _ in noted.problems] == ["d/x"]
    assert list(names_in_order(sending.left)) == ["d/e/y"]


@pytest.mark.usefixtures("here")
def test_folders_are_no_lines_for_a_person() -> None:
    sending, noted = planned(["d"], "box")
    folders = [item for item in sending.left if item.open is None]
    assert "d" not in names_in_order(sending.left)
    for number, item in enumerate(folders, 1):
        sending.started(item, None)
        sending.delivered(item, Receipt(number, item.target, 0, None, 0, "folder"))
    assert noted.done == []
    assert all(item.open for item in sending.left)


# --- fetching ---------------------------------------------------------------------------------------------------------


def fetching(names: list[str], target: str, policy: str = "fail", preserve: bool = False) -> Fetching:
    return Fetching(Noted(), policy, preserve, names, target)


def put(*path: str, kind: str = "file", mode: int | None = None, size: int | None = 5, mtime: int | None = 7) -> Put:
    return Put(1, b"t" * 16, path, kind, size, mtime, mode, "fail")


@pytest.mark.parametrize(
    ("names", "target", "base", "places"),
    [
        (["a"], "b", ".", {("a",): ("b",)}),
        (["a"], "out/b", "out", {("a",): ("b",)}),
        (["a"], "out/", "out", {("a",): ("a",)}),
        (["a"], ".", ".", {("a",): ("a",)}),
        (["a"], "..", "..", {("a",): ("a",)}),
        (["a"], "out/.", "out", {("a",): ("a",)}),
        (["a"], "out/..", "out/..", {("a",): ("a",)}),
        (["a"], "/abs/b", "/abs", {("a",): ("b",)}),
        (["a"], "/abs/", "/abs", {("a",): ("a",)}),
        (["box/a"], "b", ".", {("a",): ("b",)}),
        (["box/a"], "out/", "out", {("a",): ("a",)}),
        (["box"], "new", ".", {("box",): ("new",), ("box", "x"): ("new", "x"), ("box", "e", "y"): ("new", "e", "y")}),
        (["box/"], "new", ".", {("box",): ("new",), ("box", "x"): ("new", "x")}),
        (["box"], "out/", "out", {("box",): ("box",), ("box", "x"): ("box", "x")}),
        (["a", "box/b"], "out", "out", {("a",): ("a",), ("b",): ("b",), ("b", "x"): ("b", "x")}),
        ([""], "out/", "out", {("a",): ("a",), ("d", "x"): ("d", "x")}),
        (["."], "new", ".", {("a",): ("new", "a"), ("d", "x"): ("new", "d", "x")}),
        (["/"], ".", ".", {("a",): ("a",)}),
    ],
)
def test_fetched_thing_goes_where_the_words_say(
    names: list[str], target: str, base: str, places: dict[tuple[str, ...], tuple[str, ...]]
) -> None:
    plan = fetching(names, target)
    assert plan.base == Path(base)
    for path, place in places.items():
        assert plan.place(put(*path)).path == place


@pytest.mark.parametrize(
    ("names", "path", "code"),
    [
        (["a"], ("b",), Code.DENIED),
        (["a"], ("A",), Code.DENIED),
        (["a"], ("a ",), Code.DENIED),
        (["box/a"], ("box", "a"), Code.DENIED),
        (["box/a"], ("box",), Code.DENIED),
        (["a", "b"], ("c",), Code.DENIED),
        ([""], (LOCAL_PARTIAL_AREA, "key"), Code.NAME),
        (["a"], (LOCAL_PARTIAL_AREA,), Code.NAME),
    ],
)
@pytest.mark.parametrize("target", ["new", "out/"])
def test_server_places_nothing_that_was_not_asked_for(
    names: list[str], path: tuple[str, ...], code: Code, target: str
) -> None:
    with pytest.raises(Refused) as caught:
        fetching(names, target).place(put(*path))
    assert caught.value.code is code


@pytest.mark.parametrize("names", [["a"], [""]])
def test_server_that_gives_a_name_that_is_not_allowed_breaks_the_protocol(names: list[str]) -> None:
    for path in ((), ("..",), ("a", ".."), ("a", "..", "..", "x"), ("a/../x",), ("/a",), ("a", ""), ("a", "x\0")):
        announced = put(*path)
        misnamed = decode_message(announced.KIND, memoryview(announced.body()))
        assert isinstance(misnamed, Misnamed)
        with pytest.raises(ProtocolViolation):
            fetching(names, "out/").place(misnamed)


def test_more_names_than_a_connection_may_ask_for_are_a_usage_error() -> None:
    fetching([f"d/{number}" for number in range(4096)], "out/")
    with pytest.raises(UsageError, match="4096 names"):
        fetching([f"d/{number}" for number in range(4097)], "out/")
    with pytest.raises(UsageError, match="too long"):
        fetching(["/".join(["n" * 255] * 15) + f"/{number}" for number in range(1092)], "out/")


@pytest.mark.parametrize(
    ("policy", "preserve", "kind", "mode", "placed"),
    [
        ("fail", False, "file", 0o755, 0o644),
        ("rename", True, "file", 0o755, 0o755),
        ("replace", True, "file", 0o7777, 0o777),
        ("skip", False, "file", None, None),
        ("fail", False, "folder", 0o755, 0o755),
        ("fail", False, "folder", 0o7777, 0o777),
    ],
)
def test_policy_and_bits_are_ours(policy: str, preserve: bool, kind: str, mode: int | None, placed: int | None) -> None:
    """What the server says of them only restricts."""
    incoming = fetching(["a"], "out/", policy, preserve).place(put("a", kind=kind, mode=mode))
    assert incoming == Incoming(b"t" * 16, ("a",), 5, 7, placed, policy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fetching(["a", "a"], "out"),
        lambda: fetching(["x/a", "y/a"], "out/"),
        lambda: fetching(["x/a", "y/./a/"], "out/"),
        lambda: fetching(["/a"], "out"),
        lambda: fetching(["/etc/passwd", "b"], "out"),
        lambda: fetching(["a", "b"], "-"),
        lambda: fetching(["a", ""], "-"),
        lambda: fetching([""], "-"),
        lambda: fetching(["/"], "-"),
    ],
)
def test_what_can_not_be_fetched_so_is_a_usage_error(make: Callable[[], Fetching]) -> None:
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("name", ["..", "a/../b", "a\nb", "x" * 256])
def test_name_that_no_server_can_have_is_refused_before_connecting(name: str) -> None:
    with pytest.raises(TransferError) as caught:
        fetching([name], "out/")
    assert name in caught.value.cause
    assert caught.value.exit_status == 1


def test_standard_output_takes_one_name() -> None:
    plan = fetching(["box/a"], "-")
    assert plan.to_pipe
    plan.place(put("a"))
    for path in (("a", "x"), ("b",)):
        with pytest.raises(Refused):
            plan.place(put(*path))


def test_fetched_file_is_told_once_however_often_it_comes() -> None:
    noted = Noted()
    plan = Fetching(noted, "fail", False, ["a"], "out/")
    receipt = Receipt(1, ("a",), 5, bytes(32), 0, "stored")
    plan.stored(put("a"), receipt)
    plan.stored(put("a"), Receipt(2, ("a",), 5, bytes(32), 0, "already"))
    assert noted.done == [("a", "out/a", "stored")]
    plan.stored(put("a", mtime=8), Receipt(3, ("a",), 5, bytes(32), 0, "already"))
    assert noted.done[1:] == [("a", "out/a", "already")]


def test_what_was_fetched_before_needs_no_second_look() -> None:
    plan = fetching(["a"], "out/")
    asked: list[Incoming] = []

    class Disk:
        def begin(self, incoming: Incoming, resumable: bool) -> Settled:
            asked.append(incoming)
            return Settled(incoming.path)

        def __getattr__(self, name: str) -> object:
            return None

    folder = plan.remembering(Disk())  # type: ignore[arg-type]
    folder.begin(plan.place(put("a")), False)
    plan.stored(put("a"), Receipt(1, ("a",), 5, bytes(32), 0, "stored"))
    assert folder.begin(plan.place(put("a")), False) == Settled(("a",), skipped=True)
    folder.begin(plan.place(put("a", mtime=8)), False)
    assert [incoming.mtime for incoming in asked] == [7, 8]


@pytest.mark.parametrize(("id", "name"), [(1, "a"), (2, "box/b")])
def test_refusal_of_a_get_names_what_was_asked_for(id: int, name: str) -> None:
    noted = Noted()
    Fetching(noted, "fail", False, ["a", "box/b"], "out/").not_given(id, Refused(Code.NOT_FOUND))
    assert [told for told, _ in noted.problems] == [name]


@pytest.mark.parametrize("id", [3, 9])
def test_refusal_of_what_was_not_asked_for_is_a_violation(id: int) -> None:
    with pytest.raises(ProtocolViolation):
        fetching(["a", "box/b"], "out/").not_given(id, Refused(Code.NOT_FOUND))


def test_refusal_of_everything_names_the_folder() -> None:
    noted = Noted()
    Fetching(noted, "fail", False, [""], "out/").not_given(1, Refused(Code.DENIED))
    assert [told for told, _ in noted.problems] == ["your folder"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "changed on the receiver while it was read"),
        (Code.CHANGED, "changed on the receiver while it was read"),
        (Code.UNREADABLE, "can't be read on the receiver"),
        (Code.INTEGRITY, "can't be read on the receiver"),
    ],
)
def test_file_withdrawn_by_the_server_is_a_failure(code: Code | None, said: str) -> None:
    noted = Noted()
    plan = Fetching(noted, "fail", False, ["a"], "out/")
    plan.place(put("a"))
    plan.withdrawn(put("a"), code)
    plan.check_answered()
    assert [(name, problem.cause) for name, problem in noted.problems] == [("a", f"a {said}")]
    assert noted.problems[0][1].exit_status == 1


def test_what_the_server_can_give_another_time_is_no_failure_yet() -> None:
    noted = Noted()
    plan = Fetching(noted, "fail", False, ["a", "b"], "out/")
    plan.place(put("a"))
    plan.withdrawn(put("a", "x"), Code.UNAVAILABLE)
    plan.not_given(2, Refused(Code.UNAVAILABLE))
    with pytest.raises(PeerStopped):
        plan.check_answered()
    assert noted.problems == [] and plan.missing.names() == ["a/x", "b"]
    plan.missing.begin()
    plan.check_answered()


def test_failure_is_said_once_over_all_connections() -> None:
    noted = Noted()
    plan = Fetching(noted, "fail", False, ["a", "b"], "out/")
    for _ in range(3):
        plan.missing.begin()
        plan.not_given(1, Refused(Code.NOT_FOUND))
        plan.not_given(2, Refused(Code.UNAVAILABLE))
    assert [name for name, _ in noted.problems] == ["a"]


def test_what_a_server_withdraws_is_not_gathered_without_end() -> None:
    noted = Noted()
    plan = Fetching(noted, "fail", False, ["a"], "out/")
    for number in range(3000):
        plan.withdrawn(put("a", f"{number}"), None)
        assert number - len(noted.problems) < 1000
    plan.place(put("a"))
    plan.check_answered()
    assert len(noted.problems) == 3000


def test_item_is_itself_and_equal_to_no_other() -> None:
    """They are keys: two sources with the same words are two."""
    one, two = (Item("a", ("a",), "fail", None) for _ in range(2))
    assert len({one, two}) == 2
