"""`--on-delivered` at a real server: what is run for which files, and that no program there is felt by a sender."""

import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from processes import HOME, MIB, USER, Client, Server, make, wait_until

MakeHook = Callable[..., Server]
KEEPS = 'cat >"$OUT/writing.$$"; mv "$OUT/writing.$$" "$OUT/run.$$"'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def hooked(make_server: MakeServer, tmp_path: Path, out: Path) -> Iterator[MakeHook]:
    """Makes servers that run a script: `$OUT` in it is the folder `out`."""

    def make(text: str, *flags: str) -> Server:
        script = tmp_path / "a hook"
        script.write_text(f"#!/bin/sh\nOUT='{out}'\n{text}\n")
        script.chmod(0o755)
        return make_server(f"--on-delivered='{script}'", *flags)

    yield make


def client_of(server: Server, tmp_path: Path) -> Client:
    return Client(server.port, tmp_path / "client")


def runs(out: Path) -> list[list[dict[str, Any]]]:
    """What each run has got."""
    return [
        [json.loads(line) for line in each.read_text().splitlines()]
        for each in sorted(out.glob("run.*"), key=lambda path: path.stat().st_mtime_ns)
    ]


def ends(process: int) -> None:
    """Wait until it is no more."""

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone)


# --- what is run for which files ---


def test_many_small_files_are_one_run_with_a_line_for_each(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = hooked(KEEPS)
    for number in range(50):
        make(folder / "tree" / f"file {number}", 30)
    assert client_of(server, tmp_path)(folder / "tree", "in/").status == 0
    wait_until(lambda: runs(out))
    (got,) = runs(out)
    assert sorted(each["path"] for each in got) == sorted(f"in/tree/file {number}" for number in range(50))
    for each in got:
        there = Path(each["full_path"])
        assert there == server.path(*each["path"].split("/"))
        assert (each["bytes"], each["sha256"]) == (30, hashlib.sha256(there.read_bytes()).hexdigest())
        assert (each["user"], each["source"], each["kind"]) == (USER, "127.0.0.1", "file")
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", each["time"])
    assert server.stop() == 0 and server.errors() == ""


def test_what_was_stored_is_reported_and_what_was_there_or_only_moved_is_not(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = hooked(KEEPS)
    assert server.command("limits", USER, "--rights", "put,get,list,replace,remove,links").status == 0
    client = client_of(server, tmp_path)
    large, small = make(folder / "large", MIB), make(folder / "small")
    (folder / "tree" / "empty").mkdir(parents=True)
    (folder / "tree" / "link").symlink_to("nowhere")
    assert client(large, "large").status == 0
    assert client("--if-exists=rename", small, "large").status == 0
    assert client("--if-exists=replace", large, "large.1").status == 0
    assert client("--links", folder / "tree", "tree").status == 0
    wait_until(lambda: len(runs(out)) == 4)
    assert client(large, "large").status == 0  # it is there already
    assert client("--if-exists=skip", small, "large").status == 0
    assert client("--move", "large", "other").status == 0
    assert client(small, "last").status == 0
    wait_until(lambda: len(runs(out)) == 5)
    got = [each for run in runs(out) for each in run]
    names = [("large", MIB), ("large.1", 20), ("large.1", MIB), ("tree/link", None), ("last", 20)]
    assert [(each["path"], each.get("bytes")) for each in got] == names
    assert {each["path"]: (each["kind"], each.get("target")) for each in got}["tree/link"] == ("link", "nowhere")


def test_name_with_quotes_arrives_as_it_is(hooked: MakeHook, tmp_path: Path, out: Path, folder: Path) -> None:
    server = hooked(KEEPS)
    name = "quo\"te' $(touch x) ünï"
    assert client_of(server, tmp_path)(make(folder / "a"), name).status == 0
    wait_until(lambda: runs(out))
    ((each,),) = runs(out)
    assert each["path"] == name and Path(each["full_path"]).exists()


def test_program_has_neither_our_variables_nor_descriptors_nor_folder(
    make_server: MakeServer, tmp_path: Path, out: Path, folder: Path
) -> None:
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\n(env; pwd; ls /proc/self/fd) >{out}/writing; mv {out}/writing {out}/said\n")
    script.chmod(0o755)
    server = make_server()
    assert server.stop() == 0
    server.environment |= {"SFT_PASSWORD": "a secret", "AWS_SECRET": "a secret", "LC_TIME": "C.UTF-8"}
    server.start(f"--on-delivered={script}")
    assert client_of(server, tmp_path)(make(folder / "a"), "a").status == 0
    wait_until((out / "said").exists)
    said = (out / "said").read_text().splitlines()
    assert "a secret" not in "".join(said) and "LC_TIME=C.UTF-8" in said
    names = {line.partition("=")[0] for line in said if "=" in line}
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {name for name in names - allowed if not name.startswith("LC_")} == set()
    assert "/" in said
    assert {line for line in said if line.isdecimal()} <= {"0", "1", "2", "3"}, "3 is what ls reads"


def test_server_whose_parent_ignores_the_ends_of_children_starts_and_learns_of_each(
    make_server: MakeServer, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = make_server()
    assert server.stop() == 0
    script = tmp_path / "hook"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        server.start(f"--on-delivered={script}", fresh=True)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert client_of(server, tmp_path)(make(folder / "a"), "a").status == 0
    wait_until(lambda: "on_delivered failed for 1 file of" in server.told())
    assert "exit status 7" in server.told()


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_script_of_operations_reads_what_it_is_given(make_server: MakeServer, tmp_path: Path, folder: Path) -> None:
    script = tmp_path / "hook"
    (text,) = re.findall(r"```sh\n(#!/bin/sh.*?)```", (HOME / "docs/OPERATIONS.md").read_text(), re.S)
    script.write_text(text)
    script.chmod(0o755)
    server = make_server(f"--on-delivered={script}")
    assert client_of(server, tmp_path)(make(folder / "a b"), "a b").status == 0
    wait_until(lambda: f"on_delivered prints: {server.path('a b')} has arrived\n" in server.told())


# --- programs that go wrong ---


def test_program_that_fails_is_logged_and_not_felt_by_the_sender(
    hooked: MakeHook, tmp_path: Path, folder: Path
) -> None:
    server = hooked("cat >/dev/null; echo 'no such\tqueue' >&2; exit 3")
    sent = client_of(server, tmp_path)(make(folder / "a"), "a")
    assert (sent.status, sent.err) == (0, "")
    wait_until(lambda: "on_delivered failed for 1 file of alice, such as a: exit status 3" in server.told())
    assert "on_delivered prints: no such\\tqueue" in server.told()
    assert server.stop() == 0 and server.errors() == ""


def test_program_that_hangs_is_killed_with_what_it_started_and_the_next_is_run(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = hooked(
        f'test -e "$OUT/hung" && {{ {KEEPS}; exit; }}; sleep 1000 & echo $$ $! >"$OUT/hung"; wait',
        "--on-delivered-seconds=1",
    )
    client = client_of(server, tmp_path)
    assert client(make(folder / "a"), "a").status == 0
    assert client(make(folder / "b"), "b").status == 0, "it waits for nobody"
    wait_until(lambda: "such as a: killed after 1 s" in server.told())
    for process in (out / "hung").read_text().split():
        ends(int(process))
    wait_until(lambda: runs(out))
    assert [each["path"] for each in runs(out)[0]] == ["b"]
    assert server.stop() == 0


def test_what_a_program_leaves_behind_ends_with_it_and_keeps_nobody_waiting(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = hooked('cat >/dev/null; sleep 1000 & echo $! >"$OUT/left"; exit 0', "--log-level=debug")
    assert client_of(server, tmp_path)(make(folder / "a"), "a").status == 0
    wait_until(lambda: "on_delivered has run for 1 file of alice, such as a in " in server.told())
    ends(int((out / "left").read_text()))
    assert server.stop() == 0


@pytest.mark.parametrize("text", ["exec 0<&-; exit 0", "exit 0", "exec 0<&- 1>&- 2>&-; exit 0"])
def test_program_that_reads_nothing_is_no_failure(hooked: MakeHook, tmp_path: Path, folder: Path, text: str) -> None:
    """What it is given does not fit into a pipe."""
    server = hooked(text, "--log-level=debug")
    for number in range(400):
        make(folder / "tree" / f"{number}{'x' * 200}", 1)
    assert client_of(server, tmp_path)(folder / "tree", "tree").status == 0
    wait_until(lambda: "on_delivered has run for " in server.told())
    assert server.stop() == 0
    assert "on_delivered failed" not in server.told()


def test_program_that_writes_a_lot_fills_no_log(hooked: MakeHook, tmp_path: Path, folder: Path) -> None:
    server = hooked("cat >/dev/null; yes 'a line' | head -c 3000000; exit 0", "--log-level=debug")
    assert client_of(server, tmp_path)(make(folder / "a"), "a").status == 0
    wait_until(lambda: "on_delivered has run for " in server.told())
    assert server.told().count("on_delivered prints: a line\n") == 20
    assert re.search(r"on_delivered prints 29998\d\d more bytes\n", server.told())
    assert server.stop() == 0


# --- settings, stopping, metrics ---


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nowhere-to-be-found x", 'on_delivered: there is no program "nowhere-to-be-found"'),
        ("/dev/null", 'on_delivered: there is no program "/dev/null"'),
        ("./server.py", 'on_delivered: there is no program "./server.py"'),
        ("'a", "is not a command (no closing quotation)"),
        ("''", "names no program"),
    ],
)
def test_command_that_can_not_be_run_is_an_error_at_the_start(server: Server, command: str, words: str) -> None:
    refused = server.command(f"--on-delivered={command}", "--port=0")
    assert refused.status == 2 and words in refused.err and refused.err.count("\n") == 1


def test_command_is_taken_with_the_settings_unless_it_can_not_be_run(
    make_server: MakeServer, tmp_path: Path, out: Path, folder: Path
) -> None:
    server, settings, script = make_server(), tmp_path / "settings.toml", tmp_path / "hook"
    script.write_text(f"#!/bin/sh\nOUT='{out}'\n{KEEPS}\n")
    script.chmod(0o755)
    assert server.stop() == 0
    settings.write_text("")
    server.start("--config", str(settings))
    client = client_of(server, tmp_path)
    assert client(make(folder / "a"), "a").status == 0
    settings.write_text(f'on_delivered = "{script}"\n')
    server.signal(signal.SIGHUP)
    wait_until(lambda: "settings loaded; changed: on_delivered" in server.told())
    settings.write_text('on_delivered = "/nowhere/at/all"\n')
    server.signal(signal.SIGHUP)
    wait_until(lambda: "the settings stay as they are: on_delivered: there is no program" in server.told())
    assert client(make(folder / "b"), "b").status == 0
    wait_until(lambda: runs(out))
    assert [[each["path"] for each in run] for run in runs(out)] == [["b"]]
    assert server.stop() == 0


def test_server_that_stops_waits_for_the_program(hooked: MakeHook, tmp_path: Path, out: Path, folder: Path) -> None:
    server = hooked(f'touch "$OUT/began"; until [ -e "$OUT/go" ]; do sleep 0.01; done; {KEEPS}', "--grace=1000")
    client = client_of(server, tmp_path)
    for name in ("a", "b"):
        assert client(make(folder / name), name).status == 0
    wait_until((out / "began").exists)
    server.signal()
    wait_until(lambda: "stopping; " in server.told())
    (out / "go").touch()
    assert server.ended() == 0
    assert [[each["path"] for each in run] for run in runs(out)] == [["a"], ["b"]]


def test_second_signal_kills_the_program_and_what_was_not_run_is_named(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    server = hooked('echo $$ >"$OUT/began"; sleep 1000', "--grace=1000")
    client = client_of(server, tmp_path)
    for name in ("a", "b"):
        assert client(make(folder / name), name).status == 0
    wait_until(lambda: (out / "began").exists() and (out / "began").read_text())
    server.signal()
    wait_until(lambda: "stopping; " in server.told())
    server.signal()
    assert server.ended() == 0
    ends(int((out / "began").read_text()))
    assert "on_delivered failed for 1 file of alice, such as a: killed, because the server stops" in server.told()
    assert "on_delivered is not run for 1 file of alice, such as b: the server stops" in server.told()


def test_killed_server_leaves_the_file_without_its_run(
    hooked: MakeHook, tmp_path: Path, out: Path, folder: Path
) -> None:
    """At most once: a file that is there, with its receipt, and a program that never heard of it."""
    server = hooked(f'touch "$OUT/began"; until [ -e "$OUT/go" ]; do sleep 0.01; done; {KEEPS}')
    client = client_of(server, tmp_path)
    for name in ("a", "b"):
        assert client(make(folder / name), name).status == 0
    wait_until((out / "began").exists)
    server.kill()
    (out / "go").touch()
    server.start("--on-delivered=true")
    assert client.at(server.port)(make(folder / "c"), "c").status == 0
    assert server.stop() == 0
    assert os.listdir(server.path()) and all(server.path(name).exists() for name in "abc")
    assert ["b"] not in [[each["path"] for each in run] for run in runs(out)]
