"""Whether a denied key, model or quota has paused calls for all runs."""

from __future__ import annotations

from chordwise.pipeline.diagnosis.checks import Check, Verdict
from chordwise.pipeline.jobs.endpoint_pauses import holding
from chordwise.settings import Settings

CHECK = "pauses"
_MINUTE = 60


def look(settings: Settings) -> Check:
    """Say which of the models that may be asked nobody asks for now, with their keys.

    Raises:
        ServiceUnavailableError: The broker is out of reach.
    """
    paused = holding(settings)
    if not paused:
        return Check(name=CHECK, finding="no model, key or quota is denied")
    first = paused[0]
    minutes = max(1, round(first.seconds / _MINUTE))
    when = f"nobody asks for {minutes} min" if first.seconds else "the next call looks again"
    return Check(
        name=CHECK,
        verdict=Verdict.WARN,
        finding=f"{first.denial.what} For all runs: {when}.",
        hint=f"{first.denial.hint} chordwise retry RUN asks at once.".strip(),
    )
