"""The home folder of the user who runs the program, and the folder for such a user's state.

Rules: a folder that is not absolute would lie below the current folder and is treated as unknown. Nothing is opened or
created here.
"""

import os
import sys


def home_folder() -> str | None:
    """The user's home folder; None when neither HOME nor the system names one."""
    if os.name == "posix" and not os.path.isabs(os.environ.get("HOME", os.sep)):
        return None
    place = os.path.expanduser("~")
    return place if os.path.isabs(place) else None


def state_folder() -> str | None:
    """Where programs keep logs and the like for this user (XDG base directories, %LOCALAPPDATA%); None if unknown."""
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    if os.path.isabs(named):
        return named
    home = home_folder()
    return None if home is None else os.path.join(home, ".local", "state")


def user_folder() -> str:
    """Where an installed package keeps this user's accounts and files."""
    import platformdirs  # only an installed package has a use for it

    return platformdirs.user_data_dir("secure-file-transfer", appauthor=False)


def expand_home(path: str) -> str:
    """`path`, with a home folder in place of `~` or `~user`.

    Raises ValueError when that folder is unknown, with words that follow the path in a sentence.
    """
    if not path.startswith("~"):
        return path
    user, _, below = path[1:].replace(os.sep, "/").partition("/")
    place = os.path.expanduser("~" + user) if user else home_folder()
    if place is None or not os.path.isabs(place):
        whose = f"of a user {user}" if user else "here (HOME)"
        raise ValueError(f"begins with ~, and no home folder {whose} is known (a file named ~ is written ./~)")
    return os.path.join(place, below)
