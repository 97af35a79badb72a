"""The manual pages are what the parsers say, and are pages that a reader of them accepts."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.man_pages import escape, page, pages


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_page_is_what_the_parser_gives(path: Path) -> None:
    assert path.read_text("utf-8") == pages()[path], "run `make man`, and commit what it writes"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_page_has_no_fault_that_mandoc_finds(path: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc")
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "style", path], capture_output=True, text=True, timeout=60)
    assert [line for line in found.stdout.splitlines() if "missing date" not in line] == []


def test_text_is_never_taken_for_a_request() -> None:
    assert escape(".gitignore has it") == "\\&.gitignore has it"
    assert escape("'a' \\n -x") == "\\&'a' \\en \\-x"
    assert all(not line.startswith(".") for line in escape("word " * 15 + ".gitignore").splitlines())


def test_page_has_each_option_with_its_words() -> None:
    parser = argparse.ArgumentParser(prog="p.py", description="Does it.", epilog="exit status:\n  0    fine\n")
    parser.add_argument("-x", "--extra", metavar="N", help="so many more")
    text = page("p", "p.py", "pp", parser, "does it")
    assert ".TP\n\\fB\\-x\\fR, \\fB\\-\\-extra\\fR \\fIN\\fR\nso many more\n" in text
    assert ".SH EXIT STATUS\n.TP\n.B 0\nfine\n" in text and "Does it." in text
