"""Telling a server how long to keep a model: seldom, after an answer, and never at its cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from chordwise.errors import ConfigurationError, ModelTransportError
from chordwise.llm.providers import connect
from chordwise.llm.providers.ollama import KeptLoaded, interval_seconds
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import ScriptedModel

OLLAMA = "http://127.0.0.1:11434/v1"


@dataclass(slots=True)
class Server:
    """Counts how often it was told; fails where it should."""

    fails: bool = False
    told: int = 0
    now: float = 0.0
    asked_before: list[int] = field(default_factory=list)

    def keep(self) -> None:
        """Be told."""
        self.told += 1
        if self.fails:
            raise ModelTransportError("Nobody is there.")

    def clock(self) -> float:
        """Return the time."""
        return self.now


def test_it_is_told_after_the_first_answer_and_then_now_and_then() -> None:
    """Not for every question: the time holds until another is given."""
    server = Server()
    kept = KeptLoaded(ScriptedModel(["{}"], repeat_last=True), server.keep, 60, server.clock)

    told = []
    for server.now in (0, 1, 59, 60, 61, 121):
        kept.complete(a_request())
        told.append(server.told)

    assert told == [1, 1, 1, 2, 2, 3]


def test_a_failure_costs_no_answer() -> None:
    """The answer is there, whatever the server says to the rest."""
    server = Server(fails=True)
    kept = KeptLoaded(ScriptedModel(["{}"]), server.keep, 60, server.clock)

    completion = kept.complete(a_request())

    assert completion.text == "{}"
    assert server.told == 1


def test_it_is_not_told_after_a_failed_question() -> None:
    """The model is not loaded for certain then."""
    server = Server()
    kept = KeptLoaded(ScriptedModel([ModelTransportError("x")]), server.keep, 60, server.clock)

    with pytest.raises(ModelTransportError):
        kept.complete(a_request())

    assert server.told == 0


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [("10s", 5), ("30s", 15), ("10m", 60), ("2h", 60), ("-1", 60)]
)
def test_a_short_time_is_repeated_more_often(keep_alive: str, seconds: float) -> None:
    """A model that was loaded again meanwhile has the server's own time."""
    settings = ModelSettings(provider="openai", base_url=OLLAMA, keep_alive=keep_alive)

    assert interval_seconds(settings) == seconds


@pytest.mark.parametrize("keep_alive", ["0", "10", "0s", "1.5h", "-2", "10m ", "soon"])
def test_what_is_no_time_is_refused(keep_alive: str) -> None:
    """Zero would unload the model between two questions."""
    with pytest.raises(ValueError, match="keep_alive"):
        ModelSettings(provider="openai", base_url=OLLAMA, keep_alive=keep_alive)


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(provider="openai", model="gpt-6.1-terra", keep_alive="10m"),
        ModelSettings(provider="anthropic", model="claude-haiku-5-5", keep_alive="10m"),
    ],
)
def test_providers_without_it_are_refused(settings: ModelSettings) -> None:
    """Nobody believes then that it works."""
    with pytest.raises(ConfigurationError, match="keep_alive"):
        connect(settings, SecretStr("k"))
