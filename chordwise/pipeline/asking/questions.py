"""From rows to questions: what a job asks of a model, and how much text fits into one question."""

from __future__ import annotations

import json
from functools import lru_cache

from chordwise.domain import json_values, tokens
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.errors import ConfigurationError
from chordwise.llm.model import ChatModel
from chordwise.pipeline.asking.requests import REPAIR_TOKENS, request_for, reserve_for_critique
from chordwise.storage.jobs import Job

_LEAST_TEXT_TOKENS = 64


def question_of(job: Job, text: str = "") -> AnalysisTask:
    """Return what the job asks of a chunk's text."""
    return AnalysisTask(
        analysis_type=AnalysisType(job.analysis_type),
        stage=Stage.ANALYZE,
        text=text,
        options=options_from(job.options),
    )


@lru_cache(maxsize=256)
def options_of(stored: str) -> AnalysisOptions:
    """Read `jobs.options` as JSON text; the chunks of a job share the answer."""
    return options_from(json_values.as_object(json.loads(stored)))


def options_from(stored: JsonObject) -> AnalysisOptions:
    """Read what `options_to_json` wrote."""
    schema = stored.get("schema")
    return AnalysisOptions(
        instructions=json_values.text(stored.get("instructions")),
        labels=tuple(json_values.strings(stored.get("labels"))),
        schema=schema if isinstance(schema, dict) else None,
        confidence_threshold=json_values.number(stored.get("confidence_threshold")) or 0.0,
        votes=int(json_values.number(stored.get("votes")) or 1),
        critique=stored.get("critique") is True,
        principles=tuple(json_values.strings(stored.get("principles"))),
    )


def options_to_json(options: AnalysisOptions) -> JsonObject:
    """Write options as they stand in `jobs.options`; what is off is left out of identities."""
    votes: JsonObject = {"votes": options.votes} if options.votes > 1 else {}
    critique: JsonObject = {"critique": True, "principles": list(options.principles)}
    return {
        "instructions": options.instructions,
        "labels": list(options.labels),
        "schema": options.schema,
        "confidence_threshold": options.confidence_threshold,
        **votes,
        **(critique if options.critique else {}),
    }


def text_budget(model: ChatModel, task: AnalysisTask, chunk_tokens: int) -> int:
    """Return how many tokens of text one question to this model may carry, repeated ones included.

    Raises:
        ConfigurationError: The prompt alone fills the model's context.
    """
    request = request_for(model, task)
    used = tokens.estimate(request.system + request.user) + REPAIR_TOKENS
    used += request.max_output_tokens + reserve_for_critique(model, task)
    room = model.profile.context_tokens - used
    if room < _LEAST_TEXT_TOKENS:
        raise ConfigurationError(
            f"The prompt and the answer fill the context of {model.profile.model} "
            f"({model.profile.context_tokens:,} tokens) without any text.",
            "Raise context_tokens or lower max_output_tokens of the model.",
        )
    return min(chunk_tokens, room)
