"""The steps of OPERATIONS for a service, run as they stand in a folder that stands for the root of a machine.

What needs systemd or another user is noted instead of done: `sudo`, `useradd`, `systemctl`, owners. So is what would
need a network: the new virtual environment is ours.
"""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import HOME, LIMIT, PASSWORD, Client, Running, clean_environment, make, wait_until

OPERATIONS = (HOME / "docs/OPERATIONS.md").read_text()
SECTION = OPERATIONS[OPERATIONS.index("## As a service") :].partition("\n## ")[0]
STEPS = [line.removeprefix("$ ") for line in re.findall(r"```console\n(.*?)```", SECTION, re.S)[0].splitlines()]

NOTING = """#!/bin/sh
echo "$(basename "$0") $*" >>"$NOTES"
"""
STUBS = {
    "useradd": NOTING,
    "systemctl": NOTING,
    "sudo": '#!/bin/sh\nif [ "$1" = -u ]; then shift 2; fi\nexec "$@"\n',
    "install": NOTING + 'for word; do shift; case "$word" in -o|-g|sft) ;; *) set -- "$@" "$word";; esac; done\n'
    'if [ "$1" != -d ]; then mkdir -p "$(dirname "$4")"; fi\nexec /usr/bin/install "$@"\n',
    "python3": NOTING + 'mkdir -p "$4/bin" && /bin/cp "$STUBS/python" "$4/bin/python"\n',
    "python": f'#!/bin/sh\nif [ "$1" = -m ]; then echo "python $*" >>"$NOTES"; else exec {sys.executable} "$@"; fi\n',
    "cp": NOTING
    + 'for each in "$2"/*; do case "$each" in */tests|*/bench) ;; *) /bin/cp -r "$each" "$3" ;; esac; done\n',
}


class Machine:
    """A folder in the place of `/`."""

    def __init__(self, root: Path) -> None:
        self.root, self.notes, stubs = root, root / "notes", root / "stubs"
        stubs.mkdir(parents=True)
        for name, text in STUBS.items():
            (stubs / name).write_text(text)
            (stubs / name).chmod(0o755)
        path = f"{stubs}:{os.environ['PATH']}"
        self.environment = clean_environment(PATH=path, NOTES=str(self.notes), STUBS=str(stubs))
        del self.environment["SFT_CONFIG"]
        (root / "password").write_text(PASSWORD + "\n")

    def here(self, text: str) -> str:
        """With the machine's paths below our folder."""
        return re.sub(r"(?<![\w.])/(?=(opt|srv|etc)/)", f"{self.root}/", text)

    def path(self, text: str) -> Path:
        return Path(self.here(text))

    def follow(self, steps: list[str]) -> None:
        """In one shell, as they would be pasted; a password that would be typed comes from a file."""
        typed = [f"{step} --password-file {self.root / 'password'}" if " adduser " in step else step for step in steps]
        done = subprocess.run(
            ["sh", "-e"],
            input=self.here("\n".join(typed)),
            cwd=HOME,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """One where all steps were followed, and what was installed names its own paths."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    at_config = next(number for number, step in enumerate(STEPS) if " adduser " in step)
    made.follow(STEPS[: at_config - 1])
    for name in ("/etc/secure-file-transfer.toml", "/etc/systemd/system/secure-file-transfer.service"):
        made.path(name).write_text(made.here(made.path(name).read_text()))
    made.follow(STEPS[at_config - 1 :])
    return made


def unit(machine: Machine) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(machine.path("/etc/systemd/system/secure-file-transfer.service"))
    return parser


def test_steps_make_the_account_in_the_file_that_the_service_reads(machine: Machine, tmp_path: Path) -> None:
    service = unit(machine)["Service"]
    settings = tomllib.loads(machine.path("/etc/secure-file-transfer.toml").read_text())
    assert Path(settings["accounts"]).read_text().count("\nalice ") == 1
    command = shlex.split(service["ExecStart"])
    running = subprocess.Popen(
        [*command, "--port=0", "--listen=127.0.0.1", "--free-space=1M"],
        cwd=service["WorkingDirectory"],
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        port = int(running.stdout.readline().rpartition(":")[2])
        client = Client(port, tmp_path / "client")
        source = make(tmp_path / "a")
        assert client(source, "a").status == 0
        assert Path(settings["storage"], "alice", "a").read_bytes() == source.read_bytes()
    finally:
        running.terminate()
        out, err = running.communicate(timeout=LIMIT)
    assert (running.returncode, err) == (0, ""), (out, err)


def test_service_may_write_where_its_settings_point_and_its_user_owns_that(machine: Machine) -> None:
    service = unit(machine)["Service"]
    settings = tomllib.loads(machine.path("/etc/secure-file-transfer.toml").read_text())
    notes = machine.notes.read_text().splitlines()
    writable = service["ReadWritePaths"]
    for name in ("storage", "accounts", "server_log"):
        assert Path(settings[name]).is_relative_to(writable)
    (made,) = [note for note in notes if note.startswith("install -d ")]
    assert made.split() == ["install", "-d", "-o", service["User"], "-g", service["User"], "-m", "0700", writable]
    (user,) = [note for note in notes if note.startswith("useradd ")]
    assert user.split()[-1] == service["User"]
    assert notes[-2:] == ["systemctl daemon-reload", "systemctl enable --now secure-file-transfer"]
    assert service["RestartPreventExitStatus"] == "2"


def test_advice_of_the_service_leads_to_its_own_accounts_file(tmp_path: Path) -> None:
    """What the service says without an account, followed as it stands."""
    machine = Machine(tmp_path / "machine")
    machine.follow(STEPS[: next(number for number, step in enumerate(STEPS) if step.startswith("cd "))])
    config = machine.path("/etc/secure-file-transfer.toml")
    config.write_text(machine.here(config.read_text()))
    failed = Running("server.py", "--config", config).finish()
    assert failed.status == 2
    advice = failed.err.strip().partition("Run: python ")[2].replace("NAME", "alice")
    machine.follow([f"{sys.executable} {advice}"])
    started = Running("server.py", "--config", config, "--port=0", "--listen=127.0.0.1")
    log = machine.path("/srv/sft/server.log")
    wait_until(lambda: log.exists() and "listening" in log.read_text())
    started.kill(15)
    assert started.finish().status == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_sandbox_of_the_service_is_as_strict_as_operations_says() -> None:
    unit = str(HOME / "deploy/systemd/secure-file-transfer.service")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    (level,) = re.findall(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert float(level) < 2
    assert f"rates it {level} of 10" in SECTION


def test_settings_and_unit_that_operations_shows_are_those_that_are_shipped() -> None:
    shown = re.findall(r"```toml\n(.*?)```", SECTION, re.S)
    assert shown == [(HOME / "deploy/systemd/secure-file-transfer.toml").read_text()]
    assert "deploy/systemd/secure-file-transfer.service" in SECTION
