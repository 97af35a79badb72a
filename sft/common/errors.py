"""One tree of errors. A person reads each of them as one line: the cause, then the remedy.

    TransferError                    exit
    ├── UsageError                   2   the command or a setting can't be used as it stands
    ├── SourceError                  1   something on this disk can't be read or sent
    ├── Refused                      1   the other end refuses one file; carries a wire code (5 for integrity)
    ├── OutputError                  1   the program's output can't be written
    ├── NoThread                     1   a thread can't be started
    ├── NoMemory                     1   no memory is left
    ├── LoginRefused                 3   never tried again
    ├── ConnectionTrouble            4   not reached, busy, or lost; carries what failed
    │   └── PeerStopped              4   the other end gave the reason why it ended the connection; carries a wire code
    ├── Ended                        4   this end ends the connection, and sends the reason; carries a wire code
    └── IntegrityError               5   what arrived is not what was sent
        └── ProtocolViolation        5   the other end violates the protocol

Rules: an error carries no secret and no bytes of a peer. No text travels on the wire, so each code has words here
that speak of neither end; what a user reads about a refusal is chosen by `sft/client/refusals.py`. Any other exception
that leaves a module is a bug.
"""

import contextlib
from collections.abc import Iterator
from enum import Enum, StrEnum

from sft.common.started import as_started


class TransferError(Exception):
    """Base of every error that a person may meet: `cause`, then `remedy`, one line."""

    exit_status = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        remedy = as_started(remedy)
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy
        self.consequences: list[str] = []  # lines to be said behind it, a few

    def __str__(self) -> str:
        return f"{self.cause}. {self.remedy}" if self.remedy else self.cause


class UsageError(TransferError):
    """The command, a setting or the installation can't be used as it stands."""

    exit_status = 2


class SourceError(TransferError):
    """Something on this machine's disk can't be read or sent. `name`: what it is called, when nobody else knows.

    `code`: what the other end hears of it.
    """

    def __init__(self, cause: str, remedy: str = "", name: str = "", code: "Code | None" = None) -> None:
        super().__init__(cause, remedy)
        self.name = name
        self.code = Code.UNREADABLE if code is None else code


class OutputError(TransferError):
    """What a program has to say can't be written."""


class NoThread(TransferError):
    """The system refuses to start a thread."""

    def __init__(self) -> None:
        super().__init__("can't start a thread (system limit)", "Close programs, or raise ulimit -u")

    @staticmethod
    def is_why(problem: BaseException) -> bool:
        """Whether that is what `problem` says: Python has no error of its own for it."""
        return isinstance(problem, RuntimeError) and "start new thread" in str(problem)


class NoMemory(TransferError):
    """The system gives less memory than is needed."""

    def __init__(self) -> None:
        super().__init__("this machine gives us too little memory", "End other programs there, or raise ulimit -v")


@contextlib.contextmanager
def threads_needed() -> Iterator[None]:
    """Around what starts threads. Raises NoThread when the system refuses one."""
    try:
        yield
    except RuntimeError as problem:
        if NoThread.is_why(problem):
            raise NoThread from None
        raise


def reason_of(problem: BaseException) -> str:
    """Why, in the system's words; for an error without such words what Python shows of it."""
    return (problem.strerror if isinstance(problem, OSError) else None) or repr(problem)


def raised_anew(problem: BaseException) -> BaseException:
    """A copy of an error that several threads raise, each its own `from` the first: no traceback mixes their frames."""
    copy: BaseException = problem.__class__.__new__(problem.__class__, *problem.args)
    copy.__dict__.update(problem.__dict__)
    return copy


def forget_frames(problem: BaseException) -> None:
    """Drop the tracebacks of an error and of those that it came from, whose frames hold on to what was received."""
    chain = [problem]
    for each in chain:
        each.with_traceback(None)
        before = (each.__cause__, each.__context__)
        chain += [other for other in before if other is not None and other not in chain]


class LoginRefused(TransferError):
    """The two ends did not prove the same password to each other. Never tried again."""

    exit_status = 3

    def __init__(self) -> None:
        super().__init__(
            "login refused: wrong username or password, too many attempts, or not your server",
            "Check username, password and --host; after many attempts wait a minute",
        )


class Failure(Enum):
    """What kept a connection from doing its job; `sft/client/retries.py` decides by it whether to try again."""

    UNKNOWN_HOST = "the host has no address"
    UNREACHED = "no address of the host takes the connection"
    BUSY = "the server says that it can't serve now"
    LOST = "the connection, or the login on it, broke off or got no answer"
    FINAL = "another try would meet the same"


class ConnectionTrouble(TransferError):
    """The other end can't be reached, is full, or is gone; `failure` says which."""

    exit_status = 4

    def __init__(self, cause: str, remedy: str = "", failure: Failure = Failure.LOST) -> None:
        super().__init__(cause, remedy)
        self.failure = failure


class IntegrityError(TransferError):
    """What arrived is not what was sent; nothing of it is used."""

    exit_status = 5

    def __init__(self, cause: str, remedy: str = "Try again; if this repeats, the line is being tampered with") -> None:
        super().__init__(cause, remedy)


class ProtocolViolation(IntegrityError):
    """The other end breaks the rules of docs/PROTOCOL.md: the connection ends, and stays ended."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"the other end broke the protocol: {cause}",
            "Use the same version of this program at both ends",
        )


class Code(StrEnum):
    """Why one file is refused (`REFUSE`) or a whole connection ended (`ERROR`): the wire's word, and `cause` for a log.

    A log is of either end, and about any job, so a cause names no end and no job.
    """

    cause: str

    def __new__(cls, word: str, cause: str) -> "Code":
        code = str.__new__(cls, word)
        code._value_, code.cause = word, cause
        return code

    EXISTS = "exists", "a file of that name exists already"
    IS_FOLDER = "is-folder", "a folder has that name"
    NOT_FOLDER = "not-folder", "a part of that path is a file, not a folder"
    NOT_EMPTY = "not-empty", "the folder is not empty"
    INSIDE = "inside", "a folder can't be moved into itself"
    LINK = "link", "a part of that path is a symbolic link"
    SPECIAL = "special", "it is neither a file nor a folder"
    NAME = "name", "that name is not allowed"
    NAME_NOT_PORTABLE = "name-not-portable", "Windows can't hold that name"
    NO_SPACE = "no-space", "the disk is full"
    QUOTA = "quota", "the account's quota is used up"
    TOO_LARGE = "too-large", "the file is larger than is allowed"
    DENIED = "denied", "the account may not do that"
    NOT_REPLACED = "not-replaced", "that name is taken, and the account may not replace files"
    UNSUPPORTED = "unsupported", "that is not supported"
    BUSY = "busy", "another transfer to that name is under way"
    STORAGE = "storage", "the disk reports an error"
    NOT_FOUND = "not-found", "nothing of that name is there"
    UNREADABLE = "unreadable", "it can't be read"
    CHANGED = "changed", "the file changed while it was read"
    SIZE = "size", "the file changed its size meanwhile"
    INTEGRITY = "integrity", "what arrived is not what was sent"
    PROTOCOL = "protocol", "the protocol was violated"
    ACCOUNT = "account", "the account was changed or removed"
    KICKED = "kicked", "an administrator has ended the user's connections"
    STOPPING = "stopping", "the server is shutting down"
    FULL = "full", "all connections are in use"
    UNAVAILABLE = "unavailable", "the accounts or the storage can't be used at the moment"
    INTERNAL = "internal", "the program failed"


# What a server says when it can't serve now, and soon may: worth another connection.
PASSING_CODES = frozenset({Code.STOPPING, Code.FULL, Code.UNAVAILABLE})
# A changed account may be one with other limits: the next login shows whether it still lets us in.
_FAILURES = {Code.ACCOUNT: Failure.LOST} | dict.fromkeys(PASSING_CODES, Failure.BUSY)

_IN_ITS_LOG = "The reason is in its server.log"

# What a user reads when the other end has ended the connection with that code: cause, then remedy, for every job.
_STOPPED: dict[Code, tuple[str, str]] = {
    Code.STORAGE: ("the receiver can't use your folder there", _IN_ITS_LOG),
    Code.INTEGRITY: (
        "the other end reports that what it got is not what was sent",
        "Try again; if this repeats, the line is being tampered with",
    ),
    Code.PROTOCOL: ("the other end reports that this end violated the protocol", "Use the same version at both ends"),
    Code.ACCOUNT: ("your account was changed or removed on the receiver", "Ask the receiver's owner"),
    Code.KICKED: (
        "the receiver has ended your connections, because its owner asked for that",
        "Ask there before you try again",
    ),
    Code.STOPPING: ("the receiver is shutting down", "Try again when it is back"),
    Code.FULL: ("the receiver takes no more connections", "Try again in a moment"),
    Code.UNAVAILABLE: (
        "the receiver can't use its accounts or its storage at the moment",
        "Try again later; the reason is in its server.log",
    ),
    Code.INTERNAL: ("the receiver failed", _IN_ITS_LOG),
}


class Refused(TransferError):
    """One file is refused, by `code`; the others go on.

    `why` narrows the cause. `words` are a cause and a remedy that speak of `{path}`. All of them stay on this machine.
    """

    def __init__(self, code: Code, path: str = "", why: str = "", words: tuple[str, str] | None = None) -> None:
        cause, remedy = (text.replace("{path}", path) for text in words or (code.cause, ""))
        super().__init__(f"{cause} ({why})" if why else cause, remedy)
        self.code, self.path, self.why = code, path if words else "", why
        self.exit_status = IntegrityError.exit_status if code is Code.INTEGRITY else TransferError.exit_status


class Ended(TransferError):
    """This end ends the whole connection, and sends the reason, by `code`."""

    exit_status = 4

    def __init__(self, code: Code) -> None:
        super().__init__(code.cause)
        self.code = code


class PeerStopped(ConnectionTrouble):
    """The other end ended the connection and gave the reason, by `code`."""

    def __init__(self, code: Code) -> None:
        cause, remedy = _STOPPED.get(code, (f"the other end ended the connection: {code.cause}", ""))
        super().__init__(cause, remedy, _FAILURES.get(code, Failure.FINAL))
        self.code = code
        if code in (Code.PROTOCOL, Code.INTEGRITY):
            self.exit_status = IntegrityError.exit_status
