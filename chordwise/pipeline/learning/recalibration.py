"""Recalibration: learns from judgments how reliable claimed confidences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning import calibration
from chordwise.domain.learning.calibration import Acceptance, ConfidenceClaim, Curve
from chordwise.storage import calibrations
from chordwise.storage.calibrations import Calibration, Key

MAX_ERROR_RATE = 0.05
"""The default share of wrong answers that is allowed among those accepted without review."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the judgments of one model's answers show; `curve` is None if there are too few."""

    key: Key
    judged: int
    judged_right: int
    curve: Curve | None = None
    acceptance: Acceptance | None = None


def learn(
    claims: Mapping[Key, Sequence[ConfidenceClaim]], max_error_rate: float
) -> Sequence[Lesson]:
    """Learn a calibration of each model's claims, per analysis type and part.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    calibration.require()
    return [_lesson(key, judged, max_error_rate) for key, judged in claims.items()]


def store(session: Session, lessons: Sequence[Lesson], max_error_rate: float) -> int:
    """Store the calibrations, which puts them into force; return how many changed."""
    return sum(
        calibrations.store(session, _calibration(lesson, lesson.curve, max_error_rate))
        for lesson in lessons
        if lesson.curve is not None
    )


def _lesson(key: Key, claims: Sequence[ConfidenceClaim], max_error_rate: float) -> Lesson:
    is_enough = calibration.is_enough(claims)
    return Lesson(
        key=key,
        judged=len(claims),
        judged_right=sum(claim.is_right for claim in claims),
        curve=calibration.learn(claims) if is_enough else None,
        acceptance=calibration.acceptance(claims, max_error_rate) if is_enough else None,
    )


def _calibration(lesson: Lesson, curve: Curve, max_error_rate: float) -> Calibration:
    points: list[JsonValue] = [[claim, worth] for claim, worth in curve.points]
    accepted = lesson.acceptance
    return Calibration(
        **asdict(lesson.key),
        method=curve.method,
        points=points,
        judged=curve.judged,
        judged_right=curve.judged_right,
        error_before=curve.error_before,
        error_after=curve.error_after,
        max_error_rate=max_error_rate,
        accept_from=accepted.accept_from if accepted else None,
        accepted_share=accepted.share if accepted else None,
    )
