"""Whatever comes from outside becomes one harmless line, in the log and on the screen."""

import contextlib
import errno
import io
import json
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tables import each_row

from sft.client.receipts_file import ReceiptsFile
from sft.common.errors import Code, Refused, SourceError, UsageError
from sft.common.private_files import open_private
from sft.common.text import cut, escape, show_briefly, show_path
from sft.console.log import LogStyle, no_log, open_log
from sft.console.named import NamedFolder
from sft.console.progress import ProgressBar, open_progress
from sft.console.reporter import Reporter
from sft.console.screen import ended, fail, note, say, warn

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) ")


PLAIN = LogStyle()


@contextlib.contextmanager
def log_at(path: Path, level: str = "info", style: LogStyle = PLAIN) -> Iterator[logging.Logger]:
    log = open_log("test.report", path, level, style=style)
    try:
        yield log
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()


# --- escaping ---------------------------------------------------------------------------------------------------------


@each_row(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text.txt", "plain text.txt"),
        ("caf\u00e9 cafe\u0301 数据 Ω", "caf\u00e9 cafe\u0301 数据 Ω"),
        ("📦🚚", "📦🚚"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\rb"),
        ("a\nb", "a\\nb"),
        ("a\tb", "a\\tb"),
        ("a\0b", "a\\x00b"),
        ("\x08\x7f", "\\x08\\x7f"),
        ("\x85\x9b31m", "\\x85\\x9b31m"),
        ("\u202efdp.exe", "\\u202efdp.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("caf\udce9", "caf\\xe9"),
        ("\U000e0041", "\\U000e0041"),
    ],
    ids=ascii,
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
def test_escaped_text_is_always_one_printable_line(step: int) -> None:
    """Each code point of the first three planes; of the others, and of what is unassigned there, some."""
    for code in (*range(0x30000), *range(0x30000, sys.maxunicode + 1, step), *range(0xE0000, 0xE0200)):
        assert escape(chr(code)).isprintable(), code  # a line feed is not
    assert escape(escape("\x1b\n")) == escape("\x1b\n")


def test_path_is_shown_with_slashes() -> None:
    assert show_path(("inbox", "a b", "c")) == "inbox/a b/c"


@each_row("most", [0, 1, 4, 5, 6, 10, 100, 399])
def test_text_is_cut_in_its_middle_by_its_bytes(most: int) -> None:
    text = "a\u00e9\u6f22\U0001f600" * 40
    shown = cut(text, most)
    assert len(shown.encode()) <= max(most, 5)
    head, _, tail = shown.partition(" ... ")
    assert text.startswith(head) and text.endswith(tail)
    assert most < 20 or len(head) > len(tail) > 0


def test_text_that_is_short_enough_is_not_cut() -> None:
    assert cut("\u6f22" * 100, 300) == "\u6f22" * 100
    assert cut("\u6f22" * 100, 299) != "\u6f22" * 100


def test_path_is_shown_briefly_however_much_longer_its_escapes_are() -> None:
    """Else a client that is refused such ones pushes everything else out of the log."""
    assert show_briefly(("inbox", "a b")) == "inbox/a b"
    assert len(show_briefly(("\U0010ffff" * 63,) * 16).encode()) <= 500


def test_line_of_a_log_is_cut_as_it_stands_in_the_file(tmp_path: Path) -> None:
    log = open_log("test", tmp_path / "log", "info")
    log.info("\U0010ffff" * 4096 + "the end")
    log.info(["\u6f22" * 4096 + "the end", "short"])
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert [len(line.encode()) <= 5_000 for line in lines] == [True] * 3
    assert [line.endswith("the end") for line in lines] == [True, True, False]


# --- logs -------------------------------------------------------------------------------------------------------------


def test_each_event_is_one_line_in_utc(tmp_path: Path) -> None:
    with log_at(tmp_path / "log") as log:
        log.info("stored %s", "evil\nname\r\x1b[2J\u202e")
        log.warning("second \ud800")
        log.debug("not at this level")
        try:
            raise ValueError("first\nsecond\x1b")
        except ValueError:
            log.exception("a bug")
    lines = (tmp_path / "log").read_text("utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    for line in lines:
        assert LINE.match(line)
        assert line.isprintable()
    assert lines[0].endswith("INFO stored evil\\nname\\r\\x1b[2J\\u202e")
    assert lines[1].endswith("WARNING second \\ud800")
    assert "a bug\\nTraceback" in lines[2]
    assert "ValueError: first\\nsecond\\x1b" in lines[2]


def test_log_is_appended_to(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with log_at(tmp_path / "log") as log:
            log.info(text)
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["one", "two"]


def test_opening_a_log_again_does_not_double_its_lines(tmp_path: Path) -> None:
    with log_at(tmp_path / "log") as first:
        handler = first.handlers[0]
        with log_at(tmp_path / "log") as log:
            log.info("once")
        handler.close()
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_level_of_the_log(tmp_path: Path) -> None:
    for level, count in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        with log_at(tmp_path / level, level) as log:
            for each in (log.debug, log.info, log.warning, log.error):
                each("x")
        assert len((tmp_path / level).read_text().splitlines()) == count


def test_log_is_rotated_and_stays_private(tmp_path: Path) -> None:
    with log_at(tmp_path / "log", style=LogStyle(1000)) as log:
        for number in range(200):
            log.info("line %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log", "log.1", "log.2", "log.3"]
    for name in files:
        assert (tmp_path / name).stat().st_size <= 1000
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert (tmp_path / "log").read_text().endswith("line 199\n")


def test_log_goes_on_after_a_rotation_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def fail(*names: object) -> None:
        monkeypatch.setattr(os, "rename", rename)
        raise PermissionError(errno.EACCES, "no")

    with log_at(tmp_path / "log", style=LogStyle(200)) as log:
        log.info("x" * 150)
        monkeypatch.setattr(os, "rename", fail)
        log.info("y" * 150)
        log.info("it goes on")
    assert os.rename is rename
    assert "it goes on" in (tmp_path / "log").read_text()


def test_log_is_made_private_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with log_at(tmp_path / "log"):
            pass
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("trap", ["link", "dangling", "fifo", "read fifo", "folder", "missing", "below a file"])
def test_log_that_is_a_trap_is_refused(tmp_path: Path, trap: str) -> None:
    path, reader = tmp_path / "log", -1
    (tmp_path / "target").write_bytes(b"precious")
    if trap in ("link", "dangling"):
        path.symlink_to("target" if trap == "link" else "nowhere")
    elif trap in ("fifo", "read fifo"):
        os.mkfifo(path)
        if trap == "read fifo":
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif trap == "folder":
        path.mkdir()
    else:
        path = tmp_path / ("no" if trap == "missing" else "target") / "log"
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(UsageError) as caught:
        open_log("test.report", path, "info")
    assert str(path) in caught.value.cause
    assert len(os.listdir("/dev/fd")) == before
    if reader >= 0:
        os.close(reader)
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_private_file_is_refused_when_it_is_a_device() -> None:
    with pytest.raises(UsageError):
        open_private(Path("/dev/null"), os.O_RDONLY)


def test_log_whose_disk_is_full_is_told_once_and_the_work_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    with log_at(tmp_path / "log") as log:
        handler = log.handlers[0]
        full = io.TextIOWrapper(io.FileIO("/dev/full", "a"), write_through=True)
        with full, monkeypatch.context() as patched:
            patched.setattr(handler, "stream", full)
            log.info("one")
            log.info("two")
        log.info("three")
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err == f"warning: can't write to {tmp_path / 'log'} (No space left on device)\n"


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    def work(log: logging.Logger, mark: str) -> None:
        for _ in range(50):
            log.info(mark * 200)

    with log_at(tmp_path / "log") as log:
        threads = [threading.Thread(target=work, args=(log, mark)) for mark in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = [line.split(" ")[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(texts) == sorted(mark * 200 for mark in "abcd" for _ in range(50))


def test_no_log_keeps_nothing_and_complains_about_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    no_log("test.nothing").error("lost\n")
    assert capsys.readouterr() == ("", "")


# --- the screen -------------------------------------------------------------------------------------------------------


def test_results_go_to_standard_output_and_the_rest_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("result\x1b")
    warn("careful\n")
    note("by the way\r")
    fail(Refused(Code.EXISTS), "na\nme")
    fail(UsageError("cause", "remedy"))
    out, err = capsys.readouterr()
    assert out == "result\\x1b\n"
    assert err.splitlines() == [
        "warning: careful\\n",
        "by the way\\r",
        f"error: na\\nme: {Refused(Code.EXISTS)}",
        "error: cause. remedy",
    ]


def test_screen_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say("café 📦 \ud800")
    assert raw.getvalue() == b"caf\\xe9 \\U0001f4e6 \\ud800\n"


def saying(line: str) -> Callable[[], int]:
    def program() -> int:
        say(line)
        return 0

    return program


def test_reader_that_has_left_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    assert ended(saying("nobody reads this")) == 1
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    assert ended(saying("nor this")) == 1


def reporting(
    quiet: bool = False,
    as_json: bool = False,
    receipts: ReceiptsFile | None = None,
    log: logging.Logger | None = None,
    verbose: bool = False,
) -> Reporter:
    reporter = Reporter(log or no_log("test.reporter"), quiet, as_json, verbose)
    if receipts is not None:
        reporter.keep_receipts(receipts)
    return reporter


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        progress = open_progress(shown=shown)
        progress.begin(10, 1)
        progress.name("x")
        progress.more(5, 1)
        progress.advance(10)
        progress.look()
        progress.close()
    assert capsys.readouterr() == ("", "")


def test_progress_still_tells_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting()
    reporter.begin(None)
    reporter.skipped("done\x1b", "why")
    reporter.failed("a", Refused(Code.DENIED))
    reporter.end()
    reporter.moved(1)
    reporter.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"skipped: done\\x1b: why\nerror: a: {Refused(Code.DENIED)}\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_name_in_the_progress_bar_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = open_progress(shown=True)
    progress.begin(10, 1)
    progress.name("evil\x1b[2J\x1b]0;x\x07\nname")
    progress.advance(5)
    progress.look()
    progress.close()
    assert "\x1b" not in screen.getvalue() and "\n" not in screen.getvalue()
    assert "\x07" not in screen.getvalue()
    assert "evil\\x1b[2J" in screen.getvalue()


@pytest.mark.parametrize("total", [100, None])
def test_line_says_stalled_while_nothing_moves_and_a_rate_again_afterwards(total: int | None) -> None:
    screen, now = io.StringIO(), [100.0]
    progress = ProgressBar(True, lambda text: print(text, end="", file=screen), escape, lambda: now[0], lambda: 79)
    progress.begin(total, 1)

    def shown() -> str:
        screen.seek(0)
        screen.truncate(0)
        progress.look()
        return screen.getvalue()

    progress.name("a")
    now[0] += 1
    progress.advance(10)
    now[0] += 2.9
    assert "stalled" not in shown() and "B/s" in shown()
    now[0] += 0.2
    assert "stalled" in shown() and "B/s" not in shown() and "left" not in shown() and "10 B" in shown()
    progress.advance(10)
    assert "stalled" not in shown() and "B/s" in shown() and ("left" in shown()) == (total is not None)
    now[0] += 10
    progress.close()
    assert shown() == "", "nothing is drawn behind the end"


def test_line_counts_files_and_says_what_is_done_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared is not "checking" any more when its bytes are sent."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    reporter = reporting()
    reporter.search(lambda: (3, 70))
    reporter._progress.look()
    assert "3 files  70 B  found so far" in screen.getvalue()
    reporter.begin(100, 5)

    def shown() -> str:
        reporter._progress.look()
        return screen.getvalue().rpartition("\r")[2].rstrip()

    reporter.checking("a", 10)
    assert "checking a" in shown()
    reporter.moved(10, "a")
    assert shown().endswith("  a") and "checking" not in shown()
    reporter.moved(5, "b")
    assert shown().endswith("  b") and "25 B of 100 B" in shown() and "0 of 5 files" in shown()
    reporter.unchecked(10)
    assert "15 B of 100 B" in shown(), "what has to be sent all the same is not done"
    reporter.delivered("b", "b", 5, SHA256, AT, "stored")
    reporter.unchanged("c", "c", 5)
    reporter.skipped("d", "it is there", is_wanted=True)
    reporter.failed("e", Refused(Code.DENIED))
    assert "4 of 5 files" in shown()
    reporter.expect(20, 2)
    assert "15 B of 120 B" in shown() and "4 of 7 files" in shown()
    reporter.end()


def test_line_of_progress_leaves_nothing_behind_when_it_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    reporter = reporting()
    reporter.begin(100, 2)
    reporter.moved(10, "a long name of a file")
    reporter._progress.look()
    width = len(screen.getvalue().rpartition("\r")[2].rstrip())
    reporter.note("above")
    lines = screen.getvalue().split("\n")
    assert lines[0].endswith(f"\r{' ' * width}\rabove") and "a long name" in lines[1], "drawn again below it"
    reporter.end()
    assert screen.getvalue().endswith("\r") and screen.getvalue()[:-1].rpartition("\r")[2].strip() == ""


# --- what becomes of a run --------------------------------------------------------------------------------------------

SHA256 = bytes(range(32))
EVIL = "ev\x1b[2Jil\n\u202e\udce9"
AT = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20.123456Z


def everything(reporter: Reporter) -> None:
    """Each event once, about a name that would like to do harm."""
    reporter.begin(10)
    reporter.started(EVIL, ("inbox", EVIL), 10)
    reporter.checking(EVIL, 4)
    reporter.resumed(EVIL, 4)
    reporter.restarted(EVIL, 4)
    reporter.moved(6)
    reporter.sealed(EVIL, 10, SHA256)
    reporter.delivered(EVIL, "inbox/" + EVIL, 10, SHA256, AT, "stored")
    reporter.delivered("b", "inbox/b", 5, SHA256, AT, "already")
    reporter.skipped(EVIL, "a link")
    reporter.failed(EVIL, Refused(Code.EXISTS))
    reporter.listed(EVIL, "folder", 0, AT)
    reporter.note(EVIL)
    reporter.end()
    reporter.summary("delivered", 2.0, 1)


def test_only_a_receipt_or_a_place_further_on_counts_as_progress() -> None:
    told = reporting()
    before = told.progress_mark()
    told.moved(5 << 20)
    assert told.progress_mark() == before, "bytes that have to be sent again are none"
    told.resumed("a", 10)
    assert told.progress_mark() > before
    further = told.progress_mark()
    told.resumed("a", 10)
    assert told.progress_mark() == further
    told.delivered("a", "a", 20, bytes(32), 0, "stored")
    assert told.progress_mark() > further


def test_run_is_told_in_lines_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    everything(reporting())
    out, err = capsys.readouterr()
    shown = escape(EVIL)
    assert out.splitlines() == [
        f"resumed: {shown} from 4 B on",
        f"starting again: {shown} is not what an earlier attempt has left behind",
        f"delivered: inbox/{shown}  10 bytes  SHA-256 {SHA256.hex()}",
        f"there already: inbox/b  5 bytes  SHA-256 {SHA256.hex()}",
        f"{'0':>15}  2023-11-14T22:13:20Z  {shown}/",
        "1 file delivered, 1 there already, 1 skipped, 1 failed: 10 B in 2.00 s, 5 B/s",
    ]
    assert err.splitlines() == [f"skipped: {shown}: a link", f"error: {shown}: {Refused(Code.EXISTS)}", shown]


def test_run_is_told_in_json_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    everything(reporting(as_json=True))
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    told = [event["event"] for event in events]
    assert told[:4] == ["started", "resumed", "restarted", "progress"]
    assert told[4:] == ["delivered", "delivered", "skipped", "failed", "entry", "summary"]
    assert all(event.get("name", EVIL) in (EVIL, "b") for event in events), "a script gets names as they are"
    by_name = dict(zip(told, events, strict=True))
    assert by_name["resumed"]["offset"] == 4
    assert by_name["delivered"] == {
        "event": "delivered",
        "outcome": "already",
        "name": "b",
        "path": "inbox/b",
        "size": 5,
        "sha256": SHA256.hex(),
        "time": "2023-11-14T22:13:20.123456Z",
    }
    refusal = Refused(Code.EXISTS)
    assert by_name["failed"]["cause"] == refusal.cause
    assert by_name["failed"]["remedy"] == refusal.remedy
    assert by_name["failed"]["status"] == 1
    assert by_name["summary"] == {
        "event": "summary",
        "delivered": 1,
        "already": 1,
        "unchanged": 0,
        "skipped": 1,
        "failed": 1,
        "set": 0,
        "bytes": 10,
        "moved": 6,
        "wire": 0,
        "seconds": 2.0,
        "status": 1,
    }
    assert err == escape(EVIL) + "\n"


def test_quiet_run_tells_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting(quiet=True)
    reporter.delivered("a", "a", 5, SHA256, AT, "stored")
    reporter.failed("b", Refused(Code.DENIED))
    reporter.summary("delivered", 1.0, 1)
    assert capsys.readouterr() == ("", f"error: b: {Refused(Code.DENIED)}\n")


def test_run_that_delivered_nothing_tells_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting()
    reporter.moved(5)
    reporter.failed("b", Refused(Code.DENIED))
    reporter.summary("delivered to a@b", 1.0, 1)
    assert capsys.readouterr().out == "0 files delivered to a@b, 1 failed\n"
    reporter.delivered("a", "a", 0, SHA256, AT, "stored")
    reporter.summary("delivered to a@b", 1.0, 1)
    assert capsys.readouterr().out.splitlines()[1:] == ["1 file delivered to a@b, 1 failed: 0 B in 1.00 s, 0 B/s"]


def test_results_leave_standard_output_to_the_content(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        reporter = reporting(as_json=as_json)
        reporter.to_standard_error()
        reporter.delivered("a", "a", 5, SHA256, AT, "stored")
        reporter.summary("fetched", 1.0, 0)
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 2


def test_worst_status_of_a_run_is_its_status() -> None:
    reporter = reporting(quiet=True)
    assert reporter.status == 0
    reporter.skipped("a", "a link")
    assert reporter.status == 0
    for code, status in ((Code.EXISTS, 1), (Code.INTEGRITY, 5), (Code.DENIED, 5)):
        reporter.failed("b", Refused(code))
        assert reporter.status == status
    assert reporter.failed_count == 3


def test_receipts_are_kept_one_json_line_each(tmp_path: Path) -> None:
    file = ReceiptsFile(str(tmp_path / "receipts"))
    reporter = reporting(quiet=True, receipts=file)
    reporter.delivered(EVIL, "inbox/b", 5, SHA256, AT, "stored")
    lines = (tmp_path / "receipts").read_text("ascii").splitlines()
    assert len(lines) == 1, "it is there before the run is over"
    file.close()
    assert json.loads(lines[0]) == {
        "name": EVIL,
        "path": "inbox/b",
        "size": 5,
        "sha256": SHA256.hex(),
        "time": "2023-11-14T22:13:20.123456Z",
    }


def test_receipts_are_on_the_disk_at_the_end_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)), raising=True
    )
    file = ReceiptsFile(str(tmp_path / "receipts"))
    reporter = reporting(quiet=True, receipts=file)
    reporter.delivered("a", "b", 3, SHA256, AT, "stored")
    reporter.end()
    file.close()
    assert flushed == [False, True], "the file, then the folder that has its name"


def test_receipts_that_can_not_be_flushed_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    file = ReceiptsFile(str(tmp_path / "receipts"))
    reporter = reporting(quiet=True, receipts=file)
    reporter.end()
    file.close()
    assert reporter.status == 1
    said = f"error: can't write the receipts to {tmp_path / 'receipts'} (Input/output error). Name another file\n"
    assert capsys.readouterr().err == said and reporter.failed_count == 0


def test_receipts_that_can_not_be_written_are_a_failure_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    full = ReceiptsFile("/dev/full")
    reporter = reporting(receipts=full)
    reporter.delivered("a", "a", 5, SHA256, AT, "stored")
    assert reporter.status == 1, "no usage error: the command was right, a disk is full"
    shown = capsys.readouterr()
    assert "delivered: a" in shown.out
    said = "error: can't write the receipts to /dev/full (No space left on device). Name another file\n"
    assert shown.err == said and reporter.failed_count == 0, "no file has failed"
    reporter.delivered("b", "b", 5, SHA256, AT, "stored")
    shown = capsys.readouterr()
    assert "delivered: b" in shown.out and shown.err == "", "said once"
    with contextlib.suppress(OSError):
        full.close()


def test_name_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    reporting().failed("here/a", SourceError("here/a does not exist", "Check its name"))
    assert capsys.readouterr().err == "error: here/a does not exist. Check its name\n"


@pytest.mark.parametrize("name", ["a", "file", "name", "that"])
def test_name_that_is_also_a_word_of_the_cause_is_said(capsys: pytest.CaptureFixture[str], name: str) -> None:
    reporting().failed(name, Refused(Code.EXISTS))
    assert capsys.readouterr().err == f"error: {name}: {Refused(Code.EXISTS)}\n"


@pytest.mark.parametrize("time_ns", [(1 << 63) - 1, -(1 << 63), -1, 0, 10**30, -(10**30)])
def test_time_that_no_calendar_has_is_still_told(capsys: pytest.CaptureFixture[str], time_ns: int) -> None:
    reporter = reporting(as_json=True)
    reporter.listed("a", "file", 5, time_ns)
    reporter.delivered("a", "a", 5, SHA256, time_ns, "stored")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_log_of_a_run_has_what_was_sent_and_the_receipt(tmp_path: Path) -> None:
    with log_at(tmp_path / "log") as log:
        everything(reporting(quiet=True, log=log))
    text = (tmp_path / "log").read_text("utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count(SHA256.hex()) == 3, "read and sealed, and two receipts"
    assert f"receipt (stored): inbox/{escape(EVIL)}, 10 bytes" in text


def test_lines_of_several_threads_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting(as_json=True)

    def work() -> None:
        for _ in range(50):
            reporter.skipped("n" * 500, "w" * 500)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 200
    assert {json.loads(line)["event"] for line in lines} == {"skipped"}
    assert reporter.skipped_count == 200


def test_a_few_names_of_each_cause_are_printed_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting()
    for number in range(1000):
        reporter.failed(f"{number}", Refused(Code.NO_SPACE))
        reporter.failed(f"d/{number}", SourceError(f"d/{number} can't be read (Permission denied)", "Check it"))
        reporter.skipped(f"{number}", "a link")
    reporter.failed("x", Refused(Code.EXISTS))
    reporter.end()
    reporter.end()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if ": x" in line] == [f"error: x: {Refused(Code.EXISTS)}"]
    assert sum("the disk is full" in line for line in lines) == 6
    assert lines[-3:] == [
        "skipped: and 995 more (-v): a link",
        "error: and 995 more (-v): the disk is full",
        "error: and 995 more (-v): can't be read (Permission denied)",
    ]
    assert len(lines) == 3 * 6 + 1
    assert (reporter.failed_count, reporter.skipped_count, reporter.status) == (2001, 1000, 1)


def test_verbose_run_names_everything_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting(verbose=True)
    for number in range(100):
        reporter.failed(f"{number}", Refused(Code.NO_SPACE))
        reporter.skipped(f"{number}", "a link")
    reporter.end()
    assert len(capsys.readouterr().err.splitlines()) == 200


def test_causes_without_end_are_lumped_together(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting()
    for number in range(1000):
        reporter.failed("x", SourceError(f"cause {number}"))
    reporter.end()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 70 and lines[-1].endswith("more (-v): other causes")


def test_script_gets_an_event_for_each_file_that_a_full_disk_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting(as_json=True)
    for number in range(10):
        reporter.failed(f"{number}", Refused(Code.QUOTA))
    reporter.end()
    shown = capsys.readouterr()
    assert shown.err == "" and len(shown.out.splitlines()) == 10


# --- named folders ----------------------------------------------------------------------------------------------------

TALLIES = {
    "files": (["delivered", "delivered"], "delivered: in/  2 files, 20 bytes"),
    "all kinds": (
        ["delivered", "there already", "unchanged", "unchanged", "skipped", "failed", "folder"],
        "delivered: in/  1 file, 10 bytes, 1 there already, 2 unchanged, 1 skipped, 1 failed",
    ),
    "nothing new": (["there already", "unchanged"], "there already: in/  1 file, 10 bytes, 1 unchanged"),
    "unchanged": (["unchanged", "unchanged", "folder"], "unchanged: in/  2 files, 20 bytes"),
    "no file": (["folder"], "delivered: in/  0 files, 0 bytes"),
    "nothing at all": ([], "delivered: in/  0 files, 0 bytes"),
    "only failures": (["failed", "folder"], None),
    "only skipped": (["skipped", "failed"], "skipped: in/  1 file, 1 failed"),
}


@each_row("case", TALLIES)
def test_line_of_a_named_folder(case: str) -> None:
    words, line = TALLIES[case]
    folder = NamedFolder("in")
    for word in words:
        assert folder.line() is None, "more of it may be found"
        folder.settle(word, 10)
    folder.found(len(words))
    assert folder.line() == line
    assert folder.line() is None and folder.line(is_over=True) is None, "said once"


def test_line_of_a_folder_comes_when_the_last_thing_in_it_is_settled() -> None:
    folder = NamedFolder("in/")
    folder.found(2)
    folder.settle("delivered", 1)
    assert folder.line() is None
    folder.settle("folder")
    assert folder.line() == "delivered: in/  1 file, 1 byte"


def test_folder_that_is_not_whole_at_the_end_is_delivered_in_part() -> None:
    folder, empty = NamedFolder("in"), NamedFolder("")
    folder.settle("delivered", 1)
    assert folder.line(is_over=True) == "delivered in part: in/  1 file, 1 byte"
    empty.settle("skipped")
    assert empty.line(is_over=True) is None


@pytest.mark.parametrize("verbose", [False, True])
def test_files_in_a_named_folder_have_lines_of_their_own_only_in_a_verbose_run(
    capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    reporter = reporting(verbose=verbose)
    folder = reporter.name_folder("in")
    for number in range(300):
        reporter.delivered(f"d/{number}", f"in/{number}", 1, SHA256, AT, "stored", folder)
    reporter.unchanged("d/x", "in/x", 7, folder)
    reporter.skipped("in/y", "it is there", folder, is_wanted=True)
    reporter.folder_there(folder)
    reporter.delivered("own", "own", 5, SHA256, AT, "stored")
    reporter.folder_found(folder, 303)
    reporter.end()
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert shown.err == ""
    assert lines[-1] == "delivered: in/  300 files, 300 bytes, 1 unchanged, 1 skipped"
    assert f"delivered: own  5 bytes  SHA-256 {SHA256.hex()}" in lines
    assert len(lines) == (304 if verbose else 2)
    assert ("unchanged: in/x" in lines) == ("skipped: in/y: it is there" in lines) == verbose


def test_script_gets_an_event_for_each_file_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = reporting(as_json=True, verbose=True)
    folder = reporter.name_folder("in")
    with reporter.together():
        reporter.delivered("d/1", "in/1", 1, SHA256, AT, "stored", folder)
        reporter.unchanged("d/x", "in/x", 7, folder)
        assert capsys.readouterr().out == "", "what belongs together is written once"
    reporter.folder_found(folder, 2)
    reporter.end()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in told] == ["delivered", "unchanged"]
    assert told[1] == {"event": "unchanged", "name": "d/x", "path": "in/x", "size": 7}


def test_receipts_of_a_batch_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ReceiptsFile(str(tmp_path / "receipts"))
    written: list[int] = []
    append = file.append

    def noted(*lines: str) -> None:
        written.append(len(lines))
        append(*lines)

    monkeypatch.setattr(file, "append", noted)
    reporter = reporting(receipts=file)
    with reporter.together():
        for number in range(100):
            reporter.delivered(f"{number}", f"{number}", 1, SHA256, AT, "stored")
    reporter.delivered("own", "own", 1, SHA256, AT, "stored")
    assert written == [100, 1]
    reporter.end()
    file.close()
    assert len((tmp_path / "receipts").read_text().splitlines()) == 101


@pytest.mark.parametrize("is_wanted", [False, True])
def test_what_is_left_out_is_said_also_by_a_quiet_run_unless_it_was_wanted(
    capsys: pytest.CaptureFixture[str], is_wanted: bool
) -> None:
    reporter = reporting(quiet=True)
    reporter.skipped("a", "a symbolic link", is_wanted=is_wanted)
    assert capsys.readouterr() == ("", "" if is_wanted else "skipped: a: a symbolic link\n")
