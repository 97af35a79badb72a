"""Two accounts in one folder: one that may only append can't destroy what the other has put there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving
from processes import USER, Client, Server
from scene import Stage, ending
from speaker import body_of, control, data, link_fields, message, put_fields

THIEF, DROPPER = "thief", "dropper"
LARGE = os.urandom(200_000)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server on which THIEF may append to the folder of `USER`."""
    made = Server(tmp_path_factory.mktemp("shared"), accounts[USER])
    made.add(THIEF, "--append-only", f"--folder={USER}")
    made.add(DROPPER, "--drop-only", f"--folder={USER}")
    made.add(f"{DROPPER}2", "--drop-only", f"--folder={USER}")
    with serving(made, "--log-level=debug"):
        yield made


@pytest.fixture
def stage(shared: Server) -> Iterator[Stage]:
    home = shared.path()
    (home / "d").mkdir(parents=True, exist_ok=True)
    (home / "d" / "small").write_bytes(b"small")
    (home / "d" / "large").write_bytes(LARGE)
    made = Stage(shared)
    with made.session() as session:  # the first login makes the hidden folder
        session.farewell()
    yield made


def test_append_only_account_destroys_nothing_of_the_others_in_its_folder(stage: Stage) -> None:
    stage.remember()
    with stage.session(THIEF) as session:
        id = 0
        for policy in ("fail", "replace", "skip"):
            for name in ("small", "large"):
                id += 1
                put = body_of(put_fields(id, ["d", name], 4, policy=policy))
                session.say(message("PUT", put), data(id, 0, b"evil"), session.end(put, b"evil"))
                heard = session.hear()
                ended = heard.fields.get("code", heard.fields.get("outcome"))
                assert ended == {"fail": "exists", "replace": "not-replaced", "skip": "skipped"}[policy]
            id += 1
            session.say(control("PUT", **link_fields(id, ["d", "small"], "x", policy=policy)))
            session.expect("REFUSE", id=id, code="denied")
            id += 1
            session.say(control("PUT", **put_fields(id, ["d", "small"], None, kind="folder", policy=policy)))
            session.expect("REFUSE", id=id, code="not-folder")
        session.say(control("SET", id=id + 1, path=["d", "small"], mtime=0, mode=0))
        session.expect("REFUSE", id=id + 1, code="denied")
        session.farewell()
    with stage.session(THIEF) as session:
        for kind, fields in (
            ("REMOVE", {"path": ["d"], "recursive": True}),
            ("REMOVE", {"path": ["d", "small"], "recursive": False}),
            ("MOVE", {"path": ["d", "small"], "to": ["d", "gone"]}),
            ("MOVE", {"path": ["d"], "to": ["gone"]}),
            ("SET", {"path": ["d", "large"], "mtime": 0, "mode": 0}),
        ):
            id += 1
            assert session.ask(kind, id=id, **fields).fields["code"] == "denied", kind
        session.farewell()
    stage.check()


@pytest.mark.parametrize("user", [THIEF, DROPPER])
@pytest.mark.parametrize("there", [0o555, 0o755])
def test_folder_of_the_others_keeps_its_mode_whatever_folder_is_announced(stage: Stage, there: int, user: str) -> None:
    place = stage.home / "d"
    place.chmod(there)
    with stage.session(user) as session:
        id = 0
        for policy in ("fail", "replace", "rename", "skip"):
            for mode in (0o555, 0o755, 0, None):
                id += 1
                session.say(control("PUT", **put_fields(id, ["d"], None, kind="folder", mode=mode, policy=policy)))
                session.expect("RECEIPT", id=id)
                assert stat.S_IMODE(place.stat().st_mode) == there
        session.farewell()
    assert stat.S_IMODE(place.stat().st_mode) == there
    place.chmod(0o755)


def test_half_of_a_file_that_another_account_resumes_makes_nothing_visible_that_it_did_not_send(stage: Stage) -> None:
    half = stage.home / "half"
    with stage.session() as session:
        put = body_of(put_fields(1, ["half"], len(LARGE)))
        session.say(message("PUT", put))
        session.expect("ACCEPT", id=1, offset=0)
        session.say(data(1, 0, LARGE[:100_000]))
        with stage.session(THIEF) as thief:
            thief.say(control("PUT", **put_fields(1, ["half"], len(LARGE))))
            thief.expect("REFUSE", id=1, code="busy")  # it has an owner, whatever its account
            thief.say(control("CANCEL", id=1, code=None))
            thief.farewell()
        session.say(data(1, 100_000, LARGE[100_000:]), session.end(put, LARGE))
        session.expect("RECEIPT", id=1, outcome="stored")
        session.farewell()
    assert half.read_bytes() == LARGE
    half.unlink()


@pytest.mark.parametrize("policy", ["fail", "rename", "replace"])
def test_drop_only_account_finds_what_was_kept_of_its_own_files_and_of_no_others(stage: Stage, policy: str) -> None:
    def send_half(user: str) -> None:
        """The kept half is found again, but not by another account."""
        with stage.session(user) as session:
            session.say(control("PUT", **put_fields(1, [policy, "secret"], len(LARGE), policy=policy)))
            session.expect("ACCEPT", id=1, offset=0)
            session.say(data(1, 0, LARGE[:100_000]))
        stage.quiet()
        with stage.session(user) as session:
            session.say(control("PUT", **put_fields(1, [policy, "secret"], len(LARGE), policy=policy)))
            session.expect("CHECK", id=1, size=100_000)
        stage.quiet()

    send_half(USER)
    send_half(DROPPER)
    send_half(f"{DROPPER}2")
    with stage.session() as session:
        session.say(control("PUT", **put_fields(1, [policy, "secret"], len(LARGE), policy=policy)))
        session.expect("CHECK", id=1, size=100_000)
    stage.quiet()
    dropped = stage.server.command("recount", "--drop-parts")
    assert "removed 3 partial files" in dropped.out, dropped


def test_quota_is_of_the_folder_and_holds_who_has_one(tmp_path: Path, accounts: dict[str, Path]) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    server.add(THIEF, "--append-only", f"--folder={USER}", "--quota=1M")
    (tmp_path / "file").write_bytes(os.urandom(900_000))
    with serving(server):
        owner, thief = Client(server.port, tmp_path / "owner"), Client(server.port, tmp_path / "thief", THIEF)
        assert owner(tmp_path / "file", "by the owner").status == 0
        result = thief(tmp_path / "file", "by the thief")
        assert result.status == 1 and "quota" in result.err
        assert owner(tmp_path / "file", "more").status == 0  # it has none
        for command in ("users", "recount"):
            used = next(line for line in server.command(command).out.splitlines() if line.startswith(THIEF))
            assert "1.8 MB in 2 files" in used, used


def test_quota_of_another_account_ends_connections_that_do_not_count(tmp_path: Path, accounts: dict[str, Path]) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    server.add(THIEF, "--append-only", f"--folder={USER}")
    with serving(server):
        stage = Stage(server)
        for change, amount in (("quota", "1M"), ("no quota", "none")):
            with stage.session() as session:
                session.send(1, [change], b"content")
                assert server.command("limits", THIEF, f"--quota={amount}").status == 0
                assert ending(session)[0] == ["ERROR account"]
            stage.quiet()
            assert (server.storage / ".partial" / USER / "ledger").exists(), "what it has stored is counted"
            with stage.session() as session:  # it may come again at once
                session.send(1, [f"{change}, again"], b"content")
                session.farewell()


def test_folder_is_shared_only_when_it_is_named_and_stays_while_another_uses_it(
    tmp_path: Path, accounts: dict[str, Path]
) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    server.path().mkdir(parents=True)
    (server.path() / "file").write_text("theirs")
    server.add("bob", "--read-only", f"--folder={USER}")
    assert server.command("users").out.splitlines()[1].split()[:4] == ["bob", "get,list", "folder", USER]
    removed = server.command("deluser", USER)
    assert removed.status == 0 and removed.out.endswith(f"stays in {server.path()}, which bob still uses\n")
    again = server.command("adduser", USER, "--password-file", "-", typed="a new password\n")
    assert again.status == 2 and f"the folder {USER} is used by bob" in again.err
    for name in ("..", "a/b", "con", "A", ".partial", "x."):
        refused = server.command("adduser", "carol", "--folder", name, "--password-file", "-", typed="a new password\n")
        assert refused.status == 2 and refused.err.startswith("error: --folder: "), refused
    assert (server.path() / "file").read_text() == "theirs"
