"""Asks one model until its answer is valid and grounded, and joins answers by rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from chordwise.domain import checks, chunking, missing_rows, self_consistency, tokens
from chordwise.domain.analysis import analysis_for, mean
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, PromptTemplate
from chordwise.domain.answers import Answer
from chordwise.domain.critique import objection_to
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.validation import MAX_PROBLEMS
from chordwise.errors import (
    AwaitingBatchError,
    BudgetExceededError,
    ContextTooLongError,
    InvalidAnswerError,
    ModelError,
    RefusedError,
    TruncatedError,
    first_transient_or_first,
    seconds_not_enough,
)
from chordwise.llm.middleware.fallback import further_models
from chordwise.llm.model import (
    EXTRACTIVE,
    MIN_REQUEST_SECONDS,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
)
from chordwise.pipeline.asking.check import INVALID, checked, unread, with_dropped_rows
from chordwise.pipeline.asking.question import (
    Question,
    about_part,
    request_for,
    values_of_rows,
    with_problems,
    with_raised_limit,
)
from chordwise.prompts import library

log = structlog.get_logger(__name__)

_MAX_SPLITS = 5
_MAX_GROWTH = 6
"""The maximum tokens of an answer with values, quotes and JSON, per token of the text."""
_MAX_GROWTH_OF_LISTS = 12
_MAX_GROWTH_BY_VALUE = 2
"""A list has an entry for each short line, and each value of a row may have a quote of its own."""

Answered = TypeVar("Answered")


def ask_model(question: Question) -> Answer:
    """Ask one model, repeat the question where that can help, and record each completion.

    A truncated answer is requested once more with a higher output limit. An invalid answer is
    requested once more together with its errors, then with the further prompts of the policy, then
    from the fallback models. An answer that fails cross-field checks is requested once more, and is
    kept unless the second one is better. If the text or the answer is too long for the model, the
    text is halved, up to five times, and the answers about its parts are merged by rule. A question
    that examines or revises an answer is not halved, because it needs the whole text.

    Raises:
        ModelError: No usable answer was received; the subclass gives the reason.
        LeaseLostError: Another worker has claimed the work.
    """
    ends_at = question.policy.clock() + question.policy.seconds
    splits = _MAX_SPLITS if question.task.draft is None else 0
    return _answer_or_split(question, ends_at, splits)


def _answer_or_split(question: Question, ends_at: float, splits: int) -> Answer:
    """Return the answer about a text, or about its halves if the text or the answer is too long."""
    try:
        return _Attempts(question=question, ends_at=ends_at).answer()
    except (ContextTooLongError, TruncatedError) as error:
        can_split = isinstance(error, ContextTooLongError) or _may_fill_the_limit(question)
        halves = [*_halves(question)] if splits and can_split else []
        if not halves:
            raise
        log.info("question.split", model=question.model.profile.model, reason=error.what)
    calls = [partial(_answer_or_split, half, ends_at, splits - 1) for half in halves]
    return merged(gather(calls), question.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    question: Question
    ends_at: float

    def answer(self) -> Answer:
        """Return the first valid answer.

        Raises:
            ModelError: No attempt has given one.
        """
        errors: list[ModelError] = []
        for model, template in self._models_and_prompts():
            if errors and self._seconds_left() <= seconds_not_enough(errors):
                break
            try:
                return self._attempt(request_for(model, self.question.task, template), model)
            except ModelError as error:
                if not self._continues_after(error, model):
                    raise
                errors.append(error)
                log.info("question.failed", prompt=template.version, code=error.code)
        raise first_transient_or_first(errors)

    def _models_and_prompts(self) -> Iterator[tuple[ChatModel, PromptTemplate]]:
        first, prompts = self.question.model, self.question.policy.prompts
        for model in (first, *further_models(first)):
            for template in library.templates_for(self.question.task, prompts):
                yield model, template

    def _continues_after(self, error: ModelError, model: ChatModel) -> bool:
        """Return whether to try the next prompt or model.

        The error of a further model must not hide that the first one gave an answer, even a bad
        one.
        """
        if isinstance(error, InvalidAnswerError):
            return True
        ends = isinstance(error, BudgetExceededError | ContextTooLongError)
        return model is not self.question.model and not ends

    def _attempt(self, request: CompletionRequest, model: ChatModel) -> Answer:
        source, record_check = self.question.source, self.question.record_check
        request, completion = self._completed(request, model)
        try:
            answer = checked(completion, request, source, record_check, repaired=False)
            return self._rechecked(answer, request, model)
        except InvalidAnswerError as error:
            if self._seconds_left() < MIN_REQUEST_SECONDS:
                raise
            request = with_problems(request, error, model.profile)
        request, repaired = self._completed(request, model)
        answer = checked(repaired, request, source, record_check, repaired=True)
        return with_dropped_rows(answer, completion, request)

    def _rechecked(self, answer: Answer, request: CompletionRequest, model: ChatModel) -> Answer:
        """Return the answer, or a repeated one that has fewer flaws and loses no rows.

        Cross-field checks need the values of the whole document. The answer about one chunk of
        several is therefore only checked against its quotes. The built-in model is not asked again,
        because it would give the same answer.
        """
        task, flaws = request.task, _flaws_of(answer, request.task, self.question.source)
        is_built_in = model.profile.provider == EXTRACTIVE
        if not flaws or is_built_in or self._seconds_left() < MIN_REQUEST_SECONDS:
            return answer
        problem = "; ".join(list(flaws)[:MAX_PROBLEMS])
        again = with_problems(request, InvalidAnswerError(problem), model.profile)
        try:
            again, completion = self._completed(again, model)
            source, record_check = self.question.source, self.question.record_check
            other = checked(completion, again, source, record_check, repaired=True)
        except (InvalidAnswerError, RefusedError, TruncatedError):
            return answer
        left = _flaws_of(other, task, source)
        is_better = flaws.total() > left.total()
        return other if is_better and not objection_to(other, answer, task) else answer

    def _completed(
        self, request: CompletionRequest, model: ChatModel
    ) -> tuple[CompletionRequest, Completion]:
        """Return the completion and its request, asked again with more room if it was truncated."""
        completion = self._complete(request, model)
        if completion.finish_reason is not FinishReason.LENGTH:
            return request, completion
        raised = with_raised_limit(request, model.profile)
        if raised is None or self._seconds_left() < MIN_REQUEST_SECONDS:
            return request, completion
        self.question.record_check(completion, INVALID)
        return raised, self._complete(raised, model)

    def _complete(self, request: CompletionRequest, model: ChatModel) -> Completion:
        self.question.policy.require()
        left = max(MIN_REQUEST_SECONDS, self._seconds_left())
        bounded = replace(request, timeout_seconds=left) if left < math.inf else request
        return model.complete(bounded)

    def _seconds_left(self) -> float:
        return self.ends_at - self.question.policy.clock()


def _flaws_of(answer: Answer, task: AnalysisTask, source: Source) -> Counter[str]:
    """Return the flaws of a valid answer: failed checks, and the number of missing rows."""
    fails = checks.failures if task.is_whole else checks.failures_of_part
    failed = fails(answer.output, task.options, task.examples)
    flaws = Counter(f"{failure.path}: {failure.problem}" for failure in failed)
    if task.is_about_text:
        for loss in missing_rows.losses(answer.missing_rows):
            said = f"has {loss.kept} rows, and counts has {loss.found}"
            flaws[f"{loss.path}: {said}; give all rows, or correct the number"] = loss.records
    for loss in missing_rows.losses(unread(answer, task, source)):
        problem = (
            f"{loss.path}: has no row for some {loss.records} records of the text; give them all"
        )
        flaws[problem] = loss.records
    return flaws


def _may_fill_the_limit(question: Question) -> bool:
    """Return whether an answer about a text of this length may exceed the output limit.

    A model that was truncated on a shorter text repeats itself, and would do so for each half.
    """
    task, growth = question.task, _MAX_GROWTH
    if task.analysis_type == AnalysisType.EXTRACTION:
        growth = _MAX_GROWTH_OF_LISTS + _MAX_GROWTH_BY_VALUE * values_of_rows(task.options)
    return tokens.estimate(task.text) * growth > question.model.profile.max_output_tokens


def _halves(question: Question) -> Iterator[Question]:
    """Yield the questions about the halves of a text; none if it cannot be divided."""
    text = question.task.text
    cut = chunking.halfway(text)
    for span in ((0, cut), (cut, len(text))) if cut is not None else ():
        task, source = about_part(question.task, replace(question.source, text=text), *span)
        yield replace(question, task=task, source=source)


def gather(questions: Iterable[Callable[[], Answered]]) -> list[Answered]:
    """Return all answers in order, and ask every question even if some wait for a batch.

    Raises:
        AwaitingBatchError: The first of those that wait.
    """
    answers: list[Answered] = []
    waiting: list[AwaitingBatchError] = []
    for question in questions:
        try:
            answers.append(question())
        except AwaitingBatchError as error:
            waiting.append(error)
    if waiting:
        raise waiting[0]
    return answers


def merged(answers: Sequence[Answer], task: AnalysisTask) -> Answer:
    """Return one answer for answers about consecutive parts, joined as the analysis type defines.

    The provider and model are those of the first answer, or of the first that the built-in model
    gave.
    """
    analysis = analysis_for(task.analysis_type)
    output = analysis.merge([answer.output for answer in answers], task.options)
    origin = next((answer for answer in answers if answer.provider == EXTRACTIVE), answers[0])
    return replace(
        origin,
        output=output,
        confidence=analysis.confidence(output),
        quality=mean(answer.quality for answer in answers),
        repaired=any(answer.repaired for answer in answers),
        agreement=self_consistency.combined(answer.agreement for answer in answers),
        missing_rows=rows_missing_in(output, answers, task),
        missing_fields=next((a.missing_fields for a in answers if a.missing_fields), ""),
    )


def rows_missing_in(
    output: JsonObject, answers: Sequence[Answer], task: AnalysisTask
) -> tuple[MissingRows, ...]:
    """Return the lists that have fewer rows in an output than in the answers that it joins."""
    analysis = analysis_for(task.analysis_type)
    return missing_rows.compare(
        analysis.row_counts([answer.output for answer in answers], task.options),
        analysis.row_counts([output], task.options),
        before=[rows for answer in answers for rows in answer.missing_rows],
    )
