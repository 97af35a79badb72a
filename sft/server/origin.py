"""What counts as one source of connections: an IPv4 address, or an IPv6 /64, whose holder has 2^64 addresses.

Rules: it judges the text of an address and does nothing else.
"""

import ipaddress


def origin_of(address: str) -> bytes:
    """The 4 bytes of an IPv4 address, mapped ones included; the first 8 of an IPv6 one. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.packed
    if parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.packed
    return parsed.packed[:8]
