"""The server's first start, its account commands, and advice that can be followed as it stands."""

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer, RunHere
from processes import PASSWORD, USER, Client, Result, Server, Terminal, make, run

from sft.accounts import format as accounts_format
from sft.server import options

LISTEN = "--listen=127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def first_start(server: Server, *flags: str) -> Terminal:
    return Terminal("server.py", *server.settings, LISTEN, *flags)


# --- The first start --------------------------------------------------------------------------------------------------


def test_first_start_that_fails_makes_no_account_and_the_next_one_does(tmp_path: Path, taken: int) -> None:
    server = Server(tmp_path / "first")
    with first_start(server, f"--port={taken}") as terminal:
        assert terminal.finish() == 2
    assert f"can't listen on 127.0.0.1 port {taken}" in terminal.screen
    assert not server.accounts.exists()
    with first_start(server, "--port=0") as terminal:
        terminal.expect("shown only now")
        terminal.type("\x03", end="")
        assert terminal.finish() == 0


@pytest.mark.parametrize("trouble", ["log", "storage", "area"])
def test_no_trouble_of_a_first_start_leaves_an_account(tmp_path: Path, trouble: str) -> None:
    server = Server(tmp_path / "first")
    if trouble == "log":
        server.log.mkdir()
    elif trouble == "storage":
        server.storage.write_text("no folder")
    else:
        (server.storage / ".partial").mkdir(parents=True)
        (server.storage / ".partial").chmod(0o777)
    with first_start(server, "--port=0") as terminal:
        assert terminal.finish() == 2
    assert not server.accounts.exists()
    assert "password   " not in terminal.screen


def test_empty_storage_folder_is_no_obstacle_to_a_first_start(tmp_path: Path) -> None:
    server = Server(tmp_path / "first")
    (server.storage / ".partial").mkdir(parents=True, mode=0o700)
    with first_start(server, "--port=0") as terminal:
        terminal.expect("shown only now")
        terminal.type("\x03", end="")
        assert terminal.finish() == 0


# --- Advice -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A settings file that names everything, at a place with a space in it."""
    folder = tmp_path / "a place"
    folder.mkdir()
    file = folder / "settings.toml"
    file.write_text('storage = "received"\naccounts = "accounts.txt"\nserver_log = "server.log"\nport = 0\n')
    return file


def advised(result: Result) -> list[str]:
    """The arguments of the command that an error or a warning tells to run."""
    (line,) = result.err.splitlines()
    return shlex.split(line[line.index("python server.py") :])[2:]


def test_advice_repeats_the_settings_in_use_and_can_be_followed(configured: Path) -> None:
    started = run("server.py", "--config", configured)
    assert started.status == 2
    name = advised(started)
    assert name == ["--config", str(configured), "adduser", "NAME"]
    secret = configured.parent / "secret"
    secret.write_text(PASSWORD)
    added = run("server.py", *name[:-1], "alice", "--password-file", secret)
    assert added.status == 0, added
    assert (configured.parent / "accounts.txt").exists()
    assert "there are no accounts" not in run("server.py", "--config", configured, "users").err
    unknown = run("server.py", "passwd", "bob", "--config", configured, "--password-file", secret)
    assert advised(unknown) == ["--config", str(configured), "users"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["users"],
        ["passwd", "alice"],
        ["deluser", "alice"],
        ["limits", "alice"],
        ["recount"],
        [],
    ],
    ids=lambda arguments: " ".join(arguments) or "start",
)
def test_every_command_without_accounts_names_the_settings_in_use(
    run_here: RunHere, configured: Path, arguments: list[str]
) -> None:
    before = run_here("server.py", "--config", configured, *arguments)
    assert before.status == 2 and advised(before)[:2] == ["--config", str(configured)]
    if arguments:
        assert run_here("server.py", *arguments, "--config", configured) == before
    flags = [f"--accounts={configured.parent / 'others.txt'}", f"--storage={configured.parent / 'others'}"]
    by_flags = run_here("server.py", *arguments, *flags)
    assert advised(by_flags)[:4] == ["--accounts", flags[0].split("=")[1], "--storage", flags[1].split("=")[1]]


def test_removing_an_account_names_its_folder_only_if_something_is_there(server: Server, tmp_path: Path) -> None:
    own = Server(tmp_path / "own", server.accounts)
    own.add("bob", "--quota=1G")
    make(own.storage / "alice" / "a")
    assert "0 B in 0 files" in own.command("users").out and (own.storage / "bob").exists()
    cut_off = "connections that it has are cut off within a second"
    assert own.command("deluser", "bob").out == f"removed bob; {cut_off}\n"
    kept = f"what it sent stays in {own.storage / 'alice'}"
    assert own.command("deluser", "alice").out == f"removed alice; {cut_off}, and {kept}\n"
    assert own.command("users") == Result(0, "", "there are no accounts\n")
    assert own.command("recount").out == "no account has a quota: nothing was counted\n"


def test_command_that_is_told_no_settings_names_none(run_here: RunHere, tmp_path: Path) -> None:
    result = run_here("server.py", "users", cwd=tmp_path)
    assert "--config" not in result.err


# --- An account under an old name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["bob/old.txt", "bob/folder/old.txt", ".partial/bob/" + "0" * 64])
def test_account_under_an_old_name_needs_a_word_to_get_the_old_files(
    run_here: RunHere, tmp_path: Path, place: str
) -> None:
    server = Server(tmp_path / "server")
    old, secret = make(server.storage / place), tmp_path / "secret"
    secret.write_text(PASSWORD)
    command = ["adduser", "bob", "--password-file", str(secret)]
    refused = run_here("server.py", *server.settings, *command)
    assert refused.status == 2 and not server.accounts.exists()
    folder = server.storage.joinpath(*Path(place).parts[: 1 + place.startswith(".partial")])
    assert f"there are files of an earlier account bob in {folder}" in refused.err
    assert advised(refused)[-3:] == ["adduser", "bob", "--keep-files"]
    assert run_here("server.py", *server.settings, *command, "--keep-files").status == 0
    assert old.exists()


def test_account_under_a_name_that_left_nothing_is_just_made(run_here: RunHere, tmp_path: Path) -> None:
    server, secret = Server(tmp_path / "server"), tmp_path / "secret"
    secret.write_text(PASSWORD)
    (server.storage / "bob").mkdir(parents=True)
    make(server.storage / ".partial/bob/receipts")
    make(server.storage / ".partial/bob/ledger")
    assert run_here("server.py", *server.settings, "adduser", "bob", "--password-file", secret).status == 0


def test_old_files_that_can_not_be_seen_are_not_given_away(run_here: RunHere, tmp_path: Path) -> None:
    server, secret = Server(tmp_path / "server"), tmp_path / "secret"
    secret.write_text(PASSWORD)
    make(server.storage / "bob")  # a file where the folder would be
    refused = run_here("server.py", *server.settings, "adduser", "bob", "--password-file", secret)
    assert refused.status == 2 and "can't look into" in refused.err and not server.accounts.exists()


def test_account_of_the_first_start_may_do_everything(tmp_path: Path) -> None:
    server = Server(tmp_path / "first")
    with first_start(server, "--port=0") as terminal:
        terminal.expect(f"@{os.uname().nodename}:\n\n")
    assert server.command("users").out.split()[1] == "put,get,list,replace,remove,links"


# --- rights -----------------------------------------------------------------------------------------------------------


def test_rights_of_the_command_line_are_those_of_the_accounts_file() -> None:
    assert options.RIGHTS == accounts_format.RIGHTS
    assert all(set(words) < set(options.RIGHTS) for words in (options.DEFAULT_RIGHTS, *options.PRESETS.values()))


@pytest.mark.parametrize(
    ("flags", "rights"),
    [
        ([], "put,get,list,replace"),
        (["--drop-only"], "put"),
        (["--append-only"], "put,get,list"),
        (["--read-only"], "get,list"),
        (["--rights=remove,put"], "put,remove"),
        (["--rights", "put,get,list,replace,remove"], "put,get,list,replace,remove"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_account_has_the_rights_it_was_given_and_limits_changes_them(
    tmp_path: Path, accounts: dict[str, Path], flags: list[str], rights: str
) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    server.add("bob", *flags)
    assert server.command("users").out.splitlines()[1].split() == ["bob", rights]
    changed = server.command("limits", USER, *(flags or ["--rights=put,get,list"]))
    assert (changed.status, changed.err) == (0, "")
    assert changed.out.splitlines()[1].split() == ["rights", rights if flags else "put,get,list"]
    again = server.command("limits", USER, *(flags or ["--rights=put,get,list"]))
    assert "nothing was changed" in again.out


def test_signs_add_to_the_rights_that_an_account_has_and_take_from_them(
    tmp_path: Path, accounts: dict[str, Path]
) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    server.add("bob", "--rights", "+links")
    for words, rights in (
        ("", "put,get,list,replace,links"),
        ("+remove", "put,get,list,replace,remove,links"),
        ("-links,-replace", "put,get,list,remove"),
        ("+put", "put,get,list,remove"),
    ):
        told = server.command("limits", "bob", *([f"--rights={words}"] if words else []))
        line = next(line for line in told.out.splitlines() if line.startswith("rights "))
        assert (told.status, line.split()) == (0, ["rights", rights])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rights="], '--rights: "" is not a right. Choose from put, get, list, replace, remove, links'),
        (["--rights=put,link"], '--rights: "link" is not a right'),
        (["--rights=put, get"], '--rights: " get" is not a right'),
        (["--rights=all"], '--rights: "all" is not a right'),
        (["--rights=put", "--drop-only"], "--drop-only: not allowed with argument --rights"),
        (["--append-only", "--read-only"], "not allowed with argument"),
        (["--rights=+link"], '--rights: "+link" is not a right'),
        (["--rights=+"], '--rights: "+" is not a right'),
        (["--rights=+links,put"], '--rights: "+links,put" has words with + or - and others without'),
        (["--rights=-put,-get,-list,-replace,-remove,-links"], "leaves no right. deluser NAME removes the account"),
    ],
)
@pytest.mark.parametrize("command", ["adduser", "limits"])
def test_refuse_rights_that_do_not_exist_and_two_sets_of_them(
    run_here: RunHere, tmp_path: Path, accounts: dict[str, Path], command: str, flags: list[str], words: str
) -> None:
    server = Server(tmp_path / "server", accounts[USER])
    name = USER if command == "limits" else "bob"
    result = run_here("server.py", *server.settings, command, name, *flags)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert words in result.err


def test_right_without_effect_is_said_so(run_here: RunHere, tmp_path: Path) -> None:
    server, secret = Server(tmp_path / "server"), tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    said = "warning: the right replace does nothing without get: add it with --rights +get\n"
    flags = ["--password-file", secret, "--rights"]
    for name, rights, warning in (("a", "replace", said), ("b", "put,replace", said), ("c", "get,replace", "")):
        result = run_here("server.py", *server.settings, "adduser", name, *flags, rights)
        assert (result.status, result.err) == (0, warning)
    result = run_here("server.py", *server.settings, "limits", "c", "--rights", "replace")
    assert (result.status, result.err) == (0, said)


def test_accounts_file_of_before_works_on(make_server: MakeServer, client: Client, tmp_path: Path) -> None:
    """Its accounts could replace; a change of one line leaves the others as they are."""
    server = make_server()
    lines = server.accounts.read_text().replace(" may=put,get,list,replace ", " rights=put,get,list ")
    server.accounts.write_text(lines)
    assert server.command("users").out.split() == [USER, "put,get,list,replace"]
    here, source = client.at(server.port), make(tmp_path / "a", 10)
    assert here("-q", source, "a").status == 0
    source.write_bytes(b"another")
    assert here("-q", "--if-exists=replace", source, "a").status == 0
    assert "it lacks the right remove" in here("--remove", "a").err
    server.add("bob")
    assert server.accounts.read_text().startswith(lines)
    assert server.command("limits", USER, "--rights=put").status == 0
    assert " may=put quota" in server.accounts.read_text() and "rights=" not in server.accounts.read_text()
