"""The questions to a model as values, independent of prompts."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from chordwise.domain import identifiers, json_values
from chordwise.domain.json_values import JsonObject
from chordwise.errors import UsageError
from chordwise.kinds import Kinds

if TYPE_CHECKING:
    from chordwise.domain.analysis import AnalysisDefinition

MAX_VOTES = 15
"""The maximum number of samples for a vote; further samples hardly change the result."""
_DIGITS_OF_VERSION = 12


ANALYSES: Kinds[AnalysisDefinition] = Kinds("chordwise.domain.analyses", "ANALYSIS")


class _Members(type):
    """Gives `AnalysisType` the members of an enumeration, such as `AnalysisType.SUMMARY`."""

    def __iter__(cls) -> Iterator[AnalysisType]:
        return map(AnalysisType, ANALYSES)

    def __getattr__(cls, name: str) -> AnalysisType:
        if name.lower() not in ANALYSES:
            raise AttributeError(name)
        return AnalysisType(name.lower())


class AnalysisType(str, metaclass=_Members):
    """The name of a kind of analysis; the values of `jobs.analysis_type`."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """Return the type of this name; `ValueError` if there is none."""
        if name not in ANALYSES:
            raise ValueError(f"{name!r} is not one of {', '.join(map(repr, ANALYSES))}")
        return super().__new__(cls, name)

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def analysis_type(name: str) -> AnalysisType:
    """Return the analysis type of a name that a user entered.

    Raises:
        UsageError: There is no such type.
    """
    if name not in ANALYSES:
        hint = identifiers.known_names(name, ANALYSES)
        raise UsageError(f"There is no analysis type “{name}”.", hint)
    return AnalysisType(name)


class Stage(StrEnum):
    """The stage of a job in which a model is called; the values of `model_calls.stage`.

    Pages are transcribed before there is a job; plans of questions over tables belong to none.
    """

    ANALYZE = "analyze"
    SYNTHESIZE = "synthesize"
    REPAIR = "repair"
    CRITIQUE = "critique"
    REVISE = "revise"
    TRANSCRIBE = "transcribe"
    PLAN = "plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A template of a prompt; `name` is the analysis type and the stage, joined by a dot.

    `system` is common to all questions of a run, so that providers can cache it; `user` holds the
    text. A released template has a `number`, a user's own one a `variant`, by which it is chosen.
    """

    name: str
    number: int = 0
    variant: str = ""
    system: str
    user: str

    @property
    def title(self) -> str:
        """Return the file name without its extension: `name@number` or `name@variant`."""
        return f"{self.name}@{self.variant or self.number}"

    @property
    def version(self) -> str:
        """Return the value of `prompt_version`; that of a user's own template includes its hash."""
        return f"{self.title}-{self.sha256[:_DIGITS_OF_VERSION]}" if self.variant else self.title

    @property
    def sha256(self) -> str:
        """Return the hash that distinguishes a changed template from a released one."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A text with its right answer as a model gives it; `id` is that of a learned example."""

    analysis_type: Annotated[AnalysisType, Field(alias="type")]
    text: str
    answer: JsonObject
    id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisOptions:
    """The entries of a profile that are part of the identity of an answer, with their files read.

    Values whose claimed confidence is below the `confidence_threshold`, if any, need review.
    Without `items`, the instructions are those of an extraction. With `critique` the answer about a
    document is checked against `principles`, or the default ones. `templates` of the user take
    precedence over released ones of the same names.
    """

    instructions: str = ""
    items: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    schema: JsonObject | None = None
    confidence_threshold: float | None = None
    votes: int = 1
    critique: bool = False
    principles: tuple[str, ...] = ()
    templates: tuple[PromptTemplate, ...] = ()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    answer_language: str = ""
    examples: tuple[Example, ...] = ()
    chunk_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisTask:
    """One question to a model.

    `text` is the chunk for the stages analyze and repair. It is empty for synthesize, where
    `answers` holds the answers of the chunks in order. `header` is that of a table that the text
    continues. `sample` counts the repetitions of a vote from 1. `draft` is the answer that is
    criticized, or revised according to `violations`. `examples` were learned from feedback.
    `lists_elsewhere` is set if the records of the text may be rows of another question's lists.
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
    lists_elsewhere: bool = False

    @property
    def is_about_text(self) -> bool:
        """Return whether the question is about a text alone, not about answers or a draft."""
        has_answers = self.answers or self.draft is not None
        return not (has_answers or self.stage is Stage.SYNTHESIZE)

    @property
    def shows_examples(self) -> bool:
        """Return whether examples apply: the question is about a text, not about answers."""
        return not (self.answers or self.is_critique or self.stage is Stage.SYNTHESIZE)

    @property
    def is_critique(self) -> bool:
        """Return whether the question asks for violations, including a repeated question."""
        is_repeated = self.draft is not None and not self.violations
        return self.stage is Stage.CRITIQUE or is_repeated


def implied_types(
    types: Sequence[AnalysisType], *, schema: bool, labels: bool
) -> tuple[AnalysisType, ...]:
    """Return the types to run, each once; if none is named, those implied by schema and labels."""
    if types:
        return tuple(dict.fromkeys(types))
    implied = [AnalysisType.EXTRACTION] if schema else []
    if labels:
        implied.append(AnalysisType.CLASSIFICATION)
    return tuple(implied) or (AnalysisType.SUMMARY,)


def options_for(
    kind: AnalysisType, types: Collection[AnalysisType], options: AnalysisOptions
) -> AnalysisOptions:
    """Return what an answer of one type depends on, of the options of a request for several types.

    The instructions are the items of an extraction without a schema and `items`, and then belong to
    it alone; otherwise they are guidance for all types.
    """
    extracts, classifies = kind == AnalysisType.EXTRACTION, kind == AnalysisType.CLASSIFICATION
    have_items = AnalysisType.EXTRACTION in types and not (options.schema or options.items)
    return replace(
        options,
        instructions="" if have_items and not extracts else options.instructions,
        labels=options.labels if classifies else (),
        label_descriptions=options.label_descriptions if classifies else {},
        items=options.items if extracts else (),
        schema=options.schema if extracts else None,
        examples=tuple(example for example in options.examples if example.analysis_type == kind),
        principles=options.principles if options.critique else (),
    )


@lru_cache(maxsize=256)
def options_of(stored: str) -> AnalysisOptions:
    """Parse `jobs.options` from JSON text; the result is cached for the chunks of a job."""
    return options_from(json_values.as_object(json.loads(stored)))


_OPTIONS = TypeAdapter(AnalysisOptions)
_EXAMPLES = TypeAdapter(tuple[Example, ...])


def options_from(stored: JsonObject) -> AnalysisOptions:
    """Parse the output of `options_to_json`."""
    return _OPTIONS.validate_python(stored)


def examples_from(stored: Iterable[JsonObject]) -> tuple[Example, ...]:
    """Parse examples: the `type`, `text` and `answer` of each, and the `id` of a learned one."""
    return _EXAMPLES.validate_python(tuple(stored))


_NO_QUESTION = (
    *("confidence_threshold", "votes", "critique", "principles"),
    *("templates", "examples", "chunk_tokens"),
)
"""The options that control how a question is answered or marked, and are not part of it."""


def question_of(stored: JsonObject) -> JsonObject:
    """Return the part of `jobs.options` that defines the question, without how it is answered."""
    return {name: value for name, value in stored.items() if name not in _NO_QUESTION}


def options_to_json(options: AnalysisOptions) -> JsonObject:
    """Convert options to the JSON of `jobs.options`, without those that have their default."""
    stored: JsonObject = _OPTIONS.dump_python(
        options, mode="json", by_alias=True, exclude_defaults=True
    )
    return stored
