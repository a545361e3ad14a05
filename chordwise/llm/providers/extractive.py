"""The built-in model: no network, no key, no language model; it ranks and quotes sentences.

With the encoder of `chordwise[encoder]` it also compares the meanings of English texts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import SecretStr

from chordwise.domain import tokens
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, Stage
from chordwise.domain.extractive.answer_context import Check, answering
from chordwise.domain.json_values import JsonObject
from chordwise.errors import AnswerTimeoutError, RefusedError
from chordwise.llm.encoder import Encoder
from chordwise.llm.model import (
    EXTRACTIVE,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.provider import Provider
from chordwise.llm.transport import JsonTransport
from chordwise.settings.sections import BY_MEANING, BY_WORDS, ModelSettings

TIMEOUT_SECONDS = 120.0
"""The default time limit of an answer; a usual chunk takes milliseconds."""
_LARGE = 1_000_000
_PROFILE = ModelProfile(
    provider=EXTRACTIVE,
    model=BY_WORDS,
    context_tokens=_LARGE,
    max_output_tokens=_LARGE // 10,  # the rest of the context is the room for the text
    understands_language=False,
)
_LATIN_SHARE = 0.9


class ExtractiveModel(ChatModel):
    """The default model without configuration, the fallback, and the baseline for comparisons.

    It answers `request.task` by word statistics and ignores the prompt. Its usage is an estimate
    and costs nothing. `timeout_seconds` bounds an answer; `clock` is monotonic. An `encoder`
    compares the meanings of texts in Latin letters where word statistics are not enough.
    """

    def __init__(
        self,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        encoder: Encoder | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._encoder = encoder
        self._profile = replace(_PROFILE, model=BY_MEANING) if encoder else _PROFILE

    @property
    def profile(self) -> ModelProfile:
        """Return a profile without language understanding and with very large limits."""
        return self._profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Return an answer that follows the schema.

        Raises:
            AnswerTimeoutError: It exceeded its time limit.
            RefusedError: The analysis type requires a language model.
        """
        encoder = self._encoder if _is_latin(request.task.text) else None
        with answering(self._deadline(request), encoder.similarity if encoder else None):
            text = json.dumps(answer(request.task), ensure_ascii=False)
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return Completion(
            text=text,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=tokens.estimate(read), output_tokens=tokens.estimate(text)),
            provider=EXTRACTIVE,
            model=self._profile.model,
        )

    def _deadline(self, request: CompletionRequest) -> Check:
        """Return the check that aborts the answer to this request after its time limit."""
        seconds = request.limit_seconds(self._timeout_seconds)
        ends_at = self._clock() + seconds

        def check() -> None:
            if self._clock() > ends_at:
                raise AnswerTimeoutError(
                    f"The built-in model did not finish its answer within {seconds:g} s."
                )

        return check


class Extractive(Provider):
    """The built-in model."""

    needs_name = False

    def connect(
        self,
        settings: ModelSettings,
        api_key: SecretStr,  # noqa: ARG002 - it needs none
        transport: JsonTransport | None,  # noqa: ARG002 - as above
    ) -> ChatModel:
        """Return the model, with the encoder if its name selects that."""
        encoder = Encoder() if settings.model == BY_MEANING else None
        return ExtractiveModel(settings.timeout_seconds, encoder=encoder)

    def is_free(self, settings: ModelSettings) -> bool:  # noqa: ARG002 - always
        """Return that it costs nothing."""
        return True


PROVIDER = Extractive()


def _is_latin(text: str) -> bool:
    """Return whether a text is almost entirely ASCII; the encoder was trained on English."""
    return sum(map(str.isascii, text)) >= _LATIN_SHARE * len(text)


def answer(task: AnalysisTask) -> JsonObject:
    """Answer a task; deterministic.

    A repair is a second analysis of the same text by the same rules.

    Raises:
        RefusedError: The analysis type requires a language model.
    """
    built_in = analysis_for(task.analysis_type).built_in()
    if built_in is None:
        raise RefusedError(
            f"The built-in model does not support {task.analysis_type}.",
            "Choose a language model: --model, or model in the settings.",
        )
    if task.stage is Stage.SYNTHESIZE and task.answers:
        return built_in.synthesize(task)
    return built_in.analyze(task)
