"""What may lie on the disk after a power cut, as a pure function: what was sent, what has a receipt, what was found.

A file that was found must hold one of the contents that were ever sent under its name: else it is torn. A name with a
receipt must be there: else it is lost. What lies there must be what the last receipt says, or something that was sent
under that name later: else it is stale.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

_USAGE = re.compile(r"[\d.]+ \w+ (?:in \d+ files?|kept of \d+ interrupted transfers?)")


@dataclass
class Sent:
    """The digests of what was sent under each name, in order; with `rename`, the receiver chooses the last name."""

    _named: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _renamed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, path: str, digest: str, renames: bool = False) -> None:
        """Remember it; call this before it is sent."""
        if renames:
            self._renamed[path.rpartition("/")[0]].add(digest)
        else:
            self._named[path].append(digest)

    def allowed(self, path: str, receipt: str | None) -> list[str] | set[str]:
        """What may lie at `path` when the last receipt for it has this digest; with None: any content, whole."""
        if path in self._named:
            digests = self._named[path]
            # Of equal contents, such as empty ones, the receipt may be for the first that was sent.
            return digests if receipt is None else digests[digests.index(receipt) :]
        return self._renamed.get(path.rpartition("/")[0], set()) if receipt is None else {receipt}


def judge(sent: Sent, receipts: list[tuple[str, str]], found: dict[str, str]) -> list[str]:
    """What is wrong: one line for each file that is torn, lost or stale."""
    wrong = [f"torn: {path}" for path, digest in found.items() if digest not in sent.allowed(path, None)]
    for path, receipt in dict(receipts).items():
        if path not in found:
            wrong.append(f"lost: {path}")
        elif found[path] in sent.allowed(path, None) and found[path] not in sent.allowed(path, receipt):
            wrong.append(f"stale: {path}")
    return sorted(wrong)


def usage_in(line: str) -> list[str]:
    """What `users` or `recount` prints of an account's use of the disk: its files, and what is kept of others."""
    return _USAGE.findall(line)
