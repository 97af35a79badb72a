"""The architecture, read off the code itself: which folder may import which, and who touches what."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tables import each_row

TOP = Path(__file__).resolve().parent.parent

# A module imports from layers below its own, and from its own folder; never from a folder beside it.
LAYERS = (
    ("sft.common",),
    ("sft.console", "crypto_utils"),
    ("config", "sft.wire", "sft.disk"),
    ("sft.accounts", "sft.transfer"),
    ("sft.client", "sft.server"),
    ("client", "server"),
)
PROGRAMS = set(LAYERS[-1])
FOLDERS = {part for layer in LAYERS for part in layer}
SIDES = {"client": "sft.server", "server": "sft.client"}  # neither program loads the other side
BESIDE = {"bench", "tests", "tools"}  # they know the product; it knows none of them

# Who may do what is named by folder or by module.
SOCKETS = {
    "sft.wire",
    "sft.client.login",
    "sft.server.listener",
    "sft.server.service_manager",
    "sft.server.signals",
    "sft.server.http_answers",
    "sft.server.control",
}
WAITERS = {"sft.console"}  # wait for a key, a signal or a full pipe, and know no socket
FILES = {"sft.disk", "sft.accounts", "sft.console", "sft.client.receipts_file", "sft.common.settings_file"}
FILES |= {"sft.common.private_files", "sft.common.flushing", "sft.server.control"}  # control: its own socket
FILES.add("sft.server.hook_process")  # a nameless one
PRINTERS = {"sft.console", *PROGRAMS}
PRINTERS |= {f"sft.common.{each}" for each in ("python_version", "signals", "utf8_names")}  # before that is loaded
PYCRYPTODOME = {"crypto_utils", "sft.wire.pake"}
PURE = {
    *("crypto_utils", "sft.common.names", "sft.common.sizes", "sft.client.retries", "sft.client.refusals"),
    *("sft.wire.pake", "sft.wire.protocol", "sft.wire.spelling", "sft.wire.messages"),
    *("sft.disk.decisions", "sft.disk.amounts", "sft.accounts.format"),
}
OUTSIDE_WORLD = {"socket", "select", "selectors", "ssl", "os", "io", "pathlib", "shutil", "tempfile", "subprocess"}
OUTSIDE_WORLD |= {"time", "datetime", "threading", "multiprocessing", "concurrent", "asyncio", "signal"}

# Calls named `open` that open no file: they hand the name to a module that does, or open something else.
OPEN_NO_FILE = (
    *("KemKey(", "self._kem.open", "self._cipher.open", "mode.open"),
    *("item.open", "tree.open", "self._folders.open"),
)
CHANGE_NO_FILE = {"fetching.base.rmdir"}  # the client removes the folder that it has just made

MOST_LINES = 410
BENCH = sorted((TOP / "bench").glob("*.py"))
BENCH_MOST_LINES = 400


def on_disk() -> set[str]:
    """Every module of the product, by its dotted name."""
    files = [*TOP.glob("*.py"), *(TOP / "sft").rglob("*.py")]
    return {".".join(path.relative_to(TOP).with_suffix("").parts) for path in files if path.stem != "__init__"}


MODULES = sorted(on_disk())


def folder_of(module: str) -> str:
    """`sft.wire` for `sft.wire.channel`; a module of the root stands for itself."""
    return module.rpartition(".")[0] or module


def layer_of(module: str) -> int:
    return next(number for number, layer in enumerate(LAYERS, 1) if folder_of(module) in layer)


def is_one_of(module: str, named: set[str]) -> bool:
    return module in named or folder_of(module) in named


def path_of(module: str) -> Path:
    return TOP.joinpath(*module.split(".")).with_suffix(".py")


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text("utf-8"))


@functools.cache
def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """All below it; most rules look at all of every module."""
    return list(ast.walk(tree))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that `tree` names in an import, wherever it stands: also in functions and for type checkers."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole way"
            assert node.module is not None
            yield node.module
            for alias in node.names:  # `from sft.wire import pake` names a module, too
                if f"{node.module}.{alias.name}" in MODULES:
                    yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and dotted(node.func) in ("__import__", "importlib.import_module"):
            raise AssertionError(f"line {node.lineno}: an import that can't be read off the code")


def modules_imported(module: str) -> set[str]:
    return {name for name in imports_of(tree_of(module)) if name in MODULES}


def top_imports(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(tree_of(module))}


def dotted(node: ast.expr) -> str:
    """`os.path.join` for the expression that says so; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def calls_of(module: str) -> set[str]:
    return {dotted(node.func) for node in nodes_of(tree_of(module)) if isinstance(node, ast.Call)}


def names_of(module: str) -> set[str]:
    return {dotted(node) for node in nodes_of(tree_of(module)) if isinstance(node, ast.Name | ast.Attribute)}


def wrong_imports(module: str, imported: set[str]) -> set[str]:
    """What of `imported` stands neither below `module` nor in its folder."""
    return {
        other
        for other in imported
        if layer_of(other) >= layer_of(module) and not (folder_of(other) == folder_of(module) != module)
    }


# --- Layers ---


def test_every_module_stands_in_one_layer() -> None:
    assert {folder_of(module) for module in MODULES} == FOLDERS


def test_folders_have_no_folders_and_their_init_files_are_empty() -> None:
    assert {path for path in (TOP / "sft").rglob("*") if path.is_dir() and path.name != "__pycache__"} == {
        TOP.joinpath(*folder.split(".")) for folder in FOLDERS if folder.startswith("sft.")
    }
    assert all(path.read_text("utf-8") == "" for path in (TOP / "sft").rglob("__init__.py"))


def test_module_imports_from_below_or_from_its_own_folder() -> None:
    for module in MODULES:
        assert wrong_imports(module, modules_imported(module)) == set(), module


def test_imports_form_no_circle() -> None:
    list(graphlib.TopologicalSorter({module: modules_imported(module) for module in MODULES}).static_order())


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_loads_nothing_of_the_other_side(program: str) -> None:
    reached, todo = set(), {program}
    while todo:
        module = todo.pop()
        reached.add(module)
        todo |= modules_imported(module) - reached
    assert not [module for module in reached if folder_of(module) == SIDES[program]]


def test_module_knows_nothing_of_what_stands_beside_the_product() -> None:
    for module in MODULES:
        assert not BESIDE & top_imports(module), module


def test_imports_name_modules_and_not_folders() -> None:
    """`import sft.wire` would hide which module is meant."""
    for module in MODULES:
        for node in nodes_of(tree_of(module)):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & (FOLDERS - {folder_of(each) for each in MODULES}), (
                    module
                )
            elif isinstance(node, ast.ImportFrom) and (TOP.joinpath(*(node.module or "").split("."))).is_dir():
                assert all(f"{node.module}.{alias.name}" in MODULES for alias in node.names), module


def test_settings_arrive_as_arguments() -> None:
    """Elsewhere `config` is imported for the types of the settings, and for the port that needs no flag."""
    for module in MODULES:
        for node in nodes_of(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.module == "config" and module not in PROGRAMS:
                assert {alias.name for alias in node.names} <= {"ClientSettings", "ServerSettings", "DEFAULT_PORT"}, (
                    module
                )
            assert not isinstance(node, ast.Import) or "config" not in {alias.name for alias in node.names}, module


def test_judge_sees_every_kind_of_import() -> None:
    code = """
import socket
import os.path as p
from sft.wire import pake
if TYPE_CHECKING:
    from sft.transfer.sender import Item
def later():
    from sft.disk.storage import Storage
"""
    found = set(imports_of(ast.parse(code)))
    assert found == {"socket", "os.path", "sft.wire", "sft.wire.pake", "sft.transfer.sender", "sft.disk.storage"}
    with pytest.raises(AssertionError):
        set(imports_of(ast.parse("importlib.import_module('server')")))


@each_row(
    ("module", "other", "allowed"),
    [
        ("sft.disk.storage", "sft.disk.names", True),
        ("sft.disk.storage", "sft.common.errors", True),
        ("sft.disk.storage", "sft.wire.messages", False),  # beside it
        ("sft.wire.channel", "sft.transfer.sender", False),  # above it
        ("sft.client.jobs", "sft.server.session", False),
        ("sft.console.screen", "crypto_utils", False),
        ("server", "client", False),
    ],
)
def test_judge_tells_an_import_downward_from_any_other(module: str, other: str, allowed: bool) -> None:
    assert (wrong_imports(module, {other}) == set()) == allowed


# --- Who touches what ---


def knows_sockets(tree: ast.Module) -> bool:
    """Whether code names a socket: by the library, or by the name that `sft.wire.sockets` gives the class."""
    named = set(imports_of(tree))
    taken = {
        alias.name
        for node in nodes_of(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sft.")
        for alias in node.names
    }
    return bool({"socket", "selectors", "ssl", "socketserver"} & {name.partition(".")[0] for name in named}) or bool(
        {"Socket", "socket"} & taken
    )


def test_only_the_wire_and_the_ends_know_sockets() -> None:
    for module in MODULES:
        assert not knows_sockets(tree_of(module)) or is_one_of(module, SOCKETS), module
        assert "select" not in top_imports(module) or is_one_of(module, SOCKETS | WAITERS), module


def test_judge_knows_a_socket_under_another_name() -> None:
    assert knows_sockets(ast.parse("from sft.wire.sockets import Socket"))
    assert knows_sockets(ast.parse("import socket as plug"))
    assert not knows_sockets(ast.parse("from sft.wire.sockets import place_of"))


def test_only_the_disk_and_the_keepers_of_our_own_files_open_any() -> None:
    for module in MODULES:
        opens = {"open", "os.open", "os.fdopen", "io.open", "os.mkdir", "os.makedirs", "os.link", "os.replace"}
        opens |= {"os.unlink", "os.rename", "os.symlink", "os.remove", "os.mkfifo", "os.truncate"}
        used = {call for call in calls_of(module) if call in opens}
        methods = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "unlink", "rename", "touch"}
        methods |= {"symlink_to", "hardlink_to", "rmdir"}
        for node in nodes_of(tree_of(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
                used |= {text for text in [ast.unparse(node.func)] if not text.startswith(OPEN_NO_FILE)}
        assert not used - CHANGE_NO_FILE or is_one_of(module, FILES), module


WITH_BODIES = ("sft.wire.batch", "sft.wire.bodies", "sft.wire.messages", "sft.wire.tree_messages")


def test_only_the_messages_import_the_library_of_bodies() -> None:
    for module in MODULES:
        assert "msgspec" not in top_imports(module) or module in WITH_BODIES, module


def test_only_one_module_imports_the_library_of_frames() -> None:
    for module in MODULES:
        assert not {"backports", "compression"} & top_imports(module) or module == "sft.wire.compression", module


def test_only_two_modules_import_pycryptodome_and_one_cryptography() -> None:
    for module in MODULES:
        assert not {"Crypto", "Cryptodome"} & top_imports(module) or module in PYCRYPTODOME, module
        assert "cryptography" not in top_imports(module) or module == "crypto_utils", module


def test_only_the_console_and_the_programs_print() -> None:
    for module in MODULES:
        streams = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
        prints = "print" in calls_of(module) or any(
            name in streams or name.startswith(tuple(f"{stream}." for stream in streams)) for name in names_of(module)
        )
        numbers = [
            node.lineno
            for node in nodes_of(tree_of(module))
            if isinstance(node, ast.Call)
            and dotted(node.func) == "os.write"
            and isinstance(node.args[0], ast.Constant)
            and node.args[0].value in (1, 2)
        ]
        assert not (prints or numbers) or is_one_of(module, PRINTERS), module


def test_pure_module_knows_no_socket_no_file_and_no_clock() -> None:
    for module in sorted(PURE):
        assert not OUTSIDE_WORLD & top_imports(module), module
        assert not {"open", "print", "input"} & calls_of(module), module


# --- How modules are written ---


def test_no_assert_guards_anything() -> None:
    """It would be gone under `python -O`."""
    for module in MODULES:
        assert [node.lineno for node in nodes_of(tree_of(module)) if isinstance(node, ast.Assert)] == [], module


def test_module_is_small_enough_for_one_purpose() -> None:
    for module in MODULES:
        assert len(path_of(module).read_text("utf-8").splitlines()) <= MOST_LINES, f"split {module} by purpose"


def test_module_opens_with_what_it_is_and_its_rules() -> None:
    for module in MODULES:
        assert "Rules" in (ast.get_docstring(tree_of(module)) or ""), module


def test_no_handler_catches_everything_without_a_name() -> None:
    for module in MODULES:
        assert not [
            node.lineno
            for node in nodes_of(tree_of(module))
            if isinstance(node, ast.ExceptHandler) and node.type is None
        ]


# --- The benchmarks ---


def test_benchmarks_import_the_cipher_and_no_other_module() -> None:
    """What they measure are the programs, as users start them."""
    found = {name for path in BENCH for name in imports_of(ast.parse(path.read_text("utf-8")))}
    ours = {*(module.partition(".")[0] for module in MODULES), *BESIDE} - {"bench"}
    assert {name for name in found if name.partition(".")[0] in ours} == {"crypto_utils"}


@each_row("path", BENCH, ids=lambda path: path.stem)
def test_module_of_the_benchmarks_is_small_and_opens_with_what_it_measures(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= BENCH_MOST_LINES, "split it by purpose"
    words = ast.get_docstring(ast.parse(text)) or ""
    assert words and ("Rules" in words or path.stem == "__init__")
