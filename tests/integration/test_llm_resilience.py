"""Retrying, judged by an independent peer that watches how its faults are handled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random

import pytest
from llmock.pytest_plugin import LLMock
from pydantic import SecretStr

from chordwise.errors import ModelError
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.providers import connect
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings, RetrySettings
from tests.fakes.completion_requests import a_request

PROVIDERS = ("openai", "anthropic")


@pytest.fixture
def transport() -> Iterator[JsonTransport]:
    """Return a transport whose connections are closed after the test."""
    transport = JsonTransport()
    yield transport
    transport.close()


@pytest.fixture(params=PROVIDERS)
def model(request: pytest.FixtureRequest, llmock: LLMock, transport: JsonTransport) -> Retrying:
    """Return a retrying model at the peer, with short but real waits."""
    provider = str(request.param)
    given = {"provider": provider, "model": "m", "base_url": llmock.base_url(provider)}
    connected = connect(ModelSettings.model_validate(given), SecretStr("key"), transport)
    policy = RetrySettings(attempts=4, base_seconds=0.4, max_wait_seconds=5)
    random = Random(7)  # noqa: S311 - jitter keeps no secret
    return Retrying(connected, policy, time.sleep, random)  # noqa: TID251 - real waits


def test_a_rate_limit_is_waited_out(model: Retrying, llmock: LLMock) -> None:
    """The peer finds every Retry-After kept, and the third request answered."""
    llmock.rate_limit(times=2, retry_after=0.4)

    assert model.complete(a_request()).text
    assert len(llmock.requests) == 3
    llmock.assert_resilient()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_permanent_error_is_asked_once(model: Retrying, llmock: LLMock, status: int) -> None:
    """The peer finds nothing retried that cannot succeed."""
    llmock.fail(status, times=1)

    with pytest.raises(ModelError):
        model.complete(a_request())

    assert len(llmock.requests) == 1
    llmock.assert_resilient()
