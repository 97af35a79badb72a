"""What the shells complete, with the scripts that the programs print; in the real shells."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import RunHere
from processes import LIMIT, make

ASK_BASH = 'source {script}; COMP_WORDS=({words}); COMP_CWORD={at}; {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
PROGRAMS = {"client.py": "sft", "server.py": "sft-server"}


def script(run_here: RunHere, folder: Path, program: str, shell: str) -> Path:
    result = run_here(program, "--print-completion", shell)
    assert (result.status, result.err) == (0, "")
    place = folder / f"{PROGRAMS[program]}.{shell}"
    place.write_text(result.out)
    return place


def asked(shell: str, command: str, cwd: Path) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    flags = {"bash": ["--norc", "-c"], "zsh": ["-fc"], "fish": ["--no-config", "-c"]}[shell]
    done = subprocess.run([shell, *flags, command], cwd=cwd, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("client.py", "sft --exc", ["--exclude", "--exclude-from"]),
        ("client.py", "sft no", ["notes and more", "notes.txt"]),
        ("client.py", "sft --receipts no", ["notes and more", "notes.txt"]),
        ("client.py", "sft --host no", [""]),
        ("server.py", "sft-server ad", ["adduser"]),
        ("server.py", "sft-server adduser --quo", ["--quota", "--quota-files"]),
    ],
)
def test_bash_completes(run_here: RunHere, tmp_path: Path, program: str, words: str, expected: list[str]) -> None:
    make(tmp_path / "notes.txt")
    make(tmp_path / "notes and more")
    place, function = script(run_here, tmp_path, program, "bash"), "_" + PROGRAMS[program].replace("-", "_")
    at = len(words.split()) - 1
    found = asked("bash", ASK_BASH.format(script=place, words=words, at=at, function=function), tmp_path)
    assert sorted(found) == expected


@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_takes_the_script(run_here: RunHere, tmp_path: Path, program: str) -> None:
    place, name = script(run_here, tmp_path, program, "zsh"), PROGRAMS[program]
    begin = f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump; source {place}"
    assert asked("zsh", f"{begin}; echo $_comps[{name}]", tmp_path) == ["_" + name.replace("-", "_")]


def test_fish_completes(run_here: RunHere, tmp_path: Path) -> None:
    client, server = (script(run_here, tmp_path, program, "fish") for program in PROGRAMS)
    found = asked("fish", f"source {client}; complete -C 'sft --exc'", tmp_path)
    assert [line.split("\t")[0] for line in found] == ["--exclude", "--exclude-from"]
    assert "adduser" in asked("fish", f"source {server}; complete -C 'sft-server ad'", tmp_path)[0]


def test_shell_that_there_is_no_completion_for_is_a_usage_error(run_here: RunHere) -> None:
    result = run_here("client.py", "--print-completion", "tcsh")
    assert result.status == 2 and result.err.endswith(". See client.py --help print-completion\n")
