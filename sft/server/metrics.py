"""The numbers of a running server for Prometheus, as text: connections, logins, files, bytes, and the storage.

Rules: every number is of the moment when somebody asks; nothing is kept between two answers. What needs the disk is
read in a thread of its own, and left out when that takes too long: a mount that hangs must not hide the rest. Counters
start at zero with the process. No label can be chosen by a client: users are those of accounts with a quota.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sft.accounts.format import Account
from sft.accounts.store import Accounts
from sft.common.background import BackgroundTask
from sft.common.errors import NoThread, TransferError
from sft.disk.amounts import Amount
from sft.disk.storage import Storage
from sft.server.activity import Activity
from sft.server.hooks import HookCounts, Hooks
from sft.server.http_answers import Answer

_DISK_SECONDS = 2.0  # Prometheus waits ten by default


class _OnDisk(NamedTuple):
    """Free bytes (None: the system does not tell), and what each account with a quota uses."""

    free: int | None
    used: Mapping[Account, Amount]


_NOT_KNOWN = _OnDisk(None, {})


class _Disk:
    """Reads what needs the disk, once at a time however many ask."""

    def __init__(self, accounts: Accounts, storage: Storage, seconds: float) -> None:
        self._accounts, self._storage, self._seconds = accounts, storage, seconds
        self._changed = threading.Condition()  # guards the two below
        self._is_reading = False
        self._found = _NOT_KNOWN

    def look(self) -> _OnDisk:
        """What is there now; nothing when that can't be known in time."""
        deadline = time.monotonic() + self._seconds
        with self._changed:
            if not self._is_reading:
                self._begin()
            while self._is_reading and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return _NOT_KNOWN if self._is_reading else self._found

    def _begin(self) -> None:
        self._found = _NOT_KNOWN
        try:
            BackgroundTask("figures", self._read)
        except NoThread:
            return
        self._is_reading = True

    def _read(self) -> None:
        found = _NOT_KNOWN
        try:
            found = _OnDisk(self._free(), dict(self._used()))
        finally:
            with self._changed:
                self._found, self._is_reading = found, False
                self._changed.notify_all()

    def _free(self) -> int | None:
        try:
            return self._storage.free()
        except OSError:
            return None

    def _used(self) -> Iterator[tuple[Account, Amount]]:
        for account in self._accounts.all():
            if account.has_quota:
                try:
                    yield account, self._storage.ledgers.used(account.home)
                except (TransferError, OSError):  # of the others it is known
                    continue


class Metrics(Collector):
    """Call `answer` from any thread."""

    def __init__(
        self,
        activity: Activity,
        hooks: Hooks,
        not_logged_in: Callable[[], int],
        accounts: Accounts,
        storage: Storage,
        is_stopping: Callable[[], bool],
        seconds: float = _DISK_SECONDS,
    ) -> None:
        """`not_logged_in()`: how many connections are in their login. `seconds`: how long the disk may take."""
        self._not_logged_in = not_logged_in
        self._activity, self._hooks, self._is_stopping = activity, hooks, is_stopping
        self._disk = _Disk(accounts, storage, seconds)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answer(self) -> Answer:
        """All of them, in Prometheus' text format."""
        return Answer(HTTPStatus.OK, generate_latest(self._registry).decode(), CONTENT_TYPE_LATEST)

    def describe(self) -> list[Metric]:
        """Nothing is promised: what the disk does not tell is left out."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See the library."""
        totals = self._activity.totals()
        yield GaugeMetricFamily("sft_connections", "Connections of logged-in users now", totals.connections)
        words = "Connections now whose login is not done"
        yield GaugeMetricFamily("sft_connections_not_logged_in", words, self._not_logged_in())
        yield GaugeMetricFamily("sft_draining", "1 after the signal to stop, else 0", int(self._is_stopping()))
        logins = CounterMetricFamily("sft_logins", "Logins, by how they ended", labels=["outcome"])
        for outcome, count in totals.logins.items():
            logins.add_metric([outcome], count)
        yield logins
        files = CounterMetricFamily("sft_files", "Files, by what became of them", labels=["direction", "outcome"])
        for (direction, became), count in totals.files.items():
            files.add_metric([direction, became], count)
        yield files
        moved = CounterMetricFamily("sft_bytes", "Bytes in records, headers included", labels=["direction"])
        moved.add_metric(["received"], totals.bytes_received)
        moved.add_metric(["sent"], totals.bytes_sent)
        yield moved
        yield CounterMetricFamily(
            "sft_connection_seconds", "Seconds of all connections of logged-in users", totals.connection_seconds
        )
        yield from _of_hooks(self._hooks.counts())
        yield from _of_disk(self._disk.look())


def _of_hooks(counts: HookCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("sft_hooks_running", "Runs of on_delivered now", counts.running)
    yield GaugeMetricFamily("sft_hooks_waiting", "Groups of files that wait for a run of on_delivered", counts.waiting)
    runs = CounterMetricFamily("sft_hooks", "Runs of on_delivered, by how they ended", labels=["outcome"])
    for outcome, count in counts.ended.items():
        runs.add_metric([outcome], count)
    yield runs


def _of_disk(found: _OnDisk) -> Iterator[Metric]:
    if found.free is not None:
        yield GaugeMetricFamily("sft_storage_free_bytes", "Free bytes on the disk of the storage", found.free)
    for name, words, number_of in (
        ("sft_account_used_bytes", "Bytes that an account with a quota uses", lambda _, used: used.bytes),
        ("sft_account_used_files", "Files that an account with a quota uses", lambda _, used: used.files),
        ("sft_account_quota_bytes", "Bytes that an account may use", lambda account, _: account.quota),
        ("sft_account_quota_files", "Files that an account may use", lambda account, _: account.quota_files),
    ):
        family = GaugeMetricFamily(name, words, labels=["user"])
        for account, used in found.used.items():
            if (number := number_of(account, used)) is not None:
                family.add_metric([account.name], number)
        yield family
