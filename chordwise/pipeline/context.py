"""What every use case works with: settings, units of work, models and messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from random import Random

from sqlalchemy.orm import Session, sessionmaker

from chordwise.pipeline.leases import LeaseKeeper
from chordwise.pipeline.messages import Messenger
from chordwise.pipeline.models import Models
from chordwise.settings import Settings


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
