"""What is below a folder, for one connection: a page for each LIST or TREE.

Rules: before each the account's right is checked, by the function given. The names of a folder are read once, however
many pages they fill, and reading them anew has to wait its turn (`sft/disk/listing_rate.py`). What can't be listed is
named with OMITTED. This module knows no socket and no account.
"""

import bisect
import contextlib
from collections.abc import Callable, Iterator

from sft.common.errors import Code, Refused, SourceError
from sft.common.names import MAX_COMPONENT
from sft.common.rate_limit import RateLimiter
from sft.common.text import show_briefly
from sft.disk import tree_walk
from sft.disk.folders import PathParts, Seen
from sft.disk.sources import FileSource
from sft.disk.tree_walk import LeftOut, TreeWalk
from sft.disk.user_folder import UserFolder
from sft.disk.visible_files import why_unreadable
from sft.transfer.hashing import OtherSize, hash_source
from sft.wire.channel import Channel
from sft.wire.messages import FILE, FOLDER, LINK, Entries, Entry, ListFolder, Misnamed, Omitted, Refuse
from sft.wire.protocol import BRANCH_ENTRIES_LIMIT, BRANCH_LIMIT, ENTRIES_LIMIT, OMITTED_LIMIT, nearest_time
from sft.wire.spelling import spell
from sft.wire.tree_messages import Branch, Node, Tree

_MOST_NAMED = 100  # of what can't be given, in one folder; the rest is counted
_PAGE_BYTES = 48 * 1024
_DIGEST_BYTES = 34
_HASHED_BYTES = 256 << 20  # of files, for one page: half a second's work, and what a broken connection costs at most
_NODE_BYTES = 36  # in a BRANCH, beside the name and the target, at most
_BRANCH_BYTES = BRANCH_LIMIT - 8192  # less than the longest name and target need
_MOST_OMITTED = OMITTED_LIMIT - _MOST_NAMED  # before another folder is looked at
_PAGE_SECONDS = 1 / 8  # of a limit's bytes make one page

_Known = dict[PathParts, tuple[list[str], list[str]]]  # the names of a folder, and those that the wire does not allow


def omissions(
    id: int, folder: PathParts, shown: PathParts, names: list[str], code: Code, log: Callable[..., None]
) -> Iterator[Omitted]:
    """For such names in one folder, which the client calls `shown`: the first are named, the others counted."""
    few = names[:_MOST_NAMED]
    for number, name in enumerate(few, 1):
        log("not given: %s: %s", show_briefly((*folder, name)), Refused(code).cause)
        yield Omitted(id, spell((*shown, name)), code, len(names) - len(few) if number == len(few) else 0)


class Listings:
    """Answers the LISTs and TREEs of one connection."""

    def __init__(
        self,
        channel: Channel,
        folder: UserFolder,
        admit: Callable[[str], None],
        log: Callable[..., None],
        limiter: RateLimiter,
    ) -> None:
        """`admit(right)` raises Refused for one request, or Ended for the connection.

        `limiter`: the account's; `self.limiter`, of what is sent, may be a lower one.
        """
        self._channel, self._folder, self._admit, self._log, self.limiter = channel, folder, admit, log, limiter
        self._account_limiter = limiter
        self._known: _Known = {}  # of one folder at a time
        self._walk: tuple[PathParts, PathParts, TreeWalk] | None = None  # of what, how far, and the walk itself
        self._late: list[LeftOut | tree_walk.Node] = []  # of that walk, beyond what may come with one page

    def answer(self, request: ListFolder | Tree | Misnamed) -> Iterator[bytes]:
        """The messages of one page, or a REFUSE; to be sent one after the other. Raises Ended."""
        try:
            self._admit("list")
            if isinstance(request, Tree) and request.digests:
                self._admit("get")
            if isinstance(request, Misnamed):
                raise Refused(Code.NAME, why=request.why)
            for message in self._branch(request) if isinstance(request, Tree) else self._page(request):
                yield message.encode()
        except Refused as problem:
            yield Refuse(request.id, problem.code).encode()

    def _page(self, request: ListFolder) -> Iterator[Omitted | Entries]:
        """What one page of a listing is sent as: first the names that are left out, then the entries."""
        path, visible = request.path, self._folder.visible
        if path and (itself := visible.look(path)) is not None and not itself.is_folder:
            yield Entries(request.id, (_entry(path[-1], itself),), False)
            return
        if request.after is None or path not in self._known:
            self._known.clear()  # one folder at a time: a listing that goes on reads the names only once
            self._known[path] = self._folder.listing_rate.read(lambda: visible.names(path), self._channel.check)
        names, inexpressible = self._known[path]
        start = 0 if request.after is None else bisect.bisect_right(names, request.after.encode(), key=str.encode)
        entries, unreadable, end = self._entries(request, names, start)
        yield from self._omitted(request.id, path, (), unreadable, Code.UNREADABLE)
        if end == len(names):
            yield from self._omitted(request.id, path, (), inexpressible, Code.NAME)
        yield Entries(request.id, tuple(entries), end < len(names))

    def _entries(self, request: ListFolder, names: list[str], start: int) -> tuple[list[Entry], list[str], int]:
        """One page of the names: their entries, those that can't be read, and where the next page starts."""
        entries: list[Entry] = []
        unreadable: list[str] = []
        size, most = 0, min(_PAGE_BYTES, self.limiter.bytes_in(_PAGE_SECONDS))
        end = start
        while end < len(names) and len(entries) < ENTRIES_LIMIT and (size < most or not entries):
            name = names[end]
            end += 1
            try:
                seen = self._folder.visible.see((*request.path, name), has_links=True, as_it_is=True)
            except Refused:
                unreadable.append(name)
                continue
            if seen is not None:
                entries.append(_entry(name, seen))
                size += len(Entries(request.id, (entries[-1],), False).body())
        return entries, unreadable, end

    def _omitted(self, id: int, folder: PathParts, shown: PathParts, names: list[str], code: Code) -> Iterator[Omitted]:
        return omissions(id, folder, shown, names, code, self._log)

    # --- TREE ---

    def _branch(self, request: Tree) -> Iterator[Omitted | Branch]:
        """What one page of a tree is sent as: first what is left out, then the entries."""
        walk, path = self._walk_of(request), request.after or ()
        self._walk = None  # until this page is whole
        late, self._late = self._late, []
        omitted: list[Omitted] = []
        ends: dict[tuple[PathParts, Code], int] = {}  # where the last of those is that a folder has for one reason
        nodes: list[Node] = []
        size, most = 0, min(_BRANCH_BYTES, self.limiter.bytes_in(_PAGE_SECONDS))
        more, hashed = True, 0
        try:
            while not nodes or (size < most and len(nodes) < BRANCH_ENTRIES_LIMIT and len(omitted) <= _MOST_OMITTED):
                if not late and not request.digests and (files := walk.files(_files_in(most - size, len(nodes)))):
                    nodes += [
                        Node(depth, name, FILE, size, nearest_time(mtime), mode, None)
                        for depth, name, size, mtime, mode in files
                    ]
                    size += _NODE_BYTES * len(files) + len("".join([name for _, name, *_ in files]).encode())
                    depth, name, *_ = files[-1]
                    path = (*path[: depth - 1], name)
                    continue
                found = late.pop(0) if late else walk.next()
                if found is None:
                    more = False
                    break
                if isinstance(found, LeftOut):
                    self._omit(request, found, omitted, ends)
                    continue
                node = _node(found)
                if request.digests and node.kind == FILE:
                    if nodes and hashed + node.size > _HASHED_BYTES:
                        late.insert(0, found)
                        break
                    hashed += node.size
                    below = (*path[: found.depth - 1], found.name)
                    try:
                        node = self._hashed(node, (*request.path, *below))
                    except Refused as problem:
                        self._omit(request, LeftOut(below[:-1], [below[-1]], problem.code), omitted, ends)
                        continue
                nodes.append(node)
                size += _NODE_BYTES + len(found.name.encode()) + len((node.target or "").encode())
                size += _DIGEST_BYTES if node.sha256 is not None else 0
                path = (*path[: found.depth - 1], found.name)
        finally:
            walk.pause()
        if more:
            self._walk, self._late = (request.path, path, walk), [*self._late, *late]
        else:  # no page comes behind this one
            left = [found for found in self._late if isinstance(found, LeftOut)]
            omitted += [each for found in left for each in self._left_out(request, found)]
        yield from _within_limit(omitted)
        yield Branch(request.id, tuple(nodes), more)

    def _hashed(self, node: Node, path: PathParts) -> Node:
        """A file with its digest, and as it was then; paid for as content is. Raises Refused (UNREADABLE, CHANGED)."""

        def on_read(count: int) -> None:
            self._channel.check()
            self._account_limiter.spend(0, self._channel.hurry, count)

        try:
            source = FileSource(show_briefly(path), self._folder.visible.open_file(path))
        except (Refused, SourceError) as problem:
            raise Refused(why_unreadable(problem), why=problem.cause) from None
        with contextlib.closing(source):
            size, mtime = source.size or 0, source.mtime or 0
            try:
                running = hash_source(source, size, lambda: True, on_read)
                source.check_unchanged()
            except (SourceError, OtherSize) as problem:
                raise Refused(problem.code if isinstance(problem, SourceError) else Code.UNREADABLE) from None
        if running is None:
            raise RuntimeError("hashing that nobody has stopped")
        return Node(node.depth, node.name, FILE, size, nearest_time(mtime), node.mode, None, running.digest())

    def _omit(
        self, request: Tree, found: LeftOut, omitted: list[Omitted], ends: dict[tuple[PathParts, Code], int]
    ) -> None:
        """Name what is left out with this page; where it does not fit, it is counted, or comes with the next page."""
        key = found.folder, found.code
        if key not in ends:
            if len(omitted) > _MOST_OMITTED:
                self._late.append(found)
                return
        elif len(omitted) + min(len(found.names), _MOST_NAMED) > OMITTED_LIMIT:
            last = omitted[ends[key]]
            omitted[ends[key]] = Omitted(last.id, last.name, last.code, last.more + len(found.names))
            return
        omitted += self._left_out(request, found)
        ends[key] = len(omitted) - 1

    def _left_out(self, request: Tree, found: LeftOut) -> Iterator[Omitted]:
        above = (*request.path, *found.folder)
        return self._omitted(request.id, above, found.folder, found.names, found.code)

    def _walk_of(self, request: Tree) -> TreeWalk:
        """The walk that has come to where the request goes on, or a new one. Raises Refused."""
        after = request.after or ()
        if self._walk is not None and self._walk[:2] == (request.path, after) and after:
            return self._walk[2]
        self._walk, self._late = None, []  # its memory, before that of another
        rate, check = self._folder.listing_rate, self._channel.check
        return TreeWalk(self._folder.visible, request.path, after, lambda work: rate.read(work, check))


def _entry(name: str, seen: Seen) -> Entry:
    mtime = nearest_time(seen.mtime)
    if seen.leads_to is not None:
        return Entry(name, LINK, 0, mtime, spell((seen.leads_to,)))
    return Entry(name, FOLDER if seen.is_folder else FILE, seen.size, mtime)


def _within_limit(omitted: list[Omitted]) -> list[Omitted]:
    """As many as may come with one page; the last of them counts the others."""
    beyond = omitted[OMITTED_LIMIT:]
    if not beyond:
        return omitted
    last = omitted[OMITTED_LIMIT - 1]
    more = last.more + sum(1 + each.more for each in beyond)
    return [*omitted[: OMITTED_LIMIT - 1], Omitted(last.id, last.name, last.code, more)]


def _files_in(space: float, count: int) -> int:
    """How many files surely fit in so many bytes of a BRANCH that has `count` entries, whatever their names."""
    return min(max(1, int(space) // (_NODE_BYTES + MAX_COMPONENT)), BRANCH_ENTRIES_LIMIT - count)


def _node(found: tree_walk.Node) -> Node:
    depth, name, kind, size, mtime, mode, target = found
    return Node(depth, name, kind, size, nearest_time(mtime), mode, None if target is None else spell((target,)))
