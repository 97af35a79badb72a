"""Runs the commands that README, GUIDE and OPERATIONS show, in order, and compares what they print with what is shown.

Two folders stand for two machines: `$` is typed on the sender, `nas$` and all of OPERATIONS on the receiver, each in a
copy of the program. README's commands start Python as users do; in the others `python` has the test start the program,
as a fork (`forks.py`) that takes the copy's folder for its own. The programs believe that the host is nas.example and
that they use port 7380; in truth it is a free port of this host.
Only what differs from run to run may differ: times, speeds, new passwords, temporary folders, free ports, and what
stands for the middle of a digest (`…`). A command without output in the document may print anything and must end with
0. Commands that need a network, root or systemd are listed in `NOT_RUN`, with the test that holds them where there is
one.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import forks
import pytest
from processes import HOME, LIMIT, Fault, Proxy, Terminal, clean_environment

DOCUMENTS = ["README.md", "docs/GUIDE.md", "docs/OPERATIONS.md"]
NOT_RUN = {
    "git clone ": "needs a network",
    "cd secure-file-transfer": "the two machines are there already",
    "python3 -m venv ": "the tests have their own environment",
    ". .venv/bin/activate": "the same",
    "python -m pip install ": "needs a network; test_supply holds the locks",
    ".venv/bin/python -m pip install ": "the same",
    "sudo ": "needs root; test_service and hostile/test_fail2ban follow these steps",
    "cd /opt/": "the same",
}
INSTEAD = {"make demo": f"{sys.executable} {HOME}/tools/demo.py"}

SOURCES = {
    "secret.txt": 48_231,
    "notes.txt": 1_204,
    "report.pdf": 212_554,
    "photos/2026/sea.jpg": 3_184_201,
    "photos/2026/wood.jpg": 2_977_030,
    "disk.img": 31_457_280,
}
MTIME = 1_777_626_764  # 2026-05-01T09:12:44Z
PASSWORD = "correct horse battery"
ALL_RIGHTS = "put,get,list,replace,remove,links"  # as the account of the first start has them
PROGRAM = ("server.py", "client.py", "config.py", "crypto_utils.py", "sft", "requirements.lock", "requirements.txt")

# For every Python of the stage: this host is nas.example, and its port 7380 is the one in the file `port` of the stage.
STAND_IN = """
import os, socket
STAGE = {stage!r}
PORT, PLACE = 7380, os.path.join(STAGE, "port")
real = socket.socket

def actual():
    with open(PLACE) as file:
        return int(file.read())

class Socket(real):
    def bind(self, address):
        if address[1] != PORT:
            return super().bind(address)
        if os.path.exists(PLACE + ".bound"):
            return super().bind((address[0], actual(), *address[2:]))
        super().bind((address[0], 0, *address[2:]))
        for name in ("port", "port.bound"):
            with open(os.path.join(STAGE, name), "w") as file:
                file.write(str(super().getsockname()[1]))

    def connect_ex(self, address):
        return super().connect_ex((address[0], actual(), *address[2:]) if address[1] == PORT else address)

    def getsockname(self):
        address = super().getsockname()
        if isinstance(address, tuple) and os.path.exists(PLACE) and address[1] == actual():
            return (address[0], PORT, *address[2:])
        return address

look_up = socket.getaddrinfo
socket.socket = Socket
socket.getaddrinfo = lambda host, *rest, **more: look_up("127.0.0.1" if host == "nas.example" else host, *rest, **more)
system = os.uname()
os.uname = lambda: os.uname_result((system.sysname, "nas.example", *system[2:]))
"""
LOADED_FIRST = """
import runpy
runpy.run_path({stretched!r})
"""
OF_THE_COPY = """
import config
config._SCRIPT_FOLDER = {program!r}
"""
# In the place of `python`: hands all that it has to the `Starter`, and ends as the program does.
ASKING = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] not in (["client.py"], ["server.py"]):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as starter:
    starter.connect({starter!r})
    socket.send_fds(starter, [b"0"], [0, 1, 2])
    starter.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    starter.shutdown(socket.SHUT_WR)
    os._exit(int(starter.recv(9)))
"""
OF_THE_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")


# --- reading a document -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command as it is shown, and the output shown below it."""

    line: int
    on_receiver: bool
    text: str
    shown: tuple[str, ...]

    @property
    def prompts(self) -> list[str]:
        """The questions among the output that are answered with a password."""
        return [line for line in self.shown if re.match(r"(New p|P)assword .*:$|The same again:$", line)]


@dataclass(frozen=True)
class NewFile:
    """A file whose content the document shows, in the sender's home folder."""

    name: str
    text: str


@dataclass(frozen=True)
class CutLine:
    """The connection of the next command is cut after so many bytes."""

    after: int


Step = Command | NewFile | CutLine


def steps_of(text: str) -> Iterator[Step]:
    """What a document does, in its order."""
    lines = text.splitlines()
    number, file_name = 0, ""
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := re.fullmatch(r"<!-- file: (~/\S+) -->", line):
            file_name = found[1]
        elif found := re.fullmatch(r"<!-- the connection is cut after (\d+) bytes -->", line):
            yield CutLine(int(found[1]))
        elif found := re.fullmatch(r"\| .* \| `(python client\.py [^`]*)` \|", line):  # a row of a table of commands
            yield Command(number, False, found[1], ())
        elif line.startswith("```") and (line != "```" or file_name):
            end = lines.index("```", number)
            inside = lines[number:end]
            if file_name:
                yield NewFile(file_name.removeprefix("~/"), "\n".join(inside) + "\n")
                file_name = ""
            elif line == "```console":
                yield from commands_of(inside, number + 1)
            number = end + 1


def commands_of(lines: list[str], number: int) -> Iterator[Command]:
    starts = [at for at, line in enumerate(lines) if re.match(r"(nas)?\$ ", line)]
    assert starts[:1] == [0], f"line {number}: a console block begins with a command"
    for at, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        prompt, _, text = lines[at].partition("$ ")
        yield Command(number + at, prompt == "nas", text, tuple(without_end(lines[at + 1 : end])))


def without_end(lines: list[str]) -> list[str]:
    """Without blanks at the ends of lines, and without empty lines at the end."""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n") if any(lines) else []


def is_run(command: Command) -> bool:
    return not command.text.startswith(tuple(NOT_RUN))


# --- comparing --------------------------------------------------------------------------------------------------------

VARIES = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"in [\d.]+ s, [\d.]+ [kMG]?B/s", "in SECONDS"),
    (r'"seconds": [\d.]+', '"seconds": SECONDS'),
    (r'"wire": \d+', '"wire": BYTES'),  # signs of life, and how many messages share a record
    (r"\b[A-Z0-9]{4}(-[A-Z0-9]{4}){3}\b", "PASSWORD"),
    (r"/tmp/secure-file-transfer-\w+|/[\w./-]*/secure-file-transfer-\w{8}\b", "TEMPORARY"),
    (r"--port \d{5}|(?<=127\.0\.0\.1:)\d+", "PORT"),
    (r"from [\d.]+ MB on", "from OFFSET on"),
    (r" \((Broken pipe|Connection reset by peer)\)", ""),
    (r"^(used|free) +[\d,]+ bytes( in \d+ files)?", r"\1 SIZE"),
    (r" {2,}", "  "),  # columns are as wide as what stands in them
]


def settled(text: str) -> str:
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text.rstrip()


def matches(shown: tuple[str, ...], printed: list[str]) -> bool:
    """Whether the lines are the same but for what varies; `…` stands for anything without a blank."""
    patterns = [re.escape(settled(line)).replace("…", r"\S*") for line in shown]
    return len(patterns) == len(printed) and all(map(re.fullmatch, patterns, map(settled, printed)))


# --- running ----------------------------------------------------------------------------------------------------------


class Starter:
    """Starts programs for the shells of a machine, as forks."""

    def __init__(self, before: str) -> None:
        self._before = before
        self._folder = tempfile.TemporaryDirectory(prefix="starter-")  # the path of a socket has 107 bytes
        self.path = os.path.join(self._folder.name, "s")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                asking = self._listener.accept()[0]
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._run, args=(asking,)))
            self._threads[-1].start()

    def _run(self, asking: socket.socket) -> None:
        with asking:
            _, streams, _, _ = socket.recv_fds(asking, 1, 3)
            (program, *arguments), cwd, environment = json.loads(b"".join(iter(lambda: asking.recv(1 << 16), b"")))
            ours = clean_environment()
            kept = {name: value for name, value in environment.items() if name not in OF_THE_SHELL}
            environment = kept | {name: ours[name] for name in OF_THE_SHELL if name in ours}
            stdin, stdout, stderr = streams
            process = forks.Popen(
                program,
                arguments,
                environment,
                before=self._before,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
            )
            for each in streams:
                os.close(each)
            status = process.wait(LIMIT)
            asking.sendall(str(status if status >= 0 else 128 - status).encode())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join(LIMIT)
        self._listener.close()
        self._folder.cleanup()


class Machine:
    """A folder in the place of a machine: a home with a copy of the program, and a shell there.

    `is_fresh`: `python` is Python, and not what asks for a fork.
    """

    def __init__(self, root: Path, stage: Path, is_fresh: bool) -> None:
        self.root, self.home = root, root / "home" / "alice"
        self.program = self.home / "secure-file-transfer"
        self.program.mkdir(parents=True)
        for name in PROGRAM:
            copy = shutil.copytree if (HOME / name).is_dir() else shutil.copy2
            copy(HOME / name, self.program / name)
        self.environment = clean_environment(HOME=str(self.home), LOGNAME="alice")
        self._starter: Starter | None = None
        self._before = ""
        commands = Path(sys.executable).parent
        if is_fresh:
            self.environment["PYTHONPATH"] = str(stage)
        else:
            self._before = STAND_IN.format(stage=str(stage)) + OF_THE_COPY.format(program=str(self.program))
            self._starter = Starter(self._before)
            commands = root / "bin"
            commands.mkdir()
            (commands / "python").write_text(ASKING.format(python=sys.executable, starter=self._starter.path))
            (commands / "python").chmod(0o755)
        self.environment["PATH"] = f"{commands}:{self.environment['PATH']}"
        del self.environment["SFT_CONFIG"]
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.program,
            env=self.environment,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run it in the shell, whose folder and variables stay; its exit status, and what it has printed."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        mark = "--- the end of that command"
        script = f'{{ {command}\n}} </dev/null; s=$?; printf "\\n{mark} %s\\n" $s; (exit $s)\n'
        self._shell.stdin.write(script)
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(mark):
                return int(line.split()[-1]), without_end(printed)
            printed.append(self.as_shown(line.rstrip("\n")))
        raise AssertionError("the shell has ended")

    def as_shown(self, text: str) -> str:
        """`text` with the paths of the machine that the folder stands for."""
        return text.replace(str(self.root), "")

    def terminal(self, command: str) -> Terminal:
        """One of the programs on a terminal."""
        _, program, *words = command.split()
        named = program if self._before else str(self.program / program)
        return Terminal(named, *words, cwd=self.program, environment=self.environment, before=self._before)

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()
        if self._starter is not None:
            self._starter.close()


class Stage:
    """Both machines, and the server that runs on one of them."""

    def __init__(self, folder: Path, is_fresh: bool) -> None:
        self.folder, self.all_on_receiver = folder, False
        (folder / "sitecustomize.py").write_text(
            LOADED_FIRST.format(stretched=str(HOME / "tests/stretched/sitecustomize.py"))
            + STAND_IN.format(stage=str(folder))
        )
        self.sender = Machine(folder / "sender", folder, is_fresh)
        self.receiver = Machine(folder / "receiver", folder, is_fresh)
        for name, size in SOURCES.items():
            path = self.sender.program / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(hashlib.shake_128(name.encode()).digest(size))
            os.utime(path, (MTIME, MTIME))
        (self.sender.program / "photos/latest").symlink_to("2026/sea.jpg")
        self.server: Terminal | None = None
        self.proxy: Proxy | None = None
        self.know(PASSWORD)

    def know(self, password: str) -> None:
        """From now on alice's password, also in the file that the documents name."""
        self.password = password
        with open(
            os.open(self.sender.home / ".sft-password", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w"
        ) as file:
            file.write(password + "\n")

    def prepare(self) -> None:
        """What README has done at its end: an account, a server that runs, and the sender's settings."""
        (self.receiver.home / "password").write_text(PASSWORD)
        (self.receiver.home / "password").chmod(0o600)
        status, printed = self.receiver.run(
            f"python server.py adduser alice --password-file ~/password --rights {ALL_RIGHTS}"
        )
        assert status == 0, printed
        self.serve("python server.py", ())
        self.write(NewFile(".config/secure-file-transfer.toml", SETTINGS))

    def write(self, file: NewFile) -> None:
        path = self.sender.home / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)

    def serve(self, command: str, shown: tuple[str, ...]) -> list[str]:
        """Start the server and leave it running; what it has printed."""
        self.server = self.receiver.terminal(command)
        self.server.expect("server.log\n")
        if any("password" in line for line in shown):
            self.server.expect("@nas.example:\n\n")
            found = re.search(r"password   (\S+)", self.server.screen)
            assert found
            self.know(found[1])
        return without_end(self.receiver.as_shown(self.server.screen).splitlines())

    def answer(self, machine: Machine, command: Command) -> tuple[int, list[str]]:
        """Run a program that asks for passwords."""
        with machine.terminal(command.text) as terminal:
            for prompt in command.prompts:
                terminal.expect(prompt)
                terminal.type(self.password if prompt.startswith("Password") else f"{PASSWORD} {command.line}")
            status = terminal.finish()
        lines = machine.as_shown(terminal.screen).split("\n")
        return status, without_end([line.rpartition("\r")[2] for line in lines])

    def cut(self, after: int) -> None:
        """Put a line before the server that is cut once, after so many bytes from the client."""
        port = self.folder / "port"
        self.proxy = Proxy(int(port.read_text()), up=Fault("cut", after))
        port.write_text(str(self.proxy.port))

    def run(self, step: Command) -> None:
        """Run one command and compare."""
        machine = self.receiver if step.on_receiver or self.all_on_receiver else self.sender
        text = INSTEAD.get(step.text, step.text)
        if re.fullmatch(r"python server\.py( --\S+ \S+)*", text):
            status, printed = 0, self.serve(text, step.shown)
        elif step.prompts:
            status, printed = self.answer(machine, step)
        else:
            status, printed = machine.run(text)
        if step.shown:
            told = "\n".join(printed)
            assert matches(step.shown, printed), f"line {step.line}: {step.text}\nhas printed:\n{told}"
        else:
            assert status == 0, f"line {step.line}: {step.text}: exit status {status}\n" + "\n".join(printed)

    def close(self) -> None:
        if self.server is not None:
            self.server.__exit__(None, None, None)
        if self.proxy is not None:
            self.proxy.close()
        self.sender.close()
        self.receiver.close()


SETTINGS = next(step.text for step in steps_of((HOME / "README.md").read_text("utf-8")) if isinstance(step, NewFile))


@pytest.fixture
def stage(tmp_path: Path, document: str) -> Iterator[Stage]:
    made = Stage(tmp_path, is_fresh=document == "README.md" or not forks.FORKING)
    yield made
    made.close()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_a_document_print_what_it_shows(document: str, stage: Stage) -> None:
    if document != "README.md":
        stage.prepare()
    stage.all_on_receiver = "OPERATIONS" in document
    for step in steps_of((HOME / document).read_text("utf-8")):
        if isinstance(step, NewFile):
            stage.write(step)
        elif isinstance(step, CutLine):
            stage.cut(step.after)
        elif is_run(step):
            stage.run(step)


def test_each_exception_stands_in_a_document() -> None:
    texts = [
        step.text
        for document in DOCUMENTS
        for step in steps_of((HOME / document).read_text("utf-8"))
        if isinstance(step, Command)
    ]
    assert [start for start in (*NOT_RUN, *INSTEAD) if not any(text.startswith(start) for text in texts)] == []


def test_what_varies_is_no_difference_and_all_else_is_one() -> None:
    shown = ("delivered: a  3 bytes  SHA-256 5e1f…c09a", "1 file: 3 B in 0.41 s, 7 B/s")
    assert matches(shown, ["delivered: a  3 bytes  SHA-256 5e1f0123c09a", "1 file: 3 B in 1.00 s, 3.1 kB/s"])
    assert not matches(shown, ["delivered: a  3 bytes  SHA-256 5e1f0123c09b", "1 file: 3 B in 1.00 s, 3.1 kB/s"])
    assert not matches(shown, ["delivered: a  4 bytes  SHA-256 5e1f0123c09a", "1 file: 3 B in 1.00 s, 3.1 kB/s"])
    assert not matches(shown, ["delivered: a  3 bytes  SHA-256 5e1f0123c09a"])
    assert not matches(shown, [*shown, "warning: one more line"])
