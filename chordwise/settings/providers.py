"""The names of the providers, and recognition of their public addresses."""

from __future__ import annotations

from typing import Annotated, Protocol, TypeAlias

from pydantic import AfterValidator

from chordwise.domain.addresses import split
from chordwise.kinds import Kinds


class Hosted(Protocol):
    """What the settings need of a provider: the host of its public address, empty without one."""

    host: str


PROVIDERS: Kinds[Hosted] = Kinds("chordwise.llm.providers", "PROVIDER")


def _known(name: str) -> str:
    if name not in PROVIDERS:
        raise ValueError(f"it must be one of {', '.join(PROVIDERS)}")
    return name


ProviderName: TypeAlias = Annotated[str, AfterValidator(_known)]


def host_of(provider: str) -> str:
    """Return the host of the public address of a provider; empty if there is none."""
    return PROVIDERS[provider].host if provider in PROVIDERS else ""


def is_at_provider(provider: str, base_url: str) -> bool:
    """Return whether an address is the provider's public one; an empty address counts as such.

    It must use HTTPS, the exact host, and the default port; an address with user information does
    not count.
    """
    host = host_of(provider)
    if not host or not base_url.strip():
        return bool(host)
    parts = split(base_url.strip())
    return (
        parts is not None
        and parts.scheme == "https"
        and parts.netloc.lower() in {host, f"{host}:443"}
    )
