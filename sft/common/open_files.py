"""The limit of open files of this process, raised at the start, and asked by what must not use it up; closing them.

Rules: the limit is read here and nowhere else; where a system has none (Windows), it is as large as a number can be.
It opens nothing.
"""

import contextlib
import os
import sys

_MACOS_MOST = 10_240


def limit_of_files() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def few_left_from() -> int:
    """The descriptor from which on three quarters of the open files are in use: the system gives the lowest free one.

    A group of files that wait to be published ends with the file that gets such a descriptor.
    """
    limit = limit_of_files()
    return limit if limit == sys.maxsize else limit * 3 // 4


def raise_limit_of_files() -> None:
    """Raise the limit as far as the system allows: each large file on its way takes two descriptors."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, _MACOS_MOST):  # macOS reports "unlimited" and rejects it
        with contextlib.suppress(OSError, ValueError):
            if most == resource.RLIM_INFINITY or most > soft:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                return


def close(descriptor: int) -> None:
    """Close it, whatever the system says: what must last was flushed before, and it is closed in any case.

    A file system that machines share reports so that another one has removed the file (ESTALE).
    """
    try:
        os.close(descriptor)
    except OSError:
        pass
