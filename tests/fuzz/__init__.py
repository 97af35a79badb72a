"""Fuzzing: each harness is a module with `one_input`, which any bytes may be given, and a corpus to begin from.

Rules: what is read is accepted or refused with an error of `sft/common/errors.py`, in bounded time and memory; anything
else is a bug. A harness is repeatable: the same bytes do the same each time. It needs nothing but the project itself,
so that the ordinary tests feed it its corpus; only `python -m fuzz` needs the fuzzer.
"""

import os
from pathlib import Path

HARNESSES = ("frames", "server_login", "client_login", "messages", "names", "requests", "replies")
FOLDER_VARIABLE = "SFT_FUZZ_FOLDER"
CORPUS = Path(__file__).resolve().parent / "corpus"


def memory() -> str | None:
    """Where to put folders: as the caller wishes, else in memory where that can be."""
    return os.environ.get(FOLDER_VARIABLE) or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
