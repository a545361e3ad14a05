"""The options of `analyze` and `submit`, and what they mean together."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.cli.asking import Request, options_of, types_of
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError

SCHEMA = '{"type": "object", "properties": {"total": {"type": "number"}}}'


def a_request(
    *types: AnalysisType, labels: str = "", schema: Path | None = None, instructions: str = ""
) -> Request:
    """Return a request with what a test cares for."""
    return Request(
        paths=["x"], types=types, labels=labels, schema=schema, instructions=instructions
    )


def test_without_a_type_it_is_a_summary() -> None:
    """The default of the command."""
    assert types_of(a_request()) == (AnalysisType.SUMMARY,)


def test_a_type_counts_once_and_keeps_its_place() -> None:
    """Repeating a type does not analyze twice."""
    twice = a_request(AnalysisType.SENTIMENT, AnalysisType.SUMMARY, AnalysisType.SENTIMENT)

    assert types_of(twice) == (AnalysisType.SENTIMENT, AnalysisType.SUMMARY)


def test_a_schema_alone_means_an_extraction(tmp_path: Path) -> None:
    """It makes sense with nothing else."""
    file = tmp_path / "schema.json"
    file.write_text(SCHEMA, "utf-8")

    request = a_request(schema=file)

    assert types_of(request) == (AnalysisType.EXTRACTION,)
    assert options_of(request).schema == {
        "type": "object",
        "properties": {"total": {"type": "number"}},
    }


def test_labels_are_trimmed_and_distinct() -> None:
    """Blanks and repetitions in the list do no harm."""
    request = a_request(labels=" invoice, letter,,invoice ")

    assert types_of(request) == (AnalysisType.CLASSIFICATION,)
    assert options_of(request).labels == ("invoice", "letter")


@pytest.mark.parametrize(
    "request_",
    [
        a_request(AnalysisType.SUMMARY, labels="a,b"),
        a_request(AnalysisType.SUMMARY, schema=Path("any.json")),
        a_request(labels="only"),
        a_request(schema=Path("absent.json")),
    ],
)
def test_options_that_make_no_sense_are_refused(request_: Request) -> None:
    """An option for another type, one single label, a schema that is not there."""
    with pytest.raises(UsageError):
        options_of(request_)


@pytest.mark.parametrize("text", ["{", '"text"', "[1]", '{"type": "object", "properties": 5}'])
def test_a_schema_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    """Neither broken JSON nor anything but a schema of an object gets to a model."""
    file = tmp_path / "schema.json"
    file.write_text(text, "utf-8")

    with pytest.raises(UsageError):
        options_of(a_request(schema=file))
