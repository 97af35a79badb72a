"""A password prompt under job control: Ctrl-Z, `fg` and signals that end it, in real shells on a terminal."""

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 30.0
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]

ASK = """
import sys
from sft.accounts.passwords import ask_password, ask_username
answer = ask_username() if sys.argv[1] == "username" else ask_password("Password: ")
open(sys.argv[2], "w").write(answer)
"""


class Shell:
    """An interactive shell that runs the prompt, and what is on its screen."""

    def __init__(self, shell: str, folder: Path) -> None:
        self.answer = folder / "answer"
        script = folder / "ask.py"
        script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{ASK}")
        self._ask = f"{sys.executable} {script}"
        environment = {"PS1": "shell> ", "PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"}
        arguments = [shell, "-i"] if shell == "dash" else [shell, "--norc", "--noediting", "-i"]
        self.pid, self.master = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe(shell, arguments, environment)
        self.shown = ""
        self._seen = 0
        self.expect("shell> ")

    def ask(self, what: str = "password", behind: str = "") -> None:
        self.type(f"{self._ask} {what} {self.answer}{behind}\n")
        self.expect(f"{self.answer}{behind}\r\n")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Wait until `text` is on the screen behind what was waited for last."""
        end = time.monotonic() + LIMIT
        while (at := self.shown.find(text, self._seen)) < 0:
            assert select.select([self.master], [], [], max(0, end - time.monotonic()))[0], self.shown
            self.shown += os.read(self.master, 4096).decode()
        self._seen = at + len(text)

    def rest(self) -> str:
        return self.shown[self._seen :]

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def prompting(self) -> int:
        """The process that asks."""
        return os.tcgetpgrp(self.master)

    def is_stopped(self, script: str) -> bool:
        """Whether a child of the shell that runs this is stopped."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "state=,args=", "--ppid", str(self.pid)], capture_output=True, text=True
        )
        return any(script in line and line.startswith("T") for line in listed.stdout.splitlines())

    def answered(self) -> str:
        wait_until(lambda: self.answer.exists() and self.answer.read_text())
        return self.answer.read_text()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.prompting(), signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(request.param, tmp_path)
    yield made
    made.close()


def test_ctrl_z_gives_the_shell_its_echo_and_fg_asks_again_in_silence(shell: Shell) -> None:
    shell.ask()
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    for _ in range(2):
        shell.type("half a secret\x1a")
        shell.expect("shell> ")
        shell.type("echo se'en'\n")
        shell.expect("echo se'en'")
        shell.expect("seen")
        shell.expect("shell> ")
        shell.type("fg\n")
        shell.expect("Password: ")
        wait_until(lambda: not shell.echoes())
    shell.type("the whole one\n")
    assert shell.answered() == "the whole one"
    assert "secret" not in shell.shown and "whole" not in shell.shown
    shell.expect("shell> ")
    assert "Password" not in shell.rest()


def test_prompt_that_was_sent_to_the_background_asks_again_in_the_foreground(shell: Shell) -> None:
    shell.ask()
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    shell.type("\x1a")
    shell.expect("shell> ")
    shell.type("bg\n")
    shell.expect("shell> ")
    shell.type("fg\n")
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    shell.type("in front\n")
    assert shell.answered() == "in front"
    assert "in front" not in shell.shown


def test_prompt_that_was_started_in_the_background_asks_in_the_foreground(shell: Shell) -> None:
    shell.ask(behind="&")
    shell.expect("shell> ")
    wait_until(lambda: shell.is_stopped("ask.py"))
    shell.type("fg\n")
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    shell.type("in front\n")
    assert shell.answered() == "in front"
    assert "in front" not in shell.shown


def test_prompt_leaves_the_terminal_as_it_was_when_it_came_to_the_foreground(shell: Shell) -> None:
    """Not as it was before: then it was another program's, which may have silenced it."""
    shell.type("stty -echo\n")
    wait_until(lambda: not shell.echoes())
    shell.type(f"{shell._ask} password {shell.answer} &\n")
    wait_until(lambda: shell.is_stopped("ask.py"))
    shell.type("stty echo\n")
    wait_until(shell.echoes)
    shell.type("fg\n")
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    shell.type("in front\n")
    assert shell.answered() == "in front"
    wait_until(shell.echoes)


def test_stop_that_no_program_sees_is_followed_by_a_silent_prompt(shell: Shell) -> None:
    shell.ask()
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    os.kill(shell.prompting(), signal.SIGSTOP)
    shell.expect("shell> ")
    shell.type("fg\n")
    shell.expect("Password: ")
    wait_until(lambda: not shell.echoes())
    shell.type("unseen\n")
    assert shell.answered() == "unseen" and "unseen" not in shell.shown


def test_username_is_asked_for_again_after_ctrl_z(shell: Shell) -> None:
    shell.ask("username")
    shell.expect("Username: ")
    shell.type("al\x1a")
    shell.expect("shell> ")
    shell.type("fg\n")
    shell.expect("Username: ")
    shell.type("alice\n")
    assert shell.answered() == "alice"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_that_ends_a_prompt_leaves_a_terminal_that_echoes(tmp_path: Path, number: signal.Signals) -> None:
    shell = Shell(SHELLS[0], tmp_path)
    try:
        shell.ask()
        shell.expect("Password: ")
        wait_until(lambda: not shell.echoes())
        os.kill(shell.prompting(), number)
        shell.expect("shell> ")
        assert shell.echoes()
        assert not shell.answer.exists()
    finally:
        shell.close()


def test_prompt_without_a_shell_that_could_take_it_back_goes_on(tmp_path: Path) -> None:
    """A process that nobody could continue is not stopped by the system."""
    pid, master = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", ASK, "password", str(tmp_path / "answer")])
    try:
        shown = b""
        for asked in (1, 2):
            while shown.count(b"Password: ") < asked:
                assert select.select([master], [], [], LIMIT)[0], shown
                shown += os.read(master, 4096)
            if asked == 1:
                os.write(master, b"half\x1a")
        wait_until(lambda: not termios.tcgetattr(master)[3] & termios.ECHO)
        os.write(master, b"the whole one\n")
        wait_until(lambda: (tmp_path / "answer").exists() and (tmp_path / "answer").read_text())
        assert (tmp_path / "answer").read_text() == "the whole one"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)
