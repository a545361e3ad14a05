"""What every use case works with: settings, units of work, models and messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from chordwise.pipeline.models.client import Models
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import Messenger
from chordwise.settings import Settings

PATIENCE = timedelta(seconds=20)
"""How long a person waits for a database that restarts, before being told."""


class ReadingContext(Protocol):
    """What of a context suffices to look and to reckon."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        ...

    @property
    def sessions(self) -> sessionmaker[Session]:
        """Return the units of work."""
        ...

    @property
    def models(self) -> Models:
        """Return the models."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One per process; safe to share between threads."""

    settings: Settings
    sessions: sessionmaker[Session]
    models: Models
    messenger: Messenger
    leases: LeaseKeeper
    random: Random

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without a heartbeat."""
        return timedelta(seconds=self.settings.pipeline.lease_seconds)
