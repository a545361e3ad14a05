"""Checking a completion: is it whole, is it JSON of the schema, do its quotes stand in the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from chordwise.domain import grounding, quality, validation
from chordwise.domain.answers import Answer
from chordwise.domain.critique import analysis_of
from chordwise.domain.grounding import Source
from chordwise.errors import InvalidAnswerError, RefusedError, TruncatedError
from chordwise.llm.model import Completion, CompletionRequest, FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the check of a completion found; it goes into the ledger beside the call."""

    valid: bool
    quality: float | None


INVALID = Verdict(valid=False, quality=None)

Judge: TypeAlias = Callable[[Completion, Verdict], None]


def checked(
    completion: Completion,
    request: CompletionRequest,
    source: Source,
    judge: Judge,
    *,
    repaired: bool,
) -> Answer:
    """Return the answer in a completion, its quotes looked up in the source; `judge` hears of it.

    Raises:
        RefusedError: The model declined.
        TruncatedError: The answer hit the output limit, however whole it looks.
        InvalidAnswerError: It is not JSON of the schema; the sentence may go into a prompt.
    """
    try:
        answer = _check(completion, request, source, repaired=repaired)
    except (InvalidAnswerError, RefusedError, TruncatedError):
        judge(completion, INVALID)
        raise
    judge(completion, Verdict(valid=True, quality=answer.quality))
    return answer


def _check(
    completion: Completion, request: CompletionRequest, source: Source, *, repaired: bool
) -> Answer:
    _require_whole(completion)
    task = request.task
    clean = completion.finish_reason is FinishReason.STOP
    parsed = validation.parse(completion.text, lenient=clean)
    analysis = analysis_of(task)
    found = validation.problems(parsed.answer, analysis.schema(task.options))
    found = found or analysis.problems(parsed.answer, task)
    if found:
        raise InvalidAnswerError("; ".join(found[: validation.MAX_PROBLEMS]))
    output = grounding.ground(parsed.answer, source)
    mended = repaired or parsed.repaired
    return Answer(
        output=output,
        confidence=analysis.confidence(output),
        quality=quality.quality(output, repaired=mended),
        repaired=mended,
        provider=completion.provider,
        model=completion.model,
        prompt_version=request.prompt_version,
    )


def _require_whole(completion: Completion) -> None:
    match completion.finish_reason:
        case FinishReason.REFUSAL:
            raise RefusedError(f"{completion.model} declined to answer.")
        case FinishReason.LENGTH:
            raise TruncatedError(f"The answer of {completion.model} stopped at the output limit.")
        case _:
            return
