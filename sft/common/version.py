"""The version of the programs, and the line in which they show it.

Rules: the number stands here and nowhere else in the code. It is the version of the programs; the wire has a version of
its own (`sft/wire/protocol.py`), which changes only when two ends could not understand each other.
"""

import sys

VERSION = "1.0.0rc1"
VERSION_HELP = "print the versions of program, wire and libraries, and exit"


def version_line(program: str, wire: int, libraries: str) -> str:
    """`client.py 1.0.0 (wire 1, Python 3.11.7, pycryptodome 3.23.0, zstd)`: for --version, and logs."""
    return f"{program} {VERSION} (wire {wire}, Python {sys.version.split()[0]}, {libraries})"
