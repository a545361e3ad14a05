"""The built-in model: no network, no key, no language model; it ranks and quotes sentences."""

from __future__ import annotations

import json

from chordwise.domain import tokens
from chordwise.domain.extractive.answers import answer
from chordwise.llm.model import (
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)

PROVIDER = "extractive"
MODEL = "textrank-1"
_LARGE = 1_000_000
_PROFILE = ModelProfile(
    provider=PROVIDER,
    model=MODEL,
    context_tokens=_LARGE,
    max_output_tokens=_LARGE // 10,  # below the context: the difference is what a text may take
    understands_language=False,
)


class ExtractiveModel(ChatModel):
    """The default where nothing is configured, the fallback, and the baseline to beat.

    It answers `request.task` by statistics of words and ignores the prompt. Its usage is an
    estimate and costs nothing.
    """

    @property
    def profile(self) -> ModelProfile:
        """Say that it does not understand language, and that no prompt is too long for it."""
        return _PROFILE

    def complete(self, request: CompletionRequest) -> Completion:
        """Return an answer that keeps to the schema; it never fails and never refuses."""
        text = json.dumps(answer(request.task), ensure_ascii=False)
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return Completion(
            text=text,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=tokens.estimate(read), output_tokens=tokens.estimate(text)),
            provider=PROVIDER,
            model=MODEL,
        )
