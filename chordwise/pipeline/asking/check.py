"""Checks a completion: whether it is complete, valid JSON of the schema, and grounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from chordwise.domain import grounding, missing_rows, prompts, typed_values, validation
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType
from chordwise.domain.answers import Answer, lowered_by, quality_of
from chordwise.domain.critique import analysis_of
from chordwise.domain.grounding import Source
from chordwise.domain.missing_rows import MissingRows
from chordwise.errors import InvalidAnswerError, RefusedError, TruncatedError
from chordwise.llm.model import Completion, CompletionRequest, FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of checking a completion, which is stored in the ledger beside the call.

    `is_complete` is false for a valid answer that lacks rows of the answers that it joins.
    """

    valid: bool
    quality: float | None
    is_complete: bool = True


INVALID = CheckResult(valid=False, quality=None)

RecordCheck: TypeAlias = Callable[[Completion, CheckResult], None]


def checked(
    completion: Completion,
    request: CompletionRequest,
    source: Source,
    record_check: RecordCheck,
    *,
    repaired: bool,
) -> Answer:
    """Return the answer in a completion with its quotes located in the source; record the check.

    Raises:
        RefusedError: The model refused to answer.
        TruncatedError: The completion reached the output limit, even if it looks complete.
        InvalidAnswerError: It is not JSON of the schema; the message can be part of a prompt.
    """
    try:
        answer = _check(completion, request, source, repaired=repaired)
    except (InvalidAnswerError, RefusedError, TruncatedError):
        record_check(completion, INVALID)
        raise
    missing = [*answer.missing_rows, *unread(answer, request.task, source)]
    is_complete = not missing_rows.losses(missing)
    record_check(
        completion, CheckResult(valid=True, quality=answer.quality, is_complete=is_complete)
    )
    return answer


def with_dropped_rows(answer: Answer, before: Completion, request: CompletionRequest) -> Answer:
    """Return a repaired answer with the number of rows that it lacks of the invalid one `before`.

    An answer that joins others is compared with those instead.
    """
    try:
        draft = validation.parse(before.text).answer
    except InvalidAnswerError:
        return answer
    if request.task.answers:
        return answer
    analysis, options = analysis_of(request.task), request.task.options
    prior, kept = (analysis.row_counts([output], options) for output in (draft, answer.output))
    missing = missing_rows.compare(prior, kept)
    if sum(rows.number for rows in prior.values()) <= sum(rows.number for rows in kept.values()):
        return answer  # the rows only moved to where they belong
    return reassessed(answer, missing_rows.union(answer.missing_rows, missing))


def unread(answer: Answer, task: AnalysisTask, source: Source) -> tuple[MissingRows, ...]:
    """Return the lists of an answer about a chunk that lack rows for records of its text."""
    is_complete = task.is_about_text and not task.lists_elsewhere
    return missing_rows.unread(source, answer.output, task) if is_complete else ()


def with_missing_rows(answer: Answer, missing: Sequence[MissingRows]) -> Answer:
    """Return an answer with further missing rows, and its quality lowered accordingly."""
    every = missing_rows.union(answer.missing_rows, missing)
    before, after = (missing_rows.share(rows) for rows in (answer.missing_rows, every))
    lowered = lowered_by(answer.quality, after / before if before else 1.0)
    return replace(answer, missing_rows=every, quality=lowered)


def reassessed(answer: Answer, missing: tuple[MissingRows, ...]) -> Answer:
    """Return an answer with these missing rows, and its quality computed again."""
    whole = quality_of(answer.output, repaired=answer.repaired)
    lowered = lowered_by(whole, missing_rows.share(missing))
    return replace(answer, missing_rows=missing, quality=lowered)


def _check(
    completion: Completion, request: CompletionRequest, source: Source, *, repaired: bool
) -> Answer:
    require_complete(completion)
    task = request.task
    clean = completion.finish_reason is FinishReason.STOP
    parsed = validation.parse(completion.text, lenient=clean)
    analysis = analysis_of(task)
    if prompts.repeats_mark(completion.text, task):
        raise InvalidAnswerError("The answer repeats the mark around the text.")
    if problems := validation.problems(parsed.answer, request.schema):
        raise InvalidAnswerError(f"The answer does not match the schema: {'; '.join(problems)}.")
    if problems := analysis.problems(parsed.answer, task):
        raise InvalidAnswerError("; ".join(problems[: validation.MAX_PROBLEMS]))
    # Values are searched in the quotes as the model wrote them; a joined quote spans more text.
    marked = analysis.with_marks(analysis.without_reasoning(parsed.answer), task.options)
    output = grounding.ground(marked, source)
    if task.analysis_type == AnalysisType.EXTRACTION and task.options.schema is None:
        output = typed_values.with_scales(output, source, task.options)
    is_repaired = repaired or parsed.repaired
    missing = missing_rows.union(
        missing_rows.compare(
            analysis.row_counts(task.answers, task.options),
            analysis.row_counts([output], task.options),
        ),
        missing_rows.stated(parsed.answer, output, task),
    )
    return Answer(
        output=output,
        confidence=analysis.confidence(output),
        quality=lowered_by(quality_of(output, repaired=is_repaired), missing_rows.share(missing)),
        repaired=is_repaired,
        provider=completion.provider,
        model=completion.model,
        prompt_version=request.prompt_version,
        missing_rows=missing,
    )


def require_complete(completion: Completion) -> None:
    """Require a completion that the model has ended by itself.

    Raises:
        RefusedError: The model refused to answer.
        TruncatedError: The completion reached the output limit.
    """
    match completion.finish_reason:
        case FinishReason.REFUSAL:
            raise RefusedError(f"{completion.model} declined to answer.")
        case FinishReason.LENGTH:
            raise TruncatedError(f"The answer of {completion.model} stopped at the output limit.")
        case _:
            return
