"""Runs the administrator's program for what was delivered: once for each group of files that became visible together.

    a group is handed over --> waits its turn --> a run of the program --> succeeded | failed | timed_out | stopped
                           --> dropped, when too many wait

Rules: who hands a group over never waits and hears of no failure. How many run at once, how long each may take, and how
many groups and bytes wait are bounded; what is not run is logged and counted. Users take turns, and what is too much is
dropped from the one who has most waiting, so that none crowds out the others. Nothing is kept for a later start, so
each group has one run at most. How a program is run is in `sft/server/hook_process.py`.
"""

import contextlib
import logging
import os
import shlex
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from config import ServerSettings
from sft.common.background import BackgroundTask
from sft.common.errors import NoThread, UsageError
from sft.common.log_events import LogEvent
from sft.common.log_limits import Sparing
from sft.common.sizes import counted
from sft.server.hook_process import RunOutcome, run_program

HookOutcome = RunOutcome | Literal["dropped"]
HOOK_OUTCOMES: tuple[HookOutcome, ...] = ("succeeded", "failed", "timed_out", "dropped", "stopped")

_MOST_WAITING = 1_000  # groups
_MOST_BYTES = 32 << 20  # of their lines
_END_SECONDS = 6.0  # for programs that were killed to end


class Delivered(NamedTuple):
    """Files of one user that became visible together: how many, the path of one, and a line of JSON for each."""

    user: str
    first: str
    files: int
    lines: bytes


class WaitingGroups:
    """Groups until it is their turn: users in turn, those of one in the order in which they were delivered."""

    def __init__(self) -> None:
        self._of_users: dict[str, deque[Delivered]] = {}  # who is next first
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def add(self, group: Delivered) -> list[Delivered]:
        """Let it wait; those that are too many now, each the last one of the user who has most."""
        self._of_users.setdefault(group.user, deque()).append(group)
        self._moved(group, 1)
        dropped = []
        while self._count > _MOST_WAITING or self._bytes > _MOST_BYTES:
            most = max(self._of_users, key=self._share)
            dropped.append(self._taken(most, self._of_users[most].pop))
        return dropped

    def next(self) -> Delivered:
        """The one whose turn it is; some must wait."""
        user = next(iter(self._of_users))
        group = self._taken(user, self._of_users[user].popleft)
        if user in self._of_users:
            self._of_users[user] = self._of_users.pop(user)  # behind the others
        return group

    def _taken(self, user: str, take: Callable[[], Delivered]) -> Delivered:
        group = take()
        self._moved(group, -1)
        if not self._of_users[user]:
            del self._of_users[user]
        return group

    def _moved(self, group: Delivered, sign: int) -> None:
        self._count += sign
        self._bytes += sign * len(group.lines)

    def _share(self, user: str) -> float:
        groups = self._of_users[user]
        return max(len(groups) / _MOST_WAITING, sum(len(each.lines) for each in groups) / _MOST_BYTES)


class HookCounts(NamedTuple):
    """Groups: those that run, those that wait, and what became of the others since the start."""

    running: int
    waiting: int
    ended: dict[HookOutcome, int]


def command_of(text: str | None) -> list[str]:
    """The words of a command, the program by its whole path; none for no command. Raises UsageError."""
    if text is None:
        return []
    program, *arguments = shlex.split(text)
    found = shutil.which(program)
    if found is None or not os.path.isabs(found):
        raise UsageError(
            f'on_delivered: there is no program "{program}" that this user may run',
            "Name it by its whole path, or by a name that is in PATH; no shell reads the command",
        )
    return [found, *arguments]


class Hooks:
    """One for a server process. Safe to use from several threads at once."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = Sparing(log)
        self._whole_log = log
        self._changed = threading.Condition()  # guards the fields below
        self._command: Sequence[str] = []
        self._at_once, self._seconds = 1, 0.0
        self._waiting = WaitingGroups()
        self._running = 0  # threads, each with one program
        self._ended: Counter[HookOutcome] = Counter()
        self._stop = threading.Event()

    def take(self, settings: ServerSettings) -> None:
        """Do what these settings say from now on. Raises UsageError."""
        command = command_of(settings.on_delivered)
        with self._changed:
            self._command = command
            self._at_once, self._seconds = settings.on_delivered_at_once, settings.on_delivered_seconds

    @property
    def is_on(self) -> bool:
        """Whether anything is to be run."""
        return bool(self._command)

    @property
    def is_busy(self) -> bool:
        """Whether a program runs or is to run."""
        with self._changed:
            self._start_threads()
            return bool(self._running or self._waiting)

    def counts(self) -> HookCounts:
        """As they are now."""
        with self._changed:
            ended = {outcome: self._ended[outcome] for outcome in HOOK_OUTCOMES}
            return HookCounts(self._running, len(self._waiting), ended)

    def deliver(self, group: Delivered) -> None:
        """Let the program run for this group, now or when it is its turn."""
        with self._changed:
            is_stopped = self._stop.is_set()
            dropped = [] if is_stopped else self._waiting.add(group)
            waiting = counted(len(self._waiting), "group", "")
            self._start_threads()
        if is_stopped:
            self._not_run(group, "stopped", "the server stops")
        for each in dropped:
            self._not_run(each, "dropped", f"{waiting} wait already")

    def stop(self) -> None:
        """Kill what runs, and run nothing more; what is not run is logged."""
        self._stop.set()
        end = time.monotonic() + _END_SECONDS
        with self._changed:
            waiting = [self._waiting.next() for _ in range(len(self._waiting))]
            while self._running and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
        for group in waiting:
            self._not_run(group, "stopped", "the server stops")
        self._log.tell()

    def _start_threads(self) -> None:
        """As many as have work and may run; without a thread, what waits is looked at again with the next group."""
        with contextlib.suppress(NoThread):
            for _ in range(min(len(self._waiting), self._at_once - self._running)):
                BackgroundTask("hook", self._run_all)
                self._running += 1

    def _run_all(self) -> None:
        while (group := self._next()) is not None:
            try:
                self._run(group)
            except Exception:
                self._whole_log.exception("a bug: running on_delivered has failed")

    def _next(self) -> Delivered | None:
        """The group whose turn it is; None when this thread is to end, which is counted then."""
        with self._changed:
            if not self._waiting or self._running > self._at_once:
                self._running -= 1
                self._changed.notify_all()
                return None
            return self._waiting.next()

    def _run(self, group: Delivered) -> None:
        command, seconds, began = self._command, self._seconds, time.monotonic()
        if not command:
            self._not_run(group, "dropped", "the setting was changed")
            return
        ran = run_program(command, group.lines, seconds, self._stop)
        self._count(ran.outcome)
        took = round(time.monotonic() - began, 3)
        for line in ran.lines:
            self._log.info(LogEvent("hook output", f"on_delivered prints: {line}", user=group.user, line=line))
        if ran.left_out:
            text = f"on_delivered prints {counted(ran.left_out, 'more byte', '')}"
            self._log.info(LogEvent("hook output", text, user=group.user, left_out=ran.left_out))
        fields = {"user": group.user, "files": group.files, "outcome": ran.outcome, "seconds": took}
        if ran.outcome == "succeeded":
            text = f"on_delivered has run for {_shown(group)} in {took:.2f} s"
            self._whole_log.debug(LogEvent("hook", text, **fields))
        else:
            text = f"on_delivered failed for {_shown(group)}: {ran.reason}"
            self._log.warning(LogEvent("hook", text, **fields, reason=ran.reason))

    def _not_run(self, group: Delivered, outcome: HookOutcome, reason: str) -> None:
        self._count(outcome)
        text = f"on_delivered is not run for {_shown(group)}: {reason}"
        fields = {"user": group.user, "files": group.files, "outcome": outcome, "reason": reason}
        self._log.warning(LogEvent("hook", text, **fields))

    def _count(self, outcome: HookOutcome) -> None:
        with self._changed:
            self._ended[outcome] += 1


def _shown(group: Delivered) -> str:
    """`3 files of alice, such as photos/a.jpg`."""
    return f"{counted(group.files, 'file', '')} of {group.user}, such as {group.first}"
