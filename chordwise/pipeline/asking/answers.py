"""Asking one model until its answer is valid and grounded; joining answers by rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from chordwise.domain import checks, chunking, missing_rows, self_consistency, tokens
from chordwise.domain.analyses.analysis import mean
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import Answer
from chordwise.domain.critique import objection_to
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.tasks import AnalysisTask, AnalysisType
from chordwise.domain.templates import PromptTemplate
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
    SHORTEST_REQUEST_SECONDS,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
)
from chordwise.pipeline.asking.check import INVALID, checked, unread, with_dropped_rows
from chordwise.pipeline.asking.question import (
    Question,
    request_for,
    values_of_rows,
    with_problems,
    with_raised_limit,
)
from chordwise.prompts import library

log = structlog.get_logger(__name__)

_MAX_SPLITS = 5
_MAX_GROWTH = 6
"""An answer that repeats a text as values, quotes and JSON takes so many times its tokens."""
_MAX_GROWTH_OF_LISTS = 12
_MAX_GROWTH_BY_VALUE = 2
"""A list has an entry for each short line, and each value of a row may have a quote of its own."""

Answered = TypeVar("Answered")


def ask_model(question: Question) -> Answer:
    """Ask one model, and ask again where that can help; each completion is recorded.

    Each failure has its own rule. An answer that was cut off is asked for once more with more room.
    An invalid one is asked for once more with what was wrong, then with the policy's prompts, then
    of the model's fallbacks. One that fails checks between its values is asked for once more, and
    stays where that makes it no better. A text that is too long for the model, or about which the
    answer is too long, is halved, up to five times, and the answers about its parts are merged by
    rule; not so where an answer is examined or revised, which takes the whole. White space around a
    text is left out.

    Raises:
        ModelError: No usable answer came; the subclass says why.
        LeaseLostError: Another worker has claimed the work, as the policy says.
    """
    ends_at = question.policy.clock() + question.policy.seconds
    splits = _MAX_SPLITS if question.task.draft is None else 0
    return _whole_or_halves(_trimmed(question), ends_at, splits)


def _whole_or_halves(question: Question, ends_at: float, splits: int) -> Answer:
    """Return the answer about a text, or about its halves where it or the answer is too long."""
    try:
        return _Attempts(question=question, ends_at=ends_at).answer()
    except (ContextTooLongError, TruncatedError) as error:
        is_worth = isinstance(error, ContextTooLongError) or _may_fill_the_limit(question)
        halves = _halves(question) if splits and is_worth else ()
        if not halves:
            raise
        log.info("question.split", model=question.model.profile.model, reason=error.what)
    asked = [partial(_whole_or_halves, half, ends_at, splits - 1) for half in halves]
    return merged(gather(asked), question.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    question: Question
    ends_at: float

    def answer(self) -> Answer:
        """Return the first valid answer.

        Raises:
            ModelError: There is none.
        """
        errors: list[ModelError] = []
        for model, template in self._ways():
            if errors and self._left() <= seconds_not_enough(errors):
                break
            try:
                return self._attempt(request_for(model, self.question.task, template), model)
            except ModelError as error:
                if not self._goes_on_after(error, model):
                    raise
                errors.append(error)
                log.info("question.failed", prompt=template.version, code=error.code)
        raise first_transient_or_first(errors)

    def _ways(self) -> Iterator[tuple[ChatModel, PromptTemplate]]:
        first, prompts = self.question.model, self.question.policy.prompts
        for model in (first, *further_models(first)):
            for template in library.templates_for(self.question.task, prompts):
                yield model, template

    def _goes_on_after(self, error: ModelError, model: ChatModel) -> bool:
        """Tell whether the next way is tried.

        What is wrong with a further model must not hide that the first did answer, if badly.
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
            return self._passing(answer, request, model)
        except InvalidAnswerError as error:
            if self._left() < SHORTEST_REQUEST_SECONDS:
                raise
            request = with_problems(request, error, model.profile)
        request, repaired = self._completed(request, model)
        answer = checked(repaired, request, source, record_check, repaired=True)
        return with_dropped_rows(answer, completion, request)

    def _passing(self, answer: Answer, request: CompletionRequest, model: ChatModel) -> Answer:
        """Return a valid answer, or another one that has fewer flaws and loses nothing.

        Checks between values need all values of the document, so that a chunk of several is held to
        those of its quotes only. The built-in model would repeat itself.
        """
        task, flaws = request.task, _flaws_of(answer, request.task, self.question.source)
        is_built_in = model.profile.provider == EXTRACTIVE
        if not flaws or is_built_in or self._left() < SHORTEST_REQUEST_SECONDS:
            return answer
        said = "; ".join(list(flaws)[:MAX_PROBLEMS])
        again = with_problems(request, InvalidAnswerError(said), model.profile)
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
        """Return the completion and what was asked for it: more room, where it was cut off."""
        completion = self._complete(request, model)
        if completion.finish_reason is not FinishReason.LENGTH:
            return request, completion
        raised = with_raised_limit(request, model.profile)
        if raised is None or self._left() < SHORTEST_REQUEST_SECONDS:
            return request, completion
        self.question.record_check(completion, INVALID)
        return raised, self._complete(raised, model)

    def _complete(self, request: CompletionRequest, model: ChatModel) -> Completion:
        self.question.policy.require()
        left = max(SHORTEST_REQUEST_SECONDS, self._left())
        bounded = replace(request, timeout_seconds=left) if left < math.inf else request
        return model.complete(bounded)

    def _left(self) -> float:
        return self.ends_at - self.question.policy.clock()


def _flaws_of(answer: Answer, task: AnalysisTask, source: Source) -> Counter[str]:
    """Return what is wrong with a valid answer: failed checks, and how many rows are missing."""
    fails = checks.failures if task.is_whole else checks.failures_of_part
    failed = fails(answer.output, task.options, task.examples)
    flaws = Counter(f"{each.path}: {each.problem}" for each in failed)
    for each in missing_rows.losses(unread(answer, task, source)):
        said = f"{each.path}: has no row for some {each.records} records of the text; give them all"
        flaws[said] = each.records
    return flaws


def _may_fill_the_limit(question: Question) -> bool:
    """Tell whether an answer about so long a text may need more room than there is.

    Below that, a model that was cut off repeats itself, and would do so about each half.
    """
    task, growth = question.task, _MAX_GROWTH
    if task.analysis_type is AnalysisType.EXTRACTION:
        growth = _MAX_GROWTH_OF_LISTS + _MAX_GROWTH_BY_VALUE * values_of_rows(task.options)
    return tokens.estimate(task.text) * growth > question.model.profile.max_output_tokens


def _trimmed(question: Question) -> Question:
    whole = question.task.text
    text = whole.strip()
    return _about(question, whole.index(text), text) if text else question


def _halves(question: Question) -> tuple[Question, ...]:
    text = question.task.text
    cut = chunking.halfway(text)
    if cut is None:
        return ()
    part = replace(question, task=replace(question.task, is_whole=False))
    halves = (_about(part, 0, text[:cut]), _about(part, cut, text[cut:]))
    return (_trimmed(halves[0]), _trimmed(_with_header(halves[1], question, cut)))


def _with_header(half: Question, whole: Question, cut: int) -> Question:
    """Return the question about a second half with the beginning of the table that is cut."""
    begins = chunking.table_header(whole.task.text, cut)
    if begins is None:
        header = None
    elif whole.source.header is not None and not begins[0]:
        header = whole.source.header
    else:
        beginning = whole.task.text[slice(*begins)]
        header = Source(beginning, offset=whole.source.offset + begins[0])
    task = replace(half.task, header=header.text if header else "")
    return replace(half, task=task, source=replace(half.source, header=header))


def _about(question: Question, start: int, text: str) -> Question:
    """Return the question about a part of the text, with its place in the document."""
    task, source = question.task, question.source
    if text == task.text:
        return question
    part = replace(source, text=text, offset=source.offset + start)
    return replace(question, task=replace(task, text=text), source=part)


def gather(questions: Iterable[Callable[[], Answered]]) -> list[Answered]:
    """Return all answers in order; where some wait for a batch, the others are asked all the same.

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
    """Return one answer for one or more about consecutive parts, as the analysis type joins them.

    Who gave the first counts as who answered, unless one was given without a language model.
    """
    analysis = analysis_for(task.analysis_type)
    output = analysis.merge([answer.output for answer in answers], task.options)
    named = next((each for each in answers if each.provider == EXTRACTIVE), answers[0])
    return replace(
        named,
        output=output,
        confidence=analysis.confidence(output),
        quality=mean(answer.quality for answer in answers),
        repaired=any(answer.repaired for answer in answers),
        agreement=self_consistency.combined(answer.agreement for answer in answers),
        missing_rows=rows_missing_in(output, answers, task),
    )


def rows_missing_in(
    output: JsonObject, answers: Sequence[Answer], task: AnalysisTask
) -> tuple[MissingRows, ...]:
    """Return the lists that have fewer rows in an output than in the answers that it joins."""
    analysis = analysis_for(task.analysis_type)
    return missing_rows.compare(
        analysis.row_counts([answer.output for answer in answers], task.options),
        analysis.row_counts([output], task.options),
        before=[each for answer in answers for each in answer.missing_rows],
    )
