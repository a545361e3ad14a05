"""Putting the model client together: one sentence, read from the inside out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from random import Random
from threading import Semaphore
from typing import Protocol, TypeAlias

import structlog
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from chordwise.domain.json_values import JsonObject
from chordwise.domain.lanes import Lane
from chordwise.embedded import llama
from chordwise.errors import ConfigurationError, ModelError
from chordwise.llm import batching
from chordwise.llm.batching import has_batches
from chordwise.llm.batching.api import BatchApi
from chordwise.llm.limits.opening import open_client, open_limits, policy_of
from chordwise.llm.limits.permits import Limits, Priority
from chordwise.llm.limits.process import ProcessLimits
from chordwise.llm.middleware.batched import Batched, BatchQueue
from chordwise.llm.middleware.budgeted import Budget, Budgeted, Unlimited
from chordwise.llm.middleware.cached import Cached, CompletionCache, HitLedger, facts_about
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.middleware.metered import CallLedger, Metered, NullLedger
from chordwise.llm.middleware.paced import Paced
from chordwise.llm.middleware.queued import Queued
from chordwise.llm.middleware.rate_limited import RateLimited
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.model import ChatModel, Completion, ModelProfile
from chordwise.llm.pricing import Price, price_of
from chordwise.llm.providers import connect
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import cascade
from chordwise.pipeline.asking.check import Verdict
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.batch_queue import JobBatches
from chordwise.pipeline.models.budgets import JobBudget
from chordwise.pipeline.models.ledger import Ledger, record_verdict
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import runs
from chordwise.storage.engine import persistently

log = structlog.get_logger(__name__)

LocalServer: TypeAlias = Callable[[str], tuple[str, SecretStr] | None]
"""Returns address and key of the server that runs a GGUF file on this machine."""

_LOOK_PATIENCE = timedelta(seconds=15)
_sleep = time.sleep  # noqa: TID251 - here the waiting is wired in


class KeptLedger(CallLedger, HitLedger, Protocol):
    """Where requests are written down, and that there was no need of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """For whom a model is asked; the defaults are those of a library without a database.

    `batches` returns where questions to the model of a name wait, for jobs of the batch lane.
    """

    ledger: KeptLedger = field(default_factory=NullLedger)
    budget: Budget = field(default_factory=Unlimited)
    priority: Priority = Priority.INTERACTIVE
    cache: CompletionCache | None = None
    batches: Callable[[str], BatchQueue] | None = None


class Models:
    """The models of the settings, by name; the connections are kept, the wrapping is per use.

    `connected` and `batch_apis` are models and Batch APIs that are there already; those of the
    settings are connected on demand.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session] | None = None,
        local_server: LocalServer | None = None,
        connected: Mapping[str, ChatModel] | None = None,
        batch_apis: Mapping[str, BatchApi] | None = None,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._local_server = local_server
        self._random = Random()  # noqa: S311 - jitter needs no secrecy
        self._connections = dict(connected or {})
        self._turns = Semaphore(llama.slots(settings))
        self._batch_apis = dict(batch_apis or {})
        self._limits_by_name: dict[str, Limits] = {}

    def open(
        self,
        name: str,
        job_id: uuid.UUID | None = None,
        chunk_id: uuid.UUID | None = None,
        token: uuid.UUID | None = None,
    ) -> ChatModel:
        """Return the model or the tiers of this name, with fallbacks, writing to the job's ledger.

        With the `token` of a claim, nothing is asked once the claim is lost (`LeaseLostError`).

        Raises:
            ConfigurationError: A model is unknown or cannot be used as configured.
        """
        asking = self._asking(job_id, chunk_id, token)

        def open_models(names: tuple[str, ...]) -> ChatModel:
            wrapped = [self.asked_by(asking, each) for each in dict.fromkeys(names)]
            return wrapped[0] if len(wrapped) == 1 else Fallback(wrapped, _log_fallback)

        return cascade.opened(self._settings, name, open_models, _log_fallback)

    def asked_by(self, asking: Asking, name: str) -> ChatModel:
        """Return one model; what runs on this machine is neither limited nor paid for.

        Raises:
            ConfigurationError: It is unknown, or cannot be used as configured.
        """
        settings = self._settings.model_named(name)
        price = price_of(settings)
        connection = self._connection(name, settings)
        model: ChatModel = Metered(connection, asking.ledger, price, reference=self._reference)
        if settings.provider == "extractive":
            return model
        facts = facts_about(settings)
        if llama.is_served_here(settings):
            # Whoever claims a question has its turn already, and others wait for the asking alone.
            patient = self._retrying(model, self._settings.worker.chunk_seconds)
            return Queued(self._cached(patient, asking, facts), self._turns)
        model = Budgeted(model, asking.budget, price, _sleep, self._random)
        patience = self._settings.limits.longest_wait_seconds
        model = RateLimited(model, self._limits(name), asking.priority, patience, _sleep)
        model = self._cached(self._retrying(model), asking, facts)
        if asking.batches is None or not has_batches(settings):
            return model
        return Batched(model, asking.batches(name), self.batch_api(name).body, price, facts)

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

    def judge(self, completion: Completion, verdict: Verdict) -> None:
        """Write what the check of an answer found into the ledger.

        The cache keeps valid and complete answers.
        """
        if self._sessions is not None:
            if not (verdict.valid and verdict.is_complete):
                answer_cache.discard(self._sessions, completion)
            record_verdict(self._sessions, self._patience, completion, verdict)

    def identity(self, name: str) -> list[str]:
        """Return what of a model belongs to a result's identity: who may have answered, and when.

        Raises:
            ConfigurationError: A model is unknown.
        """
        return cascade.identity(self._settings, name)

    def _retrying(self, model: ChatModel, total_seconds: float | None = None) -> ChatModel:
        policy = self._settings.retries
        if total_seconds is not None:
            policy = policy.model_copy(update={"total_seconds": total_seconds})
        return Retrying(model, policy, _sleep, self._random)

    def _cached(self, model: ChatModel, asking: Asking, facts: JsonObject) -> ChatModel:
        if asking.cache is None:
            return model
        longest = self._settings.retries.total_seconds
        return Cached(model, asking.cache, asking.ledger, facts, longest, _sleep)

    def _limits(self, name: str) -> Limits:
        """Return the limits of a model, which all who ask it share."""
        if name not in self._limits_by_name:
            settings = self._settings.model_named(name)
            broker_url = self._settings.broker_url
            if broker_url is None:
                self._limits_by_name[name] = ProcessLimits(
                    policy_of(self._settings.limits, settings)
                )
            else:
                key = self._settings.api_key_for(settings)
                client = open_client(broker_url)
                limits = open_limits(self._settings.limits, settings, key, client)
                self._limits_by_name[name] = limits
        return self._limits_by_name[name]

    def _connection(self, name: str, settings: ModelSettings) -> ChatModel:
        if name not in self._connections:
            self._connections[name] = self._connect(settings)
        return self._connections[name]

    def _connect(self, settings: ModelSettings) -> ChatModel:
        if settings.provider == "extractive":
            return ExtractiveModel(settings.timeout_seconds)
        key = self._settings.api_key_for(settings)
        if not llama.is_served_here(settings):
            return connect(settings, key)
        most_seconds = self._settings.worker.chunk_seconds
        served, key = self._served_here(settings)
        served = served.model_copy(update={"timeout_seconds": most_seconds})
        return Paced(connect(served, key), settings.timeout_seconds, most_seconds)

    @property
    def _patience(self) -> timedelta:
        return timedelta(seconds=self._settings.pipeline.outage_seconds)

    @cached_property
    def _reference(self) -> Price | None:
        """Return the price of the largest tier, with which the others are compared."""
        names = list(self._settings.tiers.configured().values())
        return price_of(self._settings.model_named(names[-1])) if names else None

    def _served_here(self, settings: ModelSettings) -> tuple[ModelSettings, SecretStr]:
        running = self._local_server(settings.model) if self._local_server else None
        if running is None:
            raise ConfigurationError(
                f"No local server runs {settings.model}.",
                "Start the stack with it as the model: chordwise up --model local/FILE.gguf",
            )
        address, key = running
        served = {"base_url": f"{address}/v1", "context_tokens": llama.context_tokens(settings)}
        return settings.model_copy(update=served), key

    def _asking(
        self,
        job_id: uuid.UUID | None,
        chunk_id: uuid.UUID | None,
        token: uuid.UUID | None = None,
    ) -> Asking:
        """Return for whom is asked: its ledger, its budget, its urgency, its cache.

        Raises:
            ServiceUnavailableError: The database is away.
        """
        if self._sessions is None or job_id is None:
            return Asking()
        sessions, wanted = self._sessions, job_id
        run = persistently(sessions, _LOOK_PATIENCE, lambda s: runs.of_job(s, wanted))
        budget = JobBudget(self._settings, sessions, job_id)
        owner = chunk_id or job_id
        stored = answer_cache.stored_completions(self._settings, sessions, owner)
        cache = stored if run.use_cache else None

        def batches(name: str) -> BatchQueue:
            return JobBatches(
                sessions=sessions,
                budget=budget,
                job_id=wanted,
                chunk_id=chunk_id,
                model_name=name,
                max_age=cache.max_age if cache else None,
            )

        return Asking(
            ledger=Ledger(sessions, self._patience, job_id, chunk_id, token),
            budget=budget,
            priority=Priority(run.priority),
            cache=cache,
            batches=batches if run.lane == Lane.BATCH else None,
        )


def _log_fallback(asked: ModelProfile, following: ModelProfile, error: ModelError) -> None:
    log.warning("model.fallback", asked=asked.model, next=following.model, code=error.code)
