"""The hostile speaker works with both real programs as long as no test asks it for a fault."""

import ast
from pathlib import Path

import pytest
import speaker
from processes import PASSWORD, USER, Client, Impostor, Server, content
from speaker import Broken, Line, let_in, log_in, message
from test_architecture import MODULES, imports_of

SIZES = {"empty": 0, "small": 65536, "large": 65537, "several blocks": 3 * 2**20 + 5}


def test_client_that_keeps_to_the_rules_sends_lists_and_fetches(server: Server, box: str) -> None:
    with Line(server.port) as line:
        session = log_in(line, USER, PASSWORD)
        for id, (name, size) in enumerate(SIZES.items(), 1):
            told = session.send(id, [box, name], content(size))
            assert (told["outcome"], told["path"]) == ("stored", [box, name])
        session.farewell()
    with Line(server.port) as line:
        session = log_in(line, USER, PASSWORD)
        assert session.names_in(box) == sorted(SIZES)
        session.farewell()
    with Line(server.port) as line:
        fetched = log_in(line, USER, PASSWORD).fetch(box)
        assert fetched == {(box, name): server.path(box, name).read_bytes() for name in SIZES}
        assert [len(fetched[box, name]) for name in SIZES] == list(SIZES.values())


def test_server_that_keeps_to_the_rules_takes_and_gives(tmp_path: Path, folder: Path) -> None:
    taken: dict[tuple[str, ...], bytes] = {}

    def serve(line: Line) -> None:
        session = let_in(line, PASSWORD)
        first = session.hear()
        if first.kind == "GET":
            flags = {"more": False, "zstd": True, "offers": False}
            assert first.fields == {"id": 1, "path": ["box", "large"], **flags, "depth": 1, "links": False}
            session.send(1, ["large"], taken["box", "large"], policy="skip")
            session.farewell()
        else:
            taken.update(session.take_all(first))
            session.say(message("BYE"))
            session.line.stop()
            session.line.rest()

    for name, size in SIZES.items():
        (folder / name).write_bytes(content(size))
    impostor = Impostor(lambda sock: serve(Line(sock)))
    try:
        client = Client(impostor.port, tmp_path / "client")
        sent = client(*(folder / name for name in SIZES), "box/", "--retries=0")
        assert sent.status == 0, sent
        assert taken == {("box", name): (folder / name).read_bytes() for name in SIZES}
        fetched = client("--get", "box/large", tmp_path / "back", "--retries=0")
        assert fetched.status == 0, fetched
        assert (tmp_path / "back").read_bytes() == (folder / "large").read_bytes()
    finally:
        impostor.close()


def test_speaker_notices_a_server_that_does_not_know_the_password(tmp_path: Path, server: Server) -> None:
    with Line(server.port, "127.0.7.1") as line, pytest.raises(Broken, match="confirmV"):
        log_in(line, "nobody", PASSWORD)


def test_speaker_imports_no_room_of_the_project() -> None:
    """It has to come to the same bytes by the document alone."""
    tree = ast.parse(Path(speaker.__file__).read_text("utf-8"))
    assert not set(imports_of(tree)) & set(MODULES)
