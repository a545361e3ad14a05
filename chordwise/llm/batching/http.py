"""HTTP requests to a Batch API: authentication, error classification, and files by line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, cast

import structlog

from chordwise.domain.json_values import JsonObject, JsonValue, integer
from chordwise.errors import ModelAccessError, ModelError, ModelTransportError
from chordwise.llm.exchange import Exchange, endpoint
from chordwise.llm.faults import LOWEST_ERROR_STATUS, read_fault
from chordwise.llm.transport import MAX_BODY_BYTES, JsonResponse, excerpt

log = structlog.get_logger(__name__)

SHORT_SECONDS = 60.0
"""The timeout of a status request or a small request."""
LONG_SECONDS = 600.0
"""The timeout of an upload or a download."""
# The path, the method or the feature does not exist; key, model and request are not the cause.
_NOT_THERE = frozenset({404, 405, 501})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHttp:
    """A Batch API below `base_url`, with the key, error codes and transport of `exchange`."""

    base_url: str
    exchange: Exchange

    def get(self, path: str, query: str = "") -> JsonObject:
        """Return the object at a path.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        url = endpoint(self.base_url, path)
        url += ("&" if "?" in url else "?") + query if query else ""
        headers = self.exchange.with_key()
        return self._read(self.exchange.transport.send("GET", url, headers, None, SHORT_SECONDS))

    def begin(self, path: str, content: bytes, content_type: str) -> JsonObject:
        """Send the first request of a batch and return the answer.

        Raises:
            ModelAccessError: There is no such API at this address, or it refuses the key.
            ModelError: The answer is another error, or there is none.
        """
        headers = {**self.exchange.with_key(), "content-type": content_type}
        url = endpoint(self.base_url, path)
        response = self.exchange.transport.send("POST", url, headers, content, LONG_SECONDS)
        if response.status in _NOT_THERE:
            raise ModelAccessError(
                f"{self.exchange.label} has no Batch API at its address "
                f"(HTTP {response.status} at {path}).",
                "Set batch = false for the model and restart; chordwise continue RUN asks online.",
            )
        return self._read(response)

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """Send JSON and return the answer.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        url, headers = endpoint(self.base_url, path), self.exchange.with_key()
        return self._read(self.exchange.transport.post_json(url, headers, body, SHORT_SECONDS))

    def lines(self, path: str) -> Iterator[JsonObject]:
        """Yield the objects of a file that has one per line; skip others, and lines over the limit.

        Raises:
            ModelError: The file cannot be read, or cannot be stored on disk; no line was yielded.
        """
        url, headers = endpoint(self.base_url, path), self.exchange.with_key()
        with _translated_disk_errors(self.exchange.label), tempfile.TemporaryFile() as file:
            failed = self.exchange.transport.download(url, headers, file, LONG_SECONDS)
            if failed is not None:
                raise self.exchange.failure(failed)
            file.seek(0)
            for line in _bounded_lines(file, MAX_BODY_BYTES):
                parsed = _parsed(line) if len(line) <= MAX_BODY_BYTES else None
                if isinstance(parsed, dict):
                    yield parsed
                elif line.strip():
                    log.warning("batch.line_unreadable", model=self.exchange.label, bytes=len(line))

    def refusal(self, error: JsonValue, status: int) -> ModelError:
        """Return the error in a line or in a batch; `status` is that of the same error online."""
        body: JsonValue = {"error": error}
        fault = read_fault(JsonResponse(status=status, headers={}, body=body))
        key = self.exchange.key.get_secret_value()
        quote = excerpt(fault.message or ", ".join(fault.codes), (key,))
        what = f"{self.exchange.label} could not answer in a batch: “{quote}”."
        return fault.kind(self.exchange.codes, self.exchange.phrases)(what)

    def _read(self, response: JsonResponse) -> JsonObject:
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or not answer:
            raise self.exchange.failure(response)
        return answer


@contextmanager
def _translated_disk_errors(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelTransportError(
            f"A file of a batch of {label} cannot be stored temporarily: {reason}.",
            "Free space for temporary files, or set TMPDIR to a folder on a larger disk.",
        ) from error


def _parsed(line: bytes) -> JsonValue:
    try:
        return cast("JsonValue", json.loads(line))
    except (ValueError, RecursionError):
        return None


def _bounded_lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield the lines; a line longer than `max_bytes` is cut off one byte after that."""
    while line := file.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = file.readline(max_bytes + 1)


def moment(value: JsonValue) -> datetime | None:
    """Return a provider's time, in seconds or by RFC 3339; `None` for any other value.

    In UTC, the time has to be within the years of Python: no other can be read from the database.
    """
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            instant = datetime.fromisoformat(value)
            return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def counts(value: JsonObject) -> dict[str, int]:
    """Return the integer members of an object."""
    numbers = {name: integer(number) for name, number in value.items()}
    return {name: number for name, number in numbers.items() if number is not None}
