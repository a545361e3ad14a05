"""A model that answers from a script; it implements `ChatModel`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from chordwise.errors import ChordwiseError
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, ModelProfile, Usage

Answer: TypeAlias = str | Completion | ChordwiseError
Line: TypeAlias = Answer | Callable[[CompletionRequest], Answer]


def a_profile(
    model: str = "script-1",
    context_tokens: int = 32_768,
    max_output_tokens: int = 2_048,
    max_output_tokens_on_retry: int | None = None,
) -> ModelProfile:
    return ModelProfile(
        provider="scripted",
        model=model,
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        max_output_tokens_on_retry=max_output_tokens_on_retry,
    )


def cut_off(text: str, reason: FinishReason = FinishReason.LENGTH) -> Completion:
    """Return an answer that hit the output limit, or did not end cleanly for another reason."""
    return replace(ScriptedModel([]).completion(text), finish_reason=reason)


class ScriptExhaustedError(AssertionError):
    """The model received more requests than the script has lines."""


class ScriptedModel:
    """Answers with the lines of `script` in turn, and records its requests.

    A line is the text of an answer, a completion, an error to raise, or a function of the request
    that returns one of these. With `repeat_last` the last line answers all further requests.
    """

    def __init__(
        self,
        script: Iterable[Line],
        *,
        profile: ModelProfile | None = None,
        repeat_last: bool = False,
    ) -> None:
        self.requests: list[CompletionRequest] = []
        self._script = list(script)
        self._repeat_last = repeat_last
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._profile = profile or a_profile()

    def narrow(self, context_tokens: int) -> None:
        self._profile = replace(self._profile, context_tokens=context_tokens)

    @property
    def profile(self) -> ModelProfile:
        return self._profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Return or raise the next line.

        Raises:
            ChordwiseError: The line is an error.
            ScriptExhaustedError: There is no further line.
        """
        line = self._next_line(request)
        answer = line(request) if callable(line) else line
        if isinstance(answer, ChordwiseError):
            raise answer
        return answer if isinstance(answer, Completion) else self.completion(answer)

    def completion(self, text: str) -> Completion:
        """Return a cleanly ended completion of this model with `text`."""
        return Completion(
            text=text,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=100, output_tokens=max(1, len(text) // 4)),
            provider=self._profile.provider,
            model=self._profile.model,
            response_id=f"scripted-{next(self._numbers)}",
        )

    def _next_line(self, request: CompletionRequest) -> Line:
        with self._lock:
            self.requests.append(request)
            if not self._script:
                raise ScriptExhaustedError(f"request {len(self.requests)} has no line")
            if self._repeat_last and len(self._script) == 1:
                return self._script[0]
            return self._script.pop(0)
