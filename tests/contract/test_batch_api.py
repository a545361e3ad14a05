"""One suite for the port `BatchApi`, run on each implementation, the fake included."""

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
from chordwise.llm.batching.api import BatchApi, BatchLine, BatchState, Phase, PreparedBatch
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
    given = {"provider": request.param, "model": "peer", "base_url": server.base_url, "batch": True}
    yield batching.connect(ModelSettings.model_validate(given), SecretStr("key"), transport)
    transport.close()


def a_batch(api: BatchApi, *texts: str) -> PreparedBatch:
    """Return a batch with a question about each text; the ids are the texts'."""
    lines = [
        BatchLine(custom_id=text, body=api.body(a_request(user=f"About {text}."))) for text in texts
    ]
    now = datetime.now(UTC)  # noqa: TID251 - the provider has a real clock as well
    return PreparedBatch(marker="ours", prepared_at=now, lines=lines)


def handed_in(api: BatchApi, batch: PreparedBatch) -> BatchState:
    return api.create(replace(batch, upload=api.upload(batch)))


def outcomes(api: BatchApi, state: BatchState) -> dict[str, Completion | ModelError]:
    found = list(api.results(state))
    assert len({each.custom_id for each in found}) == len(found)
    return {each.custom_id: each.outcome for each in found}


def test_a_batch_brings_every_answer_under_its_id(api: BatchApi) -> None:
    state = api.look(handed_in(api, a_batch(api, "one", "two", "three")).provider_id)

    assert state.phase is Phase.ENDED
    found = outcomes(api, state)
    assert set(found) == {"one", "two", "three"}
    for text, completion in found.items():
        assert isinstance(completion, Completion)
        assert f"About {text}." in completion.text
        assert completion.finish_reason is FinishReason.STOP
        assert completion.usage.output_tokens == 50


def test_a_batch_that_is_not_done_has_nothing_to_fetch(api: BatchApi, server: BatchServer) -> None:
    """It is running until the provider says otherwise."""
    server.holds = True
    provider_id = handed_in(api, a_batch(api, "one")).provider_id

    assert api.look(provider_id).phase is Phase.RUNNING

    server.holds = False
    assert api.look(provider_id).phase is Phase.ENDED


def test_lines_that_expired_may_be_handed_in_again(api: BatchApi, server: BatchServer) -> None:
    """Those that were answered in time are there all the same."""
    server.fate = lambda question, _: EXPIRED if "two" in question else "answered"

    found = outcomes(api, api.look(handed_in(api, a_batch(api, "one", "two")).provider_id))

    assert isinstance(found["one"], Completion)
    assert isinstance(found["two"], ModelOverloadedError)


def test_a_batch_without_any_answer_has_its_errors(api: BatchApi, server: BatchServer) -> None:
    server.fate = lambda _question, _: "400"

    found = outcomes(api, api.look(handed_in(api, a_batch(api, "one", "two")).provider_id))

    assert set(found) == {"one", "two"}
    for error in found.values():
        assert isinstance(error, ModelRequestError)
        assert not isinstance(error, TransientError)


@pytest.mark.parametrize("fate", [MISSING, GARBLED, OVERLONG])
def test_lines_that_cannot_be_read_are_passed_over(
    api: BatchApi, server: BatchServer, fate: str
) -> None:
    server.fate = lambda question, _: fate if "two" in question else "answered"

    found = outcomes(api, api.look(handed_in(api, a_batch(api, "one", "two")).provider_id))

    assert set(found) == {"one"}


def test_a_batch_whose_creation_was_not_answered_is_found(
    api: BatchApi, server: BatchServer
) -> None:
    server.holds = True
    earlier = handed_in(api, replace(a_batch(api, "one", "two"), marker="theirs"))
    server.loses_answer = True
    batch = a_batch(api, "three", "four")

    with pytest.raises(ModelTransportError):
        handed_in(api, batch)

    found = api.find(batch, {earlier.provider_id})
    assert found is not None
    assert found.provider_id == server.batches[-1].id
    assert found.provider_id != earlier.provider_id


def test_a_batch_that_was_never_created_is_not_found(api: BatchApi) -> None:
    earlier = handed_in(api, replace(a_batch(api, "one"), marker="theirs"))

    assert api.find(a_batch(api, "one"), {earlier.provider_id}) is None


def test_batches_of_long_ago_are_none_of_ours(api: BatchApi) -> None:
    """A batch that was put together after another was created is not that one."""
    handed_in(api, replace(a_batch(api, "one"), marker="theirs"))
    batch = a_batch(api, "one")

    later = replace(batch, prepared_at=batch.prepared_at + timedelta(days=1))

    assert api.find(later, ()) is None


def test_a_cancelled_batch_ends(api: BatchApi, server: BatchServer) -> None:
    server.holds = True
    provider_id = handed_in(api, a_batch(api, "one")).provider_id

    api.cancel(provider_id)

    state = api.look(provider_id)
    assert state.phase is Phase.ENDED
    assert isinstance(outcomes(api, state)["one"], ModelOverloadedError)


def test_a_cancelled_batch_has_what_was_done_by_then(api: BatchApi, server: BatchServer) -> None:
    server.holds, server.done_by_then = True, 1
    provider_id = handed_in(api, a_batch(api, "one", "two")).provider_id
    api.cancel(provider_id)

    found = outcomes(api, api.look(provider_id))

    assert isinstance(found["one"], Completion)
    assert isinstance(found["two"], TransientError)


def test_a_batch_with_answers_and_without_a_file_of_them_has_not_ended(server: BatchServer) -> None:
    """OpenAI says how many there are before it says where; without any, no file is to come."""
    settings = ModelSettings(provider="openai", model="m", base_url=server.base_url, batch=True)
    api = batching.connect(settings, SecretStr("key"))
    answered = handed_in(api, a_batch(api, "one")).provider_id
    server.lags = True
    assert api.look(answered).phase is Phase.RUNNING

    server.fate = lambda _question, _: "400"
    assert api.look(handed_in(api, a_batch(api, "two")).provider_id).phase is Phase.ENDED

    server.lags = False
    assert set(outcomes(api, api.look(answered))) == {"one"}


def test_what_is_sent_has_the_shapes_of_the_official_packages(
    api: BatchApi, server: BatchServer
) -> None:
    """Their types take what ours sends; every line is a question as it is asked online."""
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
    [(401, ModelAccessError), (413, ContextTooLongError), (503, ModelOverloadedError)],
)
@pytest.mark.parametrize("operation", ["begin", "find", "look", "results", "cancel"])
def test_every_operation_says_why_it_was_refused(
    api: BatchApi, server: BatchServer, operation: str, status: int, expected: type[ModelError]
) -> None:
    batch = a_batch(api, "one")
    state = api.look(handed_in(api, batch).provider_id)
    deeds: dict[str, Callable[[], object]] = {
        "begin": lambda: handed_in(api, batch),
        "find": lambda: api.find(batch, ()),
        "look": lambda: api.look(state.provider_id),
        "results": lambda: list(api.results(state)),
        "cancel": lambda: api.cancel(state.provider_id),
    }
    refused = ("upload", "create") if operation == "begin" else (operation,)
    server.statuses = dict.fromkeys(refused, status)

    with pytest.raises(ModelError) as raised:
        deeds[operation]()

    assert type(raised.value) is expected


def test_a_provider_says_how_long_to_wait(api: BatchApi, server: BatchServer) -> None:
    provider_id = handed_in(api, a_batch(api, "one")).provider_id
    server.statuses, server.retry_after = {"look": 429}, 90

    with pytest.raises(RateLimitedError) as raised:
        api.look(provider_id)

    assert raised.value.retry_after_seconds == 90


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_batches_is_told_apart(
    api: BatchApi, server: BatchServer, status: int
) -> None:
    server.statuses = {"upload": status, "create": status}

    with pytest.raises(ModelAccessError, match="has no Batch API"):
        handed_in(api, a_batch(api, "one"))

    assert server.batches == []


def test_a_batch_that_is_turned_away_says_why(server: BatchServer) -> None:
    """OpenAI looks at the file after it has taken the batch; a full queue is worth waiting for."""
    settings = ModelSettings(provider="openai", model="m", base_url=server.base_url, batch=True)
    api = batching.connect(settings, SecretStr("key"))
    server.refuses = "token_limit_exceeded"
    provider_id = handed_in(api, a_batch(api, "one")).provider_id

    state = api.look(provider_id)

    assert state.phase is Phase.FAILED
    assert isinstance(state.error, RateLimitedError)
    assert state.error.hint
