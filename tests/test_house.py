"""The rules of the house, read off the code itself: who may import whom, and who touches what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent

LEVELS = {
    "errors": -1,
    "python_version": -1,
    "utf8_names": -1,
    "values": -1,
    "json_lines": -1,
    "receipts_file": 0,
    "refusals": 0,
    "sizes": -1,
    "output": -1,
    "aside": 0,
    "progress": 0,
    "log_limits": 0,
    "crypto_utils": 0,
    "config": 3,
    "disk.durable": 0,
    "disk.private": 0,
    "disk.leftovers": 1,
    "disk.moving": 0,
    "wire.pake": 1,
    "wire.protocol": 1,
    "wire.pace": 1,
    "wire.canonical": 2,
    "wire.strict_json": 1,
    "report": 1,
    "logs": 2,
    "command_line": 2,
    "disk.names": 1,
    "disk.permissions": 1,
    "disk.readings": 1,
    "disk.hidden": 2,
    "disk.announced": 2,
    "disk.parents": 2,
    "disk.folders": 1,
    "disk.journal": 1,
    "disk.ledger": 1,
    "disk.partials": 3,
    "disk.visible": 2,
    "disk.receipts": 1,
    "disk.root": 2,
    "accounts.origin": 1,
    "wire.fields": 2,
    "wire.messages": 3,
    "wire.engine": 3,
    "wire.record": 2,
    "wire.silence": 2,
    "wire.link": 2,
    "wire.handshake": 2,
    "disk.small": 4,
    "disk.allowance": 4,
    "disk.commit": 4,
    "disk.storage": 5,
    "disk.local": 6,
    "disk.sources": 2,
    "disk.tree": 3,
    "disk.stream": 4,
    "accounts.users": 2,
    "accounts.throttle": 2,
    "accounts.admission": 2,
    "accounts.watch": 3,
    "accounts.terminal": 1,
    "accounts.passwords": 2,
    "wire.channel": 4,
    "accounts.commands": 6,
    "transfer.arriving": 4,
    "transfer.outgoing": 4,
    "transfer.sender": 5,
    "transfer.receiver": 5,
    "transfer.places": 0,
    "transfer.requests": 6,
    "transfer.items": 3,
    "transfer.plans": 6,
    "transfer.retries": 1,
    "transfer.dialing": 5,
    "transfer.commands": 7,
    "transfer.connection": 7,
    "housekeeping": 7,
    "server": 8,
    "client": 8,
}
WINGS = ("wire", "disk", "accounts", "transfer")
PROGRAMS = {"server", "client"}
MOST_LINES = 500

BENCH = sorted((HOUSE / "bench").glob("*.py"))
BENCH_MOST_LINES = 400
BESIDE = {"bench", "tests", "tools"}  # they know the rooms; no room knows them

SOCKETS = {"wire.link", "wire.channel", "wire.silence", *PROGRAMS}
WAITERS = {"accounts.terminal", "output"}  # wait for a key, a signal or room in a pipe, and know no socket
OPENERS = {
    "disk.private",
    "disk.folders",
    "disk.ledger",
    "disk.leftovers",
    "disk.allowance",
    "disk.storage",
    "disk.visible",
    "disk.local",
    "disk.hidden",
    "disk.moving",
    "disk.parents",
    "disk.partials",
    "disk.receipts",
    "disk.root",
    "disk.sources",
    "disk.tree",
    "disk.small",
    "disk.stream",
    "accounts.users",
}
OWN_FILES = {
    "config",
    "logs",
    "report",
    "receipts_file",
    "output",
    "accounts.passwords",
    "accounts.terminal",
}  # ours: no peer names them
OPEN_NO_FILE = (
    *("Accounts.open", "KemKey(", "self._kem.open", "self._opener.open"),  # they open other things
    *("FileSource.open", "item.open", "tree.open", "self._folders.open"),  # they let `disk.tree` open it
)
CLIENTS_OWN = {"fetching.base.rmdir"}  # the folder that it has just made
CRYPTO = {"crypto_utils", "wire.pake"}
PRINTERS = {"report", "python_version", "utf8_names", *PROGRAMS}
PURE = {
    "wire.pake",
    "wire.protocol",
    "wire.canonical",
    "wire.strict_json",
    "wire.fields",
    "wire.messages",
    "crypto_utils",
}
OUTSIDE_WORLD = {"socket", "select", "selectors", "ssl", "os", "io", "pathlib", "shutil", "tempfile", "subprocess"}
OUTSIDE_WORLD |= {"time", "datetime", "threading", "multiprocessing", "concurrent", "asyncio", "signal"}


def path_of(room: str) -> Path:
    return HOUSE.joinpath(*room.split(".")).with_suffix(".py")


def tree_of(room: str) -> ast.Module:
    return ast.parse(path_of(room).read_text("utf-8"))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that `tree` names in an import, wherever it stands: also in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole way"
            assert node.module is not None
            yield node.module
            for alias in node.names:  # `from wire import pake` names a room, too
                if f"{node.module}.{alias.name}" in LEVELS:
                    yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and dotted(node.func) in ("__import__", "importlib.import_module"):
            raise AssertionError(f"line {node.lineno}: an import that nobody can read off")


def rooms_imported(room: str) -> set[str]:
    return {name for name in imports_of(tree_of(room)) if name in LEVELS}


def top_imports(room: str) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(tree_of(room))}


def dotted(node: ast.expr) -> str:
    """`os.path.join` for the expression that says so; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def calls_of(room: str) -> set[str]:
    return {dotted(node.func) for node in ast.walk(tree_of(room)) if isinstance(node, ast.Call)}


def names_of(room: str) -> set[str]:
    return {dotted(node) for node in ast.walk(tree_of(room)) if isinstance(node, ast.Name | ast.Attribute)}


def on_disk() -> set[str]:
    rooms = {path.stem for path in HOUSE.glob("*.py")}
    for wing in WINGS:
        rooms |= {f"{wing}.{path.stem}" for path in (HOUSE / wing).rglob("*.py") if path.stem != "__init__"}
    return rooms


def test_every_room_has_its_level() -> None:
    assert on_disk() == set(LEVELS)


def test_wings_have_no_rooms_below_them_and_nothing_in_their_doors() -> None:
    for wing in WINGS:
        assert (HOUSE / wing / "__init__.py").read_text("utf-8").strip() == ""
        assert set((HOUSE / wing).rglob("*.py")) == set((HOUSE / wing).glob("*.py"))


@pytest.mark.parametrize("room", LEVELS)
def test_room_imports_only_from_lower_levels(room: str) -> None:
    wrong = {other for other in rooms_imported(room) if LEVELS[other] >= LEVELS[room]}
    assert wrong == set()


@pytest.mark.parametrize("room", LEVELS)
def test_no_room_knows_what_stands_beside_the_house(room: str) -> None:
    assert not BESIDE & top_imports(room)


def test_benchmarks_import_the_cipher_and_no_other_room() -> None:
    """What they measure are the programs, as users start them."""
    found = {name for path in BENCH for name in imports_of(ast.parse(path.read_text("utf-8")))}
    assert {name for name in found if name.partition(".")[0] in {*LEVELS, *WINGS, *BESIDE} - {"bench"}} == {
        "crypto_utils"
    }


@pytest.mark.parametrize("path", BENCH, ids=lambda path: path.stem)
def test_module_of_the_benchmarks_is_small_and_opens_with_what_it_measures(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= BENCH_MOST_LINES, "split it by purpose"
    words = ast.get_docstring(ast.parse(text)) or ""
    assert words
    assert ("Rules" in words and "efuse" in words) or path.stem == "__init__"


@pytest.mark.parametrize("room", LEVELS)
def test_room_imports_rooms_and_not_wings(room: str) -> None:
    """`import wire` would hide which room is meant."""
    for node in ast.walk(tree_of(room)):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & set(WINGS)
        elif isinstance(node, ast.ImportFrom) and node.module in WINGS:
            assert all(f"{node.module}.{alias.name}" in LEVELS for alias in node.names)


@pytest.mark.parametrize("room", LEVELS)
def test_only_the_channel_and_the_programs_know_sockets(room: str) -> None:
    knows = {"socket", "selectors", "select", "ssl", "socketserver"} & top_imports(room)
    assert not knows or room in SOCKETS or (room in WAITERS and knows == {"select"})


@pytest.mark.parametrize("room", LEVELS)
def test_only_the_disk_and_the_accounts_open_files(room: str) -> None:
    opens = {"open", "os.open", "os.fdopen", "io.open", "os.mkdir", "os.makedirs", "os.link", "os.replace"}
    opens |= {"os.unlink", "os.rename", "os.symlink", "os.remove", "os.mkfifo", "os.truncate"}
    used = {call for call in calls_of(room) if call in opens}
    methods = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "unlink", "rename", "touch"}
    methods |= {"symlink_to", "hardlink_to", "rmdir"}
    for node in ast.walk(tree_of(room)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            used |= {text for text in [ast.unparse(node.func)] if not text.startswith(OPEN_NO_FILE)}
    used -= CLIENTS_OWN if room == "client" else set()
    assert not used or room in OPENERS | OWN_FILES


@pytest.mark.parametrize("room", LEVELS)
def test_only_two_rooms_import_pycryptodome(room: str) -> None:
    assert not {"Crypto", "Cryptodome"} & top_imports(room) or room in CRYPTO


@pytest.mark.parametrize("room", LEVELS)
def test_only_the_report_and_the_programs_print(room: str) -> None:
    streams = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
    prints = "print" in calls_of(room) or any(
        name in streams or name.startswith(tuple(f"{stream}." for stream in streams)) for name in names_of(room)
    )
    numbers = [
        node.lineno
        for node in ast.walk(tree_of(room))
        if isinstance(node, ast.Call)
        and dotted(node.func) == "os.write"
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value in (1, 2)
    ]
    assert not (prints or numbers) or room in PRINTERS


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_room_knows_no_socket_no_file_and_no_clock(room: str) -> None:
    assert not OUTSIDE_WORLD & top_imports(room)
    assert not {"open", "print", "input"} & calls_of(room)


@pytest.mark.parametrize("room", LEVELS)
def test_no_assert_guards_anything(room: str) -> None:
    """It would be gone under `python -O`."""
    assert [node.lineno for node in ast.walk(tree_of(room)) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("room", LEVELS)
def test_settings_arrive_as_arguments(room: str) -> None:
    assert "config" not in rooms_imported(room) or room in PROGRAMS


@pytest.mark.parametrize("room", LEVELS)
def test_room_is_small_enough_for_one_purpose(room: str) -> None:
    lines = path_of(room).read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES, "split it by purpose"


@pytest.mark.parametrize("room", LEVELS)
def test_room_opens_with_what_it_is_and_its_rules(room: str) -> None:
    words = ast.get_docstring(tree_of(room)) or ""
    assert words
    assert "Rules" in words


@pytest.mark.parametrize("room", LEVELS)
def test_no_room_catches_everything_without_a_name(room: str) -> None:
    bare = [
        node.lineno for node in ast.walk(tree_of(room)) if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert bare == []


def test_reader_of_imports_sees_every_kind() -> None:
    """The judge itself is judged: each of these is an import that must not get past it."""
    code = """
import socket
import os.path as p
from wire import pake
if TYPE_CHECKING:
    from transfer.sender import Item
def later():
    from disk.storage import Storage
"""
    found = set(imports_of(ast.parse(code)))
    assert found == {"socket", "os.path", "wire", "wire.pake", "transfer.sender", "disk.storage"}
    with pytest.raises(AssertionError):
        set(imports_of(ast.parse("importlib.import_module('server')")))


WINDOWS = """
import os, sys
for missing in ("fcntl", "termios", "pwd", "grp", "resource"):
    sys.modules[missing] = None
for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "fchmod", "fstatvfs", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd.clear()
os.supports_follow_symlinks.clear()
import client
import wire.channel, wire.handshake, disk.sources, disk.tree, disk.local, disk.storage, transfer.sender, transfer.plans
from pathlib import Path
from errors import UsageError
for refused in (disk.storage.Storage, disk.local.open_local):
    try:
        refused(Path(sys.argv[1]), disk.storage.Rules())
    except UsageError as problem:
        print(problem)
source = disk.sources.FileSource.open(Path(client.__file__))
source.close()
tree = disk.tree.Tree(os.path.dirname(client.__file__), False, disk.tree.Folders())
found = next(each for each in tree.walk() if each.path.endswith("client.py"))
tree.open(found.path, found.parts).close()
import logs
logs.open_log("x", Path(sys.argv[1]) / "log", "info").info("hello")
print(sorted(os.listdir(sys.argv[1])))
"""


def test_client_runs_where_only_sending_works(tmp_path: Path) -> None:
    """As on Windows: no fcntl, no folder descriptors, no O_NOFOLLOW; receiving is refused with the reason."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, str(tmp_path)], cwd=HOUSE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *said, listing = done.stdout.splitlines()
    assert len(said) == 2
    assert all("can't receive" in each for each in said)
    assert listing == "['log']"
