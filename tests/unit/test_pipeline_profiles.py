"""Profiles become the options of a run, or say what is wrong with them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import run_options
from chordwise.readers.extracted import Columns
from chordwise.settings import ProfileSettings, Settings


def test_a_profile_says_everything_that_a_run_asks(tmp_path: Path) -> None:
    """Each entry reaches the options; the schema is read."""
    schema = tmp_path / "contract.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"fee": {"type": "number"}}}))
    profile = ProfileSettings.model_validate(
        {
            "schema": schema,
            "instructions": " the fee ",
            "model": "house",
            "lane": "batch",
            "nightly": True,
            "budget_usd": "2.50",
            "confidence_threshold": 0.7,
            "text_column": "body",
            "id_column": "number",
        }
    )

    options = run_options(Settings(), profile, "tonight")

    assert options.types == (AnalysisType.EXTRACTION,)
    assert options.analysis.instructions == "the fee"
    assert options.analysis.schema is not None
    assert "fee" in json.dumps(options.analysis.schema)
    assert options.analysis.confidence_threshold == 0.7
    assert (options.model, options.name, options.nightly) == ("house", "tonight", True)
    assert options.columns == Columns(text="body", identity="number")
    assert (options.lane, options.budget_usd) == (Lane.BATCH, Decimal("2.50"))


def test_an_empty_profile_is_a_summary_by_the_usual_model() -> None:
    """What is not said is as on the command line."""
    options = run_options(Settings(model="house"), ProfileSettings())

    assert options.types == (AnalysisType.SUMMARY,)
    assert (options.model, options.lane, options.budget_usd) == ("house", Lane.ONLINE, None)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"types": ["summary"], "schema": "contract.json"}, "for extractions"),
        ({"types": ["summary"], "labels": ["a", "b"]}, "for classifications"),
        ({"labels": ["only"]}, "two labels"),
        ({"id_column": "number"}, "reading rows"),
        ({"schema": "there-is-none.json"}, "cannot be read"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(
    entries: dict[str, object], complaint: str
) -> None:
    """With a sentence about what is wrong."""
    profile = ProfileSettings.model_validate(entries)

    with pytest.raises(UsageError, match=complaint):
        run_options(Settings(), profile)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "Put the file there, or name another schema."),
        ("{", "Correct the file, or name another schema."),
        ('{"type": "object", "required": 7}', "Correct {schema}, or name another schema."),
        ('{"type": "array"}', 'Its root needs "type": "object".'),
    ],
)
def test_a_schema_that_cannot_be_used_has_a_hint(
    tmp_path: Path, content: str | None, hint: str
) -> None:
    """Whatever is wrong with it: missing, no JSON, no schema, or none of an object."""
    schema = tmp_path / "contract.json"
    if content is not None:
        schema.write_text(content, "utf-8")

    with pytest.raises(UsageError) as caught:
        run_options(Settings(), ProfileSettings.model_validate({"schema": schema}))

    assert caught.value.hint == hint.replace("{schema}", str(schema))
