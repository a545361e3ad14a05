"""What worker and scheduler do before they begin: refuse what is wrong, wait for what is away."""

from __future__ import annotations

import resource
from threading import Event

import structlog
from sqlalchemy import Engine

from chordwise.errors import ConfigurationError, DatabaseRefusedError, ServiceUnavailableError
from chordwise.pipeline.runtime import broker
from chordwise.settings import Settings
from chordwise.storage.database import open_engine, translate_errors
from chordwise.storage.readiness import require_ready
from chordwise.telemetry import liveness

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
# Shorter than what a health check takes for death: whoever waits is alive.
_LONGEST_PAUSE_SECONDS = liveness.INTERVAL_SECONDS


def require_broker(settings: Settings) -> None:
    """Refuse a broker that is not configured, or that lacks the database in its address.

    Raises:
        ConfigurationError: As said.
    """
    if settings.broker_url is None:
        raise ConfigurationError("No broker is configured.", "Set CHORDWISE_BROKER_URL.")
    broker.require_database(settings.broker_url)


def require_files(wanted: int, setting: str = "") -> None:
    """Let this process open so many files at once, or refuse; `setting` makes it so many.

    Raises:
        ConfigurationError: The system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return
    raise ConfigurationError(
        f"This process may open {hard} files at once, and needs {wanted}.",
        "Raise the limit (ulimit -n, LimitNOFILE)" + (f", or lower {setting}." if setting else "."),
    )


def wait_until_ready(settings: Settings, process: str, stop: Event) -> bool:
    """Wait until the database can be worked with; false when `stop` was set meanwhile.

    Raises:
        ConfigurationError: No database is configured, or it does not suit us as it is.
        DatabaseRefusedError: It does not let us in.
    """
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
    engine = open_engine(settings.database_url, pool_size=1, name=f"chordwise {process}")
    pause = _FIRST_PAUSE_SECONDS
    try:
        while not stop.is_set():
            if _is_ready(engine, process):
                return True
            liveness.show(settings.home, process, liveness.State.HELD_UP)
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return False
    finally:
        engine.dispose()


def _is_ready(engine: Engine, process: str) -> bool:
    try:
        with translate_errors():
            require_ready(engine)
    except DatabaseRefusedError:
        raise
    except ServiceUnavailableError as error:
        log.warning("database.waiting", process=process, reason=error.what)
        return False
    return True
