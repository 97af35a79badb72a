"""The packages that must be installed, and the line that a person reads when one is not.

Rules: looking for a package does not load it. It knows none of them by name; crypto_utils.py checks its own.
"""

import importlib.util

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
