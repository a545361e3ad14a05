"""Tests of `chordwise experiment`: assignment, comparison, and promotion of variants."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from chordwise import Client
from chordwise.domain.json_values import JsonObject, as_object, objects
from chordwise.errors import ExitCode, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake import experiments
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.learning import refresh
from chordwise.settings import ScheduleSettings, Settings, load
from chordwise.storage import experiments as stored
from chordwise.storage import pruning
from tests.fakes.commands import output_of, run, type_in
from tests.fakes.counting import counting
from tests.fakes.learning import written
from tests.fakes.pipeline import NOW, Pipeline, a_document, a_label, a_pipeline, offered
from tests.fakes.scheduling import a_scheduler

pytestmark = pytest.mark.usefixtures("addressed")
FILE = """
model = "scripted"

[models.scripted]
provider = "openai"
model = "scripted"
base_url = "http://127.0.0.1:9/v1"
input_usd_per_million_tokens = 1
output_usd_per_million_tokens = 1

[profiles.mail] # what comes in
types = ["classification"]
labels = ["invoice", "letter", "report"]
votes = 1 # once is enough
[models.spare]
api_key = "sk-of-another-section"
provider = "openai"
model = "spare"
base_url = "http://127.0.0.1:9/v1"
"""
TERSE = "terse:instructions=Be terse, and brief.,confidence_threshold=0.1"
START = ("experiment", "start", "shorter", "--profile", "mail", "--variant", TERSE)
VARIANTS = "SELECT variant, paired, count(*) FROM experiment_answers GROUP BY 1, 2 ORDER BY 1"


def answering(request: CompletionRequest) -> str:
    """Answer `letter` if brevity is requested, else `invoice`, the right label of all documents."""
    label = "letter" if "terse" in request.task.options.instructions else "invoice"
    return a_label(label, 0.9, "Dear madam")


def failing(request: CompletionRequest) -> str:
    return "No." if "terse" in request.task.options.instructions else answering(request)


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    file = tmp_path / "chordwise.toml"
    file.write_text(FILE, "utf-8")
    return file


def opened(settings: Settings, file: Path, answer: Callable[[CompletionRequest], str]) -> Pipeline:
    loaded = load(file)
    changes = {"profiles": loaded.profiles, "model": "scripted"}
    return a_pipeline(
        settings.model_copy(update=changes),
        answer,
        repeat_last=True,
        model_settings=loaded.models["scripted"],
    )


def submitted(pipeline: Pipeline, first: int, count: int) -> Submission:
    settings = pipeline.context.settings
    letters = (
        a_document(f"Dear madam, this is letter {number}.", f"{number}.txt")
        for number in range(first, first + count)
    )
    options = run_options(settings, settings.profiles["mail"], f"mail-{first}")
    submission = pipeline.submit(*letters, options=options)
    for row in pipeline.rows("SELECT id FROM jobs WHERE status IN ('queued', 'running')"):
        pipeline.work_on(row[0])  # type: ignore[arg-type]  # a UUID
    return submission


def status() -> JsonObject:
    printed = output_of("experiment", "status", "shorter", "--json").out
    (experiment,) = objects(json.loads(printed)["experiments"])
    return experiment


def outcome(experiment: JsonObject, variant: str, name: str) -> JsonObject:
    (of,) = (row for row in objects(experiment["variants"]) if row["name"] == variant)
    (compared,) = (row for row in objects(of["outcomes"]) if row["outcome"] == name)
    return compared


def test_feedback_shows_which_variant_is_right(
    settings: Settings,
    settings_file: Path,
    tmp_path: Path,
) -> None:
    pipeline = opened(settings, settings_file, answering)
    assert run([*START]) == ExitCode.SUCCESS
    submitted(pipeline, 0, 40)
    submitted(pipeline, 35, 5).close()
    said = [{"document": f"{n}.txt", "value": "letter"} for n in range(40)]
    truth = written(tmp_path / "said.jsonl", *said)

    assert run(["feedback", "--file", str(truth)]) == ExitCode.SUCCESS

    experiment = status()
    counts = {str(row["name"]): row["documents"] for row in objects(experiment["variants"])}
    assert sum(map(int, map(str, counts.values()))) == 40
    assert min(int(str(count)) for count in counts.values()) > 12
    right = outcome(experiment, "terse", "right")
    assert (right["mean"], right["verdict"]) == (1.0, "better")
    assert outcome(experiment, "control", "right")["mean"] == 0.0
    assert outcome(experiment, "terse", "valid")["verdict"] == "undecided"
    assert pipeline.value("SELECT count(*) FROM document_results") == 45
    assert pipeline.rows("SELECT saved_as, count(*) FROM answer_jobs GROUP BY 1") == [("mail", 40)]
    assert "better" in output_of("experiment", "status", "shorter").out


def test_a_pair_has_two_answers_within_the_budget(settings: Settings, settings_file: Path) -> None:
    pipeline = opened(settings, settings_file, answering)
    assert run([*START, "--paired", "100%", "--budget", "0.50"]) == ExitCode.SUCCESS
    submission = submitted(pipeline, 0, 5)

    assert pipeline.rows(VARIANTS) == [("control", True, 5), ("terse", True, 5)]
    assert pipeline.rows("SELECT label, count(*) FROM document_results GROUP BY 1") == [
        ("invoice", 5)
    ]
    assert pipeline.rows("SELECT run, accepted, status FROM run_accounts ORDER BY 2, 1") == [
        ("experiment-shorter", 5, "finished"),
        (submission.name, 5, "finished"),
    ]
    correction = ["feedback", submission.name, "--document", "3.txt", "--correct", "label=letter"]
    assert run(correction) == ExitCode.SUCCESS
    experiment = status()
    assert float(str(experiment["spent_usd"])) > 0
    assert outcome(experiment, "terse", "right")["mean"] == 1.0
    assert outcome(experiment, "control", "right")["mean"] == 0.0
    assert pipeline.rows("SELECT event FROM deliveries WHERE kind = 'webhook'") == [
        ("run.finished",)
    ]

    pipeline.execute("UPDATE budgets SET spent_usd = cap_usd WHERE cap_usd IS NOT NULL")
    submitted(pipeline, 5, 5)

    assert pipeline.rows(VARIANTS) == [
        ("control", False, 5),
        ("control", True, 5),
        ("terse", True, 5),
    ]


def test_the_run_of_second_answers_is_kept_during_the_experiment(
    settings: Settings, settings_file: Path
) -> None:
    pipeline = opened(settings, settings_file, answering)
    assert run([*START, "--paired", "100%"]) == ExitCode.SUCCESS
    run_of_answers = submitted(pipeline, 0, 2).run_id
    now = timedelta(seconds=-1)
    database = pipeline.context.database
    with database.read() as session:
        assert pruning.old_runs(session, now) == [run_of_answers]

    assert run(["experiment", "conclude", "shorter"]) == ExitCode.SUCCESS

    with database.write() as session:
        old = pruning.old_runs(session, now)
        for run_id in old:
            pruning.forget_jobs(session, run_id, now)
            pruning.forget_run(session, run_id, now)
    assert len(old) == 2
    assert pipeline.value("SELECT count(*) FROM runs") == 0
    kept = pipeline.value("SELECT conclusion FROM experiments")
    assert [row["documents"] for row in objects(as_object(kept)["variants"])] == [2, 2]


def test_a_variant_that_fails_is_stopped(settings: Settings, settings_file: Path) -> None:
    pipeline = opened(settings, settings_file, failing)
    assert run([*START]) == ExitCode.SUCCESS
    submitted(pipeline, 0, 40)
    assert pipeline.value("SELECT stopped_at FROM experiment_variants") is None
    pipeline.execute("UPDATE experiments SET checked_at = NULL")
    submitted(pipeline, 40, 1)

    later = submitted(pipeline, 41, 9)

    assert {job.options.get("instructions") for job in pipeline.jobs(later)} == {None}
    experiment = status()
    (terse,) = (row for row in objects(experiment["variants"]) if row["name"] == "terse")
    assert str(terse["stopped_because"]).startswith("0.0% of its answers are valid")
    stopped = "SELECT content FROM deliveries WHERE kind = 'webhook' AND event LIKE 'experiment.%'"
    ((told,),) = pipeline.rows(stopped)
    assert as_object(told)["variant"] == "terse"
    assert experiments.check(pipeline.context.database) == 0
    printed = output_of(
        "experiment", "conclude", "shorter", "--promote", "terse", code=ExitCode.USAGE
    ).err

    assert "terse was stopped: 0.0% of its answers are valid" in printed


def test_a_longer_experiment_is_checked_less_often(settings: Settings, settings_file: Path) -> None:
    """Each check reads all answers; the checks of a schedule are not limited."""
    pipeline = opened(settings, settings_file, answering)
    assert run([*START]) == ExitCode.SUCCESS
    for minutes, is_due in ((10, True), (100, False)):
        pipeline.execute(
            "UPDATE experiments SET created_at = now() - :minutes * interval '1 minute',"
            " checked_at = now() - interval '90 seconds'",
            minutes=minutes,
        )
        with pipeline.context.database.write() as session:
            experiment = stored.named(session, "shorter")
            assert experiment is not None
            often = stored.claim_check(session, experiment.id, experiments.CHECK_INTERVAL)
            assert often is is_due
            assert stored.claim_check(session, experiment.id, timedelta())


@pytest.mark.nightly
def test_guardrails_read_a_constant_number_of_rows(settings: Settings, settings_file: Path) -> None:
    pipeline = opened(settings, settings_file, answering)
    assert run([*START, "--paired", "30%"]) == ExitCode.SUCCESS
    read = []
    for documents in (12, 24):
        submitted(pipeline, documents, documents)
        with counting(pipeline) as counts:
            assert experiments.check(pipeline.context.database) == 0
        read.append((counts.statements, counts.rows))

    assert read[0] == read[1]


def test_an_unknown_model_gets_no_documents(settings: Settings, settings_file: Path) -> None:
    """A process with other settings takes documents in for the control."""
    other = '\n[models.other]\nprovider = "openai"\nmodel = "other"\nprice = "free"\n'
    pipeline = opened(settings, settings_file, answering)
    settings_file.write_text(FILE + other, "utf-8")
    assert run([*START[:-1], "other:model=other"]) == ExitCode.SUCCESS

    submitted(pipeline, 0, 5)

    assert pipeline.rows(VARIANTS) == [("control", False, 5)]


def test_a_schedule_checks_the_guardrails(settings: Settings) -> None:
    guard = ScheduleSettings(cron="0 6 * * *", run="experiment check")
    scheduler = a_scheduler(settings, answering, repeat_last=True, guard=guard)
    scheduler.sleep_until("2026-03-28T08:01")
    scheduler.tick()

    assert scheduler.carry_out()

    assert scheduler.rows("SELECT status, outcome - 'output' FROM schedule_runs") == [
        ("succeeded", {"stopped": 0})
    ]


def test_a_refresh_belongs_to_no_experiment(settings: Settings, settings_file: Path) -> None:
    """Every document gets the answer that was quoted, and no additional one is paid for."""
    pipeline = opened(settings, settings_file, answering)
    submitted(pipeline, 0, 12)
    settings_file.write_text(FILE.replace("votes = 1", "confidence_threshold = 0.3"), "utf-8")
    assert run([*START, "--paired", "50%"]) == ExitCode.SUCCESS
    context = opened(settings, settings_file, answering).context
    options = run_options(context.settings, context.settings.profiles["mail"], "renewed")
    target = refresh.target(context, "mail", options)

    submission = refresh.begin(context, target, NOW)
    for document in refresh.documents(context, target):
        submission.take_in(offered(document))
    submission.close()

    assert pipeline.rows(VARIANTS) == []
    asked_of = "SELECT runs.name, count(*) FROM jobs JOIN runs ON runs.id = jobs.run_id"
    assert pipeline.rows(f"{asked_of} GROUP BY 1 ORDER BY 1") == [("mail-0", 12), ("renewed", 12)]


def test_a_promoted_variant_becomes_the_profile(
    settings: Settings, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the profile needs confirmation."""
    pipeline = opened(settings, settings_file, answering)
    assert run([*START]) == ExitCode.SUCCESS
    conclude = ["experiment", "conclude", "shorter", "--promote", "terse"]
    refusal = output_of(*conclude, code=ExitCode.USAGE).err
    assert "does not show that terse is better than the control" in refusal
    type_in(monkeypatch, "n")
    assert run(conclude) == ExitCode.USAGE
    assert settings_file.read_text("utf-8") == FILE

    type_in(monkeypatch, "y")
    shown, changed = output_of(*conclude).out, settings_file.read_text("utf-8")

    assert '+instructions = "Be terse, and brief."' in shown
    assert "sk-of" not in shown
    assert "[profiles.mail] # what comes in" in changed
    assert "votes = 1 # once is enough" in changed
    assert load(settings_file).profiles["mail"].confidence_threshold == 0.1
    assert status()["promoted"] == "terse"
    after = submitted(opened(settings, settings_file, answering), 0, 5)
    assert pipeline.value("SELECT count(*) FROM experiment_documents") == 0
    assert {job.options["instructions"] for job in pipeline.jobs(after)} == {"Be terse, and brief."}
    assert run([*START]) == ExitCode.USAGE


def test_nothing_is_promoted_after_a_change_during_the_question(
    settings: Settings, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(settings, settings_file, answering)
    assert run([*START]) == ExitCode.SUCCESS
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: settings_file.write_text(f"{FILE}# edited\n", "utf-8"), "has changed since"),
        (lambda: run(["experiment", "conclude", "shorter"]), "concluded already"),
    ]
    for meanwhile, message in changes:
        type_in(monkeypatch, "y")
        monkeypatch.setattr("typer.confirm", partial(confirmed_after, meanwhile))

        promote = ("experiment", "conclude", "shorter", "--promote", "terse")
        assert message in output_of(*promote, code=ExitCode.USAGE).err
        assert "terse" not in settings_file.read_text("utf-8").lower()


def confirmed_after(change: Callable[[], object], *_: object, **__: object) -> bool:
    change()
    return True


def test_the_client_starts_compares_and_concludes(settings: Settings, settings_file: Path) -> None:
    pipeline = opened(settings, settings_file, answering)
    terse = {"terse": {"instructions": "Be terse, and brief."}}
    with Client() as client:
        with pytest.raises(UsageError, match="is not a valid share"):
            client.start_experiment("shorter", "mail", terse, risk=2)
        begun = client.start_experiment("shorter", "mail", terse, outcome="valid", share="30%")
        submitted(pipeline, 0, 5)
        experiment = client.experiment("shorter")
        ended = client.conclude_experiment("shorter")
        with pytest.raises(UsageError, match="concluded already"):
            client.conclude_experiment("shorter")

    assert begun["concluded_at"] is None
    assert sum(variant["documents"] for variant in experiment["variants"]) == 5
    assert ended["concluded_at"] is not None


def test_a_change_that_cannot_be_written_is_printed(
    settings: Settings,
    settings_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A profile that is set in the environment has to be changed there."""
    opened(settings, settings_file, answering)
    profile, _, _ = FILE.partition("[profiles")
    settings_file.write_text(profile, "utf-8")
    mail = {"types": ["classification"], "labels": ["invoice", "letter"]}
    monkeypatch.setenv("CHORDWISE_PROFILES", json.dumps({"mail": mail}))
    assert run([*START]) == ExitCode.SUCCESS

    promote = ["experiment", "conclude", "shorter", "--promote", "terse", "--yes"]
    said = output_of(*promote).err

    assert "[profiles.mail]" in said
    assert 'instructions = "Be terse, and brief."' in said
    assert settings_file.read_text("utf-8") == profile


INVALID_PLANS: list[tuple[list[str], str]] = [
    (["--variant", "short:labels=a"], "cannot change labels"),
    (["--variant", "short:votes=1"], "does not differ"),
    (["--variant", "a:votes=3", "--variant", "b:votes=3"], "a and b are identical"),
    (["--variant", "short:votes=many"], "votes"),
    (["--variant", "short:model=unknown"], "no model named"),
    (["--variant", "control:votes=3"], "a different name"),
    (["--variant", "short"], "is not NAME:KEY=VALUE"),
    (["--variant", "short:votes=3", "--share", "100%"], "is not a valid share"),
    (["--variant", "a:votes=3", "--variant", "b:votes=5", "--share", "50%"], "leave no documents"),
]


@pytest.mark.usefixtures("settings_file")
def test_an_invalid_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, reason in INVALID_PLANS:
        code = run(["experiment", "start", "odd", "--profile", "mail", *arguments])

        assert code in {ExitCode.USAGE, ExitCode.CONFIGURATION}
        assert reason in capsys.readouterr().err
