"""Writes the picture and the table of modules in docs/ARCHITECTURE.md, from the code itself.

python tools/architecture.py        writes docs/architecture.svg and the rows between the two marks in ARCHITECTURE.md

The layers come from the table in tests/test_architecture.py, the arrows from the imports, and what a module is for
from the first line of its docstring. The same code always gives the same files, so a test can compare them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sft.common import python_version  # noqa: F401, I001  # before the others: an older Python can't import them

import ast
from collections.abc import Iterable
from dataclasses import dataclass

TOP = Path(__file__).resolve().parent.parent
DOCUMENT = TOP / "docs" / "ARCHITECTURE.md"
PICTURE = TOP / "docs" / "architecture.svg"
BEGIN, END = "<!-- modules: made by `make architecture` -->", "<!-- end of modules -->"

_ROWS = 11  # modules below each other in one column of a box
_COLUMN, _LINE, _PAD, _TITLE = 132, 15, 12, 22
_WIDTH, _GAP_DOWN = 1000, 46


def modules() -> list[str]:
    """Every module of the product by its dotted name, sorted."""
    files = [*TOP.glob("*.py"), *(TOP / "sft").rglob("*.py")]
    return sorted(".".join(path.relative_to(TOP).with_suffix("").parts) for path in files if path.stem != "__init__")


def path_of(module: str) -> Path:
    """The file of a module."""
    return TOP.joinpath(*module.split(".")).with_suffix(".py")


def folder_of(module: str) -> str:
    """`sft.wire` for `sft.wire.channel`; a module of the root stands for itself."""
    return module.rpartition(".")[0] or module


def layers() -> tuple[tuple[str, ...], ...]:
    """The table LAYERS of tests/test_architecture.py, lowest layer first."""
    tree = ast.parse((TOP / "tests" / "test_architecture.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            table: tuple[tuple[str, ...], ...] = ast.literal_eval(node.value)
            return table
    raise LookupError("tests/test_architecture.py has no table LAYERS")


# --- The table --------------------------------------------------------------------------------------------------------


def table() -> str:
    """One row for each module, highest layer first: its file, and the first line of its docstring."""
    order = [folder for layer in reversed(layers()) for folder in layer]
    rows = [
        f"| `{path_of(module).relative_to(TOP).as_posix()}` | {_summary(module)} |"
        for folder in order
        for module in modules()
        if folder_of(module) == folder
    ]
    return "\n".join(("| module | what it is |", "| --- | --- |", *rows))


def _summary(module: str) -> str:
    text = ast.get_docstring(ast.parse(path_of(module).read_text("utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")


def document(text: str) -> str:
    """`text`, which is ARCHITECTURE.md, with the table of today between the marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


# --- The picture ------------------------------------------------------------------------------------------------------


def imports() -> dict[str, set[str]]:
    """For each folder, the other folders that it imports from."""
    known = set(modules())
    found: dict[str, set[str]] = {folder_of(module): set() for module in known}
    for module in known:
        for node in ast.walk(ast.parse(path_of(module).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                named = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                continue
            found[folder_of(module)] |= {folder_of(name) for name in named & known} - {folder_of(module)}
    return found


def _reachable(start: Iterable[str], graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [each for folder in start for each in graph[folder]]
    while todo:
        folder = todo.pop()
        if folder not in seen:
            seen.add(folder)
            todo += graph[folder]
    return seen


def arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others: A -> C is left out where A -> B -> C is there."""
    return sorted((folder, other) for folder, others in graph.items() for other in others - _reachable(others, graph))


@dataclass(frozen=True)
class _Box:
    """One folder in the picture."""

    name: str
    lines: tuple[str, ...]
    x: int
    y: int
    width: int
    height: int

    @property
    def middle(self) -> int:
        return self.x + self.width // 2

    def svg(self) -> list[str]:
        shown = [
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6" class="box"/>',
            f'<text x="{self.x + _PAD}" y="{self.y + 19}" class="title">{self.name}</text>',
        ]
        for number, line in enumerate(self.lines):
            column, row = divmod(number, _ROWS)
            x, y = self.x + _PAD + column * _COLUMN, self.y + _TITLE + 17 + row * _LINE
            shown.append(f'<text x="{x}" y="{y}">{line}</text>')
        return shown


def _boxes() -> dict[str, _Box]:
    """Where each folder stands: a row for each layer, the highest on top."""
    found: dict[str, _Box] = {}
    y = _PAD
    for layer in reversed(layers()):
        sizes = []
        for folder in layer:
            inside = tuple(path_of(each).name for each in modules() if folder_of(each) == folder != each)
            columns = max(1, -(-len(inside) // _ROWS))
            height = _TITLE + (min(len(inside), _ROWS) * _LINE + _PAD if inside else 8)
            sizes.append((folder, inside, columns * _COLUMN + 2 * _PAD, height))
        spare = (_WIDTH - sum(width for *_, width, _ in sizes)) // (len(sizes) + 1)
        x = spare
        for folder, inside, width, height in sizes:
            name = folder.replace(".", "/") + ("/" if inside else ".py")
            found[folder] = _Box(name, inside, x, y, width, height)
            x += width + spare
        y += max(height for *_, height in sizes) + _GAP_DOWN
    return found


_STYLE = """\
svg { background: #fff }
text { font: 11.5px ui-monospace, Menlo, Consolas, monospace; fill: #333 }
.title { font-weight: bold; fill: #000 }
.number { fill: #8a97a5 }
.box { fill: #f4f6f8; stroke: #8a97a5 }
path { fill: none; stroke: #5b7fa6; stroke-width: 1.4 }"""


def picture() -> str:
    """The picture as SVG: folders by layer, and the arrows between them."""
    boxes = _boxes()
    height = max(box.y + box.height for box in boxes.values()) + _PAD
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        "<title>The folders of the code by layer, and what each imports</title>",
        f"<style>\n{_STYLE}\n</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" style="fill: #5b7fa6; stroke: none"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    graph = imports()
    drawn = arrows(graph)
    for folder, other in drawn:
        above, below = boxes[folder], boxes[other]
        x, y = _port(above, below, [boxes[to].middle for start, to in drawn if start == folder]), above.y + above.height
        to_x = _port(below, above, [boxes[start].middle for start, to in drawn if to == other])
        bend = (below.y - y) // 2
        lines.append(
            f'<path d="M{x} {y} C{x} {y + bend} {to_x} {below.y - bend} {to_x} {below.y}" marker-end="url(#tip)"/>'
        )
    for number, layer in enumerate(layers(), 1):
        lines.append(f'<text x="4" y="{boxes[layer[0]].y + 19}" class="number">{number}</text>')
    for box in boxes.values():
        lines += box.svg()
    return "\n".join((*lines, "</svg>", ""))


def _port(box: _Box, other: _Box, middles: list[int]) -> int:
    """Where on the edge of `box` the arrow from or to `other` ends: they share the edge, from left to right."""
    place = sorted(middles).index(other.middle) + 1
    return box.x + box.width * place // (len(middles) + 1)


def main() -> int:
    """Write both."""
    DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8")), "utf-8")
    PICTURE.write_text(picture(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
