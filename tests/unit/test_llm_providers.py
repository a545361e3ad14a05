"""Tests of the selection of providers and of their requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version

import pytest
from packaging.version import Version
from pydantic import SecretStr, ValidationError

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import ConfigurationError, InvalidAnswerError, ModelTransportError
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, FinishReason, Usage
from chordwise.llm.prices import price_of
from chordwise.llm.provider import connect
from chordwise.llm.providers.anthropic import (
    API_VERSION,
    MAX_UNSTREAMED_TOKENS,
    MIN_CACHED_TOKENS,
    AnthropicModel,
)
from chordwise.llm.providers.openai import KeptLoaded, OpenAIModel, interval_seconds
from chordwise.pipeline.asking.question import request_for, with_problems, with_raised_limit
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_page, a_request, a_task
from tests.fakes.official_types import require_anthropic, require_openai
from tests.fakes.scripted_model import ScriptedModel

pytestmark = pytest.mark.xdist_group("official_types")

NO_KEY, KEY = SecretStr(""), SecretStr("sk-test")


@pytest.mark.parametrize(
    ("settings", "key", "kind"),
    [
        (ModelSettings(provider="openai", model="gpt-6.1-terra"), KEY, OpenAIModel),
        (ModelSettings(provider="anthropic", model="claude-haiku-5-5"), KEY, AnthropicModel),
        (ModelSettings(provider="local", base_url="http://127.0.0.1:1/v1"), KEY, OpenAIModel),
        # A self-hosted server often needs no key: Ollama, vLLM, LM Studio.
        (ModelSettings(provider="openai", model="q", base_url="http://h/v1"), NO_KEY, OpenAIModel),
    ],
)
def test_each_provider_has_its_adapter(
    settings: ModelSettings, key: SecretStr, kind: type[OpenAIModel | AnthropicModel]
) -> None:
    model = connect(settings, key)

    assert isinstance(model, kind)
    assert (model.profile.provider, model.profile.model) == (settings.provider, settings.model)


@pytest.mark.parametrize(
    ("settings", "key", "hint"),
    [
        (ModelSettings(provider="openai", model="gpt"), NO_KEY, "OPENAI_API_KEY"),
        (ModelSettings(provider="anthropic", model="c"), SecretStr(" "), "ANTHROPIC_API_KEY"),
        (ModelSettings(provider="openai"), SecretStr("k"), "model"),
        (ModelSettings(provider="local", model="x.gguf"), NO_KEY, "base_url"),
        (ModelSettings(provider="openai", model="m"), SecretStr("sk-1\nx"), "Copy"),
        (ModelSettings(provider="openai", model="m"), SecretStr("“sk-1”"), "Copy"),
        (
            ModelSettings(provider="anthropic", model="c", temperature=0),
            SecretStr("k"),
            "temperature",
        ),
    ],
)
def test_invalid_settings_have_a_hint(settings: ModelSettings, key: SecretStr, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(settings, key)

    assert hint in caught.value.hint
    assert "sk-1" not in f"{caught.value.what}{caught.value.hint}"


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("http://h:8/v1/chat/completions", "http://h:8/v1/chat/completions"),
        ("https://h/openai?api-version=1", "https://h/openai/chat/completions?api-version=1"),
    ],
)
def test_addresses_are_completed(base_url: str, address: str) -> None:
    assert openai(base_url=base_url).address("/chat/completions") == address


OLLAMA = "http://127.0.0.1:11434/v1"


@dataclass(slots=True)
class Server:
    """Counts the calls of `keep`, and fails if it should."""

    fails: bool = False
    calls: int = 0
    now: float = 0.0

    def keep(self) -> None:
        self.calls += 1
        if self.fails:
            raise ModelTransportError("no connection")

    def clock(self) -> float:
        return self.now


def test_keep_alive_is_sent_after_the_first_answer_and_at_intervals() -> None:
    server = Server()
    kept = KeptLoaded(ScriptedModel(["{}"], repeat_last=True), server.keep, 60, server.clock)

    calls = []
    for server.now in (0, 1, 59, 60, 61, 121):
        kept.complete(a_request())
        calls.append(server.calls)

    assert calls == [1, 1, 1, 2, 2, 3]


def test_a_failure_of_keep_alive_does_not_affect_the_answer() -> None:
    server = Server(fails=True)
    kept = KeptLoaded(
        ScriptedModel([ModelTransportError("x"), "{}"]), server.keep, 60, server.clock
    )

    with pytest.raises(ModelTransportError, match="x"):
        kept.complete(a_request())
    assert server.calls == 0

    assert kept.complete(a_request()).text == "{}"
    assert server.calls == 1


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [("10s", 5), ("30s", 15), ("10m", 60), ("2h", 60), ("-1", 60)]
)
def test_a_short_keep_alive_is_sent_more_often(keep_alive: str, seconds: float) -> None:
    """A server that reloads a model applies its own default."""
    settings = ModelSettings(provider="openai", base_url=OLLAMA, keep_alive=keep_alive)

    assert interval_seconds(settings) == seconds


@pytest.mark.parametrize("keep_alive", ["0", "10", "0s", "1.5h", "-2", "10m ", "soon"])
def test_an_invalid_keep_alive_is_rejected(keep_alive: str) -> None:
    """Zero would unload the model between two questions."""
    with pytest.raises(ValueError, match="keep_alive"):
        ModelSettings(provider="openai", base_url=OLLAMA, keep_alive=keep_alive)


FLEX = ModelSettings(provider="openai", model="gpt-6.1-terra", service_tier="flex")


@pytest.mark.parametrize(
    ("tier", "base_url", "sent_tier"),
    [
        ("flex", "", "flex"),
        ("flex", "https://api.openai.com/v1", "flex"),
        ("flex", "https://api.openai.com:443/v1/", "flex"),
        ("", "", "default"),
        ("", "https://api.openai.com/v1", "default"),
        ("", "https://house.openai.azure.com/openai/v1", None),
        ("", "http://localhost:8000/v1", None),
        ("", "https://api.openai.com.example.org/v1", None),
    ],
)
def test_only_openai_receives_a_service_tier(
    tier: str, base_url: str, sent_tier: str | None
) -> None:
    """Otherwise the tier of the project applies, which may be priority at twice the price."""
    settings = FLEX.model_copy(update={"service_tier": tier, "base_url": base_url})

    body = OpenAIModel(settings, KEY).body(a_request())

    require_openai(body)
    assert body.get("service_tier") == sent_tier
    assert connect(settings, KEY).profile.model == "gpt-6.1-terra"


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"base_url": "https://house.openai.azure.com/openai/v1"}, "service_tier"),
        ({"base_url": "http://localhost:8000/v1"}, "service_tier"),
        ({"base_url": "https://api.openai.com.example.org/v1"}, "service_tier"),
        ({"provider": "anthropic", "model": "claude-haiku-5-5"}, "service_tier"),
        ({"service_tier": "", "keep_alive": "10m"}, "keep_alive"),
        (
            {
                "provider": "anthropic",
                "model": "claude-haiku-5-5",
                "service_tier": "",
                "keep_alive": "10m",
            },
            "keep_alive",
        ),
    ],
)
def test_unsupported_settings_fail_before_any_request(
    changes: dict[str, str], setting: str
) -> None:
    """A server that ignores the service tier would cost twice the expected price."""
    with pytest.raises(ConfigurationError, match=setting):
        connect(FLEX.model_copy(update=changes), KEY)


@pytest.mark.parametrize(
    "settings",
    [
        FLEX,
        FLEX.model_copy(
            update={
                "input_usd_per_million_tokens": Decimal(3),
                "output_usd_per_million_tokens": Decimal(9),
            }
        ),
    ],
)
def test_the_price_is_that_of_the_tier_in_the_response(settings: ModelSettings) -> None:
    costs = {}
    for tier in ("", "default", "flex", "batch"):
        completion = Completion(
            text="{}",
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=10_000, output_tokens=1_000),
            provider="openai",
            model="gpt-6.1-terra",
            service_tier=tier,
        )
        costs[tier] = price_of(settings).cost_usd(completion)

    full = costs[""]
    assert full is not None
    assert costs == {"": full, "default": full, "flex": full / 2, "batch": full / 2}


LONG = "Follow this rule in every answer. " * (MIN_CACHED_TOKENS // 6)


def sent_to_openai(request: CompletionRequest, **changes: str | int) -> JsonObject:
    body = openai(**changes).body(request)
    require_openai(body)
    return body


def sent_to_anthropic(request: CompletionRequest, **changes: int) -> JsonObject:
    body = anthropic(**changes).body(request)
    require_anthropic(body)
    return body


def test_images_precede_the_text() -> None:
    request = a_request(user="Transcribe.", pictures=(a_page(),))
    encoded = a_page().base64

    openai, anthropic = sent_to_openai(request), sent_to_anthropic(request)

    text = {"type": "text", "text": "Transcribe."}
    url = {"url": f"data:image/jpeg;base64,{encoded}"}
    source = {"type": "base64", "media_type": "image/jpeg", "data": encoded}
    assert openai["messages"][-1]["content"] == [{"type": "image_url", "image_url": url}, text]  # type: ignore[index,call-overload]  # JSON
    assert anthropic["messages"][-1]["content"] == [{"type": "image", "source": source}, text]  # type: ignore[index,call-overload]  # JSON


def test_long_instructions_are_marked_as_cacheable_for_anthropic() -> None:
    """They come first and are the same for all texts of a run; short ones are not marked."""
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}

    assert sent_to_anthropic(a_request(system=LONG))["system"] == [marked]
    assert sent_to_anthropic(a_request(system="Be short."))["system"] == "Be short."


def test_openai_gets_a_cache_key_for_questions_with_a_common_prefix() -> None:
    """Some other servers reject unknown fields."""
    one, another = sent_to_openai(a_request()), sent_to_openai(a_request(user="Another text."))
    other = sent_to_openai(a_request(system="Another task."))

    assert one["prompt_cache_key"] == another["prompt_cache_key"] != other["prompt_cache_key"]
    for base_url in ("http://127.0.0.1:8000/v1", "https://x.openai.azure.com/v1"):
        assert "prompt_cache_key" not in sent_to_openai(a_request(), base_url=base_url)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_output_tokens": 100}, 400),
        ({"max_output_tokens": 100, "max_output_tokens_on_retry": 150}, 150),
        ({"max_output_tokens": 100, "max_output_tokens_on_retry": 50}, 100),
        ({"max_output_tokens": 1_000}, 512),
    ],
)
def test_the_token_limit_of_a_request_has_a_ceiling(limits: dict[str, int], expected: int) -> None:
    request = replace(a_request(), max_output_tokens=512)

    assert sent_to_openai(request, **limits)["max_completion_tokens"] == expected
    assert sent_to_anthropic(request, **limits)["max_tokens"] == expected


def test_the_token_limit_for_anthropic_never_requires_streaming() -> None:
    request = replace(a_request(), max_output_tokens=100_000)

    sent = sent_to_anthropic(request, max_output_tokens=20_000, max_output_tokens_on_retry=100_000)

    assert sent["max_tokens"] == MAX_UNSTREAMED_TOKENS


OWN_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 9},
    },
    "required": ["total"],
    "$defs": {"line": {"type": "object", "properties": {"text": {"type": "string"}}}},
}
QUESTIONS = {
    AnalysisType.SUMMARY: AnalysisOptions(),
    AnalysisType.EXTRACTION: AnalysisOptions(schema=OWN_SCHEMA),
    AnalysisType.REASONING: AnalysisOptions(instructions="Who pays?"),
    AnalysisType.CLASSIFICATION: AnalysisOptions(labels=("contract", "letter")),
    AnalysisType.SENTIMENT: AnalysisOptions(),
}
OPENAI: dict[str, dict[str, object]] = {
    "public": {},
    "flex": {"service_tier": "flex"},
    "Azure": {"base_url": "https://house.openai.azure.com/openai/v1"},
    "Ollama": {
        "base_url": "http://127.0.0.1:11434/v1",
        "max_tokens_field": "max_tokens",
        "keep_alive": "10m",
    },
    "JSON without a schema": {"structured_output": "json_object"},
    "words only": {"structured_output": "none"},
    "a temperature": {"temperature": 0.2},
    "llama.cpp": {"provider": "local", "base_url": "http://127.0.0.1:8080/v1"},
}
ANTHROPIC: dict[str, dict[str, object]] = {
    "public": {},
    "words only": {"structured_output": "none"},
    "a gateway": {"base_url": "http://127.0.0.1:8000/v1"},
}


def openai(**changes: object) -> OpenAIModel:
    """Return a model of OpenAI or of a compatible server."""
    values = {"provider": "openai", "model": "gpt-6.1-terra", **changes}
    return OpenAIModel(ModelSettings.model_validate(values), KEY)


def anthropic(**changes: object) -> AnthropicModel:
    values = {"provider": "anthropic", "model": "claude-haiku-5-5", **changes}
    return AnthropicModel(ModelSettings.model_validate(values), KEY)


def questions(model: ChatModel) -> list[CompletionRequest]:
    """Return questions of every type, syntheses, repairs, and retries with a higher limit."""
    answers: tuple[JsonObject, ...] = ({"a": 1},)
    requests = []
    for analysis_type, options in QUESTIONS.items():
        task = a_task(analysis_type, "A text.", options)
        joining = replace(task, stage=Stage.SYNTHESIZE, text="", answers=answers)
        requests += [request_for(model, question) for question in (task, joining)]
    repaired = with_problems(requests[0], InvalidAnswerError("“due” is missing."), model.profile)
    raised = with_raised_limit(requests[0], model.profile)
    assert raised is not None
    return [*requests, repaired, raised, replace(requests[0], system="Rule. " * MIN_CACHED_TOKENS)]


@pytest.mark.parametrize("form", OPENAI)
def test_requests_for_chat_completions_are_valid(form: str) -> None:
    """They have no fields that only some servers know or that new models reject."""
    model = openai(**OPENAI[form])

    bodies = [model.body(request) for request in questions(model)]

    for body in bodies:
        require_openai(body)
        assert not {"keep_alive", "top_p", "seed", "user", "n"} & body.keys()
        assert ("temperature" in body) is (form == "a temperature")
        assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1


@pytest.mark.parametrize("form", ANTHROPIC)
def test_requests_for_messages_are_valid(form: str) -> None:
    """The API version of October 2026 has no temperature and requires a limit."""
    model = anthropic(**ANTHROPIC[form])

    bodies = [model.body(request) for request in questions(model)]

    for body in bodies:
        require_anthropic(body)
        assert body["max_tokens"]
        assert ("output_config" in body) is (form != "words only")


def test_the_official_package_has_the_api_version_of_our_requests() -> None:
    official = import_module("anthropic._constants").ANTHROPIC_API_VERSION

    assert API_VERSION == official == "2026-10-21"
    assert Version(version("openai")) >= Version("3")
    assert Version(version("anthropic")) >= Version("2")


@pytest.mark.parametrize(
    ("require", "model", "changes"),
    [
        (require_openai, openai(), {"max_completion_tokens": "many"}),
        (require_openai, openai(), {"messages": [{"role": "narrator", "content": "x"}]}),
        (require_openai, openai(), {"service_tier": "slow"}),
        (require_openai, openai(), {"keep_alive": "10m"}),
        (require_openai, openai(), {"response_format": {"type": "json_schema"}}),
        (require_anthropic, anthropic(), {"temperature": 0.0}),
        (require_anthropic, anthropic(), {"system": [{"type": "text", "words": "x"}]}),
        (require_anthropic, anthropic(), {"output_format": {"type": "json_schema"}}),
        (require_anthropic, anthropic(), {"max_tokens": None}),
    ],
)
def test_validation_detects_invalid_requests(
    require: Callable[[JsonObject], None],
    model: OpenAIModel | AnthropicModel,
    changes: dict[str, JsonValue],
) -> None:
    body = {**model.body(a_request()), **changes}

    with pytest.raises((ValidationError, AssertionError)):
        require(body)
