"""Where something listens: `HOST:PORT`, as an administrator writes it.

Rules: an IPv6 address stands in brackets. Whether there is such an address is not looked at.
"""

from typing import NamedTuple

_MOST_PORT = 65535


class Place(NamedTuple):
    """An address or name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str) -> Place:
    """Read it. Raises ValueError with words that follow the text in an error."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    is_whole = bool(colon and host) and port.isascii() and port.isdecimal() and int(port) <= _MOST_PORT
    if not is_whole or (":" in host) != is_bracketed or "\0" in host:
        raise ValueError("is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return Place(host, int(port))
