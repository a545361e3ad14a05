"""Tests of `chordwise certify`: answers accepted without review, in command and views."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from chordwise import Client
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue, as_object, objects
from chordwise.domain.learning import certification as domain
from chordwise.domain.learning.statistics import Points
from chordwise.errors import ExitCode, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.learning import certification
from chordwise.pipeline.learning.certification import Bounds, certify
from chordwise.pipeline.learning.scope import Scope
from chordwise.relations.relation import Row
from chordwise.settings import Profile, Settings
from chordwise.storage import calibrations, pruning
from chordwise.storage.calibrations import Calibration, Key
from tests.fakes.commands import Output, output_of, run
from tests.fakes.learning import (
    LABELS,
    a_learner,
    a_scope,
    classified,
    extracted,
    obeying,
    worked,
    written,
)
from tests.fakes.order_rows import TITLED, extracting
from tests.fakes.pipeline import Pipeline, a_pipeline, a_run

pytestmark = pytest.mark.usefixtures("addressed")
DOCUMENTS, CHECKS = 12, 8
"""The answers of a field, and how many of them have to be right to certify all."""
BOUNDS = ("--max-error", "20%", "--risk", "40%")
LOOSE = Bounds(max_error=0.2, risk=0.4)
_EVEN_FIRM = re.compile(r'"Company \d?[02468]"')
PROFILE = '[profiles.deals]\ntypes = ["extraction"]\ninstructions = "party, term"\n'
STATES = "SELECT name, verdict, accepted, population FROM certified_answers ORDER BY 1"


@pytest.fixture
def filled_by() -> Callable[[Settings], None]:
    return extract_first


@pytest.fixture(autouse=True)
def _profile(tmp_path: Path) -> None:
    (tmp_path / "chordwise.toml").write_text(PROFILE, "utf-8")


def scope_of(pipeline: Pipeline, types: Sequence[str], **options: object) -> Scope:
    profile = Profile.model_validate({"types": types, **options})
    settings = pipeline.context.settings.model_copy(update={"profiles": {"deals": profile}})
    return Scope(settings=settings, profile="deals")


def deals(pipeline: Pipeline) -> Scope:
    return scope_of(pipeline, ["extraction"], instructions="party, term")


def extract_first(settings: Settings) -> None:
    extract(a_learner(settings), "first", DOCUMENTS)


def extract(pipeline: Pipeline, name: str, documents: int) -> None:
    extracted(
        pipeline,
        {
            f"{name}-{place}.txt": {"party": (f"Company {place}", 9), "term": (f"{place} days", 5)}
            for place in range(documents)
        },
    )


def certified(code: ExitCode = ExitCode.SUCCESS) -> Mapping[str, JsonObject]:
    output = output_of("certify", "deals", *BOUNDS, "--json", code=code)
    fields = objects(json.loads(output.out)["certified"])
    return {str(field["name"]): field for field in fields}


def check(folder: Path, field: JsonObject, verdicts: Sequence[str]) -> None:
    to_check = objects(field["to_check"])
    assert len(to_check) >= len(verdicts)
    said = [
        {"document": answer["source"], "path": field["name"], "verdict": verdict}
        for answer, verdict in zip(to_check, verdicts, strict=False)
    ]
    file = written(folder / "checked.jsonl", *said)
    assert run(["feedback", "--file", str(file)]) == ExitCode.SUCCESS


def accepted(pipeline: Pipeline) -> Sequence[tuple[object, ...]]:
    return pipeline.rows(
        "SELECT item, count(*) FILTER (WHERE accepted) FROM fact_quotes GROUP BY 1 UNION ALL"
        " SELECT 'results', count(*) FILTER (WHERE accepted) FROM document_results ORDER BY 1"
    )


def test_checks_in_random_order_certify_a_field(pipeline: Pipeline, tmp_path: Path) -> None:
    """Many errors show how much must be reviewed, until the checks are corrected."""
    fields = certified()
    check(tmp_path, fields["party"], ["approved"] * CHECKS)
    check(tmp_path, fields["term"], ["rejected", "approved"] * (CHECKS // 2))
    shown = output_of("certify", "deals", *BOUNDS).out
    assert f"{DOCUMENTS} of {DOCUMENTS}" in shown
    assert "not possible" in shown
    assert "at least 37.5% must be reviewed" in shown
    assert pipeline.rows(STATES) == [
        ("party", "certified", DOCUMENTS, DOCUMENTS),
        ("term", "impossible", 0, DOCUMENTS),
    ]
    assert accepted(pipeline) == [("party", DOCUMENTS), ("results", 0), ("term", 0)]

    check(tmp_path, fields["term"], ["approved"] * CHECKS)
    certified()
    assert accepted(pipeline) == [("party", DOCUMENTS), ("results", DOCUMENTS), ("term", DOCUMENTS)]
    remark = ["feedback", "latest", "--document", "first-7.txt"]
    assert run([*remark, "--approve"]) == ExitCode.SUCCESS
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)
    assert run([*remark, "--reject", "--path", "party"]) == ExitCode.SUCCESS
    left = DOCUMENTS - 1
    assert accepted(pipeline) == [("party", left), ("results", left), ("term", DOCUMENTS)]


def test_values_and_absences_of_a_field_are_certified_separately(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Right values do not certify that others are not mentioned, nor what was not read."""
    silent, checked = {"party": (None, 2), "term": ("5 days", 5)}, CHECKS + 1
    states = "SELECT trust::text, count(*) FROM absences GROUP BY 1 ORDER BY 1"
    extracted(pipeline, {f"silent-{place}.txt": silent for place in range(DOCUMENTS)})
    documents: JsonValue = [{"source": f"first-{place}.txt"} for place in range(DOCUMENTS)]
    check(tmp_path, {"name": "party", "to_check": documents}, ["approved"] * DOCUMENTS)
    absent = certified()["party, not mentioned"]
    assert pipeline.rows(STATES)[:2] == [
        ("party", "certified", DOCUMENTS, DOCUMENTS),
        ("party, not mentioned", "open", 0, DOCUMENTS),
    ]

    check(tmp_path, {**absent, "name": "party"}, ["approved"] * checked)
    certified()
    assert pipeline.rows(states) == [("certified", DOCUMENTS - checked), ("confirmed", checked)]
    pipeline.execute("""UPDATE results SET failed_chunks = '[{"position": 1}]'""")
    assert pipeline.rows(states) == [("confirmed", checked), ("unread", DOCUMENTS - checked)]
    document = str(objects(absent["to_check"])[0]["source"])
    right = {"document": document, "path": "party", "verdict": "corrected", "value": "Company 0"}
    file = written(tmp_path / "right.jsonl", right)
    assert run(["feedback", "--file", str(file)]) == ExitCode.SUCCESS
    assert as_object(certified()["party, not mentioned"]["certificate"])["wrong"] == 1

    pipeline.execute("UPDATE facts SET doubts = '{check failed}' WHERE value IS NULL")
    pipeline.execute("UPDATE results SET needs_review = true")
    blocking = "SELECT count(*) FROM review_queue WHERE item = 'party' AND blocks_certificate"
    assert pipeline.value(blocking) == DOCUMENTS - checked


def test_a_killed_withdrawal_leaves_no_accepted_value_uncertified(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, certified()["party"], ["approved"] * CHECKS)
    certified()
    extract(pipeline, "later", DOCUMENTS)
    to_check = objects(certified()["party"]["to_check"])
    later: JsonValue = [answer for answer in to_check if "later" in str(answer["source"])]
    check(tmp_path, {"name": "party", "to_check": later}, ["rejected"] * 3)
    database = pipeline.context.database
    rejected = 3  # these lose their marks at once

    for stored, verdict, left in ((0, "certified", 2 * DOCUMENTS - rejected), (1, "withdrawn", 0)):
        commits = iter([database.commit] * stored)
        with monkeypatch.context() as patch:
            patch.setattr(database, "commit", lambda change, rest=commits: next(rest)(change))
            with pytest.raises(StopIteration):
                certify(database, deals(pipeline), LOOSE)

        assert accepted(pipeline)[0] == ("party", left)
        assert pipeline.rows(STATES)[0][1] == verdict

    certify(database, deals(pipeline), LOOSE)
    assert accepted(pipeline)[0] == ("party", 0)


def test_of_two_concurrent_certifications_the_last_stored_one_applies(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = pipeline.context.database
    commit = database.commit
    narrow = Bounds(max_error=0.001, risk=0.05)
    check(tmp_path, certified()["party"], ["approved"] * CHECKS)
    commits = count()

    def interrupted(change: Callable[[Session], int]) -> int:
        if next(commits) == 1:
            assert accepted(pipeline)[0] == ("party", 0)
            certify(database, deals(pipeline), narrow)
        return commit(change)

    monkeypatch.setattr(database, "commit", interrupted)
    certify(database, deals(pipeline), LOOSE)
    assert accepted(pipeline)[0] == ("party", 0)


def test_certifications_that_are_read_and_stored_at_the_same_time_have_one_order(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves, database = calibrations.curves, pipeline.context.database

    def read_before_a_commit(session: Session, drawn_at: datetime) -> Mapping[Key, Points]:
        monkeypatch.undo()
        certify(database, deals(pipeline), LOOSE)
        return curves(session, drawn_at)

    monkeypatch.setattr(calibrations, "curves", read_before_a_commit)
    certify(database, deals(pipeline), LOOSE)
    assert pipeline.value("SELECT count(DISTINCT seed) FROM certifications") == 1


def test_only_the_newest_answers_are_accepted(pipeline: Pipeline, tmp_path: Path) -> None:
    certified()
    documents: JsonValue = [{"source": f"first-{place}.txt"} for place in range(DOCUMENTS)]
    check(tmp_path, {"name": "party", "to_check": documents}, ["approved"] * DOCUMENTS)
    certified()
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)
    first = str(pipeline.value("SELECT name FROM runs"))

    extract(pipeline, "first", DOCUMENTS)
    certified()
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)

    certify(pipeline.context.database, a_scope(pipeline, first), LOOSE)
    certified()
    assert accepted(pipeline)[0] == ("party", 2 * DOCUMENTS)


def test_an_answer_replaced_during_certification_is_not_accepted(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, certified()["party"], ["approved"] * CHECKS)
    database = pipeline.context.database
    commit, commits = database.commit, count()

    def replaced(change: Callable[[Session], int]) -> int:
        if next(commits) == 1:
            pipeline.execute(
                "UPDATE results SET id = gen_random_uuid() WHERE job_id = (SELECT id FROM jobs"
                " ORDER BY id LIMIT 1)"
            )
        return commit(change)

    monkeypatch.setattr(database, "commit", replaced)
    certify(database, deals(pipeline), LOOSE)

    assert accepted(pipeline)[0] == ("party", DOCUMENTS - 1)


def test_a_pruned_run_is_reported(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    database, name = pipeline.context.database, str(pipeline.value("SELECT name FROM runs"))
    pipeline.execute("UPDATE runs SET finished_at = now() - interval '1 day'")
    run_id = uuid.UUID(str(pipeline.value("SELECT id FROM runs")))
    commit, commits = database.commit, count()

    def pruned(change: Callable[[Session], int]) -> int:
        if next(commits) == 0:
            for forget in (pruning.forget_jobs, pruning.forget_run):
                assert commit(partial(forget, run_id=run_id, age=timedelta(0)))
        return commit(change)

    monkeypatch.setattr(database, "commit", pruned)
    with pytest.raises(UsageError, match=name):
        certify(database, a_scope(pipeline, name), LOOSE)


@pytest.mark.parametrize(("bounds", "wrong"), [(("--max-error", "1%"), 0), (BOUNDS, 3)])
def test_a_certificate_that_no_longer_holds_is_not_kept(
    bounds: Sequence[str],
    wrong: int,
    pipeline: Pipeline,
    tmp_path: Path,
) -> None:
    fields = certified()
    check(tmp_path, fields["party"], ["approved"] * CHECKS)
    certified()
    extract(pipeline, "later", DOCUMENTS)
    certified()
    assert accepted(pipeline)[0] == ("party", 2 * DOCUMENTS)

    check(tmp_path, fields["party"], ["rejected"] * wrong)
    assert run(["certify", "deals", *bounds]) == ExitCode.SUCCESS

    assert accepted(pipeline)[0] == ("party", 0)


def review(monkeypatch: pytest.MonkeyPatch, keys: str, *arguments: str) -> Output:
    """Work through a queue in the terminal, one line for each answer; return the output."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in keys.split(","))))
    return output_of("review", *arguments)


def test_the_queue_provides_the_missing_checks_for_a_certificate(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_name = str(pipeline.value("SELECT name FROM runs"))
    queue = (run_name, "--queue", "party")
    printed = output_of("certify", "latest", *BOUNDS).out

    assert f"  chordwise review '{run_name}' --queue party\n" in printed

    shown = review(monkeypatch, "a,s,?,a", *queue)
    assert f"1 of {DOCUMENTS}" in shown.out
    assert f"2 reviewed, {DOCUMENTS - 2} left." in shown.err
    assert f"chordwise certify '{run_name}' --max-error 20% --risk 40%" in shown.err
    review(monkeypatch, ",".join("a" * (DOCUMENTS - 2)), *queue)
    assert json.loads(output_of("review", *queue, "--json").out)["to_check"] == []

    assert run(["certify", run_name, *BOUNDS]) == ExitCode.SUCCESS
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)


def _later_first(candidates: Sequence[Row]) -> Sequence[Row]:
    return sorted(candidates, key=lambda one: not str(one["source"]).startswith("later"))


def test_a_profile_is_certified_by_its_queue_until_later_checks_are_wrong(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What these refute stays uncertified, even if all answers together are within the bound.

    A correction shows that the model's answer was wrong; the exit code reports the end.
    """
    certify = ["certify", "deals", *BOUNDS]
    assert run(certify) == ExitCode.SUCCESS
    review(monkeypatch, ",".join("a" * DOCUMENTS), "deals", "--queue", "term")
    assert run(certify) == ExitCode.SUCCESS
    assert accepted(pipeline)[2] == ("term", DOCUMENTS)

    # In other random orders enough checks precede the later answers for a new certificate.
    monkeypatch.setattr(certification, "_in_order", lambda listed, _: _later_first(listed))
    extract(pipeline, "later", 3)
    kept = certified()["term"]
    assert [str(answer["source"])[:5] for answer in objects(kept["to_check"])] == ["later"] * 3
    numbers = as_object(kept["certificate"])
    assert (numbers["accepted"], numbers["checks"]) == (DOCUMENTS + 3, DOCUMENTS)
    assert accepted(pipeline)[2] == ("term", DOCUMENTS + 3)
    review(monkeypatch, ",".join(["c,another term"] * 3), "deals", "--queue", "term")

    assert "3 of 3 later checks are wrong" in output_of(*certify, code=ExitCode.INCOMPLETE).out
    assert accepted(pipeline)[2] == ("term", 0)
    assert certified(ExitCode.INCOMPLETE)["term"]["later_wrong"] == 3
    assert accepted(pipeline)[2] == ("term", 0)


def test_answers_that_no_label_fits_are_checked_like_a_label(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {f"{place}.txt": ("none", 0.5) for place in range(2)} | {"2.txt": ("letter", 0.5)}
    name = classified(pipeline, choices).name
    assert run(["certify", name, *BOUNDS]) == ExitCode.SUCCESS
    shown = review(monkeypatch, "a,c,invoice", name, "--queue", "no label fits").out
    review(monkeypatch, "c,", name, "--queue", "letter")
    assert "primary_label: no label fits" in shown

    labels = "SELECT label FROM document_results WHERE analysis_type = 'classification' ORDER BY 1"
    assert pipeline.rows(labels) == [("invoice",), (None,), (None,)]
    facts = (
        "SELECT value, final_value, verdict FROM fact_quotes"
        " WHERE path = '/primary_label' ORDER BY 1, 2"
    )
    assert pipeline.rows(facts) == [
        ("letter", None, "corrected"),
        (None, "invoice", "corrected"),
        (None, None, "approved"),
    ]
    judged = "SELECT found, expected, is_right FROM judgments ORDER BY 1, 2"
    assert pipeline.rows(judged) == [
        ("letter", "no label fits", False),
        ("no label fits", "invoice", False),
        ("no label fits", "no label fits", True),
    ]
    left = "SELECT source FROM review_queue WHERE analysis_type = 'classification'"
    assert pipeline.rows(left) == []
    assert run(["feedback", name, "--document", "2.txt", "--correct", "label=mail"]) == 2


def test_a_rejected_answer_is_not_accepted_although_its_label_is_certified(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    choices = {f"{place}.txt": ("letter", 0.5) for place in range(DOCUMENTS)}
    name = classified(pipeline, choices).name
    database, scope = pipeline.context.database, a_scope(pipeline, name)
    said = [{"document": document, "verdict": "approved"} for document in choices]
    file = written(tmp_path / "checked.jsonl", *said)
    assert run(["feedback", name, "--file", str(file)]) == ExitCode.SUCCESS
    certify(database, scope, LOOSE)
    assert count_accepted(pipeline) == (DOCUMENTS, DOCUMENTS)

    assert run(["feedback", name, "--document", "8.txt", "--reject"]) == 0
    assert run(["feedback", name, "--document", "9.txt", "--correct", "label=report"]) == 0

    left = DOCUMENTS - 1, DOCUMENTS - 1  # the corrected one stays accepted
    assert count_accepted(pipeline) == left
    (label,) = certify(database, scope, LOOSE)
    assert (label["certificate"].accepted, count_accepted(pipeline)) == (DOCUMENTS, left)


def count_accepted(pipeline: Pipeline) -> tuple[object, object]:
    ((facts, results),) = pipeline.rows(
        "SELECT (SELECT count(*) FROM fact_quotes WHERE accepted AND path = '/primary_label'),"
        " (SELECT count(*) FROM document_results WHERE accepted)"
    )
    return facts, results


def test_answers_are_ranked_by_the_calibration_at_the_time_of_the_draw(pipeline: Pipeline) -> None:
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
    assert run(["certify", "deals", *BOUNDS]) == ExitCode.SUCCESS
    calibrate(0.5)
    assert run(["certify", "deals", *BOUNDS]) == ExitCode.SUCCESS

    drawn = [("party", pytest.approx(0.72)), ("term", pytest.approx(0.4))]
    assert pipeline.rows(ranks) == drawn * 2
    assert run(["certify", "latest", *BOUNDS]) == ExitCode.SUCCESS
    assert pipeline.rows(ranks)[4:] == [("party", pytest.approx(0.45)), ("term", 0.25)]


def test_the_client_certifies_by_checks(pipeline: Pipeline) -> None:
    with Client() as client:
        client.certify("deals", max_error="20%", risk=0.4)
        questions = list(client.answers_to_check("party", "deals"))
        new = [client.decide(question, "approved", author="Ada") for question in questions[:CHECKS]]
        again = client.decide(questions[0], "approved", author="Ada")
        with pytest.raises(UsageError, match="no verdict “fine”"):
            client.decide(questions[0], "fine")
        party, term = client.certify("deals", max_error="20%", risk=0.4)
        left = list(client.answers_to_check("party", "deals"))

    assert len(questions) == DOCUMENTS
    assert {question["value"]["item"] for question in questions} == {"party"}
    assert (all(new), again) == (True, False)
    assert (party["certificate"].accepted, term["certificate"].accepted) == (DOCUMENTS, 0)
    assert len(left) == DOCUMENTS - CHECKS
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("review", "deals", "--queue", "party"), "no queue of checks for “party” yet"),
    # All current answers together are those of different questions and models.
    (("certify",), "Name a run or a profile."),
    (("review", "--queue", "party"), "Name a run or a profile."),
    (("certify", "nosuch"), "There is no run, profile or table “nosuch”."),
    (("review", "nosuch", "--queue", "party"), "There is no run, profile or table “nosuch”."),
    *((("certify", "deals", "--max-error", share), "valid share") for share in ("0", "1", "much")),
]


def test_what_cannot_be_certified_is_refused(pipeline: Pipeline) -> None:
    for arguments, said in REFUSED:
        assert said in output_of(*arguments, code=ExitCode.USAGE).in_one_line
    assert pipeline.value("SELECT count(*) FROM certifications") == 0

    certified()
    printed = output_of("review", "deals", "--queue", "penalty", code=ExitCode.USAGE).err
    assert "There are queues for party, term." in printed
    assert pipeline.value("SELECT count(*) FROM feedback") == 0


def test_a_rejected_answer_is_a_wrong_check_of_each_field_without_its_own(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    fields = certified()
    first, *others = objects(fields["party"]["to_check"])[:CHECKS]
    check(tmp_path, {"name": "party", "to_check": list(others)}, ["approved"] * len(others))
    remark = ["feedback", "latest", "--document", str(first["source"])]
    assert run([*remark, "--reject"]) == ExitCode.SUCCESS

    certificate = certified()["party"]["certificate"]
    assert isinstance(certificate, dict)
    assert (certificate["checks"], certificate["wrong"]) == (CHECKS, 1)
    printed = output_of("review", "deals", "--queue", "party", "--json").out
    queued = objects(json.loads(printed)["to_check"])
    assert first["source"] not in [answer["source"] for answer in queued]

    assert run([*remark, "--approve", "--path", "party"]) == ExitCode.SUCCESS
    certified()
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)
    assert run(["feedback", "latest", "--document", str(others[0]["source"]), "--withdraw"]) == 0
    assert run(["feedback", "latest", "--document", str(others[0]["source"]), "--reject"]) == 0
    assert accepted(pipeline)[0] == ("party", DOCUMENTS - 1)


def test_rejected_values_of_a_schema_lose_their_marks_at_once(settings: Settings) -> None:
    """A rejected row refutes its whole list; a rejected answer each field."""
    pipeline = a_pipeline(settings, extracting(), repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=TITLED))
    name = pipeline.analyze("Bolt costs 2 EUR.\nNut costs 1 EUR.\n", options=options).name
    accepted = "SELECT path FROM facts WHERE accepted AND path LIKE '/data/%' ORDER BY 1"
    accept = "UPDATE facts SET accepted = TRUE"
    pipeline.execute(accept)

    assert run(["feedback", name, "--reject", "--path", "/line_items/0/name"]) == ExitCode.SUCCESS
    assert pipeline.rows(accepted) == [("/data/title",)]

    assert run(["feedback", name, "--withdraw"]) == ExitCode.SUCCESS
    pipeline.execute(accept)
    assert run(["feedback", name, "--approve", "--path", "title"]) == ExitCode.SUCCESS
    assert run(["feedback", name, "--reject"]) == ExitCode.SUCCESS
    assert pipeline.rows(accepted) == [("/data/title",)]


def test_another_versions_answers_need_their_checks(pipeline: Pipeline, tmp_path: Path) -> None:
    check(tmp_path, certified()["party"], ["approved"] * CHECKS)
    certified()["party"]
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)
    first = pipeline.value("SELECT DISTINCT options_hash FROM jobs")

    settings = pipeline.context.settings
    chunks = settings.pipeline.model_copy(update={"chunk_tokens": 2_000})
    later = a_learner(settings.model_copy(update={"pipeline": chunks}))
    extract(later, "later", DOCUMENTS)
    party = certified()["party"]

    certificate = party["certificate"]
    assert isinstance(certificate, dict)
    assert (certificate["verdict"], certificate["population"]) == ("open", DOCUMENTS)
    assert accepted(pipeline)[0] == ("party", DOCUMENTS)

    check(tmp_path, party, ["approved"] * CHECKS)
    certified()["party"]
    assert accepted(pipeline)[0] == ("party", 2 * DOCUMENTS)
    assert first != pipeline.value("SELECT options_hash FROM jobs ORDER BY id DESC LIMIT 1")


def test_the_risk_is_divided_among_all_parts_though_one_type_is_asked_for(
    pipeline: Pipeline,
) -> None:
    """These are two fields, three labels and none, of which one was chosen yet."""
    kinds = (AnalysisType.CLASSIFICATION, AnalysisType.EXTRACTION)
    options = AnalysisOptions(labels=LABELS, instructions="party, term")
    values = json.dumps({"party": ("ACME", 9), "term": ("30 days", 9)})
    texts = {f"{n}.txt": f"{n}: CHOOSE letter 0.5 VALUES {values}" for n in range(DOCUMENTS)}
    name = worked(pipeline, kinds, options, texts).name
    database, bounds = pipeline.context.database, Bounds(max_error=0.2, risk=0.2)

    together = certify(database, a_scope(pipeline, name), bounds)
    apart = [
        one for kind in kinds for one in certify(database, a_scope(pipeline, name, kind), bounds)
    ]

    of_chosen, of_all = (
        domain.certify([(0.5, None)] * DOCUMENTS, bounds.max_error, bounds.risk / parts).more_checks
        for parts in (3, 6)
    )
    assert of_chosen != of_all
    for units in (together, apart):
        assert [unit["certificate"].more_checks for unit in units] == [of_all] * 3


def often_wrong(request: CompletionRequest) -> str:
    """Return half of the name of every other firm."""
    return _EVEN_FIRM.sub('"Company"', obeying(request))


def test_answers_that_were_wrong_and_asked_again_alone_do_not_certify_the_others(
    settings: Settings, tmp_path: Path
) -> None:
    """The order is drawn again, so the checks are a random sample of the current answers."""
    firms = {f"{place}.txt": f"Company {place}" for place in range(30)}
    values = {name: {"firm": (firm, 9)} for name, firm in firms.items()}
    pipeline = a_pipeline(settings, often_wrong, repeat_last=True)
    extracted(pipeline, values)

    def of_firms() -> Row:
        bounds = Bounds(max_error=0.1, risk=0.3)
        scope = scope_of(pipeline, ["extraction"], instructions="firm")
        units = certify(pipeline.context.database, scope, bounds)
        return next(unit for unit in units if unit["name"] == "firm")

    checked = [answer["source"] for answer in of_firms()["to_check"]][:20]
    said = [{"document": name, "path": "firm", "value": firms[name]} for name in checked]
    assert run(["feedback", "--file", str(written(tmp_path / "said.jsonl", *said))]) == 0
    assert of_firms()["certificate"].wrong

    extracted(a_learner(settings), {name: values[name] for name in checked}, fresh=True)

    certificate = of_firms()["certificate"]
    assert (certificate.wrong, certificate.verdict) == (0, domain.CertificationVerdict.OPEN)
    assert pipeline.value("SELECT count(*) FROM facts WHERE item = 'firm' AND accepted") == 0
