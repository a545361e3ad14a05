"""What goes over the wire to Ollama's native API beside the questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from typing_extensions import override

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.llm.providers import connect
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.serving import serving_in_a_thread


class OllamaServer(AnsweringServer):
    """Keeps what came in to its native API."""

    def __init__(self, status: int) -> None:
        super().__init__(0.0, OllamaHandler)
        self.status = status
        self.native: list[JsonObject] = []


class OllamaHandler(AnsweringHandler):
    """Answers `/api/generate` without a prompt as Ollama does."""

    @override
    def do_POST(self) -> None:
        """Take a native request down, or a question."""
        if self.path != "/api/generate":
            super().do_POST()
            return
        assert isinstance(self.server, OllamaServer)
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.native.append(json_values.as_object(json.loads(payload)))
        answer = {"model": "qwen3:8b", "response": "", "done": True, "done_reason": "load"}
        self.reply(self.server.status, json.dumps(answer).encode())


@contextmanager
def ollama(status: int = 200) -> Iterator[OllamaServer]:
    server = OllamaServer(status)
    with serving_in_a_thread(server):
        yield server


@pytest.mark.parametrize(("keep_alive", "sent"), [("10m", "10m"), ("-1", -1)])
def test_the_time_is_sent_natively_after_the_answer(keep_alive: str, sent: str | int) -> None:
    """Once for two questions in a row; “for ever” is a number there, for it has no unit."""
    with ollama() as server:
        settings = ModelSettings(
            provider="openai", model="qwen3:8b", base_url=server.base_url, keep_alive=keep_alive
        )
        model = connect(settings, SecretStr(""))

        for _ in range(2):
            model.complete(a_request())

    assert len(server.journal) == 2
    assert server.native == [{"model": "qwen3:8b", "keep_alive": sent}]


def test_a_server_that_is_not_ollama_still_answers() -> None:
    """It has no such operation, and the answer counts nevertheless."""
    with ollama(status=404) as server:
        settings = ModelSettings(
            provider="openai", model="qwen3:8b", base_url=server.base_url, keep_alive="10m"
        )

        completion = connect(settings, SecretStr("")).complete(a_request())

    assert completion.text
    assert len(server.native) == 1
