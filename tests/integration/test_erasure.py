"""Tests that forgotten documents leave no text anywhere, and that receipts say what remains."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import (
    Boolean,
    DateTime,
    Double,
    Integer,
    Numeric,
    Uuid,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.types import JSON, Date, LargeBinary, TypeEngine

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ExitCode, ModelRequestError, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline import erasure
from chordwise.pipeline.deliveries import delivery_attempts
from chordwise.pipeline.deliveries.receivers.file import AnswerFolder
from chordwise.pipeline.erasure import Eraser
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.settings import Profile, Settings
from chordwise.storage import erasures, model_calls
from chordwise.storage.documents import Document
from chordwise.storage.erasures import Erasure
from chordwise.storage.metadata import metadata
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run
from tests.fakes.batch_nights import in_batches, opened, over_the_wire, pass_time
from tests.fakes.commands import output_of, type_in
from tests.fakes.inbox_watch import LETTER, OTHER, watched
from tests.fakes.learning import say
from tests.fakes.pipeline import (
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
)
from tests.fakes.processes import wait_until
from tests.fakes.scheduling import a_scheduler_over, at_night
from tests.peers.batch_provider import BatchProvider
from tests.peers.batch_server import serving_batches

ANNA = (
    "Anna Berger of Harbour Lane was treated for a broken wrist on the third of May. "
    "Her doctor advised six weeks of rest without lifting anything heavy at all."
)
BERTA = "Berta Huber came in for a yearly examination in June. Nothing was found wrong with her."
SHARED = " This clinic keeps the records of its patients for ten years after their last visit."
TEXT_COLUMNS = """
    SELECT table_name, column_name FROM information_schema.columns
    JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
        AND data_type IN ('text', 'json', 'jsonb', 'bytea', 'character varying', 'ARRAY')
        AND udt_name <> '_uuid'"""
COSTS = "SELECT run, calls, cost_usd FROM run_costs ORDER BY run"
ACCOUNTS = "SELECT intakes_balance, jobs_balance, accepted FROM run_accounts ORDER BY run"

# Tables whose rows of a document are deleted; every other one is in KEPT.
GONE = {
    *("documents", "intakes", "jobs", "chunks", "results", "result_history", "facts", "feedback"),
    *("learned_examples", "listed_files", "inbox_files", "inbox_intakes", "batch_requests"),
    *("cached_completions", "experiment_documents", "entity_values", "entity_decisions"),
    "incidents",
}
# Columns of other tables that can have a text of a document, which are emptied.
BATCH = "batch batch-1 of openai"
EMPTIED = {
    *("model_calls.source", "model_calls.examples", "model_calls.question"),
    *("model_calls.error_message", "judgments.expected", "judgments.found"),
    *("schedule_runs.outcome", "schedule_runs.error_message", "schedule_runs.hint"),
    *("deliveries.content", "deliveries.last_error"),
}
# Tables of settings, names, numbers and money; a text in them is reported.
KEPT = {
    *("model_calls", "judgments", "schedule_runs", "deliveries", "runs", "schedules", "outbox"),
    *("prompt_versions", "answer_tables", "budgets", "batches", "evaluations", "calibrations"),
    *("evaluation_measures", "certifications", "experiments", "experiment_variants"),
    *(
        "erasures",
        "audit_events",
        "api_tokens",
        "closed_profiles",
        "reader_keys",
        "reader_logins",
        "schema_versions",
        "alembic_version",
    ),
}


def forget(
    pipeline: Pipeline, *names: str, where: str = "", with_files: bool = False
) -> Sequence[Erasure]:
    context = pipeline.context
    with context.database.read() as session:
        ids = erasure.find(session, context.settings, names=names, where=where)
        doomed, busy = erasure.plan(session, ids)
    assert not busy
    eraser = Eraser(
        context=context,
        write=context.database.commit,
        selected_by="document",
        requested_by="Clara",
        with_files=with_files,
    )
    return eraser.forget(doomed)


def places(receipt: Erasure) -> set[str]:
    return {str(rest["place"]) for rest in receipt.remaining}


def holding(pipeline: Pipeline, passage: str) -> set[str]:
    """Return the columns that hold a passage, by a search without code of the package."""
    coded = passage.encode().hex()
    columns = set()
    for table, column in pipeline.rows(TEXT_COLUMNS):
        value = f'CAST("{column}" AS text)'
        spelled = f"regexp_replace({value}, '[^[:alnum:]]+', ' ', 'g') LIKE '%{passage}%'"
        query = f"SELECT count(*) FROM {table} WHERE {spelled} OR {value} LIKE '%{coded}%'"  # noqa: S608 - ours
        if pipeline.value(query):
            columns.add(f"{table}.{column}")
    return columns


def planted(kind: TypeEngine[object], content: str) -> object:
    """Return a value of a column's type, with the content if the type can hold it."""
    match kind:
        case ARRAY():
            return [planted(kind.item_type, content)]
        case JSONB() | JSON():
            return {"said": [content]}
        case LargeBinary():
            return content.encode()
        case Boolean():
            return False
        case Integer() | Numeric() | Double():
            return 1
        case DateTime() | Date():
            return text("now()")
        case Uuid():
            return new_id()
    return content


def plant(pipeline: Pipeline, content: str, known: Mapping[str, object]) -> None:
    """Insert a row of one document into each table, with the content in all columns of texts."""
    ids: dict[str, object] = {}
    with pipeline.context.database.write() as session:
        for table in metadata.sorted_tables:
            if table.name == "erasures":
                continue
            values = {
                column.name: ids.setdefault(
                    _referenced(
                        table.name,
                        column.name,
                        [key.target_fullname for key in column.foreign_keys],
                    ),
                    new_id(),
                )
                if isinstance(column.type, Uuid)
                else known.get(f"{table.name}.{column.name}", planted(column.type, content))
                for column in table.columns
                if column.computed is None
            }
            for name in ("reused_from", "withdraws", "schedule_run_id"):
                if name in values:
                    values[name] = None
            session.execute(insert(table).values(values))


def _referenced(table: str, column: str, keys: Sequence[str]) -> str:
    """Return the table whose id a column has."""
    if keys:
        return keys[0].partition(".")[0]
    of_others = {"id": table, "document_id": "documents", "owner_id": "chunks"}
    return of_others.get(column, f"{table}.{column}")


def test_every_table_is_gone_or_kept(pipeline: Pipeline) -> None:
    """A new table has to be decided here, and a new column of a kept one is reported."""
    tables = {str(table) for table, _ in pipeline.rows(TEXT_COLUMNS)} | set(metadata.tables)

    assert tables == GONE | KEPT
    assert not GONE & KEPT


def test_a_text_that_is_everywhere_is_removed_or_reported(pipeline: Pipeline) -> None:
    home = pipeline.context.settings.home
    files = [home / folder / "planted.txt" for folder in ("", "logs", "run", "valkey", "web/deep")]
    for path in (*files, home / "postgres" / "not-searched.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"It says: {ANNA}\n")
    with zipfile.ZipFile(home / "logs" / "old.zip", "w") as archive:
        archive.writestr("old.log", json.dumps({"text": ANNA}))
    passage = ANNA[:30].replace(".", "")
    plant(
        pipeline,
        ANNA,
        {
            "answer_tables.columns": [],
            "batches.provider": "openai",
            "batches.provider_id": "batch-1",
        },
    )
    before = holding(pipeline, passage)
    assert {column.partition(".")[0] for column in before} >= GONE - {
        *("inbox_intakes", "experiment_documents")
    }
    assert before >= EMPTIED

    (receipt,) = forget(pipeline, ANNA)

    after = holding(pipeline, passage)
    in_tables = {place for place in places(receipt) if "/" not in place} - {
        "batch batch-1 of openai"
    }
    assert after == in_tables
    assert not after & EMPTIED
    assert {column for column in after if column.partition(".")[0] in GONE} == set()
    assert places(receipt) - in_tables == {
        *map(str, files),
        str(home / "logs" / "old.zip"),
        BATCH,
    }
    assert pipeline.value("SELECT cost_usd FROM model_calls") == 1


def clinic(settings: Settings) -> Pipeline:
    return a_pipeline(settings, quoting_the_text, repeat_last=True)


def test_another_document_with_the_same_passages_is_kept(settings: Settings) -> None:
    pipeline = clinic(settings)
    pipeline.analyze(a_document(ANNA + SHARED, "anna.txt"), a_document(BERTA + SHARED, "berta.txt"))
    costs = pipeline.rows(COSTS)

    (receipt,) = forget(pipeline, "anna.txt")

    other = pipeline.value("SELECT id FROM documents")
    assert receipt.shared_with == [str(other)]
    assert receipt.remaining == []
    assert receipt.passages
    assert receipt.verified_at is not None
    assert (receipt.selected_by, receipt.requested_by) == ("document", "Clara")
    assert {"documents", "jobs", "chunks", "results", "facts", "intakes", "cached_completions"} <= (
        receipt.removed.keys()
    )
    assert holding(pipeline, "Anna Berger of Harbour Lane") == set()
    assert pipeline.value("SELECT count(*) FROM document_results") == 1
    assert pipeline.value("SELECT count(*) FROM cached_completions") == 1
    assert pipeline.rows(COSTS) == costs
    assert pipeline.rows(ACCOUNTS) == [(True, True, 1)]
    stored = pipeline.rows("SELECT id, sha256, remaining, passages FROM erasures")
    assert stored == [(receipt.id, receipt.sha256, [], receipt.passages)]


def test_a_document_with_the_same_text_only_elsewhere_says_so(settings: Settings) -> None:
    pipeline = clinic(settings)
    pipeline.analyze(a_document(ANNA, "anna.txt"), a_document(f"{ANNA} {BERTA}", "both.txt"))

    (receipt,) = forget(pipeline, "anna.txt")

    assert receipt.passages == 0
    assert len(receipt.shared_with or ()) == 1


def test_a_text_of_two_runs_is_forgotten_in_both(settings: Settings) -> None:
    pipeline = clinic(settings)
    for _ in range(2):
        pipeline.analyze(a_document(ANNA, "anna.txt"), a_document(BERTA, "berta.txt"))

    forget(pipeline, "anna.txt")

    assert pipeline.rows(ACCOUNTS) == [(True, True, 1), (True, True, 1)]
    assert holding(pipeline, "Anna Berger of Harbour Lane") == set()


def test_what_people_taught_is_forgotten(pipeline: Pipeline) -> None:
    texts = {
        name: f"{name} says: CHOOSE invoice 0.9 and nothing else." for name in ("anna", "berta")
    }
    kinds, labels = a_run(AnalysisType.CLASSIFICATION), ("invoice", "letter")
    options = replace(kinds, analysis=AnalysisOptions(labels=labels), profile="bills")
    pipeline.analyze(*(a_document(text, name) for name, text in texts.items()), options=options)
    say(pipeline, "corrected", ["anna"], path="/primary_label", value="letter")
    plain = a_document("Carl says: CHOOSE invoice 0.9 and nothing more at all.", "carl")
    pipeline.analyze(plain, options=replace(options, name="second"))
    assert pipeline.value("SELECT count(*) FROM learned_examples")
    assert "anna says" in pipeline.model.requests[-1].user

    (receipt,) = forget(pipeline, "anna")

    assert receipt.removed["learned_examples"]
    assert receipt.removed["feedback"]
    assert receipt.remaining == []
    assert holding(pipeline, "anna says") == set()


def test_a_call_that_ends_after_the_erasure_stores_nothing(settings: Settings) -> None:
    """Neither its answer, nor the message of an error, nor a result is written."""
    receipts: list[Erasure] = []

    def late(_request: CompletionRequest) -> str | ModelRequestError:
        with pipeline.context.database.read() as session:
            run = session.scalars(select(Run).order_by(Run.id.desc()).limit(1)).one()
        run_control.cancel(pipeline.context.database, run.id)
        receipts.extend(forget(pipeline, "anna.txt"))
        is_refused = not run.use_cache
        return ModelRequestError(f"It refuses “{ANNA}”") if is_refused else a_summary(ANNA[:60])

    for use_cache in (True, False):
        pipeline = a_pipeline(settings, late, repeat_last=True)
        options = replace(a_run(), use_cache=use_cache)
        submission = pipeline.submit(a_document(ANNA, "anna.txt"), options=options)
        job = pipeline.job(submission)
        fan_out(pipeline.context, job.id)
        for chunk_id in pipeline.open_chunks(job.id):
            analyze_chunk(pipeline.context, chunk_id)
        synthesize(pipeline.context, job.id)

        assert holding(pipeline, "Anna Berger of Harbour Lane") == set()
        assert pipeline.value("SELECT count(*) FROM results") == 0
    assert [receipt.remaining for receipt in receipts] == [[], []]
    calls = "SELECT job_id, error_code IS NULL FROM model_calls WHERE finished_at IS NOT NULL"
    assert pipeline.rows(calls) == [(None, True), (None, False)]


def test_a_call_that_ends_during_the_erasure_stores_nothing(settings: Settings) -> None:
    """Its end waits for the row of the call, and then sees that the document is forgotten."""
    pipeline = clinic(settings)
    pipeline.analyze(a_document(ANNA, "anna.txt"))
    pipeline.execute("DELETE FROM cached_completions")
    ((call_id, question, document_id),) = pipeline.rows(
        "SELECT c.id, question, document_id FROM model_calls c JOIN jobs j ON j.id = job_id"
    )
    end = {"id": call_id, "question": question, "completion": {"text": ANNA}}

    def end_late() -> None:
        with pipeline.context.database.transaction() as connection:
            model_calls.end_all(connection, [{**end, "error_message": ANNA}])

    with ThreadPoolExecutor() as threads:
        with pipeline.context.database.write() as session:
            erasures.erase(session, uuid.UUID(str(document_id)))
            late = threads.submit(end_late)
            blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: bool(pipeline.value(blocked)), 10, "the end waits")
        late.result(10)

    assert question
    assert holding(pipeline, "Anna Berger of Harbour Lane") == set()


@pytest.mark.usefixtures("addressed")
def test_a_document_that_is_worked_on_is_kept(settings: Settings) -> None:
    pipeline = clinic(settings)
    pipeline.submit(a_document(ANNA, "anna.txt"))

    output = output_of("forget", "anna.txt", "--yes", "--json", code=ExitCode.INCOMPLETE)

    document = pipeline.value("SELECT id FROM documents")
    assert json.loads(output.out)["worked_on"] == [str(document)]
    assert json.loads(output.out)["receipts"] == []


@pytest.mark.usefixtures("addressed")
def test_the_command_asks_and_prints_a_receipt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = clinic(settings)
    pipeline.analyze(a_document(ANNA, "anna.txt"), a_document(BERTA, "berta.txt"))

    plan = output_of("forget", "--where", "source LIKE 'anna%'", "--dry-run", "--json")
    (entry,) = json.loads(plan.out)["documents"]
    assert entry["source"] == "anna.txt"
    assert "Confirm with --yes" in output_of("forget", "anna.txt", code=ExitCode.USAGE).err
    type_in(monkeypatch, "n")
    assert (
        "Delete 1 document for good?" in output_of("forget", "anna.txt", code=ExitCode.INTERNAL).err
    )
    assert pipeline.value("SELECT count(*) FROM documents") == 2
    type_in(monkeypatch, "y")
    assert "receipt" in output_of("forget", "anna.txt").err
    assert pipeline.value("SELECT count(*) FROM documents") == 1
    assert "no document “anna.txt”" in output_of("forget", "anna.txt", code=ExitCode.USAGE).err
    output_of("forget", "anna.txt", "--older-than", "3", code=ExitCode.USAGE)
    output_of("forget", "--where", "DROP TABLE documents", code=ExitCode.USAGE)
    done = output_of("forget", "--older-than", "0", "--yes", "--json")
    assert [r["selected_by"] for r in json.loads(done.out)["receipts"]] == ["older_than"]
    assert pipeline.value("SELECT count(*) FROM documents") == 0


def test_a_schedule_forgets_what_its_profiles_keep_no_longer(settings: Settings) -> None:
    profiles = {"short": Profile(keep_days=30), "long": Profile(keep_days=400), "always": Profile()}
    pipeline = clinic(settings.model_copy(update={"profiles": profiles}))
    for name in ("short", "long", "always"):
        pipeline.analyze(
            a_document(f"{name}: {ANNA}", name),
            a_document(f"{BERTA} shared", "shared"),
            options=replace(a_run(), profile=name),
        )
    pipeline.execute("UPDATE intakes SET created_at = created_at - interval '40 days'")
    scheduler = a_scheduler_over(pipeline, tidy=at_night("forget --expired"))
    scheduler.start_at("2026-03-28T02:31")

    assert scheduler.carry_out()

    assert scheduler.rows("SELECT source FROM documents ORDER BY 1") == [
        ("always",),
        ("long",),
        ("shared",),
    ]
    assert scheduler.rows("SELECT status, outcome - 'output' FROM schedule_runs") == [
        ("succeeded", {"forgotten": 1, "worked_on": 0})
    ]
    assert scheduler.rows("SELECT selected_by, requested_by FROM erasures") == [
        ("expired", "schedule tidy")
    ]


def test_files_of_an_inbox_are_kept_unless_they_are_asked_for(
    tmp_path: Path, settings: Settings
) -> None:
    inbox = watched(tmp_path, settings)
    for name, content in (("a.txt", LETTER), ("b.txt", OTHER)):
        inbox.drop(name, content)
    inbox.deliver()
    done = inbox.folders.done
    sources = {name: str(inbox.folders.inbox / name) for name in ("a.txt", "b.txt")}
    assert {path.name for path in done.iterdir()} == {"a.txt", "a.txt.json", "b.txt", "b.txt.json"}

    (kept,) = forget(inbox.pipeline, sources["a.txt"])
    assert (kept.copies_kept, kept.remaining) == (1, [])
    assert (done / "a.txt").exists()
    (done / "b.txt").write_text("Another letter of this name.")
    inbox.pipeline.execute("UPDATE inbox_files SET sha256 = sha256")
    (changed,) = forget(inbox.pipeline, sources["b.txt"], with_files=True)
    assert places(changed) == {str(done / "b.txt")}

    inbox.drop("c.txt", f"{LETTER} Again.")
    inbox.deliver()
    (removed,) = forget(inbox.pipeline, str(inbox.folders.inbox / "c.txt"), with_files=True)
    assert removed.removed["files"] == 1
    assert {path.name for path in done.iterdir()} == {"a.txt", "a.txt.json", "b.txt", "b.txt.json"}
    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 0
    inbox.close()


def test_exports_of_schedules_and_deliveries_are_removed(
    tmp_path: Path, settings: Settings
) -> None:
    out, delivered = tmp_path / "out", tmp_path / "delivered"
    for folder in (out, delivered):
        folder.mkdir()
    receiver = AnswerFolder(folder=delivered)
    pipeline = clinic(settings.model_copy(update={"deliveries": {"file": receiver}}))
    run = pipeline.analyze(a_document(ANNA, "anna.txt"), a_document(BERTA, "berta.txt"))
    export = f"export document_results --output {out}/answers-{{due}}.xlsx"
    scheduler = a_scheduler_over(pipeline, weekly=at_night(export))
    scheduler.start_at("2026-03-28T02:31")
    assert scheduler.carry_out()
    assert delivery_attempts.deliver_next(pipeline.context)
    (out / "berta.jsonl").write_text(f"joanna.txt: {BERTA}")
    other = at_night(f"export document_results --output {out}/berta.jsonl --force")
    pipeline.execute(
        "INSERT INTO schedule_runs SELECT (json_populate_record(r, json_build_object("
        "'id', gen_random_uuid(), 'due_at', now(), 'run', CAST(:run AS text)))).*"
        " FROM schedule_runs r",
        run=other.run,
    )
    names = {path.name for folder in (out, delivered) for path in folder.iterdir()}
    assert names == {
        "answers-20260328-0130.xlsx",
        "berta.jsonl",
        f"{run.name.replace(' ', '_')}.jsonl",
        f"{run.name.replace(' ', '_')}.account.json",
    }

    (receipt,) = forget(pipeline, "anna.txt")

    assert receipt.removed["exports"] == 2
    left = {path.name for folder in (out, delivered) for path in folder.iterdir()}
    assert left == {"berta.jsonl", f"{run.name.replace(' ', '_')}.account.json"}


def test_a_document_is_found_by_the_end_of_its_name(settings: Settings) -> None:
    """As tables show it; a name of several documents is ambiguous."""
    pipeline = clinic(settings)
    pipeline.analyze(a_document(ANNA, "/a/anna.txt"), a_document(BERTA, "/b/anna.txt"))
    pipeline.analyze(a_document(f"{BERTA} Again.", "/b/berta.txt"))

    with pytest.raises(UsageError, match="Several documents") as caught:
        forget(pipeline, "anna.txt")
    assert caught.value.hint == "Give one of: /a/anna.txt, /b/anna.txt."
    document_id = pipeline.value("SELECT document_id FROM intakes WHERE source = '/b/berta.txt'")
    (receipt,) = forget(pipeline, "berta.txt")
    assert receipt.document_id == document_id


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_batches_at_the_provider_are_deleted(small_chunks: Settings, provider: str) -> None:
    with serving_batches() as server:
        pipeline = over_the_wire(small_chunks, provider, server.base_url)
        server.holds = True
        submission = pipeline.analyze(a_document(ANNA, "anna.txt"), options=in_batches())
        pass_time(pipeline)
        with pipeline.context.database.read() as session:
            ids = session.scalars(select(Document.id)).all()
            assert erasures.busy(session, ids) == set(ids)
        server.holds = False
        pass_time(pipeline)
        pipeline.work(submission)
        server.statuses["delete"] = 500

        document = pipeline.value("SELECT id FROM documents")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasures, "erase", _changed)
            assert forget(pipeline, str(document)) == []
        del server.statuses["delete"]
        (receipt,) = forget(pipeline, str(document))

        assert receipt.removed["batches"] == 1
        assert receipt.remaining == []
        assert not server.files if provider == "openai" else not server.batches
        assert holding(pipeline, "Anna Berger of Harbour Lane") == set()


def _changed(_session: Session, _document_id: uuid.UUID) -> dict[str, int]:
    raise erasures.ChangedDocumentError("The document was taken in again.")


def test_a_provider_that_refuses_is_named(small_chunks: Settings) -> None:
    provider = BatchProvider()
    pipeline = opened(small_chunks, provider)
    submission = pipeline.analyze(a_document(ANNA, "anna.txt"), options=in_batches())
    pass_time(pipeline)
    pass_time(pipeline)
    pipeline.work(submission)
    provider.statuses["delete"] = 500

    (receipt,) = forget(pipeline, "anna.txt")

    assert places(receipt) == {"batch batch-1 of scripted"}


def test_an_upload_with_other_documents_is_kept(settings: Settings) -> None:
    pipeline = clinic(settings)
    path = settings.home / "web" / "uploads" / uuid.uuid4().hex / "1" / "file.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00")
    pipeline.analyze(a_document(ANNA, "rows.csv#1"), a_document(BERTA, "rows.csv#2"))
    pipeline.execute("UPDATE intakes SET raw_path = :path", path=bytes(path))

    (first,) = forget(pipeline, "rows.csv#1")
    assert first.remaining == [{"place": str(path), "reason": erasure.OTHERS_IN_FILE}]
    (last,) = forget(pipeline, where="true")
    assert last.removed["files"] == 1
    assert not path.exists()
