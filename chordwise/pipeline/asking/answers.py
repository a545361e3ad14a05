"""Asking one question until its answer is valid and grounded; joining answers by rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from chordwise.domain import chunking, missing_rows, self_consistency
from chordwise.domain.analyses.analysis import mean
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.prompting import PromptTemplate
from chordwise.domain.tasks import AnalysisTask
from chordwise.errors import (
    AwaitingBatchError,
    BudgetExceededError,
    ContextTooLongError,
    InvalidAnswerError,
    ModelError,
    TransientError,
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
from chordwise.pipeline.asking.check import INVALID, Judge, checked, with_dropped_rows
from chordwise.pipeline.asking.requests import request_for, with_problems, with_raised_limit
from chordwise.prompts import library
from chordwise.settings import Settings

log = structlog.get_logger(__name__)

_MOST_SPLITS = 3

Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPolicy:
    """How much is tried before a question is given up.

    `prompts` names the templates after the usual one, for answers that stay invalid. All calls and
    their waits together take `seconds`; after them no further prompt or model is tried, and none
    with less time than a request of the same question had that timed out. `require`
    is called before each request, and raises where the answer would be of no use any more.
    """

    prompts: tuple[str, ...] = ()
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    require: Callable[[], None] = lambda: None


ONE_PROMPT = AskingPolicy()


def policy_of(settings: Settings, require: Callable[[], None] = lambda: None) -> AskingPolicy:
    """Return the policy of the settings: half of the broker's patience, the rest is for storing.

    `require` raises once the work is somebody else's: nothing more is paid for then.
    """
    seconds = settings.worker.chunk_seconds
    return AskingPolicy(prompts=settings.prompts.fallback, seconds=seconds, require=require)


def ask(
    model: ChatModel,
    task: AnalysisTask,
    source: Source,
    judge: Judge,
    policy: AskingPolicy = ONE_PROMPT,
) -> Answer:
    """Ask, check, and ask again where that can help; `judge` hears of every completion.

    Each failure has its own rule. An answer that was cut off is asked for once more with more room.
    An invalid one is asked for once more with what was wrong, then with the policy's prompts, then
    of the model's fallbacks. A text that is too long for the model is halved, up to three times,
    and the answers about its parts are merged by rule; not so where an answer is examined or
    mended, which takes the whole. White space around a text is left out.

    Raises:
        ModelError: No usable answer came; the subclass says why.
        LeaseLostError: Another worker has claimed the work, as the policy says.
    """
    question = _Question(
        model=model, judge=judge, policy=policy, ends_at=policy.clock() + policy.seconds
    )
    splits = _MOST_SPLITS if task.draft is None else 0
    return question.about(*_trimmed(task, source), splits=splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One call of `ask`."""

    model: ChatModel
    judge: Judge
    policy: AskingPolicy
    ends_at: float

    def about(self, task: AnalysisTask, source: Source, splits: int) -> Answer:
        """Return the answer about a text, or about its halves where it is too long."""
        try:
            return self._in_every_way(task, source)
        except ContextTooLongError as error:
            halves = _halves(task, source) if splits else ()
            if not halves:
                raise
            log.info("question.split", model=self.model.profile.model, reason=error.what)
        asked = [partial(self.about, *half, splits=splits - 1) for half in halves]
        return merged(every(asked), task)

    def _in_every_way(self, task: AnalysisTask, source: Source) -> Answer:
        errors: list[ModelError] = []
        for model, template in self._ways(task):
            if errors and self._left() <= seconds_not_enough(errors):
                break
            try:
                return self._in_one_way(request_for(model, task, template), model, source)
            except ModelError as error:
                if not self._goes_on_after(error, model):
                    raise
                errors.append(error)
                log.info("question.failed", prompt=template.version, code=error.code)
        raise next((error for error in errors if isinstance(error, TransientError)), errors[0])

    def _ways(self, task: AnalysisTask) -> Iterator[tuple[ChatModel, PromptTemplate]]:
        for model in (self.model, *further_models(self.model)):
            for template in library.templates_for(task, self.policy.prompts):
                yield model, template

    def _goes_on_after(self, error: ModelError, model: ChatModel) -> bool:
        """Tell whether the next way is tried.

        What is wrong with a further model must not hide that the first did answer, if badly.
        """
        if isinstance(error, InvalidAnswerError):
            return True
        ends = isinstance(error, BudgetExceededError | ContextTooLongError)
        return model is not self.model and not ends

    def _in_one_way(self, request: CompletionRequest, model: ChatModel, source: Source) -> Answer:
        request, completion = self._completed(request, model)
        try:
            return checked(completion, request, source, self.judge, repaired=False)
        except InvalidAnswerError as error:
            if self._left() < SHORTEST_REQUEST_SECONDS:
                raise
            request = with_problems(request, error, model.profile)
        request, repaired = self._completed(request, model)
        answer = checked(repaired, request, source, self.judge, repaired=True)
        return with_dropped_rows(answer, completion, request)

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
        self.judge(completion, INVALID)
        return raised, self._complete(raised, model)

    def _complete(self, request: CompletionRequest, model: ChatModel) -> Completion:
        self.policy.require()
        left = max(SHORTEST_REQUEST_SECONDS, self._left())
        bounded = replace(request, timeout_seconds=left) if left < math.inf else request
        return model.complete(bounded)

    def _left(self) -> float:
        return self.ends_at - self.policy.clock()


def _trimmed(task: AnalysisTask, source: Source) -> tuple[AnalysisTask, Source]:
    text = task.text.strip()
    return _part(task, source, task.text.index(text), text) if text else (task, source)


def _halves(task: AnalysisTask, source: Source) -> tuple[tuple[AnalysisTask, Source], ...]:
    cut = chunking.halfway(task.text)
    if cut is None:
        return ()
    parts = (_part(task, source, 0, task.text[:cut]), _part(task, source, cut, task.text[cut:]))
    return tuple(_trimmed(*part) for part in parts)


def _part(task: AnalysisTask, source: Source, start: int, text: str) -> tuple[AnalysisTask, Source]:
    """Return the question about a part of the text, with its place in the document."""
    if text == task.text:
        return task, source
    return replace(task, text=text), Source(text, source.offset + start, source.known)


def every(questions: Iterable[Callable[[], Answered]]) -> list[Answered]:
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
