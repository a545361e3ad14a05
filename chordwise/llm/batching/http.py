"""HTTP requests to a Batch API: authentication, error classification, and files by line."""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import BinaryIO, ClassVar, cast

import structlog

from chordwise.domain.json_values import JsonObject, JsonValue, integer
from chordwise.errors import ModelAccessError, ModelError, ModelTransportError
from chordwise.llm.batching import BatchApi, BatchState
from chordwise.llm.exchange import HttpModel
from chordwise.llm.faults import LOWEST_ERROR_STATUS, read_fault
from chordwise.llm.model import CompletionRequest
from chordwise.llm.transport import MAX_BODY_BYTES, JsonResponse, excerpt

log = structlog.get_logger(__name__)

SHORT_SECONDS = 60.0
"""The timeout of a status request or a small request."""
LONG_SECONDS = 600.0
"""The timeout of an upload or a download."""
# The path, the method or the feature does not exist; key, model and request are not the cause.
_NOT_THERE = frozenset({404, 405, 501})


class HttpBatches(BatchApi):
    """The batches of a model below `path`; errors are classified and authenticated as its own."""

    path: ClassVar[str]

    def __init__(self, model: HttpModel) -> None:
        self.model = model

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the body of a line."""
        return self.model.body(request)

    def retrieve(self, provider_id: str) -> BatchState:
        """Return the state of the batch."""
        return self._state(self._get(f"{self.path}/{provider_id}"))

    def cancel(self, provider_id: str) -> None:
        """Request the cancellation of a batch."""
        self._post(f"{self.path}/{provider_id}/cancel", {})

    @abstractmethod
    def _state(self, answer: JsonObject) -> BatchState: ...

    def _get(self, path: str, query: str = "") -> JsonObject:
        url = self.model.address(path)
        url += ("&" if "?" in url else "?") + query if query else ""
        headers = self.model.with_key()
        return self._read(self.model.transport.send("GET", url, headers, None, SHORT_SECONDS))

    def _begin(self, path: str, content: bytes, content_type: str) -> JsonObject:
        """Send the first request of a batch, which shows whether there is such an API."""
        headers = {**self.model.with_key(), "content-type": content_type}
        url = self.model.address(path)
        response = self.model.transport.send("POST", url, headers, content, LONG_SECONDS)
        if response.status in _NOT_THERE:
            raise ModelAccessError(
                f"{self.model.label} has no Batch API at its address "
                f"(HTTP {response.status} at {path}).",
                "Set batch = false for the model and restart; chordwise continue RUN asks online.",
            )
        return self._read(response)

    def _post(self, path: str, body: JsonObject) -> JsonObject:
        url, headers = self.model.address(path), self.model.with_key()
        return self._read(self.model.transport.post_json(url, headers, body, SHORT_SECONDS))

    def _delete(self, path: str) -> None:
        url, headers = self.model.address(path), self.model.with_key()
        response = self.model.transport.send("DELETE", url, headers, None, SHORT_SECONDS)
        if response.status != HTTPStatus.NOT_FOUND:
            self._read(response)

    def lines(self, path: str) -> Iterator[JsonObject]:
        """Yield the objects of a file that has one per line; skip others, and lines over the limit.

        Raises:
            ModelError: The file cannot be read, or cannot be stored on disk; no line was yielded.
        """
        url, headers = self.model.address(path), self.model.with_key()
        try:
            with tempfile.TemporaryFile() as file:
                failed = self.model.transport.download(url, headers, file, LONG_SECONDS)
                if failed is not None:
                    raise self.model.failure(failed)
                file.seek(0)
                yield from self._objects(file)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ModelTransportError(
                f"A file of a batch of {self.model.label} cannot be stored temporarily: {reason}.",
                "Free space for temporary files, or set TMPDIR to a folder on a larger disk.",
            ) from error

    def _objects(self, file: BinaryIO) -> Iterator[JsonObject]:
        # A line longer than the limit is cut off one byte after it.
        while line := file.readline(MAX_BODY_BYTES + 1):
            parsed: JsonValue = None
            if len(line) <= MAX_BODY_BYTES:
                with suppress(ValueError, RecursionError):
                    parsed = cast("JsonValue", json.loads(line))
            if isinstance(parsed, dict):
                yield parsed
            elif line.strip():
                log.warning("batch.line_unreadable", model=self.model.label, bytes=len(line))
            while len(line) > MAX_BODY_BYTES and not line.endswith(b"\n"):
                line = file.readline(MAX_BODY_BYTES + 1)

    def _refusal(self, error: JsonValue, status: int) -> ModelError:
        """Return the error in a line or in a batch; `status` is that of the same error online."""
        body: JsonValue = {"error": error}
        fault = read_fault(JsonResponse(status=status, headers={}, body=body))
        key = self.model.key.get_secret_value()
        quote = excerpt(fault.message or ", ".join(fault.codes), (key,))
        what = f"{self.model.label} could not answer in a batch: “{quote}”."
        return fault.kind(self.model.codes, self.model.phrases)(what)

    def _read(self, response: JsonResponse) -> JsonObject:
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or not answer:
            raise self.model.failure(response)
        return answer


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
