"""The account of a job, and its questions as they were asked.

Prompts are rendered again, and completions are read from the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from psycopg import Connection
from sqlalchemy.orm import Session

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisTask,
    AnalysisType,
    Stage,
    examples_from,
    options_from,
    question_of,
)
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.prompts import Prompt
from chordwise.domain.states import ChunkStatus, CritiqueOutcome
from chordwise.errors import ChordwiseError, InvalidAnswerError
from chordwise.llm.middleware.cached import answer_settings, key_of
from chordwise.llm.model import ChatModel, CompletionRequest
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import about_part, parts_of, request_for
from chordwise.pipeline.models.model_client import Models
from chordwise.prompts import library
from chordwise.relations.jobs import JOBS, MAX_NAMED
from chordwise.relations.relation import Row, rows
from chordwise.relations.results import ABSENCES, CONTRADICTIONS, FACTS, RESULTS
from chordwise.settings import Settings
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.chunks import COLUMNS, EndedChunk, answer_of
from chordwise.storage.database import driver

# A call of the run with the source of the document transcribed its pages.
_SECTIONS = {
    "document": """
        SELECT id, source, title, media_type, character_count, flags, created_at
        FROM documents WHERE id = %(document_id)s""",
    "result": f"{RESULTS.query} WHERE r.job_id = %(job_id)s",
    "chunks": "SELECT * FROM chunks WHERE job_id = %(job_id)s ORDER BY position",
    "calls": """
        SELECT calls.*, chunks.position AS chunk, coalesce(
            calls.error_message, CASE WHEN calls.valid THEN 'valid' ELSE 'not valid' END
        ) AS outcome
        FROM model_calls AS calls
        LEFT JOIN chunks ON chunks.id = calls.chunk_id
        WHERE calls.job_id = %(job_id)s
            OR (calls.run_id = %(run_id)s AND calls.source = %(source)s)
        ORDER BY calls.id""",
    "facts": f"{FACTS.query} WHERE f.job_id = %(job_id)s ORDER BY f.verdict IS NULL, f.id",
    "contradictions": CONTRADICTIONS,
    "absences": ABSENCES,
    "remarks": """
        SELECT * FROM feedback WHERE id = ANY(%(remark_ids)s) ORDER BY created_at DESC, id DESC""",
    "examples": """
        SELECT e.*, d.source
        FROM jobs AS j
        CROSS JOIN jsonb_array_elements_text(j.examples) WITH ORDINALITY AS shown (id, position)
        INNER JOIN learned_examples AS e ON e.id = shown.id::uuid
        INNER JOIN documents AS d ON d.id = e.document_id
        WHERE j.id = %(job_id)s
        ORDER BY shown.position""",
    "jobs": JOBS.statement({"document_id": True}, limit=MAX_NAMED),
}


def explain(session: Session, job: Row) -> Row:
    """Return a row of `JOBS` with its document, its result, if any, and all rows about it.

    Facts with a verdict come first, feedback and jobs newest first. A job that reused an answer has
    neither chunks nor calls; the job `reused_from` has them. `revised` are the paths that a
    revision changed; they are known only for a document of one chunk without corrections.
    """
    feedback = stored_feedback.of_documents(session, [job["document_id"]])
    kind, question = AnalysisType(job["analysis_type"]), question_of(job["options"])
    remark_ids = [remark.id for remark in stored_feedback.applicable(feedback, kind, question)]
    values = {**job, "remark_ids": remark_ids, "field": None}
    sections = {name: rows(driver(session), query, values) for name, query in _SECTIONS.items()}
    costs = [call["cost_usd"] for call in sections["calls"]]
    result = next(iter(sections["result"]), None)
    return {
        **job,
        **sections,
        "document": sections["document"][0],
        "result": result,
        "revised": _revised(sections["chunks"], result),
        "cost_usd": sum(usd for usd in costs if usd is not None),
        "unpriced_calls": costs.count(None),
    }


def _revised(chunks: list[Row], result: Row | None) -> list[str]:
    if result is None or result["corrected"] or len(chunks) != 1 or not chunks[0]["answer"]:
        return []
    is_revised = (result["critique"] or {}).get("outcome") == CritiqueOutcome.REVISED
    return grounding.differences(chunks[0]["answer"], result["output"]) if is_revised else []


_TEXT = "SELECT text FROM documents WHERE id = %(document_id)s"
_ANSWER = "SELECT output, critique FROM results WHERE job_id = %(job_id)s"
_COMPLETION = """
    SELECT completion ->> 'text' AS text FROM cached_completions
    WHERE key = ANY(%(keys)s) AND completion IS NOT NULL
    ORDER BY array_position(%(keys)s, key) LIMIT 1
"""
_OF_VIOLATION = ("principle", "path", "problem")


class Reconstruction:
    """Asks the questions of a job again, as `explain` returns it, without a model.

    A question is a row with `stage`, `prompt`, `completion`, `samples` and `changes`. `prompt` is
    `None` if its template or its model is unknown here, and a completion if it is not in the cache;
    those of groups of fields follow each other. `samples` are the completions of all samples of a
    vote. `changes` are the paths at which the stored answer about a chunk differs from the
    completion: repaired JSON, corrected quotes, removed values.
    """

    def __init__(self, connection: Connection, settings: Settings, job: Row) -> None:
        """Read what the questions consist of."""
        self._connection = connection
        self._settings = settings
        self.job = job
        self._task = AnalysisTask(
            analysis_type=AnalysisType(job["analysis_type"]),
            stage=Stage.ANALYZE,
            options=options_from(job["options"]),
            examples=examples_from(
                {
                    "id": str(example["id"]),
                    "type": example["analysis_type"],
                    "text": example["text"],
                    "answer": example["answer"],
                }
                for example in job["examples"]
            ),
        )
        (document,) = rows(connection, _TEXT, job)
        self._text: str = document["text"]
        self._model: ChatModel | None = None
        with suppress(ChordwiseError):
            self._model = Models(settings).open(job["model"])

    def about_chunk(self, position: int) -> Row:
        """Return a chunk with the question about it."""
        chunk = self.job["chunks"][position]
        task, _ = about_part(self._task, Source(self._text), chunk["start_char"], chunk["end_char"])
        question = self._question(task, chunk["prompt_version"])
        parts = parts_of(self._model, task) if self._model else [task]
        completion = question["completion"] if len(parts) == 1 else None
        changes = _changes(task.analysis_type, completion, chunk["answer"])
        return {**chunk, **question, "changes": changes}

    def after_chunks(self) -> Sequence[Row]:
        """Return the synthesis, its critique and its revision, as far as they can be rendered.

        If answers were joined in several levels, only the first level is returned. A critique is
        known if its draft is: the answer that was kept, or, if it was revised, the answer of the
        only chunk.
        """
        if self._model is None:
            return []
        document = Question(model=self._model, task=self._task, source=Source(self._text))
        versions = {call["stage"]: call["prompt_version"] for call in self.job["calls"]}
        tasks: list[AnalysisTask] = []
        with suppress(ChordwiseError):
            tasks.extend(self._tasks_after_chunks(Synthesizer(document=document)))
        repeated = (task for task in tasks if task.stage in versions)
        questions = [self._question(task, versions[task.stage]) for task in repeated]
        return [question for question in questions if question["prompt"] is not None]

    def _tasks_after_chunks(self, synthesizer: Synthesizer) -> Iterator[AnalysisTask]:
        chunks = [
            EndedChunk(**{name: chunk[name] for name in COLUMNS})
            for chunk in self.job["chunks"]
            if chunk["status"] == ChunkStatus.SUCCEEDED
        ]
        answers = [answer_of(chunk) for chunk in chunks]
        joining = synthesizer.first_questions(answers)
        yield from (question.task for question in joining)
        results = rows(self._connection, _ANSWER, self.job)
        if not results or not results[0]["critique"] or len(joining) > 1:
            return
        output, critique = results[0]["output"], results[0]["critique"]
        is_revised = critique.get("outcome") == CritiqueOutcome.REVISED
        draft = chunks[0].answer if len(chunks) == 1 else None if is_revised else output
        if draft is None:
            return
        if len(chunks) > 1:
            question = joining[0] if joining else synthesizer.question_joining(answers)
        else:
            question = synthesizer.question_about(chunks[0].start_char, chunks[0].end_char)
        yield replace(question.task, stage=Stage.CRITIQUE, draft=draft)
        # PostgreSQL does not keep the order of an object's members.
        violations = tuple(
            {name: violation.get(name) for name in _OF_VIOLATION}
            for violation in json_values.objects(critique.get("violations"))
        )
        if violations:
            yield replace(question.task, stage=Stage.REVISE, draft=draft, violations=violations)

    def _question(self, task: AnalysisTask, version: str | None) -> Row:
        prompt = None
        completions: list[str | None] = [None]
        template = library.with_version(version or library.template_for(task).version, task)
        with suppress(ChordwiseError):
            if template is not None and self._model is not None:
                parts = parts_of(self._model, task)
                requests = [request_for(self._model, part, template) for part in parts]
                system = "\n\n".join(request.system for request in requests)
                prompt = Prompt(system=system, user=requests[0].user)
                votes = 1 if task.draft else task.options.votes
                texts = [[self._completion(r, 1 + vote) for r in requests] for vote in range(votes)]
                completions = ["\n\n".join(filter(None, of_vote)) or None for of_vote in texts]
        return {
            "stage": task.stage,
            "prompt": prompt,
            "completion": completions[0],
            "samples": completions if len(completions) > 1 else [],
            "changes": [],
        }

    def _completion(self, request: CompletionRequest, sample: int) -> str | None:
        request = replace(request, task=replace(request.task, sample=sample))
        names = self._settings.selected_names(self.job["model"])
        models = (self._settings.model_named(name) for name in names)
        keys = [key_of(request, answer_settings(model)) for model in models]
        cached = rows(self._connection, _COMPLETION, {"keys": keys})
        return cached[0]["text"] if cached else None


def _changes(kind: AnalysisType, completion: str | None, answer: JsonObject | None) -> list[str]:
    if completion is None or answer is None:
        return []
    try:
        parsed = analysis_for(kind).without_reasoning(validation.parse(completion).answer)
    except InvalidAnswerError as error:
        return [error.what]
    return grounding.differences(parsed, answer)
