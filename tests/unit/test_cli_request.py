"""The options of `analyze` and `submit`, and what they mean together."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.cli.request import Request, run_options
from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisOptions, AnalysisType
from chordwise.errors import UsageError
from chordwise.prompts import packs
from chordwise.readers.extracted import Columns
from chordwise.settings import ProfileSettings, Settings

SCHEMA = '{"type": "object", "properties": {"total": {"type": "number"}}}'


def a_request(
    *types: AnalysisType, labels: str = "", schema: Path | None = None, instructions: str = ""
) -> Request:
    return Request(
        paths=["x"], types=list(types), labels=labels, schema=schema, instructions=instructions
    )


def types_of(request: Request) -> tuple[AnalysisType, ...]:
    """Return the types that a request asks for."""
    return run_options(request, Settings()).types


def options_of(request: Request) -> AnalysisOptions:
    """Return what the analyses of a request are told."""
    return run_options(request, Settings()).analysis


def test_without_a_type_it_is_a_summary() -> None:
    assert types_of(a_request()) == (AnalysisType.SUMMARY,)


def test_a_type_counts_once_and_keeps_its_place() -> None:
    twice = a_request(AnalysisType.SENTIMENT, AnalysisType.SUMMARY, AnalysisType.SENTIMENT)

    assert types_of(twice) == (AnalysisType.SENTIMENT, AnalysisType.SUMMARY)


def test_a_schema_alone_means_an_extraction(tmp_path: Path) -> None:
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


def with_profile(**changes: object) -> Request:
    values = {"paths": ["x"], "profile": "letters"} | changes
    return Request(**values)  # type: ignore[arg-type]  # the names are checked by the call


def test_options_go_before_the_entries_of_a_profile() -> None:
    """What is not given comes from the profile, what it does not say from the settings."""
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
    assert plain.analysis.confidence_threshold > unmarked.analysis.confidence_threshold == 0
    assert (changed.types, changed.model) == ((AnalysisType.SUMMARY,), "other")
    assert (changed.analysis.instructions, changed.budget_usd) == ("tone", Decimal("2.5"))


def test_a_profile_that_is_not_there_is_named() -> None:
    settings = Settings(profiles={"bills": ProfileSettings()})

    with pytest.raises(UsageError, match="letters") as caught:
        run_options(with_profile(), settings)

    assert "bills" in caught.value.hint


def test_rows_are_named_only_where_they_are_read() -> None:
    """A column of names without a column of texts is a mistake."""
    named = Request(paths=["x"], id_column="id")
    both = Request(paths=["x"], text_column="review", id_column="id")

    with pytest.raises(UsageError, match="id_column"):
        run_options(named, Settings())
    assert run_options(both, Settings()).columns == Columns(text="review", identity="id")


def test_principles_imply_a_critique(tmp_path: Path) -> None:
    """One on each line, bullets and blank lines aside; a profile's give way to them."""
    file = tmp_path / "principles.txt"
    file.write_text("- Be brief.\n\n  * Say when. \n", "utf-8")
    letters = ProfileSettings(principles=("Say who.",))
    settings = Settings(profiles={"letters": letters})

    asked = options_of(Request(paths=["x"], principles=file))
    own = run_options(with_profile(), settings).analysis
    given = run_options(with_profile(principles=file), settings).analysis

    assert asked.critique is own.critique is given.critique is True
    assert asked.principles == given.principles == ("Be brief.", "Say when.")
    assert own.principles == ("Say who.",)
    assert not options_of(a_request()).critique


@pytest.mark.parametrize("text", ["", " - \n", "x" * 501, "Be brief.\n" * 21])
def test_principles_that_are_none_too_long_or_too_many_are_refused(
    text: str, tmp_path: Path
) -> None:
    """They go into every critique, so they have to be few and short."""
    file = tmp_path / "principles.txt"
    file.write_text(text, "utf-8")

    with pytest.raises(UsageError, match="principles"):
        options_of(Request(paths=["x"], principles=file))


def test_principles_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.txt"):
        options_of(Request(paths=["x"], principles=tmp_path / "absent.txt"))


def test_labels_with_descriptions_imply_a_classification(tmp_path: Path) -> None:
    """They replace those of a profile, which are without."""
    file = tmp_path / "kinds.txt"
    file.write_text("invoice: asks for money\nletter: anything else\n", "utf-8")
    settings = Settings(profiles={"letters": ProfileSettings(labels=("a", "b"))})
    described = {"invoice": "asks for money", "letter": "anything else"}

    alone = Request(paths=["x"], labels_file=file, answer_language="de")
    asked = run_options(with_profile(labels_file=file), settings).analysis

    assert types_of(alone) == (AnalysisType.CLASSIFICATION,)
    assert options_of(alone).answer_language == "de"
    assert options_of(alone).label_descriptions == asked.label_descriptions == described
    assert asked.labels == ("invoice", "letter")
    with pytest.raises(UsageError, match="labels and a file"):
        options_of(Request(paths=["x"], labels="a,b", labels_file=file))
    with pytest.raises(UsageError, match="no tag of a language"):
        options_of(Request(paths=["x"], answer_language="klingon language"))


def test_a_pack_asks_where_the_user_does_not() -> None:
    settings = Settings(profiles={"letters": ProfileSettings(pack="legal")})
    support = packs.named("support")

    own = run_options(Request(paths=["x"], pack="support", instructions="Briefly."), settings)
    labelled = run_options(Request(paths=["x"], pack="support", labels="a,b"), settings)
    changed = run_options(with_profile(pack="support"), settings)

    assert own.types == labelled.types == changed.types == support.types
    assert own.analysis.instructions == f"{support.instructions}\nBriefly."
    assert (own.analysis.schema, own.analysis.examples) == (support.schema, support.examples)
    assert (labelled.analysis.labels, labelled.analysis.examples) == (("a", "b"), ())
    assert changed.analysis.label_descriptions == support.labels
