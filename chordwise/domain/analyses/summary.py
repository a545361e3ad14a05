"""Summary: the topic of a text, its key findings with their quotes, and its conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from chordwise.domain import grounding, json_values, schemas
from chordwise.domain.analysis import (
    AnalysisDefinition,
    AnswerSection,
    claimed_number,
    gather_findings,
    gather_strings,
    mean,
    scale_to_ten,
)
from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.json_values import JsonObject

MAX_FINDINGS = 5
MAX_CONCLUSIONS = 5


class Summary(AnalysisDefinition):
    """Main topic, up to five key findings, evidence, conclusions, confidence 1–10."""

    principal_fields = ("finding",)
    is_prose = True
    complexity = 0.4
    assumed_length = 200, 0.08
    principles = (
        "The findings are the most important ones of the whole text, not just of its start.",
        "No two findings state the same.",
    )
    label_columns: ClassVar = {"main_topic": "main_topic"}
    derived = "evidence"
    sections = (
        AnswerSection("Topic", "/main_topic"),
        AnswerSection("Findings", "/key_findings", members=("finding",)),
        AnswerSection("Conclusions", "/conclusions"),
    )

    def headline(self, output: JsonObject) -> str:
        """Return the topic."""
        return json_values.text(output.get("main_topic"))

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema; each finding includes its supporting quote."""
        finding = schemas.closed({"finding": schemas.string(), "quote": schemas.quote()})
        return schemas.closed(
            {
                "main_topic": schemas.string("One sentence: what the text is about."),
                "key_findings": schemas.array(finding, at_least=1, at_most=MAX_FINDINGS),
                "conclusions": schemas.array(schemas.string(), at_most=MAX_CONCLUSIONS),
                "confidence": schemas.integer(1, 10),
            }
        )

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Keep findings from the whole document; the most confident chunk provides the topic."""
        surest = max(answers, key=claimed_number)
        return {
            "main_topic": json_values.text(surest.get("main_topic")),
            "key_findings": gather_findings(answers, "key_findings", MAX_FINDINGS),
            "conclusions": gather_strings(answers, "conclusions", MAX_CONCLUSIONS),
            "confidence": scale_to_ten(mean(claimed_number(answer) for answer in answers)),
        }

    def complete(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Add the quotes as the evidence of the summary, each with the finding that it supports."""
        evidence: list[json_values.JsonValue] = [
            {
                "quote": item["quote"],
                "supports": f"/key_findings/{position}",
                **{name: item.get(name) for name in grounding.SPAN_FIELDS},
            }
            for position, item in enumerate(json_values.objects(answer.get("key_findings")))
            if item.get("quote")
        ]
        return {**answer, self.derived: evidence}


ANALYSIS = Summary()
