"""Tests of intake: documents in files become rows of a run in batches, each of them once."""

from __future__ import annotations

import io
import re
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.states import JobStatus
from chordwise.errors import LeaseLostError, ReadError, RunCancelledError
from chordwise.pipeline.intake import document_batches, found_files
from chordwise.pipeline.intake.document_batches import (
    MAX_BYTES,
    MAX_DOCUMENTS,
    BatchWriter,
    Offered,
)
from chordwise.pipeline.intake.found_files import FileSource, Hooks
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission, claim, open_run
from chordwise.pipeline.jobs import run_control
from chordwise.readers.discovery import discover
from chordwise.readers.reader import (
    Columns,
    ReadDocument,
    Reader,
    ReadingInterruptedError,
    UnreadDocument,
)
from chordwise.settings import ReaderSettings, Settings
from chordwise.storage.record import new_id
from tests.fakes.counting import counting
from tests.fakes.office_files import (
    archive,
    document,
    docx,
    form,
    open_document,
    paragraph,
    pdf,
    presentation,
    shape,
    shown,
    workbook,
)
from tests.fakes.pipeline import (
    NOW,
    PARAGRAPH,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    offered,
    quoting_the_text,
    with_settings,
)

TRANSACTION_LIMIT = 8
STATEMENT_LIMIT = 45


"""The run, the list, three batches and the end of the intake: the same for 100 files and for 500
rows. A file in a transaction of its own takes more than a thousand statements for 100."""


def a_letter(number: int) -> ReadDocument:
    return a_document(f"Letter {number}. {PARAGRAPH}", f"{number}.txt")


@pytest.fixture
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_batches, "FLUSH_SECONDS", 60)


def a_folder(tmp_path: Path, files: int) -> str:
    folder = tmp_path / "letters"
    folder.mkdir()
    for number in range(files):
        (folder / f"{number:03}.txt").write_text(f"Letter {number}. {PARAGRAPH}", "utf-8")
    return str(folder)


def a_table(tmp_path: Path) -> Path:
    table = tmp_path / "rows.csv"
    table.write_text("text\n" + "".join(f"Row {n}. It is good.\n" for n in range(500)), "utf-8")
    return table


def with_columns(columns: Columns) -> RunOptions:
    return replace(a_run(), text_column=columns.text, id_column=columns.identity)


def take_in(
    pipeline: Pipeline,
    *paths: str,
    columns: Columns | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[Submission, list[str], bool]:
    entries = [found_files.entry_of(file) for file in discover(paths)]
    options = with_columns(columns or Columns())
    submission = open_run(pipeline.context, options, NOW, entries)
    shown: list[str] = []
    with Reader(ReaderSettings()) as reader:
        is_whole = found_files.take_in(
            pipeline.context,
            submission,
            FileSource(reader, io.BytesIO()),
            Hooks(on_taken=lambda offered: shown.append(offered.name), is_stopped=is_stopped),
        )
    return submission, shown, is_whole


@pytest.mark.usefixtures("whole_batches")
def test_a_hundred_files_and_five_hundred_rows_need_few_transactions(
    settings: Settings, tmp_path: Path
) -> None:
    """Rows are one entry on the list, which counts them as they are taken in."""
    # Heartbeats of a slow machine must not be counted.
    pipeline = a_pipeline(with_settings(settings, "pipeline", heartbeat_seconds=600))
    folder, table = a_folder(tmp_path, 100), a_table(tmp_path)

    with counting(pipeline) as counts:
        _, shown, is_whole = take_in(pipeline, folder)

    assert counts.transactions <= TRANSACTION_LIMIT
    assert counts.statements <= STATEMENT_LIMIT
    assert is_whole
    assert shown == sorted(shown)
    assert pipeline.value("SELECT array_agg(source ORDER BY id) FROM intakes") == shown
    jobs = "SELECT array_agg(i.source ORDER BY j.id) FROM jobs AS j JOIN intakes AS i"
    assert pipeline.value(f"{jobs} ON i.id = j.intake_id") == shown
    messages = "SELECT array_agg(id ORDER BY due_at, id) FROM outbox"
    assert pipeline.value(messages) == pipeline.value(
        "SELECT array_agg(id ORDER BY job_id) FROM chunks"
    )
    assert pipeline.value("SELECT count(*) FROM listed_files") == 0
    assert pipeline.value("SELECT intakes_balance AND accepted = 100 FROM run_accounts")

    with counting(pipeline) as counts:
        rows, _, _ = take_in(pipeline, str(table), columns=Columns(text="text"))

    assert counts.transactions <= TRANSACTION_LIMIT
    assert counts.statements <= STATEMENT_LIMIT
    assert pipeline.value(
        "SELECT intakes_balance AND jobs_balance AND intakes_found = 500 AND accepted = 500"
        " FROM run_accounts WHERE run_id = :run",
        run=rows.run_id,
    )
    of_run = "SELECT array_agg(source ORDER BY id) FROM intakes WHERE run_id = :run"
    listed = pipeline.value(of_run, run=rows.run_id)
    assert listed == [f"{table}#{number}" for number in range(1, 501)]


def test_a_stop_leaves_the_other_rows_on_the_list(settings: Settings, tmp_path: Path) -> None:
    pipeline, table = a_pipeline(settings), a_table(tmp_path)
    stops = iter([False] * 300)

    submission, _, is_whole = take_in(
        pipeline, str(table), columns=Columns(text="text"), is_stopped=lambda: next(stops, True)
    )

    assert not is_whole
    taken = pipeline.value("SELECT documents_taken FROM listed_files")
    assert taken == pipeline.value("SELECT accepted FROM run_accounts") == 300
    resumed = claim(pipeline.context, submission.run_id)
    assert resumed is not None
    with Reader(ReaderSettings()) as reader:
        found_files.take_in(pipeline.context, resumed, FileSource(reader, io.BytesIO()))
    assert pipeline.value("SELECT count(DISTINCT source) = 500 AND count(*) = 500 FROM intakes")
    assert pipeline.value("SELECT intakes_balance AND intakes_found = 500 FROM run_accounts")


def test_the_same_content_twice_in_a_batch_is_one_document(settings: Settings) -> None:
    """A batch takes up to a second; the ends of jobs lock the run without waiting for it."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)

    def lock_the_run(_session: Session, _batch: Sequence[Offered]) -> None:
        locked = "SELECT 1 FROM runs WHERE id = :id FOR NO KEY UPDATE NOWAIT"
        assert pipeline.value(locked, id=submission.run_id) == 1

    submission.take_in(offered(a_letter(2), a_letter(1), a_letter(2)), lock_the_run)
    submission.close()

    outcomes = pipeline.value("SELECT array_agg(outcome ORDER BY id) FROM intakes")
    assert outcomes == ["accepted", "accepted", "duplicate"]
    assert pipeline.value("SELECT count(*) FROM documents") == 2
    assert pipeline.value("SELECT count(*) FROM jobs") == 2
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


def test_files_that_show_more_than_their_text_are_one_document_only_if_equal(
    settings: Settings, tmp_path: Path
) -> None:
    """Two people who fill in one form hand in two documents."""
    printed = shown("Application for a permit")
    picture = '<img src="data:image/png;base64,{}">'
    of_ada, of_bob = (
        docx(document(paragraph("I agree.")), {"word/media/image1.png": by}) for by in "ab"
    )
    files = {
        "form of Ada.pdf": form(printed, {"name": "Ada"}),
        "form of Bob.pdf": form(printed, {"name": "Bob"}),
        "form of Bob again.pdf": form(printed, {"name": "Bob"}),
        "signed by Ada.docx": of_ada,
        "signed by Bob.docx": of_bob,
        "Ada.html": f"<p>A page.{picture.format('QQ==')}".encode(),
        "Bob.html": f"<p>A page.{picture.format('Qg==')}".encode(),
        "permit.txt": b"Application for a permit",
        "permit.pdf": pdf([printed]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pipeline = a_pipeline(settings)

    take_in(pipeline, str(tmp_path))

    duplicates = pipeline.rows("SELECT source FROM intakes WHERE outcome = 'duplicate'")
    names = {Path(str(source)).stem.removesuffix(" again") for (source,) in duplicates}
    assert names == {"form of Bob", "permit"}
    assert pipeline.value("SELECT count(*) FROM documents") == len(files) - 2
    said = "SELECT DISTINCT reason || ' ' || message FROM intakes WHERE reason = 'fields_unread'"
    assert pipeline.value(said) == "fields_unread 1 field of its form was not read."


@pytest.mark.parametrize("bad", ["A text with a zero\0in it.", "Half a character: \ud800."])
def test_an_unstorable_document_does_not_affect_others(settings: Settings, bad: str) -> None:
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    document = a_letter(0)
    document = replace(document, source="bad.txt", content=replace(document.content, text=bad))
    batch = offered(a_letter(1), a_letter(2), document, a_letter(3))

    submission.take_in(batch)
    submission.close()

    outcomes = pipeline.value("SELECT array_agg(outcome ORDER BY id) FROM intakes")
    assert outcomes == ["accepted", "accepted", "unreadable", "accepted"]
    stored = pipeline.rows("SELECT source, coalesce(reason, '') FROM intakes ORDER BY id")
    assert stored == [("1.txt", ""), ("2.txt", ""), ("bad.txt", "unstorable"), ("3.txt", "")]
    assert pipeline.value("SELECT count(*) FROM jobs") == 3
    message = pipeline.value("SELECT message FROM intakes WHERE reason = 'unstorable'")
    assert re.match(r"bad\.txt has a text that cannot be stored: .", str(message))
    assert pipeline.value("SELECT intakes_balance AND intakes_found = 4 FROM run_accounts")


def test_stored_answers_are_reused_by_the_batch(settings: Settings) -> None:
    """A batch may follow a question that is being asked."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    options = a_run(AnalysisType.SUMMARY)
    first = pipeline.submit(*(a_letter(n).content.text for n in range(3)), options=options)
    pipeline.work(first)
    pipeline.execute("DELETE FROM outbox")
    submission = open_run(pipeline.context, a_run(AnalysisType.SUMMARY), NOW)

    with counting(pipeline) as counts:
        submission.take_in(offered(*map(a_letter, range(5))))
    submission.close()

    assert counts.statements <= 20
    assert pipeline.value("SELECT count(*) FROM outbox") == 2
    copies = [job for job in pipeline.jobs(submission) if job.status == JobStatus.SUCCEEDED]
    assert [copy.reused_from for copy in copies] == [job.id for job in pipeline.jobs(first)]
    assert all(copy.finished_at is not None for copy in copies)
    for copy in copies:
        original, result = pipeline.result(copy.reused_from or copy.id), pipeline.result(copy.id)
        assert (result.output, result.id != original.id) == (original.output, True)
    facts = "SELECT count(*) FROM facts WHERE job_id = ANY(:ids)"
    of_copies = pipeline.value(facts, ids=[copy.id for copy in copies])
    assert of_copies == pipeline.value(facts, ids=[copy.reused_from for copy in copies])
    following = open_run(pipeline.context, replace(a_run(), follows=True), NOW)
    following.take_in(offered(*map(a_letter, range(3, 6))))
    leaders = [job.id for job in pipeline.jobs(submission)[3:]]
    assert [job.reused_from for job in pipeline.jobs(following)] == [*leaders, None]
    assert pipeline.value("SELECT count(*) FROM outbox") == 3


def test_two_runs_may_store_the_same_documents_concurrently(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    letters = offered(*map(a_letter, range(150)))
    backwards = [replace(letter, intake_id=new_id()) for letter in reversed(letters)]
    runs = [open_run(pipeline.context, replace(a_run(), name=name), NOW) for name in ("one", "two")]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(Submission.take_in, runs, (letters, backwards)))

    assert pipeline.value(deadlocks) == 0
    assert pipeline.value("SELECT count(*) FROM documents") == 150
    assert pipeline.value("SELECT count(*) FROM jobs") == 300


def test_a_batch_of_a_cancelled_or_lost_run_is_not_stored(settings: Settings) -> None:
    """It may be cancelled while the batch is stored."""
    pipeline = a_pipeline(settings)
    cancelled, meanwhile, lost = (
        open_run(pipeline.context, replace(a_run(), name=name), NOW)
        for name in ("cancelled", "meanwhile", "lost")
    )
    run_control.cancel(pipeline.context.database, cancelled.run_id)
    other = "UPDATE runs SET lease_token = :other WHERE name = 'lost'"
    pipeline.execute(other, other=uuid.uuid4())

    def cancel_the_run(_session: Session, _batch: Sequence[Offered]) -> None:
        run_control.cancel(pipeline.context.database, meanwhile.run_id)

    unreadable = UnreadDocument(source="a.pdf", error=ReadError("a.pdf is a scan."))
    for batch in ([*map(a_letter, range(3))], [unreadable]):
        with pytest.raises(RunCancelledError, match="cancelled"):
            cancelled.take_in(offered(*batch))
    with pytest.raises(RunCancelledError):
        meanwhile.take_in(offered(a_letter(1)), cancel_the_run)
    with pytest.raises(LeaseLostError):
        lost.take_in(offered(*map(a_letter, range(3))))

    for table in ("intakes", "jobs", "outbox"):
        assert pipeline.value(f"SELECT count(*) FROM {table}") == 0  # noqa: S608


class Writing:
    """A store that can be blocked, and the batches that it received."""

    def __init__(self) -> None:
        self.batches: list[list[Offered]] = []
        self.may_store = threading.Event()
        self.has_begun = threading.Event()

    def store(self, batch: Sequence[Offered]) -> None:
        self.has_begun.set()
        assert self.may_store.wait(30)
        self.batches.append(list(batch))


@pytest.mark.usefixtures("whole_batches")
def test_batches_are_bounded_by_count_and_by_bytes() -> None:
    writing = Writing()
    writing.may_store.set()
    large = a_document("a" * (MAX_BYTES // 3))
    things = offered(*map(a_letter, range(MAX_DOCUMENTS + 50)), *[large] * 8)

    with BatchWriter(writing.store) as writer:
        for thing in things:
            writer.put(thing)

    stored = [row for batch in writing.batches for row in batch]
    assert [row.intake_id for row in stored] == [thing.intake_id for thing in things]
    assert max(map(len, writing.batches)) == MAX_DOCUMENTS
    assert all(sum(e.byte_count for e in batch) < 2 * MAX_BYTES for batch in writing.batches)
    assert 4 <= len(writing.batches) <= 6


def test_reading_waits_while_two_batches_are_held() -> None:
    """Documents that are put in the meantime do not use unbounded memory."""
    writing, are_put = Writing(), []

    def put_all() -> None:
        with BatchWriter(writing.store) as writer:
            for letter in offered(*map(a_letter, range(5 * MAX_DOCUMENTS))):
                writer.put(letter)
                are_put.append(letter)

    putting = threading.Thread(target=put_all)
    putting.start()
    assert writing.has_begun.wait(30)
    putting.join(1)
    held = len(are_put)
    writing.may_store.set()
    putting.join(30)

    assert held <= 2 * MAX_DOCUMENTS
    assert sum(map(len, writing.batches)) == len(are_put) == 5 * MAX_DOCUMENTS


def test_an_error_in_a_batch_ends_the_reading() -> None:
    """A slow file does not delay documents read before it; an interruption stores no more.

    What was read before the reader of a file was interrupted is stored.
    """
    stored: list[int] = []
    is_stored = threading.Event()

    def fail(batch: Sequence[Offered]) -> None:
        stored.append(len(batch))
        raise LeaseLostError("Another process takes in.")

    def put(count: int) -> None:
        with BatchWriter(fail) as writer:
            for letter in offered(*map(a_letter, range(count))):
                writer.put(letter)

    def interrupted(error: BaseException) -> None:
        with BatchWriter(writing.store) as writer:
            writer.put(Offered(document=a_letter(1)))
            assert writing.has_begun.wait(30)
            writer.put(Offered(document=a_letter(2)))
            writing.may_store.set()
            raise error

    with BatchWriter(lambda _batch: is_stored.set()) as writer:
        writer.put(Offered(document=a_letter(1)))
        assert is_stored.wait(30)
    for count in (1, 3 * MAX_DOCUMENTS):
        stored.clear()
        with pytest.raises(LeaseLostError):
            put(count)
        assert len(stored) == 1
    for error, documents in ((KeyboardInterrupt(), 1), (ReadingInterruptedError(), 2)):
        writing = Writing()
        with pytest.raises(type(error)):
            interrupted(error)
        assert sum(map(len, writing.batches)) == documents


def test_new_ids_are_ascending() -> None:
    ids = [new_id() for _ in range(20_000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {key.version for key in ids} == {7}


SETTINGS = ReaderSettings(max_documents=50)
STRANGE = {
    "nul.txt": b"a\0b",
    "surrogate.txt": b"a\xed\xa0\x80b",
    "noncharacter.txt": "a\ufdd0\uffffb".encode(),
    "combining.txt": b"a" + "\u0301".encode() * 500_000,
    "invisible.txt": "c\u200b\u2060\U000e0041d".encode(),
    "cp1252.txt": "Gr\xfc\xdfe \x96 aus K\xf6ln".encode("latin-1"),
    "wide.txt": "without a mark".encode("utf-16-le"),
    "ends.txt": b"a\r\nb\rc\n",
    "noise.txt": bytes(range(256)) * 50,
    "blank.txt": b" \n\t ",
}


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings)


def outcomes_of(
    pipeline: Pipeline, *arguments: str, columns: Columns, stdin: bytes = b""
) -> list[str]:
    entries = [found_files.entry_of(file) for file in discover(arguments)]
    submission = open_run(pipeline.context, with_columns(columns), NOW, entries)
    with Reader(SETTINGS) as reader:
        source = FileSource(reader, io.BytesIO(stdin))
        found_files.take_in(pipeline.context, submission, source)
    listed = pipeline.value(
        "SELECT array_agg(source || ' ' || outcome ORDER BY id) FROM intakes WHERE run_id = :run",
        run=submission.run_id,
    )
    assert isinstance(listed, list)
    counted = "SELECT intakes_found FROM run_accounts WHERE run_id = :run AND intakes_balance"
    assert pipeline.value(counted, run=submission.run_id) == len(listed)
    return listed


def test_every_row_and_part_of_a_file_has_an_intake(pipeline: Pipeline, tmp_path: Path) -> None:
    """Documents that a limit leaves out are reported."""
    rows = b"id,review\na,Fine.\nb,\nc,Fine.\n"
    path, many = tmp_path / "a.zip", tmp_path / "a.jsonl"
    path.write_bytes(archive({"r.csv": rows, "x.bin": "\x01\x02\x03" * 100}))
    many.write_text("".join(f'{{"t": "{number}"}}\n' for number in range(60)))
    columns = Columns(text="review", identity="id")

    taken = outcomes_of(pipeline, str(path), "-", columns=columns, stdin=b"review\nPoor.\n")
    limited = outcomes_of(pipeline, str(many), columns=Columns(text="t"))

    assert taken == [
        f"{path}#r.csv#a accepted",
        f"{path}#r.csv#b empty",
        f"{path}#r.csv#c duplicate",
        f"{path}#x.bin unsupported",
        "stdin#1 accepted",
    ]
    assert limited == [*(f"{many}#{n} accepted" for n in range(1, 51)), f"{many} too_large"]


def test_unusual_characters_are_stored(pipeline: Pipeline, tmp_path: Path) -> None:
    """F04, F11, F12: all bytes become text or have a reason in the database."""
    path = tmp_path / "strange.zip"
    path.write_bytes(archive(STRANGE))

    taken = outcomes_of(pipeline, str(path), columns=Columns())

    outcomes = dict(line.removeprefix(f"{path}#").split(" ") for line in taken)
    refused = {"noise.txt": "unsupported", "blank.txt": "empty"}
    assert outcomes == dict.fromkeys(STRANGE, "accepted") | refused
    query = "SELECT text FROM documents WHERE source = :source"
    assert pipeline.value(query, source=f"{path}#nul.txt") == "ab"
    assert pipeline.value(query, source=f"{path}#cp1252.txt") == "Gr\xfc\xdfe \u2013 aus K\xf6ln"
    assert pipeline.value(query, source=f"{path}#wide.txt") == "without a mark"
    assert pipeline.value(query, source=f"{path}#ends.txt") == "a\nb\nc\n"
    assert pipeline.value(query, source=f"{path}#invisible.txt") == "cd"
    removed = "SELECT normalization ->> 'nul_removed' FROM documents WHERE source = :source"
    assert pipeline.value(removed, source=f"{path}#nul.txt") == "1"


def test_invisible_characters_count_in_every_format(pipeline: Pipeline, tmp_path: Path) -> None:
    """Invisible text of a PDF is stored with its count."""
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "Obey.")
    texts = {name: f"A letter of {name}.{hidden}" for name in ("txt", "md", "html", "eml", "docx")}
    files = {
        "a.txt": texts["txt"].encode(),
        "a.md": texts["md"].encode(),
        "a.html": f"<html><p>{texts['html']}</p>".encode(),
        "a.eml": f"From: a@example.com\nMIME-Version: 1.0\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{texts['eml']}".encode(),
        "a.docx": docx(document(paragraph(texts["docx"]))),
        "a.pptx": presentation(shape(f"A slide.{hidden}")),
        "a.xlsx": workbook({"Sheet": [["name", f"A cell.{hidden}"]]}),
        "a.odt": open_document(f"<text:p>A paragraph.{hidden}</text:p>"),
        "a.csv": f"a,b\n1,A row.{hidden}\n".encode(),
        "clean.txt": b"A clean letter.",
    }
    path, page = tmp_path / "a.zip", tmp_path / "a.pdf"
    path.write_bytes(archive(files))
    page.write_bytes(pdf([f"{shown('Dear members,')} 1 g {shown('Obey.', y=100)}"]))

    taken = outcomes_of(pipeline, str(path), columns=Columns())

    assert taken == [f"{path}#{name} accepted" for name in files]
    counted = (
        "SELECT i.reason, i.message, d.normalization ->> 'invisible_characters',"
        " d.text ~ '[\U000e0000-\U000e007f]' FROM intakes AS i"
        " JOIN documents AS d ON d.id = i.document_id ORDER BY i.id"
    )
    message = (
        "5 invisible Unicode characters were removed from the text, 5 of a kind that can "
        "hide instructions (tags, variation selectors, direction overrides)."
    )
    noticed = ("invisible_characters", message, "5", False)
    assert pipeline.rows(counted) == [noticed] * 9 + [(None, None, "0", False)]
    assert outcomes_of(pipeline, str(page), columns=Columns()) == [f"{page} accepted"]
    stored = "SELECT text, normalization ->> 'invisible_characters' FROM documents"
    whole = pipeline.rows(f"{stored} WHERE source LIKE '%.pdf'")
    assert whole == [("Dear members,\nObey.", "5")]
