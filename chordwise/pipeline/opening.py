"""Opening the context that a process works in, from its settings."""

from __future__ import annotations

from datetime import timedelta
from random import Random

from pydantic import SecretStr

from chordwise.embedded import llama
from chordwise.embedded.home import home_at
from chordwise.errors import ConfigurationError
from chordwise.pipeline.context import Context
from chordwise.pipeline.leases import LeaseKeeper
from chordwise.pipeline.messages import Messenger, open_app
from chordwise.pipeline.models import Models
from chordwise.settings import Settings
from chordwise.storage import tables
from chordwise.storage.engine import open_engine, session_maker

_MOST_CONNECTIONS = 20


def open_context(settings: Settings, name: str, connections: int = 5) -> Context:
    """Return a context; nothing is connected before the first use.

    Raises:
        ConfigurationError: Database or broker are not configured.
    """
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
    tables.configure()
    pool_size = min(connections, _MOST_CONNECTIONS)
    engine = open_engine(settings.database_url, pool_size=pool_size, name=f"chordwise {name}")
    sessions = session_maker(engine)

    def local_server(model: str) -> tuple[str, SecretStr] | None:
        found = llama.running(home_at(settings.home), model)
        return (found[0], SecretStr(found[1])) if found else None

    return Context(
        settings=settings,
        sessions=sessions,
        models=Models(settings, sessions, local_server),
        messenger=Messenger(open_app(settings)),
        leases=LeaseKeeper(
            sessions,
            timedelta(seconds=settings.pipeline.lease_seconds),
            timedelta(seconds=settings.pipeline.heartbeat_seconds),
        ),
        random=Random(),  # noqa: S311 - jitter needs no secrecy
    )
