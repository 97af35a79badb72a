"""How the programs were started, so that help and advice name the commands as the user types them.

Rules: as scripts in a folder of their own they are `client.py` and `server.py`; installed as a package they are the
commands `sft` and `sft-server`. Only texts of ours are changed, and nothing is printed.
"""

import re

_COMMANDS = {"client.py": "sft", "server.py": "sft-server"}
_SCRIPT = re.compile(r"(?:python )?\b(client\.py|server\.py)\b")
_installed: list[bool] = []


def mark_installed() -> None:
    """The program was started by the command of an installed package."""
    _installed.append(True)


def is_installed() -> bool:
    """Whether it was."""
    return bool(_installed)


def as_started(text: str) -> str:
    """A text of ours that names the scripts, with their names as the user types them."""
    return _SCRIPT.sub(lambda found: _COMMANDS[found[1]], text) if _installed else text
