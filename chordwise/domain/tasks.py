"""What a model is asked to do with a text, said in values instead of in a prompt."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from chordwise.domain import json_values, templates
from chordwise.domain.json_values import JsonObject
from chordwise.domain.templates import PromptTemplate

MAX_VOTES = 15
"""How often a question may be asked for a vote; further samples hardly change what wins."""


CONFIDENCE_THRESHOLD = 0.5
"""A person should look at an answer that claims less, where nothing else is asked for."""


class AnalysisType(StrEnum):
    """The kinds of analysis; the values stand in `jobs.analysis_type`."""

    SUMMARY = "summary"
    EXTRACTION = "extraction"
    REASONING = "reasoning"
    CLASSIFICATION = "classification"
    SENTIMENT = "sentiment"


class Stage(StrEnum):
    """Where in a job's life a model is asked; the values stand in `model_calls.stage`.

    Pages are transcribed before there is a job.
    """

    ANALYZE = "analyze"
    SYNTHESIZE = "synthesize"
    REPAIR = "repair"
    CRITIQUE = "critique"
    REVISE = "revise"
    TRANSCRIBE = "transcribe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A text with the right answer about it, in the shape that models answer in.

    `id` is that of an example learned from feedback, `None` for one that the user wrote.
    """

    analysis_type: AnalysisType
    text: str
    answer: JsonObject
    id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisOptions:
    """What the user asked for beyond the type; part of a result's identity.

    `schema` is a user's own JSON Schema for an extraction. Each question is asked as often as there
    are `votes`, and the answer that the samples agree on counts. With `critique` the answer about a
    document is examined against `principles`, or the usual ones where there are none. `templates`
    are the user's own, and go before the released ones of the same names. `label_descriptions` say
    what labels mean, by label; `answer_language` is the language that a model answers in, as a tag
    of BCP 47 such as `de`, and empty where that is left to it. `examples` are shown to it. A chunk
    has at most `chunk_tokens` of text; 0 leaves that to the settings.
    """

    instructions: str = ""
    labels: tuple[str, ...] = ()
    schema: JsonObject | None = None
    confidence_threshold: float = CONFIDENCE_THRESHOLD
    votes: int = 1
    critique: bool = False
    principles: tuple[str, ...] = ()
    templates: tuple[PromptTemplate, ...] = ()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    answer_language: str = ""
    examples: tuple[Example, ...] = ()
    chunk_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisTask:
    """One question to a model.

    `text` is the chunk for the stages analyze and repair, and empty for synthesize, where `answers`
    holds the chunks' validated answers in the order of the document. `header` is the beginning of a
    table that the text goes on with, if it does. `sample` numbers, from 1, the
    times that the same is asked for a vote. For the stages critique and revise, `draft` is the
    answer to this question that is examined, or revised where `violations` object to it.
    `is_whole` says that the text is the whole document. `examples` were learned from feedback and
    chosen for this document; they are shown after those of the options.
    """

    analysis_type: AnalysisType
    stage: Stage
    options: AnalysisOptions = field(default_factory=AnalysisOptions)
    text: str = ""
    header: str = ""
    answers: tuple[JsonObject, ...] = ()
    sample: int = 1
    draft: JsonObject | None = None
    violations: tuple[JsonObject, ...] = ()
    is_whole: bool = False
    examples: tuple[Example, ...] = ()

    @property
    def shows_examples(self) -> bool:
        """Tell whether the question is about a text; answers to be joined look otherwise."""
        return not (self.answers or self.is_critique or self.stage is Stage.SYNTHESIZE)

    @property
    def is_critique(self) -> bool:
        """Tell whether violations are asked for, be it in a repeated question."""
        is_repeated = self.draft is not None and not self.violations
        return self.stage is Stage.CRITIQUE or is_repeated


def implied_types(
    types: Sequence[AnalysisType], *, schema: bool, labels: bool
) -> tuple[AnalysisType, ...]:
    """Return the types to run, each once: where none is named, a schema or labels say which."""
    if types:
        return tuple(dict.fromkeys(types))
    implied = [AnalysisType.EXTRACTION] if schema else []
    if labels:
        implied.append(AnalysisType.CLASSIFICATION)
    return tuple(implied) or (AnalysisType.SUMMARY,)


@lru_cache(maxsize=256)
def options_of(stored: str) -> AnalysisOptions:
    """Read `jobs.options` as JSON text; the chunks of a job share what is returned."""
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
        templates=templates.from_json(stored.get("templates")),
        label_descriptions=json_values.texts(stored.get("label_descriptions")),
        answer_language=json_values.text(stored.get("answer_language")),
        examples=examples_from(json_values.objects(stored.get("examples"))),
        chunk_tokens=int(json_values.number(stored.get("chunk_tokens")) or 0),
    )


def examples_from(stored: Iterable[JsonObject]) -> tuple[Example, ...]:
    """Read examples: the `type`, `text` and `answer` of each, and the `id` of a learned one."""
    return tuple(
        Example(
            analysis_type=AnalysisType(json_values.text(each["type"])),
            text=json_values.text(each["text"]),
            answer=json_values.as_object(each["answer"]),
            id=uuid.UUID(json_values.text(each["id"])) if "id" in each else None,
        )
        for each in stored
    )


_NO_QUESTION = (
    "confidence_threshold",
    "votes",
    "critique",
    "principles",
    "templates",
    "examples",
    "chunk_tokens",
)
"""Options that say how an answer is obtained, or when it is marked, and not what is asked."""


def question_of(stored: JsonObject) -> JsonObject:
    """Return what `jobs.options` asks, however often, and whatever is done with the answer."""
    return {name: value for name, value in stored.items() if name not in _NO_QUESTION}


def options_to_json(options: AnalysisOptions) -> JsonObject:
    """Write options as they stand in `jobs.options`; what is off is left out of identities."""
    critique: JsonObject = {"critique": True, "principles": list(options.principles)}
    further: JsonObject = {
        "templates": templates.to_json(options.templates),
        "label_descriptions": dict(options.label_descriptions),
        "answer_language": options.answer_language,
        "examples": [
            {"type": each.analysis_type.value, "text": each.text, "answer": each.answer}
            for each in options.examples
        ],
        "chunk_tokens": options.chunk_tokens,
    }
    return {
        "instructions": options.instructions,
        "labels": list(options.labels),
        "schema": options.schema,
        "confidence_threshold": options.confidence_threshold,
        **({"votes": options.votes} if options.votes > 1 else {}),
        **(critique if options.critique else {}),
        **{name: value for name, value in further.items() if value},
    }
