"""Runs the harnesses under the fuzzer: `make fuzz`, or with the folder `tests` in PYTHONPATH:

    python -m fuzz --seconds 300            each of them for so long, one after the other, then a summary
    python -m fuzz --seconds 300 names      only those
    python -m fuzz names --repeat FILE ...  what was found, once more, without the fuzzer

What is new stays in `.fuzz/NAME/`, a finding in `.fuzz/NAME-crash-...`. Exit status: 0 nothing was found, 1 something
was, 2 the fuzzer is not there.
"""

import argparse
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz import CORPUS, FOLDER_VARIABLE, HARNESSES, memory

TOP = Path(__file__).resolve().parent.parent.parent
FOUND = TOP / ".fuzz"
MODULES = ["crypto_utils", "sft"]
_ONE_INPUT_SECONDS = 60
_MEMORY_MB = 1024
_LONGEST = {"names": 5000, "requests": 192, "replies": 192}
_LONGEST_ELSE = 4096
_FIGURES = re.compile(r"stat::(\w+):\s+(\d+)")
_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+)")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(HARNESSES))
    parser.add_argument("--seconds", type=int, default=300, help="for each harness")
    parser.add_argument("--repeat", nargs="+", metavar="FILE", type=Path, help="give these files to one harness")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(HARNESSES):
        parser.error(f"no harness is called {', '.join(sorted(unknown))}; there are {', '.join(HARNESSES)}")
    names = asked.names or HARNESSES
    if asked.seconds < 1:
        parser.error("--seconds must be 1 or more")
    if asked.repeat:
        for file in asked.repeat:
            harness(names[0]).one_input(file.read_bytes())
        return 0
    if asked.inside:
        fuzz(names[0], asked.seconds)
    if importlib.util.find_spec("atheris") is None:
        print(
            "error: the fuzzer, atheris, is not here: it exists for some systems only (Linux on x86-64)",
            file=sys.stderr,
        )
        return 2
    return max([run(name, asked.seconds) for name in names])


def harness(name: str) -> Any:
    """The module of that name."""
    return importlib.import_module(f"fuzz.{name}")


def run(name: str, seconds: int) -> int:
    """One harness in a process of its own, which a finding ends; one line about it, and its log when there is one."""
    FOUND.mkdir(exist_ok=True)
    before, began = set(FOUND.glob(f"{name}-*")), time.monotonic()
    log = FOUND / f"{name}.log"
    # The fuzzer ends its process without ado: what that leaves behind is removed from outside.
    with log.open("wb") as output, tempfile.TemporaryDirectory(prefix="sft-fuzz-", dir=memory()) as folder:
        environment = {**os.environ, FOLDER_VARIABLE: folder}
        command = [sys.executable, "-m", "fuzz", name, "--seconds", str(seconds), "--inside"]
        status = subprocess.run(command, cwd=TOP, env=environment, stdout=output, stderr=output, check=False).returncode
    text = log.read_text("utf-8", "replace")
    figures = dict(_FIGURES.findall(text))
    coverage = _COVERAGE.findall(text)
    units = int(figures.get("number_of_executed_units", 0))
    spent = time.monotonic() - began
    print(
        f"{name:<13} {units:>11,} inputs in {spent:.0f} s, {units / spent:,.0f} each second;"
        f" coverage {coverage[0][0] if coverage else '?'} -> {coverage[-1][0] if coverage else '?'} edges,"
        f" {figures.get('peak_rss_mb', '?')} MB; {'nothing found' if not status else 'FOUND SOMETHING'}",
        flush=True,
    )
    if not status:
        return 0
    print("".join(text.splitlines(keepends=True)[-60:]), file=sys.stderr)
    for file in sorted(set(FOUND.glob(f"{name}-*")) - before):
        print(f"{name}: see it again with: PYTHONPATH=tests python -m fuzz {name} --repeat {file}", file=sys.stderr)
    print(f"{name}: its whole log is {log}", file=sys.stderr)
    return 1


def fuzz(name: str, seconds: int) -> None:
    """Hand this process to the fuzzer, which ends it."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=MODULES):
        one_input = harness(name).one_input
    kept = FOUND / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        for word in harness(name).WORDS:
            words.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')
        words.flush()
        flags = [
            f"-max_total_time={seconds}",
            f"-timeout={_ONE_INPUT_SECONDS}",
            f"-rss_limit_mb={_MEMORY_MB}",
            f"-max_len={_LONGEST.get(name, _LONGEST_ELSE)}",
            f"-artifact_prefix={FOUND / name}-",
            *([f"-dict={words.name}"] if harness(name).WORDS else []),
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *flags, str(kept), str(CORPUS / name)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TOP), str(TOP / "tests")])
    sys.exit(main())
