"""Tests of `intake.read = "workers"`: processes on any hosts read the files of a run together."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.intake import found_files, list_reader
from chordwise.pipeline.intake.document_batches import Offered
from chordwise.pipeline.intake.list_reader import ListReader
from chordwise.pipeline.intake.submit import Resume, Submission, join, open_run
from chordwise.readers.discovery import discover
from chordwise.relations import accounts
from chordwise.settings import IntakeSettings, Settings
from chordwise.storage import intakes
from chordwise.storage.database import driver
from tests.fakes.commands import environment_of, output_of, type_in
from tests.fakes.inbox_watch import LETTER, watched
from tests.fakes.pipeline import (
    NOW,
    SCRIPTED,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    quoting_the_text,
)
from tests.fakes.processes import Processes, kill, wait_until

WORKERS = IntakeSettings(read="workers")
OUTCOMES = "SELECT outcome, count(*) FROM intakes GROUP BY 1 ORDER BY 1"
LEFT = "SELECT status, attempts, count(*) FROM listed_files GROUP BY 1, 2 ORDER BY 1, 2"


@pytest.fixture
def shared(settings: Settings) -> Pipeline:
    changed = settings.model_copy(update={"intake": WORKERS})
    return a_pipeline(changed, quoting_the_text, repeat_last=True)


@pytest.fixture
def new_reader(shared: Pipeline) -> Iterator[Callable[[], ListReader]]:
    readers: list[ListReader] = []

    def begin() -> ListReader:
        readers.append(ListReader(shared.context, lambda: False))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.close()


def list_files(pipeline: Pipeline, folder: Path, count: int, model: str = SCRIPTED) -> Submission:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:03}.txt").write_text(f"Letter {number // 2}. {LETTER}", "utf-8")
    files = list(discover([str(folder)]))
    entries = found_files.Entries(pipeline.context.settings, files)
    options = replace(a_run(AnalysisType.SUMMARY), model=model)
    run = open_run(pipeline.context, options, NOW, entries)
    run.leave()
    return run


def account_of(pipeline: Pipeline, run: Submission) -> accounts.Account:
    with pipeline.context.database.read() as session:
        return accounts.of_run(driver(session), run.run_id)


def test_two_readers_share_the_files_of_a_run(
    shared: Pipeline, new_reader: Callable[[], ListReader], tmp_path: Path
) -> None:
    """Equal content is stored once, and the account balances at every moment."""
    run = list_files(shared, tmp_path / "letters", 60)
    assert account_of(shared, run).intake_status == "taking_in"
    readers = [new_reader(), new_reader()]
    threads = [Thread(target=lambda reader=reader: while_work(reader)) for reader in readers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        account = account_of(shared, run)
        assert account.jobs_balance
        assert sum(account.outcomes.values()) == account.intakes_found == 60
    for thread in threads:
        thread.join()

    account = account_of(shared, run)
    assert (account.intake_status, account.intakes_balance) == ("finished", True)
    assert shared.rows(OUTCOMES) == [("accepted", 30), ("duplicate", 30)]
    assert shared.value("SELECT count(*) FROM jobs") == 30
    assert shared.value("SELECT lease_token FROM runs") is None


def while_work(reader: ListReader) -> None:
    while reader.work():
        pass


@pytest.mark.parametrize(
    ("error", "attempts"), [(ServiceUnavailableError("away"), 0), (ValueError("a defect"), 1)]
)
def test_files_of_a_failed_read_are_read_again(
    shared: Pipeline,
    new_reader: Callable[[], ListReader],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
) -> None:
    """The heartbeat of a living process would keep them from all readers."""
    run, reader = list_files(shared, tmp_path / "letters", 4), new_reader()

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(list_reader, "read_entries", fail)
        with pytest.raises(type(error)):
            reader.work()
        patched.setattr(intakes, "next_for_readers", lambda *_: None)
        assert not reader.work()
    assert shared.rows(LEFT) == [("waiting", attempts, 4)]
    while_work(reader)

    assert account_of(shared, run).intake_status == "finished"


def test_a_lost_reader_costs_a_repeated_read(
    shared: Pipeline, new_reader: Callable[[], ListReader], tmp_path: Path
) -> None:
    run = list_files(shared, tmp_path / "letters", 4)
    with shared.context.database.write() as session:
        lease = shared.context.lease
        assert len(intakes.claim_files(session, run.run_id, uuid.uuid4(), lease, 3)) == 3
    reader = new_reader()
    reader.work()
    assert shared.rows(LEFT) == [("reading", 1, 3)]
    assert not reader.work()

    shared.expire_leases()
    reader.work()
    assert shared.rows(LEFT) == [("reading", 1, 2)]
    while_work(reader)

    assert shared.rows(OUTCOMES) == [("accepted", 2), ("duplicate", 2)]
    assert account_of(shared, run).intakes_balance


def test_a_file_that_ends_its_readers_is_quarantined(
    shared: Pipeline, new_reader: Callable[[], ListReader], tmp_path: Path
) -> None:
    run = list_files(shared, tmp_path / "letters", 1)
    for _ in range(found_files.MAX_ATTEMPTS):
        with shared.context.database.write() as session:
            lease = shared.context.lease
            assert intakes.claim_files(session, run.run_id, uuid.uuid4(), lease, 1)
        shared.expire_leases()

    while_work(new_reader())

    assert shared.rows("SELECT outcome, reason FROM intakes") == [("unreadable", "quarantined")]


def test_a_reader_that_stops_leaves_its_files_without_an_attempt(
    shared: Pipeline, tmp_path: Path
) -> None:
    list_files(shared, tmp_path / "letters", 3)
    stopping = ListReader(shared.context, lambda: True)
    stopping.work()
    assert shared.rows(LEFT) == [("reading", 1, 3)]

    stopping.close()

    assert shared.rows(LEFT) == [("waiting", 0, 3)]


def test_a_reader_that_was_thought_lost_stores_nothing(shared: Pipeline, tmp_path: Path) -> None:
    run = list_files(shared, tmp_path / "letters", 1)
    lost, lease = uuid.uuid4(), shared.context.lease
    late = join(shared.context, run.run_id, lost)
    assert late is not None
    with shared.context.database.write() as session:
        (file,) = intakes.claim_files(session, run.run_id, lost, lease, 1)
    shared.expire_leases()
    with shared.context.database.write() as session:
        assert intakes.claim_files(session, run.run_id, uuid.uuid4(), lease, 1)

    with pytest.raises(LeaseLostError):
        late.take_in([Offered(document=a_document(LETTER), entry_id=file.id)])

    assert shared.rows(OUTCOMES) == [("not_taken", 1)]
    assert shared.value("SELECT count(*) FROM jobs") == 0


def test_files_in_a_folder_that_is_missing_here_are_left_to_other_hosts(
    shared: Pipeline, new_reader: Callable[[], ListReader], tmp_path: Path
) -> None:
    list_files(shared, tmp_path / "away", 2)
    (tmp_path / "away").rename(tmp_path / "mounted")
    run = list_files(shared, tmp_path / "letters", 2)

    while_work(new_reader())

    assert account_of(shared, run).intake_status == "finished"
    assert shared.rows(LEFT) == [("waiting", 0, 2)]


def test_a_claim_takes_few_files_of_a_long_list(
    shared: Pipeline, new_reader: Callable[[], ListReader], tmp_path: Path
) -> None:
    """The memory of a reader does not depend on the length of the list."""
    run = list_files(shared, tmp_path / "letters", 1)
    entry = next(
        iter(found_files.Entries(shared.context.settings, list(discover([str(tmp_path)]))))
    )
    run.enlist([entry] * 20_000)

    new_reader().work()

    taken = shared.value("SELECT count(*) FROM intakes WHERE outcome <> 'not_taken'")
    assert taken == list_reader._AT_ONCE


def test_a_process_that_reads_here_continues_a_run_without_readers(
    shared: Pipeline, settings: Settings, tmp_path: Path
) -> None:
    run = list_files(shared, tmp_path / "letters", 2)
    shared.expire_leases()
    here = a_pipeline(settings, quoting_the_text, repeat_last=True)
    resume = Resume(here.context, lambda _: None, lambda _: None)
    assert Resume(shared.context, lambda _: None, lambda _: None).resume(run.run_id) is None

    assert resume.resume(run.run_id) is not None

    assert shared.rows(LEFT) == [("listed", 0, 2)]


@pytest.mark.usefixtures("addressed")
def test_a_command_leaves_files_to_readers_and_standard_input_to_itself(
    shared: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHORDWISE_INTAKE__READ", "workers")
    (tmp_path / "letter.txt").write_text(LETTER, "utf-8")

    output_of("submit", "letter.txt", "--model", "extractive")
    assert shared.rows(LEFT) == [("waiting", 0, 1)]
    assert "no worker with the queue read" in output_of("doctor").out
    type_in(monkeypatch, LETTER)
    output_of("submit", "-", "--model", "extractive")

    assert shared.rows(LEFT) == [("waiting", 0, 1)]
    assert shared.rows(OUTCOMES)[-1] == ("not_taken", 1)


def test_an_inbox_is_listed_by_the_scheduler_and_read_by_a_worker(
    settings: Settings, tmp_path: Path
) -> None:
    inbox = watched(tmp_path, settings.model_copy(update={"intake": WORKERS}))
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.wait(1)
    states = "SELECT status, attempts, lease_token FROM inbox_files"
    assert inbox.pipeline.rows(states) == [("claimed", 0, None)]

    worker = inbox.begin_worker()
    worker.tick()
    assert inbox.pipeline.rows(states) == [("submitted", 1, None)]
    worker.close()
    inbox.deliver()
    inbox.close()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER
    assert inbox.pipeline.rows(states) == [("done", 1, None)]


def test_a_killed_process_costs_a_repeated_read(
    shared: Pipeline, settings: Settings, tmp_path: Path
) -> None:
    """Another process continues when the leases have ended."""
    run = list_files(shared, tmp_path / "letters", 40, model="extractive")
    environment = {**environment_of(settings), "CHORDWISE_INTAKE__READ": "workers"}
    taken = "SELECT count(*) > 0 FROM intakes WHERE outcome <> 'not_taken'"
    finished = "SELECT intake_finished_at IS NOT NULL FROM runs"

    with Processes(folder=tmp_path, environment=environment) as processes:
        first = processes.start("worker", "--queues", "read")
        wait_until(lambda: shared.value(taken) is True, 30, "a file is read")
        kill(first)
        shared.expire_leases()
        assert account_of(shared, run).jobs_balance
        processes.start("worker", "--queues", "read")
        wait_until(lambda: shared.value(finished) is True, 30, "all files are read")

    assert account_of(shared, run).intakes_balance
    assert shared.rows(OUTCOMES) == [("accepted", 20), ("duplicate", 20)]
    assert shared.value("SELECT count(*) FROM jobs") == 20
