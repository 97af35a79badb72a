"""Makes names the bytes of the file system, read as UTF-8, whatever the locale.

Rules: each program calls it first, because it may start the program again. A file or a pipe gets UTF-8, too; a terminal
gets what its locale can show, because bytes of another encoding would be control characters there.
"""

import os
import sys


def take_names_as_utf8() -> None:
    """Start this program again in the UTF-8 mode of Python, unless names are UTF-8 already; then tell its terminal."""
    if os.name != "posix":
        return
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        try:
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 -- ourselves
        except OSError as problem:
            if sys.stderr is not None:
                sys.stderr.write(
                    f"error: can't take names as UTF-8 ({problem.strerror}). Start it with python -X utf8\n"
                )
            sys.exit(2)
    if sys.flags.utf8_mode and "PYTHONIOENCODING" not in os.environ:
        from locale import getencoding

        for stream in (sys.stdout, sys.stderr):
            if stream is not None and stream.isatty():
                stream.reconfigure(encoding=getencoding(), errors="backslashreplace")  # type: ignore[union-attr]
