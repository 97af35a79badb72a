"""What is fetched: where it may go, and what becomes of it."""

import pytest
from noted import Noted
from tables import each_row

from sft.client.download import Download
from sft.common.errors import Code, PeerStopped, ProtocolViolation, Refused
from sft.disk.temporary import Incoming, Settled
from sft.transfer.events import Delivered, NotGiven, Rejected, Withdrawn
from sft.wire.messages import Misnamed, Put, Receipt, decode_message
from sft.wire.tree_messages import NodeKind


def fetching(names: list[str], target: str, policy: str = "fail", keep_modes: bool = True) -> Download:
    return Download(Noted(), policy, keep_modes, names, target)


def put(
    *path: str, kind: NodeKind = "file", mode: int | None = None, size: int | None = 5, mtime: int | None = 7
) -> Put:
    return Put(1, b"t" * 16, path, kind, size, mtime, mode, "fail")


@pytest.mark.parametrize("names", [["a"], [""]])
def test_server_that_gives_a_name_that_is_not_allowed_breaks_the_protocol(names: list[str]) -> None:
    for path in ((), ("..",), ("a", ".."), ("a", "..", "..", "x"), ("a/../x",), ("/a",), ("a", ""), ("a", "x\0")):
        announced = put(*path)
        misnamed = decode_message(announced.KIND, memoryview(announced.body()))
        assert isinstance(misnamed, Misnamed)
        with pytest.raises(ProtocolViolation):
            fetching(names, "out/").place(misnamed)


@each_row(
    ("policy", "keep_modes", "kind", "mode", "placed"),
    [
        ("fail", False, "file", 0o755, None),
        ("rename", True, "file", 0o755, 0o755),
        ("replace", True, "file", 0o7777, 0o777),
        ("skip", True, "file", None, None),
        ("fail", True, "folder", 0o755, 0o755),
        ("fail", True, "folder", 0o7777, 0o777),
        ("fail", False, "folder", 0o755, None),
    ],
)
def test_policy_and_bits_are_ours(
    policy: str, keep_modes: bool, kind: NodeKind, mode: int | None, placed: int | None
) -> None:
    """What the server says of them only restricts."""
    incoming = fetching(["a"], "out/", policy, keep_modes).place(put("a", kind=kind, mode=mode))
    assert incoming == Incoming(b"t" * 16, ("a",), 5, 7, placed, policy)


def test_standard_output_takes_one_name() -> None:
    plan = fetching(["box/a"], "-")
    assert plan.to.to_stdout
    plan.place(put("a"))
    for path in (("a", "x"), ("b",)):
        with pytest.raises(Refused):
            plan.place(put(*path))


def test_fetched_file_is_told_once_however_often_it_comes() -> None:
    noted = Noted()
    plan = Download(noted, "fail", True, ["a"], "out/")
    receipt = Receipt(1, ("a",), 5, bytes(32), 0, "stored")
    plan.on_event(Delivered(put("a"), receipt))
    plan.on_event(Delivered(put("a"), Receipt(2, ("a",), 5, bytes(32), 0, "already")))
    assert noted.done == [("a", "out/a", "stored")]
    plan.on_event(Delivered(put("a", mtime=8), Receipt(3, ("a",), 5, bytes(32), 0, "already")))
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
    plan.on_event(Delivered(put("a"), Receipt(1, ("a",), 5, bytes(32), 0, "stored")))
    assert folder.begin(plan.place(put("a")), False) == Settled(("a",), skipped=True)
    folder.begin(plan.place(put("a", mtime=8)), False)
    assert [incoming.mtime for incoming in asked] == [7, 8]


@pytest.mark.parametrize(("id", "name"), [(1, "a"), (2, "box/b")])
def test_refusal_of_a_get_names_what_was_asked_for(id: int, name: str) -> None:
    noted = Noted()
    Download(noted, "fail", True, ["a", "box/b"], "out/").on_event(NotGiven(id, Refused(Code.NOT_FOUND)))
    assert [told for told, _ in noted.problems] == [name]


@pytest.mark.parametrize("id", [3, 9])
def test_refusal_of_what_was_not_asked_for_is_a_violation(id: int) -> None:
    with pytest.raises(ProtocolViolation):
        fetching(["a", "box/b"], "out/").on_event(NotGiven(id, Refused(Code.NOT_FOUND)))


def test_refusal_of_everything_names_the_folder() -> None:
    noted = Noted()
    Download(noted, "fail", True, [""], "out/").on_event(NotGiven(1, Refused(Code.DENIED)))
    assert [told for told, _ in noted.problems] == ["your folder"]


@each_row(
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
    plan = Download(noted, "fail", True, ["a"], "out/")
    plan.place(put("a"))
    plan.on_event(Withdrawn(put("a"), code))
    plan.check_answered()
    assert [(name, problem.cause) for name, problem in noted.problems] == [("a", f"a {said}")]
    assert noted.problems[0][1].exit_status == 1


def test_what_the_server_can_give_another_time_is_no_failure_yet() -> None:
    noted = Noted()
    plan = Download(noted, "fail", True, ["a", "b"], "out/")
    plan.place(put("a"))
    plan.on_event(Withdrawn(put("a", "x"), Code.UNAVAILABLE))
    plan.on_event(NotGiven(2, Refused(Code.UNAVAILABLE)))
    with pytest.raises(PeerStopped):
        plan.check_answered()
    assert noted.problems == [] and plan.missing.names() == ["a/x", "b"]
    plan.missing.begin()
    plan.check_answered()


def test_failure_is_said_once_over_all_connections() -> None:
    noted = Noted()
    plan = Download(noted, "fail", True, ["a", "b"], "out/")
    for _ in range(3):
        plan.missing.begin()
        plan.on_event(NotGiven(1, Refused(Code.NOT_FOUND)))
        plan.on_event(NotGiven(2, Refused(Code.UNAVAILABLE)))
    assert [name for name, _ in noted.problems] == ["a"]


def test_what_a_server_withdraws_is_not_gathered_without_end() -> None:
    noted = Noted()
    plan = Download(noted, "fail", True, ["a"], "out/")
    for number in range(3000):
        plan.on_event(Withdrawn(put("a", f"{number}"), None))
        assert number - len(noted.problems) < 1000
    plan.place(put("a"))
    plan.check_answered()
    assert len(noted.problems) == 3000


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (Refused(Code.NO_SPACE), "there is no space for box/a here"),
        (Refused(Code.STORAGE, why="Permission denied"), "box/a can't be written here (Permission denied)"),
    ],
)
def test_trouble_of_this_disk_is_not_blamed_on_the_other_end(problem: Refused, cause: str) -> None:
    noted = Noted()
    fetching = Download(noted, "fail", True, ["a"], "box/")
    fetching.on_event(Rejected(Put(1, bytes(16), ("a",), "file", 1, 0, 0o644, "skip"), problem))
    assert [(str(each.cause), each.exit_status) for _, each in noted.problems] == [(cause, 1)]
