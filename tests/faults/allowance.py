"""The costs and leftovers that an experiment allows."""

from __future__ import annotations

from dataclasses import dataclass

SUCCEEDED = frozenset({"succeeded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The exceptions that an experiment allows; anything else is a violation.

    `extra_calls` are allowed in addition to the `max_unstored_calls` that a killed worker may lose.
    `ends` are the allowed end states of jobs. A log entry with a traceback must contain one of
    `tracebacks`. `repeated` allows a second result for the same question (`--fresh`). `ungrounded`
    is the number of results that may have no grounded fact.
    """

    extra_calls: int = 0
    ends: frozenset[str] = SUCCEEDED
    tracebacks: tuple[str, ...] = ()
    repeated: bool = False
    ungrounded: int = 0
    memory_megabytes: int = 400
    canary_seconds: float = 20.0


NOTHING_SPECIAL = Allowance()
