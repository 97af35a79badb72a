"""REMOVE, MOVE, USAGE and SET between ends that mean harm: nothing outside is reached, and nothing false believed."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving
from processes import USER, Server
from scene import OTHER, OUTSIDE, SECRET, Stage, ending, some
from speaker import Heard, Session, body_of, control, data, message, put_fields
from test_hostile_server import INTEGRITY, REFUSED, answered, meet, served

SMALL, LARGE = b"small and old", os.urandom(200_000)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server on which `USER` may do everything, and OTHER has a file."""
    made = Server(tmp_path_factory.mktemp("rich"), accounts[f"{USER}+bob"])
    (made.folder / OUTSIDE).mkdir()
    (made.folder / OUTSIDE / "secret").write_text(SECRET)
    assert made.command("limits", USER, "--rights=put,get,list,replace,remove").status == 0
    with serving(made, "--log-level=debug"):
        yield made


@pytest.fixture
def stage(rich: Server) -> Iterator[Stage]:
    rich.path(user=OTHER).mkdir(parents=True, exist_ok=True)
    (rich.path(user=OTHER) / "theirs").write_bytes(b"theirs")
    made = Stage(rich)
    yield made
    for each in made.home.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()


# --- what a client may not reach --------------------------------------------------------------------------------------

NOWHERE: dict[str, tuple[list[str], str]] = {
    "the folder itself": ([], "name"),
    "dot": (["."], "name"),
    "the storage": ([".."], "name"),
    "another user": (["..", OTHER], "name"),
    "another user's file": (["..", OTHER, "theirs"], "name"),
    "the staging area": (["..", ".partial"], "name"),
    "its ledger": (["..", ".partial", USER, "receipts"], "name"),
    "dots behind a folder": (["d", "..", "..", OTHER], "name"),
    "slashes": ([f"../{OTHER}/theirs"], "name"),
    "absolute": (["/etc/passwd"], "name"),
    "NUL": (["a\0b"], "name"),
    "through a link": (["link", "secret"], "link"),
    "a folder through a link": (["link", "folder"], "link"),
    "through a link to a user": (["other", "theirs"], "link"),
    "through a link upwards": (["up", "theirs"], "link"),
    "through a file": (["file", "x"], "not-folder"),
    "256 names": (["x"] * 256, "name"),
    "5,000 bytes": (["x" * 250] * 20, "name"),
}


def test_nothing_outside_the_users_folder_is_removed_moved_or_changed(stage: Stage) -> None:
    (stage.home / "d").mkdir()
    (stage.home / "file").write_bytes(b"f")
    (stage.home / "link").symlink_to(stage.server.folder / OUTSIDE)
    (stage.home / "other").symlink_to(stage.server.path(user=OTHER))
    (stage.home / "up").symlink_to("..")
    stage.remember()
    with stage.session() as session:
        id = 0
        for path, code in NOWHERE.values():
            for recursive in (False, True):
                id += 1
                assert session.remove(id, *path, recursive=recursive).fields.get("code") == code, path
            for old, new in ((path, ["new"]), (["d"], path)):
                id += 1
                assert session.ask("MOVE", id=id, path=old, to=new).fields.get("code") == code, path
            id += 1
            assert session.ask("SET", id=id, path=path, mtime=0, mode=0o777).fields.get("code") == code, path
        session.farewell()
    stage.check()


def test_links_are_removed_themselves_also_inside_of_a_folder(stage: Stage) -> None:
    for name in ("d/e", "d/f"):
        (stage.home / name).mkdir(parents=True)
    for name, target in (("d/e/link", OUTSIDE), ("d/file", f"{OUTSIDE}/secret"), ("link", "received")):
        (stage.home / name).symlink_to(stage.server.folder / target)
    (stage.home / "d/f/up").symlink_to("../..")
    with stage.session() as session:
        assert session.remove(1, "link", recursive=True).fields["count"] == 1
        assert session.remove(2, "d", recursive=True).fields["count"] == 6
        session.farewell()
    assert list(stage.home.iterdir()) == []
    assert (stage.server.folder / OUTSIDE / "secret").read_text() == SECRET
    assert stage.server.path("theirs", user=OTHER).read_bytes() == b"theirs"


def test_folder_that_becomes_a_link_and_back_while_it_is_removed_leads_nowhere(stage: Stage) -> None:
    """The one who owns the machine swaps them as fast as can be."""
    place, outside = stage.home / "swapped", stage.server.folder / OUTSIDE
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                (place / "x").mkdir(parents=True)
                (place / "x/y").touch()
            with contextlib.suppress(OSError):
                os.rename(place / "x", stage.home / "aside")
                (place / "x").symlink_to(outside)
                os.unlink(place / "x")
                os.rename(stage.home / "aside", place / "x")

    thread = threading.Thread(target=swap)
    thread.start()
    codes = set[str]()
    try:
        with stage.session() as session:
            for id in range(1, 400):
                found = session.remove(id, "swapped", recursive=True)
                codes.add(found.fields.get("code", "done"))
            session.farewell()
    finally:
        stop.set()
        thread.join()
    assert "done" in codes and codes <= {"done", "not-found", "not-empty", "busy", "storage"}
    assert (outside / "secret").read_text() == SECRET


def test_thousands_of_questions_at_once_are_answered_in_their_order(stage: Stage) -> None:
    with stage.session() as session:
        session.say(*(control("REMOVE", id=id, path=["x"], recursive=True) for id in range(1, 2001)), message("BYE"))
        heard = [session.hear() for _ in range(2000)]
        assert [(each.kind, each.fields["id"]) for each in heard] == [("REFUSE", id) for id in range(1, 2001)]
        session.expect("BYE")
    assert stage.told().count("not removed") <= 201


WRONG: dict[str, bytes] = {
    "PUT, REMOVE": control("PUT", **put_fields(1, ["x"], 1)) + control("REMOVE", id=2, path=["x"], recursive=True),
    "PUT, MOVE": control("PUT", **put_fields(1, ["x"], 1)) + control("MOVE", id=2, path=["x"], to=["y"]),
    "PUT, USAGE": control("PUT", **put_fields(1, ["x"], 1)) + control("USAGE", id=2),
    "PUT, SET with the same id": control("PUT", **put_fields(1, ["x"], 1))
    + control("SET", id=1, path=["x"], mtime=1, mode=None),
    "REMOVE, PUT": control("REMOVE", id=1, path=["x"], recursive=True) + control("PUT", **put_fields(2, ["x"], 1)),
    "USAGE, GET": control("USAGE", id=1) + control("GET", id=2, path=[], more=False, zstd=False),
    "SET, GET": control("SET", id=1, path=["x"], mtime=1, mode=None)
    + control("GET", id=2, path=[], more=False, zstd=False),
    "GET, SET": control("GET", id=1, path=["x"], more=True, zstd=False)
    + control("SET", id=2, path=["x"], mtime=1, mode=None),
    "DONE": control("DONE", id=1, count=1),
    "AMOUNTS": control("AMOUNTS", id=1, bytes=0, files=0, quota_bytes=None, quota_files=None, free=None),
    "SET of nothing": control("SET", id=1, path=["x"], mtime=None, mode=None),
    "id 0": control("REMOVE", id=0, path=["x"], recursive=True),
    "recursive of 1": control("REMOVE", id=1, path=["x"], recursive=1),
    "mode of 4,096": control("SET", id=1, path=["x"], mtime=None, mode=4096),
    "path that is a text": control("MOVE", id=1, path="x", to=["y"]),
    "no id": control("USAGE"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuse_question_at_a_wrong_place_or_of_a_wrong_form(stage: Stage, name: str) -> None:
    with stage.session() as session:
        session.say(WRONG[name])
        assert ending(session)[0][-1:] == ["ERROR protocol"]
    stage.check()


# --- what an account may do -------------------------------------------------------------------------------------------


@pytest.fixture
def backup(rich: Server, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """OTHER has an append-only account, with a small file, a large one, and half of an interrupted one."""
    flags = getattr(request, "param", ())
    assert rich.command("limits", OTHER, "--append-only", *flags).status == 0
    stage = Stage(rich)
    with stage.session(OTHER) as session:
        session.send(1, ["d", "small"], SMALL, policy="rename")
        session.send(2, ["d", "large"], LARGE, policy="rename")
        session.say(control("PUT", **put_fields(3, ["d", "half"], len(LARGE))))
        session.expect("ACCEPT", id=3)
        session.say(data(3, 0, LARGE[:100_000]))
        session.line.close()
    stage.quiet()
    yield stage
    shutil.rmtree(rich.path(user=OTHER))
    shutil.rmtree(rich.storage / ".partial" / OTHER)
    assert rich.command("limits", OTHER, "--rights=put,get,list,replace", "--quota=none").status == 0


def code_of(found: Heard) -> str:
    return str(found.fields.get("code", "done"))


def check_kept(stage: Stage) -> None:
    """What was there is there, byte for byte, with its time and its mode."""
    home = stage.server.path(user=OTHER)
    assert ((home / "d/small").read_bytes(), (home / "d/large").read_bytes()) == (SMALL, LARGE)
    for name in ("small", "large"):
        state = (home / "d" / name).stat()
        assert (state.st_mtime_ns, state.st_mode & 0o777) == (1700000000000000000, 0o644)


def test_stolen_append_only_account_removes_moves_and_changes_nothing(backup: Stage) -> None:
    with backup.session(OTHER) as thief:
        for id, path in enumerate((["d", "small"], ["d", "large"], ["d"], ["new"]), 1):
            assert code_of(thief.remove(4 * id, *path, recursive=True)) == "denied"
            assert code_of(thief.ask("MOVE", id=4 * id + 1, path=path, to=["elsewhere"])) == "denied"
            assert code_of(thief.ask("SET", id=4 * id + 2, path=path, mtime=0, mode=0)) == "denied"
        assert thief.ask("USAGE", id=100).kind == "AMOUNTS"
        thief.farewell()
    check_kept(backup)


@pytest.mark.parametrize("policy", ["replace", "fail", "rename", "skip"])
def test_stolen_append_only_account_writes_over_nothing(backup: Stage, policy: str) -> None:
    """Neither with other bytes, nor with none, nor by a pipe, nor by a folder or a file in the place of one."""
    with backup.session(OTHER) as thief:
        id = 0
        for path, content, size in (
            *((["d", "small"], b"other", 5), (["d", "small"], b"", 0), (["d", "small"], b"pipe", None)),
            *((["d"], b"other", 5), (["d", "large"], bytes(len(LARGE)), len(LARGE)), (["d", "large"], b"pipe", None)),
        ):
            id += 1
            put = body_of(put_fields(id, path, size, policy=policy))
            thief.say(message("PUT", put))
            if size is None or size > 65536:
                found = thief.hear()
                if found.kind == "CHECK":
                    thief.say(control("CHECK", id=id, size=size, sha256=bytes(32)))
                    found = thief.hear()
                if found.kind != "ACCEPT":
                    thief.say(control("CANCEL", id=id, code=None))
                    continue
            thief.say(*([data(id, 0, content)] if content else []), thief.end(put, content))
            assert thief.hear().kind in ("RECEIPT", "REFUSE")
        thief.say(control("PUT", **put_fields(100, ["d", "small"], None, kind="folder", policy=policy)))
        assert thief.hear().kind == "REFUSE"
        thief.say(control("PUT", **put_fields(101, ["d", "large", "x"], 100_000, policy=policy)))
        thief.expect("REFUSE", id=101)
        thief.say(control("CANCEL", id=101, code=None))
        thief.farewell()
    check_kept(backup)
    if policy == "replace":
        assert sorted(each.name for each in (backup.server.path(user=OTHER) / "d").iterdir()) == ["large", "small"]


@pytest.mark.parametrize("size", [100_000, 66_000, len(LARGE)])
def test_interrupted_file_that_a_thief_goes_on_with_or_drops_never_becomes_visible(backup: Stage, size: int) -> None:
    """A thief of the password can throw away what was kept of it, which nobody has a receipt for."""
    place = backup.server.path(user=OTHER) / "d"
    with backup.session(OTHER) as thief:
        put = body_of(put_fields(1, ["d", "half"], size))
        thief.say(message("PUT", put))
        asked = thief.expect("CHECK", id=1)["size"]
        assert asked <= size
        thief.say(control("CHECK", id=1, size=asked, sha256=bytes(32)))
        while (found := thief.hear()).kind == "CHECK":
            thief.say(control("CHECK", id=1, size=found.fields["size"], sha256=bytes(32)))
        assert (found.kind, found.fields["offset"]) == ("ACCEPT", 0)
        thief.say(control("END", id=1, size=size, sha256=bytes(32), mac=bytes(32)))
        thief.expect("REFUSE", id=1)
        thief.farewell()
    assert sorted(each.name for each in place.iterdir()) == ["large", "small"]
    check_kept(backup)


@pytest.mark.parametrize("backup", [("--quota=1M",)], indirect=True)
def test_quota_that_a_thief_has_filled_harms_nothing_that_is_there(backup: Stage) -> None:
    """It keeps out what would have come; the owner has to free space."""
    with backup.session(OTHER) as thief:
        for id in range(1, 12):
            put = body_of(put_fields(id, [f"junk{id}"], 100_000))
            thief.say(message("PUT", put))
            found = thief.hear()
            if found.kind == "REFUSE":
                break
            thief.say(data(id, 0, bytes(100_000)), thief.end(put, bytes(100_000)))
            thief.expect("RECEIPT", id=id)
        assert code_of(found) == "quota"
        thief.say(control("CANCEL", id=id, code=None))
        thief.farewell()
    check_kept(backup)
    with backup.session(OTHER) as honest:
        honest.say(control("PUT", **put_fields(1, ["more"], 100_000)))
        honest.expect("REFUSE", id=1, code="quota")
        honest.say(control("CANCEL", id=1, code=None))
        honest.farewell()


def test_read_only_account_sends_nothing(rich: Server) -> None:
    assert rich.command("limits", OTHER, "--read-only").status == 0
    stage = Stage(rich)
    with stage.session(OTHER) as session:
        session.say(control("PUT", **put_fields(1, ["new"], 100_000)))
        session.expect("REFUSE", id=1, code="denied")
        session.say(control("CANCEL", id=1, code=None))
        session.farewell()
    stage.check()
    assert rich.command("limits", OTHER, "--rights=put,get,list,replace").status == 0


def test_account_that_may_replace_and_not_fetch_learns_and_changes_nothing_by_set(rich: Server) -> None:
    assert rich.command("limits", OTHER, "--rights=put,replace").status == 0
    stage, home = Stage(rich), rich.path(user=OTHER)
    (home / "d").mkdir(parents=True, exist_ok=True)
    (home / "theirs").write_bytes(b"theirs")
    before = [(home / name).stat() for name in ("d", "theirs")]
    with stage.session(OTHER) as session:
        for id, path in enumerate((["theirs"], ["d"], ["missing"], ["theirs", "x"], ["d", "x"]), 1):
            assert code_of(session.ask("SET", id=id, path=path, mtime=1, mode=0)) == "denied"
        session.farewell()
    after = [(home / name).stat() for name in ("d", "theirs")]
    assert [(each.st_mtime_ns, each.st_mode) for each in after] == [(each.st_mtime_ns, each.st_mode) for each in before]
    assert rich.command("limits", OTHER, "--rights=put,get,list,replace").status == 0
    (home / "d").rmdir()


# --- what a server may not say ----------------------------------------------------------------------------------------

LIES: dict[str, bytes] = {
    "DONE of another id": control("DONE", id=2, count=1),
    "DONE of nothing": control("DONE", id=1, count=0),
    "REFUSE of another id": control("REFUSE", id=7, code="not-found"),
    "ENTRY": control("ENTRY", id=1, entries=[], more=False),
    "BYE": message("BYE"),
    "AMOUNTS without files": message("AMOUNTS", b"\x92\1\1"),
}
ASKED: dict[str, list[str]] = {
    "remove": ["--remove", "-r", "a"],
    "remove one": ["--remove", "a"],
    "move": ["--move", "a", "b"],
    "usage": ["--usage"],
}


@pytest.mark.parametrize("lie", some(LIES, "DONE of another id", "DONE of nothing"))
@pytest.mark.parametrize("asked", ASKED)
def test_answer_that_does_not_fit_is_none(tmp_path: Path, asked: str, lie: str) -> None:
    result = meet(served(answered(LIES[lie])), tmp_path, *ASKED[asked])
    assert (result.status, result.out) == (INTEGRITY, ""), result


@pytest.mark.parametrize("asked", ["remove one", "move"])
def test_more_was_changed_than_was_asked_for_is_no_answer(tmp_path: Path, asked: str) -> None:
    result = meet(served(answered(control("DONE", id=1, count=2))), tmp_path, *ASKED[asked])
    assert (result.status, result.out) == (INTEGRITY, "")


def test_answer_of_another_kind_is_none(tmp_path: Path) -> None:
    amounts = control("AMOUNTS", id=1, bytes=0, files=0, quota_bytes=None, quota_files=None, free=None)
    assert meet(served(answered(amounts)), tmp_path, "--remove", "a").status == INTEGRITY
    assert meet(served(answered(control("DONE", id=1, count=1))), tmp_path, "--usage").status == INTEGRITY


@pytest.mark.parametrize("code", ["not-found", "integrity", "inside", "not-empty", "full", "quota"])
def test_any_refusal_is_one_line_and_no_success(tmp_path: Path, code: str) -> None:
    def refuse(session: Session) -> None:
        session.hear()
        session.say(control("REFUSE", id=1, code=code), message("BYE"))

    for asked in ASKED.values():
        result = meet(served(refuse), tmp_path, *asked)
        assert result.status != 0 and result.out == ""
        assert result.err.count("\n") == 1, result.err


def test_server_that_says_is_folder_without_end_is_asked_twice(tmp_path: Path) -> None:
    def refuse(session: Session) -> None:
        for id in (1, 2):
            session.expect("MOVE", id=id)
            session.say(control("REFUSE", id=id, code="is-folder"))
        session.expect("BYE")
        session.say(message("BYE"))

    result = meet(served(refuse), tmp_path, "--move", "a", "b")
    assert (result.status, result.out) == (REFUSED, "")
