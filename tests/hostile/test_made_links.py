"""Links that a client makes in its own folder: where they lead, nobody ever gets, by any message."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving
from processes import USER, Server
from scene import OTHER, OUTSIDE, SECRET, Stage
from speaker import Session, body_of, control, data, link_fields, message, put_fields

LEADS = {
    "absolute": "{outside}",
    "upwards": f"../../{OUTSIDE}",
    "to a user": f"../{OTHER}",
    "to the hidden area": "../.partial",
}


@pytest.fixture(scope="module")
def linking(tmp_path_factory: pytest.TempPathFactory, accounts: dict[str, Path]) -> Iterator[Server]:
    """A server on which `USER` may do everything, links too, and OTHER has a file."""
    made = Server(tmp_path_factory.mktemp("linking"), accounts[f"{USER}+bob"])
    (made.folder / OUTSIDE).mkdir()
    (made.folder / OUTSIDE / "secret").write_text(SECRET)
    assert made.command("limits", USER, "--rights=put,get,list,replace,remove,links").status == 0
    with serving(made, "--log-level=debug"):
        yield made


@pytest.fixture
def stage(linking: Server) -> Iterator[Stage]:
    linking.path(user=OTHER).mkdir(parents=True, exist_ok=True)
    (linking.path(user=OTHER) / "secret").write_text(SECRET)
    made = Stage(linking)
    yield made
    for each in made.home.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()


def link(session: Session, id: int, path: list[str], target: str, **more: object) -> str:
    """Make a link: the outcome, or the code."""
    session.say(control("PUT", **link_fields(id, path, target, **more)))
    heard = session.hear()
    assert heard.fields["id"] == id
    return str(heard.fields.get("outcome", heard.fields.get("code")))


@pytest.mark.parametrize("lead", LEADS)
def test_nothing_gets_where_a_link_leads(stage: Stage, lead: str) -> None:
    target = LEADS[lead].format(outside=stage.server.folder / OUTSIDE)
    with stage.session() as session:
        assert link(session, 1, ["link"], target) == "stored"
        for id, policy in enumerate(("fail", "rename", "replace", "skip"), 2):
            put = body_of(put_fields(10 * id, ["link", "secret"], 4, policy=policy))
            session.say(message("PUT", put), data(10 * id, 0, b"evil"), session.end(put, b"evil"))
            session.expect("REFUSE", id=10 * id, code="link")
            session.say(control("PUT", **put_fields(10 * id + 1, ["link", "large"], 100_000, policy=policy)))
            session.expect("REFUSE", id=10 * id + 1, code="link")
            session.say(control("CANCEL", id=10 * id + 1, code=None))
            session.say(control("PUT", **put_fields(10 * id + 2, ["link", "d"], None, kind="folder", policy=policy)))
            session.expect("REFUSE", id=10 * id + 2, code="link")
            assert link(session, 10 * id + 3, ["link", "l"], "x", policy=policy) == "link"
        session.say(control("SET", id=100, path=["link"], mtime=0, mode=0o777))
        session.expect("REFUSE", id=100, code="link")
        session.farewell()
    with stage.session() as session:
        questions: dict[str, dict[str, object]] = {
            "LIST": {"path": ["link"], "after": None},
            "TREE": {"path": ["link"], "after": None},
            "REMOVE": {"path": ["link", "secret"], "recursive": True},
            "MOVE": {"path": ["link", "secret"], "to": ["got"]},
            "SET": {"path": ["link", "secret"], "mtime": 0, "mode": 0o777},
        }
        for id, (kind, fields) in enumerate(questions.items(), 1):
            assert session.ask(kind, id=id, **fields).fields["code"] == "link", kind
        session.farewell()
    for path, links in ((["link"], False), (["link", "secret"], False), (["link", "secret"], True)):
        with stage.session() as session:
            session.say(control("GET", id=1, path=path, more=False, links=links))
            session.expect("REFUSE", id=1, code="link")
            session.expect("BYE")
    stage.check_tree({f"received/{USER}/link": f"link to {target}"})


def test_link_is_given_only_to_who_asks_for_links(stage: Stage) -> None:
    (stage.home / "d").mkdir()
    (stage.home / "d" / "link").symlink_to(stage.server.folder / OUTSIDE)
    for links in (False, True):
        with stage.session() as session:
            session.say(control("GET", id=1, path=["d"], more=False, links=links))
            assert session.expect("PUT")["kind"] == "folder"
            if links:
                target = str(stage.server.folder / OUTSIDE)
                given = session.expect("PUT", path=["d", "link"], target=target, size=None, mode=None)
                assert given["kind"] == "link"
            else:
                session.expect("OMITTED", code="link", name="d/link")
            session.expect("BYE")


@pytest.mark.parametrize("target", [None, "", "a\0b", "x" * 4096, 7, b"x", ["x"]])
def test_target_that_no_link_can_have_is_a_violation(stage: Stage, target: object) -> None:
    stage.remember()
    with stage.session() as session:
        session.say(control("PUT", **{**link_fields(1, ["link"], "x"), "target": target}))
        session.expect("ERROR", code="protocol")
    stage.check()


def test_account_without_the_right_makes_no_link_with_any_policy(besieged: Server) -> None:
    stage = Stage(besieged)
    with stage.session() as session:
        for id, policy in enumerate(("fail", "rename", "replace", "skip"), 1):
            assert link(session, id, ["link"], "x", policy=policy) == "denied"
        session.farewell()
    stage.check()


def test_any_number_of_links_at_once_is_stored(stage: Stage) -> None:
    with stage.session() as session:
        session.say(*(control("PUT", **link_fields(id, [f"l{id}"], "x")) for id in range(1, 5001)))
        heard = [session.hear() for _ in range(5000)]
        assert [each.fields["outcome"] for each in heard] == ["stored"] * 5000
        session.farewell()
    assert len(os.listdir(stage.home)) == 5000


def test_end_of_a_link_is_a_violation(stage: Stage) -> None:
    with stage.session() as session:
        assert link(session, 1, ["link"], "x") == "stored"
        session.say(control("CANCEL", id=1, code=None))
        session.expect("ERROR", code="protocol")
