"""The model client: `Models.open` assembles it, and `model_for` builds one model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from threading import Semaphore
from typing import TypeAlias

import structlog
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import Lane
from chordwise.embedded import llama
from chordwise.embedded.home import home_at
from chordwise.errors import ConfigurationError, ModelError
from chordwise.llm import batching
from chordwise.llm.batching import BatchApi, has_batches
from chordwise.llm.limits.permits import Limits, Priority, ProcessLimits, policy_of
from chordwise.llm.middleware.batched import Batched, BatchQueue
from chordwise.llm.middleware.cached import Cached, CompletionCache, answer_settings
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.middleware.metered import CallLedger, Metered, NullLedger
from chordwise.llm.middleware.paced import Paced
from chordwise.llm.middleware.rate_limited import (
    ConcurrencyLimited,
    Gate,
    PermitQueue,
    RateLimited,
    Slots,
    Turn,
)
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import ChatModel, ModelProfile
from chordwise.llm.prices import Price, price_of
from chordwise.llm.provider import connect
from chordwise.settings import ModelSettings, Settings

log = structlog.get_logger(__name__)

LocalServer: TypeAlias = Callable[[str], tuple[str, SecretStr] | None]
"""Returns address and key of the server that runs a GGUF file on this machine."""

_sleep = time.sleep  # noqa: TID251 - the sleep function of this module


def server_of(settings: Settings) -> LocalServer:
    """Return a function that finds the servers started below the home of the settings."""

    def find(model: str) -> tuple[str, SecretStr] | None:
        address = llama.server_address(home_at(settings.home), model)
        return (address[0], SecretStr(address[1])) if address else None

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The caller on whose behalf a model is asked; the defaults are for use without a database.

    `turn` is held from the first call to the end of the work; without it, a slot is taken for each
    call. `batches` returns the queue of questions to the model of a name, for jobs of the batch
    lane.
    """

    ledger: CallLedger = field(default_factory=NullLedger)
    priority: Priority = Priority.INTERACTIVE
    cache: CompletionCache | None = None
    turn: Turn | None = None
    batches: Callable[[str], BatchQueue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    name: str
    settings: ModelSettings
    connection: ChatModel
    price: Price
    facts: JsonObject


class Models:
    """The models of the settings by name; connections are kept, the wrapping is done for each use.

    `connected` and `batch_apis` are existing models and Batch APIs; those of the settings are
    connected on demand.
    """

    def __init__(
        self,
        settings: Settings,
        local_server: LocalServer | None = None,
        connected: Mapping[str, ChatModel] | None = None,
        batch_apis: Mapping[str, BatchApi] | None = None,
    ) -> None:
        self._settings = settings
        self._local_server = local_server
        self._random = Random()  # noqa: S311 - jitter needs no secrecy
        self._connected = dict(connected or {})
        self._models: dict[str, _Named] = {}
        self._turns = Semaphore(llama.slots(settings))
        self._slots = Slots(settings.worker.concurrency)
        self._batch_apis = dict(batch_apis or {})
        self._limits_by_name: dict[str, Limits] = {}
        self._queues: defaultdict[tuple[str, Priority], PermitQueue] = defaultdict(PermitQueue)

    def open(self, name: str, call_context: CallContext | None = None) -> ChatModel:
        """Return the model or the tiers of this name, with fallbacks, asked as `call_context` says.

        Only the largest tier has the fallbacks of the settings: a question that a smaller tier
        cannot answer goes to the next tier.

        Raises:
            ConfigurationError: A model or tier is unknown or cannot be used as configured.
        """
        call_context = call_context or CallContext()
        tiers, fallback = self._settings.tiers.selected_by(name), self._settings.fallback
        if not tiers:
            return self._with_fallbacks(call_context, name, *fallback)
        largest = list(tiers)[-1]
        models = {
            tier: self._with_fallbacks(call_context, model, *(fallback if tier is largest else ()))
            for tier, model in tiers.items()
        }
        return Tiered(models, self._settings.routing, _log_fallback)

    def model_for(self, call_context: CallContext, name: str) -> ChatModel:
        """Return one model; models on this machine have no rate limit and no budget.

        Raises:
            ConfigurationError: It is unknown, or cannot be used as configured.
        """
        entry, settings, turn = self._named(name), self._settings, call_context.turn
        metered = Metered(
            entry.connection, call_context.ledger, entry.price, reference=self._reference
        )
        if entry.settings.provider == "extractive":
            return metered
        if llama.is_served_here(entry.settings):
            # The turn precedes the search in the cache, so that others wait for the request alone.
            seconds = {"total_seconds": settings.worker.chunk_seconds}
            policy = settings.retries.model_copy(update=seconds)
            retrying = Retrying(metered, policy, _sleep, self._random)
            return ConcurrencyLimited(self._cached(entry, call_context, retrying), self._turns)
        limits, longest = self._limits(entry), settings.limits.max_wait_seconds
        gate = Gate(limits, turn) if turn else None
        if gate:
            metered.wait = gate.enter
        metered.is_billed = True
        priority = call_context.priority
        queue = self._queues[name, priority]
        limited = RateLimited(metered, limits, priority, longest, gate=gate, queue=queue)
        queued = ConcurrencyLimited(limited, turn or self._slots.sent)
        retrying = Retrying(queued, settings.retries, _sleep, self._random)
        cached = self._cached(entry, call_context, retrying)
        if call_context.batches is None or not has_batches(entry.settings):
            return cached
        body = self.batch_api(name).body
        return Batched(cached, call_context.batches(name), body, entry.price, entry.facts)

    def turn(self) -> Turn:
        """Return a `Turn` at a slot of this process; the caller closes it."""
        return Turn(self._slots)

    def batch_api(self, name: str) -> BatchApi:
        """Return the Batch API of a model; its connections are kept.

        Raises:
            ConfigurationError: The model is unknown, has none, or cannot be used as configured.
        """
        if name not in self._batch_apis:
            settings = self._settings.model_named(name)
            key = self._settings.api_key_for(settings)
            self._batch_apis[name] = batching.connect(settings, key)
        return self._batch_apis[name]

    def batch_prices(self, name: str) -> tuple[Price, Price | None]:
        """Return the prices of a model and of the largest tier.

        Raises:
            ConfigurationError: The model is unknown.
        """
        return price_of(self._settings.model_named(name)), self._reference

    def _with_fallbacks(self, call_context: CallContext, *names: str) -> ChatModel:
        models = [self.model_for(call_context, name) for name in dict.fromkeys(names)]
        return models[0] if len(models) == 1 else Fallback(models, _log_fallback)

    def _cached(self, entry: _Named, call_context: CallContext, model: ChatModel) -> ChatModel:
        cache, turn = call_context.cache, call_context.turn
        if cache is None:
            return model
        longest = self._settings.retries.total_seconds

        def sleep(seconds: float) -> None:
            if turn is not None:
                turn.close()  # the thread whose answer this one waits for may need it
            _sleep(seconds)

        return Cached(model, cache, entry.facts, longest, sleep)

    def _limits(self, entry: _Named) -> Limits:
        """Return the limits of a model, which all of its callers share."""
        name, settings = entry.name, entry.settings
        if name not in self._limits_by_name:
            broker_url = self._settings.broker_url
            if broker_url is None:
                self._limits_by_name[name] = ProcessLimits(
                    policy_of(self._settings.limits, settings)
                )
            else:
                from chordwise.llm.limits import shared_limits  # noqa: PLC0415 - needs Redis's client

                key, client = (
                    self._settings.api_key_for(settings),
                    shared_limits.open_client(broker_url),
                )
                limits = shared_limits.open_limits(self._settings.limits, settings, key, client)
                self._limits_by_name[name] = limits
        return self._limits_by_name[name]

    def _named(self, name: str) -> _Named:
        if name not in self._models:
            settings, connected = self._settings.model_named(name), self._connected
            self._models[name] = _Named(
                name=name,
                settings=settings,
                connection=connected[name] if name in connected else self._connect(settings),
                price=price_of(settings),
                facts=answer_settings(settings),
            )
        return self._models[name]

    def _connect(self, settings: ModelSettings) -> ChatModel:
        key = self._settings.api_key_for(settings)
        if not llama.is_served_here(settings):
            return connect(settings, key)
        running = self._local_server(settings.model) if self._local_server else None
        if running is None:
            raise ConfigurationError(
                f"No local server runs {settings.model}.",
                "Start the stack with it as the model: chordwise up --model local/FILE.gguf",
            )
        (address, key), max_seconds = running, self._settings.worker.chunk_seconds
        changes = {
            "base_url": f"{address}/v1",
            "context_tokens": llama.context_tokens(settings),
            "timeout_seconds": max_seconds,
        }
        served = connect(settings.model_copy(update=changes), key)
        return Paced(served, settings.timeout_seconds, max_seconds)

    @cached_property
    def _reference(self) -> Price | None:
        """Return the price of the largest tier, with which the others are compared."""
        names = list(self._settings.tiers.configured().values())
        return price_of(self._settings.model_named(names[-1])) if names else None


def identity(settings: Settings, name: str) -> list[str]:
    """Return what a result depends on in its model: the models that may answer, and the routing.

    Raises:
        ConfigurationError: There is no such model or tier.
    """
    tiers = settings.tiers.selected_by(name)
    names = dict.fromkeys((*(tiers.values() or (name,)), *settings.fallback))
    candidates = [settings.model_named(name) for name in names]
    models = [
        f"{model.provider}/{model.model}@{model.base_url}"
        + ("" if model.temperature is None else f" at temperature {model.temperature}")
        for model in candidates
    ]
    if len(tiers) < 2:  # noqa: PLR2004 - one tier is asked whatever the policy says
        return models
    return [*models, f"tiers {' '.join(tiers)}", settings.routing.model_dump_json()]


def _log_fallback(profile: ModelProfile, following: ModelProfile, error: ModelError) -> None:
    log.warning("model.fallback", asked=profile.model, next=following.model, code=error.code)


def lane_for(settings: Settings, model: str, lane: Lane) -> Lane:
    """Return the lane in which a model can be asked: online if it has no Batch API.

    Raises:
        ConfigurationError: A model is unknown.
    """
    names = settings.selected_names(model)
    if lane is Lane.BATCH and any(has_batches(settings.model_named(name)) for name in names):
        return Lane.BATCH
    return Lane.ONLINE
