"""Where the client finds its settings file and its password, and where its log is, with a home and without one."""

import os
import stat
from pathlib import Path

import pytest
from conftest import MakeServer, RunHere
from processes import PASSWORD, USER, Client, Result, Server, clean_environment, make, run, run_python

import config
from config import ClientSettings, load
from sft.common.errors import UsageError

NOBODY = 65534

# Runs as a user who is not the superuser, where there is one; then the superuser owns what is only said to be closed.
AS_NOBODY = f"""
import os, pathlib, sys, tomllib
import client, config, sft.client.own_logs, sft.disk.sources, sft.client.jobs, sft.client.download, sft.client.uploads
client._parser()  # what it loads later could not be reached
config._SCRIPT_FOLDER = sys.argv[1]
os.environ.clear()
os.environ["HOME"] = sys.argv[2]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def closed(folder: Path, mode: int) -> Path:
    """A folder that belongs to the superuser, if we are, and has that mode."""
    folder.mkdir()
    folder.chmod(mode)
    return folder


def open_to_nobody(folder: Path) -> Path:
    """A folder that belongs to the user of `AS_NOBODY`, and can be reached."""
    folder.mkdir()
    if os.geteuid() == 0:
        for above in (folder, *folder.parents):
            if above.stat().st_uid == 0 and not above.stat().st_mode & stat.S_IXOTH:
                above.chmod(above.stat().st_mode | stat.S_IXOTH)
        os.chown(folder, NOBODY, NOBODY)
    return folder


def settings(environment: dict[str, str] | None = None, file: str = "", **flags: str) -> ClientSettings:
    loaded: ClientSettings = load(ClientSettings, flags, environment or {}, file or None).values
    return loaded


# --- the settings file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["", "relative", "missing", "below a file", "loop", "too long"])
def test_home_that_is_none_means_no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path("relative"), Path("~")):
        make(place / ".config/secure-file-transfer.toml").write_text("port = 1")
    make(tmp_path / "file")
    (tmp_path / "loop").symlink_to("loop")
    places = {"missing": "missing", "below a file": "file/x", "loop": "loop", "too long": "x" * 5000}
    monkeypatch.setenv("HOME", str(tmp_path / places[home]) if home in places else home)
    assert settings().port == 7380


def test_without_home_and_passwd_entry_nothing_of_the_current_folder_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(tmp_path)
    for place in ("~", "."):
        make(tmp_path / place / ".config/secure-file-transfer.toml").write_text("port = 1")
    assert settings().port == 7380
    for problem in ({"SFT_CONFIG": "~/x.toml"}, {"SFT_PASSWORD_FILE": "~/x"}):
        with pytest.raises(UsageError, match="begins with ~, and no home folder here"):
            settings(problem)
    with pytest.raises(UsageError, match="no home folder of a user no-such-user is known"):
        settings(password_file="~no-such-user/x")


def test_closed_home_means_no_default_file_and_a_named_one_must_be_readable(tmp_path: Path) -> None:
    home = closed(tmp_path / "home", 0o700)
    make(home / ".config/secure-file-transfer.toml").write_text("port = 1")
    if os.geteuid() != 0:
        home.chmod(0)
    open_to_nobody(tmp_path / "reached")
    code = """
print(config.load(config.ClientSettings, {}, {}, None).values.port)
try:
    config.load(config.ClientSettings, {}, {}, "~/.config/secure-file-transfer.toml")
except config.UsageError as problem:
    print(problem)
"""
    port, refusal = run_python(AS_NOBODY + code, tmp_path, home).splitlines()
    assert port == "7380" and refusal.startswith(f"{home}/.config/secure-file-transfer.toml: can't read")
    home.chmod(0o700)


def test_default_file_that_is_there_must_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config/secure-file-transfer.toml").mkdir(parents=True)
    with pytest.raises(UsageError, match="can't read the settings file"):
        settings()


def test_endless_settings_file_is_refused(run_here: RunHere) -> None:
    result = run_here("client.py", "--config=/dev/zero", "--show-config")
    assert (result.status, result.out) == (2, "")
    assert result.err == "error: /dev/zero: too large for a settings file. Check --config and SFT_CONFIG\n"


# --- the log ----------------------------------------------------------------------------------------------------------


def test_log_is_below_the_state_folder_where_the_programs_folder_is_closed(tmp_path: Path) -> None:
    installed, home = closed(tmp_path / "installed", 0o555), open_to_nobody(tmp_path / "home")
    make(home / "a")
    code = """
os.chdir(os.environ["HOME"])
print(client.main(["missing", "b"]))
print(config.load(config.ClientSettings, {}, {}, None).values.client_log)
"""
    log = home / ".local/state/secure-file-transfer/client.log"
    assert run_python(AS_NOBODY + code, installed, home).splitlines() == ["1", str(log)]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert list(installed.iterdir()) == []


@pytest.mark.parametrize("where", ["beside", "state", "off", "relative state"])
def test_default_log_is_where_the_user_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    monkeypatch.setattr(config, "_SCRIPT_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOME", "" if where == "off" else str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", {"state": str(tmp_path / "state")}.get(where, "x"))
    if where != "beside":
        (tmp_path / "client.log").symlink_to(tmp_path / "elsewhere")  # somebody else's idea of our log
    expected = {
        "beside": tmp_path / "client.log",
        "state": tmp_path / "state/secure-file-transfer/client.log",
        "relative state": tmp_path / "home/.local/state/secure-file-transfer/client.log",
        "off": None,
    }
    assert settings().client_log == expected[where]


def test_log_can_be_switched_off_in_each_way(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text('client_log = "off"\n')
    assert settings(file=str(tmp_path / "file")).client_log is None
    assert settings({"SFT_CLIENT_LOG": "off"}).client_log is None
    assert settings(client_log="./off").client_log == Path.cwd() / "off"
    result = run("client.py", "--client-log=off", "missing", "b", cwd=folder)
    assert result == Result(1, "", "error: missing does not exist. Check its name\n")
    assert os.listdir(folder) == []
    shown = run("client.py", "--client-log=off", "--show-config", cwd=folder)
    assert any(line.split() == ["client_log", "=", '"off"', "#", "--client-log"] for line in shown.out.splitlines())


def test_log_that_can_not_be_written_is_no_word_of_a_quiet_run(run_here: RunHere, folder: Path) -> None:
    flags = [f"--client-log={folder / 'none' / 'log'}", f"--password-file={folder / 'none'}", "--user=u"]
    for quiet, lines in (([], 2), (["--quiet"], 1)):
        result = run_here("client.py", *flags, *quiet, make(folder / "a"), "b")
        assert result.status == 2 and result.err.count("\n") == lines
        assert ("warning: can't write the log" in result.err) == (not quiet)


def test_server_log_that_is_off_is_no_file(make_server: MakeServer, client: Client, folder: Path) -> None:
    server = make_server("--server-log=off")
    assert client.at(server.port)(make(folder / "a"), "a").status == 0
    assert server.stop() == 0 and server.errors() == ""
    assert sorted(path.name for path in server.folder.iterdir()) == [
        *("accounts.txt", "accounts.txt.lock", "received", "server.stderr"),
    ]
    assert not Path("off").exists()


# --- the password -----------------------------------------------------------------------------------------------------


def test_password_comes_from_what_is_nearest_to_the_command(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'password_file = "{tmp_path / "of the file"}"\n')
    variables = {"SFT_PASSWORD": PASSWORD}
    paths = {"SFT_PASSWORD_FILE": str(tmp_path / "of the variable")}

    def chosen(environment: dict[str, str], **flags: str) -> tuple[str, str]:
        loaded = load(ClientSettings, flags, environment, str(file))
        path = loaded.values.password_file
        return "" if path is None else path.name, loaded.origins["password_file"]

    assert chosen({}) == ("of the file", str(file))
    assert chosen(paths) == ("of the variable", "SFT_PASSWORD_FILE")
    assert chosen(variables) == ("", "SFT_PASSWORD")
    assert chosen(variables | paths) == ("", "SFT_PASSWORD")
    assert chosen(paths | {"SFT_PASSWORD": ""}) == ("of the variable", "SFT_PASSWORD_FILE")
    assert chosen({"SFT_PASSWORD": "", "SFT_PASSWORD_FILE": ""}) == ("of the file", str(file))
    flag = str(tmp_path / "of the flag")
    assert chosen(variables | paths, password_file=flag) == ("of the flag", "--password-file")
    assert chosen(variables | paths, password_fd="3") == ("", "--password-fd")


def test_variable_of_one_command_wins_over_the_settings_file(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("another password\n")
    file = tmp_path / "settings.toml"
    file.write_text(f'password_file = "{wrong}"\nuser = "{USER}"\n')
    environment = clean_environment(SFT_PASSWORD=PASSWORD)
    result = run(
        "client.py", *client.settings, f"--config={file}", make(folder / "a"), f"{box}/", environment=environment
    )
    assert (result.status, result.err) == (0, "")
    assert server.path(box, "a").exists()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_password_file_that_everybody_may_read_is_a_warning(
    run_here: RunHere, tmp_path: Path, folder: Path, mode: int, warned: bool
) -> None:
    secret = make(tmp_path / "secret")
    secret.write_text("\n")  # no password in it: nothing is connected to
    secret.chmod(mode)
    words = f"warning: the password file {secret} can be read by every user of this machine. "
    flags = [f"--client-log={tmp_path / 'log'}", f"--password-file={secret}", "--user=u"]
    for quiet in ([], ["--quiet"]):
        result = run_here("client.py", *flags, *quiet, make(folder / "a"), "b")
        assert result.status == 2 and result.err.count("\n") == 1 + (warned and not quiet)
        assert (words in result.err) == (warned and not quiet)
    assert ("can be read by every user" in (tmp_path / "log").read_text()) == warned
    server = [f"--accounts={tmp_path / 'accounts'}", f"--storage={tmp_path / 'received'}"]
    result = run_here("server.py", *server, "adduser", "bob", f"--password-file={secret}")
    assert result.status == 2 and (words in result.err) == warned


@pytest.mark.parametrize("number", ["", "-1", "x", "3.0", "٣", "1" * 10, "9" * 5000, "0x3"])
def test_descriptor_that_is_no_number_is_refused(run_here: RunHere, tmp_path: Path, folder: Path, number: str) -> None:
    flags = [f"--client-log={tmp_path / 'log'}", f"--password-fd={number}", "--user=u"]
    result = run_here("client.py", *flags, make(folder / "a"), "b")
    assert (result.status, result.out) == (2, "")
    assert result.err == "error: --password-fd takes the number of an open descriptor. Such as 3, with 3<FILE\n"
