"""Webhook: a signed request to the user's HTTP endpoint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpcore
import structlog
from pydantic import Field, SecretStr, model_validator

from chordwise.domain import json_values
from chordwise.domain.addresses import is_public
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import ConfigurationError, DeliveryError, DeliveryRefusedError, ReadError
from chordwise.llm.connections import Deadline, DeadlineNetwork, Resolve, addresses_of, certificates
from chordwise.readers import contents
from chordwise.settings import service_addresses
from chordwise.settings.receivers import Notice, Receiver

if TYPE_CHECKING:
    from chordwise.settings import Settings

log = structlog.get_logger(__name__)
SCHEMA_VERSION = 1
_HTTPS_PORT, _HTTP_PORT = 443, 80
_OF_FILES = ("run", "delivery_id")
_REPORT_MEGABYTES = 16
_MAX_BYTES = 64 * 1024
_REDIRECTS = range(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST)
_SUCCESSES = range(HTTPStatus.OK, HTTPStatus.MULTIPLE_CHOICES)
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


class Webhook(Receiver):
    """Posts to the configured address, over a new connection each time; follows no redirects."""

    url: SecretStr
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs the requests: whsec_ and 24 to 64 bytes in base64.",
    )
    allow_http: bool = Field(default=False, description="Allow a url with http://.")
    allow_private_addresses: bool = Field(
        default=False, description="Allow a url on this machine or its network."
    )
    report: bool = Field(default=False, description="Send the file of a scheduled insight.")

    @model_validator(mode="after")
    def check_url(self) -> Webhook:
        """Refuse an address that cannot be called, and a missing secret."""
        url = self.url.get_secret_value()
        if not url.isascii():
            raise ValueError("url must be an ASCII address that begins with https://")
        try:
            service_addresses.check_web(url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if url.strip().lower().startswith("http://") and not self.allow_http:
            raise ValueError("url begins with http://: use https:// or set allow_http = true")
        try:
            key_of(self.secret.get_secret_value())
        except ValueError as error:
            raise ValueError(
                f"secret is {error}; create one with: openssl rand -base64 32"
            ) from None
        return self

    def check(self, settings: Settings) -> str:  # noqa: ARG002 - as in the port
        """Resolve the address, without a request."""
        url = urlsplit(self.url.get_secret_value())
        host = url.hostname or ""
        port = url.port or (_HTTPS_PORT if url.scheme == "https" else _HTTP_PORT)
        try:
            addresses = allowed_addresses(host, port, allow_private=self.allow_private_addresses)
        except DeliveryError as error:
            raise ConfigurationError(error.what, error.hint) from error
        return f"{host} resolves to {addresses[0]}, which is allowed; requests are signed"

    def deliver(self, notice: Notice, settings: Settings) -> None:  # noqa: ARG002 - as in the port
        """Post the notice, which contains no text of a document."""
        content = notice.content
        if notice.event == DeliveryEvent.REPORT_WRITTEN and self.report:
            content = {**content, "html": _file_text(json_values.text(content.get("file")))}
        message = {
            "type": notice.event,
            "timestamp": notice.created_at.isoformat(),
            "schema_version": SCHEMA_VERSION,
            "data": {name: content[name] for name in content if name not in _OF_FILES},
        }
        # PostgreSQL reorders the members; sorted keys give every attempt the same bytes.
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        self.post(notice.id, int(notice.attempted_at.timestamp()), text.encode())

    def post(self, identity: str, timestamp: int, body: bytes) -> None:
        """Send a signed body, and require its acceptance within the timeout.

        Raises:
            DeliveryRefusedError: The receiver rejected the delivery permanently.
            DeliveryError: The receiver could not be reached, or did not accept the delivery.
        """
        host = urlsplit(self.url.get_secret_value()).hostname or ""
        key = key_of(self.secret.get_secret_value())
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": f"chordwise/{version('chordwise')}",
            **signed_headers(key, identity, timestamp, body),
        }
        with _translated(host, self.timeout_seconds):
            _raise_for_status(host, self._status(headers, body))

    def _status(self, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status code of the response, even if its body cannot be read."""
        url, deadline = self.url.get_secret_value(), Deadline()
        deadline.start(self.timeout_seconds)
        network = guarded_network(deadline, allow_private=self.allow_private_addresses)
        with (
            httpcore.ConnectionPool(ssl_context=certificates(), network_backend=network) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as answer,
        ):
            length = 0  # a short body is read completely, so that no connection seems broken
            with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
                for piece in answer.iter_stream():
                    length += len(piece)
                    if length > _MAX_BYTES:
                        break
            return answer.status


RECEIVER = Webhook


def _file_text(path: str) -> str | None:
    """Return the text of a report; `None` if it is no longer a readable file."""
    try:
        with contents.opened(Path(path), _REPORT_MEGABYTES, follow_symlinks=False) as file:
            return file.read().decode()
    except (ReadError, OSError, ValueError) as error:
        log.warning("delivery.report_missing", path=path, error=type(error).__name__)
        return None


def _raise_for_status(host: str, status: int) -> None:
    if status in _SUCCESSES:
        return
    if status == HTTPStatus.GONE:
        raise DeliveryRefusedError(f"{host} accepts no more webhooks (HTTP {status}).")
    if status in _REDIRECTS:
        raise DeliveryError(
            f"{host} redirects the webhook (HTTP {status}), which is not followed.",
            "Set deliveries.webhook.url to the final address.",
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
    resolve: Resolve = addresses_of,
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
        raise DeliveryError(f"{host} has no address.", "Check deliveries.webhook.url.") from error
    inside = [address for address in addresses if not is_public(address)]
    if inside and not allow_private:
        raise DeliveryError(
            f"{host} resolves to {inside[0]}, which is not a public address.",
            "Set deliveries.webhook.allow_private_addresses if this is intended.",
        )
    return addresses


def key_of(secret: str) -> bytes:
    """Decode the key of a secret: Base64, with or without its prefix.

    Raises:
        ValueError: It is not Base64, or not of 24 to 64 bytes; the message does not contain it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError("not 24 to 64 bytes in base64")
    return key


def signed_headers(key: bytes, identity: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """Return the headers with the id, the same in each attempt, the time and the signature.

    The signature is that of Standard Webhooks 1.0.0, with HMAC-SHA256.
    """
    content = f"{identity}.{timestamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
