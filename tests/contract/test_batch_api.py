"""Tests of the contract of `BatchApi`, run against every implementation and the fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from chordwise.domain import json_values
from chordwise.errors import (
    ContextTooLongError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelRequestError,
    ModelTransportError,
    RateLimitedError,
    TransientError,
)
from chordwise.llm import batching
from chordwise.llm.batching import BatchApi, BatchLine, BatchPhase, BatchState, PreparedBatch
from chordwise.llm.model import Completion, FinishReason
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_request
from tests.fakes.in_memory_batches import InMemoryBatches
from tests.fakes.official_types import OPENAI, adapter
from tests.peers.batch_provider import EXPIRED, GARBLED, MISSING, OVERLONG
from tests.peers.batch_server import BatchServer, serving_batches

pytestmark = pytest.mark.xdist_group("official_types")

MEMORY = "memory"
PROVIDERS = ("openai", "anthropic", MEMORY)
OPENAI_BATCH = ("openai.types.batch_create_params", "BatchCreateParams")
ANTHROPIC_BATCH = ("anthropic.types.messages.batch_create_params", "BatchCreateParams")


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with serving_batches() as server:
        yield server


@pytest.fixture(params=PROVIDERS)
def api(request: pytest.FixtureRequest, server: BatchServer) -> Iterator[BatchApi]:
    if request.param == MEMORY:
        yield InMemoryBatches(server)
        return
    transport = JsonTransport()
    options = {
        "provider": request.param,
        "model": "peer",
        "base_url": server.base_url,
        "batch": True,
    }
    yield batching.connect(ModelSettings.model_validate(options), SecretStr("key"), transport)
    transport.close()


def a_batch(api: BatchApi, *texts: str) -> PreparedBatch:
    """Return a batch with a question about each text; each text is also the id of its line."""
    lines = [
        BatchLine(custom_id=text, body=api.body(a_request(user=f"About {text}."))) for text in texts
    ]
    now = datetime.now(UTC)  # noqa: TID251 - the provider has a real clock as well
    return PreparedBatch(marker="ours", prepared_at=now, lines=lines)


def handed_in(api: BatchApi, batch: PreparedBatch) -> BatchState:
    return api.create(replace(batch, upload=api.upload(batch)))


def outcomes(api: BatchApi, state: BatchState) -> dict[str, Completion | ModelError]:
    results = list(api.results(state))
    assert len({result.custom_id for result in results}) == len(results)
    return {result.custom_id: result.outcome for result in results}


def test_results_have_the_ids_of_their_lines(api: BatchApi, server: BatchServer) -> None:
    """The batch runs until the provider ends it."""
    server.holds = True
    provider_id = handed_in(api, a_batch(api, "one", "two", "three")).provider_id
    assert api.retrieve(provider_id).phase is BatchPhase.RUNNING

    server.holds = False
    state = api.retrieve(provider_id)

    assert state.phase is BatchPhase.ENDED
    by_id = outcomes(api, state)
    assert set(by_id) == {"one", "two", "three"}
    for text, completion in by_id.items():
        assert isinstance(completion, Completion)
        assert f"About {text}." in completion.text
        assert completion.finish_reason is FinishReason.STOP
        assert completion.usage.output_tokens == 50


def test_a_batch_without_answers_reports_its_errors(api: BatchApi, server: BatchServer) -> None:
    server.fate = lambda _question, _: "400"

    by_id = outcomes(api, api.retrieve(handed_in(api, a_batch(api, "one", "two")).provider_id))

    assert set(by_id) == {"one", "two"}
    for error in by_id.values():
        assert isinstance(error, ModelRequestError)
        assert not isinstance(error, TransientError)


@pytest.mark.parametrize("fate", [MISSING, GARBLED, OVERLONG, EXPIRED])
def test_unreadable_results_are_skipped(api: BatchApi, server: BatchServer, fate: str) -> None:
    """Expired lines are reported as overload; lines that were answered in time have answers."""
    server.fate = lambda question, _: fate if "two" in question else "answered"

    by_id = outcomes(api, api.retrieve(handed_in(api, a_batch(api, "one", "two")).provider_id))

    assert isinstance(by_id.pop("one"), Completion)
    expired = [ModelOverloadedError] if fate == EXPIRED else []
    assert [type(error) for error in by_id.values()] == expired


def test_a_batch_is_found_after_the_response_to_its_creation_was_lost(
    api: BatchApi, server: BatchServer
) -> None:
    """One that was never created, or before ours was prepared, is not found."""
    server.holds = True
    earlier = handed_in(api, replace(a_batch(api, "one", "two"), marker="theirs"))
    server.loses_answer = True
    batch = a_batch(api, "three", "four")
    later = replace(batch, prepared_at=batch.prepared_at + timedelta(days=1))
    assert api.find(later, ()) is None
    assert api.find(batch, {earlier.provider_id}) is None

    with pytest.raises(ModelTransportError):
        handed_in(api, batch)

    recovered = api.find(batch, {earlier.provider_id})
    assert recovered is not None
    assert recovered.provider_id == server.batches[-1].id
    assert recovered.provider_id != earlier.provider_id


def test_a_cancelled_batch_ends_and_keeps_the_answers_it_has(
    api: BatchApi, server: BatchServer
) -> None:
    server.holds, server.answered_before_cancellation = True, 1
    provider_id = handed_in(api, a_batch(api, "one", "two")).provider_id

    api.cancel(provider_id)

    state = api.retrieve(provider_id)
    by_id = outcomes(api, state)
    assert state.phase is BatchPhase.ENDED
    assert isinstance(by_id["one"], Completion)
    assert isinstance(by_id["two"], ModelOverloadedError)


def test_a_batch_has_not_ended_before_its_output_file_exists(server: BatchServer) -> None:
    """OpenAI counts the answers before it names their file; a batch without answers has no file."""
    settings = ModelSettings(provider="openai", model="m", base_url=server.base_url, batch=True)
    api = batching.connect(settings, SecretStr("key"))
    answered = handed_in(api, a_batch(api, "one")).provider_id
    server.lags = True
    assert api.retrieve(answered).phase is BatchPhase.RUNNING

    server.fate = lambda _question, _: "400"
    assert api.retrieve(handed_in(api, a_batch(api, "two")).provider_id).phase is BatchPhase.ENDED

    server.lags = False
    assert set(outcomes(api, api.retrieve(answered))) == {"one"}


def test_requests_match_the_types_of_the_official_packages(
    api: BatchApi, server: BatchServer
) -> None:
    """Each line is the body of an online request."""
    batch = a_batch(api, "one", "two")
    handed_in(api, batch)
    lines = server.batches[0].lines

    if "params" in lines[0]:
        adapter(*ANTHROPIC_BATCH).validate_python({"requests": lines})
    else:
        sent = {
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": server.batches[0].metadata,
        }
        adapter(*OPENAI_BATCH).validate_python(sent)
        assert {json.dumps([line["method"], line["url"]]) for line in lines} == {
            '["POST", "/v1/chat/completions"]'
        }
        for line in lines:
            body = json_values.as_object(line["body"])
            adapter(*OPENAI).validate_python(body)
    assert [line["custom_id"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, ModelAccessError),
        (413, ContextTooLongError),
        (429, RateLimitedError),
        (503, ModelOverloadedError),
    ],
)
@pytest.mark.parametrize("operation", ["begin", "find", "retrieve", "results", "cancel"])
def test_every_operation_reports_why_it_was_rejected(
    api: BatchApi, server: BatchServer, operation: str, status: int, expected: type[ModelError]
) -> None:
    batch = a_batch(api, "one")
    state = api.retrieve(handed_in(api, batch).provider_id)
    operations: dict[str, Callable[[], object]] = {
        "begin": lambda: handed_in(api, batch),
        "find": lambda: api.find(batch, ()),
        "retrieve": lambda: api.retrieve(state.provider_id),
        "results": lambda: list(api.results(state)),
        "cancel": lambda: api.cancel(state.provider_id),
    }
    refused = ("upload", "create") if operation == "begin" else (operation,)
    server.statuses, server.retry_after = dict.fromkeys(refused, status), 90

    with pytest.raises(ModelError) as raised:
        operations[operation]()

    assert type(raised.value) is expected
    if isinstance(raised.value, RateLimitedError):
        assert raised.value.retry_after_seconds == 90


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_batch_api_is_reported_as_such(
    api: BatchApi, server: BatchServer, status: int
) -> None:
    server.statuses = {"upload": status, "create": status}

    with pytest.raises(ModelAccessError, match="has no Batch API"):
        handed_in(api, a_batch(api, "one"))

    assert server.batches == []


def test_a_rejected_batch_reports_the_reason(server: BatchServer) -> None:
    """OpenAI validates the file after it has accepted the batch; a full queue can be retried."""
    settings = ModelSettings(provider="openai", model="m", base_url=server.base_url, batch=True)
    api = batching.connect(settings, SecretStr("key"))
    server.refuses = "token_limit_exceeded"
    provider_id = handed_in(api, a_batch(api, "one")).provider_id

    state = api.retrieve(provider_id)

    assert state.phase is BatchPhase.FAILED
    assert isinstance(state.error, RateLimitedError)
    assert state.error.hint


def test_a_batch_can_be_deleted_and_what_is_gone_is_no_error(
    api: BatchApi, server: BatchServer
) -> None:
    batch = a_batch(api, "one")
    upload = api.upload(batch)
    state = api.create(replace(batch, upload=upload))
    api.retrieve(state.provider_id)

    api.delete(state.provider_id, upload)

    assert not server.files
    api.delete("", upload)
    server.statuses["delete"] = 500
    with pytest.raises(ModelOverloadedError):
        api.delete(state.provider_id, upload)
