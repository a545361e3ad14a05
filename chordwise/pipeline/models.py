"""Putting the model client together: one sentence, read from the inside out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from random import Random
from threading import Semaphore
from typing import TypeAlias

import structlog
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from chordwise.embedded import llama
from chordwise.errors import ConfigurationError, ModelError
from chordwise.llm.middleware.fallback import Fallback
from chordwise.llm.middleware.metered import CallLedger, Metered, NullLedger
from chordwise.llm.middleware.queued import Queued
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.model import ChatModel, Completion, ModelProfile
from chordwise.llm.pricing import price_of
from chordwise.llm.providers import connect
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.answering import Verdict
from chordwise.pipeline.ledger import Ledger, record_verdict
from chordwise.settings import ModelSettings, Settings

log = structlog.get_logger(__name__)

LocalServer: TypeAlias = Callable[[str], tuple[str, SecretStr] | None]
"""Returns address and key of the server that runs a GGUF file on this machine."""


class Models:
    """The models of the settings, by name; the connections are kept, the wrapping is per use.

    `connected` are models that are there already; those of the settings are connected on demand.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session] | None = None,
        local_server: LocalServer | None = None,
        connected: Mapping[str, ChatModel] | None = None,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._local_server = local_server
        self._random = Random()  # noqa: S311 - jitter needs no secrecy
        self._connections = dict(connected or {})
        self._turns = Semaphore(llama.slots(settings))

    def open(
        self, name: str, job_id: uuid.UUID | None = None, chunk_id: uuid.UUID | None = None
    ) -> ChatModel:
        """Return the model of this name, with its fallbacks, writing to the job's ledger.

        Raises:
            ConfigurationError: A model is unknown or cannot be used as configured.
        """
        ledger = self._ledger(job_id, chunk_id)
        names = dict.fromkeys((name, *self._settings.fallback))
        wrapped = [self._wrap(each, ledger) for each in names]
        return wrapped[0] if len(wrapped) == 1 else Fallback(wrapped, _log_fallback)

    def judge(self, completion: Completion, verdict: Verdict) -> None:
        """Write what the check of an answer found into the ledger."""
        if self._sessions is not None:
            record_verdict(self._sessions, self._patience, completion, verdict)

    def identity(self, name: str) -> list[str]:
        """Return what of a model belongs to a result's identity: who may have answered."""
        names = dict.fromkeys((name, *self._settings.fallback))
        found = (self._settings.model_named(each) for each in names)
        return [f"{each.provider}/{each.model}@{each.base_url}" for each in found]

    def _wrap(self, name: str, ledger: CallLedger) -> ChatModel:
        settings = self._settings.model_named(name)
        model = Retrying(
            Metered(self._connection(name, settings), ledger, price_of(settings)),
            self._settings.retries,
            time.sleep,  # noqa: TID251 - here the waiting is wired in
            self._random,
        )
        return Queued(model, self._turns) if llama.is_served_here(settings) else model

    def _connection(self, name: str, settings: ModelSettings) -> ChatModel:
        if name not in self._connections:
            self._connections[name] = self._connect(settings)
        return self._connections[name]

    def _connect(self, settings: ModelSettings) -> ChatModel:
        if settings.provider == "extractive":
            return self._extractive
        key = self._settings.api_key_for(settings)
        if llama.is_served_here(settings):
            settings, key = self._served_here(settings)
        return connect(settings, key)

    @property
    def _patience(self) -> timedelta:
        return timedelta(seconds=self._settings.pipeline.outage_seconds)

    @cached_property
    def _extractive(self) -> ChatModel:
        return ExtractiveModel()

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

    def _ledger(self, job_id: uuid.UUID | None, chunk_id: uuid.UUID | None) -> CallLedger:
        if self._sessions is None or job_id is None:
            return NullLedger()
        return Ledger(self._sessions, self._patience, job_id, chunk_id)


def _log_fallback(asked: ModelProfile, following: ModelProfile, error: ModelError) -> None:
    log.warning("model.fallback", asked=asked.model, next=following.model, code=error.code)
