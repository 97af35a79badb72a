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

Rules: an error carries no secret and no bytes of a peer. What a user reads about a refusal is chosen here, by its
code; no text travels on the wire. Any other exception that leaves a module is a bug.
"""

import contextlib
from collections.abc import Iterator
from enum import Enum, StrEnum


class TransferError(Exception):
    """Base of every error that a person may meet: `cause`, then `remedy`, one line."""

    exit_status = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
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
    """The other end can't be reached, has no room, or is gone; `failure` says which."""

    exit_status = 4

    def __init__(self, cause: str, remedy: str = "", failure: Failure = Failure.LOST) -> None:
        super().__init__(cause, remedy)
        self.failure = failure


class IntegrityError(TransferError):
    """What arrived is not what was sent; nothing of it is used."""

    exit_status = 5

    def __init__(
        self, cause: str, remedy: str = "Send it again; if this repeats, the line is being tampered with"
    ) -> None:
        super().__init__(cause, remedy)


class ProtocolViolation(IntegrityError):
    """The other end breaks the rules of docs/PROTOCOL.md: the connection ends, and stays ended."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"the other end broke the protocol: {cause}",
            "Use the same version of this program at both ends",
        )


class Code(StrEnum):
    """Why one file is refused (`REFUSE`) or a whole connection ended (`ERROR`). The values are the wire's."""

    EXISTS = "exists"
    IS_FOLDER = "is-folder"
    NOT_FOLDER = "not-folder"
    LINK = "link"
    NAME = "name"
    NAME_NOT_PORTABLE = "name-not-portable"
    NO_SPACE = "no-space"
    QUOTA = "quota"
    TOO_LARGE = "too-large"
    DENIED = "denied"
    UNSUPPORTED = "unsupported"
    BUSY = "busy"
    STORAGE = "storage"
    NOT_FOUND = "not-found"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    SIZE = "size"
    INTEGRITY = "integrity"
    PROTOCOL = "protocol"
    ACCOUNT = "account"
    STOPPING = "stopping"
    FULL = "full"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


# What a server says when it can't serve now, and soon may: worth another connection.
PASSING = frozenset({Code.STOPPING, Code.FULL, Code.UNAVAILABLE})
# A changed account may be one with other limits: the next login shows whether it still lets us in.
_FAILURES = {Code.ACCOUNT: Failure.LOST} | dict.fromkeys(PASSING, Failure.BUSY)

# For each code: cause, then remedy, where nothing more is known; `sft/client/refusals.py` names the path and
# the end.
_WORDS: dict[Code, tuple[str, str]] = {
    Code.EXISTS: (
        "a file of that name exists already",
        "Choose another name, or --if-exists rename, replace or skip",
    ),
    Code.IS_FOLDER: ("a folder has that name", "Choose another name"),
    Code.NOT_FOLDER: ("a part of that path is a file, not a folder", "Choose another folder"),
    Code.LINK: ("a part of that path is a symbolic link", "Choose another folder; links are never followed"),
    Code.NAME: ("the receiver does not allow that name", "Choose another name"),
    Code.NAME_NOT_PORTABLE: (
        "the receiver allows only names that Windows can hold too",
        'Choose a name without \\ : * ? " < > | and without a dot or space at its end',
    ),
    Code.NO_SPACE: ("the receiver's disk is full", "Free some space there, then send it again"),
    Code.QUOTA: ("your account's quota on the receiver is used up", "Delete files there, or ask its owner for more"),
    Code.TOO_LARGE: ("the file is larger than the receiver takes", "Ask its owner to raise the limit"),
    Code.DENIED: ("your account may not do that", "Ask the receiver's owner for the right"),
    Code.UNSUPPORTED: ("the receiver can't do that", "Update the program there"),
    Code.BUSY: ("another transfer to that name is under way", "Wait for it to end, then send it again"),
    Code.STORAGE: ("the receiver could not store the file", "The reason is in its server.log"),
    Code.UNREADABLE: ("something there can't be read", "The reason is in the receiver's server.log"),
    Code.CHANGED: ("the file changed while it was read", "Send it again when no program writes to it"),
    Code.NOT_FOUND: ("nothing of that name is there", "Check the name"),
    Code.SIZE: ("the file changed its size while it was sent", "Send it again when no program writes to it"),
    Code.INTEGRITY: (
        "what the receiver got is not what was sent, and it kept nothing",
        "Send it again; if this repeats, the line or a disk is faulty",
    ),
    Code.PROTOCOL: ("the receiver reports that this end violated the protocol", "Use the same version at both ends"),
    Code.ACCOUNT: ("your account was changed or removed on the receiver", "Ask the receiver's owner"),
    Code.STOPPING: ("the receiver is shutting down", "Send it again when it is back"),
    Code.FULL: ("the receiver takes no more connections", "Try again in a moment"),
    Code.UNAVAILABLE: (
        "the receiver can't use its accounts or its storage at the moment",
        "Try again later; the reason is in its server.log",
    ),
    Code.INTERNAL: ("the receiver failed", "The reason is in its server.log"),
}


class Refused(TransferError):
    """One file is refused, by `code`; the others go on.

    `why` narrows the cause. `words` are a cause and a remedy that speak of `{path}`. All of them stay on this machine.
    """

    def __init__(self, code: Code, path: str = "", why: str = "", words: tuple[str, str] | None = None) -> None:
        cause, remedy = (text.replace("{path}", path) for text in words or _WORDS[code])
        super().__init__(f"{cause} ({why})" if why else cause, remedy)
        self.code, self.path, self.why = code, path if words else "", why
        self.exit_status = IntegrityError.exit_status if code is Code.INTEGRITY else TransferError.exit_status


class Ended(TransferError):
    """This end ends the whole connection, and sends the reason, by `code`."""

    exit_status = 4

    def __init__(self, code: Code) -> None:
        super().__init__(*_WORDS[code])
        self.code = code


class PeerStopped(ConnectionTrouble):
    """The other end ended the connection and gave the reason, by `code`."""

    def __init__(self, code: Code) -> None:
        super().__init__(*_WORDS[code], _FAILURES.get(code, Failure.FINAL))
        self.code = code
        if code in (Code.PROTOCOL, Code.INTEGRITY):
            self.exit_status = IntegrityError.exit_status
