"""A signal ends either program in one line with its own exit status, at whatever moment it comes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import HOME, LIMIT, clean_environment

# Sends itself a signal when it is about to import a module, or to call a function.
AT_IMPORT = """
import os, runpy, signal, sys
sys.path.insert(0, sys.argv.pop(1))
program, number, module = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
class Sender:
    def find_spec(name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Sender)
sys.argv[0] = program
runpy.run_path(program, run_name="__main__")
"""
AT_THE_LAST_LINE = """
import os, runpy, signal, sys
sys.path.insert(0, sys.argv.pop(1))
program, number = sys.argv.pop(1), int(sys.argv.pop(1))
import sft.console.screen
sft.console.screen.fail = lambda *_: os.kill(os.getpid(), number)
sys.argv[0] = program
runpy.run_path(program, run_name="__main__")
"""
ENDS = {
    signal.SIGINT: (130, "interrupted\n"),
    signal.SIGTERM: (143, "terminated\n"),
    signal.SIGHUP: (129, "terminated\n"),
}


def ended(script: str, program: str, number: int, *words: str | Path, ignored: bool = False) -> tuple[int, str]:
    """Exit status and standard error of a program that runs in `script`."""
    found = signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        command = [sys.executable, "-c", script, str(HOME), str(HOME / program), str(number), *map(str, words)]
        done = subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, timeout=LIMIT, check=False
        )
    finally:
        signal.signal(number, found)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("module", ["argparse", "config", "sft.console.screen", "sft.client.jobs"])
def test_signal_while_the_client_is_loaded_is_one_line(module: str, number: int, tmp_path: Path) -> None:
    words = ["--client-log=off", "--dry-run", str(tmp_path), "x"]
    assert ended(AT_IMPORT, "client.py", number, module, *words) == ENDS[signal.Signals(number)]


@pytest.mark.parametrize("module", ["argparse", "config", "sft.console.screen", "sft.server.admin"])
def test_interrupt_while_the_server_is_loaded_is_one_line(module: str, tmp_path: Path) -> None:
    words = [f"--accounts={tmp_path / 'accounts'}", "users"]
    assert ended(AT_IMPORT, "server.py", signal.SIGINT, module, *words) == ENDS[signal.SIGINT]


@pytest.mark.parametrize(("program", "module"), [("client.py", "config"), ("server.py", "config")])
def test_signal_that_is_ignored_stays_ignored(program: str, module: str) -> None:
    status, shown = ended(AT_IMPORT, program, signal.SIGINT, module, "--show-config", ignored=True)
    assert (status, shown) == (0, "")


@pytest.mark.parametrize("program", ["client.py", "server.py"])
def test_interrupt_while_the_last_line_is_written_is_no_traceback(program: str) -> None:
    assert ended(AT_THE_LAST_LINE, program, signal.SIGINT, "--port=x") == ENDS[signal.SIGINT]
