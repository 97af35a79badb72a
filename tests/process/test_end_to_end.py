"""The two programs as their users meet them: real processes, a real terminal, what is printed, what arrives."""

import hashlib
import os
import re
import shlex
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer, RunHere
from processes import (
    HOME,
    MIB,
    ONCE,
    PASSWORD,
    USER,
    Client,
    Fault,
    Impostor,
    Result,
    Running,
    Server,
    Terminal,
    clean_environment,
    knock,
    login_sent,
    make,
    run,
    run_all,
    wait_until,
)

from sft.common.sizes import counted

LOGIN_REFUSED = (
    "error: login refused: wrong username or password, too many attempts, or not your server. "
    "Check username, password and --host; after many attempts wait a minute\n"
)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) [^\n]+")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_log(path: Path) -> None:
    """One event is one line, of nothing but what can be printed, in a file that only its owner reads."""
    for line in path.read_text().splitlines():
        assert LOG_LINE.fullmatch(line) and line.isprintable(), line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def one_line(result: Result) -> str:
    """The only line of standard error."""
    assert result.err.endswith("\n") and result.err.count("\n") == 1, result
    return result.err


# --- The owner's two commands, on a terminal --------------------------------------------------------------------------


def test_client_asks_on_the_terminal_and_tells_what_arrived(server: Server, tmp_path: Path, folder: Path) -> None:
    source = make(folder / "secret.txt", 1234)
    settings = [f"--port={server.port}", f"--client-log={tmp_path / 'client.log'}"]
    with Terminal("client.py", *settings, "secret.txt", f"{USER}@127.0.0.1:out.txt", cwd=folder) as terminal:
        terminal.expect("Password")
        terminal.type(PASSWORD)
        assert terminal.finish() == 0
    assert f"delivered: out.txt  1,234 bytes  SHA-256 {sha256(source)}\n" in terminal.screen
    assert re.search(r"1 file delivered to alice@127\.0\.0\.1: 1\.2 kB in \d+\.\d\d s, [\d.]+ k?B/s\n", terminal.screen)
    assert PASSWORD not in terminal.screen
    assert server.path("out.txt").read_bytes() == source.read_bytes()
    for log in (tmp_path / "client.log", server.log):
        assert PASSWORD not in log.read_text()


def test_username_prompt_offers_the_local_name(server: Server, tmp_path: Path, folder: Path, box: str) -> None:
    source = make(folder / "a")
    settings = ["--host=127.0.0.1", f"--port={server.port}", f"--client-log={tmp_path / 'client.log'}"]
    with Terminal("client.py", *settings, source, f"{box}/", environment=clean_environment(LOGNAME=USER)) as terminal:
        terminal.expect(f"[{USER}]")
        terminal.type("")
        terminal.expect("Password")
        terminal.type(PASSWORD)
        assert terminal.finish() == 0
    assert server.path(box, "a").exists()


def test_progress_bar_is_shown_on_a_terminal(client: Client, folder: Path, box: str) -> None:
    source = make(folder / "large.bin", 5 * MIB)
    with Terminal("client.py", *client.flags, source, f"{box}/") as terminal:
        assert terminal.finish() == 0
    assert "100%" in terminal.screen and "B/s" in terminal.screen and "large.bin" in terminal.screen
    assert f"SHA-256 {sha256(source)}\n" in terminal.screen


@pytest.mark.parametrize(
    ("size", "widest", "least"),
    [((0, 0), 80, 70), ((1, 1), 1, 1), ((2, 20), 20, 15), ((24, 80), 80, 70), ((65535, 65535), 300, 100)],
)
def test_bar_fits_a_terminal_of_any_size(
    client: Client, folder: Path, box: str, size: tuple[int, int], widest: int, least: int
) -> None:
    """One that does not know its size (0 by 0) counts as 80 columns wide."""
    with Terminal("client.py", *client.flags, make(folder / ("a" * 60), 5 * MIB), f"{box}/", size=size) as terminal:
        assert terminal.finish() == 0
    wide = [len(piece) for piece in re.split("[\r\n]", terminal.screen) if "delivered" not in piece]
    assert least <= max(wide) < max(widest, 2)


def test_pipe_gets_no_progress_bar(client: Client, folder: Path, box: str) -> None:
    result = client(make(folder / "large.bin", 5 * MIB), f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert len(result.out.splitlines()) == 2 and "\r" not in result.out


def test_quiet_success_prints_nothing(client: Client, folder: Path, box: str) -> None:
    source = make(folder / "large.bin", 5 * MIB)
    assert client("--quiet", source, f"{box}/") == Result(0, "", "")
    with Terminal("client.py", *client.flags, "-q", source, f"{box}/again/") as terminal:
        assert terminal.finish() == 0
    assert terminal.screen == ""


def test_first_start_makes_an_account_and_the_shown_command_works(tmp_path: Path, folder: Path) -> None:
    server = Server(tmp_path / "first")
    source = make(folder / "secret.txt")
    environment = clean_environment(LOGNAME="carol", SFT_CLIENT_LOG=str(tmp_path / "client.log"))
    with Terminal("server.py", *server.settings, "--port=0", "--listen=127.0.0.1", environment=environment) as terminal:
        terminal.expect("shown only now")
        terminal.expect("username   ")
        assert terminal.expect("\n") == "carol"
        terminal.expect("password   ")
        password = terminal.expect("\n")
        assert re.fullmatch(r"([A-Z2-7]{4}-){3}[A-Z2-7]{4}", password)
        terminal.expect("    python client.py ")
        shown = shlex.split(terminal.expect("\n"))
        assert shown[-1] == f"carol@{os.uname().nodename}:"
        shown[-1] = "carol@127.0.0.1:"
        with Terminal("client.py", *shown, cwd=folder, environment=environment) as sender:
            sender.expect("Password")
            sender.type(password)
            assert sender.finish() == 0
        terminal.expect("carol from 127.0.0.1: 1 file received, ")
        terminal.type("\x03", end="")
        assert terminal.finish() == 0
    assert server.path("secret.txt", user="carol").read_bytes() == source.read_bytes()
    assert terminal.screen.count(password) == 1
    assert password not in server.told() + (tmp_path / "client.log").read_text() + server.accounts.read_text()


def test_second_start_shows_no_password(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "second", server.accounts)
    with Terminal("server.py", *other.settings, "--port=0", "--listen=127.0.0.1") as terminal:
        terminal.expect("listening on 127.0.0.1:")
        knock(int(terminal.expect("\n")))
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.finish() == 0
    assert "password" not in terminal.screen


def test_signal_as_soon_as_the_port_is_told_is_a_clean_stop(make_server: MakeServer) -> None:
    server = make_server()
    assert server.stop() == 0
    assert "stopped" in server.told()


def test_start_with_storage_but_no_accounts_makes_none(tmp_path: Path) -> None:
    server = Server(tmp_path / "moved")
    server.path().mkdir(parents=True)
    with Terminal("server.py", *server.settings, "--port=0") as terminal:
        assert terminal.finish() == 2
    assert "there are no accounts yet" in terminal.screen and " adduser NAME" in terminal.screen
    assert not server.accounts.exists()


def test_first_start_without_a_terminal_says_adduser(tmp_path: Path) -> None:
    server = Server(tmp_path / "first")
    result = run("server.py", *server.settings, "--port=0")
    assert (result.status, result.out) == (2, "")
    assert "Run: python server.py --accounts " in one_line(result) and " adduser NAME" in one_line(result)
    assert not server.accounts.exists() and not server.storage.exists()


# --- Accounts ---------------------------------------------------------------------------------------------------------


def ask_twice(terminal: Terminal, first: str, second: str) -> None:
    terminal.expect("New password for")
    terminal.type(first)
    terminal.expect("The same again")
    terminal.type(second)


def test_accounts_are_kept_at_the_prompt(server: Server, tmp_path: Path, folder: Path) -> None:
    source = make(folder / "a")
    first, second = "the first of two", "the second of two"

    def login(password: str) -> int:
        return Client(server.port, tmp_path / "client", "bob", password)("--if-exists=replace", source, "a").status

    with Terminal("server.py", *server.settings, "adduser", "bob") as terminal:
        ask_twice(terminal, first, first)
        assert terminal.finish() == 0
    assert "added bob" in terminal.screen and first not in terminal.screen
    assert login(first) == 0
    with Terminal("server.py", *server.settings, "passwd", "bob") as terminal:
        ask_twice(terminal, second, second)
        assert terminal.finish() == 0
    assert (login(first), login(second)) == (3, 0)
    listed = server.command("users")
    assert [line.split()[0] for line in listed.out.splitlines()] == [USER, "bob"]
    assert server.command("deluser", "bob").status == 0
    assert login(second) == 3
    assert server.path("a", user="bob").exists()
    assert [line.split()[0] for line in server.command("users").out.splitlines()] == [USER]


def test_two_different_new_passwords_are_refused(server: Server) -> None:
    with Terminal("server.py", *server.settings, "adduser", "dave") as terminal:
        ask_twice(terminal, "one password", "another password")
        assert terminal.finish() == 2
    assert "the two passwords are not the same" in terminal.screen
    assert "dave" not in server.command("users").out


REFUSED_COMMANDS: list[tuple[str, str, str | None, str]] = [
    ("adduser", "dave", "short", "too short"),
    ("adduser", "dave", "aaaaaaaaaaaa", "one character over and over"),
    ("adduser", "dave", "i am dave indeed", "contains the username"),
    ("adduser", "dave", "", "no password"),
    ("passwd", USER, "short", "too short"),
    ("adduser", USER, PASSWORD, "there is an account alice already"),
    ("passwd", "nobody", PASSWORD, "there is no account nobody"),
    ("deluser", "nobody", None, "there is no account nobody"),
    ("adduser", "../x", PASSWORD, "that username is not allowed"),
    ("adduser", "Bob", PASSWORD, "that username is not allowed"),
]


@pytest.mark.parametrize(("command", "name", "password", "words"), REFUSED_COMMANDS)
def test_account_command_is_refused_with_the_reason(
    server: Server, run_here: RunHere, tmp_path: Path, command: str, name: str, password: str | None, words: str
) -> None:
    before, file = server.accounts.read_bytes(), tmp_path / "password"
    file.touch(0o600)
    file.write_text(f"{password}\n")
    source = [] if password is None else ["--password-file", file]
    result = run_here("server.py", *server.settings, command, name, *source)
    assert result.status == 2 and words in one_line(result)
    assert server.accounts.read_bytes() == before


# --- What arrives -----------------------------------------------------------------------------------------------------


def test_files_of_every_size_and_mode_arrive_over_one_connection(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    sizes = [0, 1, 65536, 65537, MIB, MIB + 1, 10_000_000]
    sources = [make(folder / f"size {size}", size) for size in sizes]
    for name, mode in (
        ("private", 0o600),
        ("open", 0o666),
        ("program", 0o755),
        ("setuid", 0o6755),
        ("read-only", 0o444),
    ):
        sources.append(make(folder / name))
        sources[-1].chmod(mode)
    for number, source in enumerate(sources):
        os.utime(source, ns=(0, 1_234_567_890_123_456_789 + number))
    mark = len(server.told())
    result = client(*sources, box)
    assert (result.status, result.err) == (0, "")
    assert server.told()[mark:].count("logged in") == 1
    arrived = {source.name: server.path(box, source.name) for source in sources}
    for source in sources:
        assert arrived[source.name].read_bytes() == source.read_bytes()
        assert arrived[source.name].stat().st_mtime_ns == source.stat().st_mtime_ns
        assert (
            f"delivered: {box}/{source.name}  {counted(source.stat().st_size, 'byte')}  SHA-256 {sha256(source)}"
            in result.out
        )
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in arrived.items()}
    assert {modes[f"size {size}"] for size in sizes} == {0o644}
    assert (modes["private"], modes["open"], modes["program"]) == (0o600, 0o644, 0o755)
    assert (modes["setuid"], modes["read-only"]) == (0o755, 0o444)
    assert f"{len(sources)} files delivered" in result.out
    assert server.partials() == []


def test_bad_sources_do_not_stop_the_others(server: Server, client: Client, folder: Path, box: str) -> None:
    good = [make(folder / "first"), make(folder / "last", MIB + 5)]
    fifo, dangling = folder / "a fifo", folder / "dangling"
    os.mkfifo(fifo)
    dangling.symlink_to(folder / "nowhere")
    bad = [folder / "missing", dangling, fifo]
    for name in (b"new\nline", b"latin \xe9", b"escape \x1b[31m"):
        bad.append(make(folder / os.fsdecode(name)))
    mark = len(server.told())
    result = client(good[0], *bad, good[1], f"{box}/")
    assert result.status == 1
    lines = result.err.splitlines()
    assert len(lines) == len(bad) and all(line.startswith("error: ") and line.isprintable() for line in lines)
    for told, words in zip(
        lines,
        [
            "missing does not exist",
            "dangling does not exist",
            "a fifo is neither a file nor a folder",
            r"new\nline",
            r"latin \xe9",
            r"escape \x1b[31m",
        ],
        strict=True,
    ):
        assert words in told
    assert f"2 files delivered to {USER}@127.0.0.1, {len(bad)} failed" in result.out
    assert server.told()[mark:].count("logged in") == 1
    assert sorted(os.listdir(server.path(box))) == ["first", "last"]
    for source in good:
        assert server.path(box, source.name).read_bytes() == source.read_bytes()
    check_log(client.log)


def test_only_bad_sources_need_no_server_and_no_password(tmp_path: Path) -> None:
    result = run("client.py", f"--client-log={tmp_path / 'log'}", "--user=alice", tmp_path / "missing", "x")
    assert result.status == 1 and "does not exist" in one_line(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_source_is_refused(client: Client, folder: Path, box: str) -> None:
    source = make(folder / "closed")
    source.chmod(0)
    result = client(source, f"{box}/")
    assert result.status == 1 and "permission denied" in one_line(result)


def test_empty_file_alone_arrives(server: Server, client: Client, folder: Path, box: str) -> None:
    assert client(make(folder / "empty", 0), f"{box}/").status == 0
    assert server.path(box, "empty").read_bytes() == b""


# --- Where it arrives -------------------------------------------------------------------------------------------------


def test_target_rule_does_not_depend_on_the_other_end(server: Server, client: Client, folder: Path, box: str) -> None:
    a, b = make(folder / "a"), make(folder / "b")
    assert client(a, b, f"{box}/two").status == 0
    assert client(a, f"{box}/one/").status == 0
    assert client(a, f"{box}/name").status == 0
    found = {str(path.relative_to(server.path(box))) for path in server.path(box).rglob("*") if path.is_file()}
    assert found == {"two/a", "two/b", "one/a", "name"}
    result = client(a, f"{box}/one")
    assert result.status == 1
    assert (
        f"{box}/one is a folder on the receiver. To put the file into it, write {box}/one/; or remove it there first\n"
        in one_line(result)
    )
    result = client(a, f"{box}/name/")
    assert result.status == 1 and " is a file on the receiver, not a folder" in one_line(result)


IMPOSSIBLE: list[tuple[list[str], str]] = [
    (["a", "other/a", "box/"], "would both become box/a"),
    (["a", "/etc/x"], "starts with a slash"),
    (["a", "b", "/etc/"], "starts with a slash"),
    (["-", "box/"], "standard input has no name of its own"),
    (["-", "a", "box"], "standard input has no name of its own"),
    (["--password-file=-", "--user=u", "-", "a"], "standard input can't be both the password and what is sent"),
    (["--get", "a", "other/a", "box/"], "would both become a"),
    (["--get", "a", "b", "-"], "only one file can go to standard output"),
    (["--get", "/etc/x", "a"], "starts with a slash"),
    (["a", "../b"], "../b can't be a name on a receiver"),
    (["a", "in/a\nb"], "can't be a name on a receiver (a control character in a name)"),
    (["a", "b" * 256], "can't be a name on a receiver (a name of more than 255 bytes)"),
    (["--list", "../b"], "../b can't be a name on a receiver"),
    (["--get", "../b", "."], "../b can't be a name on a receiver"),
    (["--receipts=a", "a", "b"], "--receipts a is also what is sent or fetched. Name another file"),
    (["--receipts=./a", "other", "b", "a", "c"], "--receipts ./a is also what is sent or fetched"),
    (["--receipts=new", "new", "b"], "--receipts new is also what is sent or fetched"),
    (["--receipts=b", "a", "c"], "can't write the receipts to b: it is there, and holds something else. Name a new"),
    (["--receipts=b", "--get", "c", "b"], "--receipts b is also what is sent or fetched"),
    (["--get", "a"], "at least one NAME and a TARGET are needed"),
    (["--list", "a", "b"], "--list takes one NAME at most"),
    (["a"], "at least one SOURCE and a TARGET are needed"),
    ([], "at least one SOURCE and a TARGET are needed"),
]


@pytest.mark.parametrize(("names", "words"), IMPOSSIBLE)
def test_impossible_command_is_refused_before_connecting(
    run_here: RunHere, tmp_path: Path, folder: Path, names: list[str], words: str
) -> None:
    for name in ("a", "b", "other/a"):
        make(folder / name)
    settings = [f"--client-log={tmp_path / 'log'}", "--port=1", "--user=u", f"--password-file={folder / 'a'}"]
    result = run_here("client.py", *settings, *names, cwd=folder)
    assert (result.status, result.out) == (2, "") and words in one_line(result)


def test_target_with_dot_dot_is_refused_and_leaves_nothing(server: Server, client: Client, folder: Path) -> None:
    a = make(folder / "a")
    for target in ("../planted", "x/../../planted", "..", "../"):
        result = client(a, target)
        assert result.status == 2 and f"{target} can't be a name on a receiver (.. is not a name)" in one_line(result)
    assert not [path for path in server.folder.rglob("*") if path.name in ("planted", "x")]


def test_taken_name_follows_the_policy(server: Server, client: Client, folder: Path, box: str) -> None:
    source, there = make(folder / "db.dump"), server.path(box, "db.dump")
    assert client(source, f"{box}/").status == 0
    old = there.read_bytes()
    make(source)
    result = client(source, f"{box}/")
    assert (
        result.status == 1
        and "exists already on the receiver. Choose another name, or --if-exists rename" in one_line(result)
    )
    result = client("--if-exists=skip", source, f"{box}/")
    assert result.status == 0 and f"skipped: {box}/db.dump: " in result.out
    assert there.read_bytes() == old
    result = client("--if-exists=rename", source, f"{box}/")
    assert result.status == 0 and f"delivered: {box}/db.1.dump  " in result.out
    assert there.with_name("db.1.dump").read_bytes() == source.read_bytes() and there.read_bytes() == old
    result = client("--if-exists=replace", source, f"{box}/")
    assert (result.status, there.read_bytes()) == (0, source.read_bytes())
    assert sorted(os.listdir(there.parent)) == ["db.1.dump", "db.dump"]


def test_links_at_the_receiver_are_never_followed(
    server: Server, client: Client, folder: Path, tmp_path: Path, box: str
) -> None:
    a = make(folder / "a")
    victim, outside = make(tmp_path / "victim"), tmp_path / "outside"
    outside.mkdir()
    before = victim.read_bytes()
    area = server.path(box)
    area.mkdir(parents=True)
    (area / "folder").symlink_to(outside)
    for policy in ("rename", "replace"):
        (area / policy).symlink_to(victim)
        assert client(f"--if-exists={policy}", a, f"{box}/{policy}").status == 0
        assert (area / policy).is_symlink() is (policy == "rename")
    (area / "dangling").symlink_to(tmp_path / "made")
    assert client(a, f"{box}/dangling").status == 1
    result = client("--if-exists=replace", a, f"{box}/folder/")
    assert (
        result.status == 1
        and "is a symbolic link on the receiver. Choose another name, or remove it there first; links"
        in one_line(result)
    )
    assert victim.read_bytes() == before
    assert os.listdir(outside) == [] and not (tmp_path / "made").exists()
    assert (area / "rename.1").read_bytes() == a.read_bytes()


# --- Exit codes -------------------------------------------------------------------------------------------------------


def test_wrong_password_and_unknown_user_can_not_be_told_apart(server: Server, tmp_path: Path, folder: Path) -> None:
    a = make(folder / "a")
    wrong = Client(server.port, tmp_path / "one", password="not the password")(a, "never")
    unknown = Client(server.port, tmp_path / "two", user="nobody")(a, "never")
    assert wrong == unknown == Result(3, "", LOGIN_REFUSED)
    assert not server.path("never").exists() and not server.path("never", user="nobody").exists()


def test_username_that_is_not_utf8_is_refused(client: Client, folder: Path) -> None:
    result = client("--user=u\udcff", make(folder / "a"), "x")
    assert result.status in (2, 3) and one_line(result).isascii()


def test_refused_connection_is_exit_4(client: Client, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = client.at(port)(ONCE, make(folder / "a"), "x")
    assert result.status == 4 and f"connection to 127.0.0.1:{port} refused. Is server.py running there" in one_line(
        result
    )


def test_unknown_host_is_exit_4(client: Client, folder: Path) -> None:
    result = client("--host=host.invalid", make(folder / "a"), "x")
    assert result.status == 4 and "unknown host host.invalid. Check --host" in one_line(result)


def speak_http(sock: socket.socket) -> None:
    sock.recv(100)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def greet_like_ssh(sock: socket.socket) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    sock.recv(100)


def echo(sock: socket.socket) -> None:
    while piece := sock.recv(4096):
        sock.sendall(piece)


def send_garbage(sock: socket.socket) -> None:
    sock.sendall(b"\0\0\0\x20" + bytes(range(100, 132)))
    sock.recv(4096)


def announce_too_much(sock: socket.socket) -> None:
    sock.sendall(b"\x7f\xff\xff\xff")
    while sock.recv(4096):
        pass


def close_at_once(sock: socket.socket) -> None:
    pass


@pytest.fixture
def impostor() -> Iterator[Callable[[Callable[[socket.socket], None]], Impostor]]:
    with ExitStack() as made:

        def start(behave: Callable[[socket.socket], None]) -> Impostor:
            other = Impostor(behave)
            made.callback(other.close)
            return other

        yield start


@pytest.mark.parametrize("behave", [speak_http, greet_like_ssh, echo, send_garbage, announce_too_much])
def test_another_program_is_named_as_such(
    client: Client,
    folder: Path,
    impostor: Callable[[Callable[[socket.socket], None]], Impostor],
    behave: Callable[[socket.socket], None],
) -> None:
    port = impostor(behave).port
    result = client.at(port)(make(folder / "a"), "x")
    assert result.status == 4
    assert one_line(result) == (
        f"error: what answers at 127.0.0.1 port {port} is not this program's server. Check --host and --port\n"
    )


def test_close_before_any_answer_is_exit_4(
    client: Client, folder: Path, impostor: Callable[[Callable[[socket.socket], None]], Impostor]
) -> None:
    result = client.at(impostor(close_at_once).port)(ONCE, make(folder / "a"), "x")
    assert result.status == 4 and "the connection was lost" in one_line(result)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\0\0\0\x03\x01\x01\x09", "no common version: this end speaks 1, the server 9. Update the older of the two"),
        (b"\0\0\0\x01\x02", "the server is busy. Try again in a moment"),
        (b"\0\0\0\x01\x03", "the receiver can't use its accounts or its storage at the moment. Try again later"),
    ],
)
def test_server_that_can_not_go_on_is_exit_4(
    client: Client,
    folder: Path,
    impostor: Callable[[Callable[[socket.socket], None]], Impostor],
    answer: bytes,
    words: str,
) -> None:
    def behave(sock: socket.socket) -> None:
        sock.sendall(answer)
        while sock.recv(4096):
            pass

    result = client.at(impostor(behave).port)(ONCE, make(folder / "a"), "x")
    assert result.status == 4 and words in one_line(result)


def test_busy_server_is_exit_4_and_has_room_again_afterwards(
    make_server: MakeServer, proxy: MakeProxy, client: Client, folder: Path
) -> None:
    server = make_server("--max-connections=1")
    line = proxy(server.port, up=Fault("hold", login_sent()))
    a = make(folder / "a")
    first = client.at(line.port).start(a, "first")
    wait_until(lambda: "logged in" in server.told())
    result = client.at(server.port)("--retries=0", a, "second")
    assert result.status == 4 and "the server is busy. Try again in a moment" in one_line(result)
    line.release()
    assert first.finish().status == 0
    wait_until(lambda: "done," in server.told())
    assert client.at(server.port)(a, "second").status == 0
    assert "busy: turned away a connection from 127.0.0.1" in server.told()
    assert server.stop() == 0


BAD_FLAGS: list[tuple[str, list[str], str]] = [
    ("client.py", ["--passwo", "x", "a", "b"], "unrecognized arguments: --passwo"),
    ("client.py", ["--port=0", "a", "b"], '--port: "0" is not between 1 and 65535'),
    ("client.py", ["--if-exists=maybe", "a", "b"], '--if-exists: "maybe" is not one of fail, rename'),
    (
        "client.py",
        ["--password-fd=x", "--user=u", "a", "b"],
        "--password-fd takes the number of an open descriptor",
    ),
    ("client.py", ["--password-file=none", "--user=u", "a", "b"], "can't read the password file"),
    ("client.py", ["--user=" + "u" * 33, "--password-file=a", "a", "b"], "can't be a username"),
    ("client.py", ["--config=none", "a", "b"], "there is no such settings file"),
    ("server.py", ["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ("server.py", ["nonsense"], "invalid choice: 'nonsense'"),
]


@pytest.mark.parametrize(("program", "flags", "words"), BAD_FLAGS)
def test_flag_that_can_not_be_used_is_exit_2(
    server: Server, run_here: RunHere, tmp_path: Path, program: str, flags: list[str], words: str
) -> None:
    (tmp_path / "a").write_text("a password\n")
    settings = [f"--client-log={tmp_path / 'log'}", f"--port={server.port}"] if program == "client.py" else []
    result = run_here(program, *settings, *flags, cwd=tmp_path)
    assert (result.status, result.out) == (2, "")
    assert words in result.err.splitlines()[-1]


UNUSABLE: list[tuple[str, list[str], str]] = [
    ("client.py", ["--no-such-flag", "a", "b"], "unrecognized arguments: --no-such-flag"),
    ("client.py", ["--password-fd=77", "--user=u", "a", "b"], "can't read a password from file descriptor 77"),
    ("client.py", ["--user=u", "a", "b"], "Use --user, and --password-file, --password-fd or SFT_PASSWORD"),
    ("client.py", ["a", "b"], "Use --user, and --password-file, --password-fd or SFT_PASSWORD"),
    ("server.py", ["--listen=256.256.256.256"], "is not an address of this machine"),
    ("server.py", ["--server-log=."], "is not a regular file"),
    ("server.py", ["--storage=/dev/null/x"], "can't use the storage folder /dev/null/x"),
]


def test_standard_input_is_not_both_the_password_and_what_is_sent() -> None:
    result = run("client.py", "--user=u", "--password-fd=0", "-", "a", typed=PASSWORD + "\n")
    assert result.status == 2 and "standard input can't be both the password and what is sent" in one_line(result)


def test_unusable_command_is_exit_2(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a password\n")
    settings = {
        "client.py": [f"--client-log={tmp_path / 'log'}", f"--port={server.port}"],
        "server.py": [*Server(tmp_path / "own", server.accounts).settings, "--port=0"],
    }
    results = run_all([[program, *settings[program], *flags] for program, flags, _ in UNUSABLE], cwd=tmp_path)
    for (program, flags, words), result in zip(UNUSABLE, results, strict=True):
        assert (result.status, result.out) == (2, ""), (program, flags, result)
        assert words in result.err.splitlines()[-1], (program, flags, result)


def test_taken_port_is_exit_2_with_the_remedy(server: Server, tmp_path: Path) -> None:
    own = Server(tmp_path / "own", server.accounts)
    result = run("server.py", *own.settings, "--listen=127.0.0.1", f"--port={server.port}")
    assert (result.status, result.out) == (2, "")
    assert f"can't listen on 127.0.0.1 port {server.port} (Address already in use)." in one_line(result)
    assert "stop that one, or choose another --port" in result.err


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
)
def test_signal_during_a_transfer_ends_it_in_one_line(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, number: int, status: int, word: str
) -> None:
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    running = client.at(line.port).start(make(folder / "a", 30_000_000), f"{box}/")
    line.wait_reached()
    running.kill(number)
    assert running.finish(10) == Result(status, "", f"{word}; the same command goes on where it was\n")
    line.cut()
    wait_until(lambda: server.has_missed(box, "a"))
    assert not server.path(box).exists()
    assert client(folder / "a", f"{box}/").status == 0
    assert server.path(box, "a").read_bytes() == (folder / "a").read_bytes() and server.partials() == []


def test_signal_during_a_stream_promises_no_going_on(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    source = make(folder / "a", 30_000_000)
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    with source.open("rb") as content:
        running = client.at(line.port).start("-", f"{box}/piped", stdin=content)
        line.wait_reached()
        running.kill(signal.SIGTERM)
        said = "terminated; start the whole command again: what was read of standard input is gone\n"
        assert running.finish(10) == Result(143, "", said)
    line.cut()
    assert client(source, f"{box}/a").status == 0
    line = proxy(server.port, down=Fault("hold", 3 * MIB))
    with (folder / "out").open("wb") as out:
        running = client.at(line.port).start("--get", f"{box}/a", "-", stdout=out)
        wait_until(lambda: (folder / "out").stat().st_size > 0)
        running.kill(signal.SIGTERM)
        assert running.finish(10) == Result(143, "", "terminated; what was written to standard output is not whole\n")


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signal_at_the_prompt_is_said_and_leaves_the_echo_on(
    tmp_path: Path, folder: Path, number: int, status: int, word: str
) -> None:
    a = make(folder / "a")
    with Terminal("client.py", f"--client-log={tmp_path / 'log'}", "--user=u", a, "b") as terminal:
        terminal.expect("Password")
        if number == signal.SIGINT:
            terminal.type("\x03", end="")
        else:
            terminal.process.send_signal(number)
        assert terminal.finish() == status
    assert re.search(rf"\n{word}[^\n]*\n$", terminal.screen)


def test_hangup_that_is_ignored_ends_nothing(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        running = client.at(line.port).start(make(folder / "a", 8_000_000), f"{box}/")
    finally:
        signal.signal(signal.SIGHUP, old)
    line.wait_reached()
    running.kill(signal.SIGHUP)
    line.release()
    assert running.finish().status == 0


@pytest.mark.parametrize(
    ("program", "command", "words"),
    [
        ("client.py", ["--help", "all"], "130  interrupted"),
        ("server.py", ["--help", "all"], "--max-logins-per-source"),
        ("server.py", ["adduser"], "--password-file"),
        ("server.py", ["passwd"], "--password-file"),
        ("server.py", ["deluser"], "NAME"),
        ("server.py", ["users"], "usage: server.py users"),
    ],
)
def test_help_is_exit_0(program: str, command: list[str], words: str) -> None:
    result = run(program, *command, *([] if "--help" in command else ["--help"]))
    assert (result.status, result.err) == (0, "") and words in result.out


# --- Passwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["file", "descriptor", "variable", "standard input"])
def test_password_is_taken_from_each_source_and_never_shown(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, tmp_path: Path, way: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\r\nwhat follows is not read\n")
    line = proxy(server.port, up=Fault("hold", login_sent()))
    settings = [
        *client.at(line.port).settings,
        "--log-level=debug",
        f"--user={USER}",
        str(make(folder / "a")),
        f"{box}/",
    ]
    if way == "file":
        running = Running("client.py", f"--password-file={secret}", *settings, fresh=True)
    elif way == "standard input":
        running = Running("client.py", "--password-file=-", *settings, typed=PASSWORD + "\n", fresh=True)
        assert running.process.stdin is not None
        running.process.stdin.write(PASSWORD + "\n")
        running.process.stdin.flush()
    elif way == "variable":
        running = Running("client.py", *settings, environment=clean_environment(SFT_PASSWORD=PASSWORD), fresh=True)
    else:
        with secret.open("rb") as file:
            descriptor = file.fileno()
            running = Running("client.py", f"--password-fd={descriptor}", *settings, pass_fds=[descriptor], fresh=True)
    line.wait_reached()
    if sys.platform == "linux":
        assert PASSWORD.encode() not in Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    line.release()
    result = running.finish()
    assert result.status == 0
    for text in (result.out, result.err, client.log.read_text(), server.told(), server.accounts.read_text()):
        assert PASSWORD not in text


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["client.py", "server.py"])
def test_setting_comes_from_flag_then_variable_then_file_then_default(program: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("port = 4001\nlog_level = 'error'\nclient_log = 'x.log'\nserver_log = 'x.log'\nmax_logins = 7\n")
    environment = clean_environment(SFT_CONFIG=str(file))
    log = program.removesuffix(".py") + "_log"

    def shown(*flags: str, **more: str) -> dict[str, tuple[str, str]]:
        result = run(program, "--show-config", *flags, environment={**environment, **more}, cwd=tmp_path)
        assert (result.status, result.err) == (0, "")
        found = [re.fullmatch(r"(\w+) += (.*?) +# (.+)", line) for line in result.out.splitlines()]
        return {match[1]: (match[2], match[3]) for match in found if match}

    by_file = shown()
    assert by_file["port"] == ("4001", str(file))
    assert by_file["log_level"] == ('"error"', str(file))
    assert by_file[log] == (f'"{tmp_path / "x.log"}"', str(file))
    assert shown(SFT_PORT="4002")["port"] == ("4002", "SFT_PORT")
    assert shown("--port=4003", SFT_PORT="4002")["port"] == ("4003", "--port")
    default = shown("--config=/dev/null")
    assert default["port"] == ("7380", "default")
    assert default[log] == (f'"{HOME / log.replace("_", ".")}"', "default")


UNUSABLE_SETTINGS: list[tuple[str, str, str]] = [
    ("client.py", "prot = 1", "unknown setting prot"),
    ("server.py", "prot = 1", "unknown setting prot"),
    ("client.py", "password = 'x'", "unknown setting password"),
    ("client.py", "port = 1.5", "port in .*: not a string, whole number or true/false"),
    ("client.py", "port = [1]", "port in .*: not a string, whole number or true/false"),
    ("client.py", "port = true", "port in .*: true is not"),
    ("server.py", "port = 'many'", 'port in .*: "many" is not a whole number'),
    ("server.py", "listen = 5", "listen in .*: 5 is not text"),
    ("client.py", "port =", "not valid TOML"),
    ("client.py", "log_level = 'loud'", "log_level in .* is not one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("program", "text", "words"), UNUSABLE_SETTINGS)
def test_settings_file_that_can_not_be_used_is_exit_2(
    run_here: RunHere, tmp_path: Path, program: str, text: str, words: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text + "\n")
    result = run_here(program, "--show-config", f"--config={file}")
    assert (result.status, result.out) == (2, "") and re.search(words, one_line(result))


ZERO_LIMITS: list[tuple[str, str]] = [
    ("client.py", "--connect-timeout=0"),
    ("client.py", "--limit=0"),
    ("client.py", "--limit=-1M"),
    ("server.py", "--max-connections=0"),
    ("server.py", "--max-logins=0"),
    ("server.py", "--max-logins-per-source=-1"),
    ("server.py", "--max-file-size=0"),
    ("server.py", "--memory=0"),
    ("server.py", "--memory=-5M"),
]


@pytest.mark.parametrize(("program", "flag"), ZERO_LIMITS)
def test_limit_of_zero_is_no_limitless_one_but_exit_2(run_here: RunHere, program: str, flag: str) -> None:
    result = run_here(program, "--show-config", flag)
    assert (result.status, result.out) == (2, "")
    assert one_line(result).startswith(f"error: {flag.split('=')[0]}: ")


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_odd_names_make_one_line_each_in_both_logs(server: Server, client: Client, folder: Path, box: str) -> None:
    names = ["📦 box.bin", 'it\'s "quoted"', "right\u202etxt.exe", "line\u2028separator", "%s%n{0}", "back\\slash"]
    sources = [make(folder / "local \x1b]0;title\x07 \n folder" / name) for name in names]
    mark = len(server.told())
    result = client("--log-level=debug", *sources, f"{box}/")
    assert (result.status, result.err) == (0, "")
    assert sorted(os.listdir(server.path(box))) == sorted(names)
    wait_until(lambda: "done," in server.told()[mark:])
    check_log(server.log)
    check_log(client.log)
    assert server.told()[mark:].count("stored ") == len(names)
    assert client.log.read_text().count("receipt (stored): ") == len(names)
    assert all(line.isprintable() for line in result.out.splitlines())
    assert len(result.out.splitlines()) == len(names) + 1
    assert r"right\u202etxt.exe" in client.log.read_text()


def test_log_that_can_not_be_written_is_a_warning_and_the_transfer_goes_on(
    server: Server, client: Client, folder: Path, tmp_path: Path, box: str
) -> None:
    victim = make(tmp_path / "victim")
    before = victim.read_bytes()
    link = tmp_path / "link.log"
    link.symlink_to(victim)
    a = make(folder / "a")
    for number, log in enumerate((tmp_path, link, tmp_path / "no folder" / "log")):
        result = client(f"--client-log={log}", a, f"{box}/{number}")
        assert result.status == 0
        warning = one_line(result)
        assert warning.startswith("warning: ") and str(log) in warning and warning.endswith("going on without a log\n")
        assert server.path(box, str(number)).exists()
    assert victim.read_bytes() == before


def test_own_log_is_never_sent(server: Server, client: Client, folder: Path, box: str) -> None:
    link = folder / "another name"
    link.symlink_to(client.log)
    result = client(client.log, link, make(folder / "a"), f"{box}/")
    assert result.status == 1
    assert [line.partition(" is this program's own log")[1] != "" for line in result.err.splitlines()] == [True, True]
    assert os.listdir(server.path(box)) == ["a"]
