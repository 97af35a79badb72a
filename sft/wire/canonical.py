"""The bodies that there are ten thousand of, PUT, END and RECEIPT, in the one form that our writer gives them.

Rules: a reader takes nothing but that form, and says None to everything else, be it fair or not: what is refused, and
why, is for the strict reader in `sft/wire/messages.py` alone. What a reader takes, the strict one takes, too, with
the same result. Expressions have no two ways to match the same bytes, so a peer's body costs no more than its length.
This module knows no socket, no file, no clock and no key.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from sft.wire.protocol import MAX_INTEGER

# The digits stay below the ceilings of their fields, but for times, which are compared.
_ID = r'"id":([1-9][0-9]{0,8})'
_PATH = r'"path":\["([^"\\\x00-\x1f]*(?:","[^"\\\x00-\x1f]*)*)"\]'
_SIZE = r'"size":(0|[1-9][0-9]{0,17})'
_DIGEST = r'"([0-9a-f]{64})"'
_NANOSECONDS = "([1-9][0-9]{0,18})"

_PUT = re.compile(
    rf'\{{{_ID},"transfer":"([0-9a-f]{{32}})",{_PATH},"kind":"file",{_SIZE},"mtime":{_NANOSECONDS},'
    r'"mode":(0|[1-9][0-9]{0,2}),"policy":"(fail|rename|replace|skip)"\}'
)
_END = re.compile(rf'\{{{_ID},{_SIZE},"sha256":{_DIGEST},"mac":{_DIGEST}\}}')
_RECEIPT = re.compile(
    rf'\{{{_ID},{_PATH},{_SIZE},"sha256":{_DIGEST},"time":{_NANOSECONDS},"outcome":"(stored|already)"\}}'
)

_quote = json.encoder.encode_basestring
_bytes = bytes.fromhex
Reader = Callable[[memoryview], tuple[Any, ...] | None]


def _match(expression: re.Pattern[str], body: memoryview) -> "re.Match[str] | None":
    try:
        return expression.fullmatch(str(body, "utf-8"))
    except UnicodeDecodeError:
        return None


def read_put(body: memoryview) -> tuple[Any, ...] | None:
    """The fields of a PUT of a file whose size, time and mode are known."""
    found = _match(_PUT, body)
    if found is None:
        return None
    id, transfer, path, size, mtime, mode, policy = found.groups()
    if (nanoseconds := int(mtime)) > MAX_INTEGER:
        return None
    # Each quote ends a component or begins one, and the first that is found ends one: there is one way to split.
    return int(id), _bytes(transfer), tuple(path.split('","')), "file", int(size), nanoseconds, int(mode), policy


def read_end(body: memoryview) -> tuple[Any, ...] | None:
    """The fields of an END."""
    found = _match(_END, body)
    if found is None:
        return None
    id, size, sha256, mac = found.groups()
    return int(id), int(size), _bytes(sha256), _bytes(mac)


def read_receipt(body: memoryview) -> tuple[Any, ...] | None:
    """The fields of a RECEIPT for a file that is there."""
    found = _match(_RECEIPT, body)
    if found is None:
        return None
    id, path, size, sha256, time, outcome = found.groups()
    if (nanoseconds := int(time)) > MAX_INTEGER:
        return None
    return int(id), tuple(path.split('","')), int(size), _bytes(sha256), nanoseconds, outcome


def write_put(
    id: int,
    transfer: bytes,
    path: tuple[str, ...],
    kind: str,
    size: int | None,
    mtime: int | None,
    mode: int | None,
    policy: str,
) -> str:
    """The body of a PUT."""
    return (
        f'{{"id":{id},"transfer":"{transfer.hex()}","path":[{",".join(map(_quote, path))}],"kind":"{kind}",'
        f'"size":{_number(size)},"mtime":{_number(mtime)},"mode":{_number(mode)},"policy":"{policy}"}}'
    )


def write_end(id: int, size: int, sha256: bytes, mac: bytes) -> str:
    """The body of an END."""
    return f'{{"id":{id},"size":{size},"sha256":"{sha256.hex()}","mac":"{mac.hex()}"}}'


def write_receipt(id: int, path: tuple[str, ...], size: int, sha256: bytes | None, time: int, outcome: str) -> str:
    """The body of a RECEIPT."""
    digest = "null" if sha256 is None else f'"{sha256.hex()}"'
    return (
        f'{{"id":{id},"path":[{",".join(map(_quote, path))}],"size":{size},"sha256":{digest},"time":{time},'
        f'"outcome":"{outcome}"}}'
    )


def _number(value: int | None) -> "int | str":
    return "null" if value is None else value
