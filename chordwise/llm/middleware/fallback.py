"""Fallback to the next model after errors that the question did not cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

from chordwise.domain.analysis import analysis_for
from chordwise.errors import (
    ConfigurationError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
    first_transient_or_first,
    seconds_not_enough,
)
from chordwise.llm.model import (
    ChatModel,
    Completion,
    CompletionRequest,
    ModelProfile,
)

OnFallback: TypeAlias = Callable[[ModelProfile, ModelProfile, ModelError], None]

# Errors after which the next model is asked.
_CAUSES: tuple[type[ModelError], ...] = (
    ModelTransportError,
    ModelOverloadedError,
    RateLimitedError,
    QuotaExceededError,
    ModelAccessError,
)


def further_models(model: ChatModel) -> tuple[ChatModel, ...]:
    """Return the models to ask, in order, if the answers of this one are unusable."""
    # A check against a runtime protocol would be the slowest step for a chunk here.
    return cast("tuple[ChatModel, ...]", getattr(model, "further", ()))


class Fallback:
    """Asks the models in order until one answers; the completion names that model.

    After a timeout, language models are skipped if less time is left than the failed request had.
    After any error, the built-in model is skipped for analysis types that it cannot answer.
    `on_fallback` is called with each change: from, to, and the error.
    """

    def __init__(
        self,
        models: Sequence[ChatModel],
        on_fallback: OnFallback,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not models:
            raise ConfigurationError("There is no model to ask.", "Set model.")
        self._models = tuple(models)
        self._on_fallback = on_fallback
        self._clock = clock

    @property
    def profile(self) -> ModelProfile:
        """Return the first model's profile, with limits that every model supports."""
        profiles = [model.profile for model in self._models]
        return replace(
            profiles[0],
            context_tokens=min(profile.context_tokens for profile in profiles),
            max_output_tokens=min(profile.max_output_tokens for profile in profiles),
            max_output_tokens_on_retry=min(profile.output_ceiling for profile in profiles),
        )

    @property
    def further(self) -> tuple[ChatModel, ...]:
        """Return the models after the first."""
        return self._models[1:]

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the first answer.

        Raises:
            ModelError: An error that does not cause a fallback. If all models failed, the first
                transient error, so that the work is postponed while any model may answer later;
                without a transient error, the first error.
        """
        errors: list[ModelError] = []
        tried_models: list[ChatModel] = []
        started = self._clock()
        for model in self._models:
            remaining = request.with_less_time(self._clock() - started)
            if errors and _is_skipped(remaining, model, errors):
                continue
            if errors:
                self._on_fallback(tried_models[-1].profile, model.profile, errors[-1])
            tried_models.append(model)
            try:
                return model.complete(remaining)
            except _CAUSES as error:
                errors.append(error)
        raise first_transient_or_first(errors)


def _is_skipped(request: CompletionRequest, model: ChatModel, errors: Sequence[ModelError]) -> bool:
    if not model.profile.understands_language:
        return analysis_for(request.task.analysis_type).built_in() is None
    if request.timeout_seconds is None:
        return False
    return request.timeout_seconds < seconds_not_enough(errors)
