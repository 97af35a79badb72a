"""What a machine may lack: a new Python, the library of the progress bar."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import HOME, LIMIT, MIB, Client, Server, Terminal, clean_environment, make

STARTED = [
    "client.py",
    "server.py",
    *(f"tools/{name}.py" for name in ("architecture", "audit", "demo", "worked_example")),
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


def without_tqdm(place: Path) -> dict[str, str]:
    """The environment of somebody who installed pycryptodome alone."""
    make(place / "tqdm.py").write_text("raise ModuleNotFoundError(\"No module named 'tqdm'\", name='tqdm')")
    environment = clean_environment()
    return {**environment, "PYTHONPATH": f"{place}:{environment['PYTHONPATH']}"}


def test_without_tqdm_files_arrive_and_one_line_says_how_to_get_it(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    environment, source = without_tqdm(tmp_path / "packages"), make(folder / "large", 3 * MIB)
    fetched = f"--get {box}/large {tmp_path}/fetched"
    for command in (f"{source} {box}/", fetched, f"--quiet {source} {box}/quiet"):
        with Terminal("client.py", *client.flags, *command.split(), environment=environment) as terminal:
            assert terminal.finish() == 0
        said = terminal.screen.count("no progress bar: tqdm is not installed. Run: python -m pip install -r ")
        assert said == ("--quiet" not in command)
        assert "%|" not in terminal.screen
    assert server.path(box, "large").read_bytes() == source.read_bytes() == (tmp_path / "fetched").read_bytes()


@pytest.mark.parametrize("variable", ["TQDM_MININTERVAL", "TQDM_BAR_FORMAT", "TQDM_POSITION"])
def test_variable_that_tqdm_can_not_read_costs_the_bar_only(
    client: Client, folder: Path, box: str, variable: str
) -> None:
    environment = clean_environment(**{variable: "{none}"})
    with Terminal("client.py", *client.flags, make(folder / "a"), f"{box}/", environment=environment) as terminal:
        assert terminal.finish() == 0
    assert "1 file delivered" in terminal.screen
    assert terminal.screen.count("no progress bar: tqdm fails (") == 1
