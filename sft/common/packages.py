"""The packages that must be installed, and the line that a person reads when one is not.

Rules: looking for a package does not load it. It knows none of them by name; crypto_utils.py checks its own.
"""

import importlib.util
import sys

from sft.common.errors import UsageError

INSTALL = "Run: python -m pip install -r requirements.lock"


def check_installed(package: str) -> None:
    """Raises UsageError, with the command that installs it, when the package is not there."""
    try:
        found = importlib.util.find_spec(package)
    except ImportError:
        found = None
    if found is None:
        raise UsageError(f"{package} is not installed", INSTALL)


def leave_out(package: str) -> None:
    """Let no import of that package succeed from now on, as if it were not installed; on PyPy it is left as it is."""
    if sys.implementation.name == "cpython":
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
