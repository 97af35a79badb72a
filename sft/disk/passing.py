"""The errors of a machine or disk in trouble that may pass, and that no file has caused.

Rules: numbers only, so that every program can load it at once.
"""

import errno

# This process lacks something at the moment; the disk may be all right.
SHORT = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM])
# A file system that is gone, broken or read-only, or no descriptors.
PASSING_ERRORS = SHORT | {errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EROFS, errno.ENODEV, errno.ETIMEDOUT}
