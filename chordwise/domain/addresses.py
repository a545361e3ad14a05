"""Addresses of servers: recognition of public ones, and display without secrets."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, parse_qsl, urlsplit

_UNICAST = ip_network("2000::/3")  # RFC 4291, the only part of IPv6 that is assigned
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Addresses that `is_global` may accept, although they can lead to internal networks.
_INSIDE = (
    ip_network("168.63.129.16/32"),  # internal services of Azure
    ip_network("192.0.0.0/24"),  # RFC 6890, includes the metadata service of some clouds
    ip_network("192.88.99.0/24"),  # RFC 7526, relays into IPv6
    ip_network("2001::/32"),  # RFC 4380, Teredo
    ip_network("2002::/16"),  # RFC 3056, IPv4 inside of IPv6
    ip_network("3fff::/20"),  # RFC 9637, documentation
)


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet; false for an invalid address."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped
        if ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    inside = any(ip in network for network in _INSIDE if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not inside


HIDDEN = "********"
_SHORTEST_KEY = 8
_KEY_IN_PATH = re.compile(r"(?<![^/])(?:sk|key|pk)-[^/]{8,}")


def has_user(address: str) -> bool:
    """Return whether an address contains user information, which is sent as Basic authorization."""
    parts = split(address.strip())
    return parts is not None and "@" in parts.netloc


def redacted(address: str, *, hide_path: bool = False) -> str:
    """Return an address with all possible secrets hidden, and with `hide_path` the whole path."""
    parts = split(address)
    if parts is None or not parts.scheme or "@" in parts.path or "://" not in address:
        is_plain = parts is not None and not set("@?#") & set(address)
        return address if is_plain and not hide_path else HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    if at:
        is_database = not parts.scheme.startswith("http") and parts.password
        name = f"{user.partition(':')[0]}:" if is_database else ""
        host = f"{name}{HIDDEN}@{host}"
    path = _KEY_IN_PATH.sub(HIDDEN, parts.path)
    if hide_path and path.strip("/"):
        path = "/…"
    return f"{parts.scheme}://{host}{path}{'?…' if parts.query else ''}"


def secrets_in(address: str) -> tuple[str, ...]:
    """Return the possible secrets in an address: user information, query values, keys in paths."""
    parts = split(address)
    if parts is None:
        return (address,)
    values = (value for name, value in parse_qsl(parts.query) if name != "api-version")
    texts = (parts.username, parts.password, *values, *_KEY_IN_PATH.findall(parts.path))
    return tuple(text for text in texts if text and len(text) >= _SHORTEST_KEY)


def split(address: str) -> SplitResult | None:
    """Return the parts of an address; `None` if it is invalid."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts
