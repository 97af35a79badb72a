"""Settings that are loaded anew while the server runs, and what they change.

Rules: what is wrong with the new settings is one line in the log, and those before stay as a whole. What only a new
start can change is named. No connection that is open is touched.
"""

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

from config import ServerSettings
from sft.common.errors import UsageError
from sft.console.log import reopen_log
from sft.disk.storage import Storage
from sft.disk.user_folder import Rules
from sft.server.hooks import command_of

_DAY_SECONDS = 24 * 3600
# Which are open files, sockets and memory, or where those are.
NEED_A_RESTART = frozenset({"listen", "port", "storage", "accounts", "memory", "health", "metrics", "shared_counts"})
NEED_A_RESTART |= {"server_log", "audit_log", "log_format", "log_size", "log_kept"}


class Changes(NamedTuple):
    """The names of settings that have another value now, by whether that can take effect without a new start."""

    now: list[str]
    after_restart: list[str]


def changes(before: ServerSettings, after: ServerSettings) -> Changes:
    """What differs."""
    names = [each.name for each in fields(before) if getattr(before, each.name) != getattr(after, each.name)]
    return Changes(
        [name for name in names if name not in NEED_A_RESTART], [name for name in names if name in NEED_A_RESTART]
    )


def rules_of(settings: ServerSettings) -> Rules:
    """What these settings allow in the folders of all users."""
    free, stale = settings.free_space or 0, settings.stale_days * _DAY_SECONDS
    return Rules(settings.portable_names, settings.file_mode, settings.max_file_size, free_space=free, stale=stale)


class Reload:
    """Loads the settings anew when it is called, once for each SIGHUP."""

    def __init__(
        self, settings: ServerSettings, load: Callable[[], ServerSettings], log: logging.Logger, storage: Storage
    ) -> None:
        """`settings`: those that hold. `load` raises UsageError."""
        self._settings, self._load, self._log, self._storage = settings, load, log, storage

    def __call__(self) -> ServerSettings | None:
        """Reopen the log, and give the settings that hold now; None when nothing has changed."""
        reopen_log(self._log)
        try:
            loaded = self._load()
            command_of(loaded.on_delivered)  # whose program may be missing
        except UsageError as problem:
            self._log.error("the settings stay as they are: %s", problem)
            return None
        changed = changes(self._settings, loaded)
        for name in changed.after_restart:
            self._log.warning("%s changes at the next start", name)
        self._log.info("settings loaded; changed: %s", ", ".join(changed.now) or "nothing")
        if not changed.now:
            return None
        self._settings = loaded
        self._log.setLevel(loaded.log_level.upper())
        self._storage.rules = rules_of(loaded)
        return loaded
