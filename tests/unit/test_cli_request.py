"""Tests of the options of `analyze` and `submit` and how they combine."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from chordwise.cli.request import profile_of
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.states import Lane
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunOptions, requested
from chordwise.prompts import packs
from chordwise.readers.reader_output import Columns
from chordwise.settings import Profile, Settings

SCHEMA = '{"type": "object", "properties": {"total": {"type": "number"}}}'


def of_flags(profile: str = "", settings: Settings | None = None, **flags: object) -> RunOptions:
    return requested(settings or Settings(), profile_of(flags), {"profile": profile})


@pytest.mark.parametrize("option", ["items", "labels", "instructions", "save_as"])
@pytest.mark.parametrize("text", ["", " , ;"])
def test_an_empty_option_does_not_ask_another_question(option: str, text: str) -> None:
    with pytest.raises(UsageError, match="is empty"):
        profile_of({option: text})


def test_options_are_converted_to_entries_of_a_profile(tmp_path: Path) -> None:
    """Repeated types and labels count once and keep their order."""
    file = tmp_path / "schema.json"
    file.write_text(SCHEMA, "utf-8")
    twice = [AnalysisType.SENTIMENT, AnalysisType.SUMMARY, AnalysisType.SENTIMENT]

    labelled, structured = of_flags(labels=" invoice, letter,,invoice "), of_flags(schema_file=file)

    assert of_flags(types=twice).types == (AnalysisType.SENTIMENT, AnalysisType.SUMMARY)
    rows = of_flags(text_column="review", id_column="id")
    assert rows.columns == Columns(text="review", identity="id")
    assert structured.types == (AnalysisType.EXTRACTION,)
    assert structured.analysis.schema == json.loads(SCHEMA)
    assert labelled.types == (AnalysisType.CLASSIFICATION,)
    assert labelled.analysis.labels == ("invoice", "letter")


def test_options_override_the_entries_of_a_profile() -> None:
    """Missing options come from the profile, and missing entries from the settings."""
    letters = Profile(
        types=["sentiment"], instructions="tone", lane="batch", nightly=True, votes=5, schema=None
    )
    settings = Settings(model="house", profiles={"letters": letters})

    plain = of_flags("letters", settings, model="")
    voted = of_flags("letters", settings, votes=1)
    changed = of_flags(
        "letters", settings, types=[AnalysisType.SUMMARY], model="other", budget_usd="$2.50"
    )
    unmarked = of_flags("letters", settings, confidence_threshold=0.0)

    assert (plain.types, plain.analysis.instructions) == ((AnalysisType.SENTIMENT,), "tone")
    assert (plain.model, plain.lane, plain.nightly) == ("house", Lane.BATCH, True)
    assert (plain.analysis.votes, voted.analysis.votes) == (5, 1)
    assert plain.analysis.confidence_threshold is None
    assert unmarked.analysis.confidence_threshold == 0
    assert (changed.types, changed.model) == ((AnalysisType.SUMMARY,), "other")
    assert (changed.analysis.instructions, changed.budget_usd) == ("tone", Decimal("2.5"))


def test_principles_imply_a_critique(tmp_path: Path) -> None:
    """Each line is a principle, without bullets; they replace those of the profile."""
    file = tmp_path / "principles.txt"
    file.write_text("- Be brief.\n\n  * Say when. \n", "utf-8")
    settings = Settings(profiles={"letters": Profile(principles=["Say who."])})

    by_flag = of_flags(principles=file).analysis
    by_profile = of_flags("letters", settings).analysis
    by_both = of_flags("letters", settings, principles=file).analysis

    assert by_flag.critique is by_profile.critique is by_both.critique is True
    assert by_flag.principles == by_both.principles == ("Be brief.", "Say when.")
    assert by_profile.principles == ("Say who.",)
    assert not of_flags().analysis.critique


@pytest.mark.parametrize("text", [None, "", " - \n", "x" * 501, "Be brief.\n" * 21])
def test_missing_long_and_many_principles_are_rejected(text: str | None, tmp_path: Path) -> None:
    """They are part of every critique, so they have to be few and short."""
    file = tmp_path / "principles.txt"
    if text is not None:
        file.write_text(text, "utf-8")

    with pytest.raises(UsageError, match="principles"):
        of_flags(principles=file)


def test_labels_with_descriptions_imply_a_classification(tmp_path: Path) -> None:
    """They replace the labels of a profile, which have no descriptions."""
    file = tmp_path / "kinds.txt"
    file.write_text("invoice: asks for money\nletter: anything else\n", "utf-8")
    settings = Settings(profiles={"letters": Profile(labels=["a", "b"])})
    described = {"invoice": "asks for money", "letter": "anything else"}

    alone = of_flags(labels_file=file, answer_language="de")
    by_flag = of_flags("letters", settings, labels_file=file).analysis
    inline = requested(settings, Profile(labels=described), {"profile": "letters"}).analysis

    assert alone.types == (AnalysisType.CLASSIFICATION,)
    assert alone.analysis.answer_language == "de"
    assert alone.analysis.label_descriptions == by_flag.label_descriptions == described
    assert by_flag.labels == ("invoice", "letter")
    assert inline == by_flag


def test_a_pack_supplies_the_options_that_the_user_omits() -> None:
    settings = Settings(profiles={"letters": Profile(pack="legal")})
    support = packs.named("support")

    instructed = of_flags(pack="support", instructions="Briefly.")
    labelled = of_flags(pack="support", labels="a,b")
    changed = of_flags("letters", settings, pack="support")

    assert instructed.types == labelled.types == changed.types == support.types
    assert instructed.analysis.instructions == f"{support.instructions}\nBriefly."
    assert (instructed.analysis.schema, instructed.analysis.examples) == (
        support.schema,
        support.examples,
    )
    assert (labelled.analysis.labels, labelled.analysis.examples) == (("a", "b"), ())
    assert changed.analysis.label_descriptions == support.labels


def test_a_misspelled_option_is_refused() -> None:
    """A type checker finds it too: `make types` fails if it does not."""
    with pytest.raises(ValidationError, match="typs"):
        Profile(typs=["summary"])  # type: ignore[call-arg]  # the mistake
    with pytest.raises(ValidationError, match="votes"):
        Profile(votes="many")
    assert Profile(schema={"type": "object"}, lane="batch", budget_usd=2.5).lane is Lane.BATCH
    with pytest.raises(UsageError, match="letters") as caught:
        of_flags("letters", Settings(profiles={"bills": Profile()}))
    assert "bills" in caught.value.hint
