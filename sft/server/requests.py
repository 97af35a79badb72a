"""The server's side of a connection's one job, as its first message has it.

    (TREE SET ...) PUT ...           this end receives; more TREEs and SETs may come between the PUTs
    (RATE) (TREE LIST ...) GET ...   this end sends what was asked for, once all GETs are here
    (RATE) LIST REMOVE ...           questions: LIST, TREE, USAGE, REMOVE, MOVE, SET, each answered before the next

Rules: PUT means BATCH, too. Before each PUT and GET the account's right to it is checked, by the function given; a PUT
with policy `replace` is taken without the right `replace`, and replaces nothing then. A GET makes the server the
sender, by the same messages and rules; what it can't give is answered by REFUSE with the GET's id, or OMITTED. RATE
only limits what this end sends, so it is not allowed before PUT. This module knows no socket and no account.
"""

from collections.abc import Callable, Iterator
from typing import TypeGuard

from sft.common.errors import Code, ProtocolViolation, Refused, SourceError
from sft.common.rate_limit import RateLimiter, limited
from sft.common.text import briefly, show_briefly, show_path
from sft.disk.folders import PathParts, Seen
from sft.disk.sources import FileSource, Source
from sft.disk.temporary import Incoming
from sft.disk.user_folder import UserFolder
from sft.disk.visible_files import why_unreadable
from sft.server.asked import Asked, Wanted
from sft.server.changing import Changing
from sft.server.listings import Listings, omissions
from sft.transfer.events import ReceiveEvent, SendEvent
from sft.transfer.items import Item
from sft.transfer.places import Share
from sft.transfer.receiver import Receiver
from sft.transfer.sender import Sender
from sft.transfer.shrinking import Compress
from sft.wire.batch import Batch
from sft.wire.change_messages import Move, Remove, SetAttributes, Usage
from sft.wire.channel import Arrived, Channel
from sft.wire.handshake import SessionKeys
from sft.wire.messages import (
    BYE_MESSAGE,
    FOLDER,
    LINK,
    MESSAGE_HEADER_SIZE,
    Get,
    Kind,
    ListFolder,
    Message,
    Misnamed,
    PolicyWord,
    Put,
    Rate,
    Refuse,
)
from sft.wire.tree_messages import Tree

_POLICY: PolicyWord = "skip"  # for the PUTs of this end: the client decides itself what to do with a name that is taken

_Question = ListFolder | Tree | Remove | Move | Usage | SetAttributes | Misnamed

# The requests: what a connection's first message may be.
_KINDS: dict[type, Kind] = {
    shape: shape.KIND for shape in (Put, Batch, Get, ListFolder, Tree, Remove, Move, Usage, SetAttributes)
}
_LISTINGS = (Kind.LIST, Kind.TREE)
_QUESTIONS = (*_LISTINGS, Kind.REMOVE, Kind.MOVE, Kind.USAGE, Kind.SET)
_BETWEEN_PUTS = {Kind.TREE, Kind.SET}
_BEFORE_GETS = {Kind.TREE, Kind.LIST}


class Requests:
    """Does what one logged-in client asks for."""

    def __init__(
        self,
        channel: Channel,
        keys: SessionKeys,
        folder: UserFolder,
        admit: Callable[[str], None],
        log: Callable[..., None],
        limiter: RateLimiter,
        log_sparingly: Callable[..., None] | None = None,
        share: Share | None = None,
        compress: Compress = "off",
    ) -> None:
        """`admit(right)` raises Refused for one request, or Ended for the connection.

        `log_sparingly`: for what a client can cause at will; without it, `log`. `compress`: what this end sends, if the
        client can read it.
        """
        self._compress = compress
        self._channel, self._keys, self._folder, self._admit, self._log = channel, keys, folder, admit, log
        self._limiter, self._log_sparingly, self._share = limiter, log_sparingly or log, share
        self._giving = limiter  # of what this end sends, which the client may want slower
        self._messages: Iterator[Arrived | None] = channel.messages()
        self._listings = Listings(channel, folder, admit, self._log_sparingly, limiter)
        self._changing = Changing(channel, folder, admit, log, self._log_sparingly)
        self._asked: set[Kind | None] = set()  # kinds of the questions so far
        self._last_question = 0  # the highest id of those
        self._ids_rise = True  # of those

    def run(self, on_receive_event: Callable[[ReceiveEvent], None], on_send_event: Callable[[SendEvent], None]) -> None:
        """Serve until BYE. Raises ConnectionTrouble, IntegrityError, Ended."""
        first = self._next()
        has_rate = first is not None and isinstance(first[0], Rate)
        if first is not None and isinstance(first[0], Rate):
            self._giving = self._listings.limiter = self._limiter.within(first[0].rate)
            first = self._next()
        first = self._answer_questions(first)
        kind = None if first is None else _kind_of(first[0])
        if first is None:
            if has_rate and not self._asked:
                raise ProtocolViolation("a rate for nothing that is asked for")
            self._channel.post(BYE_MESSAGE)
        elif has_rate and kind in (Kind.PUT, Kind.BATCH):
            raise ProtocolViolation("a rate for nothing that is asked for")
        elif kind in (Kind.PUT, Kind.BATCH) and self._asked <= _BETWEEN_PUTS:
            self._receive(first, on_receive_event)
        elif _is_get(first[0]) and self._asked <= _BEFORE_GETS:
            self._give(first[0], on_send_event)
        else:
            raise ProtocolViolation("a message of another job, or of none")

    def _next(self) -> tuple[Message, memoryview] | None:
        """The next message, paid for; None at the client's BYE."""
        arrived = next((arrived for arrived in self._messages if arrived is not None), None)
        if arrived is not None:
            self._limiter.spend(MESSAGE_HEADER_SIZE + len(arrived[1]), self._channel.hurry)
        return arrived

    # --- LIST, TREE, and what changes something ---

    def _answer_questions(self, first: Arrived | None) -> Arrived | None:
        """Answer all questions, up to the first message that is none, which is returned; None at the client's BYE."""
        while first is not None and _is_question(first[0]):
            self._asked.add(_kind_of(first[0]))
            self._ids_rise &= first[0].id > self._last_question
            self._last_question = max(self._last_question, first[0].id)
            self._answer(first[0])
            first = self._next()
        return first

    def _answer(self, request: _Question) -> None:
        for message in self._answers(request):
            self._channel.post(message)
            self._giving.spend(len(message), self._channel.hurry)

    def _answers(self, request: _Question) -> Iterator[bytes]:
        if isinstance(request, ListFolder | Tree) or (isinstance(request, Misnamed) and request.kind in _LISTINGS):
            return self._listings.answer(request)
        return self._changing.answer(request)

    def _without_questions(self, last: int) -> Iterator[Arrived | None]:
        """The messages behind a PUT, whose id was `last`, less the TREEs and SETs among them, which are answered.

        They and the PUTs have one sequence of ids, so that each REFUSE is clearly about one of them.
        """
        for arrived in self._messages:
            message = None if arrived is None else arrived[0]
            if isinstance(message, Put | Batch | Tree | SetAttributes | Misnamed):
                if message.id <= last:
                    raise ProtocolViolation("an id that is not higher than the last")
                last = message.id
            if arrived is None or message is None or not _may_be_between_puts(message):
                yield arrived
                continue
            self._limiter.spend(MESSAGE_HEADER_SIZE + len(arrived[1]), self._channel.hurry)
            yield None  # a pause: what is complete becomes visible now, so that a SET finds it
            for answer in self._answers(message):
                self._channel.post(answer)

    # --- PUT ---

    def _receive(self, first: Arrived, on_event: Callable[[ReceiveEvent], None]) -> None:
        def place(put: Put | Misnamed) -> Incoming:
            self._admit("put")
            if isinstance(put, Misnamed):
                raise Refused(Code.NAME, why=put.why)
            if put.kind == LINK:
                self._admit("links")
            is_needed = put.policy == "replace" or put.kind == FOLDER
            may_replace = not is_needed or self._may("replace")
            return Incoming(put.transfer, put.path, put.size, put.mtime, put.mode, put.policy, may_replace)

        put, secret = first[0] if first is not None else None, self._keys.file_c2s
        if not isinstance(put, Put | Batch | Misnamed) or put.id <= self._last_question or not self._ids_rise:
            raise ProtocolViolation("an id that is not higher than the last")
        messages = self._without_questions(put.id)
        Receiver(self._channel, messages, secret, self._folder, place, on_event, self._limiter, self._share).run(first)

    def _may(self, right: str) -> bool:
        """Raises Refused when that can't be told now, Ended."""
        try:
            self._admit(right)
        except Refused as problem:
            if problem.code is not Code.DENIED:
                raise
            return False
        return True

    # --- GET ---

    def _give(self, first: Get | Misnamed, on_event: Callable[[SendEvent], None]) -> None:
        messages = limited(self._channel, self._messages, self._limiter)
        asked, compress = Asked(), self._compress
        for get in self._gets(first, messages):
            asked.count(get)
            self._take(get, asked)
            if isinstance(get, Get) and not get.zstd:
                compress = "off"
        items = (item for wanted in asked for item in self._items(wanted))
        secret = self._keys.file_s2c
        Sender(self._channel, messages, secret, on_event, self._giving, self._share, compress).run(items)

    def _gets(self, get: Get | Misnamed, messages: Iterator[Arrived | None]) -> Iterator[Get | Misnamed]:
        """All GETs of the connection: each but the last announces another. Raises ProtocolViolation."""
        while True:
            yield get
            if not get.more:
                return
            arrived = next((arrived for arrived in messages if arrived is not None), None)
            if arrived is None or not _is_get(arrived[0]):
                raise ProtocolViolation("something else where another GET was announced")
            get = arrived[0]

    def _take(self, get: Get | Misnamed, asked: Asked) -> None:
        """Note it, or refuse it at once."""
        try:
            self._admit("get")
            if isinstance(get, Misnamed):
                raise Refused(Code.NAME, why=get.why)
            asked.add(get)
        except Refused as problem:
            name = briefly(get.shown) if isinstance(get, Misnamed) else show_briefly(get.path)
            self._not_given(get.id, name, problem)

    def _not_given(self, id: int, name: str, problem: Refused) -> None:
        self._log_sparingly("not given: %s: %s", name, problem.cause)
        self._channel.post(Refuse(id, problem.code).encode())

    def _items(self, wanted: Wanted) -> Iterator[Item]:
        """What lies at and below one path."""
        get, path, above, offers, links = wanted
        try:
            self._admit("get")
            for seen in self._folder.visible.walk(path, lambda *missed: self._omit(get, above, *missed), links):
                if (item := self._item(get, seen, seen.path[above:])) is not None:
                    item.offer = offers
                    yield item
        except Refused as problem:
            self._not_given(get, show_briefly(path), problem)

    def _omit(
        self, get: int, above: int, folder: PathParts, names: list[str], code: Code, is_logged: bool = False
    ) -> None:
        """Send OMITTED about names in a folder that can't be given; `above` components of its path are not shown."""
        log = _log_nothing if is_logged else self._log_sparingly
        for omitted in omissions(get, folder, folder[above:], names, code, log):
            self._channel.send(message := omitted.encode())
            self._giving.spend(len(message), self._channel.flush)

    def _item(self, get: int, seen: Seen, target: tuple[str, ...]) -> Item | None:
        """None for a name that the wire does not allow: files may have been put here by other means."""
        name, above = show_path(seen.path), len(seen.path) - len(target)

        def open_it() -> Source:
            try:
                return FileSource(name, self._folder.visible.open_file(seen.path))
            except (Refused, SourceError) as problem:
                code = why_unreadable(problem)
                self._omit(
                    get, above, seen.path[:-1], [seen.path[-1]], code, is_logged=True
                )  # as Failed, with its cause
                raise SourceError(problem.cause) from None

        if seen.is_folder:
            item = Item(name, target, _POLICY, None, seen.mtime, seen.mode)
        elif seen.leads_to is not None:
            item = Item(name, target, _POLICY, None, seen.mtime, leads_to=seen.leads_to)
        else:
            item = Item(name, target, _POLICY, open_it)
        try:
            item.judge()
        except Refused as problem:
            self._omit(get, above, seen.path[:-1], [seen.path[-1]], problem.code)
            return None
        return item


def _log_nothing(*line: object) -> None:
    pass


def _kind_of(message: Message) -> Kind | None:
    """The kind of a request, also of one with a name that is not allowed; else None."""
    return message.kind if isinstance(message, Misnamed) else _KINDS.get(type(message))


def _is_get(message: Message) -> TypeGuard[Get | Misnamed]:
    return _kind_of(message) is Kind.GET


def _is_question(message: Message) -> TypeGuard[_Question]:
    return _kind_of(message) in _QUESTIONS


def _may_be_between_puts(message: Message) -> TypeGuard[Tree | SetAttributes | Misnamed]:
    return _kind_of(message) in _BETWEEN_PUTS
