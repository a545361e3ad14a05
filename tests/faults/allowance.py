"""What an experiment may cost, and what it may leave behind."""

from __future__ import annotations

from dataclasses import dataclass

SUCCEEDED = frozenset({"succeeded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Set by the experiment; everything that is not allowed here is a violation.

    `extra_calls` come on top of those that a killed worker may lose (`most_unstored`). `ends` are
    the end states that jobs may have. `tracebacks` are texts: a log entry with a traceback must
    contain one of them. `repeated` allows a second result for the same question (`--fresh`).
    `ungrounded` says how many results may have no grounded fact.
    """

    extra_calls: int = 0
    ends: frozenset[str] = SUCCEEDED
    tracebacks: tuple[str, ...] = ()
    repeated: bool = False
    ungrounded: int = 0
    memory_megabytes: int = 400
    canary_seconds: float = 20.0


NOTHING_SPECIAL = Allowance()
