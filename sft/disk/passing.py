"""What the system says when the machine or its disk is in trouble that may pass, and no file is to blame.

Rules: numbers only, so that every program can load it at once.
"""

import errno

# This process lacks something at the moment; that says nothing about the disk.
SHORT = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM])
# A file system that is gone, broken or read-only, or no descriptors.
PASSING = SHORT | {errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EROFS, errno.ENODEV, errno.ETIMEDOUT}
