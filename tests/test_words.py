"""Words that are not used here, in code, tests and documents, and what to write instead.

They are words with a private meaning, or ones that leave the subject out. What follows an underscore counts as a word.
"""

import re
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent

INSTEAD = {
    r"(?:rooms|(?:this|other|own) room|room knows)": "module; space",
    r"(?:mend|mends|mended|mending)": "fix, repair",
    r"(?:houses?|wings?)": "module, package",
    r"whoever": "name the subject: a peer that ..., the user that runs the server",
    r"(?:puts? out|putting out)(?= (?:at|by|like|when|for|all|silent|who)\b)": "disconnect",
    r"(?:un)?fair": "allowed, acceptable",
    r"nobody's": "name the owner, or: has no owner",
    r"twins?": "existing file",
    r"(?:leases?|leased)": "buffer",
    r"leftovers?": "stale files",
    r"partial area": "partial folder",
    r"kin": "similar programs",
    r"(?:is|are|was|were) told": "gets, is reported to",
    r"(?:is|are|was|were) said": "is reported, is printed, is logged",
    r"at home": "does best, belongs",
    r"shall": "must, is to",
    r"(?<!there )(?:is|are|was|were) no (?:whole|regular|number|file|folder|link|host|address|name|guess)": "is not a",
    r"(?:him|his|he)": "they; name the subject",
    r"for want of": "because there is no",
}
WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(INSTEAD)})(?![a-z])", re.IGNORECASE)
KINDS = {".py", ".md", ".c", ".toml", ".yml", ".service", ".conf"}

NOT_YET = ("sft/wire/canonical.py",)


def files() -> list[str]:
    """The texts of this repository but for this one, the locks, and the seeds of the fuzzers."""
    folders = (".github", "bench", "deploy", "docs", "sft", "tests", "tools")
    paths = [*TOP.glob("*"), *(path for folder in folders for path in (TOP / folder).rglob("*"))]
    names = [path.relative_to(TOP).as_posix() for path in paths if path.suffix in KINDS and path.is_file()]
    return sorted(name for name in names if "corpus/" not in name and name != "tests/test_words.py")


def found_in(text: str) -> list[str]:
    """Each line with such a word, by its number."""
    return [
        f"{number}: {', '.join(words)}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if (words := WORD.findall(line))
    ]


def test_no_word_of_the_list_is_used() -> None:
    texts = {name: (TOP / name).read_text("utf-8", "replace") for name in files() if name not in NOT_YET}
    assert {name: lines for name, text in texts.items() if (lines := found_in(text))} == {}
