"""The outcome of one check of `chordwise doctor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chordwise.errors import ChordwiseError, ExitCode


class CheckStatus(StrEnum):
    """The status of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check; `exit_code` applies when it failed."""

    name: str
    status: CheckStatus = CheckStatus.OK
    finding: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.SUCCESS


def warning(name: str, finding: str, hint: str) -> Check:
    """Return a check with a warning."""
    return Check(name=name, status=CheckStatus.WARN, finding=finding, hint=hint)


def failed(name: str, error: ChordwiseError) -> Check:
    """Return the failed check for an error."""
    has_own_code = error.exit_code in (ExitCode.CONFIGURATION, ExitCode.UNAVAILABLE)
    return Check(
        name=name,
        status=CheckStatus.FAIL,
        finding=error.what,
        hint=error.hint,
        exit_code=error.exit_code if has_own_code else ExitCode.UNAVAILABLE,
    )


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check; turn an error into a failed check."""
    try:
        return check()
    except ChordwiseError as error:
        return failed(name, error)
