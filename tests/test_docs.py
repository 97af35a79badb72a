"""The documents against the code: named tests exist, flags and settings exist, links lead somewhere."""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_architecture import LAYERS, MODULES, TOP, dotted, nodes_of, tree_of

from config import ClientSettings, ServerSettings, settings_of
from sft.common.version import VERSION
from sft.console.command_line import flag_of
from tools import architecture

README = TOP / "README.md"
SECURITY = TOP / "docs" / "SECURITY.md"
GUIDE, OPERATIONS = TOP / "docs" / "GUIDE.md", TOP / "docs" / "OPERATIONS.md"
DOCUMENTS = sorted([*TOP.glob("*.md"), *TOP.glob("[a-z]*/*.md")])
HELPS = [
    ("client.py",),
    ("server.py",),
    *(("server.py", command) for command in ("adduser", "limits", "passwd", "deluser", "users", "recount")),
]
SETTINGS = [
    (program, name)
    for program, shape in (("client.py", ClientSettings), ("server.py", ServerSettings))
    for name in settings_of(shape)
]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
NAMED_TEST = re.compile(r"`(tests/(?:\w+/)?test_\w+\.py)::(\w+)`( \*long\*)?")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@functools.cache
def help_of(*words: str) -> str:
    """What `--help` prints, on one line."""
    shown = subprocess.run(
        [sys.executable, *words, "--help", *(["all"] if len(words) == 1 else [])],
        cwd=TOP,
        env={**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return " ".join(shown.stdout.split())


@functools.cache
def found_in(file: str) -> dict[str, bool]:
    """The tests of that file, and whether each is a long one."""
    path = TOP / file
    if not path.is_file():
        return {}
    return {
        node.name: "pytest.mark.long" in map(ast.unparse, node.decorator_list)
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def section(text: str, heading: str) -> str:
    """What stands below `## heading`, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {heading}"
    return found[1]


def rows_of(text: str) -> list[list[str]]:
    """The cells of each row of the tables in `text`, without their headings."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rules = [number for number, row in enumerate(rows) if all(set(cell) <= set("-:") for cell in row)]
    assert rules, "there is no table"
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors_of(path: Path) -> set[str]:
    """What a `#` may name: the headings, as the web shows them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_tests(text: str) -> list[str]:
    return [f"{file}::{name}" for file, name, _ in NAMED_TEST.findall(text) if name not in found_in(file)]


def dead_links(text: str, place: Path) -> list[str]:
    dead = []
    for link in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (place.parent / name) if name else place
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    return dead


# --- promises and their tests -----------------------------------------------------------------------------------------


def test_tests_named_in_the_promises_exist() -> None:
    assert missing_tests(SECURITY.read_text("utf-8")) == []


def test_every_promise_has_one_to_three_tests_and_nothing_else() -> None:
    for promise, tests in rows_of(section(SECURITY.read_text("utf-8"), "Promises")):
        assert promise
        assert 1 <= len(NAMED_TEST.findall(tests)) <= 3, promise
        assert NAMED_TEST.sub("", tests).strip(", ") == "", promise


def test_long_tests_of_promises_are_marked_as_such() -> None:
    named = NAMED_TEST.findall(SECURITY.read_text("utf-8"))
    assert [name for file, name, long in named if found_in(file).get(name) is not bool(long)] == []


def test_missing_test_is_noticed() -> None:
    names = "test_docs.py::test_missing_test_is_noticed", "test_docs.py::test_no", "test_no.py::test_x"
    text = ", ".join(f"`tests/{name}`" for name in names)
    assert missing_tests(text) == ["tests/test_docs.py::test_no", "tests/test_no.py::test_x"]


# --- flags and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "name"), SETTINGS)
def test_every_setting_is_told_by_help(program: str, name: str) -> None:
    assert flag_of(name) in FLAG.findall(help_of(program))


@pytest.mark.parametrize(("document", "shape"), [(GUIDE, ClientSettings), (OPERATIONS, ServerSettings)])
def test_table_of_settings_has_each_of_them_in_the_words_of_help(document: Path, shape: type) -> None:
    rows = rows_of(section(document.read_text("utf-8"), "Settings"))
    assert rows == [[f"`{name}`", each.help.replace("|", "/")] for name, each in settings_of(shape).items()]


@pytest.mark.parametrize("path", [README, GUIDE, OPERATIONS], ids=lambda path: path.name)
def test_every_flag_of_a_document_exists(path: Path) -> None:
    exist = {flag for words in HELPS for flag in FLAG.findall(help_of(*words))}
    foreign = re.compile(r"python3? -m |\bsudo |^nas\$ jq|make ")
    others = re.compile(r"`(?:scp|rsync|sftp|rclone|systemctl|loginctl|journalctl) [^`]*`")
    lines = [others.sub("", line) for line in path.read_text("utf-8").splitlines() if not foreign.search(line)]
    assert {flag for line in lines for flag in FLAG.findall(line)} - exist == set()


def test_every_exit_code_of_help_is_in_the_guide() -> None:
    codes = re.findall(r"(?<!\S)(\d+)(?= [a-z])", help_of("client.py").partition("exit status:")[2])
    rows = rows_of(section(GUIDE.read_text("utf-8"), "Scripts").partition("### Exit codes")[2])
    assert codes == [row[0] for row in rows[:7]] == ["0", "1", "2", "3", "4", "5", "130"]


def test_every_target_named_in_a_document_exists() -> None:
    texts = [path.read_text("utf-8") for path in DOCUMENTS]
    named = {name for text in texts for name in re.findall(r"(?:^\$ |`)make ([a-z-]+)", text, re.M)}
    exist = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text("utf-8"), re.M))
    assert named - exist == set()


def test_contributing_explains_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text("utf-8"), re.M)[0].split()
    rows = rows_of((TOP / "CONTRIBUTING.md").read_text("utf-8"))
    assert {f"`make {name}`" for name in phony} - {row[0] for row in rows} == {"`make clean`"}


# --- the version ------------------------------------------------------------------------------------------------------


def test_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (TOP / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert first and first[1] == re.sub(r"(rc|\.dev)\d+$", "", VERSION)


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert dead_links(path.read_text("utf-8"), path) == []


def test_dead_link_is_noticed() -> None:
    text = "[a](docs/SECURITY.md) [b](docs/no.md) [c](docs/SECURITY.md#promises) [d](#no) `[e](no)` [f](https://no.example)"
    assert dead_links(text, README) == ["docs/no.md", "#no"]


# --- modules ----------------------------------------------------------------------------------------------------------

ANEW = "run `make architecture`, and commit what it writes"


def test_table_of_modules_is_what_the_code_gives() -> None:
    text = architecture.DOCUMENT.read_text("utf-8")
    assert architecture.document(text) == text, ANEW


def test_picture_of_the_architecture_is_what_the_imports_give() -> None:
    assert architecture.PICTURE.read_text("utf-8") == architecture.picture(), ANEW


def test_picture_shows_every_layer_and_leaves_out_arrows_that_follow_from_others() -> None:
    assert architecture.layers() == LAYERS
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert architecture.arrows(graph) == [("a", "b"), ("b", "c")]


# --- threads and locks ------------------------------------------------------------------------------------------------

LOCKS = {"threading.Lock", "threading.RLock", "threading.Condition", "threading.BoundedSemaphore", "threading.Barrier"}
STARTERS = {"threading.Thread", "threading.Timer", "ThreadPoolExecutor", "BackgroundTask"}
GENERIC = {"sft.common.background"}  # starts threads for others, which name them


def locks_of(module: str) -> set[str]:
    """`Class._lock` for each lock that a module makes, and `flock` if it locks files."""
    found = set()
    for top in tree_of(module).body:
        owner = f"{top.name}." if isinstance(top, ast.ClassDef) else ""
        for node in ast.walk(top):
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
                if dotted(node.value.func) in LOCKS:
                    found.add(owner + target.removeprefix("self."))
            elif isinstance(node, ast.Call) and dotted(node.func) == "fcntl.flock":
                found.add("flock")
    return found


def threads_of(module: str) -> set[str]:
    """The name of each thread that a module starts, without a number at its end; of a timer, what it calls."""
    found = set()
    for node in nodes_of(tree_of(module)):
        if isinstance(node, ast.Call) and dotted(node.func) in STARTERS and module not in GENERIC:
            given = {word.arg: word.value for word in node.keywords}
            name = (
                given.get("name") or given.get("thread_name_prefix") or node.args[dotted(node.func).endswith("Timer")]
            )
            words = [
                part.value for part in ast.walk(name) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            found.add(words[0] if words else ast.unparse(name).rpartition(".")[2])
    return found


@pytest.mark.parametrize(("heading", "names_of"), [("Threads", threads_of), ("Locks", locks_of)])
def test_table_of_threads_or_locks_has_each_that_the_code_makes(
    heading: str, names_of: Callable[[str], set[str]]
) -> None:
    made = {
        f"{architecture.path_of(module).relative_to(TOP)}: {name}" for module in MODULES for name in names_of(module)
    }
    rows = rows_of(section(architecture.DOCUMENT.read_text("utf-8"), heading))
    named = {
        f"{row[1].strip('`')}: {name}"
        for row in rows
        if row[1]
        for name in re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)", "", row[0]))
    }
    assert named == made


def test_walks_name_what_is_in_the_code() -> None:
    text = section(architecture.DOCUMENT.read_text("utf-8"), "Three walks")
    defined = {
        node.name
        for module in MODULES
        for node in nodes_of(tree_of(module))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    calls = {name for row in rows_of(text) for name in re.findall(r"`((?:\w+\.)?_?[a-zA-Z]\w+)`", row[1])}
    assert {name for name in calls if not name.endswith(".py") and not set(name.split(".")) <= defined} == set()
    paths = set(re.findall(r"`(?:sft/)?(\w+/\w+\.py|\w+\.py)`", text))
    assert {path for path in paths if not (TOP / "sft" / path).is_file() and not (TOP / path).is_file()} == set()
