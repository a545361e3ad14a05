"""Connections to the public internet only: what a name leads to is looked at, and then used.

The addresses that were checked are those that are connected to. A name that leads elsewhere the
next time it is asked (DNS rebinding) gains nothing by it; TLS still checks the name.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpcore

from chordwise.domain.addresses import is_public
from chordwise.errors import DeliveryError
from chordwise.llm.connections import Deadline, DeadlineNetwork, Resolve, addresses_of


class GuardedNetwork(DeadlineNetwork):
    """Opens connections within a deadline, and to no address inside unless that is allowed."""

    def __init__(
        self,
        deadline: Deadline,
        *,
        allow_private: bool,
        resolve: Resolve = addresses_of,
        sockets: httpcore.NetworkBackend | None = None,
    ) -> None:
        def checked(host: str, port: int) -> Sequence[str]:
            return allowed_addresses(host, port, allow_private=allow_private, resolve=resolve)

        super().__init__(deadline, resolve=checked, sockets=sockets)


def allowed_addresses(
    host: str, port: int, *, allow_private: bool, resolve: Resolve = addresses_of
) -> Sequence[str]:
    """Return the addresses of a name, all of which are allowed: one inside is one too many.

    Raises:
        DeliveryError: The name leads inside, or nowhere.
    """
    try:
        addresses = resolve(host, port)
    except httpcore.ConnectError as error:
        raise DeliveryError(f"{host} has no address.", "Check delivery.webhook_url.") from error
    inside = [each for each in addresses if not is_public(each)]
    if inside and not allow_private:
        raise DeliveryError(
            f"{host} leads to {inside[0]}, which is not on the public internet.",
            "Set delivery.allow_private_addresses if that is meant.",
        )
    return addresses
