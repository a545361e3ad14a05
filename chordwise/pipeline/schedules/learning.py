"""Schedules that evaluate and recalibrate: the numbers of each night, one after the other."""

from __future__ import annotations

from pathlib import Path

from chordwise.domain.json_values import JsonObject
from chordwise.pipeline.learning import evaluating, gold, recalibrating, scopes
from chordwise.pipeline.schedules.work import Work
from chordwise.storage import calibrations


def evaluate(work: Work) -> JsonObject:
    """Evaluate what the profile asks, or all current results; return how much was judged.

    Raises:
        UsageError: The gold file makes no sense, or is about none of the results.
        ConfigurationError: There is no such profile any more.
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database stayed away.
    """
    truth = gold.read(Path(work.settings.gold)) if work.settings.gold else None
    scope = scopes.of(work.context.settings, None, work.settings.profile)
    found = evaluating.evaluate(work.context.database, scope, truth, work.write)
    return {
        "judged": sum(len(each.comparison.compared) for each in found),
        "missing": sum(len(each.comparison.missing) for each in found),
    }


def recalibrate(work: Work) -> JsonObject:
    """Learn from all judgments; return how many calibrations are new, and how many lack some.

    Raises:
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database stayed away.
    """
    most_errors = work.settings.most_errors
    if most_errors is None:
        most_errors = recalibrating.MOST_ERRORS
    with work.context.database.read() as session:
        claims = calibrations.claims(session)
    lessons = recalibrating.learn(claims, most_errors)
    changed = work.write(lambda session: recalibrating.store(session, lessons, most_errors))
    return {"changed": changed, "too_few": sum(lesson.curve is None for lesson in lessons)}
