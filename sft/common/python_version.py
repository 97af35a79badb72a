"""Ends a program with one line when the Python that runs it is too old; imported before any other module of ours.

Rules: this module, and each program that imports it, must parse under Python 3.6, because a syntax error would come
first. It imports no other module of ours.
"""

import sys

NEEDED = (3, 11)

if sys.version_info[:2] < NEEDED:
    if sys.stderr is not None:
        sys.stderr.write(
            "error: Python 3.11 or later is needed, this is Python {}.{}.{}. ".format(*sys.version_info[:3])
            + "Start it with a newer one, such as python3.11\n"
        )
    sys.exit(2)
