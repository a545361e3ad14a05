"""Asking the tiers of a routed model until one's answer is good enough: the cascade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import structlog

from chordwise.domain import routing
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.tasks import AnalysisTask
from chordwise.errors import (
    BudgetExceededError,
    ModelError,
    PausingError,
    TransientError,
    seconds_not_enough,
)
from chordwise.llm.middleware.fallback import OnFallback
from chordwise.llm.middleware.tiered import Tiered, TierModel
from chordwise.llm.model import ChatModel
from chordwise.pipeline.asking import answers
from chordwise.pipeline.asking.answers import ONE_PROMPT, AskingPolicy
from chordwise.pipeline.asking.check import Judge
from chordwise.settings import RoutingSettings, Settings

log = structlog.get_logger(__name__)

OpenModels: TypeAlias = Callable[[tuple[str, ...]], ChatModel]
"""Returns the model of the first name, which falls back to those of the others, in order."""


def opened(
    settings: Settings, name: str, open_models: OpenModels, on_change: OnFallback
) -> ChatModel:
    """Return what a name stands for: one model, or several tiers of them.

    Only the largest tier has the fallbacks of the settings: what a smaller one cannot answer goes
    to the tier above it.

    Raises:
        ConfigurationError: There is no such model or tier.
    """
    tiers = settings.tiers.behind(name)
    if not tiers:
        return open_models((name, *settings.fallback))
    largest = list(tiers)[-1]
    models = {
        tier: open_models((named, *(settings.fallback if tier is largest else ())))
        for tier, named in tiers.items()
    }
    return Tiered(models, settings.routing, on_change)


def identity(settings: Settings, name: str) -> list[str]:
    """Return what of a model belongs to a result's identity: who may have answered, and when.

    Raises:
        ConfigurationError: There is no such model or tier.
    """
    tiers = settings.tiers.behind(name)
    names = dict.fromkeys((*(tiers.values() or (name,)), *settings.fallback))
    found = [settings.model_named(each) for each in names]
    models = [f"{each.provider}/{each.model}@{each.base_url}" for each in found]
    if len(tiers) < 2:  # noqa: PLR2004 - one tier is asked whatever the policy says
        return models
    return [*models, f"tiers {' '.join(tiers)}", settings.routing.model_dump_json()]


def ask(
    model: ChatModel,
    task: AnalysisTask,
    source: Source,
    judge: Judge,
    asking: AskingPolicy = ONE_PROMPT,
) -> Answer:
    """Ask a model, or where it has tiers as many of them as it takes, each at most once.

    The tiers share the time of the policy.

    Raises:
        ModelError: No usable answer came; the subclass says why.
    """
    if not isinstance(model, Tiered):
        return answers.ask(model, task, source, judge, asking)
    cascade = _Cascade(policy=model.policy)
    steps = model.steps(task)
    ends_at = asking.clock() + asking.seconds
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        left = ends_at - asking.clock()
        if cascade.is_too_late(left):
            break
        policy = replace(asking, seconds=left)
        answer = cascade.try_step(partial(answers.ask, step, task, source, judge, policy))
        if answer is not None:
            return answer
        if following is not None:
            cascade.report(step, following)
    return cascade.outcome()


@dataclass(slots=True, kw_only=True)
class _Cascade:
    """What one question has come to so far."""

    policy: RoutingSettings
    weak: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    reason: str = ""

    def try_step(self, ask_step: Callable[[], Answer]) -> Answer | None:
        """Return the step's answer if it is good enough; keep it otherwise, or its error.

        Raises:
            ModelError: It ends the question, whatever other tiers would say.
        """
        try:
            answer = ask_step()
        except ModelError as error:
            if not self._goes_on_after(error):
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
        """Tell whether the time that is left does not suffice for a further tier."""
        return bool(self.weak or self.errors) and seconds <= seconds_not_enough(self.errors)

    def outcome(self) -> Answer:
        """Return the best of the weak answers.

        Raises:
            ModelError: There is none: an error that time or a person mends, else the last one.
        """
        if self.weak:
            return routing.best(self.weak)
        for kind in (TransientError, PausingError):
            for error in self.errors:
                if isinstance(error, kind):
                    raise error
        raise self.errors[-1]

    def report(self, step: TierModel, following: TierModel) -> None:
        """Log that the next tier is asked, and why."""
        log.info("model.escalated", tier=step.tier, next=following.tier, reason=self.reason)

    def _accepts(self, answer: Answer) -> bool:
        policy = self.policy
        return not policy.cascade or (
            answer.quality >= policy.accept_quality
            and answer.confidence >= policy.accept_confidence
        )

    def _goes_on_after(self, error: ModelError) -> bool:
        """Tell whether another tier may be asked.

        What a limiter or a budget holds back, a larger model would only make dearer.
        """
        if isinstance(error, BudgetExceededError):
            return False
        if isinstance(error, TransientError):
            return not error.is_throttling
        return isinstance(error, PausingError) or self.policy.cascade
