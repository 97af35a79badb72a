"""Opening and closing what is sent, without the walk that finds it."""

import os
from pathlib import Path

from sft.disk.source_folders import Folders
from sft.disk.sources import OPEN_FLAGS, FileSource, unreadable


def open_source(path: str | Path) -> FileSource:
    """A file to send. Raises SourceError as the walk does."""
    try:
        return FileSource(str(path), os.open(path, OPEN_FLAGS))
    except OSError as problem:
        raise unreadable(str(path), problem) from None


def close_folders(folders: Folders) -> None:
    """Close the folders that a walk has open; what is needed again is opened again."""
    folders._last = None
    for opened in (folders._tops, folders._below):
        while opened:
            os.close(opened.popitem()[1])
