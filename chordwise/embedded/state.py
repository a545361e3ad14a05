"""What a running stack says about itself in `run/stack.json`."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from chordwise.embedded import lock, private_files
from chordwise.embedded.home import Home
from chordwise.embedded.processes import ProcessIdentity


class Level(StrEnum):
    """How much of the stack runs: only the database, or everything that works on jobs."""

    DATABASE = "database"
    ALL = "all"


class Phase(StrEnum):
    """Where a stack is in its life."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


class StackState(BaseModel):
    """A snapshot of the stack.

    The addresses are those of embedded services, with their passwords: `None` where a service of
    the user's own is in use. `activity` is what the supervisor does just now, in words.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    supervisor: ProcessIdentity
    children: dict[str, ProcessIdentity] = {}
    phase: Phase = Phase.STARTING
    level: Level = Level.DATABASE
    fingerprint: str = ""
    standing: str = ""
    activity: str = ""
    is_foreground: bool = False
    database_url: str | None = None
    broker_url: str | None = None


def write(home: Home, state: StackState) -> None:
    """Replace the snapshot."""
    private_files.write(home.state_file, state.model_dump_json(indent=1))


def last(home: Home) -> StackState | None:
    """Return the last snapshot, also when its supervisor is gone."""
    try:
        return StackState.model_validate_json(home.state_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def current(home: Home) -> StackState | None:
    """Return the snapshot of the stack that runs now."""
    state = last(home)
    found = lock.holder(home)
    if state is None or found is None or found.pid != state.supervisor.pid:
        return None
    return state
