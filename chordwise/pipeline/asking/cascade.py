"""Asks the tiers of a routed model in turn until an answer is good enough."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import structlog

from chordwise.domain import routing
from chordwise.domain.answers import Answer
from chordwise.errors import (
    BudgetExceededError,
    ModelError,
    PausingError,
    TransientError,
    seconds_not_enough,
)
from chordwise.llm.middleware.tiered import Tiered
from chordwise.pipeline.asking.answers import ask_model
from chordwise.pipeline.asking.question import Question
from chordwise.settings import RoutingSettings

log = structlog.get_logger(__name__)


def ask_tiers(question: Question) -> Answer:
    """Ask a model, or each of its tiers at most once until an answer is good enough.

    The tiers share the time of the policy.

    Raises:
        ModelError: No usable answer was received; the subclass gives the reason.
    """
    model, policy = question.model, question.policy
    if not isinstance(model, Tiered):
        return ask_model(question)
    cascade = _Cascade(policy=model.policy)
    steps = model.steps(question.task)
    ends_at = policy.clock() + policy.seconds
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        left = ends_at - policy.clock()
        if cascade.is_too_late(left):
            break
        limited = replace(policy, seconds=left)
        answer = cascade.try_step(replace(question, model=step, policy=limited))
        if answer is not None:
            return answer
        if following is not None:
            reason = cascade.reason
            log.info("model.escalated", tier=step.tier, next=following.tier, reason=reason)
    return cascade.outcome()


@dataclass(slots=True, kw_only=True)
class _Cascade:
    policy: RoutingSettings
    weak: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    reason: str = ""

    def try_step(self, question: Question) -> Answer | None:
        """Return the answer of a tier if it is good enough; otherwise keep it, or its error.

        Raises:
            ModelError: The error holds for all tiers.
        """
        try:
            answer = ask_model(question)
        except ModelError as error:
            if not self._continues_after(error):
                raise
            self.errors.append(error)
            self.reason = error.code
            return None
        if self._accepts(answer):
            return answer
        self.weak.append(answer)
        self.reason = f"quality {answer.quality:g}, confidence {answer.confidence:g}"
        return None

    def is_too_late(self, seconds: float) -> bool:
        """Return whether the remaining time is too short for another tier."""
        return bool(self.weak or self.errors) and seconds <= seconds_not_enough(self.errors)

    def outcome(self) -> Answer:
        """Return the best of the answers that were not good enough.

        Raises:
            ModelError: There is no answer. A transient or pausing error takes precedence over the
                last.
        """
        if self.weak:
            return routing.best(self.weak)
        for kind in (TransientError, PausingError):
            for error in self.errors:
                if isinstance(error, kind):
                    raise error
        raise self.errors[-1]

    def _accepts(self, answer: Answer) -> bool:
        policy = self.policy
        return not policy.cascade or (
            answer.quality >= policy.accept_quality
            and answer.confidence >= policy.accept_confidence
        )

    def _continues_after(self, error: ModelError) -> bool:
        """Return whether to ask another tier.

        After a rate limit or a spent budget, a larger model would only be more expensive.
        """
        if isinstance(error, BudgetExceededError):
            return False
        if isinstance(error, TransientError):
            return not error.is_throttling
        return isinstance(error, PausingError) or self.policy.cascade
