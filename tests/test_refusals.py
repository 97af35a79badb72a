"""An error says which end it is about, which path there, and why, in the words of the job that it ends."""

import re
from pathlib import Path

from conftest import MakeServer
from processes import Client, Server, make
from tables import each_row

from sft.client.refusals import (
    not_changed,
    not_given,
    not_moved,
    omitted,
    refused_here,
    refused_there,
    usage_not_given,
)
from sft.common.errors import Code, PeerStopped, Refused


@each_row("code", Code)
def test_refusal_of_what_is_sent_names_the_path_at_the_receiver(code: Code) -> None:
    told = refused_there(Refused(code), "box/{name}.txt")
    assert "box/{name}.txt" in told.cause and "receiver" in told.cause and told.remedy
    assert not re.search(r"\b(here|fetch|list)", str(told))


@each_row("code", [code for code in Code if code is not Code.SIZE])
def test_refusal_of_what_is_fetched_names_the_path_here_and_why(code: Code) -> None:
    told = refused_here(Refused(code, why="Permission denied"), "copy/a.txt")
    assert "copy/a.txt" in told.cause and " here" in told.cause and told.cause.endswith(" (Permission denied)")
    assert "receiver" not in told.cause and not re.search(r"server\.log|\b(send|store)\b", str(told))


@each_row("tell", [not_given, lambda problem, path: omitted(problem.code, path)])
@each_row("code", Code)
def test_refusal_to_give_or_list_names_the_path_at_the_receiver(code: Code, tell: type[Refused]) -> None:
    told = tell(Refused(code), "photos/a")  # type: ignore[arg-type]
    assert "photos/a" in told.cause and "on the receiver" in told.cause and told.remedy
    assert not re.search(r"\b(store|send|write)\b", str(told)), told


@each_row("code", Code)
def test_end_of_a_connection_is_told_in_words_that_fit_every_job(code: Code) -> None:
    told = str(PeerStopped(code))
    assert re.match("the (receiver|other end) |your account ", told)
    assert not re.search(r"\b(store|send|fetch|list|write)\b", told)


@each_row("code", Code)
def test_cause_in_a_log_names_no_end_and_no_job(code: Code) -> None:
    assert not re.search(r"receiver|\b(here|your|store|stored|send|fetch|list)\b", code.cause)


def test_missing_right_is_named_with_the_command_that_gives_it() -> None:
    denied = Refused(Code.DENIED)
    for told, job, right in (
        (refused_there(denied, "a"), "send a", "put"),
        (not_given(denied, "a"), "fetch a", "get"),
        (not_given(denied, "a", "list"), "list a", "list"),
        (not_changed(denied, "a"), "remove a", "remove"),
        (not_moved(denied, "a", "b"), "move a", "remove, or put"),
        (usage_not_given(denied), "see how much you use", "list"),
    ):
        assert told.cause == f"your account may not {job} on the receiver: it lacks the right {right}"
        added = "+" + right.replace(", or ", ",+")
        assert told.remedy == f"The receiver's owner can add it: python server.py limits USER --rights {added}"


def test_folder_of_a_user_that_is_a_file_is_no_matter_of_storing(
    make_server: MakeServer, client: Client, folder: Path
) -> None:
    server = make_server()
    make(server.storage / "alice")
    said = "error: the receiver can't use your folder there. The reason is in its server.log\n"
    for job in (["--list"], ["--get", "a", f"{folder}/"], [make(folder / "a"), "a"]):
        result = client.at(server.port)(*job)
        assert (result.status, result.err) == (4, said)
    assert "can't open the user's folder: a part of that path is a file, not a folder" in server.told()


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
