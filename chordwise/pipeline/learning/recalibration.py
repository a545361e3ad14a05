"""Recalibration: learns from judgments how reliable claimed confidences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy.orm import Session

from chordwise.domain.json_values import as_json, as_object
from chordwise.domain.learning import calibration
from chordwise.domain.learning.calibration import ConfidenceClaim
from chordwise.relations.relation import Row
from chordwise.storage import calibrations
from chordwise.storage.calibrations import Calibration, Key
from chordwise.storage.results import update_reviews_of

MAX_ERROR_RATE = 0.05
"""The default share of wrong answers that is allowed among those accepted without review."""


def learn(claims: Mapping[Key, Sequence[ConfidenceClaim]], max_error_rate: float) -> Sequence[Row]:
    """Learn a calibration of each model's claims, per analysis type and part.

    The `curve` and the `acceptance` are `None` if there are too few judgments.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    calibration.require()
    lessons: list[Row] = []
    for key, judged in claims.items():
        is_enough = calibration.is_enough(judged)
        lesson = {
            "key": key,
            "judged": len(judged),
            "judged_right": sum(claim.is_right for claim in judged),
            "curve": calibration.learn(judged) if is_enough else None,
            "acceptance": calibration.acceptance(judged, max_error_rate) if is_enough else None,
        }
        lessons.append(lesson)
    return lessons


def store(session: Session, lessons: Sequence[Row], max_error_rate: float) -> int:
    """Store the calibrations, which puts them into force; return how many changed."""
    changed = 0
    for lesson in lessons:
        if lesson["curve"] is not None:
            accepted = lesson["acceptance"]
            row = Calibration(
                **asdict(lesson["key"]),
                **as_object(as_json(lesson["curve"])),
                max_error_rate=max_error_rate,
                accept_from=accepted.accept_from if accepted else None,
                accepted_share=accepted.share if accepted else None,
            )
            if calibrations.store(session, row):
                changed += 1
                update_reviews_of(session, row.analysis_type, row.provider, row.model)
    return changed
