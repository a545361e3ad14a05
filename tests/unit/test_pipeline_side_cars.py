"""A side-car overrides and takes away each entry of its file's profile, and says what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import pytest

from chordwise import settings
from chordwise.domain import json_values
from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.pipeline.inbox.scan import with_side_car
from chordwise.pipeline.intake.run_options import RunOptions, run_options
from chordwise.settings import ProfileSettings

PROFILE = """
[profiles.contracts]
folder = "contracts"
types = ["extraction", "classification"]
instructions = "The fee."
labels = ["lease", "sale"]
schema = "contract.json"
save_as = "leases"
model = "house"
lane = "batch"
nightly = true
budget_usd = 2.50
confidence_threshold = 0.7
critique = true
principles = ["No guessing."]
votes = 3
text_column = "body"
id_column = "number"
"""
FEE = '{"type": "object", "properties": {"fee": {"type": "number"}}}'
RENT = FEE.replace("fee", "rent")
Asked: TypeAlias = Callable[[RunOptions], object]


def fields(options: RunOptions) -> object:
    """Return the names of what the schema asks for."""
    schema = options.analysis.schema
    return schema and list(json_values.as_object(schema["properties"]))


ENTRIES: dict[str, tuple[Asked, str, object, str, object]] = {
    "types": (
        lambda options: options.types,
        '["summary"]',
        (AnalysisType.SUMMARY,),
        "[]",
        (AnalysisType.EXTRACTION, AnalysisType.CLASSIFICATION),
    ),
    "instructions": (lambda options: options.analysis.instructions, '"x"', "x", '""', ""),
    "labels": (lambda options: options.analysis.labels, '["a", "b"]', ("a", "b"), "[]", ()),
    "schema": (fields, '"rent.json"', ["rent"], '""', None),
    "save_as": (lambda options: options.save_as, '"x"', "x", '""', ""),
    "model": (lambda options: options.model, '"other"', "other", '""', "extractive"),
    "lane": (lambda options: options.lane, '"online"', Lane.ONLINE, '"online"', Lane.ONLINE),
    "nightly": (lambda options: options.nightly, "true", True, "false", False),
    "budget_usd": (lambda options: options.budget_usd, "9", Decimal(9), '""', None),
    "confidence_threshold": (lambda o: o.analysis.confidence_threshold, "0.2", 0.2, "0", 0.0),
    "critique": (lambda options: options.analysis.critique, "true", True, "false", False),
    "principles": (lambda options: options.analysis.principles, '["y"]', ("y",), "[]", ()),
    "votes": (lambda options: options.analysis.votes, "5", 5, "1", 1),
    "text_column": (lambda options: options.columns.text, '"text"', "text", '""', ""),
    "id_column": (lambda options: options.columns.identity, '"id"', "id", '""', ""),
}


def asked(folder: Path, side_car: str, profile: str = PROFILE) -> RunOptions:
    """Return what is asked of a file of the profile with this side-car."""
    (folder / "contract.json").write_text(FEE, "utf-8")
    (folder / "rent.json").write_text(RENT, "utf-8")
    (folder / "chordwise.toml").write_text(profile, "utf-8")
    beside = folder / "a.txt.chordwise.toml"
    beside.write_text(side_car, "utf-8")
    found = settings.load(folder / "chordwise.toml")
    return run_options(found, with_side_car(found.profiles["contracts"], beside))


def test_every_entry_is_looked_at() -> None:
    """All that a profile has, but for its folder."""
    names = {field.alias or name for name, field in ProfileSettings.model_fields.items()}

    assert names - {"folder"} == ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_overridden(tmp_path: Path, name: str) -> None:
    """And nothing else is asked otherwise, but for what it leaves no sense in."""
    of, given, expected, _, _ = ENTRIES[name]

    assert of(asked(tmp_path, f"{name} = {given}")) == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_taken_away(tmp_path: Path, name: str) -> None:
    """Alone, without a contradiction to what the profile has besides."""
    of, _, _, nothing, expected = ENTRIES[name]

    assert of(asked(tmp_path, f"{name} = {nothing}")) == expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ('["summary"]', (None, ())),
        ('["extraction"]', (["fee"], ())),
        ('["classification", "summary"]', (None, ("lease", "sale"))),
        ('["extraction", "classification"]', (["fee"], ("lease", "sale"))),
    ],
)
def test_types_leave_out_what_does_not_fit_them(
    tmp_path: Path, types: str, expected: tuple[object, object]
) -> None:
    """The profile's schema is for extractions, its labels are for classifications."""
    options = asked(tmp_path, f"types = {types}")

    assert (fields(options), options.analysis.labels) == expected


def test_without_a_text_column_there_is_no_other(tmp_path: Path) -> None:
    """The file is read as a whole."""
    options = asked(tmp_path, 'text_column = ""')

    assert (options.columns.text, options.columns.identity) == ("", "")


def test_a_profile_may_say_none_as_well(tmp_path: Path) -> None:
    """An empty schema or budget is none there, too."""
    options = asked(tmp_path, "", '[profiles.contracts]\nschema = ""\nbudget_usd = ""\n')

    assert (options.types, options.budget_usd) == ((AnalysisType.SUMMARY,), None)


@pytest.mark.parametrize(
    ("side_car", "complaint", "hint"),
    [
        ('schema = "rent.json"', "schema is for extractions, and .* is sentiment", "extraction"),
        ('labels = ["a", "b"]', "labels are for classifications, and", "classification"),
        ('types = ["summary"]\nschema = "rent.json"', "what is asked for is summary", "extraction"),
        ('id_column = "a"', "reading rows", "text_column"),
        ("budget_usd = 0", "budget_usd: .* greater than 0", 'budget_usd = ""'),
        ("types = 3", "types: ", "docs/inbox.md"),
        ('types = "summary"', r'types: it wants a list, such as \["summary"\]\.', "docs/inbox.md"),
        ('typs = ["summary"]', "wrong: there is no setting typs\\.", "docs/inbox.md"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, side_car: str, complaint: str, hint: str
) -> None:
    """With a sentence that says what to change."""
    with pytest.raises(UsageError, match=complaint) as caught:
        asked(tmp_path, side_car, '[profiles.contracts]\ntypes = ["sentiment"]\n')

    assert hint in caught.value.hint
