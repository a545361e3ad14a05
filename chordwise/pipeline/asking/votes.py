"""Asks a question several times; the majority of the answers is the result."""

from __future__ import annotations

from dataclasses import replace

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
    the policy; the next one is requested while more time is left than one that timed out took.

    Raises:
        ModelError: No sample gave an answer (a transient error takes precedence over the first
            one), or continuing would not help now.
        AwaitingBatchError: Some samples are still expected from a batch.
    """
    task, policy = question.task, question.policy
    answers: list[Answer] = []
    errors: list[ModelError] = []
    waiting: list[AwaitingBatchError] = []
    ends_at = policy.clock() + policy.seconds
    for number in range(1, task.options.votes + 1):
        left = ends_at - policy.clock()
        if left <= seconds_not_enough(errors) and (answers or errors):
            log.info("vote.timed_out", samples=number - 1, votes=task.options.votes)
            break
        sample, limited = replace(task, sample=number), replace(policy, seconds=left)
        try:
            answers.append(ask_tiers(replace(question, task=sample, policy=limited)))
        except AwaitingBatchError as error:
            waiting.append(error)
        except ModelError as error:
            if _ends_vote(error, has_answers=bool(answers)):
                raise
            errors.append(error)
            log.info("vote.sample_failed", sample=number, code=error.code)
    if waiting:
        raise waiting[0]
    if not answers:
        raise first_transient_or_first(errors)
    by_models = [answer for answer in answers if answer.provider != EXTRACTIVE]
    return self_consistency.elected(by_models or answers[:1], task.analysis_type, task.options)


def _ends_vote(error: ModelError, *, has_answers: bool) -> bool:
    """Return whether to stop requesting samples.

    The vote ends if a person has to act, if the question has to wait (the samples so far are in the
    cache then), or if the provider rejects the question itself.
    """
    if isinstance(error, TransientError):
        return error.is_throttling
    rejected = isinstance(error, ModelRequestError) and not has_answers
    return isinstance(error, PausingError) or rejected
