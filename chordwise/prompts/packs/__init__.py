"""Domain packs: predefined questions for a field, as data files beside this module."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from chordwise.domain import examples, identifiers
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Example
from chordwise.domain.json_values import JsonObject
from chordwise.domain.validation import check_schema
from chordwise.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A pack: the instructions, labels, schema and examples that it adds to a run.

    `labels` has a description for each label. `types` are the analysis types if the user names
    none; `source` is the text of the file.
    """

    name: str
    title: str
    types: tuple[AnalysisType, ...]
    instructions: str
    labels: Mapping[str, str]
    schema: JsonObject
    examples: tuple[Example, ...]
    source: str


@cache
def all_packs() -> Mapping[str, Pack]:
    """Return all packs by name."""
    packs = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            content, name = file.read_text("utf-8"), file.name.removesuffix(".toml")
            table = tomllib.loads(content)
            packs[name] = Pack(
                name=name,
                title=table["title"],
                types=tuple(AnalysisType(kind) for kind in table["types"]),
                instructions=table["instructions"].strip(),
                labels=table["labels"],
                schema=check_schema(json.loads(table["schema"])),
                examples=examples.parse(table["examples"]),
                source=content,
            )
    return packs


def named(name: str) -> Pack:
    """Return the pack with this name.

    Raises:
        UsageError: It does not exist.
    """
    if name not in all_packs():
        hint = identifiers.known_names(name, all_packs())
        raise UsageError(f"There is no pack “{name}”.", hint)
    return all_packs()[name]


def completed(
    pack: Pack, user_types: Sequence[AnalysisType], options: AnalysisOptions
) -> tuple[tuple[AnalysisType, ...], AnalysisOptions]:
    """Return the user's types and options, completed by those of a pack.

    The user's types, schema, items and labels take precedence; the instructions of both apply. The
    pack's examples for an analysis type are omitted if the user gives any of the last three, which
    their answers would not match.
    """
    types = tuple(dict.fromkeys(user_types)) or pack.types
    fitting = set(types)
    added: dict[str, object] = {}
    if options.schema is not None or options.items:
        fitting.discard(AnalysisType.EXTRACTION)
    elif AnalysisType.EXTRACTION in types:
        added["schema"] = pack.schema
    if options.labels:
        fitting.discard(AnalysisType.CLASSIFICATION)
    elif AnalysisType.CLASSIFICATION in types:
        added |= {"labels": tuple(pack.labels), "label_descriptions": pack.labels}
    shown = tuple(example for example in pack.examples if example.analysis_type in fitting)
    both = "\n".join(text for text in (pack.instructions, options.instructions) if text)
    return types, replace(options, instructions=both, examples=shown, **added)  # type: ignore[arg-type]  # by their names
