"""Asking a model one question until there is an answer that holds: parsed, valid, grounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from chordwise.domain import grounding, quality, validation
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.prompting import render
from chordwise.domain.tasks import AnalysisTask, Stage
from chordwise.errors import InvalidAnswerError, RefusedError, TruncatedError
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, FinishReason
from chordwise.prompts import library


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the check of a completion found; it goes into the ledger beside the call."""

    valid: bool
    quality: float | None


Judge = Callable[[Completion, Verdict], None]


def ask(model: ChatModel, task: AnalysisTask, source: Source, judge: Judge) -> Answer:
    """Ask, check, and ask once more with what was wrong; `judge` hears of every completion.

    Raises:
        ModelError: No usable answer came; the subclass says why.
    """
    request = request_for(model, task)
    completion = model.complete(request)
    try:
        return _checked(completion, task, source, judge, repaired=False)
    except InvalidAnswerError as error:
        again = model.complete(_with_problems(request, error))
        return _checked(again, task, source, judge, repaired=True)


def request_for(model: ChatModel, task: AnalysisTask) -> CompletionRequest:
    """Render the question for a model."""
    schema = analysis_for(task.analysis_type).schema(task.options)
    template = library.template_for(task)
    prompt = render(template, task, schema)
    return CompletionRequest(
        task=task,
        system=prompt.system,
        user=prompt.user,
        schema=schema,
        schema_name=task.analysis_type.value,
        prompt_version=template.version,
        max_output_tokens=model.profile.max_output_tokens,
    )


def _checked(
    completion: Completion, task: AnalysisTask, source: Source, judge: Judge, *, repaired: bool
) -> Answer:
    try:
        answer = _check(completion, task, source, repaired=repaired)
    except (InvalidAnswerError, RefusedError, TruncatedError):
        judge(completion, Verdict(valid=False, quality=None))
        raise
    judge(completion, Verdict(valid=True, quality=answer.quality))
    return answer


def _check(completion: Completion, task: AnalysisTask, source: Source, *, repaired: bool) -> Answer:
    _require_whole(completion)
    clean = completion.finish_reason is FinishReason.STOP
    parsed = validation.parse(completion.text, lenient=clean)
    analysis = analysis_for(task.analysis_type)
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
        prompt_version=library.template_for(task).version,
    )


def _require_whole(completion: Completion) -> None:
    match completion.finish_reason:
        case FinishReason.REFUSAL:
            raise RefusedError(
                f"{completion.model} declined to answer.",
                "Look at the document; another model may answer: --model.",
            )
        case FinishReason.LENGTH:
            raise TruncatedError(
                f"The answer of {completion.model} stopped at the output limit.",
                "Raise max_output_tokens of the model, or lower pipeline.chunk_tokens.",
            )
        case _:
            return


def _with_problems(request: CompletionRequest, error: InvalidAnswerError) -> CompletionRequest:
    """Return the same question with the checker's words below it."""
    repair = library.latest(library.REPAIR)
    remark = repair.user.replace("$problems", error.what)
    return replace(
        request,
        user=f"{request.user}\n\n{remark}",
        task=replace(request.task, stage=Stage.REPAIR),
    )
