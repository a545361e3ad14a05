"""What a run asks, and what of it decides about a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from chordwise.domain import critique
from chordwise.domain.json_values import JsonObject
from chordwise.domain.lanes import Lane
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.context import ReadingContext
from chordwise.pipeline.questions import options_to_json
from chordwise.prompts import library
from chordwise.readers.extracted import WHOLE, Columns
from chordwise.settings import Settings

PIPELINE_VERSION = 2
"""Raised whenever the same question would get another answer for reasons of our own code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run asks of every document.

    `name` is empty for one that is made up; `fresh` asks again even where an answer is stored, and
    without `use_cache` nothing that was answered before is used. The calls of a `nightly` run let
    those of others go first. In the batch `lane` its questions wait for the provider's batches,
    where a model has them. One that `follows` asks nothing that a job of another run is asking
    already, and waits for its answer. `budget_usd` is what its calls may cost, where not what the
    settings say; `columns` are how tables are read.
    """

    types: tuple[AnalysisType, ...] = (AnalysisType.SUMMARY,)
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    model: str
    name: str = ""
    fresh: bool = False
    use_cache: bool = True
    nightly: bool = False
    lane: Lane = Lane.ONLINE
    follows: bool = False
    budget_usd: Decimal | None = None
    columns: Columns = WHOLE


def answerable(settings: Settings, options: RunOptions) -> RunOptions:
    """Return the options as they hold here: with the principles of the settings for a critique.

    Where no language model is asked, without what only one can give: the built-in model would give
    the same answer in every sample of a vote, and can examine none.

    Raises:
        ConfigurationError: The model is unknown.
    """
    wanted = options.analysis
    asked = (settings.model_named(name) for name in settings.names_asked(options.model))
    if all(model.provider == EXTRACTIVE for model in asked):
        return replace(options, analysis=replace(wanted, votes=1, critique=False))
    principles = wanted.principles or settings.critique.principles
    return replace(options, analysis=replace(wanted, principles=principles))


def identity(context: ReadingContext, analysis_type: AnalysisType, options: RunOptions) -> str:
    """Return the hash of everything but the document that decides about a result."""
    task = AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=options.analysis)
    synthesis = replace(task, stage=Stage.SYNTHESIZE)
    parts: Mapping[str, object] = {
        "type": analysis_type,
        "options": options_to_json(options.analysis),
        "prompts": [
            template.version
            for each in (task, synthesis)
            for template in library.templates_for(each, context.settings.prompts.fallback)
        ],
        "models": context.models.identity(options.model),
        "chunk_tokens": context.settings.pipeline.chunk_tokens,
        "pipeline": PIPELINE_VERSION,
        **_critique(analysis_type, options.analysis),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _critique(analysis_type: AnalysisType, options: AnalysisOptions) -> dict[str, object]:
    """Return what decides about a critique, the words of the usual principles included."""
    if not options.critique:
        return {}
    prompts = [library.latest(name).version for name in (library.CRITIQUE, library.REVISION)]
    principles = critique.principles_for(analysis_type, options)
    return {"critique": prompts, "principles": list(principles)}


def to_json(options: RunOptions) -> JsonObject:
    """Return what `runs.options` keeps of them."""
    return {
        "types": [each.value for each in options.types],
        "model": options.model,
        "fresh": options.fresh,
        **options_to_json(options.analysis),
    }
