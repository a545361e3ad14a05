"""How commands ask a running supervisor for something: a file with the wish, a file in reply."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from chordwise.embedded.home import Home, write_private
from chordwise.embedded.plan import Plan
from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError

# How long a command waits for its reply.
PATIENCE_SECONDS = 240


class Reply(BaseModel):
    """What became of a request; `what` is empty where it was granted."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    code: str = ""
    what: str = ""
    hint: str = ""

    def raise_for_refusal(self) -> None:
        """Raise what stopped the supervisor.

        Raises:
            ConfigurationError: A setting stands in the way.
            ServiceUnavailableError: A service does not start.
        """
        if self.code == ConfigurationError.code:
            raise ConfigurationError(self.what, self.hint)
        if self.what:
            raise ServiceUnavailableError(self.what, self.hint)


def ask(home: Home, plan: Plan) -> str:
    """Lay a request down and return its name."""
    name = f"{secrets.token_hex(8)}.json"
    # Written aside first: the supervisor must never see half a request.
    write_private(home.requests / name, plan.model_dump_json())
    return name


def withdraw(home: Home, name: str) -> None:
    """Withdraw a request that will not be answered."""
    (home.requests / name).unlink(missing_ok=True)


def is_waiting(home: Home, name: str) -> bool:
    """Return whether no supervisor has taken the request yet."""
    return (home.requests / name).exists()


def take_reply(home: Home, name: str) -> Reply | None:
    """Return the reply once it is there, and remove it."""
    path = home.replies / name
    try:
        reply = Reply.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
    path.unlink(missing_ok=True)
    return reply


def waiting(home: Home) -> list[Path]:
    """Return the requests that lie there, the oldest first."""
    return sorted(
        (path for path in home.requests.glob("*.json") if not path.name.startswith(".")),
        key=_changed_at,
    )


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def take(path: Path) -> Plan | None:
    """Return the plan in a request and remove it: it holds the caller's environment."""
    try:
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return Plan.model_validate_json(text)
    except (OSError, ValidationError):
        return None


def reply(home: Home, name: str, error: ChordwiseError | None = None) -> None:
    """Answer a request."""
    answer = Reply() if error is None else Reply(code=error.code, what=error.what, hint=error.hint)
    write_private(home.replies / name, answer.model_dump_json())


def clear(home: Home) -> None:
    """Remove replies that were not fetched, and requests whose command was killed long ago."""
    for path in home.replies.iterdir():
        path.unlink(missing_ok=True)
    for path in home.requests.iterdir():
        if _changed_at(path) < time.time_ns() - PATIENCE_SECONDS * 1_000_000_000:
            path.unlink(missing_ok=True)
