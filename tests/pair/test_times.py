"""Times that the wire or a disk can't hold: the file goes with the nearest or without, and one line says so."""

import errno
import os
from pathlib import Path

import pytest
from processes import Client, Result, Server, make
from tables import each_row
from transfers import Receiving, Told, folder_item, item, send, written

from sft.disk.durable import set_time
from sft.disk.storage import Storage
from sft.wire.protocol import MAX_INTEGER, nearest_time
from sft.wire.workers import Engine

SECOND = 10**9
LATE, EARLY = 9_223_372_037 * SECOND, -9_223_372_037 * SECOND


def set_late(*paths: Path, time: int = LATE) -> None:
    for path in paths:
        os.utime(path, ns=(0, time))
        if path.stat().st_mtime_ns != time:
            pytest.skip("this file system can't hold such a time")


def lines_about(done: Result, name: str) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith(name)]


@each_row(
    ("time", "said"), [(0, 0), (5, 5), (-5, -5), (MAX_INTEGER, MAX_INTEGER), (LATE, MAX_INTEGER), (EARLY, -MAX_INTEGER)]
)
def test_nearest_time_that_can_be_sent(time: int, said: int) -> None:
    assert nearest_time(time) == said


@pytest.mark.parametrize("time", [LATE, EARLY])
def test_file_and_folder_with_a_time_that_can_not_be_sent_arrive_and_it_is_said(
    server: Server, client: Client, folder: Path, box: str, time: int
) -> None:
    small, large = make(folder / "tree/small"), make(folder / "tree/large", 100_000)
    make(folder / "tree/other")
    set_late(small, large, folder / "tree", time=time)
    done = client(folder / "tree", box)
    assert done.status == 0
    for path in (small, large, folder / "tree"):
        assert len(lines_about(done, f"{path}: ")) == 1
    assert len(done.err.splitlines()) == 3
    for name in ("small", "large", "other"):
        assert server.path(box, name).read_bytes() == (folder / "tree" / name).read_bytes()
    if time == LATE:
        assert server.path(box, "small").stat().st_mtime_ns == nearest_time(time)
        assert server.path(box).stat().st_mtime_ns == nearest_time(time)


def test_such_times_at_the_receiver_are_listed_and_fetched_and_it_is_said(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    make(server.path(box, "sub/file"))
    set_late(server.path(box, "sub/file"), server.path(box, "sub"))
    listed = client("--list", box)
    assert (listed.status, listed.out.split()[1:]) == (0, ["2262-04-11T23:47:16Z", "sub/"])
    assert len(lines_about(listed, "sub: its time")) == 1
    fetched = client("--get", f"{box}/sub", folder / "here")
    assert fetched.status == 0
    assert len(lines_about(fetched, f"{folder / 'here/file'}: its time")) == 1
    assert len(lines_about(fetched, f"{folder / 'here'}: its time")) == 1
    assert (folder / "here/file").stat().st_mtime_ns == MAX_INTEGER
    assert (folder / "here").stat().st_mtime_ns == MAX_INTEGER


# --- what the receiving disk can hold ---------------------------------------------------------------------------------


@pytest.fixture(params=["no number", "no such time", "the nearest"])
def poor_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that holds no time beyond 2038: some systems say so, others take the nearest."""
    utime = os.utime

    def set_some(descriptor: int, *, ns: tuple[int, int]) -> None:
        if type(descriptor) is not int or ns[1] <= 0x7FFFFFFF * SECOND:
            utime(descriptor, ns=ns)
        elif request.param == "no number":
            raise OverflowError
        elif request.param == "no such time":
            raise OSError(errno.EINVAL, "Invalid argument")
        else:
            utime(descriptor, ns=(0, 0x7FFFFFFF * SECOND))

    monkeypatch.setattr(os, "utime", set_some)


@pytest.mark.usefixtures("poor_disk")
def test_time_that_the_disk_can_not_hold_is_left_out_and_said(storage: Storage, engine: Engine, tmp_path: Path) -> None:
    names, told, receiving = ("small", "large", "other"), Told(), Receiving(storage, engine)
    items = [item(written(tmp_path / name, b"x" * size)) for name, size in zip(names, (5, 100_000, 7), strict=True)]
    for each, time in zip(items, (3_000_000_000, 3_000_000_000, 5), strict=True):
        os.utime(each.name, ns=(time * SECOND, time * SECOND))
    send(receiving, [*items, folder_item("folder", mtime=3_000_000_000 * SECOND)], told)
    assert told.problems == {}
    assert sorted(receiving.taken.timeless) == ["folder", "large", "small"]
    for name in names:
        assert (tmp_path / "received/alice" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_other_trouble_with_a_time_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, *, ns: tuple[int, int]) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "utime", fail)
    with pytest.raises(OSError, match="Input/output"):
        set_time(0, 5)
    assert set_time(0, None)
