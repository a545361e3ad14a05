"""`chordwise certify`: answers that can be accepted without review, in command and views."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from chordwise import Client
from chordwise.domain.json_values import JsonObject, JsonValue, objects
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning.certification import Bounds, certify
from chordwise.pipeline.learning.evaluation import Scope
from chordwise.settings import Settings
from chordwise.storage.calibrations import Calibration
from tests.fakes.commands import run
from tests.fakes.learning import a_learner, extracted, written
from tests.fakes.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("addressed")
DOCUMENTS = 30
BOUNDS = ("--max-error", "10%", "--risk", "20%")
STATES = "SELECT name, verdict, accepted, population FROM certified_answers ORDER BY 1"


@pytest.fixture
def filled_by() -> Callable[[Settings], None]:
    """Fill the database with two fields of thirty documents."""
    return extract_first


def extract_first(settings: Settings) -> None:
    extract(a_learner(settings), "first", DOCUMENTS)


def extract(pipeline: Pipeline, name: str, documents: int) -> None:
    """Extract two fields from documents whose names begin so."""
    extracted(
        pipeline,
        {
            f"{name}-{place}.txt": {"party": (f"Company {place}", 9), "term": (f"{place} days", 5)}
            for place in range(documents)
        },
    )


def certified(
    capsys: pytest.CaptureFixture[str], code: ExitCode = ExitCode.SUCCESS
) -> Mapping[str, JsonObject]:
    """Certify the current results, and return what is said of each field."""
    capsys.readouterr()
    assert run(["certify", *BOUNDS, "--json"]) == code
    found = objects(json.loads(capsys.readouterr().out)["certified"])
    return {str(each["name"]): each for each in found}


def check(folder: Path, field: JsonObject, verdicts: Sequence[str]) -> None:
    """Say of the next answers of a field, in their order, whether they are right."""
    to_check = objects(field["to_check"])
    assert len(to_check) >= len(verdicts)
    said = [
        {"document": answer["source"], "path": field["name"], "verdict": verdict}
        for answer, verdict in zip(to_check, verdicts, strict=False)
    ]
    file = written(folder / "checked.jsonl", *said)
    assert run(["feedback", "--file", str(file)]) == ExitCode.SUCCESS


def accepted(pipeline: Pipeline) -> Sequence[tuple[object, ...]]:
    """Return how many facts of each field are accepted, and how many results."""
    return pipeline.rows(
        "SELECT item, count(*) FILTER (WHERE accepted) FROM fact_quotes GROUP BY 1 UNION ALL"
        " SELECT 'results', count(*) FILTER (WHERE accepted) FROM document_results ORDER BY 1"
    )


def test_checks_in_random_order_certify_a_field(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its values are marked, a result once all of its fields are, and a remark leaves the mark."""
    found = certified(capsys)
    check(tmp_path, found["party"], ["approved"] * 20)
    found = certified(capsys)
    assert pipeline.rows(STATES) == [
        ("party", "certified", DOCUMENTS, DOCUMENTS),
        ("term", "open", 0, DOCUMENTS),
    ]
    assert accepted(pipeline) == [("party", DOCUMENTS), ("results", 0), ("term", 0)]

    check(tmp_path, found["term"], ["approved"] * 20)
    assert run(["certify", *BOUNDS]) == ExitCode.SUCCESS

    assert f"{DOCUMENTS} of {DOCUMENTS}" in capsys.readouterr().out
    assert accepted(pipeline) == [("party", DOCUMENTS), ("results", DOCUMENTS), ("term", DOCUMENTS)]
    assert run(["feedback", "latest", "--document", "first-7.txt", "--approve"]) == 0
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)


def test_a_field_with_many_errors_says_how_much_must_be_reviewed(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is accepted."""
    check(tmp_path, certified(capsys)["party"], ["rejected", "approved"] * 10)

    assert run(["certify", *BOUNDS]) == ExitCode.SUCCESS

    out = capsys.readouterr().out
    assert "not possible" in out
    assert "at least 44.4% must be reviewed" in out
    assert accepted(pipeline)[0] == ("party", 0)


def test_later_answers_are_accepted_until_their_checks_show_a_drift(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then it is taken back, for the earlier ones as well, and the exit code says so."""
    check(tmp_path, certified(capsys)["party"], ["approved"] * 20)
    certified(capsys)
    extract(pipeline, "later", DOCUMENTS)

    found = certified(capsys)
    assert accepted(pipeline)[0] == ("party", 2 * DOCUMENTS)

    later = [each for each in objects(found["party"]["to_check"]) if "later" in str(each["source"])]
    check(tmp_path, {"name": "party", "to_check": list(later)}, ["rejected"] * 5)
    assert certified(capsys, ExitCode.INCOMPLETE)["party"]["later_wrong"] == 5
    assert accepted(pipeline)[0] == ("party", 0)


def test_a_withdrawal_that_is_killed_leaves_nothing_accepted(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next one withdraws the certificate, and says so."""
    check(tmp_path, certified(capsys)["party"], ["approved"] * 20)
    certified(capsys)
    extract(pipeline, "later", DOCUMENTS)
    to_check = objects(certified(capsys)["party"]["to_check"])
    later: JsonValue = [each for each in to_check if "later" in str(each["source"])]
    check(tmp_path, {"name": "party", "to_check": later}, ["rejected"] * 5)
    changes = iter([pipeline.context.database.commit])

    def killed(change: Callable[[Session], int]) -> int:
        return next(changes)(change)

    with pytest.raises(StopIteration):
        certify(pipeline.context.database, Scope(), Bounds(max_error=0.1, risk=0.2), killed)

    assert accepted(pipeline)[0] == ("party", 0)
    assert pipeline.rows(STATES)[0] == ("party", "certified", DOCUMENTS, DOCUMENTS)
    certified(capsys, ExitCode.INCOMPLETE)
    assert pipeline.rows(STATES)[0] == ("party", "withdrawn", 0, 2 * DOCUMENTS)


@pytest.mark.parametrize(("bounds", "wrong"), [(("--max-error", "1%"), 0), (BOUNDS, 5)])
def test_a_certificate_is_not_kept_for_less_than_it_says(
    bounds: Sequence[str],
    wrong: int,
    pipeline: Pipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither for a smaller error, nor where checks that it rests on became wrong."""
    found = certified(capsys)
    check(tmp_path, found["party"], ["approved"] * 20)
    certified(capsys)
    extract(pipeline, "later", DOCUMENTS)
    certified(capsys)
    assert accepted(pipeline)[0] == ("party", 2 * DOCUMENTS)

    check(tmp_path, found["party"], ["rejected"] * wrong)
    assert run(["certify", *bounds]) == ExitCode.SUCCESS

    assert accepted(pipeline)[0] == ("party", 0)


def review(monkeypatch: pytest.MonkeyPatch, keys: str, *arguments: str) -> None:
    """Work through a queue in the terminal, with a line for each answer."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in keys.split(","))))
    assert run(["review", *arguments]) == ExitCode.SUCCESS


def test_the_queue_leads_from_missing_checks_to_a_certificate(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on where it was left, with what was skipped first."""
    run_name = str(pipeline.value("SELECT name FROM runs"))
    queue = (run_name, "--queue", "party")
    assert run(["certify", "latest", *BOUNDS]) == ExitCode.SUCCESS
    assert f"  chordwise review '{run_name}' --queue party\n" in capsys.readouterr().out

    review(monkeypatch, "a,s,?,a", *queue)
    shown = capsys.readouterr()
    assert "1 of 30" in shown.out
    assert "2 reviewed, 28 left." in shown.err
    review(monkeypatch, ",".join("a" * 28), *queue)
    capsys.readouterr()
    assert run(["review", *queue, "--json"]) == ExitCode.SUCCESS
    assert json.loads(capsys.readouterr().out)["to_check"] == []

    assert run(["certify", run_name, *BOUNDS]) == ExitCode.SUCCESS
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)


def test_a_profile_is_certified_by_its_queue_until_later_checks_are_wrong(
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A correction says that the model's answer was wrong; the exit code tells of the end."""
    profile = '[profiles.deals]\ntypes = ["extraction"]\ninstructions = "party, term"\n'
    (tmp_path / "chordwise.toml").write_text(profile, "utf-8")
    certify = ["certify", "deals", *BOUNDS]
    assert run(certify) == ExitCode.SUCCESS
    review(monkeypatch, ",".join("a" * 30), "deals", "--queue", "term")
    assert run(certify) == ExitCode.SUCCESS
    assert accepted(pipeline)[2] == ("term", DOCUMENTS)

    extract(pipeline, "later", DOCUMENTS)
    assert run(certify) == ExitCode.SUCCESS
    assert accepted(pipeline)[2] == ("term", 2 * DOCUMENTS)
    review(monkeypatch, ",".join(["c,another term"] * 5), "deals", "--queue", "term")

    capsys.readouterr()
    assert run(certify) == ExitCode.INCOMPLETE
    assert "5 of 5 later checks are wrong" in capsys.readouterr().out
    assert accepted(pipeline)[2] == ("term", 0)


def test_answers_are_ranked_by_the_calibration_that_there_was_when_their_order_was_drawn(
    pipeline: Pipeline,
) -> None:
    """One that is learnt later, from these checks, changes no rank."""
    ((provider, model),) = pipeline.rows("SELECT DISTINCT provider, model FROM results")

    def calibrate(worth: float) -> None:
        points: JsonValue = [[0, 0], [1, worth]]
        learnt = Calibration(
            analysis_type="extraction",
            provider=provider,
            model=model,
            part="field",
            method="platt",
            points=points,
            judged=30,
            judged_right=20,
            error_before=0.1,
            error_after=0.1,
            max_error_rate=0.05,
        )
        with pipeline.context.database.write() as session:
            session.add(learnt)

    ranks = "SELECT name, check_from FROM certifications ORDER BY certified_at, name"
    calibrate(0.8)
    assert run(["certify", *BOUNDS]) == ExitCode.SUCCESS
    calibrate(0.5)
    assert run(["certify", *BOUNDS]) == ExitCode.SUCCESS

    drawn = [("party", pytest.approx(0.72)), ("term", pytest.approx(0.4))]
    assert pipeline.rows(ranks) == drawn * 2
    assert run(["certify", "latest", *BOUNDS]) == ExitCode.SUCCESS
    assert pipeline.rows(ranks)[4:] == [("party", pytest.approx(0.45)), ("term", 0.25)]


def test_the_client_leads_from_checks_to_a_certificate(pipeline: Pipeline) -> None:
    """By the same queue as the command."""
    with Client() as client:
        client.certify(max_error="10%", risk=0.2)
        questions = list(client.to_check("party"))
        new = [client.decide(each, "approved", author="Ada") for each in questions[:20]]
        again = client.decide(questions[0], "approved", author="Ada")
        with pytest.raises(UsageError, match="no verdict “fine”"):
            client.decide(questions[0], "fine")
        party, term = client.certify(max_error="10%", risk=0.2)
        left = list(client.to_check("party"))

    assert len(questions) == DOCUMENTS
    assert {each.value.item for each in questions if each.value} == {"party"}
    assert (all(new), again) == (True, False)
    assert (party.certificate.accepted, term.certificate.accepted) == (DOCUMENTS, 0)
    assert len(left) == DOCUMENTS - 20
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)


def test_a_queue_has_to_be_drawn_first(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that was not certified is refused, with those that were."""
    assert run(["review", "--queue", "party"]) == ExitCode.USAGE
    assert run(["certify", *BOUNDS]) == ExitCode.SUCCESS
    assert run(["review", "--queue", "penalty"]) == ExitCode.USAGE
    assert "It was for party, term." in capsys.readouterr().err
    assert pipeline.value("SELECT count(*) FROM feedback") == 0


@pytest.mark.parametrize("share", ["0", "100%", "much"])
def test_a_share_that_is_none_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read."""
    assert run(["certify", "--max-error", share]) == ExitCode.USAGE
    assert "is not a valid share" in capsys.readouterr().err
