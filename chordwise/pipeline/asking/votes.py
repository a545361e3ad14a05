"""Votes: a question is asked several times, and what the answers agree on counts."""

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
    """Tell whether a question is asked several times.

    The critique of an answer and its revision are asked for once. So is the built-in model, which
    would repeat itself.
    """
    task = question.task
    is_voted_on = task.options.votes > 1 and task.draft is None
    return is_voted_on and question.model.profile.understands_language


def ask_by_vote(question: Question) -> Answer:
    """Return the answer that the samples of a question elect.

    Samples that fail have no vote. All of them share the time of the policy, and are asked for one
    after the other.

    Raises:
        ModelError: No sample brought an answer, or going on would be of no use now.
        AwaitingBatchError: Some samples are still to come; all of them wait for the same batch.
    """
    poll = _Poll(question=question)
    poll.ask()
    return poll.outcome()


@dataclass(slots=True, kw_only=True)
class _Poll:
    """What the samples of one question have come to so far."""

    question: Question
    answers: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    waiting: list[AwaitingBatchError] = field(default_factory=list)

    def ask(self) -> None:
        """Ask for every sample, as long as there is time: more than one had that timed out.

        Raises:
            ModelError: It ends the vote.
        """
        task, policy = self.question.task, self.question.policy
        ends_at = policy.clock() + policy.seconds
        for number in range(1, task.options.votes + 1):
            left = ends_at - policy.clock()
            if left <= seconds_not_enough(self.errors) and (self.answers or self.errors):
                log.info("vote.out_of_time", samples=number - 1, votes=task.options.votes)
                return
            sample, limited = replace(task, sample=number), replace(policy, seconds=left)
            self._ask_once(replace(self.question, task=sample, policy=limited))

    def outcome(self) -> Answer:
        """Return what the samples agree on.

        Raises:
            AwaitingBatchError: Some are still to come.
            ModelError: None has an answer: an error that time mends, else the first one.
        """
        if self.waiting:
            raise self.waiting[0]
        if not self.answers:
            raise first_transient_or_first(self.errors)
        by_models = [answer for answer in self.answers if answer.provider != EXTRACTIVE]
        voters = by_models or self.answers[:1]
        task = self.question.task
        return self_consistency.elected(voters, task.analysis_type, task.options)

    def _ask_once(self, sample: Question) -> None:
        try:
            answer = ask_tiers(sample)
        except AwaitingBatchError as error:
            self.waiting.append(error)
        except ModelError as error:
            if self._ends_after(error):
                raise
            self.errors.append(error)
            log.info("vote.sample_failed", sample=sample.task.sample, code=error.code)
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
