"""What the tests cost: processor time by folder, file and test function, with that of all processes they start.

.venv/bin/python -m pytest -p tools.cost -n 4 --dist worksteal -m "not long"

A plugin of pytest. Wall time says little on a machine that does other things as well. A test is charged for what its
worker, the children that ended meanwhile and the descendants that live on have used; Linux only, for that is in /proc.
"""

import os
import resource
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

import pytest

_TICKS = os.sysconf("SC_CLK_TCK")
_MOST = 40  # rows of each table

_seconds = defaultdict[str, float](float)  # by test
_TABLES: dict[str, Callable[[str], str]] = {
    "folder": lambda test: os.path.dirname(test.partition("::")[0]),
    "file": lambda test: test.partition("::")[0],
    "test": lambda test: test.partition("[")[0],
}


def _of_descendants(process: str) -> float:
    """What those that live have used, and their own children that have ended."""
    seconds = 0.0
    for child in _children(process):
        try:
            with open(f"/proc/{child}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        seconds += sum(map(int, fields[11:15])) / _TICKS + _of_descendants(child)
    return seconds


def _children(process: str) -> list[str]:
    found: list[str] = []
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{process}/task/{thread}/children") as children:
                found += children.read().split()
        except OSError:
            continue
    return found


def _used() -> float:
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(each.ru_utime + each.ru_stime for each in (own, ended)) + _of_descendants(str(os.getpid()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    before = _used()
    outcome = yield
    _seconds[item.nodeid] += _used() - before
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["costs"] = dict(_seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist has ended."""
    _seconds.update(node.workeroutput.get("costs", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, part_of in _TABLES.items():
        costs = defaultdict[str, float](float)
        for test, seconds in _seconds.items():
            costs[part_of(test)] += seconds
        terminalreporter.section(f"processor seconds by {title}, {sum(costs.values()):.0f} in all")
        for each in sorted(costs, key=costs.__getitem__, reverse=True)[:_MOST]:
            terminalreporter.line(f"{costs[each]:8.2f}  {each}")
