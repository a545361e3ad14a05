"""Addresses of servers: which one is a provider's own, and how to show one without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import MappingProxyType
from urllib.parse import SplitResult, parse_qsl, urlsplit

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


HIDDEN = "********"
_PROVIDER_HOSTS: Mapping[str, str] = MappingProxyType(
    {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
)
_SHORTEST_KEY = 8
_KEY_IN_PATH = re.compile(r"(?<![^/])(?:sk|key|pk)-[^/]{8,}")


def is_at_provider(provider: str, base_url: str) -> bool:
    """Tell whether an address is the provider's public one, which an empty one stands for.

    It has to be HTTPS, the very host, and its usual port; user information makes it another one.
    """
    host = _PROVIDER_HOSTS.get(provider)
    if host is None or not base_url.strip():
        return host is not None
    parts = _split(base_url.strip())
    return (
        parts is not None
        and parts.scheme == "https"
        and parts.netloc.lower() in {host, f"{host}:443"}
    )


def provider_host(provider: str) -> str:
    """Return the host of a provider's public address; empty where there is none."""
    return _PROVIDER_HOSTS.get(provider, "")


def has_user(address: str) -> bool:
    """Tell whether an address holds user information, which is sent as Basic authorization."""
    parts = _split(address.strip())
    return parts is not None and "@" in parts.netloc


def shown(address: str, *, hide_path: bool = False) -> str:
    """Return an address with everything hidden that may be secret.

    That is the password, the user where it may be a token, the query, the fragment, keys in the
    path, and with `hide_path` the whole path. What is no address is hidden where it may hold one.
    """
    parts = _split(address)
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
    """Return what of an address may be secret: user information, query, keys in the path.

    What is too short for a key, and the version of an API, are none.
    """
    parts = _split(address)
    if parts is None:
        return (address,)
    values = (value for name, value in parse_qsl(parts.query) if name != "api-version")
    found = (parts.username, parts.password, *values, *_KEY_IN_PATH.findall(parts.path))
    return tuple(each for each in found if each and len(each) >= _SHORTEST_KEY)


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts
