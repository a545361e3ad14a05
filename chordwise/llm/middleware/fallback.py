"""The next model, where one cannot answer for reasons that are not the question's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

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
    UNANSWERED_BY_EXTRACTIVE,
    ChatModel,
    Completion,
    CompletionRequest,
    ModelProfile,
)

OnFallback: TypeAlias = Callable[[ModelProfile, ModelProfile, ModelError], None]

# After these errors of a model the next one is asked.
_CAUSES: tuple[type[ModelError], ...] = (
    ModelTransportError,
    ModelOverloadedError,
    RateLimitedError,
    QuotaExceededError,
    ModelAccessError,
)


def further_models(model: ChatModel) -> tuple[ChatModel, ...]:
    """Return the models to ask, in order, where the answers of this one are of no use."""
    # A runtime protocol would take longer than all else that a chunk does here.
    return cast("tuple[ChatModel, ...]", getattr(model, "further", ()))


class Fallback:
    """Asks the models in order until one answers; the completion says which did.

    After a time-out, a language model is passed over for which less time is left than that, and
    after any error the built-in model for what it gives no answer to.
    `on_fallback` is called with each change: from, to, and why.
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
        """Return the first model's profile, with bounds that fit all of them."""
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
            ModelError: An error that is no cause for falling back, or, where all models failed,
                the first transient error, and without one the first error. As long as one model
                may answer later, the work is worth putting off.
        """
        errors: list[ModelError] = []
        asked: list[ChatModel] = []
        started = self._clock()
        for model in self._models:
            remaining = request.after(self._clock() - started)
            if errors and _is_passed_over(remaining, model, errors):
                continue
            if errors:
                self._on_fallback(asked[-1].profile, model.profile, errors[-1])
            asked.append(model)
            try:
                return model.complete(remaining)
            except _CAUSES as error:
                errors.append(error)
        raise first_transient_or_first(errors)


def _is_passed_over(
    request: CompletionRequest, model: ChatModel, errors: Sequence[ModelError]
) -> bool:
    if not model.profile.understands_language:
        return request.task.analysis_type in UNANSWERED_BY_EXTRACTIVE
    if request.timeout_seconds is None:
        return False
    return request.timeout_seconds < seconds_not_enough(errors)
