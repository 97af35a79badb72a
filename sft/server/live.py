"""What a running server answers at its control socket: who is connected, and what an administrator wants done now.

    status           what each connection moves, and the totals
    kick NAME        ends the connections of one user
    unban WHOM       forgets counted attempts: of an address, of a /64, or at a username

Rules: a request may hold anything, and what is not understood is answered so. Whatever changes something is logged. No
socket is known here, and nothing waits for long.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from sft.accounts.format import Account
from sft.common.errors import Code
from sft.common.log_events import LogEvent
from sft.common.sizes import counted
from sft.common.text import briefly
from sft.server.activity import Activity, ConnectionState
from sft.server.attempts import Attempts
from sft.server.origin import read_origin

_KICK_SECONDS = 3.0  # for connections to end
_LOOK_SECONDS = 0.05

_NOT_UNDERSTOOD = {"problem": "not understood"}


class Kickable(Protocol):
    """One connection."""

    @property
    def account(self) -> Account | None:
        """The account that its client has logged in to; None before."""

    def expel(self, code: Code) -> None:
        """End it, and send the reason; must not wait. Called again until it has ended."""


class Live:
    """Call `answer` from one thread."""

    def __init__(
        self,
        activity: Activity,
        throttle: Attempts,
        connections: Callable[[], Iterable[Kickable]],
        is_stopping: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self._activity, self._throttle, self._connections = activity, throttle, connections
        self._is_stopping, self._log = is_stopping, log

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one request."""
        command, whom = request.get("command"), request.get("whom")
        if command == "status":
            return self._status()
        if command == "kick" and isinstance(whom, str):
            return self._kick(whom)
        if command == "unban" and isinstance(whom, str):
            return self._unban(whom)
        return _NOT_UNDERSTOOD

    def not_logged_in(self) -> int:
        """How many connections are in their login; may be called from any thread."""
        return sum(each.account is None for each in self._connections())

    def _status(self) -> Mapping[str, Any]:
        totals = self._activity.totals()
        return {
            "at": time.monotonic(),
            "stopping": self._is_stopping(),
            "logins": dict(totals.logins),
            "not_logged_in": self.not_logged_in(),
            "connections": [_shown(each) for each in self._activity.connections()],
        }

    def _kick(self, name: str) -> Mapping[str, Any]:
        meant = {each for each in self._connections() if each.account is not None and each.account.name == name}
        count, end = len(meant), time.monotonic() + _KICK_SECONDS
        while meant:
            for each in meant:
                each.expel(Code.KICKED)
            if time.monotonic() > end:
                break
            time.sleep(_LOOK_SECONDS)
            meant.intersection_update(self._connections())
        shown, number = briefly(name), counted(count, "connection", "")
        self._log.warning(LogEvent("kick", f"kicked {shown}: {number}", name=shown, connections=count))
        return {"ended": count - len(meant), "left": len(meant)}

    def _unban(self, whom: str) -> Mapping[str, Any]:
        source = read_origin(whom)
        if source is not None:
            count = self._throttle.forget_source(source)
        else:
            count = self._throttle.forget_user(whom.encode("utf-8", "surrogatepass"))
        shown, number = briefly(whom), counted(count, "attempt", "")
        self._log.warning(LogEvent("unban", f"unban {shown}: {number} forgotten", name=shown, attempts=count))
        return {"forgotten": count}


def _shown(state: ConnectionState) -> Mapping[str, Any]:
    moving = None if state.moving is None else state.moving._asdict()
    return {**state._asdict(), "moving": moving}
