"""Tests of the options of `analyze` and `submit` and how they combine."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.cli.request import RunRequest, run_options
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.states import Lane
from chordwise.errors import UsageError
from chordwise.prompts import packs
from chordwise.readers.reader_output import Columns
from chordwise.settings import ProfileSettings, Settings

SCHEMA = '{"type": "object", "properties": {"total": {"type": "number"}}}'


def a_request(*types: AnalysisType, labels: str = "", schema: Path | None = None) -> RunRequest:
    return RunRequest(paths=["x"], types=list(types), labels=labels, schema=schema)


def types_of(request: RunRequest) -> tuple[AnalysisType, ...]:
    """Return the analysis types of a request."""
    return run_options(request, Settings()).types


def options_of(request: RunRequest) -> AnalysisOptions:
    """Return the analysis options of a request."""
    return run_options(request, Settings()).analysis


def test_options_are_converted_to_entries_of_a_profile(tmp_path: Path) -> None:
    """Repeated types count once and keep their order; columns, schema and labels are included."""
    file = tmp_path / "schema.json"
    file.write_text(SCHEMA, "utf-8")
    twice = a_request(AnalysisType.SENTIMENT, AnalysisType.SUMMARY, AnalysisType.SENTIMENT)
    rows = RunRequest(paths=["x"], text_column="review", id_column="id")

    assert types_of(twice) == (AnalysisType.SENTIMENT, AnalysisType.SUMMARY)
    assert run_options(rows, Settings()).columns == Columns(text="review", identity="id")
    assert types_of(a_request(schema=file)) == (AnalysisType.EXTRACTION,)
    assert options_of(a_request(schema=file)).schema == json.loads(SCHEMA)


def test_labels_are_trimmed_and_distinct() -> None:
    request = a_request(labels=" invoice, letter,,invoice ")

    assert types_of(request) == (AnalysisType.CLASSIFICATION,)
    assert options_of(request).labels == ("invoice", "letter")


def with_profile(**changes: object) -> RunRequest:
    values = {"paths": ["x"], "profile": "letters"} | changes
    return RunRequest(**values)  # type: ignore[arg-type]  # the names are checked by the call


def test_options_override_the_entries_of_a_profile() -> None:
    """Missing options come from the profile, and missing entries from the settings."""
    letters = ProfileSettings(
        types=(AnalysisType.SENTIMENT,), instructions="tone", lane=Lane.BATCH, nightly=True, votes=5
    )
    settings = Settings(model="house", profiles={"letters": letters})

    plain = run_options(with_profile(), settings)
    voted = run_options(with_profile(votes=1), settings)
    changed = run_options(
        with_profile(types=[AnalysisType.SUMMARY], model="other", budget="2.50"), settings
    )
    unmarked = run_options(with_profile(confidence_threshold=0), settings)

    assert (plain.types, plain.analysis.instructions) == ((AnalysisType.SENTIMENT,), "tone")
    assert (plain.model, plain.lane, plain.nightly) == ("house", Lane.BATCH, True)
    assert (plain.analysis.votes, voted.analysis.votes) == (5, 1)
    assert plain.analysis.confidence_threshold is None
    assert unmarked.analysis.confidence_threshold == 0
    assert (changed.types, changed.model) == ((AnalysisType.SUMMARY,), "other")
    assert (changed.analysis.instructions, changed.budget_usd) == ("tone", Decimal("2.5"))


def test_a_missing_profile_is_named_in_the_error() -> None:
    settings = Settings(profiles={"bills": ProfileSettings()})

    with pytest.raises(UsageError, match="letters") as caught:
        run_options(with_profile(), settings)

    assert "bills" in caught.value.hint


def test_principles_imply_a_critique(tmp_path: Path) -> None:
    """Each line is a principle, without bullets; they replace those of the profile."""
    file = tmp_path / "principles.txt"
    file.write_text("- Be brief.\n\n  * Say when. \n", "utf-8")
    letters = ProfileSettings(principles=("Say who.",))
    settings = Settings(profiles={"letters": letters})

    asked = options_of(RunRequest(paths=["x"], principles=file))
    own = run_options(with_profile(), settings).analysis
    given = run_options(with_profile(principles=file), settings).analysis

    assert asked.critique is own.critique is given.critique is True
    assert asked.principles == given.principles == ("Be brief.", "Say when.")
    assert own.principles == ("Say who.",)
    assert not options_of(a_request()).critique


@pytest.mark.parametrize("text", [None, "", " - \n", "x" * 501, "Be brief.\n" * 21])
def test_missing_too_long_and_too_many_principles_are_rejected(
    text: str | None, tmp_path: Path
) -> None:
    """They are part of every critique, so they have to be few and short."""
    file = tmp_path / "principles.txt"
    if text is not None:
        file.write_text(text, "utf-8")

    with pytest.raises(UsageError, match="principles"):
        options_of(RunRequest(paths=["x"], principles=file))


def test_labels_with_descriptions_imply_a_classification(tmp_path: Path) -> None:
    """They replace the labels of a profile, which have no descriptions."""
    file = tmp_path / "kinds.txt"
    file.write_text("invoice: asks for money\nletter: anything else\n", "utf-8")
    settings = Settings(profiles={"letters": ProfileSettings(labels=("a", "b"))})
    described = {"invoice": "asks for money", "letter": "anything else"}

    alone = RunRequest(paths=["x"], labels_file=file, answer_language="de")
    asked = run_options(with_profile(labels_file=file), settings).analysis

    assert types_of(alone) == (AnalysisType.CLASSIFICATION,)
    assert options_of(alone).answer_language == "de"
    assert options_of(alone).label_descriptions == asked.label_descriptions == described
    assert asked.labels == ("invoice", "letter")


def test_a_pack_supplies_the_options_that_the_user_omits() -> None:
    settings = Settings(profiles={"letters": ProfileSettings(pack="legal")})
    support = packs.named("support")

    own = run_options(RunRequest(paths=["x"], pack="support", instructions="Briefly."), settings)
    labelled = run_options(RunRequest(paths=["x"], pack="support", labels="a,b"), settings)
    changed = run_options(with_profile(pack="support"), settings)

    assert own.types == labelled.types == changed.types == support.types
    assert own.analysis.instructions == f"{support.instructions}\nBriefly."
    assert (own.analysis.schema, own.analysis.examples) == (support.schema, support.examples)
    assert (labelled.analysis.labels, labelled.analysis.examples) == (("a", "b"), ())
    assert changed.analysis.label_descriptions == support.labels
