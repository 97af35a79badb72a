"""What counts as one source of connections: an IPv4 address, or an IPv6 /64, whose holder has 2^64 addresses.

Rules: the text of an address is read, and nothing else is done.
"""

import ipaddress

_IPV4_SIZE = 4
_IPV6_PREFIX = 64


def origin_of(address: str) -> bytes:
    """The 4 bytes of an IPv4 address, mapped ones included; the first 8 of an IPv6 one. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.packed
    if parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.packed
    return parsed.packed[:8]


def read_origin(text: str) -> bytes | None:
    """The source that an administrator names by an address or a /64; None for what is neither."""
    try:
        return origin_of(text)
    except ValueError:
        pass
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError:
        return None
    return network.network_address.packed[:8] if network.prefixlen == _IPV6_PREFIX else None


def shown_origin(address: str) -> str:
    """The source of that address, for people: `192.0.2.1`, `2001:db8::/64`. Raises ValueError."""
    origin = origin_of(address)
    if len(origin) == _IPV4_SIZE:
        return str(ipaddress.IPv4Address(origin))
    return str(ipaddress.IPv6Network((origin + bytes(8), _IPV6_PREFIX)))
