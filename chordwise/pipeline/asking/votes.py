"""Asks a question several times; the majority of the answers is the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import structlog

from chordwise.domain import self_consistency
from chordwise.domain.answers import Answer
from chordwise.errors import (
    AwaitingBatchError,
    ModelError,
    ModelRequestError,
    PausingError,
    TransientError,
    first_transient_or_first,
    seconds_not_enough,
)
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.cascade import ask_tiers
from chordwise.pipeline.asking.question import Question

log = structlog.get_logger(__name__)


def wants_votes(question: Question) -> bool:
    """Return whether a question is asked several times.

    A critique and a revision are asked once, and so is the built-in model, which gives the same
    answer each time.
    """
    task = question.task
    is_voted_on = task.options.votes > 1 and task.draft is None
    return is_voted_on and question.model.profile.understands_language


def ask_by_vote(question: Question) -> Answer:
    """Return the answer that wins the vote of a question's samples.

    Failed samples have no vote. The samples are requested one after the other and share the time of
    the policy.

    Raises:
        ModelError: No sample gave an answer, or continuing would not help now.
        AwaitingBatchError: Some samples are still expected from a batch.
    """
    poll = _Poll(question=question)
    poll.ask()
    return poll.outcome()


@dataclass(slots=True, kw_only=True)
class _Poll:
    """The samples of one question so far."""

    question: Question
    answers: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    waiting: list[AwaitingBatchError] = field(default_factory=list)

    def ask(self) -> None:
        """Request each sample while there is more time left than a timed-out one took.

        Raises:
            ModelError: It ends the vote.
        """
        task, policy = self.question.task, self.question.policy
        ends_at = policy.clock() + policy.seconds
        for number in range(1, task.options.votes + 1):
            left = ends_at - policy.clock()
            if left <= seconds_not_enough(self.errors) and (self.answers or self.errors):
                log.info("vote.timed_out", samples=number - 1, votes=task.options.votes)
                return
            sample, limited = replace(task, sample=number), replace(policy, seconds=left)
            self._ask_sample(replace(self.question, task=sample, policy=limited))

    def outcome(self) -> Answer:
        """Return the result of the vote.

        Raises:
            AwaitingBatchError: Some samples are still expected.
            ModelError: No sample has an answer; a transient error takes precedence over the first.
        """
        if self.waiting:
            raise self.waiting[0]
        if not self.answers:
            raise first_transient_or_first(self.errors)
        by_models = [answer for answer in self.answers if answer.provider != EXTRACTIVE]
        voters = by_models or self.answers[:1]
        task = self.question.task
        return self_consistency.elected(voters, task.analysis_type, task.options)

    def _ask_sample(self, sample: Question) -> None:
        try:
            answer = ask_tiers(sample)
        except AwaitingBatchError as error:
            self.waiting.append(error)
        except ModelError as error:
            if self._ends_vote(error):
                raise
            self.errors.append(error)
            log.info("vote.sample_failed", sample=sample.task.sample, code=error.code)
        else:
            self.answers.append(answer)

    def _ends_vote(self, error: ModelError) -> bool:
        """Return whether to stop requesting samples.

        The vote ends if a person has to act, if the question has to wait (the samples so far are in
        the cache then), or if the provider rejects the question itself.
        """
        if isinstance(error, TransientError):
            return error.is_throttling
        rejected = isinstance(error, ModelRequestError) and not self.answers
        return isinstance(error, PausingError) or rejected
