"""Gold files: what is known to be true of documents, written down beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.remarks import parsed
from chordwise.domain.learning.truths import LABEL_PATHS, Truth
from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.learning import records
from chordwise.pipeline.learning.records import RecordFile

_WHOLE = ("label", "summary")
_OWN = ("document", "fields", *_WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """The truth by the names of documents, in the order of the file."""

    name: str
    sha256: str
    truths: Mapping[str, Truth]

    def names_of(self, kind: AnalysisType) -> Sequence[str]:
        """Return the documents of which the file says something for this analysis type."""
        return [name for name, truth in self.truths.items() if says(truth, kind)]


def says(truth: Truth, kind: AnalysisType) -> bool:
    """Tell whether a truth of a gold file is about an analysis type."""
    if kind in LABEL_PATHS:
        return truth.label is not None
    if kind is AnalysisType.EXTRACTION:
        return bool(truth.fields)
    return kind is AnalysisType.SUMMARY and truth.reference is not None


def read(path: Path) -> Gold:
    """Read a gold file.

    Raises:
        UsageError: It cannot be read, says nothing, or names a document twice.
    """
    file = records.read(path)
    truths: dict[str, Truth] = {}
    for line, record in file.records:
        name = json_values.text(record.get("document")).strip()
        if not name:
            raise file.wrong(line, "there is no “document”.")
        if name in truths:
            raise file.wrong(line, f"“{name}” was there before.")
        truths[name] = _truth(file, line, record)
    if not truths:
        raise file.wrong(1, "nothing is in it.")
    return Gold(name=path.name, sha256=file.sha256, truths=truths)


def _truth(file: RecordFile, line: int, record: JsonObject) -> Truth:
    label, reference = record.get("label"), record.get("summary")
    fields = _fields(file, line, record)
    for name, value in (("label", label), ("summary", reference)):
        if value is not None and not isinstance(value, str):
            raise file.wrong(line, f"“{name}” is no text.")
    truth = Truth(
        label=json_values.text(label).strip() or None,
        reference=json_values.text(reference).strip() or None,
        fields=fields,
    )
    if not any(says(truth, kind) for kind in AnalysisType):
        raise file.wrong(line, "it says neither label nor fields nor summary.")
    return truth


def _fields(file: RecordFile, line: int, record: JsonObject) -> Mapping[str, JsonValue]:
    """Return the fields: of CSV all columns, unless there is one for a label or a summary.

    An empty cell says that there is no value.
    """
    if file.is_csv:
        is_other = not record.keys().isdisjoint(_WHOLE)
        others = {} if is_other else {n: v for n, v in record.items() if n not in _OWN}
        return {name: parsed(json_values.text(value)) for name, value in others.items()}
    if unknown := sorted(record.keys() - set(_OWN)):
        raise file.wrong(line, f"“{unknown[0]}” is none of {', '.join(_OWN)}.")
    fields = record.get("fields", {})
    if not isinstance(fields, dict) or "" in fields:
        raise file.wrong(line, "“fields” is no object with names.")
    return fields
