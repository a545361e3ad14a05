"""Documents that contain the answer of the model, so that a test decides whether it is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.learning import feedback
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.learning.feedback import FeedbackLine
from chordwise.pipeline.learning.scope import Scope
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import Pipeline, a_document, a_label, a_pipeline, a_run

LABELS = ("invoice", "letter", "report")
_CHOICE = re.compile(r"CHOOSE (\S+) (\S+)")
_VALUES = re.compile(r"VALUES (\{.*\})")


def obeying(request: CompletionRequest) -> str:
    """Return the answer that the document contains: a label with its confidence, or values."""
    text = request.task.text
    if request.task.analysis_type == AnalysisType.EXTRACTION:
        (values,) = _VALUES.findall(text)
        return json.dumps(
            {"fields": [a_field(item, *said) for item, said in json.loads(values).items()]}
        )
    ((label, confidence),) = _CHOICE.findall(text)
    return a_label(None if label == "none" else label, float(confidence), f"CHOOSE {label}")


def a_learner(settings: Settings) -> Pipeline:
    """Return a pipeline whose model returns the answer that each document contains."""
    return a_pipeline(settings, obeying, repeat_last=True)


def classified(
    pipeline: Pipeline, choices: Mapping[str, tuple[str, float]], *, threshold: float = 0.0
) -> Submission:
    """Classify documents with these names, labels and confidences.

    The label `none` means that no label fits.
    """
    texts = {
        name: f"{name} says: CHOOSE {label} {confidence} and nothing else."
        for name, (label, confidence) in choices.items()
    }
    options = AnalysisOptions(labels=LABELS, confidence_threshold=threshold)
    return worked(pipeline, [AnalysisType.CLASSIFICATION], options, texts)


def extracted(
    pipeline: Pipeline,
    values: Mapping[str, Mapping[str, tuple[str | None, int]]],
    *,
    fresh: bool = False,
    threshold: float | None = None,
) -> Submission:
    """Extract from documents with these names; each item has a value and a confidence in points."""
    items = dict.fromkeys(item for row in values.values() for item in row)
    texts = {name: f"{name}: VALUES {json.dumps(row)}" for name, row in values.items()}
    options = AnalysisOptions(instructions=", ".join(items), confidence_threshold=threshold)
    return worked(pipeline, [AnalysisType.EXTRACTION], options, texts, fresh=fresh)


def a_scope(pipeline: Pipeline, name: str = "", *types: AnalysisType) -> Scope:
    """Return the results of a run; without a name, the newest results of all runs."""
    with pipeline.context.database.read() as session:
        return scopes.find(session, pipeline.context.settings, name, types=types)


def written(path: Path, *records: Mapping[str, object]) -> Path:
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def worked(
    pipeline: Pipeline,
    kinds: Sequence[AnalysisType],
    options: AnalysisOptions,
    texts: Mapping[str, str],
    *,
    fresh: bool = False,
) -> Submission:
    """Analyze the texts of documents with these names."""
    documents = (a_document(text, name) for name, text in texts.items())
    return pipeline.analyze(*documents, options=a_run(*kinds, fresh=fresh, analysis=options))


_DOUBT = """
    WITH doubted AS (
        UPDATE facts SET doubts = :reasons WHERE id = (
            SELECT f.id FROM facts f
            JOIN jobs j ON j.id = f.job_id JOIN intakes i ON i.id = j.intake_id
            WHERE f.value = :value AND strpos(i.source, :source) > 0 ORDER BY f.id DESC LIMIT 1
        ) RETURNING job_id, path, doubts
    )
    UPDATE results AS r SET needs_review = true,
        doubts = coalesce(r.doubts, '{}') || jsonb_build_object(d.path, to_jsonb(d.doubts))
    FROM doubted AS d WHERE d.job_id = r.job_id
"""


def doubted(pipeline: Pipeline, value: str, *reasons: str, source: str = "") -> None:
    """Give the newest fact with this value reasons to check it."""
    pipeline.execute(_DOUBT, value=value, reasons=list(reasons), source=source)


def say(pipeline: Pipeline, verdict: str, documents: Iterable[str], **entered: object) -> None:
    """Store a verdict, as from a file, on the newest result of each document."""
    lines = [
        FeedbackLine(
            number=number,
            document=document,
            entered=FeedbackInput(verdict=Verdict(verdict), **entered),  # type: ignore[arg-type]  # by their names
        )
        for number, document in enumerate(documents)
    ]
    with pipeline.context.database.write() as session:
        outcome = feedback.give_all(session, ResultSelection(), lines)
    assert outcome == {"stored": len(lines), "known": 0, "unmatched": []}
