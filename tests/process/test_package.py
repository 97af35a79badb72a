"""The programs as an installed package: a wheel in a new environment, whose commands are `sft` and `sft-server`."""

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import HOME, LIMIT, make

PASSWORD = "correct horse battery"
OF_THE_PACKAGE = [
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    "client.py",
    "server.py",
    "config.py",
    "crypto_utils.py",
    "sft",
]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has the wheel, and sees the packages that the tests have."""
    folder = tmp_path_factory.mktemp("package")
    for name in OF_THE_PACKAGE:
        copy = shutil.copytree if (HOME / name).is_dir() else shutil.copy2
        copy(HOME / name, folder / name)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        str(folder / "wheels"),
        str(folder),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "new"], check=True, timeout=LIMIT)
    python = folder / "new/bin/python"
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder / "new"), "platbase": str(folder / "new")})
    Path(inside, "packages_of_the_tests.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return folder / "new/bin"


class Installed:
    """A user of the installed commands, with a home folder of their own."""

    def __init__(self, commands: Path, home: Path) -> None:
        self.commands, self.home = commands, home
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        make(home / "password").write_text(PASSWORD + "\n")
        (home / "password").chmod(0o600)

    def __call__(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.commands / command, *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def serve(self) -> "subprocess.Popen[str]":
        command = [str(self.commands / "sft-server"), "--listen=127.0.0.1", "--port=0"]
        return subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def installed(commands: Path, tmp_path: Path) -> Iterator[Installed]:
    yield Installed(commands, tmp_path)


def test_installed_commands_send_a_file_and_keep_everything_in_the_users_folders(installed: Installed) -> None:
    data = installed.home / ".local/share/secure-file-transfer"
    added = installed("sft-server", "adduser", "alice", "--password-file", "password")
    assert (added.returncode, added.stderr) == (0, "")
    server = installed.serve()
    assert server.stdout is not None
    try:
        found = re.search(r":(\d+)", server.stdout.readline())
        assert found
        make(installed.home / "a", 100_000)
        flags = ["--port", found[1], "--user", "alice", "--password-file", "password", "--host", "127.0.0.1"]
        sent = installed("sft", *flags, "a", "inbox/")
        assert (sent.returncode, sent.stderr) == (0, "")
    finally:
        server.terminate()
        server.communicate(timeout=LIMIT)
    assert (data / "received/alice/inbox/a").read_bytes() == (installed.home / "a").read_bytes()
    assert {"accounts.txt", "server.log", "received"} <= {path.name for path in data.iterdir()}
    assert (installed.home / ".local/state/secure-file-transfer/client.log").exists()
    assert {path.name for path in installed.home.iterdir()} == {".local", "a", "password"}


def test_help_and_advice_name_the_installed_commands(installed: Installed) -> None:
    for command, arguments in (("sft", ["--help"]), ("sft-server", ["--help", "all"]), ("sft", ["--host"])):
        result = installed(command, *arguments)
        shown = result.stdout + result.stderr
        assert command in shown and "client.py" not in shown and "server.py" not in shown, shown
    nobody = installed("sft-server", "users")
    assert nobody.returncode == 2 and nobody.stderr.endswith("Run: sft-server adduser NAME\n")
    assert installed("sft", "--version").stdout.startswith("sft ")
