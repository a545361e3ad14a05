"""Builds completion requests with valid defaults, so that a test only states relevant values."""

from __future__ import annotations

import io

from PIL import Image

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.llm.model import CompletionRequest

SENTIMENT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "sentiment": {"type": "string", "enum": ["positive", "negative"]},
        "reason": {"type": "string"},
    },
    "required": ["sentiment", "reason"],
    "additionalProperties": False,
}

NO_OPTIONS = AnalysisOptions()


def a_task(
    kind: AnalysisType, text: str = "", options: AnalysisOptions = NO_OPTIONS
) -> AnalysisTask:
    """Return the task of a question about a text."""
    return AnalysisTask(analysis_type=kind, stage=Stage.ANALYZE, text=text, options=options)


def a_page(number: int = 1, *, width: int = 1, height: int = 1) -> Picture:
    """Return the picture of a page: one gray pixel, with the given sizes."""
    stream = io.BytesIO()
    Image.new("L", (1, 1), 128).save(stream, "JPEG")
    return Picture(number=number, data=stream.getvalue(), width=width, height=height)


def a_request(
    *,
    user: str = "The film was a joy from the first minute.",
    system: str = "Judge the sentiment of the text.",
    schema: JsonObject | None = None,
    max_output_tokens: int = 512,
    timeout_seconds: float | None = None,
    pictures: tuple[Picture, ...] = (),
) -> CompletionRequest:
    """Return a question about the sentiment of `user`."""
    return CompletionRequest(
        task=a_task(AnalysisType.SENTIMENT, user),
        system=system,
        user=user,
        schema=SENTIMENT_SCHEMA if schema is None else schema,
        schema_name="sentiment",
        prompt_version="sentiment@1",
        max_output_tokens=max_output_tokens,
        timeout_seconds=timeout_seconds,
        pictures=pictures,
    )
