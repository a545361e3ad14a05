"""The options of an analysis as they are stored in `jobs.options`."""

from __future__ import annotations

import json
from functools import lru_cache

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions


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
