"""Prompts on a real terminal, passwords from files and descriptors, and what no error may show."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tables import each_row

from sft.accounts.passwords import (
    check_strength,
    generate_password,
    read_password_fd,
    read_password_file,
    read_password_variable,
)
from sft.common.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 30.0

# Runs in a process of its own; standard input holds something that no prompt may take.
ASK = """
import json, os, sys
read, write = os.pipe()
os.write(write, b"from standard input\\n" * 3)
os.close(write)
os.dup2(read, 0)
from sft.accounts.passwords import *
from sft.common.errors import UsageError
try:
    answer = ["answer", eval(sys.argv[1])]
except UsageError as error:
    answer = ["usage", str(error)]
except KeyboardInterrupt:
    answer = ["interrupted", ""]
with open(sys.argv[2], "w") as file:
    json.dump(answer, file)
"""


class Terminal:
    """A child process with a terminal of its own, and what it shows."""

    def __init__(self, call: str, answer: Path) -> None:
        self._answer = answer
        self.pid, self.master = pty.fork()
        if not self.pid:
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", ASK, call, str(answer)])
        self.shown = b""

    def expect(self, text: bytes) -> None:
        end = time.monotonic() + DEADLINE
        while text not in self.shown:
            assert select.select([self.master], [], [], end - time.monotonic())[0], self.shown
            self.shown += self._read()

    def _read(self) -> bytes:
        try:
            piece = os.read(self.master, 4096)
        except OSError:
            piece = b""
        assert piece, f"the terminal closed after {self.shown!r}"
        return piece

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def result(self) -> list[str]:
        try:
            while True:
                assert select.select([self.master], [], [], DEADLINE)[0], f"no answer after {self.shown!r}"
                self.shown += os.read(self.master, 4096)
        except OSError:
            pass
        os.waitpid(self.pid, 0)
        self.pid = 0
        found: list[str] = json.loads(self._answer.read_text())
        return found

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[type]:
    made: list[Terminal] = []

    class Asking(Terminal):
        def __init__(self, call: str) -> None:
            super().__init__(call, tmp_path / "answer")
            made.append(self)

    yield Asking
    for terminal in made:
        terminal.close()


def test_password_prompt_takes_the_terminal_and_shows_nothing_typed(asking: type) -> None:
    terminal = asking("ask_password('Password: ')")
    terminal.expect(b"Password: ")
    assert not terminal.echoes()
    terminal.type("correct hörse \n".encode())
    assert terminal.result() == ["answer", "correct hörse "]
    assert b"rse" not in terminal.shown and terminal.shown.endswith(b"\r\n")


def test_what_was_typed_ahead_is_not_a_password(asking: type) -> None:
    terminal = asking(
        "(os.system('stty -echo </dev/tty; echo ready >/dev/tty; read line </dev/tty'), ask_password())[1]"
    )
    terminal.expect(b"ready")
    terminal.type(b"go\nahead\n")
    terminal.expect(b"Password: ")
    terminal.type(b"afterwards\n")
    assert terminal.result() == ["answer", "afterwards"]


@pytest.mark.parametrize("call", ["ask_password()", "ask_username('bob')", "ask_new_password('alice')"])
def test_interrupt_at_a_prompt_passes_through(asking: type, call: str) -> None:
    terminal = asking(f"({call})")
    terminal.expect(b": ")
    terminal.type(b"half\x03")
    assert terminal.result() == ["interrupted", ""]


@pytest.mark.parametrize("call", ["ask_password()", "ask_username('bob')", "ask_new_password('alice')"])
def test_interrupt_ends_a_prompt_whose_wait_it_did_not_break(asking: type, call: str) -> None:
    """Taken by another thread, a signal breaks no call of the main one: as when it comes just before that call."""
    other = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    deaf = f"[exec('import signal, threading'), {other}, signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])]"
    terminal = asking(f"({deaf}, {call})[1]")
    terminal.expect(b": ")
    terminal.type(b"\x03")
    assert terminal.result() == ["interrupted", ""]


@pytest.mark.parametrize("call", ["ask_password()", "ask_username('bob')", "ask_new_password('alice')"])
def test_end_at_a_prompt_is_a_usage_error(asking: type, call: str) -> None:
    terminal = asking(call)
    terminal.expect(b": ")
    terminal.type(b"\x04")
    kind, words = terminal.result()
    assert kind == "usage" and "ended" in words


@pytest.mark.parametrize("last", [b"\x03", b"\x04", b"good password\n"])
def test_terminal_echoes_again_after_the_prompt(asking: type, last: bytes) -> None:
    code = (
        "[ask(), termios.tcgetattr(os.open('/dev/tty', os.O_RDWR))[3] & termios.ECHO != 0][1]"
        " if [setattr(builtins, 'ask', quiet)] else 0"
    )
    prelude = (
        "exec('import builtins, termios\\ndef quiet():\\n try: ask_password()\\n"
        " except (UsageError, KeyboardInterrupt): pass\\nbuiltins.quiet = quiet', globals())"
    )
    terminal = asking(f"({prelude}, {code})[1]")
    terminal.expect(b"Password: ")
    assert not terminal.echoes()
    terminal.type(last)
    assert terminal.result() == ["answer", True]


def test_empty_password_is_refused(asking: type) -> None:
    terminal = asking("ask_password()")
    terminal.expect(b": ")
    terminal.type(b"\n")
    kind, words = terminal.result()
    assert kind == "usage" and "empty" in words


@pytest.mark.parametrize("typed", [b"p\xff\xfessword-secret\n", b"secret" * 200 + b"\n"])
def test_reject_typed_password_that_can_be_none_without_quoting_it(asking: type, typed: bytes) -> None:
    terminal = asking("ask_password()")
    terminal.expect(b": ")
    terminal.type(typed)
    kind, words = terminal.result()
    assert kind == "usage" and "secret" not in words and b"secret" not in terminal.shown


def test_password_of_the_full_length_is_taken(asking: type) -> None:
    terminal = asking("ask_password()")
    terminal.expect(b": ")
    terminal.type(b"x" * 1024 + b"\n")
    assert terminal.result() == ["answer", "x" * 1024]


@pytest.mark.parametrize(("typed", "answer"), [(b"\n", "bob"), (b" alice \n", "alice")])
def test_username_prompt_offers_its_default_and_shows_what_is_typed(asking: type, typed: bytes, answer: str) -> None:
    terminal = asking("ask_username('bob')")
    terminal.expect(b"Username [bob]: ")
    assert terminal.echoes()
    terminal.type(typed)
    assert terminal.result() == ["answer", answer]


def test_names_in_a_prompt_are_escaped(asking: type) -> None:
    terminal = asking(r"ask_username('b\udcff\x1b[31m')")
    terminal.expect(rb"Username [b\xff\x1b[31m]: ")
    terminal.type(b"bob\n")
    assert terminal.result() == ["answer", "bob"]


def test_prompt_of_a_process_with_many_descriptors_is_answered(asking: type) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_NOFILE, (1_200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))"
    terminal = asking(f"[exec('import resource'), {limit}, [os.dup(0) for _ in range(1_100)], ask_password()][3]")
    terminal.expect(b": ")
    terminal.type(b"correct horse\n")
    assert terminal.result() == ["answer", "correct horse"]


def test_username_without_default_must_be_typed(asking: type) -> None:
    terminal = asking("ask_username('')")
    terminal.expect(b"Username: ")
    terminal.type(b"\n")
    assert terminal.result()[0] == "usage"


@pytest.mark.parametrize(("second", "kind"), [(b"horse staple\n", "answer"), (b"horse stable\n", "usage")])
def test_new_password_is_asked_for_twice(asking: type, second: bytes, kind: str) -> None:
    terminal = asking("ask_new_password('alice')")
    terminal.expect(b"New password for alice: ")
    terminal.type(b"horse staple\n")
    terminal.expect(b"The same again: ")
    terminal.type(second)
    found, words = terminal.result()
    assert found == kind and (kind == "answer" or "horse" not in words) and b"horse" not in terminal.shown


def test_weak_new_password_is_refused_before_it_is_asked_for_again(asking: type) -> None:
    terminal = asking("ask_new_password('alice')")
    terminal.expect(b"New password for alice: ")
    terminal.type(b"short\n")
    kind, words = terminal.result()
    assert kind == "usage" and "too short" in words and b"again" not in terminal.shown


_OF_CLIENT = ("--password-file", "--password-fd", "SFT_PASSWORD")


@pytest.mark.parametrize(
    ("call", "sources"),
    [
        ("ask_password()", _OF_CLIENT),
        ("ask_username('bob')", _OF_CLIENT),
        ("ask_new_password('alice')", ("--password-file",)),  # at the server
    ],
)
def test_without_a_terminal_the_remedy_names_every_source(tmp_path: Path, call: str, sources: tuple[str, ...]) -> None:
    answer = tmp_path / "answer"
    command = [sys.executable, "-c", ASK, call, str(answer)]
    subprocess.run(command, cwd=ROOT, start_new_session=True, timeout=DEADLINE, check=True)
    kind, words = json.loads(answer.read_text())
    assert kind == "usage"
    assert [source for source in _OF_CLIENT if source in words] == list(sources)


GOOD = {
    b"correct horse": "correct horse",
    b"correct horse\n": "correct horse",
    b"correct horse\r\n": "correct horse",
    b" spaces stay \n": " spaces stay ",
    b"first\nsecond\n": "first",
    "\ufeffnotepad\r\n".encode(): "notepad",
    "pässwörd\n".encode(): "pässwörd",
    b"x" * 1024 + b"\r\n": "x" * 1024,
    b"first\n" + b"y" * 5000: "first",
}
BAD = [b"", b"\n", b"\r\n", b"\nsecret\n", b"secre" * 205, b"secret\xff\n", "secret".encode("utf-16"), b"sec\0ret\n"]


@pytest.mark.parametrize("content", GOOD)
def test_password_is_the_first_line_of_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    assert read_password_file(tmp_path / "password") == GOOD[content]


@pytest.mark.parametrize("content", BAD)
def test_reject_file_without_a_usable_password_and_quote_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_password_file(tmp_path / "file")
    assert caught.value.remedy
    error: BaseException | None = caught.value
    while error is not None:
        assert "sec" not in repr(error) and not isinstance(error, UnicodeError)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("mode", "warned"),
    [(0o600, False), (0o660, False), (0o604, True), (0o602, True), (0o644, True), (0o601, False)],
)
def test_file_that_every_user_may_read_or_write_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    place, said = tmp_path / "password", list[str]()
    place.write_text("secret\n")
    place.chmod(mode)
    assert read_password_file(place, said.append) == "secret"
    assert ([f"chmod 600 {place}" in line for line in said], "secret" in str(said)) == ([True] * warned, False)


def test_pipe_of_any_mode_is_not_warned_of(tmp_path: Path) -> None:
    """As a shell gives for `<(pass show nas)`."""
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    os.fchmod(reading, 0o666)
    said = list[str]()
    assert read_password_file(f"/dev/fd/{reading}", said.append) == "secret"
    os.close(reading)
    assert said == []


def test_reject_missing_file_folder_and_impossible_name(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, "a\0b"):
        with pytest.raises(UsageError) as caught:
            read_password_file(path)
        assert caught.value.remedy and caught.value.exit_status == 2


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_password_from_a_descriptor_leaves_what_follows_it(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"correct horse\nthe content")
    assert read_password_fd(pipe[0]) == "correct horse"
    assert os.read(pipe[0], 100) == b"the content"


def test_dash_is_standard_input_and_leaves_what_follows_it() -> None:
    code = "import os; from sft.accounts.passwords import *; print(read_password_file('-'), os.read(0, 99))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=b"correct horse\nrest", stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.split(b"\n")[0] == b"correct horse b'rest'"


def test_reject_descriptor_that_is_closed_ended_or_impossible(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    for descriptor in (pipe[0], pipe[1], -1, 1 << 30):
        with pytest.raises(UsageError) as caught:
            read_password_fd(descriptor)
        assert caught.value.remedy


def test_reject_terminal_as_a_password_file() -> None:
    master, slave = pty.openpty()
    try:
        with pytest.raises(UsageError, match="terminal"):
            read_password_fd(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_password_from_the_environment() -> None:
    assert read_password_variable({}) is read_password_variable({"SFT_PASSWORD": ""}) is None
    assert read_password_variable({"SFT_PASSWORD": "correct hörse"}) == "correct hörse"
    for value in ("\n", "x" * 1025, "secret\udcff"):
        with pytest.raises(UsageError) as caught:
            read_password_variable({"SFT_PASSWORD": value})
        assert "SFT_PASSWORD" in str(caught.value) and "secret" not in str(caught.value)


@each_row(
    ("password", "username", "reason"),
    [
        ("", "alice", "too short"),
        ("1234567", "alice", "too short"),
        ("e\u0301" * 7, "alice", "too short"),
        ("aaaaaaaaaaaa", "bob", "over and over"),
        ("xxALICExx", "alice", "username"),
        ("alice2024!", "alice", "username"),
    ],
)
def test_reject_weak_password(password: str, username: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        check_strength(password, username)
    assert not password or password not in str(caught.value)


@each_row(("password", "username"), [("12345678", "alice"), ("a fine one", "a"), ("höhöhöhö", "bob")])
def test_accept_password(password: str, username: str) -> None:
    check_strength(password, username)


def test_generated_password_is_eighty_bits_in_four_groups() -> None:
    assert re.fullmatch(r"[A-Z2-7]{4}(-[A-Z2-7]{4}){3}", generate_password())
    assert generate_password() != generate_password()
    assert generate_password(lambda size: bytes(range(size))) == "AAAQ-EAYE-AUDA-OCAJ"
    check_strength(generate_password(), "alice")
