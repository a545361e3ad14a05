"""A provider on loopback with the Batch APIs of OpenAI and Anthropic, controlled by a test."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from tests.peers.answering_server import (
    USAGE,
    AnsweringHandler,
    AnsweringServer,
    completion,
    summary,
)
from tests.peers.batch_provider import (
    ANSWERED,
    EXPIRED,
    GARBLED,
    INVALID,
    MISSING,
    OVERLONG,
    BatchProvider,
    FakeBatch,
    question_of,
)
from tests.peers.serving import serving_in_a_thread

_PADDING = b" " * 9 * 1024 * 1024


class BatchServer(AnsweringServer, BatchProvider):
    """Answers batches with their lines in another order, and chat completions without delay."""

    def __init__(self) -> None:
        AnsweringServer.__init__(self, 0.0, BatchHandler)
        BatchProvider.__init__(self)
        self.files: dict[str, bytes] = {}


class BatchHandler(AnsweringHandler):
    """The parts of both APIs that Chordwise uses."""

    server: BatchServer

    def do_POST(self) -> None:  # noqa: N802 - the name is http.server's
        """Create or cancel a batch, accept a file, or answer a chat completion."""
        path = self.path.partition("?")[0].removeprefix("/v1")
        if path not in {"/files", "/batches", "/messages/batches"} and "/cancel" not in path:
            super().do_POST()
            return
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        operation = "upload" if path == "/files" else path.rsplit("/", 1)[-1]
        if self._is_refused({"batches": "create"}.get(operation, operation)):
            return
        if path == "/files":
            self._upload(payload)
        elif path.endswith("/cancel"):
            self._cancel(path)
        else:
            self._create(path, json_values.as_object(json.loads(payload)))

    def do_GET(self) -> None:  # noqa: N802 - as above
        path = self.path.partition("?")[0].removeprefix("/v1")
        steps = path.strip("/").split("/")
        names = {"content": "results", "results": "results", "batches": "find"}
        if self._is_refused(names.get(steps[-1], "retrieve")):
            return
        if self.server.is_forgetful:
            self._json(404, {"error": {"message": "There is no such batch.", "code": None}})
        elif steps[0] == "files":
            self._send(200, self.server.files[steps[1]])
        elif steps[-1] == "results":
            self._send(200, self._results(self._batch(steps[-2])))
        elif steps[-1] == "batches":
            states: list[JsonValue] = [
                self._state(batch) for batch in reversed(self.server.batches)
            ]
            self._json(200, {"object": "list", "data": states, "has_more": False})
        else:
            self._json(200, self._state(self._batch(steps[-1])))

    def do_DELETE(self) -> None:  # noqa: N802 - as above
        """Delete a file, or a batch of Anthropic; there is none of this name the second time."""
        name = self.path.rsplit("/", 1)[-1]
        if self._is_refused("delete"):
            return
        batches = [batch for batch in self.server.batches if batch.id != name]
        is_known = self.server.files.pop(name, None) is not None
        if self._is_anthropic:
            is_known, self.server.batches = len(batches) < len(self.server.batches), batches
        self._json(200 if is_known else 404, {"id": name, "error": {"message": "Deleted."}})

    def _is_refused(self, operation: str) -> bool:
        """Count the operation; return whether it was answered with an error."""
        self.server.asked[operation] += 1
        status = self.server.statuses.get(operation)
        if status is None:
            return False
        headers = {"Retry-After": str(self.server.retry_after)} if self.server.retry_after else {}
        self.reply(status, json.dumps({"error": {"message": "Not now."}}).encode(), headers)
        return True

    @property
    def _is_anthropic(self) -> bool:
        return "/messages/" in self.path

    def _batch(self, name: str) -> FakeBatch:
        batch = next(known for known in self.server.batches if known.id == name)
        self.server.settle(batch)
        return batch

    def _upload(self, payload: bytes) -> None:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        parts = [part for part in payload.split(b"--" + boundary) if b"filename=" in part]
        content = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        name = f"file-{len(self.server.files) + 1}"
        self.server.files[name] = content
        self._json(200, {"id": name, "object": "file", "purpose": "batch", "bytes": len(content)})

    def _create(self, path: str, body: JsonObject) -> None:
        if path == "/batches":
            content = self.server.files[json_values.text(body["input_file_id"])]
            lines = [json_values.as_object(json.loads(line)) for line in content.splitlines()]
        else:
            lines = json_values.objects(body["requests"])
        batch = self.server.open_batch(lines, **body)
        if self.server.loses_answer:
            self.server.loses_answer = False
            self.close_connection = True
            return
        self._json(200, self._state(batch))

    def _cancel(self, path: str) -> None:
        batch = self._batch(path.split("/")[-2])
        batch.is_cancelled = True
        self._json(200, self._state(batch))

    def _state(self, batch: FakeBatch) -> JsonObject:
        return self._state_anthropic(batch) if self._is_anthropic else self._state_openai(batch)

    def _state_openai(self, batch: FakeBatch) -> JsonObject:
        state: JsonObject = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": "in_progress",
            "metadata": batch.metadata,
            "created_at": int(batch.created_at),
            "expires_at": int(batch.created_at) + 86_400,
            "output_file_id": None,
            "error_file_id": "",
        }
        if batch.refusal:
            error: JsonObject = {"code": batch.refusal, "message": f"It is {batch.refusal}."}
            return {**state, "status": "failed", "errors": {"object": "list", "data": [error]}}
        if batch.fates is None:
            return state
        return {**state, **self._ended(batch)}

    def _ended(self, batch: FakeBatch) -> JsonObject:
        """Write both files of an ended batch; a file without lines does not exist."""
        output: list[bytes] = []
        errors: list[bytes] = []
        for line, fate in self._shuffled(batch):
            (output if fate in {ANSWERED, INVALID, GARBLED, OVERLONG} else errors).append(
                _openai_line(line, fate, self.server.cost_usage)
            )
        names: list[JsonValue] = []
        for kind, lines in (("output", output), ("errors", errors)):
            content = b"".join(line + b"\n" for line in lines if line)
            name = f"{batch.id}-{kind}" if content else None
            if name:
                self.server.files[name] = content
            names.append(name)
        fates = batch.fates or []
        counts: JsonObject = {
            "total": len(fates),
            "completed": fates.count(ANSWERED),
            "failed": len(fates) - fates.count(ANSWERED),
        }
        status = "expired" if EXPIRED in fates else "completed"
        return {
            "status": "cancelled" if batch.is_cancelled else status,
            "output_file_id": None if self.server.lags else names[0],
            "error_file_id": "" if self.server.lags else names[1] or "",
            "request_counts": counts,
        }

    def _state_anthropic(self, batch: FakeBatch) -> JsonObject:
        ended = batch.fates is not None
        total = len(batch.lines)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(batch.created_at))
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "created_at": created,
            "expires_at": None,
            "request_counts": {
                "processing": 0 if ended else total,
                "succeeded": (batch.fates or []).count(ANSWERED),
                "errored": total - (batch.fates or []).count(ANSWERED) if ended else 0,
            },
        }

    def _results(self, batch: FakeBatch) -> bytes:
        lines = [_anthropic_line(line, fate) for line, fate in self._shuffled(batch)]
        return b"".join(line + b"\n" for line in lines if line)

    def _shuffled(self, batch: FakeBatch) -> list[tuple[JsonObject, str]]:
        pairs = list(zip(batch.lines, batch.fates or [], strict=True))
        return pairs[::-2] + pairs[-2::-2]

    def _json(self, status: int, body: JsonObject) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, payload: bytes) -> None:
        self.reply(status, payload)


def _openai_line(line: JsonObject, fate: str, cost: JsonObject) -> bytes:
    custom_id = line["custom_id"]
    known: JsonObject = {"id": "batch_req", "custom_id": custom_id, "response": None}
    if fate == MISSING:
        return b""
    if fate == GARBLED:
        return b'{"id": "batch_req", "custom_id": "half a li'
    if fate == OVERLONG:
        return _openai_line(line, ANSWERED, cost) + _PADDING
    if fate == EXPIRED:
        error: JsonObject = {"code": "batch_expired", "message": "It could not be run in time."}
        return json.dumps({**known, "error": error}).encode()
    if fate in {ANSWERED, INVALID}:
        body = completion(_content(line, fate))
        body["usage"] = {**USAGE, **cost}
        response: JsonObject = {"status_code": 200, "request_id": "request", "body": body}
    else:
        body = {"error": {"message": "It is refused.", "type": "invalid_request_error"}}
        response = {"status_code": int(fate), "request_id": "request", "body": body}
    return json.dumps({**known, "response": response, "error": None}).encode()


def _anthropic_line(line: JsonObject, fate: str) -> bytes:
    result: JsonObject
    if fate == MISSING:
        return b""
    if fate == GARBLED:
        return b'{"custom_id": "half a li'
    if fate == OVERLONG:
        return _anthropic_line(line, ANSWERED) + _PADDING
    if fate in {ANSWERED, INVALID}:
        result = {"type": "succeeded", "message": _message(_content(line, fate))}
    elif fate == EXPIRED:
        result = {"type": "expired"}
    else:
        kinds = {"400": "invalid_request_error", "529": "overloaded_error"}
        error: JsonObject = {"type": kinds[fate], "message": "It is refused."}
        result = {"type": "errored", "error": {"type": "error", "error": error}}
    return json.dumps({"custom_id": line["custom_id"], "result": result}).encode()


def _content(line: JsonObject, fate: str) -> str:
    return summary(question_of(line)) if fate == ANSWERED else "This is no JSON."


def _message(content: str) -> JsonObject:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "peer",
        "content": [{"type": "text", "text": content}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 50, "service_tier": "batch"},
    }


@contextmanager
def serving_batches() -> Iterator[BatchServer]:
    """Serve on a free port inside the block."""
    server = BatchServer()
    with serving_in_a_thread(server):
        yield server
