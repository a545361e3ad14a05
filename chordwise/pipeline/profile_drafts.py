"""Drafts of profiles: their items, proposed by a model or taken from a pack, as commented TOML."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from chordwise.domain import items, json_values, schemas
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.items import ColumnKind
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.llm.model import ChatModel
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer
from chordwise.prompts import packs

_MAX_ITEMS = 12
_MAX_CHARACTERS = 20_000
_REQUEST = """
Propose the fields of a table with a row for each document of this kind, the most important first.
Name what every such document may state (annual fee), not the value in this one (5,000 EUR).
"""
_PROPOSAL = schemas.closed(
    {
        "name": schemas.string("Two or three words: annual fee."),
        "type": schemas.one_of(tuple(items.TYPES)),
    }
)
_PROPOSALS = schemas.closed({"fields": {**schemas.array(_PROPOSAL), "x-selection": True}})
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NO_PART_OF_NAME = re.compile(r"[\s:;,()_]+")


def proposed(model: ChatModel, texts: Sequence[str]) -> Sequence[str]:
    """Return the items that a model proposes for documents, those of most documents first.

    Raises:
        ModelError: The model returned no usable answer.
    """
    analyzer = DocumentAnalyzer(model)
    counts: Counter[str] = Counter()
    types: dict[str, str] = {}
    for text in texts:
        answer = analyzer.analyze_document(
            AnalysisRequest(
                text=text[:_MAX_CHARACTERS],
                analysis_type=AnalysisType.EXTRACTION,
                schema=_PROPOSALS,
                specific_instructions=_REQUEST,
            )
        )
        for field in json_values.objects(json_values.at(answer.output, "/data/fields")):
            name = _NO_PART_OF_NAME.sub(" ", json_values.text(field.get("name"))).strip().lower()
            types.setdefault(name, json_values.text(field.get("type")))
            counts[name] += 1
    return [f"{name}: {types[name]}" for name, _ in counts.most_common(_MAX_ITEMS) if name]


def of_pack(name: str) -> Sequence[str]:
    """Return the fields of a pack as items.

    Raises:
        UsageError: There is no such pack.
    """
    root = SchemaNode.root_of(packs.named(name).schema)
    return [_item(member, root.member(member)) for member in root.properties]


def _item(member: str, node: SchemaNode) -> str:
    name = member.replace("_", " ")
    types = node.types - {"null"}
    if node.is_list:
        return f"{name}: list"
    if types == {"boolean"}:
        return f"{name}: yes/no"
    is_number = bool(types) and types <= {"integer", "number"}
    if is_number and items.kind_of(name) is not ColumnKind.MONEY:
        return f"{name}: number"
    return name


def toml(name: str, listed: Sequence[str], pack: str = "") -> str:
    """Return a settings file with a profile that asks for items, or for those of a pack."""
    return "".join(f"{line}\n" for line in _lines(name, listed, pack))


def _lines(name: str, listed: Sequence[str], pack: str) -> Iterator[str]:
    key = name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    yield "# All entries: docs/configuration.md#profiles"
    yield f"[profiles.{key}]"
    if pack:
        yield f'pack = "{pack}"  # its question, labels and examples'
        yield "# Its fields; remove the # to ask for these or your own instead."
    else:
        yield 'types = ["extraction"]'
    yield f"# A column for each item. Types after the name: {', '.join(items.TYPES)}."
    mark = "# " if pack else ""
    yield f"{mark}items = ["
    yield from (f"{mark}    {json.dumps(item, ensure_ascii=False)}," for item in listed)
    yield f"{mark}]"
    yield '# instructions = "Look into the annexes, too."  # guidance for the model'
    yield '# model = "openai/gpt-5-mini"  # default: the model of the settings'
    yield "# budget_usd = 5  # maximum cost of a run, which then pauses"
