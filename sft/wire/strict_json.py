"""The JSON of message bodies, to values and back: a strict reader, and a writer that always gives one form.

Rules: no duplicate field, no number but integers, nothing behind the end; whatever else Python would take is refused
with ProtocolViolation. It knows no message: which fields one has, and what they may hold, `sft/wire/messages.py` says.
"""

import json
from typing import Any, NoReturn

from sft.common.errors import Code, ProtocolViolation


def _refuse(*_: Any) -> NoReturn:
    raise ProtocolViolation("a number that is no integer")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolViolation("a duplicate field")
    return found


# An integer of over 4,300 digits is a ValueError of Python's own; what is shorter meets the range of its field.
_JSON = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse)


def read_json(body: memoryview) -> Any:
    """The value of a body, to its exact end. Raises ProtocolViolation."""
    try:
        text = str(body, "utf-8")
        value, end = _JSON.raw_decode(text)
    except ProtocolViolation:
        raise
    except (ValueError, RecursionError):  # the first covers bad UTF-8 and bad JSON, the second too deep a nesting
        raise ProtocolViolation("a body that is no JSON") from None
    if end != len(text):
        raise ProtocolViolation("a body with bytes left over")
    return value


_quote = json.encoder.encode_basestring


def _write_json(value: Any) -> str:
    """What `json.dumps` makes of a field, without blanks; each kind that a field has, and no other."""
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is str:
        return _quote(value)
    if kind is bytes:
        return f'"{value.hex()}"'
    if value is None:
        return "null"
    if kind is tuple:
        return f"[{','.join(map(_write_json, value))}]"
    if kind is bool:
        return "true" if value else "false"
    if kind is Code:
        return _quote(value.value)
    return write_fields(value)


def write_fields(value: Any) -> str:
    """An object of JSON: the fields that `value.CHECKS` names, in that order, without blanks."""
    fields = ",".join([f'"{name}":{_write_json(getattr(value, name))}' for name in value.CHECKS])
    return f"{{{fields}}}"
