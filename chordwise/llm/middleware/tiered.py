"""Routing of each question to the model of a suitable tier, and escalation to higher tiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from chordwise.domain import routing
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.routing import complexity
from chordwise.domain.tiers import Route, Tier
from chordwise.errors import ConfigurationError
from chordwise.llm.middleware.fallback import Fallback, OnFallback, further_models
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, Middleware, ModelProfile
from chordwise.settings import RoutingSettings


class Tiered:
    """Chooses a model by the complexity of each question; the ledger records the tier.

    `policy` defines which checked answers are accepted. `on_change` is called with each change of
    tier: from, to, and the reason.
    """

    def __init__(
        self, models: Mapping[Tier, ChatModel], policy: RoutingSettings, on_change: OnFallback
    ) -> None:
        if not models:
            raise ConfigurationError("No tier is configured.", "Set tiers.small.")
        self._models = dict(models)
        self.policy = policy
        self.on_change = on_change

    @property
    def profile(self) -> ModelProfile:
        """Return a profile whose prompts and outputs fit every tier."""
        profiles = [model.profile for model in self._models.values()]
        smallest = min(profiles, key=_room)
        output = min(profile.max_output_tokens for profile in profiles)
        room = _room(smallest)
        limit = min(profile.output_ceiling for profile in profiles)
        return replace(
            smallest,
            context_tokens=room + output,
            max_output_tokens=output,
            max_output_tokens_on_retry=limit,
        )

    def steps(self, task: AnalysisTask) -> tuple[TierModel, ...]:
        """Return the models for one question in order: the tier that suits it, then higher ones."""
        policy = self.policy
        lowest = routing.tier_for(complexity(task).score, policy.medium_from, policy.large_from)
        tiers = routing.steps(lowest, self._models)
        progress = _Progress()
        return tuple(
            TierModel(self._models[tier], Route(tier=tier, escalated=index > 0), progress)
            for index, tier in enumerate(tiers)
        )

    def complete(self, request: CompletionRequest) -> Completion:
        """Ask the tier that suits the question, then higher tiers until one answers.

        Raises:
            ModelError: The error of a fallback over these tiers.
        """
        return Fallback(self.steps(request.task), self.on_change).complete(request)


@dataclass(slots=True)
class _Progress:
    """The state that the tiers of one question share."""

    is_answered: bool = False


@dataclass(slots=True, eq=False)
class TierModel(Middleware):
    """The model of one tier for one question; sets the route of its requests."""

    route: Route
    progress: _Progress

    @property
    def tier(self) -> Tier:
        """Return the tier."""
        return self.route.tier

    @property
    def further(self) -> tuple[ChatModel, ...]:
        """Return the fallbacks of the wrapped model, as models of this tier."""
        models = further_models(self.model)
        return tuple(TierModel(model, self.route, self.progress) for model in models)

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the answer; the cost of the first one is compared with the largest tier's."""
        route = replace(self.route, is_compared=not self.progress.is_answered)
        completion = self.model.complete(replace(request, route=route))
        self.progress.is_answered = True
        return completion


def _room(profile: ModelProfile) -> int:
    return profile.context_tokens - profile.max_output_tokens
