"""Folders, both ways: what is sent is what arrives, and what is fetched back is what was sent.

Names are taken as they are; what can't be sent is reported in one line, and the rest goes.
"""

import email
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import MakeProxy, MakeServer
from processes import MIB, Client, Fault, Server, login_received, make, wait_until

AREA = ".secure-file-transfer-partial"
IS_ROOT = os.geteuid() == 0

Tree = dict[str, tuple[str, bytes | None, int, int]]


def tree_of(folder: Path) -> Tree:
    """All that lies below: kind, bytes, time and mode of each, by its relative path."""
    found: Tree = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        kind = "folder" if stat.S_ISDIR(state.st_mode) else "file" if stat.S_ISREG(state.st_mode) else "other"
        data = path.read_bytes() if kind == "file" else None
        found[str(path.relative_to(folder))] = kind, data, state.st_mtime_ns, stat.S_IMODE(state.st_mode)
    return found


def without_modes(tree: Tree) -> dict[str, tuple[str, bytes | None, int]]:
    return {name: each[:3] for name, each in tree.items()}


def visible(folder: Path) -> list[str]:
    """What lies below, the hidden area of what is not whole included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def age(folder: Path) -> None:
    """Give everything a time of its own, folders last."""
    for number, path in enumerate(sorted(folder.rglob("*"), key=lambda each: -len(each.parts))):
        os.utime(path, ns=(0, 1_500_000_000_123_456_789 + number * 1_000_000_007))
    os.utime(folder, ns=(0, 1_400_000_000_000_000_001))


# --- Everything that a folder may hold --------------------------------------------------------------------------------


def test_large_tree_with_odd_names_arrives_and_comes_back(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    photos = folder / "photos"
    for number in range(2000):
        path = photos / f"year {number // 400}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * (number % 7))
    name = "Zoë — déjà"
    assert unicodedata.normalize("NFC", name) != unicodedata.normalize("NFD", name)
    for odd in (
        unicodedata.normalize("NFC", name),
        unicodedata.normalize("NFD", name),
        'it\'s "quoted" & $HOME `x` *?[a]',
        " space at both ends ",
        "📦🇩🇪",
        "-rf",
        "--",
        "x" * 255,
        "é" * 127 + "x",
        ".hidden",
        "...",
        "back\\slash",
        "right\u202etxt.exe",
        "%s{0}",
    ):
        make(photos / odd)
        make(photos / "folders" / odd / odd)
    make(photos.joinpath(*["deep"] * 60, "bottom"))
    (photos / "empty").mkdir()
    (photos / "empty too" / "and below").mkdir(parents=True)
    make(photos / "large.bin", 3 * MIB + 1)
    age(photos)
    mark = len(server.told())
    result = client(photos, f"{box}/", seconds=120)
    assert (result.status, result.err) == (0, ""), result.err
    assert server.told()[mark:].count("logged in") == 1
    assert f"{sum(path.is_file() for path in photos.rglob('*')):,} files delivered" in result.out
    assert tree_of(server.path(box, "photos")) == tree_of(photos)
    assert server.path(box, "photos").stat().st_mtime_ns == photos.stat().st_mtime_ns
    back = tmp_path / "back"
    result = client("--get", f"{box}/photos", f"{back}/")
    assert (result.status, result.err) == (0, ""), result.err
    assert tree_of(back / "photos") == tree_of(photos)
    assert (back / "photos").stat().st_mtime_ns == photos.stat().st_mtime_ns
    assert os.listdir(back) == ["photos"]
    assert server.partials() == []


@pytest.mark.long
def test_library_folders_arrive_and_come_back(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    for module in (json, email):
        place = Path(str(module.__file__)).parent
        shutil.copytree(place, folder / place.name)
    result = client(folder / "json", folder / "email", f"{box}/")
    assert (result.status, result.err) == (0, "")
    listed = client("--list", "--json", f"{box}/email")
    *entries, _summary = [json.loads(line) for line in listed.out.splitlines()]
    assert [entry["name"] for entry in entries] == sorted(os.listdir(folder / "email"), key=str.encode)
    back = tmp_path / "back"
    result = client("--get", box, back)
    assert (result.status, result.err) == (0, "")
    for again in (client(folder / "json", folder / "email", f"{box}/"), client("--get", box, back)):
        assert (again.status, again.err) == (0, "")
        assert "delivered: " not in again.out and "\n0 files " in again.out
        assert int(re.findall(r", (\d+) there already", again.out)[-1]) > 20
    for one, two in ((folder, server.path(box)), (folder, back)):
        compared = subprocess.run(["diff", "-r", one, two], capture_output=True, check=False)
        assert (compared.returncode, compared.stdout) == (0, b"")


def test_names_that_can_not_travel_are_told_and_the_others_go(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    source = folder / "tree"
    make(source / "good")
    make(source / "below" / "good too")
    for bad in (b"new\nline", b"latin \xe9", b"escape \x1b[31m"):
        make(source / os.fsdecode(bad))
    make(source / "folder\n" / "inside")
    result = client(source, box)
    assert result.status == 1
    lines = result.err.splitlines()
    assert all(line.startswith("error: ") and line.isprintable() for line in lines)
    assert len(lines) == 5  # the folder, and what is in it
    for words in (r"new\nline: ", r"latin \xe9: ", r"escape \x1b[31m: ", r"folder\n: ", r"folder\n/inside: "):
        assert [words in line for line in lines].count(True) == 1, (words, lines)
    assert visible(server.path(box)) == ["below", "below/good too", "good"]


# --- Links, special files, modes --------------------------------------------------------------------------------------


def test_links_and_special_files_are_skipped_with_a_line(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    source, outside = folder / "tree", make(tmp_path / "outside" / "secret")
    make(source / "file")
    (source / "link to a file").symlink_to("file")
    (source / "link outside").symlink_to(outside)
    (source / "link to a folder").symlink_to(outside.parent)
    (source / "dangling").symlink_to("nowhere")
    (source / "loop").symlink_to(".")
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        try:
            os.chdir(source)  # the path of a socket must be short
            listener.bind("socket")
        finally:
            os.chdir(before)
    result = client("-v", source, f"{box}/plain")
    assert result.status == 0
    links = ("link to a file", "link outside", "link to a folder", "dangling", "loop")
    for name in links:
        told = f"skipped: {source / name}: a symbolic link (--links keeps it, --follow sends what it leads to)\n"
        assert result.err.count(told) == 1
    for name in ("fifo", "socket"):
        assert f"skipped: {source / name}: neither a file nor a folder\n" in result.err
    assert "1 file delivered" in result.out and ", 7 skipped" in result.out
    assert visible(server.path(box, "plain")) == ["file"]
    result = client("--follow", source, f"{box}/followed")
    assert result.status == 1
    assert f"error: {source / 'dangling'} does not exist. Check its name\n" in result.err
    assert result.err.count("\n") == result.err.count("skipped: ") + 1 == 4
    assert f"skipped: {source / 'loop'}: a link to a folder that it lies in\n" in result.err
    there = server.path(box, "followed")
    assert visible(there) == ["file", "link outside", "link to a file", "link to a folder", "link to a folder/secret"]
    assert not any(path.is_symlink() for path in there.rglob("*"))
    assert (there / "link outside").read_bytes() == outside.read_bytes()
    named = folder / "named link"
    named.symlink_to(source / "file")
    assert client(named, f"{box}/").status == 0  # what is named is meant
    assert server.path(box, "named link").read_bytes() == (source / "file").read_bytes()


def test_execute_bits_travel_unless_not_wanted_and_special_bits_never(
    server: Server, client: Client, folder: Path, box: str, tmp_path: Path
) -> None:
    source = folder / "tree"
    modes = {"program": 0o755, "private program": 0o700, "setuid": 0o6755, "open": 0o666, "read-only": 0o444}
    for name, mode in modes.items():
        make(source / name).chmod(mode)
    (source / "private").mkdir(mode=0o700)
    make(source / "private" / "file").chmod(0o600)

    def modes_of(place: Path) -> dict[str, int]:
        return {name: each[3] for name, each in tree_of(place).items()}

    assert client("--no-modes", source, f"{box}/plain").status == client(source, f"{box}/kept").status == 0
    plain = dict.fromkeys(modes, 0o644)
    kept = {"program": 0o755, "private program": 0o700, "setuid": 0o755, "open": 0o644, "read-only": 0o444}
    private = {"private": 0o700, "private/file": 0o600}
    open_to_all = {"private": 0o755, "private/file": 0o644}
    assert modes_of(server.path(box, "plain")) == plain | open_to_all
    assert modes_of(server.path(box, "kept")) == kept | private
    back = tmp_path / "back"
    back.mkdir()
    assert client("--get", "--no-modes", f"{box}/kept", f"{back}/plain").status == 0
    assert client("--get", f"{box}/kept", f"{back}/kept").status == 0
    assert client("--get", "--preserve-mode", f"{box}/kept", f"{back}/same").status == 0
    assert modes_of(back / "plain") == plain | open_to_all
    assert modes_of(back / "kept") == modes_of(back / "same") == kept | private


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
def test_closed_folder_is_told_and_the_others_go(server: Server, client: Client, folder: Path, box: str) -> None:
    source = folder / "tree"
    make(source / "closed" / "file")
    make(source / "open" / "file")
    (source / "closed").chmod(0)
    try:
        result = client(source, box)
    finally:
        (source / "closed").chmod(0o700)
    assert result.status == 1 and f"{source / 'closed'} can't be read: permission denied" in result.err
    assert "open/file" in visible(server.path(box))


# --- Where it goes ----------------------------------------------------------------------------------------------------


def test_target_rule_holds_for_folders_and_folders_merge(
    server: Server, client: Client, folder: Path, box: str
) -> None:
    photos, notes = folder / "photos", make(folder / "notes.txt")
    make(photos / "a")
    make(photos / "trip" / "b")
    assert client(photos, notes, f"{box}/backup/").status == 0
    whole = ["notes.txt", "photos", "photos/a", "photos/trip", "photos/trip/b"]
    assert visible(server.path(box, "backup")) == whole
    assert client(photos, f"{box}/renamed").status == 0
    assert visible(server.path(box, "renamed")) == ["a", "trip", "trip/b"]
    assert client("photos", "notes.txt", f"{box}/relative", cwd=folder).status == 0
    assert visible(server.path(box, "relative")) == whole
    assert client(".", f"{box}/dot/", cwd=photos).status == 0
    assert visible(server.path(box, "dot")) == ["photos", "photos/a", "photos/trip", "photos/trip/b"]
    old = make(server.path(box, "renamed", "trip", "old")).read_bytes()
    make(photos / "trip" / "new")
    make(photos / "trip" / "old")
    result = client(photos, f"{box}/renamed")
    assert result.status == 1 and "exists already on the receiver" in result.err
    assert len(result.err.splitlines()) == 1
    assert visible(server.path(box, "renamed")) == ["a", "trip", "trip/b", "trip/new", "trip/old"]
    assert server.path(box, "renamed", "trip", "old").read_bytes() == old
    make(photos / "sub" / "c")
    make(server.path(box, "clash", "sub"))
    make(server.path(box, "clash", "a", "is a folder here"))
    result = client("--if-exists=replace", photos, f"{box}/clash")
    assert result.status == 1
    assert f"To put the file into it, write {box}/clash/a/" in result.err
    assert result.err.count(" is a file on the receiver, not a folder") == 2
    assert visible(server.path(box, "clash")) == ["a", "a/is a folder here", "sub", "trip", "trip/b", "trip/new"] + [
        "trip/old"
    ]


def test_what_is_fetched_lands_where_the_target_says(server: Server, client: Client, box: str, tmp_path: Path) -> None:
    file, other = make(server.path(box, "in", "db.dump"), 100_000), make(server.path(box, "other"))
    here = tmp_path / "here"
    (here / "below").mkdir(parents=True)
    name = f"{box}/in/db.dump"
    running = [
        client.start("--get", name, ".", cwd=here),
        client.start("--get", name, "new name", cwd=here),
        client.start("--get", name, f"{box}/other", "several", cwd=here),
        client.start("--get", name, "deeper/", cwd=here),
    ]
    assert [each.finish().status for each in running] == [0] * 4
    result = client("--get", name, "..", cwd=here / "below")
    assert result.status == 0 and "there already: ../db.dump  " in result.out
    result = client("--get", name, "below", cwd=here)
    assert (
        result.status == 1
        and result.err == "error: db.dump: below is a folder here. To put the file into it, write below/\n"
    )
    assert visible(here) == [
        "below",
        "db.dump",
        "deeper",
        "deeper/db.dump",
        "new name",
        "several",
        "several/db.dump",
        "several/other",
    ]
    assert (here / "new name").read_bytes() == (here / "db.dump").read_bytes() == file.read_bytes()
    assert (here / "db.dump").stat().st_mtime_ns == file.stat().st_mtime_ns
    assert (here / "several" / "other").read_bytes() == other.read_bytes()


def test_name_that_is_taken_here_follows_the_policy(server: Server, client: Client, box: str, tmp_path: Path) -> None:
    file, here = make(server.path(box, "db.dump"), 1000), tmp_path / "here"
    old = make(here / "db.dump", 999).read_bytes()
    result = client("--get", f"{box}/db.dump", f"{here}/")
    assert result.status == 1 and "exists already here. Choose another TARGET" in result.err
    assert client("--get", "--if-exists=skip", f"{box}/db.dump", f"{here}/").status == 0
    assert (here / "db.dump").read_bytes() == old
    assert client("--get", "--if-exists=rename", f"{box}/db.dump", f"{here}/").status == 0
    assert (here / "db.1.dump").read_bytes() == file.read_bytes() and (here / "db.dump").read_bytes() == old
    assert client("--get", "--if-exists=replace", f"{box}/db.dump", f"{here}/").status == 0
    assert (here / "db.dump").read_bytes() == file.read_bytes()
    assert visible(here) == ["db.1.dump", "db.dump"]


# --- Fetching that fails ----------------------------------------------------------------------------------------------


def test_failed_fetch_leaves_nothing_behind(
    server: Server, client: Client, proxy: MakeProxy, box: str, tmp_path: Path
) -> None:
    make(server.path(box, "file"), 40_000)
    here = tmp_path / "here"
    here.mkdir()
    result = client("--get", f"{box}/missing", "new/", cwd=here)
    assert result.status == 1 and f"error: {box}/missing does not exist on the receiver. Check the name\n" in result.err
    assert visible(here) == []
    line = proxy(server.port, down=Fault("cut", login_received() + 20_000))
    running = [
        client.start("--get", f"{box}/missing", "new name", cwd=here),
        client.start("--get", f"{box}/file/below", "one/", cwd=here),
        client.at(1).start("--get", f"{box}/file", "two/", cwd=here),
        client.at(line.port).start("--retries=0", "--get", f"{box}/file", "three/", cwd=here),
    ]
    assert [each.finish().status for each in running] == [1, 1, 4, 4]
    assert line.reached.is_set() and visible(here) == []
    result = client("--get", f"{box}/missing", f"{box}/file", "new/", cwd=here)
    assert result.status == 1 and visible(here) == ["new", "new/file"]


def test_links_here_are_never_followed(server: Server, client: Client, box: str, tmp_path: Path) -> None:
    make(server.path(box, "tree", "sub", "file"))
    make(server.path(box, "tree", "plain"))
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "tree").mkdir(parents=True)
    outside.mkdir()
    (here / "tree" / "sub").symlink_to(outside)
    (here / "tree" / "plain").symlink_to(outside / "made")
    os.mkfifo(here / "fifo")
    result = client("--get", "--if-exists=replace", f"{box}/tree", f"{here}/")
    assert result.status == 1 and os.listdir(outside) == []
    assert (here / "tree" / "plain").read_bytes() == server.path(box, "tree", "plain").read_bytes()
    assert not (here / "tree" / "plain").is_symlink()
    result = client("--get", "--if-exists=replace", f"{box}/tree/plain", here / "fifo")
    assert result.status == 1 and stat.S_ISFIFO((here / "fifo").stat().st_mode)
    assert result.err == (
        f"error: plain: {here}/fifo is neither a file nor a folder here, and is not replaced. Choose another TARGET\n"
    )


def test_links_there_are_never_followed(server: Server, client: Client, box: str, tmp_path: Path) -> None:
    outside, here = make(tmp_path / "outside" / "secret"), tmp_path / "here"
    area = server.path(box)
    make(area / "file")
    (area / "link").symlink_to(outside)
    (area / "folder").symlink_to(outside.parent)
    os.mkfifo(area / "fifo")
    result = client("--get", box, f"{here}/")
    assert result.status == 0 and visible(here / box) == ["file"]
    assert result.err.splitlines() == [
        f"skipped: {box}/fifo: neither a file nor a folder on the receiver",
        f"skipped: {box}/folder: a symbolic link on the receiver (--links keeps it)",
        f"skipped: {box}/link: a symbolic link on the receiver (--links keeps it)",
    ]
    assert ", 3 skipped" in result.out
    names = ("link", "folder", "folder/secret")
    running = [client.start("--get", *(f"{box}/{name}" for name in names), f"{here}/")]
    running += [client.start("--list", f"{box}/{name}") for name in names[1:]]
    for result in [each.finish() for each in running]:
        assert result.status == 1 and "secret" not in result.out
    assert visible(here) == [box, f"{box}/file"]


def test_killed_fetch_goes_on_and_its_area_is_removed(
    server: Server, proxy: MakeProxy, client: Client, box: str, tmp_path: Path
) -> None:
    source, here = make(server.path(box, "large"), 32_000_000), tmp_path / "here"
    line = proxy(server.port, down=Fault("hold", 20_000_000))
    running = client.at(line.port).start("--get", f"{box}/large", f"{here}/")
    line.wait_reached()
    wait_until(lambda: [path for path in here.rglob("*") if path.is_file() and path.stat().st_size > 17_000_000])
    running.kill()
    running.finish()
    line.release()
    assert os.listdir(here) == [AREA] and stat.S_IMODE((here / AREA).stat().st_mode) == 0o700
    result = client.at(line.port)("--get", f"{box}/large", f"{here}/")
    assert (result.status, result.err) == (0, "") and "resumed: large from " in result.out
    assert (here / "large").read_bytes() == source.read_bytes()
    assert line.passed[1] < 1.1 * 32_000_000
    assert visible(here) == ["large"]


def test_fetch_reconnects_by_itself_and_takes_nothing_twice(
    server: Server, proxy: MakeProxy, client: Client, box: str, tmp_path: Path
) -> None:
    for number in range(6):
        make(server.path(box, "tree", f"{number}"), 2 * MIB + number)
        make(server.path(box, "tree", f"{number} small"), number)
    here = tmp_path / "here"
    line = proxy(server.port, down=Fault("cut", 7 * MIB))
    result = client.at(line.port)("--get", "--if-exists=rename", f"{box}/tree", here)
    assert result.status == 0 and len(result.err.splitlines()) == 1, result
    assert "12 files fetched" in result.out and line.passed[1] < 1.3 * 12 * MIB
    assert without_modes(tree_of(here)) == without_modes(tree_of(server.path(box, "tree")))


# --- Listing ----------------------------------------------------------------------------------------------------------


def test_listing_tells_all_in_order(server: Server, client: Client, box: str) -> None:
    area = server.path(box, "many")
    area.mkdir(parents=True)
    names = [f"file {number} é📦"[: 12 + number % 4] for number in range(2998)] + ["Zulu", "a\u202eb"]
    for name in names:
        (area / name).touch()
    (area / "folder").mkdir()
    (area / "folder" / "below").touch()
    (area / "size").write_bytes(bytes(1_234_567))
    os.utime(area / "size", ns=(0, 1_234_567_890_123_456_789))
    (area / os.fsdecode(b"latin \xe9")).touch()
    (area / "link").symlink_to("size")
    expected = sorted({*names, "folder", "link", "size"}, key=str.encode)
    result = client("--list", "--json", f"{box}/many")
    assert (result.status, result.err) == (1, "")
    *events, summary = [json.loads(line) for line in result.out.splitlines()]
    assert (summary["event"], summary["failed"]) == ("summary", 1)
    entries = [event for event in events if event["event"] != "failed"]
    assert [event["name"] for event in events if event not in entries] == [f"{box}/many/latin \\xe9"]
    assert [entry["name"] for entry in entries] == expected and len(entries) > 3000 - 100
    assert {entry["event"] for entry in entries} == {"entry"}
    assert {entry["kind"] for entry in entries} == {"file", "folder", "link"}
    assert [entry["target"] for entry in entries if "target" in entry] == ["size"]
    assert [entry["size"] for entry in entries if entry["name"] == "size"] == [1_234_567]
    assert [entry["time"] for entry in entries if entry["name"] == "size"] == ["2009-02-13T23:31:30.123456Z"]
    result = client("--list", f"{box}/many/")
    assert result.status == 1 and result.err.startswith(f"error: {box}/many/latin \\xe9 on the receiver has a name ")
    lines = result.out.splitlines()
    assert len(lines) == len(expected) and all(line.isprintable() for line in lines)
    assert "      1,234,567  2009-02-13T23:31:30Z  size" in lines
    assert [line for line in lines if line.endswith("  folder/")] and r"a\u202eb" in result.out
    result = client("--list", f"{box}/many/size")
    assert (result.status, result.out) == (0, "      1,234,567  2009-02-13T23:31:30Z  size\n")


def test_recursive_listing_tells_all_that_is_below_in_order(server: Server, client: Client, box: str) -> None:
    area = server.path(box)
    for name in ("a/b/c", "a.txt", "a/z", "z", "é/\U0001f4e6"):
        make(area / name)
    (area / "empty").mkdir()
    (area / "out").symlink_to("/etc/\x1b[2J")
    os.mkfifo(area / "fifo")
    (area / "a" / os.fsdecode(b"latin \xe9")).touch()
    os.utime(area / "z", ns=(0, 1_234_567_890_123_456_789))
    expected = ["a/", "a/b/", "a/b/c", "a/z", "a.txt", "empty/", r"out -> /etc/\x1b[2J", "z", "é/", "é/\U0001f4e6"]
    result = client("--list", "-R", box)
    assert [line.split("Z  ")[1] for line in result.out.splitlines()] == expected
    assert result.status == 1
    named, told = result.err.splitlines()
    assert named.startswith(f"error: {box}/a/latin \\xe9 on the receiver has a name ")
    assert told == f"{box}/fifo: neither a file nor a folder on the receiver"
    assert f"{(area / 'z').stat().st_size:>15,}  2009-02-13T23:31:30Z  z" in result.out.splitlines()
    events = [json.loads(line) for line in client("--list", "-R", "--json", f"{box}/").out.splitlines()]
    entries = [event for event in events if event["event"] == "entry"]
    assert [(each["name"], each["kind"]) for each in entries[:3]] == [
        ("a", "folder"),
        ("a/b", "folder"),
        ("a/b/c", "file"),
    ]
    (link,) = [each for each in entries if each["kind"] == "link"]
    assert link == {
        "event": "entry",
        "name": "out",
        "kind": "link",
        "size": 0,
        "time": link["time"],
        "target": r"/etc/\x1b[2J",
    }
    assert all("target" not in each for each in entries if each is not link)


def test_recursive_listing_of_a_file_of_nothing_and_of_what_is_missing(make_server: MakeServer, client: Client) -> None:
    server = make_server()
    client = client.at(server.port)
    result = client("--list", "-R")
    assert (result.status, result.out, result.err) == (0, "", "")
    make(server.path("a"))
    make(server.path("b/c"))
    assert [line.split()[-1] for line in client("--list", "--recursive").out.splitlines()] == ["a", "b/", "b/c"]
    assert client("--list", "-R", "a").out == client("--list", "a").out != ""
    result = client("--list", "-R", "missing")
    assert (result.status, result.out) == (1, "")
    assert result.err == "error: missing does not exist on the receiver. Check the name\n"
    assert server.stop() == 0


@pytest.mark.parametrize("job", [["-R", "--move", "a", "b"], ["-R", "--usage"]])
def test_recursive_is_for_what_has_something_in_it(client: Client, job: list[str]) -> None:
    result = client(*job)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: --recursive does not go with ") and result.err.count("\n") == 1


def test_listing_of_everything_of_nothing_and_of_what_is_missing(make_server: MakeServer, client: Client) -> None:
    server = make_server()
    client = client.at(server.port)
    result = client("--list")
    assert (result.status, result.out, result.err) == (0, "", "")
    make(server.path("a"))
    server.path("b").mkdir()
    assert [line.split()[-1] for line in client("--list").out.splitlines()] == ["a", "b/"]
    assert client("--list", "b").out == ""
    result = client("--list", "missing")
    assert (result.status, result.out) == (1, "")
    assert result.err == "error: missing does not exist on the receiver. Check the name\n"
    result = client("--list", "../alice")
    assert (result.status, result.out) == (2, "") and "../alice can't be a name on a receiver" in result.err
    assert server.stop() == 0


# --- An account that may only drop ------------------------------------------------------------------------------------


def test_drop_only_account_sends_and_learns_nothing(make_server: MakeServer, tmp_path: Path, folder: Path) -> None:
    server = make_server()
    server.add("drop", "--drop-only")
    assert [line.split() for line in server.command("users").out.splitlines()][1] == ["drop", "put"]
    client = Client(server.port, tmp_path / "drop", "drop")
    small, large = make(folder / "small", 1000), make(folder / "large.bin", 3 * MIB)
    result = client(small, large, "inbox/")
    assert (result.status, result.err) == (0, "")
    result = client(small, large, "inbox/")
    assert (result.status, result.err) == (0, "") and "there already" not in result.out
    inbox = server.path("inbox", user="drop")
    assert visible(inbox) == ["large.1.bin", "large.bin", "small", "small.1"]
    assert (inbox / "large.1.bin").read_bytes() == (inbox / "large.bin").read_bytes() == large.read_bytes()
    make(small, 500)
    policies = [client.start(f"--if-exists={policy}", small, "inbox/") for policy in ("skip", "fail")]
    assert [each.finish().status for each in policies] == [0, 0]
    assert {f"small.{number}" for number in (2, 3)} <= set(visible(inbox))
    before = visible(inbox)
    running = [
        client.start("--if-exists=replace", small, "inbox/"),
        client.start("--get", "inbox/small", f"{tmp_path}/got"),
        client.start("--get", "missing", f"{tmp_path}/got"),
        client.start("--list", "inbox"),
        client.start("--list", "missing"),
    ]
    for result in [each.finish() for each in running]:
        assert result.status == 1 and len(result.err.splitlines()) == 1, result
        assert " lacks the right " in result.err
        assert ". The receiver's owner can add it: python server.py limits USER --rights +" in result.err
    assert visible(inbox) == before and not (tmp_path / "got").exists()
    assert server.partials() == []
    assert server.stop() == 0


def test_dangling_source_is_told_and_the_others_go(server: Server, client: Client, folder: Path, box: str) -> None:
    (folder / "dangling").symlink_to(folder / "nowhere")
    result = client(folder / "dangling", make(folder / "good" / "a").parent, f"{box}/")
    assert result.status == 1
    assert result.err == f"error: {folder / 'dangling'} does not exist. Check its name\n"
    assert visible(server.path(box)) == ["good", "good/a"]


if sys.platform == "darwin":  # names there are UTF-8, always
    del test_names_that_can_not_travel_are_told_and_the_others_go
