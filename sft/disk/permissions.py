"""Modes, groups and ACLs of new files and folders: those that their folder gives, less what the sender takes away.

Rules: the sender's bits only restrict, and never what this program itself needs. The system decides wherever it can: a
file that is made in its own folder gets the group and the ACL of that folder. A file that was made elsewhere is given
the same before it becomes visible, by the rule of POSIX ACLs (posix_acl_create in Linux). A default ACL that can't be
read is an error, not "none". It opens nothing.
"""

import contextlib
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator

DEFAULT_ACL = "system.posix_acl_default"
ACCESS_ACL = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_ENTRY = struct.Struct("<HHI")  # tag, permissions, whose
_HEAD = struct.pack("<I", 2)  # the version
_NO_ACL = {errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_GROUP_OF_PARENT = sys.platform == "darwin"  # there always, elsewhere in a setgid folder


def file_bits(asked: int | None, fixed: int | None = None) -> int:
    """The mode to make a file with. `fixed`: instead of what the system would give."""
    if fixed is not None:
        return fixed if asked is None else fixed & (asked | 0o400)
    return 0o666 if asked is None else (asked | 0o400) & 0o777


def folder_bits(asked: int | None) -> int:
    """The mode to make a folder with; this program can always enter it, and write to it."""
    return 0o777 if asked is None else (asked | 0o700) & 0o777


def kept_folder_bits(asked: int) -> int:
    """The mode that a folder has in the end; this program can always list and enter it."""
    return (asked | 0o500) & 0o777


def may_write(mode: int) -> bool:
    """Whether its owner may write to a folder with that mode."""
    return bool(mode & stat.S_IWUSR)


def let_write(folder: int, may: bool) -> None:
    """Give the owner's right to write to an open folder, or take it away. Raises OSError."""
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    os.fchmod(folder, mode | stat.S_IWUSR if may else mode & ~stat.S_IWUSR)


@contextlib.contextmanager
def writable(folder: int) -> Iterator[None]:
    """An open folder that its owner may not write to lets it, as long as this lasts. Raises OSError."""
    is_closed = not may_write(os.fstat(folder).st_mode)
    if is_closed:
        let_write(folder, True)
    try:
        yield
    finally:
        if is_closed:
            let_write(folder, False)


def masked(acl: bytes, bits: int) -> tuple[bytes | None, int]:
    """The ACL of a new file below a folder with that default ACL, None if its bits say it all; and its bits.

    Raises OSError for an ACL that can't be parsed.
    """
    if acl[: len(_HEAD)] != _HEAD or (len(acl) - len(_HEAD)) % _ENTRY.size:
        raise OSError(errno.EINVAL, "an ACL that can't be read")
    entries = list(_ENTRY.iter_unpack(acl[len(_HEAD) :]))
    has_mask = any(tag == MASK for tag, _, _ in entries)
    shifts = {USER_OBJ: 6, MASK if has_mask else GROUP_OBJ: 3, OTHER: 0}
    given, found = [], 0
    for tag, allowed, whose in entries:
        if tag in shifts:
            allowed &= bits >> shifts[tag]
            found |= (allowed & 0o7) << shifts[tag]
        given.append(_ENTRY.pack(tag, allowed & 0o7, whose))
    says_more = any(tag in (USER, GROUP, MASK) for tag, _, _ in entries)
    return _HEAD + b"".join(given) if says_more else None, found


def has_default_acl(folder: int) -> bool:
    """Whether what is made in an open folder gets an ACL from it. Raises OSError."""
    return _attribute(folder, DEFAULT_ACL) is not None


def give_as_made_in(folder: int, descriptor: int, bits: int, umask: int) -> None:
    """Give an open file what the system gives one that is made with `bits` in `folder`. Raises OSError."""
    parent = os.fstat(folder)
    takes_group = _GROUP_OF_PARENT or parent.st_mode & stat.S_ISGID
    if takes_group and os.fstat(descriptor).st_gid != parent.st_gid:
        with contextlib.suppress(PermissionError):  # only the system may give it, to a file that is made there
            os.fchown(descriptor, -1, parent.st_gid)
    acl = _attribute(folder, DEFAULT_ACL)
    access, bits = (None, bits & ~umask) if acl is None else masked(acl, bits)
    _give_bits(descriptor, access, bits)


def give_again(folder: int, descriptor: int, bits: int, umask: int) -> None:
    """Give an open file or folder in `folder` the bits of one that is made there with `bits`. Raises OSError.

    Its group stays, its own default ACL, and the set-group bit of a folder.
    """
    state = os.fstat(descriptor)
    stays = state.st_mode & stat.S_ISGID if stat.S_ISDIR(state.st_mode) else 0
    acl = _attribute(folder, DEFAULT_ACL)
    access, bits = (None, bits & ~umask) if acl is None else masked(acl, bits)
    _give_bits(descriptor, access, bits | stays)


def _give_bits(descriptor: int, access: bytes | None, bits: int) -> None:
    if access is not None:
        os.setxattr(descriptor, ACCESS_ACL, access)
    elif _attribute(descriptor, ACCESS_ACL) is not None:
        os.removexattr(descriptor, ACCESS_ACL)
    os.fchmod(descriptor, bits)


def _attribute(descriptor: int, name: str) -> bytes | None:
    if not hasattr(os, "getxattr"):  # not Linux: no ACLs of this kind
        return None
    try:
        return os.getxattr(descriptor, name)
    except OSError as problem:
        if problem.errno in _NO_ACL:
            return None
        raise
