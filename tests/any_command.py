"""Runs commands of both programs in forks of one process, which has loaded all that a program loads at its start.

Rules: each case has a folder of its own, which is the current one and the programs' own folder, too. No name is looked
up and nothing is connected to; a server that could listen ends at once. Its arguments are the folder that each case
gets a copy of, and the descriptors of cases and of what became of them, a line of JSON each.
"""

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import client
import config
import crypto_utils
import server
import sft.server.listener
import sft.server.start
from sft.console.screen import leave

LOADED_LATER = (
    "sft.client.jobs",
    "sft.client.upload",
    "sft.client.login",
    "sft.accounts.passwords",
    "sft.disk.local",
    "sft.common.rate_limit",
)
SECONDS = 20
BUG = 99  # the exit status of a program that ended by an exception
CLOSED = "closed"

_real_getaddrinfo = socket.getaddrinfo


def _look_up(host: Any, port: Any, *rest: Any, flags: int = 0, **named: Any) -> Any:
    """What the library makes of a host, without asking anybody for it."""
    find: Any = _real_getaddrinfo
    found = find(host, port, *rest, flags=flags | socket.AI_NUMERICHOST, **named)
    if not flags & socket.AI_PASSIVE:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return found


def _stand_in_for(descriptor: int, what: str) -> None:
    """Put something in the place of one of the standard streams."""
    name = ("stdin", "stdout", "stderr")[descriptor]
    if what == CLOSED:
        os.close(descriptor)
        setattr(sys, name, None)
        return
    flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened = os.open(what, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
    if descriptor:
        setattr(sys, name, open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def _run(case: dict[str, Any], place: Path, said: dict[int, Path]) -> int:
    os.setsid()
    signal.alarm(SECONDS)
    os.environ.clear()
    os.environ.update({name: os.fsdecode(value.encode("latin-1")) for name, value in case["environment"].items()})
    arguments = [os.fsdecode(each.encode("latin-1")) for each in case["arguments"]]
    os.chdir(place)
    if case.get("gone"):
        shutil.rmtree(place)
    for descriptor in (0, 1, 2):
        given = case.get("streams", {}).get(str(descriptor), "")
        _stand_in_for(descriptor, given or (str(said[descriptor]) if descriptor else os.devnull))
    for name, limit in case.get("limits", {}).items():
        resource.setrlimit(getattr(resource, name), (limit, resource.getrlimit(getattr(resource, name))[1]))
    status: int
    try:
        status = (client if case["program"] == "client.py" else server).main(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else BUG
    except BaseException:
        with open(said[2], "a") as told:
            traceback.print_exc(file=told)
        status = BUG
    return status


def _become(case: dict[str, Any], template: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="any-command-") as outside:
        place, said = Path(outside, "place"), {1: Path(outside, "out"), 2: Path(outside, "err")}
        shutil.copytree(template, place, symlinks=True)
        if "file" in case:
            (place / "settings.toml").write_bytes(case["file"].encode("latin-1"))
        child = os.fork()
        if not child:
            status = BUG
            try:
                config._SCRIPT_FOLDER = str(place)
                status = _run(case, place, said)
            finally:
                with contextlib.suppress(BaseException):
                    leave(status)
                os._exit(status)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out, err = (said[each].read_bytes().decode("latin-1") if said[each].exists() else "" for each in (1, 2))
        return {"status": ended, "out": out, "err": err}


def _not_serving(self: object, listening: list[socket.socket]) -> None:
    for each in listening:
        each.close()


def main() -> None:
    """Take cases until there are no more."""
    socket.getaddrinfo = _look_up
    sft.server.listener.Listener.run = _not_serving  # type: ignore[assignment,method-assign]
    crypto_utils.SCRYPT_PROFILES[1] = (2, 8, 1)
    for name in LOADED_LATER:
        importlib.import_module(name)
    with open(int(sys.argv[2])) as cases, open(int(sys.argv[3]), "w") as became:
        for line in cases:
            print(json.dumps(_become(json.loads(line), sys.argv[1])), file=became, flush=True)


if __name__ == "__main__":
    main()
