"""A server that leaves things out, or never ends: the client says so, and never ends well."""

import os
from pathlib import Path

import pytest
from processes import Client
from speaker import BLOCK, Session, body_of, control, data, message, put_fields
from test_hostile_server import Serve, fetch, hostile, meet, served

FAILED, INTEGRITY = 1, 5
LARGE = os.urandom(BLOCK + 9)
PAGES = 30


def test_get_of_which_a_part_is_never_answered_is_no_success(tmp_path: Path) -> None:
    def serve(session: Session) -> None:
        session.hear()
        session.hear()
        body = body_of(put_fields(1, ["a"], 4, policy="skip"))
        session.say(message("PUT", body), data(1, 0, b"here"), session.end(body, b"here"), message("BYE"))
        session.hear_all()

    result = meet(served(serve), tmp_path, "--get", "a", "b", f"{tmp_path / 'here'}/")
    assert result.status == INTEGRITY
    assert "no answer to a GET" in result.err


def listing(*pages: list[str]) -> Serve:
    """Page by page, each but the last with more to come."""

    def serve(session: Session) -> None:
        for number, names in enumerate(pages, 1):
            session.hear()
            entries = [[name, "file", 1, 1, None] for name in names]
            session.say(control("ENTRY", id=number, entries=entries, more=number < len(pages)))
        session.hear()
        session.say(message("BYE"))

    return serve


@pytest.mark.parametrize(
    "pages",
    [[["a"]] * PAGES, [["a", "b"], ["a"]], [["b", "a"]], [["a", "a"]], [["a"], *[[]] * PAGES, ["b"]]],
    ids=["one name for ever", "backwards in pages", "backwards", "twice", "nothing for ever"],
)
def test_listing_that_does_not_go_on_is_no_listing(tmp_path: Path, pages: list[list[str]]) -> None:
    assert meet(served(listing(*pages)), tmp_path, "--list").status == INTEGRITY


def test_listing_that_goes_on_is_one(tmp_path: Path) -> None:
    """Else the ones above would fail for another reason."""
    result = meet(served(listing(["a", "b"], ["c"])), tmp_path, "--list")
    assert result.status == 0
    assert [line.split()[-1] for line in result.out.splitlines()] == ["a", "b", "c"]


def begun(*then: bytes) -> Serve:
    """A large file of which one block is given, and then that."""

    def serve(session: Session) -> None:
        session.hear()
        session.say(message("PUT", body_of(put_fields(1, ["box"], len(LARGE), policy="skip"))))
        session.expect("ACCEPT")
        session.say(data(1, 0, LARGE[:BLOCK]), *then, message("BYE"))
        session.hear_all()

    return serve


def given_again(size: int | None) -> Serve:
    """A file is withdrawn, and comes again under another id."""

    def serve(session: Session) -> None:
        session.hear()
        session.say(message("PUT", body_of(put_fields(1, ["box"], len(LARGE), policy="skip"))))
        session.expect("ACCEPT")
        session.say(data(1, 0, LARGE[:BLOCK]), control("CANCEL", id=1, code=None))
        if size != 0:
            body = body_of(put_fields(2, ["box"], size, policy="skip"))
            session.say(message("PUT", body))
            if session.hear().kind == "REFUSE":
                session.say(control("CANCEL", id=2, code=None), message("BYE"))
                session.hear_all()
                return
            session.say(data(2, 0, LARGE[:BLOCK]), data(2, BLOCK, LARGE[BLOCK:]), session.end(body, LARGE))
        session.say(message("BYE"))
        session.hear_all()

    return serve


@pytest.mark.parametrize("last", ["withdrawn", "no word", "withdrawn and given again"])
def test_pipe_that_ends_early_is_exit_5(tmp_path: Path, last: str) -> None:
    cancel = control("CANCEL", id=1, code=None)
    serve = {"withdrawn": begun(cancel), "no word": begun(), "withdrawn and given again": given_again(None)}[last]
    with hostile(served(serve)) as impostor, (tmp_path / "out").open("wb") as out:
        client = Client(impostor.port, tmp_path / "client")
        result = client.start("--retries=0", "--get", "box", "-", stdout=out).finish()
    assert result.status == INTEGRITY
    assert "what was written to standard output is not whole" in result.err
    assert (tmp_path / "out").read_bytes() in (b"", LARGE[:BLOCK])


@pytest.mark.parametrize(("size", "status"), [(None, 0), (0, FAILED)])
def test_withdrawn_file_that_comes_again_is_no_failure(tmp_path: Path, size: int | None, status: int) -> None:
    """So come files that hold another amount than the server's file system says."""
    result, found = fetch(served(given_again(size)), tmp_path)
    assert result.status == status
    assert found.get("here/box") == (LARGE if status == 0 else None)
    assert ("changed on the receiver" in result.err) == (status != 0)
