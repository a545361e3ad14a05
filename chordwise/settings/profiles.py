"""Profiles: the options of a question, each declared once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import (
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from chordwise.domain.analysis_tasks import MAX_VOTES, AnalysisType
from chordwise.domain.flags import BUDGET, MODEL, Option
from chordwise.domain.inbox import is_inside
from chordwise.domain.items import TYPES
from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import Lane
from chordwise.errors import UsageError
from chordwise.remote import path_of
from chordwise.settings.sections import CapUsd, Principles, Section, problems


def _or_mapping(value: object, validated: ValidatorFunctionWrapHandler) -> object:
    return dict(value) if isinstance(value, Mapping) else validated(value)


def _or_meanings(value: object, validated: ValidatorFunctionWrapHandler) -> object:
    is_text = isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())
    return _or_mapping(value, validated) if is_text else validated(value)


if TYPE_CHECKING:  # what a program may pass for an option; it is converted
    File: TypeAlias = str | PathLike[str]
    Items: TypeAlias = Sequence[str]
    Labels: TypeAlias = Collection[str]  # also a mapping, from labels to their meanings
    Texts: TypeAlias = Sequence[str]
    Types: TypeAlias = Sequence[AnalysisType | str]
    SchemaOrFile: TypeAlias = File | Mapping[str, JsonValue]
    LaneName: TypeAlias = Lane | Literal["online", "batch"]
    Dollars: TypeAlias = Decimal | float | str
else:
    _AS_IT_IS = PlainSerializer(lambda value: value)
    File, Texts, LaneName, Dollars = Path, Principles, Lane, CapUsd
    Items = tuple[str, ...]
    Labels = Annotated[tuple[str, ...], WrapValidator(_or_meanings), _AS_IT_IS]
    Types = tuple[AnalysisType, ...]
    SchemaOrFile = Annotated[Path, WrapValidator(_or_mapping), _AS_IT_IS]


class Profile(Section):
    """The options of a question: a table `[profiles.NAME]`, a side-car, flags, a call's argument.

    An entry with an `Option` has a flag. `RunOptions` and `AnalysisOptions` keep the entries that
    they have under the same name: those of the second are part of the identity of an answer.
    """

    folder: File | None = Field(
        default=None, description="Relative to an inbox, or absolute; unset: the profile's name."
    )
    pack: Annotated[str, Option("Use a question pack: legal, financial, …", "NAME")] = ""
    types: Annotated[
        Types, Option("Analysis type; may be repeated. Default: summary.", flags=("--type", "-t"))
    ] = ()
    instructions: Annotated[
        str, Option("What to focus on; for an extraction, the items to find.", "TEXT")
    ] = ""
    items: Annotated[
        Items, Option(f"Items of an extraction; TYPE: {', '.join(TYPES)}.", "NAME:TYPE,NAME")
    ] = ()
    schema_file: Annotated[
        SchemaOrFile | None, Option("JSON Schema of an extraction.", "FILE.json")
    ] = Field(default=None, alias="schema")
    labels: Annotated[Labels, Option("Labels of a classification.", "A,B,C")] = ()
    labels_file: Annotated[File | None, Option("File of labels with their meanings.", "FILE")] = (
        None
    )
    answer_language: Annotated[str, Option("Language of the answers, such as de.", "TAG")] = ""
    prompt: Annotated[str, Option("Variant of the prompt templates in prompts.folder.", "NAME")] = (
        ""
    )
    text_column: Annotated[
        str, Option("Text column: each row of CSV, JSONL, XLSX is a document.", "NAME")
    ] = ""
    id_column: Annotated[
        str, Option("Column with the name of each row. Default: row numbers.", "NAME")
    ] = ""
    model: Annotated[str, MODEL] = ""
    save_as: Annotated[
        str, Option("Provide the answers as the SQL table answers.NAME.", "NAME")
    ] = ""
    family: Annotated[
        str, Option("Item that a base and its amendments share, such as a file number.", "NAME")
    ] = ""
    nightly: Annotated[bool, Option("Give the calls of other runs priority.")] = False
    lane: Annotated[LaneName, Option("batch: half the price, within a day. Default: online.")] = (
        Lane.ONLINE
    )
    confidence_threshold: Annotated[
        float | None,
        Option("Mark values whose claimed confidence is below this for review.", "0…1"),
        Field(ge=0, le=1),
    ] = None
    votes: Annotated[
        int,
        Option("Ask each question N times and take the majority.", "N"),
        Field(ge=1, le=MAX_VOTES),
    ] = 1
    critique: Annotated[bool, Option("Let the model check its answer and revise it once.")] = False
    principles: Annotated[
        Texts, Option("Principles for --critique, one on each line.", "FILE")
    ] = ()
    budget_usd: Annotated[Dollars | None, BUDGET] = None
    learned_examples: Annotated[
        bool, Option("Use corrected answers of the profile as examples.")
    ] = True
    examples_file: File | None = Field(default=None, alias="examples")
    chunk_tokens: PositiveInt | None = None
    keep_days: PositiveFloat | None = Field(
        default=None, description="Then `chordwise forget --expired` erases its documents."
    )
    readers: Items | None = Field(
        default=None, description="Only they and operators may read its answers; unset: everyone."
    )

    @field_validator(
        *("schema_file", "labels_file", "examples_file"),
        *("budget_usd", "chunk_tokens", "confidence_threshold"),
        mode="before",
    )
    @classmethod
    def unset(cls, value: object) -> object:
        """Treat an empty text as unset, so that a side-car can remove an entry of its profile."""
        return None if value == "" else value

    def over(self, base: Profile) -> Profile:
        """Return a profile overridden by the entries that are set here.

        Entries of the profile are dropped if they belong to an analysis type that is not requested
        here, to examples or labels that are replaced, or to reading rows or a critique that is
        disabled here.
        """
        entries = {name: getattr(self, name) for name in self.model_fields_set}
        dropped = [name for name, kind in OF_TYPES.items() if self.types and kind not in self.types]
        if not {"schema_file", "items", "labels", "labels_file"}.isdisjoint(entries):
            dropped.append("examples_file")
        if self.items:
            dropped.append("schema_file")
        if self.schema_file:
            dropped.append("items")
        if self.labels or self.labels_file:
            dropped += ["labels", "labels_file"]
        if not entries.get("text_column", "kept"):
            dropped.append("id_column")
        if entries.get("critique") is False:
            dropped.append("principles")
        defaults = {name: Profile.model_fields[name].default for name in dropped}
        return base.model_copy(update=defaults | entries)


def checked_profile(entries: Mapping[str, object]) -> Profile:
    """Return a profile with these entries, by their names in a program.

    Raises:
        UsageError: An entry is unknown or invalid.
    """
    try:
        return Profile.model_validate(entries, by_name=True)
    except ValidationError as error:
        raise UsageError(f"Invalid options: {'; '.join(problems(error))}.") from error


OF_TYPES = {
    "items": AnalysisType.EXTRACTION,
    "schema_file": AnalysisType.EXTRACTION,
    "labels": AnalysisType.CLASSIFICATION,
    "labels_file": AnalysisType.CLASSIFICATION,
}
"""The entries of a profile that only one analysis type uses."""


def folders_of(name: str, profile: Profile, inboxes: Iterable[Path]) -> tuple[Path, ...]:
    """Return the folders of a profile: its absolute folder, or one in each inbox.

    Raises:
        ValueError: The folder is outside the inboxes.
    """
    folder = path_of(Path(profile.folder or name)).expanduser()
    if folder.is_absolute():
        return (folder,)
    if not is_inside(folder / "file"):
        raise ValueError(f"profiles.{name}.folder is outside the inbox: {folder}")
    return tuple(inbox / folder for inbox in inboxes)
