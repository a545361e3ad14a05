"""The signed request that notifies a receiver of the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import urlsplit

import httpcore

from chordwise.domain import webhook_signatures
from chordwise.domain.addresses import is_public
from chordwise.errors import DeliveryError, DeliveryRefusedError
from chordwise.llm.connections import Deadline, DeadlineNetwork, Resolve, addresses_of, certificates
from chordwise.settings import DeliverySettings

_MAX_BYTES = 64 * 1024
_REDIRECTS = range(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST)
_SUCCESSES = range(HTTPStatus.OK, HTTPStatus.MULTIPLE_CHOICES)


class Webhook:
    """Posts to the configured address, over a new connection each time; follows no redirects."""

    def __init__(self, settings: DeliverySettings, resolve: Resolve = addresses_of) -> None:
        self._settings = settings
        self._resolve = resolve

    def post(self, identity: str, timestamp: int, body: bytes) -> None:
        """Send a signed body, and require its acceptance within the configured timeout.

        Raises:
            DeliveryRefusedError: The receiver rejected the delivery permanently.
            DeliveryError: The receiver could not be reached, or did not accept the delivery.
        """
        url = self._settings.webhook_url.get_secret_value()
        host = urlsplit(url).hostname or ""
        key = webhook_signatures.key_of(self._settings.webhook_secret.get_secret_value())
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": f"chordwise/{version('chordwise')}",
            **webhook_signatures.signed_headers(key, identity, timestamp, body),
        }
        with _translated(host, self._settings.timeout_seconds):
            _raise_for_status(host, self._status(url, headers, body))

    def _status(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status code of the response, even if its body cannot be read."""
        deadline = Deadline()
        deadline.start(self._settings.timeout_seconds)
        allow_private = self._settings.allow_private_addresses
        network = guarded_network(deadline, allow_private=allow_private, resolve=self._resolve)
        with (
            httpcore.ConnectionPool(ssl_context=certificates(), network_backend=network) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as answer,
        ):
            _drain(answer)
            return answer.status


def _drain(answer: httpcore.Response) -> None:
    """Read a short response completely, so that the receiver sees no broken connection."""
    length = 0
    with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        for piece in answer.iter_stream():
            length += len(piece)
            if length > _MAX_BYTES:
                return


def _raise_for_status(host: str, status: int) -> None:
    if status in _SUCCESSES:
        return
    if status == HTTPStatus.GONE:
        raise DeliveryRefusedError(f"{host} accepts no more webhooks (HTTP {status}).")
    if status in _REDIRECTS:
        raise DeliveryError(
            f"{host} redirects the webhook (HTTP {status}), which is not followed.",
            "Set delivery.webhook_url to the final address.",
        )
    raise DeliveryError(f"{host} rejected the webhook (HTTP {status}).")


@contextmanager
def _translated(host: str, timeout_seconds: float) -> Iterator[None]:
    """Translate the errors of the HTTP library into `DeliveryError`, without the full address."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise DeliveryError(
            f"{host} did not respond to the webhook within {timeout_seconds:g} s."
        ) from error
    except httpcore.ConnectError as error:
        raise DeliveryError(f"{host} cannot be reached.") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise DeliveryError(
            f"The connection to {host} broke off ({type(error).__name__})."
        ) from error


def guarded_network(
    deadline: Deadline,
    *,
    allow_private: bool,
    resolve: Resolve,
    sockets: httpcore.NetworkBackend | None = None,
) -> DeadlineNetwork:
    """Return a network backend with a deadline that connects only to allowed addresses."""
    checked = partial(allowed_addresses, allow_private=allow_private, resolve=resolve)
    return DeadlineNetwork(deadline, resolve=checked, sockets=sockets)


def allowed_addresses(
    host: str, port: int, *, allow_private: bool, resolve: Resolve = addresses_of
) -> Sequence[str]:
    """Return the addresses of a host name; even one private address is an error.

    Private addresses are permitted with `allow_private`.

    Raises:
        DeliveryError: The host name has an address that is not allowed, or none.
    """
    try:
        addresses = resolve(host, port)
    except httpcore.ConnectError as error:
        raise DeliveryError(f"{host} has no address.", "Check delivery.webhook_url.") from error
    inside = [each for each in addresses if not is_public(each)]
    if inside and not allow_private:
        raise DeliveryError(
            f"{host} resolves to {inside[0]}, which is not a public address.",
            "Set delivery.allow_private_addresses if this is intended.",
        )
    return addresses
