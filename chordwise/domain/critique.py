"""Critique: the check of an answer against written principles, and the acceptance of its revision.

After Bai et al., Constitutional AI, 2022 (arXiv 2212.08073), and Madaan et al., Self-Refine, 2023
(arXiv 2303.17651): one critique, one revision, and no revision that makes an answer worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from chordwise.domain import grounding, json_values, missing_rows, schema_data, schemas
from chordwise.domain.analysis import AnalysisDefinition, analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.states import CritiqueOutcome

MAX_VIOLATIONS = 10
_OF_ALL = (
    "Every statement follows from the text; nothing is added that the text does not say.",
    "Every quote supports the statement beside it.",
    "Nothing that the text leaves open or contradicts is presented as certain.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """The result of a critique: objections with principle, path and problem; why it was kept."""

    outcome: CritiqueOutcome
    principles: tuple[str, ...]
    violations: tuple[JsonObject, ...] = ()
    reason: str = ""

    def to_json(self) -> JsonObject:
        """Return the JSON stored in `results.critique`."""
        return {
            "outcome": self.outcome.value,
            "violations": list(self.violations),
            "reason": self.reason or None,
            "principles": list(self.principles),
        }


class Examination(AnalysisDefinition):
    """The question of a critique: its violations; it has the interface of an analysis type."""

    principal_fields = ("problem",)

    def __init__(self, kind: AnalysisType) -> None:
        self._kind = kind

    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema: a principle by number, from 1, and a JSON Pointer into the answer."""
        violation = schemas.closed(
            {
                "principle": schemas.integer(1, len(principles_for(self._kind, options))),
                "path": schemas.string("JSON Pointer into the analysis, such as /key_findings/0."),
                "problem": schemas.string("One sentence: what is wrong."),
            }
        )
        return schemas.closed({"violations": schemas.array(violation, at_most=MAX_VIOLATIONS)})

    def confidence(self, answer: JsonObject) -> float:
        """Return 1, so that no critique is repeated because of low confidence."""
        return 1.0

    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Concatenate the violations, up to the limit."""
        violations: list[JsonValue] = [item for answer in answers for item in violations_in(answer)]
        return {"violations": violations[:MAX_VIOLATIONS]}


def analysis_of(task: AnalysisTask) -> AnalysisDefinition:
    """Return the analysis that a question asks for: that of its type, or its critique."""
    kind = task.analysis_type
    return _examination(kind) if task.is_critique else analysis_for(kind)


_examination = cache(Examination)


def principles_for(kind: AnalysisType, options: AnalysisOptions) -> tuple[str, ...]:
    """Return the principles of the user, otherwise the general ones and those of this type."""
    return options.principles or (*_OF_ALL, *analysis_for(kind).principles)


def violations_in(output: JsonObject) -> list[JsonObject]:
    """Return the violations in the output of a critique."""
    return json_values.objects(output.get("violations"))


def with_principle_texts(
    violations: Sequence[JsonObject], principles: Sequence[str]
) -> tuple[JsonObject, ...]:
    """Return the violations with the texts of their principles instead of the numbers."""
    return tuple(
        {**item, "principle": principles[int(json_values.number(item["principle"]) or 1) - 1]}
        for item in violations
    )


def objection_to(revised: Answer, original: Answer, task: AnalysisTask) -> str:
    """Return why a revision must not replace the original; empty if it may.

    It may drop ungrounded quotes and repeated rows, together with as many rows, but no others. It
    must not be grounded less well, or lose all evidence.
    """
    share = grounding.grounded_share(revised.output)
    if share < grounding.grounded_share(original.output):
        return "The revision is grounded less well."
    if _is_grounded(original.output) and not _is_grounded(revised.output):
        return "The revision has lost its evidence."
    analysis = analysis_for(task.analysis_type)
    rows, kept = (analysis.row_counts([a.output], task.options) for a in (original, revised))
    lost = missing_rows.losses(missing_rows.compare(rows, kept))
    spare = _spare_rows(original.output, task) - _spare_rows(revised.output, task)
    if sum(row_list.expected - row_list.kept for row_list in lost) > spare:
        return " ".join(["The revision has lost rows.", *missing_rows.sentences(lost)])
    return ""


def _is_grounded(output: JsonObject) -> bool:
    return any(item.get("grounded") is True for item in grounding.quotes(output))


def _spare_rows(output: JsonObject, task: AnalysisTask) -> int:
    """Return how many quotes are not grounded, and how many rows repeat others."""
    ungrounded = sum(item.get("grounded") is not True for item in grounding.quotes(output))
    schema = task.options.schema
    return ungrounded + (sum(schema_data.repetitions(output, schema).values()) if schema else 0)
