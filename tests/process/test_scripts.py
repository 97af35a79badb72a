"""What scripts rely on: pipes, JSON events, receipts, exit statuses, and nothing else on standard output."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import MakeProxy
from processes import (
    HOME,
    MIB,
    ONCE,
    USER,
    Client,
    Fault,
    Result,
    Running,
    Server,
    check_no_traceback,
    clean_environment,
    login_received,
    login_sent,
    make,
    wait_until,
)

LARGE = 30_000_000
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
EVENTS = {
    "started": {"name", "path", "size"},
    "progress": {"bytes"},
    "resumed": {"name", "offset"},
    "restarted": {"name"},
    "delivered": {"name", "path", "size", "sha256", "time", "outcome"},
    "skipped": {"name", "why"},
    "failed": {"name", "cause", "remedy", "status"},
    "summary": {
        "delivered",
        "already",
        "unchanged",
        "skipped",
        "failed",
        "set",
        "bytes",
        "moved",
        "wire",
        "seconds",
        "status",
    },
    "planned": {"action", "name", "path", "kind", "size", "why"},
    "entry": {"name", "kind", "size", "time"},
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events_of(out: str) -> list[dict[str, object]]:
    """Each line is one event, with all of its fields and no other."""
    found = []
    for line in out.splitlines():
        assert line.isascii()
        event = json.loads(line)
        assert set(event) - {"event"} == EVENTS[event["event"]], event
        found.append(event)
    return found


def named(events: list[dict[str, object]], name: str) -> list[dict[str, object]]:
    return [event for event in events if event["event"] == name]


# --- Pipes ------------------------------------------------------------------------------------------------------------


def test_archive_goes_through_pipes_both_ways(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    for number in range(50):
        make(folder / f"below {number % 3}" / f"file {number}", 100_000 + number)
    packing = subprocess.Popen(["tar", "cf", "-", "-C", folder, "."], stdout=subprocess.PIPE)
    assert packing.stdout is not None
    sending = client.start("-", f"{box}/all.tar", stdin=packing.stdout)
    packing.stdout.close()
    result = sending.finish()
    assert packing.wait() == 0
    assert (result.status, result.err) == (0, "") and f"delivered: {box}/all.tar  " in result.out
    there = server.path(box, "all.tar")
    assert f"SHA-256 {sha256(there)}\n" in result.out
    back = tmp_path / "back"
    back.mkdir()
    unpacking = subprocess.Popen(["tar", "xf", "-", "-C", back], stdin=subprocess.PIPE)
    assert unpacking.stdin is not None
    fetching = client.start("--get", f"{box}/all.tar", "-", stdout=unpacking.stdin)
    unpacking.stdin.close()
    result = fetching.finish()
    assert unpacking.wait() == 0
    assert result.status == 0
    assert "1 file fetched" in result.err and f"SHA-256 {sha256(there)}\n" in result.err
    for path in folder.rglob("*"):
        assert path.is_dir() or (back / path.relative_to(folder)).read_bytes() == path.read_bytes()
    listed = subprocess.run(["tar", "tf", there], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 54


@pytest.mark.parametrize("sizes", [(0, 3 * MIB), pytest.param((1, MIB, MIB + 1), marks=pytest.mark.long)])
def test_pipes_of_every_size_arrive_whole(
    server: Server, client: Client, folder: Path, box: str, sizes: tuple[int, ...]
) -> None:
    sources = [make(folder / f"{size}", size) for size in sizes]
    running = []
    for source in sources:
        with source.open("rb") as opened:
            running.append(client.start("--quiet", "-", f"{box}/{source.name}", stdin=opened))
    assert [each.finish() for each in running] == [Result(0, "", "")] * len(sources)
    running = []
    for source in sources:
        assert server.path(box, source.name).read_bytes() == source.read_bytes()
        with source.with_suffix(".back").open("wb") as back:
            running.append(client.start("--quiet", "--get", f"{box}/{source.name}", "-", stdout=back))
    assert [each.finish() for each in running] == [Result(0, "", "")] * len(sources)
    for source in sources:
        assert source.with_suffix(".back").read_bytes() == source.read_bytes()
    assert server.partials() == []


def test_pipe_that_is_lost_midway_ends_the_client_and_leaves_nothing(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("cut", login_sent() + 5 * MIB))
    with make(folder / "a", LARGE).open("rb") as source:
        result = client.at(line.port).start("-", f"{box}/name", stdin=source).finish(15)
    assert result.status == 4 and result.out == ""
    assert result.err.startswith("error: the connection was lost")
    assert result.err.endswith(". Start the whole command again; nothing became visible\n")
    assert len(result.err.splitlines()) == 1 and line.connections == 1
    wait_until(lambda: server.partials() == [])
    assert not server.path(box).exists()


def test_pipe_whose_receipt_is_lost_is_not_said_to_be_missing(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    line = proxy(server.port, down=Fault("hold", login_received() + 100))  # behind ACCEPT, inside RECEIPT
    source = make(folder / "a", 300_000)
    with source.open("rb") as piped:
        running = client.at(line.port).start("-", f"{box}/name", stdin=piped)
    wait_until(lambda: f"stored {box}/name, " in server.told())
    line.cut()
    line.release()
    result = running.finish(15)
    assert result.status == 4 and result.out == ""
    assert result.err.endswith(". Start the whole command again; the whole file may be there\n")
    assert server.path(box, "name").read_bytes() == source.read_bytes()


def test_pipe_whose_writer_died_is_told_apart_by_the_writer_only(server: Server, client: Client, box: str) -> None:
    """An end of standard input is an end: the shell's `pipefail` is there for the rest."""
    dying = subprocess.Popen(["sh", "-c", "printf half; kill -9 $$"], stdout=subprocess.PIPE)
    assert dying.stdout is not None
    running = client.start("-", f"{box}/name", stdin=dying.stdout)
    dying.stdout.close()
    assert running.finish().status == 0 and dying.wait() == -signal.SIGKILL
    assert server.path(box, "name").read_text() == "half"


def test_fetch_to_a_pipe_that_is_cut_is_exit_5_in_one_line(
    server: Server, proxy: MakeProxy, client: Client, box: str, tmp_path: Path
) -> None:
    source = make(server.path(box, "large"), LARGE)
    for fault, at in (("cut", 5 * MIB), ("flip", 5 * MIB), ("cut", login_received() + LARGE)):
        line = proxy(server.port, down=Fault(fault, at))  # type: ignore[arg-type]
        with (tmp_path / "out").open("wb") as out:
            result = client.at(line.port).start("--get", f"{box}/large", "-", stdout=out).finish(15)
        assert line.reached.is_set() and line.connections == 1
        assert result.status == 5 and len(result.err.splitlines()) == 1, result
        assert result.err.startswith("error: what was written to standard output is not whole")
        assert result.err.endswith(". Throw it away, try again\n")
        assert source.read_bytes().startswith((tmp_path / "out").read_bytes())


def test_fetch_to_a_pipe_before_any_content_tries_again(
    server: Server, proxy: MakeProxy, client: Client, box: str, tmp_path: Path
) -> None:
    source = make(server.path(box, "large"), 2 * MIB)
    line = proxy(server.port, down=Fault("cut", login_received() + 10))
    with (tmp_path / "out").open("wb") as out:
        result = client.at(line.port).start("--get", f"{box}/large", "-", stdout=out).finish(15)
    assert result.status == 0 and ": trying again in 1 s" in result.err and line.connections == 2
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


def test_fetch_to_a_pipe_of_what_is_no_file_writes_nothing(server: Server, client: Client, box: str) -> None:
    make(server.path(box, "folder", "file"))
    for name, words in (
        ("missing", "missing does not exist on the receiver"),
        ("folder", "folder is a folder on the receiver. Only one file can go to standard output"),
    ):
        result = client("--get", f"{box}/{name}", "-")
        assert (result.status, result.out) == (1, ""), result
        assert words in result.err and len(result.err.splitlines()) <= 2, result


def test_reader_that_leaves_early_ends_the_client_in_one_line(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    make(server.path(box, "large"), LARGE)
    many = server.path(box, "many")
    many.mkdir()
    for number in range(1500):
        (many / f"a rather long name, so that all of them fill the pipe {number}").touch()
    for arguments, statuses in (
        (["--get", f"{box}/large", "-"], {1, 5}),
        (["--list", f"{box}/many"], {1}),
        (["--list", "--json", f"{box}/many"], {1}),
    ):
        running = client.start(*arguments, stdout=subprocess.PIPE)
        assert running.process.stdout is not None
        assert os.read(running.process.stdout.fileno(), 10)
        running.process.stdout.close()
        assert running.process.stderr is not None and running.process.stdin is not None
        err = running.process.stderr.read()
        status = running.process.wait(15)
        running.process.stderr.close()
        running.process.stdin.close()
        Running.unfinished.discard(running)
        check_no_traceback(err)
        assert "Exception ignored" not in err and "BrokenPipe" not in err
        assert status in statuses and len(err.splitlines()) <= 2, (arguments, status, err)
    sources = [make(folder / f"{number}") for number in range(30)]
    reading, writing = os.pipe()
    os.close(reading)
    running = client.start(*sources, f"{box}/sent/", stdout=writing)
    os.close(writing)
    result = running.finish()
    assert (result.status, result.err) == (1, ""), "not all was printed"
    assert len(os.listdir(server.path(box, "sent"))) == 30


# --- Events -----------------------------------------------------------------------------------------------------------


def test_events_are_one_json_line_each_and_nothing_else(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str
) -> None:
    tree = folder / "tree"
    large, small = make(tree / "large", 8_000_000), make(tree / "small é\u202e", 100)
    (tree / "link").symlink_to("small")
    make(tree / "new\nline")
    line = proxy(server.port, up=Fault("cut", 5 * MIB))
    result = client.at(line.port)("--json", "--limit=8M", tree, box)
    assert result.status == 1
    assert all(": trying again in " in told for told in result.err.splitlines()), result.err
    events = events_of(result.out)
    assert {event["name"]: (event["path"], event["size"]) for event in named(events, "started")} == {
        str(large): (f"{box}/large", 8_000_000),
        str(small): (f"{box}/small é\u202e", 100),
    }
    progress = [event["bytes"] for event in named(events, "progress")]
    assert progress and progress == sorted(progress)  # type: ignore[type-var]
    (resumed,) = named(events, "resumed")
    assert resumed["name"] == str(large) and 0 < int(str(resumed["offset"])) < 5 * MIB
    delivered = {event["name"]: event for event in named(events, "delivered")}
    assert set(delivered) == {str(large), str(small)}
    for path in (large, small):
        event = delivered[str(path)]
        assert (event["path"], event["size"]) == (f"{box}/{path.name}", path.stat().st_size)
        assert (event["sha256"], event["outcome"]) == (sha256(path), "stored")
        assert TIME.fullmatch(str(event["time"]))
    (skipped,) = named(events, "skipped")
    assert skipped["name"] == str(tree / "link") and "symbolic link" in str(skipped["why"])
    (failed,) = named(events, "failed")
    assert failed["name"] == str(tree / "new\nline") and failed["status"] == 1
    assert failed["cause"] and failed["remedy"]
    (summary,) = named(events, "summary")
    assert events[-1] == summary
    assert (summary["delivered"], summary["skipped"], summary["failed"]) == (2, 1, 1)
    assert summary["bytes"] == 8_000_100 and float(str(summary["seconds"])) > 0.5
    result = client("--json", "--get", f"{box}/large", f"{folder}/back/")
    assert (result.status, result.err) == (0, "")
    events = events_of(result.out)
    (event,) = named(events, "delivered")
    assert (event["path"], event["sha256"]) == (str(folder / "back" / "large"), sha256(large))
    assert events[-1]["event"] == "summary" and events[-1]["delivered"] == 1
    result = client("--json", large, f"{box}/")
    (event,) = named(events_of(result.out), "delivered")
    assert (result.status, event["outcome"]) == (0, "already")
    result = client("--json", "--list", box)
    assert {event["name"] for event in named(events_of(result.out), "entry")} == {"large", small.name}


# A command in a folder with one file, and its exit code.
ENDED: list[tuple[list[str], int]] = [
    (["a", "BOX/"], 0),
    (["--dry-run", "a", "BOX/"], 0),
    (["--list"], 0),
    (["--list", "BOX/none"], 1),
    (["none", "BOX/"], 1),
    (["--get", "BOX/none", "./"], 1),
    (["--get", "BOX/none", "-"], 1),
    (["--get", "BOX/none", "none/none"], 2),
    (["--receipts=none/r", "a", "BOX/"], 2),
    (["--password-file=none", "a", "BOX/"], 2),
    (["a", "/absolute"], 2),
    (["--user=nobody", "a", "BOX/"], 3),
    (["--port=1", ONCE, "a", "BOX/"], 4),
    (["--port=1", ONCE, "--get", "a", "-"], 4),
]


@pytest.mark.parametrize(("words", "status"), ENDED, ids=str)
def test_every_run_ends_with_one_summary_that_has_its_exit_code(
    server: Server, client: Client, folder: Path, box: str, words: list[str], status: int
) -> None:
    make(folder / "a")
    result = client("--json", *[word.replace("BOX", box) for word in words], cwd=folder)
    to_stdout = "-" in words
    assert result.status == status and (not to_stdout or result.out == ""), result
    lines = [line for line in (result.err if to_stdout else result.out).splitlines() if line.startswith("{")]
    (summary,) = named(events := events_of("\n".join(lines)), "summary")
    assert events[-1] == summary and summary["status"] == status


def test_run_that_a_signal_ends_has_its_summary(
    server: Server, client: Client, proxy: MakeProxy, folder: Path, box: str
) -> None:
    line = proxy(server.port, up=Fault("hold", 3 * MIB))
    running = client.at(line.port).start("--json", make(folder / "a", LARGE), f"{box}/")
    line.wait_reached()
    running.kill(signal.SIGINT)
    result = running.finish()
    assert result.status == 130 and [event["status"] for event in named(events_of(result.out), "summary")] == [130]


def test_receipts_that_can_not_be_written_fail_the_run_and_no_file(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    result = client("--receipts=/dev/full", make(folder / "a", 10), f"{box}/")
    said = "error: can't write the receipts to /dev/full (No space left on device). Name another file\n"
    assert (result.status, result.err) == (1, said)
    assert "1 file delivered to" in result.out and "failed" not in result.out
    assert server.path(box, "a").exists()


def test_events_of_a_changed_source_and_of_a_fetch_to_standard_output(
    server: Server, proxy: MakeProxy, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    source = make(folder / "a", 8_000_000)
    line = proxy(server.port, up=Fault("cut", 5 * MIB))
    result = client.at(line.port)("--json", "--retries=0", source, f"{box}/")
    assert result.status == 4 and len(result.err.splitlines()) == 1
    assert {event["event"] for event in events_of(result.out)} <= {"started", "progress", "summary"}
    make(source, 8_000_000)
    wait_until(lambda: server.has_missed(box, "a"))
    result = client("--json", source, f"{box}/")
    events = events_of(result.out)
    assert result.status == 0
    assert [event["name"] for event in named(events, "restarted")] == [str(source)]
    with (tmp_path / "out").open("wb") as out:
        result = client.start("--json", "--get", f"{box}/a", "-", stdout=out).finish()
    assert result.status == 0 and (tmp_path / "out").read_bytes() == source.read_bytes()
    assert [event["sha256"] for event in named(events_of(result.err), "delivered")] == [sha256(source)]


def test_interruption_after_the_end_is_no_traceback_and_no_thread_holds_it_up() -> None:
    """Everything is printed by then, and a signal comes too late to change anything."""
    script = f"""
import os, runpy, signal, sys, threading
threading.Thread(target=threading.Event().wait).start()
leave = os._exit
def interrupted(status):
    os.kill(os.getpid(), signal.SIGINT)
    leave(status)
os._exit = interrupted
sys.argv[1:] = ["--show-config"]
runpy.run_path({str(HOME / "client.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment(), capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "host " in done.stdout


def test_interruption_while_an_object_is_cleaned_up_is_not_lost(tmp_path: Path) -> None:
    """There Python can only say that it ignores it."""
    script = f"""
import os, runpy, signal, sys, threading
import sft.wire.sockets
class Left:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
def connect(*_):
    Left()
    threading.Event().wait(20)
sft.wire.sockets.connect = connect
sys.argv[1:] = ["--user=u", "--client-log={tmp_path / "log"}", "--list"]
runpy.run_path({str(HOME / "client.py")!r}, run_name="__main__")
"""
    environment = {**clean_environment(), "SFT_PASSWORD": "x", "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


# --- Receipts ---------------------------------------------------------------------------------------------------------


def test_file_of_the_receipts_is_left_out_of_a_folder_that_is_sent(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    make(folder / "a")
    result = client("--receipts=r.jsonl", ".", f"{box}/all", cwd=folder)
    assert (result.status, result.err) == (0, "") and "  1 file, 20 bytes, 1 skipped\n" in result.out
    assert os.listdir(server.path(box, "all")) == ["a"]
    assert [json.loads(line)["name"] for line in (folder / "r.jsonl").read_text().splitlines()] == ["a"]


def test_kept_receipts_are_those_of_what_lies_there(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    kept = tmp_path / "receipts.jsonl"
    sources = [make(folder / "tree" / f"{number} é\n"[: 2 + number % 2], 1000 * number) for number in range(5)]
    sources.append(make(folder / "tree" / "sub" / "large", 3 * MIB))
    flags = [f"--receipts={kept}", "--quiet"]
    result = client(*flags, folder / "tree", box)
    assert (result.status, result.out, result.err) == (0, "", "")
    with kept.open("a", encoding="ascii") as file:
        file.write(torn := '{"name": "of a client that was killed')
    assert client(*flags, "--if-exists=rename", make(folder / "large", 70_000), f"{box}/sub/").status == 0
    assert client(*flags, folder / "tree", box).status == 0
    lines = kept.read_text(encoding="ascii").splitlines()
    lines.remove(torn)
    receipts = [json.loads(line) for line in lines]
    assert len(receipts) == 6 + 1 + 6
    for receipt in receipts:
        assert set(receipt) == {"name", "path", "size", "sha256", "time"}
        there = server.path(*receipt["path"].split("/"))
        assert (sha256(there), there.stat().st_size) == (receipt["sha256"], receipt["size"])
        assert sha256(Path(receipt["name"])) == receipt["sha256"] and TIME.fullmatch(receipt["time"])
    assert receipts[6]["path"] == f"{box}/sub/large.1"
    assert {receipt["name"] for receipt in receipts} == {*map(str, sources), str(folder / "large")}
    result = client(f"--receipts={tmp_path}/no folder/receipts", sources[0], f"{box}/never")
    assert result.status == 2 and "can't write the receipts" in result.err
    assert len(result.err.splitlines()) == 1 and not server.path(box, "never").exists()


# --- Quiet, and without a network -------------------------------------------------------------------------------------


def test_quiet_prints_errors_and_what_is_left_out(server: Server, client: Client, folder: Path, box: str) -> None:
    make(folder / "tree" / "a")
    (folder / "tree" / "link").symlink_to("a")
    (folder / "tree" / "empty").mkdir()
    result = client("--quiet", folder / "tree", f"{box}/")
    assert (result.status, result.out) == (0, "")
    assert (
        result.err
        == f"skipped: {folder}/tree/link: a symbolic link (--links keeps it, --follow sends what it leads to)\n"
    )
    result = client("-q", folder / "tree" / "a", folder / "missing", f"{box}/")
    assert (result.status, result.out) == (1, "") and result.err.count("\n") == 1
    result = client("-q", "--get", f"{box}/tree", f"{folder}/back/")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert (folder / "back" / "tree" / "a").exists()


def test_dry_run_leaves_out_what_is_not_sent_and_reads_no_standard_input(
    client: Client, folder: Path, box: str
) -> None:
    make(folder / "photos" / "a.jpg", 20)
    (folder / "photos" / "link").symlink_to("a.jpg")
    result = client("--dry-run", "photos", "missing", f"{box}/", cwd=folder)
    assert result.status == 1
    assert result.err.splitlines() == [
        "error: missing does not exist. Check its name",
        "skipped: photos/link: a symbolic link (--links keeps it, --follow sends what it leads to)",
        "1 file would be sent, 20 B",
    ]
    assert result.out.splitlines() == [
        f"would send: photos/ as {box}/photos/  (new)",
        f"would send: photos/a.jpg as {box}/photos/a.jpg  20 bytes  (new)",
    ]
    piped = client.start("--dry-run", "-", f"{box}/archive.tar", stdin=subprocess.DEVNULL).finish()
    assert (piped.status, piped.err) == (0, "1 file would be sent\n")
    assert piped.out == f"would send: standard input as {box}/archive.tar  (what is there is not known)\n"


def test_password_and_content_come_over_different_ways(server: Server, client: Client, folder: Path, box: str) -> None:
    """Content on standard input, the password from its file: neither is taken for the other."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        packed.add(make(folder / "a", 1000), "a")
    (folder / "a.tar").write_bytes(archive.getvalue())
    with (folder / "a.tar").open("rb") as opened:
        result = client.start("-", f"{box}/a.tar", stdin=opened).finish()
    assert result.status == 0 and f"1 file delivered to {USER}@127.0.0.1" in result.out
    assert server.path(box, "a.tar").read_bytes() == archive.getvalue()
