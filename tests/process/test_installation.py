"""What a machine may lack: a new Python, and each package that the programs use."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import HOME, LIMIT, MIB, Argument, Client, Running, Server, clean_environment, make

from sft.wire.compression import PACKAGE as ZSTD

STARTED = [
    "client.py",
    "server.py",
    *(f"tools/{name}.py" for name in ("architecture", "audit", "demo", "man_pages", "worked_example")),
]
OLD_NAMES = [f"python3.{minor}" for minor in range(6, 11)]

# Runs a program as an older Python would, and tells which of our own modules it has loaded.
AS_OLD = """
import os, runpy, sys
sys.version_info = (3, 10, 13, "final", 0)
home = os.getcwd()
sys.path.insert(0, home)
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    places = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    print(sorted(name for name, place in places.items() if os.path.dirname(place) == home))
"""


def old_pythons() -> Iterator[str]:
    """Interpreters of this machine that are too old."""
    found = [shutil.which(name) for name in OLD_NAMES]
    found += map(str, sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")))
    code = "import sys; sys.exit(not (3, 6) <= sys.version_info[:2] < (3, 11))"
    for python in found:
        if python and subprocess.run([python, "-c", code], capture_output=True).returncode == 0:
            yield python


@pytest.mark.parametrize("program", [*STARTED, "sft/common/python_version.py"])
def test_program_parses_under_python_3_6_and_checks_the_version_first(program: str) -> None:
    tree = ast.parse((HOME / program).read_text("utf-8"), feature_version=(3, 6))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    checked = [name for name in names if name not in ("sys", "Path")]  # those two let a tool find our modules
    assert program == "sft/common/python_version.py" or checked[0] == "python_version"


@pytest.mark.parametrize("program", STARTED)
def test_older_python_is_named_in_one_line_before_anything_is_loaded(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_OLD, program], cwd=HOME, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stderr.startswith("error: Python 3.11 or later is needed, this is Python 3.10.13. ")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "[]\n", 1)


def test_real_older_python_says_so_too() -> None:
    python = next(old_pythons(), None)
    if python is None:
        pytest.skip("this machine has no Python that is too old")
    for program in STARTED:
        command = [python, "-B", *(["-m", "tools.worked_example"] if "worked" in program else [program])]
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=LIMIT)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (python, done)
        assert done.stderr.startswith("error: Python 3.11 or later is needed")


# What is imported, what pip calls it, and the programs that can't do without it.
PROGRAMS = ("client.py", "server.py")
PACKAGES = {
    "Crypto": ("pycryptodome", PROGRAMS),
    "msgspec": ("msgspec", PROGRAMS),
    ZSTD: (ZSTD, ("server.py",)),
    "cryptography": ("cryptography", ()),
    "platformdirs": ("platformdirs", ()),
    "pathspec": ("pathspec", ()),
    "prometheus_client": ("prometheus-client", ()),
}
OPTIONAL = {
    program: {module for module, (_, needed_by) in PACKAGES.items() if program not in needed_by} for program in PROGRAMS
}

# The interpreter loads this first, then what other programs of the tests load.
WITHOUT = """
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
exec(open(STRETCHED).read())
"""


def without(place: Path, *modules: str) -> dict[str, str]:
    """The environment of a machine that lacks these modules."""
    usual = clean_environment()
    text = WITHOUT.replace("MISSING", repr(modules))
    text = text.replace("STRETCHED", repr(str(Path(usual["PYTHONPATH"], "sitecustomize.py"))))
    make(place / "sitecustomize.py").write_text(text)
    return {**usual, "PYTHONPATH": str(place)}


def test_every_package_that_the_requirements_name_is_left_out_here() -> None:
    lines = (HOME / "requirements.txt").read_text("utf-8").splitlines()
    named = {re.split("[<>=; ]", line)[0] for line in lines if line and not line.startswith("#")}
    assert {package for package, _ in PACKAGES.values()} | {"backports.zstd"} == named | {ZSTD}


@pytest.mark.parametrize(
    ("program", "module"),
    [(program, module) for program in PROGRAMS for module, (_, needed_by) in PACKAGES.items() if program in needed_by],
)
def test_missing_library_is_exit_2_and_names_pip(program: str, module: str, tmp_path: Path, folder: Path) -> None:
    package, _ = PACKAGES[module]
    arguments = {
        "client.py": [f"--client-log={tmp_path / 'log'}", "--user=u", "--port=1", str(make(folder / "a")), "b"],
        "server.py": [*Server(tmp_path / "own").settings, "--port=0"],
    }[program]
    environment = without(tmp_path / "packages", module)
    result = Running(program, *arguments, environment=environment, fresh=True).finish()
    said = f"error: {package} is not installed. Run: python -m pip install -r requirements.lock\n"
    assert (result.status, result.out, result.err) == (2, "", said)


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param(OPTIONAL["client.py"], id="all"),
        *(pytest.param({module}, id=module, marks=pytest.mark.long) for module in sorted(OPTIONAL["client.py"])),
    ],
)
def test_without_what_is_optional_everything_is_sent_fetched_and_listed(
    missing: set[str], server: Server, tmp_path: Path, folder: Path
) -> None:
    lacking = {program: missing & OPTIONAL[program] for program in PROGRAMS}
    environments = {program: without(tmp_path / program, *lacking[program]) for program in PROGRAMS}
    for program, environment in environments.items():
        result = Running(program, "--version", environment=environment, fresh=True).finish()
        assert (result.status, result.err) == (0, "")
        assert ("cryptography" in result.out) == (
            "cryptography" not in missing and find_spec("cryptography") is not None
        )
        assert ("no zstd" in result.out) == (ZSTD in lacking[program])
    other = Server(tmp_path / "server", server.accounts)
    other.environment = environments["server.py"]
    try:
        client = Client(other.start(fresh=True).port, tmp_path / "client")
        client.environment = environments["client.py"]
        small, large = make(folder / "small", 1000), make(folder / "large", 3 * MIB)
        commands: list[tuple[list[Argument], str]] = [
            ([small, large, "box/"], "2 files delivered"),
            (["--list", "box"], " large\n"),
            (["--get", "box", tmp_path / "fetched"], "2 files fetched"),
        ]
        for command, out in commands:
            result = client.start(*command, fresh=True).finish()
            assert (result.status, result.err) == (0, "") and out in result.out, result
        for source in (small, large):
            assert other.path("box", source.name).read_bytes() == source.read_bytes()
            assert (tmp_path / "fetched" / source.name).read_bytes() == source.read_bytes()
        assert other.stop() == 0
        assert other.errors() == ""
    finally:
        other.close()


def test_client_that_can_not_compress_says_so_to_who_asks_for_it(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    client.environment = without(tmp_path / "packages", ZSTD)
    result = client.start("--compress=on", make(folder / "a", 100_000), f"{box}/", fresh=True).finish()
    told = f"warning: nothing is compressed: {ZSTD} is not installed. Run: python -m pip install -r requirements.lock\n"
    assert (result.status, result.err) == (0, told)
    assert server.path(box, "a").read_bytes() == (folder / "a").read_bytes()
