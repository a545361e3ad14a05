"""Choosing a provider from the settings, before anything is sent."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from chordwise.errors import ConfigurationError
from chordwise.llm.providers import connect
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.providers.exchange import endpoint
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.settings import ModelSettings

NO_KEY = SecretStr("")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (ModelSettings(provider="openai", model="gpt-6.1-terra"), OpenAIModel),
        (ModelSettings(provider="anthropic", model="claude-haiku-5-5"), AnthropicModel),
        (ModelSettings(provider="local", base_url="http://127.0.0.1:1/v1"), OpenAIModel),
    ],
)
def test_each_provider_has_its_adapter(
    settings: ModelSettings, kind: type[OpenAIModel | AnthropicModel]
) -> None:
    """The profile says what the settings say."""
    model = connect(settings, SecretStr("sk-test"))

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
def test_what_cannot_work_is_refused_with_a_hint(
    settings: ModelSettings, key: SecretStr, hint: str
) -> None:
    """A missing key or a broken address shows before the first document."""
    with pytest.raises(ConfigurationError) as caught:
        connect(settings, key)

    assert hint in caught.value.hint
    assert "sk-1" not in f"{caught.value.what}{caught.value.hint}"


def test_a_server_of_ones_own_needs_no_key() -> None:
    """Ollama, vLLM and LM Studio often ask for none."""
    settings = ModelSettings(provider="openai", model="qwen", base_url="http://10.0.0.2:8000/v1")

    assert connect(settings, NO_KEY).profile.model == "qwen"


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
    """However the address is written, the operation is found below it once."""
    assert endpoint(base_url, "/chat/completions") == address
