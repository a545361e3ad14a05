"""Tests of `chordwise refresh`: stale answers, their reasons, costs, samples, and corrections."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from chordwise import Client
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ExitCode, ModelRequestError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.found_files import FileSource, take_in
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.learning import refresh
from chordwise.pipeline.learning.refresh import Target
from chordwise.pipeline.quoting import quote
from chordwise.readers.reader import Reader
from chordwise.settings import Profile, Settings
from chordwise.storage import pruning
from chordwise.storage.runs import Run
from tests.fakes.commands import output_of, run, type_in
from tests.fakes.counting import recorded
from tests.fakes.learning import LABELS, obeying
from tests.fakes.pipeline import (
    AWAY,
    NOW,
    SCRIPTED,
    SHORT,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
)
from tests.fakes.processes import wait_until
from tests.fakes.scripted_model import Answer

GPT = "openai/gpt-6.1-terra"
PROFILE = f'[profiles.letters]\ntypes = ["classification"]\nmodel = "{SCRIPTED}"\n'
THREE = f"labels = {json.dumps(LABELS)}\n"
SERVED = "UPDATE results SET provider = 'openai', model = 'scripted'"
OLDER = (
    "UPDATE results SET prompt_version = 'classification.analyze@0'",
    "UPDATE jobs SET options_hash = 'of the older prompt'",
    "DELETE FROM cached_completions",  # a newer prompt is another question
)
SHOWN = (
    "SELECT r.run, r.source, r.output ->> 'primary_label', f.value, f.corrected_value, s.author"
    " FROM document_results AS r JOIN fact_quotes AS f ON f.job_id = r.job_id"
    " LEFT JOIN feedback AS s ON s.document_id = r.document_id"
    " WHERE f.path = '/primary_label' ORDER BY r.created_at, r.source"
)


@dataclass(slots=True, kw_only=True)
class Desk:
    """Letters that are classified under a profile, by a model with changeable answers."""

    pipeline: Pipeline
    folder: Path
    answers: dict[str, str]

    def profile(self, *lines: str) -> None:
        text = PROFILE + "".join(f"{line}\n" for line in lines or [THREE])
        (self.folder / "chordwise.toml").write_text(text, "utf-8")

    def classify(self, *names: str) -> Submission:
        analysis = AnalysisOptions(labels=LABELS)
        options = replace(a_run(AnalysisType.CLASSIFICATION, analysis=analysis), save_as="letters")
        letters = (a_document(a_letter(name), name) for name in names)
        submission = self.pipeline.analyze(*letters, options=options)
        self.pipeline.execute(SERVED)
        return submission

    def age(self) -> None:
        for statement in OLDER:
            self.pipeline.execute(statement)

    def call(self, *arguments: str, code: ExitCode = ExitCode.SUCCESS) -> JsonObject:
        out = output_of("refresh", *arguments, "--json", code=code).out
        return json_values.as_object(json.loads(out)) if out else {}

    def said(self, *arguments: str) -> str:
        return output_of("refresh", *arguments).in_one_line

    def reasons(self, *arguments: str) -> list[tuple[object, object]]:
        stale = json_values.objects(self.call(*arguments, "--dry-run")["stale"])
        return [(answer["reasons"], answer["due"]) for answer in stale]

    def target(self, **changes: object) -> Target:
        analysis = AnalysisOptions(labels=LABELS, instructions="Look twice.")
        options = a_run(AnalysisType.CLASSIFICATION, analysis=analysis)
        options = replace(options, save_as="letters", name="", **changes)  # type: ignore[arg-type]  # of the test
        return refresh.target(self.pipeline.context, "letters", options)

    def take_in(self, submission: Submission) -> None:
        context = self.pipeline.context
        with Reader(context.settings.readers) as reader, (self.folder / "empty").open("rb") as none:
            source = FileSource(reader, none)
            take_in(context, submission, source)


def a_letter(name: str) -> str:
    return f"This is {name}. CHOOSE letter 0.9 and nothing else."


@pytest.fixture
def desk(
    settings: Settings,
    addressed: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Desk:
    assert addressed is None
    known = AWAY.model_dump(mode="json", exclude_defaults=True)
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({SCRIPTED: known}))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "empty").touch()
    answers: dict[str, str] = {}

    def answering(request: CompletionRequest) -> Answer:
        labels = [label for name, label in answers.items() if name in request.task.text]
        if labels == ["failure"]:
            return ModelRequestError("The model does not like it.", "Ask otherwise.")
        said = json.loads(obeying(request))
        return json.dumps(said | ({"primary_label": labels[0]} if labels else {}))

    pipeline = a_pipeline(settings, answering, repeat_last=True)
    made = Desk(pipeline=pipeline, folder=tmp_path, answers=answers)
    made.profile()
    return made


def test_current_answers_are_not_stale(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older template or version is a reason; pages read by another model are counted only.

    A run without a profile keeps its question, with the current template.
    """
    submission = desk.classify("a.txt", "b.txt")
    assert desk.reasons(submission.name) == desk.reasons("--profile", "letters") == []
    assert "There are no stale answers." in desk.said("--profile", "letters")

    desk.pipeline.execute(
        "UPDATE documents SET transcribed_by = 'tesseract' WHERE source = 'a.txt'"
    )
    monkeypatch.setenv("CHORDWISE_READERS__VISION", GPT)
    report = desk.call("--profile", "letters", "--dry-run")
    assert (report["stale"], report["transcribed_by_others"]) == ([], 1)
    assert "Another model read pages of 1 document" in desk.said("--profile", "letters")

    desk.pipeline.execute("UPDATE runs SET saved_as = NULL")
    desk.pipeline.execute("UPDATE jobs SET options_hash = 'of an older version'")
    assert desk.reasons(submission.name) == [({"version": ""}, 2)]
    desk.age()
    assert desk.reasons(submission.name) == [({"template": "classification.analyze@0"}, 2)]
    assert "template (was classification.analyze@0)" in desk.said(submission.name, "--dry-run")


CHANGES: list[tuple[Sequence[str], Mapping[str, str]]] = [
    (['labels = ["invoice", "letter"]'], {"labels": ""}),
    ([THREE, 'instructions = "Look twice."'], {"instructions": ""}),
    (
        [THREE, "votes = 3", "confidence_threshold = 0.9"],
        {"options": "confidence_threshold, votes"},
    ),
    ([THREE, f'model = "{GPT}"'], {"model": "openai/scripted"}),
]


def test_the_difference_of_the_question_is_the_reason(desk: Desk) -> None:
    """This includes answers of a run, since they are in the table of the profile."""
    submission = desk.classify("a.txt", "b.txt")
    for lines, reasons in CHANGES:
        text = PROFILE.replace(f'model = "{SCRIPTED}"\n', "") if "model" in reasons else PROFILE
        (desk.folder / "chordwise.toml").write_text(text + "\n".join(lines), "utf-8")

        of_profile, of_run = desk.reasons("--profile", "letters"), desk.reasons(submission.name)
        assert of_profile == of_run == [(reasons, 2)]


def test_the_price_is_given_for_online_and_batches(desk: Desk) -> None:
    desk.classify("a.txt", "b.txt")
    desk.pipeline.execute("UPDATE jobs SET options_hash = 'of an older version'")

    cached = json_values.as_object(desk.call("--profile", "letters", "--dry-run")["quote"])
    other = desk.call("--profile", "letters", "--dry-run", "--model", GPT)["quote"]
    refused = desk.call("--profile", "letters", "--model", GPT, code=ExitCode.USAGE)

    assert (cached["documents"], cached["cached"]) == (2, 2)
    totals = json_values.as_object(json_values.as_object(other)["totals"])
    online, batch = (json_values.as_object(totals[lane]) for lane in ("online", "batch"))
    assert 0 < float(str(batch["typical"])) < float(str(online["typical"]))
    assert refused == {}
    assert desk.pipeline.value("SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize("by_client", [False, True])
def test_stored_texts_are_asked_again_once(
    desk: Desk,
    by_client: bool,  # noqa: FBT001 - a parameter
) -> None:
    submission = desk.classify("a.txt", "b.txt")
    desk.age()
    desk.answers["a.txt"] = "invoice"

    if by_client:
        with Client() as client:
            (stale,) = client.stale_answers("letters")
            again = client.refresh("letters", run_name="again")
            answer_queued_jobs(desk)
            assert client.refresh("letters") is None
        assert (stale["due"], again and again.name) == (2, "again")
    else:
        begun = desk.call("--profile", "letters", "--no-wait", "--run-name", "again")
        assert desk.reasons("--profile", "letters") == []  # it is being asked
        answer_queued_jobs(desk)
        assert (begun["run"], begun["intakes_taken"]) == ("again", 2)

    labels = "SELECT run, output ->> 'primary_label' FROM answer_jobs ORDER BY source"
    assert desk.pipeline.rows(labels) == [("again", "invoice"), ("again", "letter")]
    assert desk.reasons("--profile", "letters") == desk.reasons(submission.name) == []
    assert desk.pipeline.value("SELECT count(*) FROM documents") == 2


def test_the_price_needs_confirmation(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.classify("a.txt")
    refreshed = ("--profile", "letters", "--model", GPT, "--no-wait")

    type_in(monkeypatch, "n")
    assert "No answer was renewed." in desk.said(*refreshed)
    assert desk.pipeline.value("SELECT count(*) FROM runs") == 1
    type_in(monkeypatch, "y")
    desk.said(*refreshed)

    assert desk.pipeline.value("SELECT count(*) FROM runs") == 2


def answer_queued_jobs(desk: Desk) -> None:
    queued = "SELECT id FROM jobs WHERE status IN ('queued', 'running') ORDER BY id"
    for (job_id,) in desk.pipeline.rows(queued):
        assert isinstance(job_id, UUID)
        desk.pipeline.work_on(job_id)
    desk.pipeline.execute(SERVED)


def test_corrections_are_kept_and_judge_the_new_answer(desk: Desk) -> None:
    submission = desk.classify("a.txt", "b.txt")
    said = ("--correct", "label=invoice", "--author", "Ada")
    assert run(["feedback", submission.name, "--document", "a.txt", *said]) == ExitCode.SUCCESS
    desk.age()

    desk.call("--profile", "letters", "--no-wait", "--run-name", "again")
    answer_queued_jobs(desk)

    before, after = desk.pipeline.rows(SHOWN)[:2], desk.pipeline.rows(SHOWN)[2:]
    assert after == [
        ("again", "a.txt", "invoice", "letter", "invoice", "Ada"),
        ("again", "b.txt", "letter", "letter", None, None),
    ]
    assert [row[1:] for row in before] == [row[1:] for row in after]
    assert run(["evaluate", "again"]) == ExitCode.SUCCESS
    assert desk.pipeline.rows(
        "SELECT is_right, expected, found FROM judgments AS j JOIN document_results AS r"
        " ON r.result_id = j.result_id WHERE r.run = 'again' AND part = 'result'"
    ) == [(False, "invoice", "letter")]


def test_corrections_are_kept_for_a_changed_question(desk: Desk) -> None:
    """They are as long as the question has the right label."""
    submission = desk.classify("a.txt")
    right = ["--correct", "label=invoice", "--author", "Ada"]
    assert run(["feedback", submission.name, *right]) == ExitCode.SUCCESS
    for name, lines, shown in (
        ("instructed", [THREE, 'instructions = "Look twice."'], "invoice"),
        ("other labels", ['labels = ["invoice", "letter", "bill"]'], "invoice"),
        ("without the label", ['labels = ["bill", "letter"]'], "letter"),
    ):
        desk.profile(*lines)

        desk.call("--profile", "letters", "--no-wait", "--run-name", name)
        answer_queued_jobs(desk)

        said = "Ada" if shown == "invoice" else None
        judged = f"judged_by, judged_at IS NOT NULL FROM {{}} WHERE run = '{name}'"
        results = judged.format("document_results")
        facts = judged.format("fact_quotes") + " AND path = '/primary_label'"
        for rows in (f"output ->> 'primary_label', {results}", f"final_value, {facts}"):
            assert desk.pipeline.rows(f"SELECT {rows}") == [(shown, said, said is not None)]


@contextmanager
def worked_on(desk: Desk) -> Iterator[None]:
    def work() -> None:
        taken = "SELECT count(*) FROM runs WHERE intake_finished_at IS NOT NULL"
        wait_until(lambda: desk.pipeline.value(taken) == 2, 60, taken)
        answer_queued_jobs(desk)

    worker = threading.Thread(target=work)
    worker.start()
    yield
    worker.join()


def test_a_sample_shows_what_would_change(desk: Desk) -> None:
    names = [f"{place}.txt" for place in range(10)]
    submission = desk.classify(*names)
    for name, label in (("0.txt", "invoice"), ("1.txt", "letter"), ("2.txt", "invoice")):
        right = ("--correct", f"label={label}")
        assert run(["feedback", submission.name, "--document", name, *right]) == ExitCode.SUCCESS
    desk.age()
    desk.answers |= {f"is {name}": "invoice" for name in ("0.txt", "1.txt", "5.txt")}

    with worked_on(desk):
        tried = desk.call("--profile", "letters", "--try", "9")

    (trial,) = json_values.objects(tried["trials"])
    rest = json_values.as_object(tried["rest"])
    new = desk.pipeline.rows("SELECT source, run FROM document_results WHERE run ~ '-refresh-'")
    assert (trial["documents"], trial["fields"], len(new)) == (9, 9, 9)
    changed = sum(name in {"0.txt", "1.txt", "5.txt"} for name, _ in new)
    checked = sum(name in {"0.txt", "1.txt", "2.txt"} for name, _ in new)
    assert (trial["changed"], trial["checked"]) == (changed, checked)
    assert trial["better"] == sum(name == "0.txt" for name, _ in new)
    assert trial["worse"] == sum(name == "1.txt" for name, _ in new)
    assert 0 < float(str(trial["low"])) < changed / 9 < float(str(trial["high"])) < 1
    assert rest["documents"] == 1
    assert [due for _, due in desk.reasons("--profile", "letters")] == [1]


def test_a_sample_is_reproducible_and_stratified_by_label(desk: Desk) -> None:
    """It stays the same until some of it is refreshed."""
    desk.answers |= {f"is {place}.txt": "invoice" for place in range(6)}
    desk.classify(*(f"{place}.txt" for place in range(24)))
    context, target = desk.pipeline.context, desk.target()

    first, second = (refresh.draw(context, target, 8) for _ in range(2))

    assert first == second
    labels = {
        str(document_id): label
        for document_id, label in desk.pipeline.rows(
            "SELECT document_id, output ->> 'primary_label' FROM document_results"
        )
    }
    drawn = [labels[str(job["document_id"])] for job in first]
    assert (drawn.count("invoice"), drawn.count("letter")) == (2, 6)


def test_only_failed_answers_are_asked_again(desk: Desk) -> None:
    desk.answers["b.txt"] = "failure"
    submission = desk.classify("a.txt", "b.txt")
    desk.age()
    desk.answers.clear()

    assert [due for _, due in desk.reasons("--profile", "letters")] == [1]
    assert desk.reasons("--profile", "letters", "--failed") == [({"failed": "model_request"}, 1)]
    desk.call(submission.name, "--failed", "--no-wait", "--run-name", "again")
    answer_queued_jobs(desk)

    assert desk.pipeline.rows("SELECT source FROM document_results WHERE run = 'again'") == [
        ("b.txt",)
    ]
    assert desk.reasons("--profile", "letters", "--failed") == []


def test_the_argument_is_a_run_or_a_profile(desk: Desk) -> None:
    submission = desk.classify("a.txt")
    desk.age()

    assert desk.reasons("letters") == desk.reasons("--profile", "letters") != []
    desk.pipeline.execute("UPDATE runs SET name = 'letters'")
    said = output_of("refresh", "letters", "--dry-run", code=ExitCode.USAGE).err
    assert "There is a run “letters” and a profile “letters”." in said
    assert desk.reasons(str(submission.run_id)) == desk.reasons("--profile", "letters")


def test_a_text_deleted_during_the_refresh_is_named(desk: Desk) -> None:
    pruned = desk.classify("a.txt")
    desk.classify("b.txt")
    submission = refresh.begin(desk.pipeline.context, desk.target(), NOW)
    with desk.pipeline.context.database.write() as session:
        assert pruning.forget_jobs(session, pruned.run_id, timedelta(0)) == 1

    desk.take_in(submission)

    of_run = f"FROM intakes WHERE run_id = '{submission.run_id}' ORDER BY source"
    assert desk.pipeline.rows(f"SELECT source, outcome, reason {of_run}") == [
        ("a.txt", "unreadable", "not_resumable"),
        ("b.txt", "accepted", None),
    ]


def test_the_number_of_statements_grows_with_pages_not_documents(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (found_files, refresh):
        monkeypatch.setattr(module, "STORED_AT_ONCE", 6)
    desk.classify(*(f"{place}.txt" for place in range(6)))
    counts = [statements(desk)]
    desk.classify(*(f"{place}.txt" for place in range(6, 18)))
    counts.append(statements(desk))

    (looked, taken), (looked_later, taken_later) = counts
    # There is a statement for each further page of texts.
    assert looked_later - looked <= 2
    assert taken_later - taken <= 2


def statements(desk: Desk) -> tuple[int, int]:
    """Return the number of statements for a quote and for an intake, and undo both."""
    context, target = desk.pipeline.context, desk.target()
    with recorded() as looked:
        refresh.survey(context, target)
        quote.estimate(context, refresh.documents(context, target), target.options)
    with recorded() as taken:
        desk.take_in(refresh.begin(context, target, NOW))
    desk.pipeline.execute("UPDATE jobs SET status = 'cancelled' WHERE status <> 'succeeded'")
    desk.pipeline.execute("UPDATE runs SET name = id::text")
    return len(looked), len(taken)


INVALID: list[Sequence[str]] = [
    (),
    ("latest", "--try", "0"),
    ("latest", "--try", "5", "--failed"),
    ("latest", "--try", "5", "--no-wait"),
    ("gone",),
]


def test_invalid_options_are_refused(desk: Desk) -> None:
    desk.classify("a.txt")
    for arguments in INVALID:
        assert run(["refresh", *arguments, "--yes"]) == ExitCode.USAGE
    assert desk.pipeline.value("SELECT count(*) FROM runs") == 1


def test_another_item_makes_only_the_extraction_stale(settings: Settings) -> None:
    kinds = AnalysisType.EXTRACTION, AnalysisType.CLASSIFICATION, AnalysisType.SUMMARY
    pipeline, analysis = a_pipeline(settings), AnalysisOptions(labels=LABELS)
    questions = [
        replace(a_run(*kinds, analysis=replace(analysis, instructions=items)), model="extractive")
        for items in ("harbour", "harbour, fee")
    ]
    first = pipeline.analyze(SHORT, options=questions[0])
    of = refresh.target(pipeline.context, "again", questions[1], first.run_id)

    stale = refresh.survey(pipeline.context, of)
    pipeline.analyze(SHORT, options=questions[1])

    assert [(row["analysis_type"], list(row["reasons"]), row["due"]) for row in stale] == [
        (AnalysisType.EXTRACTION, ["instructions"], 1)
    ]
    assert pipeline.rows(
        "SELECT analysis_type, count(reused_from), string_agg(options ->> 'instructions', '|'"
        " ORDER BY id) FROM jobs GROUP BY 1 ORDER BY 1"
    ) == [
        ("classification", 1, None),
        ("extraction", 0, "harbour|harbour, fee"),
        ("summary", 1, None),
    ]


def test_a_run_in_the_table_of_another_profile_keeps_its_own(settings: Settings) -> None:
    profiles = {name: Profile(save_as=name) for name in ("open", "closed")}
    of_table = settings.model_copy(update={"profiles": profiles})
    for profile, expected in (("open", "open"), ("", "open"), ("closed", "")):
        a_stored_run = Run(options={"profile": profile}, saved_as="open")
        assert refresh.profile_of(of_table, a_stored_run) == expected
