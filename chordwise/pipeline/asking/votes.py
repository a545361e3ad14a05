"""Asking a question several times where its job wants votes: what the answers agree on counts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import structlog

from chordwise.domain import self_consistency
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.tasks import AnalysisTask
from chordwise.errors import (
    AwaitingBatchError,
    ModelError,
    ModelRequestError,
    PausingError,
    TransientError,
    seconds_not_enough,
)
from chordwise.llm.model import EXTRACTIVE, ChatModel
from chordwise.pipeline.asking import cascade
from chordwise.pipeline.asking.answers import ONE_PROMPT, AskingPolicy
from chordwise.pipeline.asking.check import Judge

log = structlog.get_logger(__name__)


def ask(
    model: ChatModel,
    task: AnalysisTask,
    source: Source,
    judge: Judge,
    policy: AskingPolicy = ONE_PROMPT,
) -> Answer:
    """Return the answer to a question, by a vote of its samples where the task wants votes.

    Samples that fail have no vote. All of them share the time of the policy, and are asked for one
    after the other. The built-in model, which would repeat itself, is asked once.

    Raises:
        ModelError: No sample brought an answer, or going on would be of no use now.
        AwaitingBatchError: Some samples are still to come; all of them wait for the same batch.
    """
    if task.options.votes <= 1 or not model.profile.understands_language:
        return cascade.ask(model, task, source, judge, policy)
    poll = _Poll(model=model, source=source, judge=judge, policy=policy)
    poll.ask(task)
    return poll.outcome(task)


@dataclass(slots=True, kw_only=True)
class _Poll:
    """What the samples of one question have come to so far."""

    model: ChatModel
    source: Source
    judge: Judge
    policy: AskingPolicy
    answers: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    waiting: list[AwaitingBatchError] = field(default_factory=list)

    def ask(self, task: AnalysisTask) -> None:
        """Ask for every sample, as long as there is time: more than one had that timed out.

        Raises:
            ModelError: It ends the vote.
        """
        ends_at = self.policy.clock() + self.policy.seconds
        for number in range(1, task.options.votes + 1):
            left = ends_at - self.policy.clock()
            if left <= seconds_not_enough(self.errors) and (self.answers or self.errors):
                log.info("vote.out_of_time", samples=number - 1, votes=task.options.votes)
                return
            self._ask_once(replace(task, sample=number), replace(self.policy, seconds=left))

    def outcome(self, task: AnalysisTask) -> Answer:
        """Return what the samples agree on.

        Raises:
            AwaitingBatchError: Some are still to come.
            ModelError: None has an answer: an error that time mends, else the first one.
        """
        if self.waiting:
            raise self.waiting[0]
        if not self.answers:
            transient = (error for error in self.errors if isinstance(error, TransientError))
            raise next(transient, self.errors[0])
        by_models = [answer for answer in self.answers if answer.provider != EXTRACTIVE]
        voters = by_models or self.answers[:1]
        return self_consistency.elected(voters, task.analysis_type, task.options)

    def _ask_once(self, task: AnalysisTask, policy: AskingPolicy) -> None:
        try:
            answer = cascade.ask(self.model, task, self.source, self.judge, policy)
        except AwaitingBatchError as error:
            self.waiting.append(error)
        except ModelError as error:
            if self._ends_after(error):
                raise
            self.errors.append(error)
            log.info("vote.sample_failed", sample=task.sample, code=error.code)
        else:
            self.answers.append(answer)

    def _ends_after(self, error: ModelError) -> bool:
        """Tell whether no further sample is asked for.

        A person has to act, or the question has to wait for its turn: the samples there are come
        out of the cache then. Or the provider rejects the question, however often it is asked.
        """
        if isinstance(error, TransientError):
            return error.is_throttling
        rejected = isinstance(error, ModelRequestError) and not self.answers
        return isinstance(error, PausingError) or rejected
