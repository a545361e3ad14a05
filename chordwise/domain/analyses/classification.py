"""Classification: the label that fits a text, if any, its evidence and its uncertainties."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from chordwise.domain import json_values, schemas
from chordwise.domain.analysis import (
    NO_LABEL,
    AnalysisDefinition,
    AnswerSection,
    claimed_number,
    gather_findings,
    gather_strings,
)
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.json_values import JsonObject

MAX_FEATURES = 8
MAX_FACTORS = 6


class Classification(AnalysisDefinition):
    """Primary label (null if none fits), secondary one, confidence 0–1, features, uncertainties."""

    principal_fields = ("feature",)
    nullable_path = label_path = "/primary_label"
    max_confidence = 1
    complexity = 0.1
    assumed_length = 120, 0.01
    principles = ("The primary label fits the text as a whole better than any other label does.",)
    label_columns: ClassVar = {"label": "primary_label"}
    sections = (
        AnswerSection("Label", label_path),
        AnswerSection("Confidence", "/confidence"),
        AnswerSection("Second", "/secondary_label"),
        AnswerSection("Decided by", "/features", members=("feature",)),
        AnswerSection("Uncertain", "/uncertainty_factors"),
    )

    def labels(self, options: AnalysisOptions) -> Sequence[str]:
        """Return the labels of the user."""
        return options.labels

    def with_label(self, output: JsonObject, label: str | None) -> JsonObject:
        """Return an answer with nothing but the label."""
        answer: JsonObject = {"primary_label": label, "secondary_label": None, "confidence": 1.0}
        return answer | {"features": [], "uncertainty_factors": []}

    def headline(self, output: JsonObject) -> str:
        """Return the primary label, or that no label fits."""
        return json_values.text(output.get("primary_label")) or NO_LABEL

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema; it restricts the labels if the user gave some."""
        feature = schemas.closed({"feature": schemas.string(), "quote": schemas.quote()})
        label = schemas.one_of(options.labels) if options.labels else schemas.string()
        return schemas.closed(
            {
                "primary_label": schemas.optional(label),
                "secondary_label": schemas.optional(label),
                "confidence": schemas.number(0, 1),
                "features": schemas.array(feature, at_most=MAX_FEATURES),
                "uncertainty_factors": schemas.array(schemas.string(), at_most=MAX_FACTORS),
            }
        )

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:
        """Check that a secondary label has a primary one and differs from it."""
        primary, secondary = (answer.get(f"{rank}_label") for rank in ("primary", "secondary"))
        if secondary is not None and primary in (secondary, None):
            return ["/secondary_label: must differ from primary_label, or be null"]
        return []

    def has_findings(self, answer: JsonObject) -> bool:
        """Return whether a label fits."""
        return answer.get("primary_label") is not None

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Let the chunks with a fitting label vote by confidence; disagreement is a factor."""
        voters = [answer for answer in answers if self.has_findings(answer)]
        if not voters:
            surest = max(answers, key=claimed_number)
            return dict(surest)
        answers, votes = voters, _votes(voters)
        ranked = sorted(votes, key=lambda label: -votes[label])
        share = votes[ranked[0]] / (sum(votes.values()) or 1.0)
        winners = [a for a in answers if a.get("primary_label") == ranked[0]] or list(answers)
        factors = gather_strings(answers, "uncertainty_factors", MAX_FACTORS - 1)
        if len(ranked) > 1:
            factors.append(f"{1 - share:.0%} of the votes of the chunks are for other labels")
        return {
            "primary_label": ranked[0],
            "secondary_label": ranked[1] if len(ranked) > 1 else None,
            "confidence": round(share * max(claimed_number(answer) for answer in winners), 3),
            "features": gather_findings(winners, "features", MAX_FEATURES),
            "uncertainty_factors": factors,
        }


ANALYSIS = Classification()


def _votes(answers: Sequence[JsonObject]) -> dict[str, float]:
    """A primary label counts its confidence, a secondary one half the rest and never more."""
    votes: dict[str, float] = defaultdict(float)
    for answer in answers:
        confidence = claimed_number(answer)
        votes[json_values.text(answer.get("primary_label"))] += confidence
        if secondary := json_values.text(answer.get("secondary_label")):
            votes[secondary] += min(confidence, (1 - confidence) / 2)
    return dict(votes)
