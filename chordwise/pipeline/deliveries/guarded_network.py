"""Connections to the public internet only: what a name leads to is looked at, and then used.

The addresses that were checked are those that are connected to. A name that leads elsewhere the
next time it is asked (DNS rebinding) gains nothing by it; TLS still checks the name.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import httpcore

from chordwise.domain.public_addresses import is_public
from chordwise.errors import DeliveryError
from chordwise.llm.deadline_network import CONNECT_SECONDS, Deadline, DeadlineStream

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
_SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


def addresses_of(host: str, port: int) -> Sequence[str]:
    """Return what the resolver of this machine knows of a name.

    Raises:
        DeliveryError: It knows nothing.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{host} has no address.", "Check delivery.webhook_url.") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedNetwork(httpcore.NetworkBackend):
    """Opens connections within a deadline, and to no address inside unless that is allowed."""

    def __init__(
        self,
        deadline: Deadline,
        *,
        allow_private: bool,
        resolve: Resolve = addresses_of,
        sockets: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._resolve = resolve
        self._sockets = sockets or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline stands in its place
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers.

        Raises:
            DeliveryError: The name leads inside, or nowhere.
        """
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._checked(host, self._resolve(host, port)):
            patience = min(CONNECT_SECONDS, self._deadline.remaining())
            try:
                stream = self._sockets.connect_tcp(
                    address, port, patience, local_address, socket_options or ()
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream, self._deadline)
        raise failure

    def _checked(self, host: str, addresses: Sequence[str]) -> Sequence[str]:
        """Return the addresses, all of which have to be allowed: one inside is one too many."""
        inside = [each for each in addresses if not is_public(each)]
        if inside and not self._allow_private:
            raise DeliveryError(
                f"{host} leads to {inside[0]}, which is not on the public internet.",
                "Set delivery.allow_private_addresses if that is meant.",
            )
        return addresses
