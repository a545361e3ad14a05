"""The interface of Batch APIs, which answer many questions later, and the choice among them."""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import BinaryIO, ClassVar, Protocol, cast

import structlog
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, JsonValue, integer
from chordwise.errors import ConfigurationError, ModelAccessError, ModelError, ModelTransportError
from chordwise.kinds import Kinds
from chordwise.llm.exchange import LOWEST_ERROR_STATUS, HttpModel, read_fault
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.transport import MAX_BODY_BYTES, JsonResponse, JsonTransport, excerpt
from chordwise.settings import ModelSettings
from chordwise.settings.service_addresses import is_at_provider


class BatchPhase(StrEnum):
    """The phase of a batch: still running, ended with results, or rejected as a whole."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One question of a batch; `custom_id` is unique and has at most 64 characters."""

    custom_id: str
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBatch:
    """A batch to submit; `marker` is our id of it, `upload` that of its file, if it has one."""

    marker: str
    prepared_at: datetime
    lines: Sequence[BatchLine]
    upload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """The state of a batch at the provider; `status` and `counts` are the provider's own values."""

    provider_id: str
    phase: BatchPhase
    status: str
    counts: Mapping[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
    files: tuple[str, ...] = ()
    error: ModelError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutcome:
    """The outcome of one question; after a `TransientError` it may be submitted again."""

    custom_id: str
    outcome: Completion | ModelError


class BatchApi(Protocol):
    """A model's Batch API; safe to share between threads.

    Every operation raises `ModelError` if the provider is unreachable or refuses, does not know the
    batch, or has already ended a batch that is to be cancelled. After an error of `create` it is
    unknown whether the batch was created.
    """

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the body of a request in a batch."""

    def upload(self, batch: PreparedBatch) -> str:
        """Upload the questions, if the API has such a step; return the file's id."""

    def create(self, batch: PreparedBatch) -> BatchState:
        """Create the batch. A second call would be billed again."""

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:
        """Return a batch whose creation was never confirmed; `known` are ids of other batches."""

    def retrieve(self, provider_id: str) -> BatchState:
        """Return the state of a batch."""

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the outcomes of an ended batch's questions in any order; some may be missing."""

    def cancel(self, provider_id: str) -> None:
        """Request the cancellation; results that exist by then still have to be fetched."""

    def delete(self, provider_id: str, upload: str) -> None:
        """Delete an ended batch; either id may be empty, and what is gone is no error."""


# By the name of the provider.
_BATCH_APIS: Kinds[Callable[[ModelSettings, SecretStr, JsonTransport], BatchApi]] = Kinds(
    "chordwise.llm.batching", "BATCH_API"
)


def has_batches(settings: ModelSettings) -> bool:
    """Return whether a model has a Batch API: at its provider, or with `batch = true`."""
    if settings.provider not in _BATCH_APIS:
        return False
    if settings.batch is not None:
        return settings.batch
    return is_at_provider(settings.provider, settings.base_url)


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> BatchApi:
    """Return the Batch API of a model, without any network request.

    Raises:
        ConfigurationError: It has none, or a value is invalid.
    """
    if not has_batches(settings):
        raise ConfigurationError(
            f"{settings.provider}/{settings.model} has no Batch API.",
            "Use the online lane, or set batch = true for the model if its server has one.",
        )
    return _BATCH_APIS[settings.provider](settings, api_key, transport or JsonTransport())


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
