"""Opening the context that a process works in, from its settings."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from random import Random

from pydantic import SecretStr

from chordwise.embedded import llama
from chordwise.embedded.home import home_at
from chordwise.errors import ConfigurationError
from chordwise.pipeline.models.client import Models
from chordwise.pipeline.runtime.context import Context, open_stores
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import Messenger, open_app
from chordwise.settings import PipelineSettings, Settings
from chordwise.storage import tables
from chordwise.storage.database import STATEMENT_SECONDS, Database, open_engine

_MOST_CONNECTIONS = 20
_GROUPS = 3


def open_context(
    settings: Settings, name: str, connections: int = 5, *, pings: bool = True
) -> Context:
    """Return a context; nothing is connected before the first use.

    Raises:
        ConfigurationError: Database or broker are not configured.
    """
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
    tables.configure()
    pipeline = settings.pipeline
    opened = partial(
        open_engine,
        settings.database_url,
        name=f"chordwise {name}",
        # What takes longer comes too late: the lease is lost.
        statement_seconds=min(STATEMENT_SECONDS, pipeline.lease_seconds),
        pings=pings,
    )
    database = Database(opened(pool_size=min(connections, _MOST_CONNECTIONS)))
    together = Database(opened(pool_size=_GROUPS, keeps_plans=True))

    def local_server(model: str) -> tuple[str, SecretStr] | None:
        found = llama.running(home_at(settings.home), model)
        return (found[0], SecretStr(found[1])) if found else None

    return Context(
        settings=settings,
        database=database,
        stores=open_stores(settings, database, together),
        models=Models(settings, local_server),
        messenger=Messenger(open_app(settings)),
        leases=_lease_keeper(pipeline, settings.database_url, name),
        random=Random(),  # noqa: S311 - jitter needs no secrecy
    )


def _lease_keeper(pipeline: PipelineSettings, url: SecretStr, name: str) -> LeaseKeeper:
    """Let heartbeats go over connections of their own, and give those up while leases still last.

    Work that waits for the database must not keep its own lease from being prolonged.
    """
    between = (pipeline.lease_seconds - pipeline.heartbeat_seconds) / 3
    engine = open_engine(
        url,
        pool_size=1,
        name=f"chordwise {name} leases",
        statement_seconds=min(pipeline.heartbeat_seconds, between),
    )
    return LeaseKeeper(
        Database(engine),
        timedelta(seconds=pipeline.lease_seconds),
        timedelta(seconds=pipeline.heartbeat_seconds),
    )
