"""The questions of a job as they were asked: prompts rendered again, completions from the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg import Connection

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisTask,
    AnalysisType,
    Stage,
    examples_from,
    options_from,
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
from chordwise.relations.relation import Row, rows
from chordwise.settings import Settings
from chordwise.storage.chunks import COLUMNS, EndedChunk, answer_of

_TEXT = "SELECT text FROM documents WHERE id = %(document_id)s"
_ANSWER = "SELECT output, critique FROM results WHERE job_id = %(job_id)s"
_COMPLETION = """
    SELECT completion ->> 'text' AS text FROM cached_completions
    WHERE key = ANY(%(keys)s) AND completion IS NOT NULL
    ORDER BY array_position(%(keys)s, key) LIMIT 1
"""
_OF_VIOLATION = ("principle", "path", "problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Asks the questions of an explained job again, without a model.

    A question is a row with `stage`, `prompt`, `completion`, `samples` and `changes`. `prompt` is
    `None` if its template or its model is unknown here, and a completion if it is not in the cache;
    those of groups of fields follow each other. `samples` are the completions of all samples of a
    vote. `changes` are the paths at which the stored answer about a chunk differs from the
    completion: repaired JSON, corrected quotes, removed values.
    """

    connection: Connection
    settings: Settings
    job: Row
    task: AnalysisTask
    text: str
    model: ChatModel | None

    @classmethod
    def of(cls, connection: Connection, settings: Settings, job: Row) -> Reconstruction:
        """Read what the questions of a job, as `explanation.explain` returns it, consist of."""
        task = AnalysisTask(
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
        model = None
        with suppress(ChordwiseError):
            model = Models(settings).open(job["model"])
        return cls(
            connection=connection,
            settings=settings,
            job=job,
            task=task,
            text=document["text"],
            model=model,
        )

    def about_chunk(self, position: int) -> Row:
        """Return a chunk with the question about it."""
        chunk = self.job["chunks"][position]
        task, _ = about_part(self.task, Source(self.text), chunk["start_char"], chunk["end_char"])
        question = self._question(task, chunk["prompt_version"])
        parts = parts_of(self.model, task) if self.model else [task]
        completion = question["completion"] if len(parts) == 1 else None
        changes = _changes(task.analysis_type, completion, chunk["answer"])
        return {**chunk, **question, "changes": changes}

    def after_chunks(self) -> Sequence[Row]:
        """Return the synthesis, its critique and its revision, as far as they can be rendered.

        If answers were joined in several levels, only the first level is returned. A critique is
        known if its draft is: the answer that was kept, or, if it was revised, the answer of the
        only chunk.
        """
        if self.model is None:
            return []
        document = Question(model=self.model, task=self.task, source=Source(self.text))
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
        results = rows(self.connection, _ANSWER, self.job)
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
            if template is not None and self.model is not None:
                parts = parts_of(self.model, task)
                requests = [request_for(self.model, part, template) for part in parts]
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
        names = self.settings.selected_names(self.job["model"])
        models = (self.settings.model_named(name) for name in names)
        keys = [key_of(request, answer_settings(model)) for model in models]
        cached = rows(self.connection, _COMPLETION, {"keys": keys})
        return cached[0]["text"] if cached else None


def _changes(kind: AnalysisType, completion: str | None, answer: JsonObject | None) -> list[str]:
    if completion is None or answer is None:
        return []
    try:
        parsed = analysis_for(kind).without_reasoning(validation.parse(completion).answer)
    except InvalidAnswerError as error:
        return [error.what]
    return grounding.differences(parsed, answer)
