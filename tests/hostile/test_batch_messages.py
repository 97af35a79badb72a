"""BATCH and RECEIPTS as docs/PROTOCOL.md has them, said to a real server by the second speaker."""

import os

import pytest
from conftest import MakeServer
from processes import Server
from scene import Stage
from speaker import Fields, Session, batch, batch_file, batch_header, control, message, put_fields, sha256

NEW, OLD = b"new content", b"old content"


@pytest.fixture
def stage(besieged: Server) -> Stage:
    return Stage(besieged)


def sent(session: Session, id: int, files: dict[str, bytes], offered: bool = False, **more: object) -> bytes:
    """One BATCH of these files."""
    described = [batch_file(name.split("/"), content, offered) for name, content in files.items()]
    header = batch_header(id, described, **more)
    return message("BATCH", batch(session.file_key, header, b"" if offered else b"".join(files.values())))


def outcomes(answer: Fields) -> list[str]:
    return [word if name is None else f"{word} {name}" for word, name in answer["outcomes"]]


def digest_of(*contents: bytes) -> bytes:
    return sha256(b"".join(map(sha256, contents)))


def test_each_file_of_a_batch_has_its_own_outcome(stage: Stage) -> None:
    files = {"a": NEW, "../up": NEW, "a/below": NEW, "d/b": b"", "d": NEW}
    with stage.session() as session:
        session.say(sent(session, 7, files))
        answer = session.expect("RECEIPTS", id=7, sha256=digest_of(NEW, b""))
        assert outcomes(answer) == ["stored", "name", "not-folder", "stored", "is-folder"]
        session.farewell()
    assert (stage.home / "d" / "b").read_bytes() == b""
    (stage.home / "d" / "b").unlink()
    (stage.home / "d").rmdir()
    stage.check(a=NEW)
    (stage.home / "a").unlink()


def test_batch_that_is_not_proved_stores_nothing(stage: Stage) -> None:
    with stage.session() as session:
        header = batch_header(1, [batch_file(["a"], NEW), batch_file(["b"], OLD)])
        for id, (proof, contents) in enumerate(((os.urandom(32), NEW + OLD), (None, OLD + NEW)), 1):
            changed = header[:1] + bytes([id]) + header[2:]
            session.say(message("BATCH", batch(session.file_key, changed, contents, proof)))
            answer = session.expect("RECEIPTS", id=id, sha256=sha256(b""))
            assert outcomes(answer) == ["integrity", "integrity"]
        session.farewell()
    stage.check()


def test_offers_are_answered_by_what_is_there(stage: Stage) -> None:
    (stage.home / "box").mkdir()
    (stage.home / "box" / "same").write_bytes(NEW)
    (stage.home / "box" / "other").write_bytes(OLD)
    stage.remember()
    offered = {"box/same": NEW, "box/other": NEW, "box/missing": NEW}
    with stage.session() as session:
        session.say(*(sent(session, id, offered, True, policy=policy) for id, policy in POLICIES))
        for id, expected in enumerate(OFFERED, 1):
            assert outcomes(session.expect("RECEIPTS", id=id)) == expected
        session.say(sent(session, 9, {"box/missing": NEW}))
        assert outcomes(session.expect("RECEIPTS", id=9, sha256=digest_of(NEW))) == ["stored"]
        session.farewell()
    stage.check(**{"box/missing": NEW})
    for name in ("same", "other", "missing"):
        (stage.home / "box" / name).unlink()
    (stage.home / "box").rmdir()


POLICIES = list(enumerate(("fail", "rename", "replace", "skip"), 1))
OFFERED = [
    ["already", "exists", "wanted"],
    ["already", "wanted", "wanted"],
    ["already", "wanted", "wanted"],
    ["skipped", "skipped", "wanted"],
]


def test_drop_only_account_is_told_nothing_of_what_it_offers(make_server: MakeServer) -> None:
    server = make_server()
    assert server.command("limits", "alice", "--drop-only").status == 0
    stage = Stage(server)
    (stage.home / "same").write_bytes(NEW)
    stage.remember()
    with stage.session() as session:
        session.say(sent(session, 1, {"same": NEW, "missing": NEW}, True))
        assert outcomes(session.expect("RECEIPTS", id=1)) == ["wanted", "wanted"]
        session.farewell()


@pytest.mark.parametrize("fault", ["an id again", "a PUT with its id", "RECEIPTS", "after a GET", "over the window"])
def test_batch_at_a_wrong_place_is_a_violation(stage: Stage, fault: str) -> None:
    with stage.session() as session:
        if fault == "after a GET":
            session.say(control("GET", id=1, path=["no"], more=False, zstd=False))
            session.expect("REFUSE", id=1)
            session.say(sent(session, 1, {"../a": NEW}))
        elif fault == "over the window":
            session.say(*(control("PUT", **put_fields(id, [f"n{id}"], 1)) for id in range(1, 257)))
            session.say(sent(session, 257, {"../a": NEW}))
        else:
            session.say(sent(session, 1, {"../a": NEW}))
            session.expect("RECEIPTS", id=1)
            again = control("PUT", **put_fields(1, ["a"], 1))
            receipts = control("RECEIPTS", id=1, time=1, sha256=sha256(b""), outcomes=[["name", None]])
            faults = {"an id again": sent(session, 1, {"../a": NEW}), "a PUT with its id": again, "RECEIPTS": receipts}
            session.say(faults[fault])
        heard = session.hear_all()
    assert [each.fields.get("code") for each in heard if each.kind == "ERROR"] == ["protocol"]
    stage.check()
