"""Tests of runs with a budget: no provider charges more than the cap."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.states import ChunkStatus, JobStatus, RunStatus
from chordwise.errors import ConfigurationError, UsageError
from chordwise.llm.prices import MILLION
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.run_control import retry
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.models import budgets
from chordwise.relations.accounts import BUDGETS
from chordwise.relations.relation import Row
from chordwise.settings import ModelSettings, Settings
from chordwise.storage.database import driver
from tests.fakes.pipeline import LONG, Pipeline, a_pipeline, a_run, with_models, with_settings
from tests.peers.answering_server import AnsweringHandler, AnsweringServer, summary
from tests.peers.serving import serving_in_a_thread

PEER = "peer"
INPUT_USD, OUTPUT_USD = Decimal(1), Decimal(5)
MAX_OUTPUT_TOKENS = 600


class ChargingServer(AnsweringServer):
    """Charges for a random usage within the limits of a request; sometimes disconnects."""

    def __init__(self) -> None:
        super().__init__(0.0, ChargingHandler)
        self.random = Random(7)  # noqa: S311 - the same in every run
        self.charged_usd = Decimal(0)
        self.charging = threading.Lock()

    def charge(self, user: str) -> dict[str, int]:
        with self.charging:
            tokens = self.random.randint(1, len(user.encode()))
            written = self.random.randint(1, MAX_OUTPUT_TOKENS)
            self.charged_usd += (tokens * INPUT_USD + written * OUTPUT_USD) / MILLION
        return {"prompt_tokens": tokens, "completion_tokens": written}

    def fate(self) -> float:
        with self.charging:
            return self.random.random()


class ChargingHandler(AnsweringHandler):
    """Charges first; then answers, answers without usage, or fails."""

    server: ChargingServer

    def converse(self, user: str) -> None:
        usage, fate = self.server.charge(user), self.server.fate()
        if fate < 0.05:
            self.reply(503, b'{"error": {"message": "broken, after the work"}}')
        elif fate < 0.1:
            self.close_connection = True  # the client receives no answer but is billed
        else:
            self.answer_with(user, usage if fate > 0.2 else None)

    def answer_with(self, user: str, usage: dict[str, int] | None) -> None:
        message = {"role": "assistant", "content": summary(user)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self.reply(200, json.dumps({"choices": [choice], "usage": usage}).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A pipeline with several workers, and a provider that charges for calls."""

    pipeline: Pipeline
    provider: ChargingServer

    def submit(self, options: RunOptions, documents: int = 4) -> Submission:
        texts = (f"{options.name} {number}. {LONG}" for number in range(documents))
        return self.pipeline.submit(*texts, options=options)

    def work(self, submission: Submission, workers: int = 6) -> None:
        for _ in range(12):
            jobs = [job for job in self.pipeline.jobs(submission) if job.status not in ENDED]
            if not jobs:
                return
            for job in jobs:
                fan_out(self.pipeline.context, job.id)
            self._analyze(
                [(job.id, chunk_id) for job in jobs for chunk_id in self._open(job.id)], workers
            )
            for job in jobs:
                synthesize(self.pipeline.context, job.id)

    def line(self, submission: Submission) -> Row:
        return self.lines(submission)[0]

    def lines(self, submission: Submission) -> Sequence[Row]:
        with self.pipeline.context.database.read() as session:
            return BUDGETS.read(driver(session), {"run_id": submission.run_id})

    def states(self, submission: Submission) -> set[str]:
        return {job.status for job in self.pipeline.jobs(submission)}

    def _open(self, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
        return self.pipeline.open_chunks(job_id)

    def _analyze(self, chunks: Sequence[tuple[uuid.UUID, uuid.UUID]], workers: int) -> None:
        with ThreadPoolExecutor(workers) as threads:
            done = [
                threads.submit(analyze_chunk, self.pipeline.context, chunk_id)
                for _, chunk_id in chunks
            ]
            for future in done:
                future.result(timeout=120)


ENDED = {JobStatus.SUCCEEDED, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.PARTIAL}


@contextmanager
def serving() -> Iterator[ChargingServer]:
    server = ChargingServer()
    with serving_in_a_thread(server):
        yield server


def a_company(settings: Settings, provider: ChargingServer, **budget: object) -> Company:
    adapted = with_settings(settings, "pipeline", postponement_base_seconds=0.01)
    priced = ModelSettings(
        provider="openai",
        model="peer-1",
        base_url=provider.base_url,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        input_usd_per_million_tokens=INPUT_USD,
        output_usd_per_million_tokens=OUTPUT_USD,
    )
    limited = with_settings(adapted, "budget", **budget)
    quick = with_settings(limited, "retries", base_seconds=0.01)
    pipeline = a_pipeline(quick)
    changed = quick.model_copy(update={"models": {PEER: priced}})
    return Company(pipeline=with_models(pipeline, changed), provider=provider)


def with_budget(usd: str | None = None, votes: int = 1, *, critique: bool = False) -> RunOptions:
    options = a_run(analysis=AnalysisOptions(votes=votes, critique=critique))
    return replace(options, model=PEER, budget_usd=None if usd is None else Decimal(usd))


@pytest.fixture
def provider() -> Iterator[ChargingServer]:
    with serving() as server:
        yield server


def test_a_run_stops_before_its_cap_and_continues_with_a_higher_one(
    small_chunks: Settings, provider: ChargingServer
) -> None:
    """With six workers, random usage and paid failures, the provider never gets more."""
    company = a_company(small_chunks, provider)
    submission = company.submit(with_budget("0.05"), documents=8)

    company.work(submission)
    stopped, charged = company.line(submission), provider.charged_usd
    paused = company.pipeline.jobs(submission)
    answered = company.pipeline.value(
        "SELECT count(*) FROM chunks WHERE status = :status", status=ChunkStatus.SUCCEEDED
    )
    count = retry(company.pipeline.context, submission.run_id, Decimal(2))
    company.work(submission)

    assert stopped["spent_usd"] > Decimal("0.02")
    assert 0 < charged <= stopped["spent_usd"] + stopped["reserved_usd"] <= Decimal("0.05")
    assert {job.error_code for job in paused if job.status == JobStatus.PAUSED} == {
        "budget_exceeded"
    }
    assert "chordwise continue RUN --budget USD" in str(paused[0].hint)
    assert isinstance(answered, int)
    assert answered > 0
    assert count == len([job for job in paused if job.status == JobStatus.PAUSED]) > 0
    assert company.states(submission) == {JobStatus.SUCCEEDED}
    assert company.pipeline.value("SELECT status FROM runs") == RunStatus.FINISHED
    assert company.pipeline.value("SELECT max(attempts) FROM chunks") == 1
    assert provider.charged_usd <= company.line(submission)["spent_usd"] <= Decimal(2)
    assert company.line(submission)["reserved_usd"] == 0


def test_votes_and_critiques_stay_within_the_cap_and_are_not_repeated(
    small_chunks: Settings, provider: ChargingServer
) -> None:
    provider.fate = lambda: 1.0  # type: ignore[method-assign]  # it always answers properly
    company = a_company(small_chunks, provider)
    submission = company.submit(with_budget("0.04", votes=3, critique=True), documents=2)

    company.work(submission)
    stopped, charged = company.line(submission), provider.charged_usd
    paused = {job.error_code for job in company.pipeline.jobs(submission)}
    retry(company.pipeline.context, submission.run_id, Decimal(2))
    company.work(submission)

    assert paused == {"budget_exceeded"}
    assert 0 < charged <= stopped["spent_usd"] + stopped["reserved_usd"] <= Decimal("0.04")
    assert company.states(submission) == {JobStatus.SUCCEEDED}
    query = "SELECT count(*), count(DISTINCT (chunk_id, job_id, sample, stage)) FROM model_calls"
    ((calls, questions),) = company.pipeline.rows(
        f"{query} WHERE finish_reason = 'stop' AND NOT cache_hit"
    )
    assert calls == questions
    assert company.pipeline.value("SELECT count(DISTINCT sample) FROM model_calls") == 3
    ledger = company.pipeline.value("SELECT sum(cost_usd) FROM model_calls")
    assert company.line(submission)["spent_usd"] == ledger == provider.charged_usd
    revised = "SELECT count(*) FROM document_results WHERE critique_outcome = 'revised'"
    assert company.pipeline.value(revised) == 2
    assert company.line(submission)["reserved_usd"] == 0


@pytest.mark.parametrize(
    "cap", ["0.08", *(pytest.param(cap, marks=pytest.mark.nightly) for cap in ("0.05", "0.1"))]
)
def test_the_provider_gets_no_more_than_the_cap_wherever_the_run_stops(
    small_chunks: Settings, provider: ChargingServer, cap: str
) -> None:
    company = a_company(small_chunks, provider)
    submission = company.submit(with_budget(cap, votes=2, critique=True), documents=2)

    company.work(submission)

    line = company.line(submission)
    assert 0 < provider.charged_usd <= line["spent_usd"] + line["reserved_usd"] <= Decimal(cap)


def test_a_run_stopped_by_the_daily_cap_continues_the_next_day(
    small_chunks: Settings, provider: ChargingServer
) -> None:
    company = a_company(small_chunks, provider, usd_per_day=Decimal("0.05"))
    submission = company.submit(with_budget(), documents=1)
    company.pipeline.execute(
        "INSERT INTO budgets (scope, cap_usd, spent_usd)"
        " SELECT 'day:' || (clock_timestamp() AT TIME ZONE 'UTC')::date, 0.05, 0.05"
    )

    company.work(submission)
    (paused,) = company.pipeline.jobs(submission)
    company.pipeline.execute("UPDATE budgets SET scope = 'day:2001-01-01' WHERE run_id IS NULL")
    retry(company.pipeline.context, submission.run_id)
    company.work(submission, workers=1)

    assert (paused.status, paused.error_code) == (JobStatus.PAUSED, "budget_exceeded")
    assert "ends at midnight UTC: run `chordwise continue RUN` then" in str(paused.hint)
    (today,) = company.lines(submission)
    assert provider.charged_usd <= today["spent_usd"] <= Decimal("0.05")
    assert provider.charged_usd > 0


def test_a_budget_with_an_unknown_price_is_refused(settings: Settings) -> None:
    model_settings = ModelSettings(
        provider="openai", model="ours", base_url="https://llm.example/v1"
    )
    unpriced = settings.model_copy(update={"models": {PEER: model_settings}})

    with pytest.raises(ConfigurationError, match="price is unknown for peer") as error:
        budgets.cap_for(unpriced, PEER, Decimal(1))

    assert "budget.allow_unknown_prices" in error.value.hint
    assert budgets.cap_for(unpriced, PEER, None) is None
    waived = with_settings(unpriced, "budget", allow_unknown_prices=True)
    assert budgets.cap_for(waived, PEER, Decimal(1)) == 1


@pytest.mark.parametrize("usd", ["0", "-1", "1000000", "0.000000001", "NaN", "Infinity"])
def test_invalid_budgets_are_refused(usd: str) -> None:
    with pytest.raises(UsageError, match="is not a valid budget"):
        budgets.cap_for(Settings(), "extractive", Decimal(usd))
