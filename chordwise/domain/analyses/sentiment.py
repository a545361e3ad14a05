"""Sentiment: the attitude of a text to its subject, and the sentences that express it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from chordwise.domain import json_values, schemas
from chordwise.domain.analysis import (
    AnalysisDefinition,
    AnswerSection,
    claimed_number,
    display_number,
    gather_objects,
    gather_strings,
    mean,
    round_robin,
    unique,
)
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.json_values import JsonObject

LABELS = ("positive", "negative", "neutral", "mixed")
MAX_SENTENCES = 6
MAX_EMOTIONS = 6
NEUTRAL_BELOW = 0.1
MIXED_ABOVE = 0.25


class Sentiment(AnalysisDefinition):
    """Label, score −1…1, confidence 0–1, emotions, and the decisive sentences."""

    principal_fields = ("quote",)
    label_path = "/label"
    max_confidence = 1
    complexity = 0.1
    assumed_length = 150, 0.04
    principles = (
        "Label and score are those of the text as a whole, not of one sentence in it.",
        "Attitudes of others and ironic statements do not count as the author's attitude.",
    )
    label_columns: ClassVar = {"sentiment": "label"}
    score_columns: ClassVar = {"sentiment_score": "score"}
    sections = (
        AnswerSection("Sentiment", label_path),
        AnswerSection("Score", "/score", note=" of −1…1"),
        AnswerSection("Emotions", "/emotions", is_joined=True),
        AnswerSection("Sentences", "/sentences", members=("score",)),
    )

    def labels(self, options: AnalysisOptions) -> Sequence[str]:
        """Return the four labels."""
        return LABELS

    def with_label(self, output: JsonObject, label: str | None) -> JsonObject:
        """Return an answer with nothing but the label and a score that fits it."""
        score = {"positive": 0.5, "negative": -0.5}.get(label or "", 0.0)
        answer: JsonObject = {"label": label, "score": score, "confidence": 1.0}
        return answer | {"emotions": [], "sentences": []}

    def headline(self, output: JsonObject) -> str:
        """Return the label and the score."""
        return f"{json_values.text(output.get('label'))} ({display_number(output.get('score'))})"

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema; each sentence has a separate score."""
        sentence = schemas.closed({"quote": schemas.quote(), "score": schemas.number(-1, 1)})
        return schemas.closed(
            {
                "label": schemas.one_of(LABELS),
                "score": schemas.number(-1, 1),
                "confidence": schemas.number(0, 1),
                "emotions": schemas.array(schemas.string(), at_most=MAX_EMOTIONS),
                "sentences": schemas.array(sentence, at_most=MAX_SENTENCES),
            }
        )

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:
        """Return a problem if label and score contradict each other."""
        wrong = {"positive": -1, "negative": 1}.get(json_values.text(answer.get("label")), 0)
        if wrong and claimed_number(answer, "score") * wrong > NEUTRAL_BELOW:
            return ["/score: contradicts the label"]
        return []

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Average the chunks, weighted by confidence; strong chunks of both signs give “mixed”."""
        weights = [claimed_number(answer) or 0.01 for answer in answers]
        scores = [claimed_number(answer, "score") for answer in answers]
        score = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
        lists = gather_objects(answers, "sentences")
        strongest = [sorted(part, key=lambda s: -abs(claimed_number(s, "score"))) for part in lists]
        sentences = unique(round_robin(strongest, MAX_SENTENCES))
        return {
            "label": label_for(score, scores),
            "score": round(score, 3),
            "confidence": round(mean(claimed_number(answer) for answer in answers), 3),
            "emotions": gather_strings(answers, "emotions", MAX_EMOTIONS),
            "sentences": list(sentences),
        }


ANALYSIS = Sentiment()


def label_for(score: float, parts: Sequence[float]) -> str:
    """Return the label of a score; `parts` are the scores that it is the average of."""
    if max(parts) > MIXED_ABOVE and min(parts) < -MIXED_ABOVE:
        return "mixed"
    if abs(score) < NEUTRAL_BELOW:
        return "neutral"
    return "positive" if score > 0 else "negative"
