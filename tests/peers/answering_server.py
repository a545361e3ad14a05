"""A provider on loopback that answers every question after a delay, and keeps a journal."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from tests.peers.serving import serving_in_a_thread

USAGE: JsonObject = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
_MATERIAL = re.compile(r"^(TEXT-[0-9a-f]+)\n(.*)\n\1$", re.DOTALL | re.MULTILINE)
_CRITIQUE = "the analysis between the second and the third"
QUOTE = re.compile(r'"quote": "((?:[^"\\]|\\.)*)"')


class AnsweringServer(ThreadingHTTPServer):
    """Returns summaries with quotes: the first words of a chunk, or the quotes of answers to join.

    `cost_headers` and `cost_usage` are added to each answer, as by a gateway that reports costs.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay_seconds: float, handler: type[AnsweringHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or AnsweringHandler)
        self.delay_seconds = delay_seconds
        self.cost_headers: dict[str, str] = {}
        self.cost_usage: JsonObject = {}
        self._journal: list[str] = []
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        """Return the address for `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def journal(self) -> list[str]:
        """Return the user messages of all requests, in the order of arrival."""
        with self._lock:
            return list(self._journal)

    def note(self, message: str) -> None:
        with self._lock:
            self._journal.append(message)


class AnsweringHandler(BaseHTTPRequestHandler):
    """Serves one connection; subclasses override `converse`. `request_body` is its request body."""

    protocol_version = "HTTP/1.1"
    server: AnsweringServer
    request_body = b""

    def do_POST(self) -> None:
        """Record the request and answer it."""
        length = int(self.headers["Content-Length"])
        payload = self.rfile.read(length)
        if len(payload) < length:
            self.close_connection = True  # the client was killed while it sent its request
            return
        self.request_body = payload
        body = json_values.as_object(json.loads(payload))
        user = user_message_of(body)
        self.server.note(user)
        self.converse(user)

    def converse(self, user: str) -> None:
        """Wait for the delay of the server, then answer."""
        time.sleep(self.server.delay_seconds)  # noqa: TID251 - a slow server
        self.answer(user)

    def answer(self, user: str) -> bool:
        """Answer a chat completion; return false if the client has disconnected."""
        answered = completion(summary(user))
        answered["usage"] = {**USAGE, **self.server.cost_usage}
        return self.reply(200, json.dumps(answered).encode(), self.server.cost_headers)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Log nothing."""

    def reply(self, status: int, payload: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Send a complete answer; return false if the client has disconnected."""
        try:
            self.send_response(status)
            usual = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
            for name, value in (usual | dict(headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except OSError:
            self.close_connection = True
            return False
        return True


@contextmanager
def serving(delay_seconds: float = 0.0) -> Iterator[AnsweringServer]:
    """Serve on a free port inside the block."""
    server = AnsweringServer(delay_seconds)
    with serving_in_a_thread(server):
        yield server


def user_message_of(body: JsonObject) -> str:
    """Return the user message of a chat completion."""
    messages = json_values.objects(body["messages"])
    return json_values.text(messages[-1]["content"])


def summary(user: str) -> str:
    """Return a summary that quotes the text of the question; for a critique, an objection."""
    if _CRITIQUE in user:
        violation = {"principle": 1, "path": "/main_topic", "problem": "It says too little."}
        return json.dumps({"violations": [violation]})
    material = material_of(user)
    quotes = [json.loads(f'"{quote}"') for quote in QUOTE.findall(material)]
    quotes = quotes or [material.strip()[:60].strip()]
    findings = [{"finding": f"It says: {quote}", "quote": quote} for quote in quotes[:5]]
    return json.dumps(
        {
            "main_topic": "What the text says.",
            "key_findings": findings,
            "conclusions": [],
            "confidence": 8,
        }
    )


def material_of(user: str) -> str:
    """Return the text that a question is about."""
    match = _MATERIAL.search(user)
    return match.group(2) if match else user


def completion(content: str | None) -> dict[str, JsonValue]:
    message: JsonObject = {"role": "assistant", "content": content}
    return {
        "id": "answer",
        "object": "chat.completion",
        "model": "peer",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": dict(USAGE),
    }
