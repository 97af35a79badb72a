"""What is installed is locked, for every system; and no rule about security is switched off silently."""

import importlib.metadata
import json
import re
import tokenize
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tables import each_row
from test_architecture import TOP

from tools.audit import verdict

LOCKS = {
    each: each.replace(".txt", ".lock")
    for each in (
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-tools.txt",
        "bench/requirements.txt",
        "tests/fuzz/requirements.txt",
    )
}
LOCKED = re.compile(r"^([\w.-]+==[^\s;]+(?: ; [^\\\n]+)?) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.M)
COMMENT = re.compile(r"^ *#.*\n", re.M)


def asked_for(file: str) -> list[Requirement]:
    """The requirements of a file and of those that it includes."""
    found = []
    for line in COMMENT.sub("", (TOP / file).read_text("utf-8")).splitlines():
        found += asked_for(line[3:]) if line.startswith("-r ") else [Requirement(line)]
    return found


def locked_in(file: str) -> dict[str, Requirement]:
    """Each package of a lock, which must hold nothing else."""
    text = COMMENT.sub("", (TOP / file).read_text("utf-8"))
    assert LOCKED.sub("", text) == "", "something has no version or no hash"
    return {one.name: one for one in (Requirement(match[1]) for match in LOCKED.finditer(text))}


def is_for(wanted: Requirement, python: dict[str, str]) -> bool:
    return wanted.marker is None or wanted.marker.evaluate(python)


def version_of(locked: Requirement) -> str:
    (only,) = locked.specifier
    assert only.operator == "=="
    return only.version


@pytest.mark.parametrize("file", LOCKS)
def test_every_requirement_is_locked_with_hashes_at_a_version_that_fits(file: str) -> None:
    locked = locked_in(LOCKS[file])
    for wanted in asked_for(file):
        found = locked[canonicalize_name(wanted.name)]
        assert version_of(found) in wanted.specifier, wanted
        for version in ("3.11", "3.13", "3.14"):
            python = {"python_version": version, "python_full_version": f"{version}.0"}
            assert is_for(found, python) == is_for(wanted, python), "it is needed everywhere"


def test_every_package_that_the_program_runs_with_has_its_reason_above_it() -> None:
    lines = (TOP / "requirements.txt").read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"# (Required|Recommended): .*\.", line) for line in lines[::2])
    assert len([Requirement(line) for line in lines[1::2]]) == len(lines) / 2


def test_what_our_packages_need_in_turn_is_locked_for_every_system() -> None:
    """The lock may be made on one system, and another needs more."""
    locked = locked_in("requirements.lock")
    for wanted in asked_for("requirements.txt"):
        try:
            needs = importlib.metadata.requires(wanted.name) or []
        except importlib.metadata.PackageNotFoundError:  # one that is recommended only
            continue
        for needed in map(Requirement, needs):
            marker = str(needed.marker or "")
            if "extra" not in marker and "python_full_version < " not in marker:  # 3.11 is the oldest
                assert needed.name in locked, f"{wanted.name} needs {needed}"


def test_both_locks_hold_the_same_versions() -> None:
    ours, all_of_it = locked_in("requirements.lock"), locked_in("requirements-dev.lock")
    assert {name: version_of(all_of_it[name]) for name in ours} == {name: version_of(one) for name, one in ours.items()}


def test_whatever_is_installed_is_installed_from_a_lock_with_hashes() -> None:
    made = (TOP / "Makefile").read_text("utf-8")
    assert "--require-hashes" in made[made.index("INSTALL :=") :].splitlines()[0]
    for line in made.splitlines():
        if "pip install" in line and not line.startswith("INSTALL :="):
            raise AssertionError(f"not from a lock: {line}")
    prepared = re.findall(r"^\S+/\.\w+: (.*)$", made, re.M)
    named = {
        each for line in prepared for each in line.split() if each.startswith("requirements") or "/requirements" in each
    }
    assert named == set(LOCKS.values())


def test_what_a_person_is_asked_to_install_is_from_a_lock_with_hashes() -> None:
    """pip looks at hashes wherever a file has some."""
    told = [TOP / "README.md", TOP / "bench/README.md", *TOP.glob("docs/*.md")]
    told += [*TOP.glob("*.py"), *TOP.glob("sft/**/*.py"), *TOP.glob("tools/*.py")]
    text = "".join(path.read_text("utf-8") for path in told)
    named = re.findall(r"pip install[^\n]* -r ([\w/.-]+\.(?:txt|lock))", text)
    assert len(named) >= 5 and set(named) <= set(LOCKS.values())


def test_make_installs_from_the_locks_alone() -> None:
    text = (TOP / "Makefile").read_text("utf-8")
    assert "--require-hashes -r" in re.findall(r"^INSTALL := (.*)$", text, re.M)[0]
    assert re.findall(r"\$\(RUN\) -m pip", text) == []


# --- the audit --------------------------------------------------------------------------------------------------------


def answer(**package: object) -> str:
    return json.dumps({"dependencies": [{"name": "tqdm", "version": "1.0", **package}], "fixes": []})


def test_audit_tells_each_known_vulnerability() -> None:
    known = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}
    assert verdict(answer(vulns=[known])) == (1, ["tqdm 1.0: PYSEC-1, fixed in 1.1 or 2.0"])
    assert verdict(answer(vulns=[])) == (0, ["1 packages, no known vulnerability"])


@each_row("text", ["", "Traceback", "{}", "[]", '{"dependencies": []}', answer(skip_reason="unknown")])
def test_audit_without_an_answer_is_no_good_news(text: str) -> None:
    status, lines = verdict(text)
    assert status == 2
    assert lines[-1].startswith("error: ")


# --- the rules about security -----------------------------------------------------------------------------------------


def test_security_rules_are_in_lint_and_not_ignored_for_the_project() -> None:
    lint = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not [rule for rule in lint["ignore"] if re.match(r"S\d", rule)]
    places = [
        place for place, rules in lint["per-file-ignores"].items() if any(re.match(r"S\d", rule) for rule in rules)
    ]
    assert set(places) <= {"tests/*", "tools/*", "bench/*"}


def test_every_exception_from_a_security_rule_says_why() -> None:
    silent = []
    folders = ("bench", "deploy", "sft", "tests", "tools")
    for path in [*TOP.glob("*.py"), *(path for folder in folders for path in (TOP / folder).rglob("*.py"))]:
        if re.search(r"# noqa: S\d+\s*$", path.read_text("utf-8"), re.MULTILINE):  # else it has no such comment
            silent += [
                f"{path.name}: {comment}" for comment in comments_of(path) if re.fullmatch(r"# noqa: S\d+\s*", comment)
            ]
    assert silent == []


def comments_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
