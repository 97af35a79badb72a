"""`server.py status`, `kick` and `unban`: what an administrator asks a running server, and how its answers look.

Rules: rates are of one second, between two answers. What was asked for is printed in lines for people, or as one JSON
object for each connection. Nothing is known here of how a server finds its answers.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sft.accounts.format import check_account_name
from sft.common.errors import TransferError, UsageError
from sft.common.sizes import amount, counted
from sft.console.lines import as_json, utc
from sft.console.progress_line import duration
from sft.console.screen import note, say
from sft.server.control import ask
from sft.server.origin import read_origin

_SECONDS = 1.0  # between two looks
_MOVES = {"received": "receiving", "sent": "sending"}

Connection = Mapping[str, Any]


def run(command: str, accounts: Path, options: argparse.Namespace) -> None:
    """Run one of the commands. Raises UsageError, TransferError."""
    LIVE_COMMANDS[command](accounts, options)


def _status(accounts: Path, options: argparse.Namespace) -> None:
    before = ask(accounts, {"command": "status"})
    after = before
    if before["connections"]:
        time.sleep(_SECONDS)
        after = ask(accounts, {"command": "status"})
    measured = _with_rates(before, after)
    for each in measured:
        if options.json:
            say(as_json({"event": "connection", **_flat(each)}))
        else:
            say(*_lines(each))
    if options.json:
        say(as_json({"event": "status", "connections": len(measured), **_totals(measured), **_state(after)}))
    else:
        say(_summary(measured, after))


def _with_rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Connection]:
    """The connections of the second answer with their bytes per second, and for how many seconds they are there."""
    earlier = {each["number"]: each for each in before["connections"]}
    measured: list[Connection] = []
    now = time.time()
    for each in after["connections"]:
        age = max(now - each["since"], 0.0)
        known = earlier.get(each["number"])
        seconds = max(after["at"] - before["at"] if known is not None else age, 1e-3)
        rates = {
            f"{way}_per_second": round((each[f"bytes_{way}"] - (known[f"bytes_{way}"] if known else 0)) / seconds)
            for way in _MOVES
        }
        measured.append({**each, **rates, "seconds": round(age, 1)})
    return measured


def _totals(measured: list[Connection]) -> dict[str, int]:
    return {f"{way}_per_second": sum(each[f"{way}_per_second"] for each in measured) for way in _MOVES}


def _state(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("not_logged_in", "logins", "stopping")}


def _flat(each: Connection) -> dict[str, object]:
    moving = each["moving"] or dict.fromkeys(("name", "direction", "size", "done"))
    return {**each, "since": utc(int(each["since"] * 1e9)), "moving": moving}


def _lines(each: Connection) -> list[str]:
    parts = [
        f"{counted(each[f'files_{way}'], 'file')} and {amount(each[f'bytes_{way}'])} {way}"
        for way in _MOVES
        if each[f"bytes_{way}"]
    ]
    rates = [f"{amount(each[f'{way}_per_second'])}/s {where}" for way, where in (("received", "in"), ("sent", "out"))]
    who = f"{each['user']}@{each['source']}"
    lines = [f"{who:<32}  #{each['number']}, {duration(each['seconds'])}: {', '.join([*parts, *rates])}"]
    if (moving := each["moving"]) is not None:
        lines.append(f"    {_MOVES[moving['direction']]} {moving['name']}, {_done(moving)}")
    return lines


def _done(moving: Mapping[str, Any]) -> str:
    done, size = moving["done"], moving["size"]
    if size is None:
        return f"{amount(done)} so far"
    return f"{amount(done)} of {amount(size)}" + (f" ({100 * done // size} %)" if size else "")


def _summary(measured: list[Connection], answer: Mapping[str, Any]) -> str:
    rates = _totals(measured)
    logins = ", ".join(f"{count:,} {outcome}" for outcome, count in answer["logins"].items() if count)
    others = f" and {waiting:,} not logged in" if (waiting := answer.get("not_logged_in", 0)) else ""
    parts = [counted(len(measured), "connection") + others]
    if measured:
        parts.append(f"{amount(rates['received_per_second'])}/s in, {amount(rates['sent_per_second'])}/s out")
    parts.append(f"logins since the start: {logins or 'none'}")
    return "; ".join(parts + (["shutting down"] if answer["stopping"] else []))


def _kick(accounts: Path, options: argparse.Namespace) -> None:
    name = options.name
    check_account_name(name)
    answer = ask(accounts, {"command": "kick", "whom": name})
    if answer["left"]:
        raise TransferError(
            f"{counted(answer['left'], 'connection')} of {name} did not end yet",
            "A disk that does not answer holds them; look again with: python server.py status",
        )
    if not answer["ended"]:
        say(f"{name} has no connection")
        return
    say(f"ended {counted(answer['ended'], 'connection')} of {name}")
    note(f"{name} can log in again; to keep {name} out: python server.py passwd {name}, or deluser {name}")


def _unban(accounts: Path, options: argparse.Namespace) -> None:
    whom = options.whom
    if read_origin(whom) is None:
        try:
            check_account_name(whom)
        except UsageError:
            raise UsageError(
                f'"{whom}" is neither an address, nor a /64, nor a username',
                "Name one of them, such as 192.0.2.7, 2001:db8::/64 or alice",
            ) from None
    count = ask(accounts, {"command": "unban", "whom": whom})["forgotten"]
    say(f"forgot {counted(count, 'attempt')} of {whom}" if count else f"no attempt of {whom} was counted")


LIVE_COMMANDS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "status": _status,
    "kick": _kick,
    "unban": _unban,
}
