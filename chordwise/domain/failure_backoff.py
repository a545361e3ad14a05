"""Failures of recurring work: each is logged once, and retried at growing intervals."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
_FIRST_SECONDS = 1.0
_MAX_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    reason: str
    pause_seconds: float
    retry_at: float


class FailureBackoff:
    """Remembers failures, their reasons, and the times of the next attempts."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Failure] = {}

    def record(self, key: Hashable, reason: str, now: float) -> bool:
        """Record a failure; return whether it is new or has a new reason, and should be logged."""
        known = self._known.get(key)
        pause = min(2 * known.pause_seconds, _MAX_SECONDS) if known else _FIRST_SECONDS
        self._known[key] = _Failure(reason=reason, pause_seconds=pause, retry_at=now + pause)
        return known is None or known.reason != reason

    def is_waiting(self, key: Hashable, now: float) -> bool:
        """Return whether it is too early for the next attempt."""
        known = self._known.get(key)
        return known is not None and now < known.retry_at

    def waiting(self, of: type[Key], now: float) -> set[Key]:
        """Return the keys of a type for which it is too early for the next attempt."""
        keys = (key for key, known in self._known.items() if now < known.retry_at)
        return {key for key in keys if isinstance(key, of)}

    def clear(self, key: Hashable) -> None:
        """Forget a failure after a success."""
        self._known.pop(key, None)

    def keep_only(self, keys: Collection[Hashable], of: type) -> None:
        """Forget all other keys of type `of`: their subjects no longer exist."""
        self._known = {
            key: value
            for key, value in self._known.items()
            if key in keys or not isinstance(key, of)
        }
