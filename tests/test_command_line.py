"""What a command may say: which option goes with which job, `--`, and names that are none."""

import json
from pathlib import Path

import pytest
from conftest import RunHere
from processes import Client, Server, make

from client import _parser
from config import ClientSettings, ServerSettings, settings_of
from sft.common.errors import UsageError
from sft.console.command_line import check_command, flag_of, read_intermixed

JOBS = {
    "send": ["a", "b"],
    "pipe": ["-", "b"],
    "dry": ["--dry-run", "a", "b"],
    "get": ["--get", "a", "b"],
    "stdout": ["--get", "a", "-"],
    "list": ["--list", "a"],
    "remove": ["--remove", "a"],
    "move": ["--move", "a", "b"],
    "usage": ["--usage"],
    "show": ["--show-config"],
}
EVERYWHERE = "send pipe dry get stdout list remove move usage show"
THAT_ARE_JOBS = ("--get", "--list", "--remove", "--move", "--usage")
# The jobs that each option goes with.
GOES_WITH = {
    "--exclude": "send dry get show",
    "--exclude-from": "send dry get show",
    "--files-from": "send get dry show",
    "--null": "send get dry show",
    "--one-file-system": "send dry show",
    "--follow": "send dry show",
    "--update": "send dry get show",
    "--delete": "send dry get show",
    "--max-delete": "send dry get show",
    "--check": "send get show",
    "--links": "send dry get show",
    "--no-modes": "send dry get show",
    "--preserve-mode": "send dry get show",
    "--receipts": "send pipe dry get stdout show",
    "--dry-run": "send pipe dry get show",
    "--json": "send pipe dry get stdout list remove move usage",
    "--verbose": EVERYWHERE,
    "--quiet": "send pipe get stdout remove move",
    "--if-exists": "send pipe dry get show",
    "--limit": "send pipe dry get stdout show",
    "--get": "get stdout send show",  # another job is the same command with another meaning
    "--list": "show list",
    "--remove": "show remove",
    "--move": "show move",
    "--usage": "show usage",
    "--recursive": "send pipe dry get stdout show list remove",
    "--yes": "show remove",
    "--human": "show usage",
    "--show-config": EVERYWHERE,
    "--version": EVERYWHERE,
    "--password-fd": EVERYWHERE,
    "--config": EVERYWHERE,
    **{
        flag: EVERYWHERE for flag in map(flag_of, settings_of(ClientSettings)) if flag not in ("--if-exists", "--limit")
    },
}
WITH = {  # options that go only with others
    "--null": ["--files-from=x"],
    "--delete": ["--update"],
    "--max-delete": ["--update", "--delete"],
}
VALUES = {"--if-exists": "skip", "--limit": "5M"}


def takes_value(option: str) -> bool:
    return any(option in action.option_strings and action.nargs is None for action in _parser()._actions)


def refusal(arguments: list[str]) -> str:
    """The error for a command; empty when it can be done."""
    try:
        check_command(read_intermixed(_parser(), arguments, "names"))
    except UsageError as problem:
        return str(problem)
    return ""


def test_table_of_jobs_has_every_option() -> None:
    exist = {action.option_strings[-1] for action in _parser()._actions if action.option_strings}
    assert exist - {"--help", "--print-completion"} == set(GOES_WITH)


@pytest.mark.parametrize("option", GOES_WITH)
def test_option_goes_with_its_jobs_and_is_refused_with_others(option: str) -> None:
    given = [f"{option}={VALUES.get(option, '7')}"] if takes_value(option) else [option]
    needed = WITH.get(option, [])
    names = [option, *(each.split("=")[0] for each in needed)]
    for job, command in JOBS.items():
        said = refusal([*given, *needed, *command])
        if option in THAT_ARE_JOBS and job in ("send", "pipe", "dry", "get", "stdout"):
            continue  # they make another job of it: below
        assert (said == "") == (job in GOES_WITH[option].split()), (job, said)
        assert said == "" or (any(name in said for name in names) and "does not go with" in said), said


def test_option_about_another_one_is_refused_without_it() -> None:
    assert refusal(["--null", "a", "b"]) == (
        "--null goes only with --files-from. Add --files-from, or leave --null out"
    )
    assert refusal(["--delete", "a", "b"]) == ("--delete goes only with --update. Add --update, or leave --delete out")
    assert refusal(["-u", "--max-delete=5", "a", "b"]) == (
        "--max-delete goes only with --delete. Add --delete, or leave --max-delete out"
    )


def test_jobs_and_passwords_exclude_each_other() -> None:
    for command in (
        ["--get", "--list", "a"],
        ["--get", "--remove", "a", "b"],
        ["--list", "--usage"],
        ["--remove", "--move", "a", "b"],
        ["--usage", "--move", "a", "b"],
        ["--usage", "--human", "--json"],
        ["--list", "--dry-run"],
        ["--password-fd=3", "--password-file=x", "a", "b"],
        ["--verbose", "--quiet", "a", "b"],
    ):
        assert "does not go with" in refusal(command)


@pytest.mark.parametrize("name", settings_of(ServerSettings))
def test_setting_of_serving_is_refused_with_an_account_command(run_here: RunHere, tmp_path: Path, name: str) -> None:
    allowed = ("accounts", "storage", "server_log", "log_level")
    value = {"log_level": "debug", "listen": "::1"}.get(name, str(tmp_path) if name in allowed else "1")
    result = run_here("server.py", f"{flag_of(name)}={value}", "adduser", "../x")
    words = "that username is not allowed" if name in allowed else f"{flag_of(name)} does not go with adduser"
    assert result.status == 2 and words in result.err and result.err.count("\n") == 1


def test_settings_of_file_and_variables_are_no_options_of_the_command(run_here: RunHere, tmp_path: Path) -> None:
    (tmp_path / "file").write_text('limit = "5M"\nif_exists = "rename"\n')
    result = run_here("client.py", f"--config={tmp_path / 'file'}", "--user=u", "--password-file=no file", "--list")
    assert result.status == 2 and "can't read the password file" in result.err


def test_dry_run_with_json_is_events_and_writes_no_receipts(client: Client, tmp_path: Path, folder: Path) -> None:
    make(folder / "photos" / "a.jpg")
    result = client(f"--receipts={tmp_path / 'receipts'}", "--dry-run", "--json", "photos", "no box/", cwd=folder)
    assert result.status == 0
    *planned, summary = [json.loads(line) for line in result.out.splitlines()]
    assert (summary["event"], summary["delivered"], summary["status"]) == ("summary", 0, 0)
    what = {"event": "planned", "action": "send", "why": "new"}
    assert planned == [
        {**what, "name": "photos", "path": "no box/photos", "kind": "folder", "size": None},
        {**what, "name": "photos/a.jpg", "path": "no box/photos/a.jpg", "kind": "file", "size": 20},
    ]
    assert not (tmp_path / "receipts").exists()


# --- names ------------------------------------------------------------------------------------------------------------


def test_everything_behind_two_dashes_is_a_name(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    for name in ("-q", "-dash", "--get", "--", "a.txt"):
        make(folder / name)
    result = client("--", "-q", "-dash", "--get", "--", "a.txt", f"{box}/", cwd=folder)
    assert (result.status, result.err) == (0, "")
    assert "5 files delivered" in result.out
    assert {path.name for path in server.path(box).iterdir()} == {"-q", "-dash", "--get", "--", "a.txt"}
    make(server.path("-box", "-q"), 99)
    listed = client("--list", "--", "-box")
    assert listed.status == 0 and listed.out.endswith("  -q\n")
    fetched = client("-q", "--get", "--", "-box/-q", "--back", cwd=tmp_path)
    assert (fetched.status, fetched.out, (tmp_path / "--back").stat().st_size) == (0, "", 99)


def test_options_may_stand_between_names_up_to_two_dashes() -> None:
    options = read_intermixed(_parser(), ["a", "-q", "b", "--host", "h", "--", "--json", "--"], "names")
    assert (options.names, options.quiet, options.host, options.json) == (["a", "b", "--json", "--"], True, "h", False)
    assert read_intermixed(_parser(), ["--"], "names").names == []
    assert refusal(["--host", "--", "a", "b"]) == "argument --host: expected one argument. See client.py --help host"
    assert refusal(["-dash", "in/"]).startswith("unrecognized arguments: -dash")


@pytest.mark.parametrize(
    "names",
    [["", "in/"], ["a", "", "in/"], ["a", ""], ["--get", "", "x"], ["--get", "a", ""], ["--list", ""], ["--", "", "x"]],
)
def test_empty_name_is_a_usage_error(run_here: RunHere, folder: Path, names: list[str]) -> None:
    make(folder / "a")
    result = run_here("client.py", "--user=u", f"--password-file={folder / 'a'}", *names, cwd=folder)
    assert (result.status, result.out) == (2, "")
    assert result.err == "error: an empty name stands for nothing. Write . for a whole folder\n"


@pytest.mark.parametrize("program", ["client.py", "server.py"])
def test_wrong_option_is_one_escaped_line(run_here: RunHere, program: str) -> None:
    result = run_here(program, "--no\x1b[31m\n", "a")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ") and result.err.endswith(
        f"See {program} --help{' all' if program == 'client.py' else ''}\n"
    )
    assert result.err.count("\n") == 1 and "\x1b" not in result.err
