"""Files and Batches, the Batch API of OpenAI, Azure, Groq and compatible gateways."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, JsonValue, objects, text
from chordwise.errors import ModelError, ModelOverloadedError, ModelTransportError, RateLimitedError
from chordwise.llm.batching import (
    BatchLine,
    BatchPhase,
    BatchState,
    HttpBatches,
    LineOutcome,
    PreparedBatch,
    counts,
    moment,
)
from chordwise.llm.exchange import LOWEST_ERROR_STATUS, Kind, child, count, storable
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.providers.openai import CODES, OpenAIModel
from chordwise.llm.transport import JsonResponse, JsonTransport
from chordwise.settings import ModelSettings

ENDPOINT = "/v1/chat/completions"
WINDOW = "24h"
MARKER = "chordwise_batch"

_PHASES: Mapping[str, BatchPhase] = {
    "completed": BatchPhase.ENDED,
    "expired": BatchPhase.ENDED,
    "cancelled": BatchPhase.ENDED,
    "failed": BatchPhase.FAILED,
}
_CODES: Mapping[str, Kind] = {
    **CODES,
    "batch_expired": ModelOverloadedError,
    "batch_cancelled": ModelOverloadedError,
    # The queued batches exceed the token limit of this key.
    "token_limit_exceeded": RateLimitedError,
    "too_many_tasks": RateLimitedError,
}
_SERVER_ERROR = 500
_BAD_REQUEST = 400
_PAGES = 20
_PAGE = 100
_CLOCK_SKEW = timedelta(hours=1)


class _LineModel(OpenAIModel):
    """A model whose requests are lines of a batch, which are rejected with a `service_tier`."""

    codes = _CODES

    def body(self, request: CompletionRequest) -> JsonObject:
        body = super().body(request)
        return {name: value for name, value in body.items() if name != "service_tier"}


class OpenAIBatches(HttpBatches):
    """Chat completions in batches: an uploaded input file, an output file and an error file."""

    path = "/batches"

    def __init__(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport
    ) -> None:
        super().__init__(_LineModel(settings, api_key, transport))

    def upload(self, batch: PreparedBatch) -> str:
        """Upload the file with the lines."""
        boundary = uuid.uuid4().hex
        content = _multipart(boundary, f"chordwise-{batch.marker}.jsonl", file_of(batch.lines))
        form = f"multipart/form-data; boundary={boundary}"
        return self._id(self._begin("/files", content, form))

    def create(self, batch: PreparedBatch) -> BatchState:
        """Create the batch from the file, with our marker in its metadata."""
        body: JsonObject = {
            "input_file_id": batch.upload,
            "endpoint": ENDPOINT,
            "completion_window": WINDOW,
            "metadata": {MARKER: batch.marker},
        }
        return self._state(self._post(self.path, body))

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:  # noqa: ARG002 - the marker identifies it
        """Return the batch that has our marker or our file."""
        for listed in self._listed(batch):
            marked = text(child(listed, "metadata").get(MARKER)) == batch.marker
            if marked or (batch.upload and listed.get("input_file_id") == batch.upload):
                return self._state(listed)
        return None

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the lines of both files."""
        for file in state.files:
            for line in self.lines(f"/files/{file}/content"):
                yield LineOutcome(
                    custom_id=text(line.get("custom_id")), outcome=self._outcome(line)
                )

    def delete(self, provider_id: str, upload: str) -> None:
        """Delete the input file and the files of answers."""
        answers = self.retrieve(provider_id).files if provider_id else ()
        for file in filter(None, (upload, *answers)):
            self._delete(f"/files/{file}")

    def _listed(self, batch: PreparedBatch) -> Iterator[JsonObject]:
        query = f"limit={_PAGE}"
        for _ in range(_PAGES):
            page = self._get(self.path, query)
            batches = objects(page.get("data"))
            yield from batches
            oldest = moment(batches[-1].get("created_at")) if batches else None
            if page.get("has_more") is not True or oldest is None:
                return
            if oldest < batch.prepared_at - _CLOCK_SKEW:
                return
            query = f"limit={_PAGE}&after={self._id(batches[-1])}"

    def _state(self, answer: JsonObject) -> BatchState:
        status = text(answer.get("status"))
        phase = _PHASES.get(status, BatchPhase.RUNNING)
        done = counts(child(answer, "request_counts"))
        files = (text(answer.get("output_file_id")), text(answer.get("error_file_id")))
        if phase is BatchPhase.ENDED and done.get("completed", 0) > 0 and not files[0]:
            # The answers are billed, but their file does not exist yet.
            phase = BatchPhase.RUNNING
        errors = objects(child(answer, "errors").get("data"))
        rejection = self._refusal(errors[0] if errors else {}, _BAD_REQUEST)
        return BatchState(
            provider_id=self._id(answer),
            phase=phase,
            status=storable(status),
            counts=done,
            expires_at=moment(answer.get("expires_at")),
            files=tuple(file for file in files if file),
            error=rejection if phase is BatchPhase.FAILED else None,
        )

    def _id(self, answer: JsonObject) -> str:
        provider_id = text(answer.get("id"))
        if not provider_id:
            raise ModelTransportError(
                f"{self.model.label} responded with JSON without an id.",
                "Check that base_url is the address of an API with Files and Batches.",
            )
        return provider_id

    def _outcome(self, line: JsonObject) -> Completion | ModelError:
        response = child(line, "response")
        body: JsonValue = response.get("body")
        status = count(response, "status_code") or 0
        try:
            if status >= LOWEST_ERROR_STATUS:
                return self.model.failure(JsonResponse(status=status, headers={}, body=body))
            if isinstance(body, dict) and not line.get("error"):
                return self.model.completion(body)
        except ModelError as error:
            return error
        return self._refusal(line.get("error"), _SERVER_ERROR)


BATCH_API = OpenAIBatches


def file_of(lines: Collection[BatchLine]) -> bytes:
    """Return the input file of a batch: one question per line."""
    return b"".join(
        json.dumps(
            {"custom_id": line.custom_id, "method": "POST", "url": ENDPOINT, "body": line.body},
            ensure_ascii=False,
        ).encode(errors="replace")
        + b"\n"
        for line in lines
    )


def _multipart(boundary: str, name: str, content: bytes) -> bytes:
    """Return a form with the purpose and the file (RFC 7578)."""
    mark = f"--{boundary}"
    head = (
        f'{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + content + f"\r\n{mark}--\r\n".encode()
