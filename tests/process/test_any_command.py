"""Whatever a command line, variable or settings file says: one line, an exit status of the table, no traceback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import HOME, PASSWORD, USER, Server, clean_environment, make

from client import _parser as client_parser
from config import ClientSettings, ServerSettings, settings_of
from server import _parser as server_parser

STATUSES = {"client.py": {0, 1, 2, 3, 4, 5, 130}, "server.py": {0, 1, 2, 130}}

# No path leads out of the folder of the case: what is written would be.
VALUES = [
    *("", " ", "-", "--", "-1", "0", "1", "7", "07", "1.5G", "1e9", "0x10", "٣", "1_0", "9" * 30, "9" * 5000, "8E"),
    *(
        "-q",
        "=",
        "a",
        "a b",
        "missing",
        "missing/a",
        "d",
        "d/",
        "d/f",
        "a/x",
        "link",
        "loop",
        "gone",
        ".",
        "./",
        "d/..",
    ),
    *(
        "x" * 256,
        "x" * 5000,
        "d/" * 3000,
        "\n",
        "\x1b[2J",
        "\t",
        "ä",
        "\u202e",
        "\ud83d",
        b"\xff\xfe",
        b"a\xe9",
        "%s",
        "{}",
    ),
    *("~", "~/x", "~no-such-user", "~no-such-user/x", "/dev/null", "/dev/full", "/dev/null/x", "/proc/self/none/x"),
    *(
        "off",
        "on",
        "true",
        "no",
        "none",
        "debug",
        "loud",
        "fail",
        "skip",
        "rename",
        "replace",
        "0640",
        "0777",
        USER,
        "*",
    ),
    *("localhost", "127.0.0.1", "::1", "[::1]", "a..b", ".a", "a" * 64, "::1%lo", "%", ",", "0.0.0.0,::", "999.1.1.1"),
    *("alice@x", "../up", "..", "users", "adduser", "[", "settings.toml", "password", "accounts.txt"),
]
VARIABLES = [
    *(
        "HOME",
        "XDG_STATE_HOME",
        "SFT_PASSWORD",
        "SFT_CONFIG",
        "LOGNAME",
        "USER",
        "COLUMNS",
        "LINES",
        "LANGUAGE",
        "TERM",
    ),
    *("TMPDIR", "LC_ALL", "TZ", "PATH", "SFT_NO_SUCH", "SFT_"),
    *("SFT_" + name.upper() for shape in (ClientSettings, ServerSettings) for name in settings_of(shape)),
]
STREAMS = ["", "", "", "closed", "/dev/null", "/dev/full"]


def plain(value: Any) -> str:
    """The bytes of an argument, which is text or bytes, in a form that JSON holds."""
    return (value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")).decode("latin-1")


# Of what is made up, nothing may be an absolute path or lead upward.
made_up = st.text(st.characters(exclude_characters="\0/~.", exclude_categories=()), max_size=20)
values = (
    st.sampled_from(VALUES) | made_up | st.binary(max_size=8).filter(lambda each: not set(each) & set(b"\0/~."))
).map(plain)


def options_of(parser: Any) -> list[str]:
    """Its options, and those of its commands."""
    found = [option for action in parser._actions for option in action.option_strings]
    for action in parser._actions:
        parsers = action.choices if isinstance(action.choices, dict) else {}  # else the words that an option may have
        for each in parsers.values():
            found += options_of(each)
    return found


def arguments_of(parser: Any, words: list[str]) -> st.SearchStrategy[list[str]]:
    """Command lines that are nearly right, and such as are not."""
    option = st.sampled_from(options_of(parser))
    joined = st.tuples(option.filter(lambda each: each.startswith("--")), values).map("=".join)
    return st.lists(option | joined | joined | values | st.sampled_from(words), max_size=7)


ARGUMENTS = {
    "client.py": arguments_of(client_parser(), ["a", "d", "-", "--", "in/", "nas:a", "u@nas:", "./a:b"]),
    "server.py": arguments_of(
        server_parser(), ["adduser", "passwd", "limits", "deluser", "users", "recount", USER, "bob"]
    ),
}
names = st.sampled_from([*settings_of(ClientSettings), *settings_of(ServerSettings), "x"])
numbers = st.integers() | st.booleans() | st.floats()
toml = (
    values.map(json.dumps)
    | numbers.map(lambda each: str(each).lower())
    | st.sampled_from(["[1]", "{}", "[", "1979-05-27"])
)
files = st.lists(st.tuples(names, toml).map(" = ".join), max_size=3).map(lambda lines: plain("\n".join(lines)))
environments = st.dictionaries(st.sampled_from(VARIABLES), values, max_size=4)
streams = st.fixed_dictionaries({"0": st.sampled_from(STREAMS), "1": st.sampled_from(STREAMS)})

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs a command and gives what became of it."""
    template = tmp_path_factory.mktemp("template")
    make(template / "a")
    make(template / "d" / "f")
    (template / "link").symlink_to("a")
    (template / "loop").symlink_to("loop")
    (template / "gone").symlink_to("nowhere")
    (template / "password").touch(0o600)
    (template / "password").write_text("a rather good password\n")
    shutil.copy2(server.accounts, template / "accounts.txt")
    (cases_out, cases_in), (became_out, became_in) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [sys.executable, HOME / "tests/any_command.py", template, str(cases_out), str(became_in)],
        pass_fds=[cases_out, became_in],
        env={**os.environ, "PYTHONPATH": str(HOME)},
        start_new_session=True,
    )
    os.close(cases_out)
    os.close(became_in)
    with open(cases_in, "w") as cases, open(became_out) as became:

        def run(program: str, arguments: list[str], environment: dict[str, str] | None = None, **more: Any) -> Any:
            case = {
                "program": program,
                "arguments": arguments,
                "environment": {"HOME": "home", **(environment or {})},
                **more,
            }
            print(json.dumps(case), file=cases, flush=True)
            return json.loads(became.readline())

        yield run
    assert process.wait() == 0


def check(program: str, became: dict[str, Any]) -> None:
    """One of the exit statuses, and each line says what it is."""
    status, err = became["status"], became["err"]
    assert status in STATUSES[program], became
    assert "Traceback" not in err and "Exception" not in err, err
    lines = err.split("\n")[:-1]
    assert all(line.startswith(("error: ", "warning: ", "not delivered: ")) for line in lines), err
    is_told = any(line.startswith("error: ") for line in lines) or '{"event": "failed", ' in became["out"]
    assert (is_told or not status) and len(lines) <= 8, became


few = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check_any(ask: Ask, program: str, data: st.DataObject) -> None:
    arguments = data.draw(ARGUMENTS[program], "arguments")
    environment = data.draw(environments, "environment")
    case = {
        "file": data.draw(files, "file"),
        "streams": data.draw(streams, "streams"),
        "gone": data.draw(st.integers(0, 9), "gone") == 0,
    }
    check(program, ask(program, arguments, environment, **case))


@pytest.mark.parametrize("program", list(STATUSES))
@few
@given(data=st.data())
def test_any_command_ends_in_one_line_with_a_status_of_the_table(ask: Ask, program: str, data: st.DataObject) -> None:
    check_any(ask, program, data)


@pytest.mark.long
@pytest.mark.parametrize("program", list(STATUSES))
@settings(few, max_examples=1000)
@given(data=st.data())
def test_many_commands_end_in_one_line_with_a_status_of_the_table(ask: Ask, program: str, data: st.DataObject) -> None:
    check_any(ask, program, data)


GONE = "the current folder can't be found"
# What was once a traceback or worse: the command, what else there is, the exit status, and words of its line.
CASES: list[tuple[str, list[str], dict[str, Any], int, str]] = [
    ("client.py", ["--dry-run", "a", "in/"], {"gone": True}, 1, "error: a does not exist"),
    ("client.py", ["--dry-run", ".", "in/"], {"gone": True}, 2, f"error: . has no name: {GONE}"),
    ("client.py", ["--receipts=r", "a", "b"], {"gone": True}, 2, "error: can't write the receipts to r"),
    ("client.py", ["--config=x", "a", "b"], {"gone": True}, 2, f"x is relative, and {GONE}"),
    ("client.py", ["--client-log=x", "a", "b"], {"gone": True}, 2, f"x is relative, and {GONE}"),
    ("client.py", ["--password-file=x", "a", "b"], {"gone": True}, 2, f"x is relative, and {GONE}"),
    ("server.py", ["--storage=x"], {"gone": True}, 2, f"x is relative, and {GONE}"),
    ("server.py", ["--accounts=x", "users"], {"gone": True}, 2, f"x is relative, and {GONE}"),
    ("server.py", ["--listen=a..b"], {}, 2, "error: listen: a..b is not an address of this machine"),
    ("server.py", ["--listen=.a"], {}, 2, "error: listen: .a is not an address of this machine"),
    ("server.py", ["--listen=" + "a" * 64], {}, 2, "is not an address of this machine"),
    ("server.py", ["--listen=\udcff"], {}, 2, "is not an address of this machine"),
    ("server.py", ["--listen=,"], {}, 2, "error: listen: ',' has no address in it"),
    (
        "server.py",
        [],
        {"environment": {"SFT_LISTEN": "a..b"}},
        2,
        "error: listen: a..b is not an address of this machine",
    ),
    ("client.py", ["--host=", "a", "b"], {}, 2, "--host: the value is empty"),
    ("client.py", ["--config=", "a", "b"], {}, 2, "--config: the value is empty"),
    ("server.py", ["--config=", "users"], {}, 2, "--config: the value is empty"),
    ("client.py", ["--password-fd=" + "9" * 20, "--user=u", "a", "b"], {}, 2, "takes the number of an open descriptor"),
    ("client.py", ["-", "b"], {"streams": {"0": "closed"}}, 1, "error: standard input is closed"),
    (
        "client.py",
        ["--password-file=-", "--user=u", "a", "b"],
        {"streams": {"0": "closed"}},
        2,
        "from standard input (Bad",
    ),
    ("client.py", ["--password-fd=0", "--user=u", "a", "b"], {"streams": {"0": "closed"}}, 2, "descriptor 0 (Bad"),
    ("client.py", ["--get", "a", "-"], {"streams": {"1": "closed"}}, 2, "error: standard output is closed"),
    ("server.py", ["--port=0"], {"streams": {"0": "closed", "1": "closed"}}, 0, ""),
    ("client.py", ["--show-config"], {"file": "", "environment": {"SFT_CONFIG": "settings.toml"}}, 0, ""),
]


@pytest.mark.parametrize(("program", "arguments", "more", "status", "words"), CASES)
def test_command_that_can_not_be_done_says_why(
    ask: Ask, program: str, arguments: list[str], more: dict[str, Any], status: int, words: str
) -> None:
    arguments = [os.fsencode(each).decode("latin-1") for each in arguments]
    became = ask(program, arguments, **more)
    check(program, became)
    assert became["status"] == status and words in became["err"], became


def test_too_little_memory_for_the_passwords_hash_is_one_line(tmp_path: Path) -> None:
    limited: list[str | Path] = ["sh", "-c", 'ulimit -v 150000 && exec "$@"', "sh", sys.executable, HOME / "server.py"]
    places = [f"--accounts={tmp_path / 'accounts'}", f"--storage={tmp_path / 'received'}"]
    done = subprocess.run(
        [*limited, *places, "adduser", "bob", "--password-file=-"],
        env={**os.environ, "SFT_CONFIG": os.devnull},
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
    )
    said = "error: this machine gives us too little memory. End other programs there, or raise ulimit -v\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_closed_streams_are_taken_by_nothing_that_is_opened_later(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("a password\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        where = [f"--port={listener.getsockname()[1]}", "--host=127.0.0.1", f"--client-log={tmp_path / 'log'}"]
        command = [sys.executable, HOME / "client.py", *where, "--user=u", f"--password-file={secret}", "--retries=0"]
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *map(str, command), "--list"]
        with subprocess.Popen(closing, env=clean_environment()) as running:
            sock, _ = listener.accept()
            with sock:
                taken = [os.readlink(f"/proc/{running.pid}/fd/{number}") for number in range(3)]
            assert running.wait(20) == 4
    assert taken == [os.devnull] * 3


def test_own_files_never_take_the_place_of_a_closed_stream(tmp_path: Path, folder: Path) -> None:
    """The first file that is opened would get the number 0, and its content be taken for standard input's."""
    secret, log = tmp_path / "secret", tmp_path / "log"
    secret.touch(0o600)
    secret.write_text("a password, and no content\n")
    closing: list[str | Path] = [
        "sh",
        "-c",
        'exec "$@" <&- >&- 2>&-',
        "sh",
        sys.executable,
        HOME / "client.py",
        f"--client-log={log}",
    ]
    command = [*closing, "--host=127.0.0.1", "--port=1", "--user=u", f"--password-file={secret}"]
    done = subprocess.run([*command, "-", "b"], env=clean_environment(), cwd=folder)
    assert done.returncode == 1 and log.read_text().endswith("ERROR standard input is closed. Name a file as SOURCE\n")
    done = subprocess.run([*command, "missing", "b"], env=clean_environment(), cwd=folder)
    assert done.returncode == 1 and all(
        " ERROR " in line or " client.py " in line for line in log.read_text().splitlines()
    )
