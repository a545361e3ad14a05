"""JSON over HTTP with one deadline for the whole call; hides httpx from all other modules.

httpx limits phases (connect, each read), not calls, and its pool is quadratic in its connections.
Each thread therefore has separate connections, over a network backend whose socket operations wait
no longer than the rest of the running call. Proxies and `.netrc` files of the environment are not
used: documents are sent only to the address in the settings.
"""

from __future__ import annotations

import html
import json
import os
import re
import ssl
import threading
import uuid
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import BinaryIO, NoReturn, cast
from urllib.parse import urljoin

import httpcore
import httpx

from chordwise.domain import addresses
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import (
    ModelAccessError,
    ModelTimeoutError,
    ModelTransportError,
    ModelUnreachableError,
)
from chordwise.llm.connections import Body, Channel

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024 * 1024
"""The size limit of a decompressed file, which is on disk, not in memory.

It allows 50 kB for each of the 20,000 answers to a batch; 10 kB are usual.
"""
CALL_HEADER = "x-client-request-id"
"""The header for a client's request id, which OpenAI logs and other servers ignore."""
_HEADERS: Mapping[str, str] = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "user-agent": "chordwise",
}
_KEY_HEADERS = ("authorization", "x-api-key")
HIDDEN_ENDPOINT_HINT = "Check base_url: does it lead to the API, or to a login page?"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonResponse:
    """A complete answer of any status except a redirect.

    `headers` have lower-case names. `body` is `None` if an error's body is not JSON; `excerpt` then
    describes it in one short line.
    """

    status: int
    headers: Mapping[str, str]
    body: JsonValue
    excerpt: str = ""


class JsonTransport:
    """Exchanges JSON with providers; each thread that shares it has separate connections."""

    def __init__(
        self, *, max_body_bytes: int = MAX_BODY_BYTES, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_file_bytes = max_file_bytes
        self._local = threading.local()
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        # Hosts that return the id of a request; some gateways write ids of their own instead.
        self._echoing: set[str] = set()

    def post_json(
        self, url: str, headers: Mapping[str, str], body: JsonObject, timeout_seconds: float
    ) -> JsonResponse:
        """Send `body` and return the complete answer within `timeout_seconds`.

        Raises:
            ModelTransportError: The answer is missing, incomplete, too large, or not JSON.
            ModelAccessError: A redirect, a web page instead of an answer, an untrusted certificate.
        """
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="replace")
        headers = {"content-type": "application/json", **headers}
        return self.send("POST", url, headers, content, timeout_seconds)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout_seconds: float,
    ) -> JsonResponse:
        """Send any content with any method and return the answer, as `post_json`.

        Raises:
            ModelTransportError: As above.
            ModelAccessError: As above.
        """
        with self._answer(method, url, headers, content, timeout_seconds) as response:
            raw = self._read(response)
        return _parsed(response, raw)

    def download(
        self, url: str, headers: Mapping[str, str], target: BinaryIO, timeout_seconds: float
    ) -> JsonResponse | None:
        """Write a complete file to `target`, decompressed; return the error answer, if any.

        Raises:
            ModelTransportError: The file is missing, incomplete, or larger than `MAX_FILE_BYTES`.
            ModelAccessError: A redirect, or an untrusted certificate.
        """
        with self._answer("GET", url, headers, None, timeout_seconds) as response:
            if response.status_code != HTTPStatus.OK:
                return _parsed(response, self._read(response))
            target.writelines(self._pieces(response, self._max_file_bytes))
        return None

    def close(self) -> None:
        """Close the connections of all threads; a later call opens new ones."""
        for channel in list(self._channels):
            channel.transport.close()
        self._local = threading.local()

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout_seconds: float,
    ) -> Iterator[httpx.Response]:
        channel, address = self._channel(), _address(url)
        request = httpx.Request(method, address, headers={**_HEADERS, **headers}, content=content)
        channel.deadline.start(timeout_seconds)
        with (
            _translated(address.host, timeout_seconds),
            closing(channel.transport.handle_request(request)) as response,
        ):
            yield response
        self._require_fresh_answer(channel, response)
        self._require_matching_id(channel, response, headers)

    def _channel(self) -> Channel:
        channel = cast("Channel | None", getattr(self._local, "channel", None))
        # A forked child must not use its parent's sockets.
        if channel is None or channel.process_id != os.getpid():
            channel = Channel()
            self._local.channel = channel
            self._channels.add(channel)
        return channel

    def _read(self, response: httpx.Response) -> bytes:
        return b"".join(self._pieces(response, self._max_body_bytes))

    def _pieces(self, response: httpx.Response, max_bytes: int) -> Iterator[bytes]:
        host, encoding = response.url.host, response.headers.get("content-encoding", "")
        try:
            yield from unpacked(_body(response), encoding, max_bytes)
        except TooLargeError as error:
            what = f"{host} sent more than {max_bytes:,} bytes."
            raise ModelTransportError(what, HIDDEN_ENDPOINT_HINT) from error
        except UnknownPackingError as error:
            name = excerpt(encoding, _hidden(response))
            what = f"{host} sent a body with an unsupported compression ({name})."
            raise ModelTransportError(what, HIDDEN_ENDPOINT_HINT) from error
        except zlib.error as error:
            raise ModelTransportError(f"{host} sent an invalid compressed body.") from error

    def _require_fresh_answer(self, channel: Channel, response: httpx.Response) -> None:
        """Reject an answer of which a part arrived before its request was sent.

        A server that answers twice leaves one answer in the connection's buffer, where the next
        request would read it. That connection is not used again.
        """
        head = sum(len(name) + len(value) for name, value in response.headers.raw)
        if channel.deadline.received_bytes >= head + _body(response).received_bytes:
            return
        self._abandon(channel)
        raise ModelTransportError(
            f"{response.url.host} sent a response before the request: that of another request."
        )

    def _require_matching_id(
        self, channel: Channel, response: httpx.Response, headers: Mapping[str, str]
    ) -> None:
        """Reject an answer with an id of the form of ours, or from an echoing host, but not ours.

        A gateway that confuses two answers may do so again on the same connections, so they are
        closed.
        """
        ours, host = headers.get(CALL_HEADER), response.url.netloc.decode()
        # It occurs twice if both a gateway and its upstream server return it.
        theirs = response.headers.get_list(CALL_HEADER, split_commas=True)
        if ours is None:
            return
        if ours.lower() in map(str.lower, theirs):
            self._echoing.add(host)
            return
        if not any(host in self._echoing or _form(call_id) == _form(ours) for call_id in theirs):
            return
        self._abandon(channel)
        raise ModelTransportError(
            f"{host} sent the answer to another request "
            f"({excerpt(', '.join(theirs), _hidden(response))}).",
            "A gateway mixes up responses, or writes its own ids into "
            f"{CALL_HEADER}; check base_url.",
        )

    def _abandon(self, channel: Channel) -> None:
        self._local = threading.local()
        channel.transport.close()


def _body(response: httpx.Response) -> Body:
    return cast("Body", response.stream)


@lru_cache(maxsize=64)
def _address(url: str) -> httpx.URL:
    """Parse an address once, instead of with each call."""
    return httpx.URL(url)


@contextmanager
def _translated(host: str, timeout_seconds: float) -> Iterator[None]:
    """Translate errors of the HTTP libraries to a `ModelError`; their texts stay in the chain."""
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise ModelUnreachableError(
            f"{host} could not be reached in time.", "Check base_url and the network."
        ) from error
    except httpcore.TimeoutException as error:
        raise ModelTimeoutError(
            f"{host} did not complete its response within {timeout_seconds:g} s.",
            granted_seconds=timeout_seconds,
        ) from error
    except httpcore.ConnectError as error:
        _raise_connect_error(host, error)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError) as error:
        raise ModelTransportError(
            f"The connection to {host} broke off ({type(error).__name__})."
        ) from error


def _raise_connect_error(host: str, error: httpcore.ConnectError) -> NoReturn:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ModelAccessError(
                f"The certificate of {host} is not trusted: {excerpt(cause.verify_message)}.",
                "Add its authority with SSL_CERT_FILE, or check base_url.",
            ) from error
        # httpcore re-raises it “from None”, so only `__context__` has the cause.
        cause = cause.__cause__ or cause.__context__
    raise ModelUnreachableError(
        f"{host} cannot be reached: {excerpt(str(error))}.", "Check base_url and the network."
    ) from error


def _parsed(response: httpx.Response, raw: bytes) -> JsonResponse:
    status, host, hidden = response.status_code, response.url.host, _hidden(response)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        target = excerpt(_redirected(response), hidden)
        raise ModelAccessError(
            f"{host} redirects the request (HTTP {status}) to {target}.", HIDDEN_ENDPOINT_HINT
        )
    headers = {name.lower(): value for name, value in response.headers.items()}
    try:
        body = cast("JsonValue", json.loads(raw))
    except (ValueError, RecursionError) as error:
        if status >= HTTPStatus.BAD_REQUEST:
            shown = page_title(raw, hidden) or excerpt(raw[:4096].decode(errors="replace"), hidden)
            return JsonResponse(status=status, headers=headers, body=None, excerpt=shown)
        _raise_not_json(host, raw, hidden, error)
    return JsonResponse(status=status, headers=headers, body=body)


def _hidden(response: httpx.Response) -> Sequence[str]:
    """Return what an error must not repeat of a request: its key, and secrets in its address."""
    sent = response.request
    keys = [sent.headers.get(name, "").rpartition(" ")[2] for name in _KEY_HEADERS]
    return (*keys, *addresses.secrets_in(str(sent.url)))


def _redirected(response: httpx.Response) -> str:
    """Return the target of a redirect, without the secrets that it may repeat."""
    location = response.headers.get("location")
    if location is None:
        return "nowhere"
    with suppress(ValueError):
        return addresses.redacted(urljoin(str(response.url), location))
    return addresses.HIDDEN


def _raise_not_json(host: str, raw: bytes, hidden: Sequence[str], error: Exception) -> NoReturn:
    if raw.lstrip()[:1] == b"<":
        raise ModelAccessError(
            f"{host} responds with a web page (“{page_title(raw, hidden)}”) instead of JSON.",
            HIDDEN_ENDPOINT_HINT,
        ) from error
    raise ModelTransportError(
        f"{host} sent {len(raw):,} bytes that are not JSON.", HIDDEN_ENDPOINT_HINT
    ) from error


MAX_CHARACTERS = 300
# A match of this many consecutive characters counts as a part of the hidden text.
_ECHO_CHARACTERS = 24
_TITLE = re.compile(rb"<title[^<>]*+>([^<]{1,500})", re.IGNORECASE)


def excerpt(text: str, hidden: Iterable[str] = ()) -> str:
    """Return the beginning of `text`, escaped, on one line.

    If it repeats a part of a `hidden` text (the key, the prompt), a placeholder is returned.
    """
    line = " ".join(text[: 4 * MAX_CHARACTERS].split())
    if any(_echoes(line, secret) for secret in hidden):
        return "(not shown: it repeats the request)"
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return shown if len(shown) <= MAX_CHARACTERS else shown[: MAX_CHARACTERS - 1] + "…"


def page_title(raw: bytes, hidden: Iterable[str] = ()) -> str:
    """Return the title of a web page as an `excerpt`; empty if it has none."""
    match = _TITLE.search(raw[:65_536])
    return excerpt(html.unescape(match[1].decode(errors="replace")), hidden) if match else ""


def _echoes(line: str, secret: str) -> bool:
    line, secret = line.lower(), " ".join(secret.split()).lower()  # codes are stored in lower case
    length = min(_ECHO_CHARACTERS, len(secret))
    if length == 0:
        return False
    return any(line[start : start + length] in secret for start in range(len(line) - length + 1))


PLAIN = frozenset({"", "identity"})
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""Compressions that servers use unrequested; the header of the data distinguishes them."""
_EITHER_HEADER = zlib.MAX_WBITS | 32
# 64 KiB may decompress to a thousand times as much; this much is in memory at once.
_UNPACKED_BYTES = 1024 * 1024


class TooLargeError(ValueError):
    """The body exceeds the size limit."""


class UnknownPackingError(ValueError):
    """The body has a compression that was not requested, or more than one."""


def unpacked(pieces: Iterable[bytes], encoding: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the decompressed body in small pieces, up to `max_bytes`.

    `encoding` is the header `content-encoding`, empty if there is none.

    Raises:
        TooLargeError: It is larger than `max_bytes`; at most this much was yielded.
        UnknownPackingError: It is not compressed exactly once with gzip or deflate.
        zlib.error: The compressed data is corrupt or truncated.
    """
    encoding = encoding.strip().lower()
    if encoding in PLAIN:
        return _bounded(pieces, max_bytes)
    if encoding in PACKED:
        return _bounded(_unpacked(_bounded(pieces, max_bytes)), max_bytes)
    raise UnknownPackingError(encoding)


def _bounded(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise TooLargeError
        yield piece


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of all members of a body; gzip may have several (RFC 1952, 2.2)."""
    unpacker = None
    for piece in pieces:
        packed = piece
        while packed:
            if unpacker is None or unpacker.eof:
                unpacker = zlib.decompressobj(_EITHER_HEADER)
            yield unpacker.decompress(packed, _UNPACKED_BYTES)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if unpacker is not None:
        yield unpacker.flush()
        if not unpacker.eof:
            raise zlib.error("cut off")


def _form(id_: str) -> int | None:
    """Return the version of a UUID; `None` if there is none or the text is not a UUID."""
    try:
        return uuid.UUID(id_).version
    except ValueError:
        return None
