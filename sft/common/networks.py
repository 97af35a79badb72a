"""Lists of addresses and networks, as an administrator writes them: `192.0.2.1, 10.0.0.0/8, fd00::/64`.

Rules: an IPv4 address that is mapped into IPv6 is that IPv4 address.
"""

import ipaddress
from dataclasses import dataclass

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Networks:
    """Some networks; `text` is how they were written."""

    text: str
    _networks: tuple[_Network, ...]

    def __str__(self) -> str:
        return self.text

    def __contains__(self, address: str) -> bool:
        """Whether an address is in one of them; IPv6 addresses may name an interface (`fe80::1%eth0`)."""
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._networks)


def parse_networks(text: str) -> Networks:
    """Read such a list, which may be empty. Raises ValueError with words that follow the value in an error."""
    found: list[_Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(
                f"has {part} in it, which is neither an address nor a network such as 10.0.0.0/8"
            ) from None
    return Networks(text, tuple(found))
