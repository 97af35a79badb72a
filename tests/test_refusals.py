"""An error says which end it is about, which path there, and why."""

from pathlib import Path

import pytest
from processes import Client, Server, make

from sft.client.refusals import _ASKED, _FETCHED, _SENT, not_given, refused_here, refused_there
from sft.common.errors import Code, Refused


@pytest.mark.parametrize("code", _SENT)
def test_refusal_of_what_is_sent_names_the_path_at_the_receiver(code: Code) -> None:
    told = refused_there(Refused(code), "box/{name}.txt")
    assert "box/{name}.txt" in told.cause and "receiver" in told.cause and " here" not in str(told)


@pytest.mark.parametrize("code", [code for code in _FETCHED if code is not Code.SIZE])
def test_refusal_of_what_is_fetched_names_the_path_here_and_why(code: Code) -> None:
    told = refused_here(Refused(code, why="Permission denied"), "copy/a.txt")
    assert "copy/a.txt" in told.cause and " here" in told.cause and told.cause.endswith(" (Permission denied)")
    assert "receiver" not in told.cause and "server.log" not in told.remedy


@pytest.mark.parametrize("code", _ASKED)
def test_refusal_to_give_or_list_names_the_path_at_the_receiver(code: Code) -> None:
    told = not_given(Refused(code), "photos/a")
    assert "photos/a" in told.cause and "on the receiver" in told.cause


def test_code_that_is_about_no_path_keeps_its_words() -> None:
    for tell in (refused_there, refused_here, not_given):
        assert str(tell(Refused(Code.STOPPING), "a")) == str(Refused(Code.STOPPING))


def test_what_is_wrong_with_the_other_name_is_said_of_that(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    """`secret.txt` is fine: it is `out.txt` that exists already."""
    source, there = make(folder / "secret.txt"), make(server.path(box, "out.txt"))
    result = client(source, f"{box}/out.txt")
    words = "exists already on the receiver. Choose another name, or --if-exists rename, replace or skip\n"
    assert (result.status, result.err) == (1, f"error: {source}: {box}/out.txt {words}")
    here = make(tmp_path / "mine.txt", 30)
    result = client("--get", f"{box}/{there.name}", here)
    words = "exists already here. Choose another TARGET, or --if-exists rename, replace or skip\n"
    assert (result.status, result.err) == (1, f"error: out.txt: {here} {words}")


def test_path_that_is_the_name_is_not_said_twice(client: Client, folder: Path, box: str) -> None:
    for job in (["--list", f"{box}/missing"], ["--get", f"{box}/missing", folder / "x"]):
        result = client(*job)
        assert result.err == f"error: {box}/missing does not exist on the receiver. Check the name\n"
        assert result.status == 1
