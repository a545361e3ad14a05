"""Reasoning: the steps of the argument of a text, and its quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from chordwise.domain import json_values, schemas
from chordwise.domain.analysis import (
    AnalysisDefinition,
    AnswerSection,
    claimed_number,
    display_number,
    gather_findings,
    gather_strings,
    mean,
    scale_to_ten,
)
from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.json_values import JsonObject

MAX_STEPS = 12
MAX_REMARKS = 6
ROLES = ("premise", "evidence", "inference", "counterargument", "conclusion")

_CONSIDERATIONS = "considerations"
_THINK = "Written before the rest, in a few sentences: how the argument goes."


class Reasoning(AnalysisDefinition):
    """Logical flow, argument strength 1–10, weaknesses, gaps, quality of the evidence."""

    principal_fields = ("step",)
    is_prose = True
    complexity = 1.0
    assumed_length = 250, 0.12
    principles = (
        "Each step is the author's own and has the role that it plays in the argument.",
        "Weaknesses and gaps are those of the argument, not of its style or its subject.",
    )
    label_columns: ClassVar = {"assessment": "overall_assessment"}
    score_columns: ClassVar = {"argument_strength": "argument_strength"}
    sections = (
        AnswerSection("Argument", "/logical_flow", members=("role", "step")),
        AnswerSection("Strength", "/argument_strength", note=" of 10"),
        AnswerSection("Evidence", "/evidence_quality/score", note=" of 10"),
        AnswerSection("", "/evidence_quality/assessment"),
        AnswerSection("Weaknesses", "/weaknesses"),
        AnswerSection("Gaps", "/gaps"),
        AnswerSection("Overall", "/overall_assessment"),
    )

    def headline(self, output: JsonObject) -> str:
        """Return the strength of the argument and its assessment."""
        strength = display_number(output.get("argument_strength"))
        return f"{strength}/10: {json_values.text(output.get('overall_assessment'))}"

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema; each step has a role and the quote in which the text makes it.

        The first member is optional and provides room for a chain of thought (arXiv 2201.11903).
        """
        step = schemas.closed(
            {"step": schemas.string(), "role": schemas.one_of(ROLES), "quote": schemas.quote()}
        )
        remarks = schemas.array(schemas.string(), at_most=MAX_REMARKS)
        answer = schemas.closed(
            {
                "logical_flow": schemas.array(step, at_least=1, at_most=MAX_STEPS),
                "argument_strength": schemas.integer(1, 10),
                "weaknesses": remarks,
                "gaps": remarks,
                "evidence_quality": schemas.closed(
                    {"score": schemas.integer(1, 10), "assessment": schemas.string()}
                ),
                "overall_assessment": schemas.string(),
                "confidence": schemas.integer(1, 10),
            }
        )
        first: JsonObject = {_CONSIDERATIONS: schemas.optional(schemas.string(_THINK))}
        return {**answer, "properties": first | json_values.as_object(answer["properties"])}

    def without_reasoning(self, answer: JsonObject) -> JsonObject:
        """Return the answer without the considerations."""
        return {name: value for name, value in answer.items() if name != _CONSIDERATIONS}

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Keep the order of the argument; average scores; use the surest chunk's assessments."""
        surest = max(answers, key=claimed_number)
        evidence = [json_values.as_object(one.get("evidence_quality") or {}) for one in answers]
        assessment = json_values.at(surest, "/evidence_quality/assessment")
        return {
            "logical_flow": gather_findings(answers, "logical_flow", MAX_STEPS),
            "argument_strength": _mean_score(answers, "argument_strength"),
            "weaknesses": gather_strings(answers, "weaknesses", MAX_REMARKS),
            "gaps": gather_strings(answers, "gaps", MAX_REMARKS),
            "evidence_quality": {
                "score": _mean_score(evidence, "score"),
                "assessment": json_values.text(assessment),
            },
            "overall_assessment": json_values.text(surest.get("overall_assessment")),
            "confidence": _mean_score(answers, "confidence"),
        }


ANALYSIS = Reasoning()


def _mean_score(answers: Sequence[JsonObject], name: str) -> int:
    return scale_to_ten(mean(claimed_number(answer, name) for answer in answers))
