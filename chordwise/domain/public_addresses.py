"""Which addresses of the internet a request may go to that a setting names, and which are inside.

Whoever can make us send a request somewhere must not reach what only we can reach: this machine,
its network, the metadata service of a cloud (OWASP, server-side request forgery).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# What the registries call global, and what leads inside all the same.
_INSIDE = (
    ip_network("168.63.129.16/32"),  # Azure's own services for a machine
    ip_network("192.0.0.0/24"),  # RFC 6890, with the metadata of some clouds in it
    ip_network("192.88.99.0/24"),  # RFC 7526, relays into IPv6
    ip_network("::/96"),  # RFC 4291, IPv4 in a form that is given up
    ip_network("64:ff9b:1::/48"),  # RFC 8215, translation into a local network
    ip_network("2001::/32"),  # RFC 4380, Teredo
    ip_network("2002::/16"),  # RFC 3056, IPv4 inside of IPv6
    ip_network("fec0::/10"),  # RFC 3879, site-local
)


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet; what is no address does not."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    inside = any(found in network for network in _INSIDE if network.version == found.version)
    return found.is_global and not found.is_multicast and not inside
