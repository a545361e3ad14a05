"""Models in GGUF files, served by llama.cpp: by the stack here, or at a `base_url`."""

from __future__ import annotations

from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ConfigurationError
from chordwise.llm.model import ChatModel
from chordwise.llm.provider import Provider
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.llm.schema_dialects import for_llama_cpp
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings


class LlamaModel(OpenAIModel):
    """A model behind the Chat Completions of llama.cpp, which enforces most schemas."""

    def _dialect(self, schema: JsonObject) -> tuple[JsonObject, bool]:
        return for_llama_cpp(schema), True


class Local(Provider):
    """The file is the name of the model; without a name, the server at the address decides."""

    needs_name = False

    def connect(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None
    ) -> ChatModel:
        """Return the model at the address of the server that runs it."""
        if not settings.base_url:
            raise ConfigurationError(
                "A local model has no address.", "Set base_url to the server that runs it."
            )
        return LlamaModel(settings, api_key, transport)

    def is_free(self, settings: ModelSettings) -> bool:
        """Return whether the stack serves the model."""
        return not settings.base_url


PROVIDER = Local()
