"""Tests of the cache of completions: identical requests reach the provider once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.errors import ModelOverloadedError
from chordwise.llm.middleware.cached import Cached, CacheEntry, ClaimStatus, answer_settings
from chordwise.llm.middleware.metered import CallStart, NullLedger
from chordwise.llm.model import ChatModel, Completion
from chordwise.llm.provider import connect
from chordwise.pipeline.jobs import dispatch
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.answer_cache import (
    StoredCompletions,
    completion_store,
    stored_completions,
)
from chordwise.pipeline.models.ledger import Ledger
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import cached_completions, runs
from chordwise.storage.cached_completions import CompletionStore
from chordwise.storage.chunk_work import store_entries
from chordwise.storage.database import Database, open_engine
from chordwise.storage.group_commit import GroupCommit
from tests.fakes.completion_requests import a_request
from tests.fakes.counting import recorded
from tests.fakes.pipeline import AWAY, PARAGRAPH, a_pipeline, a_run, a_summary, with_settings
from tests.fakes.processes import wait_until
from tests.fakes.scripted_model import ScriptedModel
from tests.peers.answering_server import AnsweringServer, serving

ENTRY = CacheEntry(key="k", provider="openai", model="peer", prompt_version="x@1")
MONTH = timedelta(days=30)


class CountingLedger(NullLedger):
    """Counts the cache hits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.hits = 0

    def record_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> uuid.UUID:
        assert start.provider
        assert completion.text
        assert latency_ms >= 0
        with self._lock:
            self.hits += 1
        return uuid.uuid4()


@pytest.fixture
def peer() -> Iterator[AnsweringServer]:
    with serving(delay_seconds=0.5) as server:
        yield server


def cache_of(
    database: Database,
    owner: uuid.UUID | None = None,
    claim_lasts: timedelta = timedelta(seconds=60),
    max_age: timedelta = MONTH,
) -> StoredCompletions:
    return StoredCompletions(
        completions=CompletionStore(database, max_age),
        owner=owner or uuid.uuid4(),
        claim_lasts=claim_lasts,
    )


def a_completion(content: str = "{}") -> Completion:
    return ScriptedModel([]).completion(content)


def wrapped(
    model: ChatModel, cache: StoredCompletions, ledger: CountingLedger | None = None
) -> Cached:
    about = answer_settings(ModelSettings(provider="openai", model="peer"))
    return Cached(model, cache, ledger or CountingLedger(), about, 60, pause)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def value(database: Database, query: str) -> object:
    with database.read() as session:
        stored: object = session.execute(text(query)).scalar_one()
        return stored


def test_fifty_equal_questions_make_one_request(database: Database, peer: AnsweringServer) -> None:
    ledger = CountingLedger()
    model = connect(
        ModelSettings(provider="openai", model="peer", base_url=peer.base_url), SecretStr("")
    )
    start = threading.Barrier(50)

    def ask(_: int) -> str:
        mine = wrapped(model, cache_of(database), ledger)
        start.wait(30)
        return mine.complete(a_request()).text

    with ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(ask, range(50)))

    assert len(answers) == 1
    assert len(peer.journal) == 1
    assert ledger.hits == 49
    assert value(database, "SELECT uses FROM cached_completions") == 49


def test_no_lock_is_held_during_a_model_call(database: Database) -> None:
    seen: list[Completion | ClaimStatus] = []
    busy: list[object] = []
    query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"

    def look(_: object) -> str:
        (key,) = (value(database, "SELECT key FROM cached_completions"),)
        seen.append(cache_of(database).find_or_claim(replace(ENTRY, key=str(key))))
        busy.append(value(database, query))
        return "{}"

    wrapped(ScriptedModel([look]), cache_of(database)).complete(a_request())

    assert seen == [ClaimStatus.OTHERS]
    assert busy == [0]


def test_a_claim_of_a_killed_worker_is_taken_over(database: Database) -> None:
    assert (
        cache_of(database, claim_lasts=timedelta(seconds=1)).find_or_claim(ENTRY)
        is ClaimStatus.OURS
    )

    others = [cache_of(database) for _ in range(5)]
    at_first = [cache.find_or_claim(ENTRY) for cache in others]
    expired = "SELECT claimed_until < clock_timestamp() FROM cached_completions"
    wait_until(lambda: value(database, expired) is True, 10, expired)
    afterwards = [cache.find_or_claim(ENTRY) for cache in others]

    assert at_first == [ClaimStatus.OTHERS] * 5
    assert afterwards == [ClaimStatus.OURS, *[ClaimStatus.OTHERS] * 4]


def test_the_new_owner_of_a_chunk_also_takes_over_its_cache_claim(database: Database) -> None:
    """Its lease shows that the previous worker is gone, so the claim is not waited for."""
    chunk = uuid.uuid4()
    assert cache_of(database, chunk).find_or_claim(ENTRY) is ClaimStatus.OURS

    assert cache_of(database, chunk).find_or_claim(ENTRY) is ClaimStatus.OURS


def test_a_worker_that_lost_its_claim_stores_nothing(database: Database) -> None:
    late = cache_of(database, claim_lasts=timedelta(0))
    assert late.find_or_claim(ENTRY) is ClaimStatus.OURS
    assert cache_of(database).find_or_claim(ENTRY) is ClaimStatus.OURS

    late.store(ENTRY, a_completion())
    late.release(ENTRY)

    assert cache_of(database).find_or_claim(ENTRY) is ClaimStatus.OTHERS


def test_threads_find_claim_and_store_in_shared_statements(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_completions, "_GATHER_SECONDS", 0.2)
    completions = CompletionStore(database, MONTH)
    keys = ("new", "known", "held") * 5
    callers = [replace(cache_of(database), completions=completions) for _ in keys]
    known, held = (replace(ENTRY, key=key) for key in ("known", "held"))
    assert callers[0].find_or_claim(known) is ClaimStatus.OURS
    callers[0].store(known, a_completion("known"))
    assert cache_of(database).find_or_claim(held) is ClaimStatus.OURS
    entries = [replace(ENTRY, key=key) for key in keys]

    with recorded() as statements, ThreadPoolExecutor(len(keys)) as pool:
        answers = list(pool.map(StoredCompletions.find_or_claim, callers, entries))

    assert 1 <= len(statements) <= 3
    assert answers[1::3] == [a_completion("known")] * 5
    assert answers[2::3] == [ClaimStatus.OTHERS] * 5
    assert sorted(map(str, answers[::3])) == ["ClaimStatus.OTHERS"] * 4 + ["ClaimStatus.OURS"]
    assert value(database, "SELECT uses FROM cached_completions WHERE key = 'known'") == 5

    with recorded() as statements, ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(StoredCompletions.store, callers, entries, [a_completion("new")] * len(keys)))

    assert 1 <= len(statements) <= 3
    assert callers[3].find_or_claim(entries[0]) == a_completion("new")
    assert callers[3].find_or_claim(known) == a_completion("known")
    assert callers[3].find_or_claim(held) is ClaimStatus.OTHERS


def test_after_a_failure_the_next_caller_asks_the_model(database: Database) -> None:
    with pytest.raises(ModelOverloadedError):
        wrapped(ScriptedModel([ModelOverloadedError("busy")]), cache_of(database)).complete(
            a_request()
        )

    assert value(database, "SELECT count(*) FROM cached_completions") == 0


def test_an_expired_entry_is_asked_again(database: Database) -> None:
    cache = cache_of(database)
    assert cache.find_or_claim(ENTRY) is ClaimStatus.OURS
    cache.store(ENTRY, a_completion('{"a": 1}'))
    assert cache.find_or_claim(ENTRY) == a_completion('{"a": 1}')

    assert cache_of(database, max_age=timedelta(0)).find_or_claim(ENTRY) is ClaimStatus.OURS
    assert value(database, "SELECT uses FROM cached_completions") == 0


def test_an_invalid_completion_is_removed(database: Database) -> None:
    model = ScriptedModel(["no JSON", "{}"])
    first = wrapped(model, cache_of(database)).complete(a_request())

    answer_cache.discard(database, first)
    answer_cache.discard(database, replace(first, cache_key=""))
    second = wrapped(model, cache_of(database)).complete(a_request())

    assert (first.text, second.text) == ("no JSON", "{}")


def test_the_cache_is_skipped_while_its_database_is_unavailable() -> None:
    away = Database(open_engine(SecretStr("postgresql://absent@127.0.0.1:9/nothing")))

    completion = wrapped(ScriptedModel(["{}"]), cache_of(away)).complete(a_request())

    away.close()
    assert completion.text == "{}"
    assert completion.cache_key == ""


def test_old_completions_are_deleted(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    database = pipeline.context.database
    for key in ("old", "new", "claimed"):
        cache_of(database).find_or_claim(replace(ENTRY, key=key))
    pipeline.execute(
        "UPDATE cached_completions SET completion = '{}', claimed_until = NULL "
        "WHERE key IN ('old', 'new')"
    )
    pipeline.execute(
        "UPDATE cached_completions SET created_at = now() - interval '31 days' "
        "WHERE key IN ('old', 'claimed')"
    )

    dispatch.forget(pipeline.context)

    left = "SELECT string_agg(key, ' ' ORDER BY key) FROM cached_completions"
    assert pipeline.value(left) == "claimed new"


def test_a_cache_hit_is_recorded_in_the_ledger(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    database = pipeline.context.database
    enter = GroupCommit(database.transaction, store_entries).commit
    ledger = Ledger(enter=enter, timeout=timedelta(seconds=5), job_id=job.id)
    about = answer_settings(ModelSettings(provider="openai", model="peer"))
    cache = stored_completions(settings, completion_store(settings, database), job.id)
    assert cache is not None
    model = Cached(ScriptedModel(["{}"]), cache, ledger, about, 60, pause)
    model.complete(a_request())

    hit = model.complete(a_request())
    ledger.flush()

    row = pipeline.value(
        "SELECT json_build_array(id, cache_hit, input_tokens, output_tokens, cost_usd, "
        "cost_basis, response_length, finish_reason, prompt_version, finished_at IS NOT NULL) "
        "FROM model_calls"
    )
    assert row == [hit.call_id, True, 0, 0, 0, "not_billed", 2, "stop", "sentiment@1", True]


@pytest.mark.parametrize(
    ("fresh", "use_cache", "expected"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
def test_a_run_stores_whether_it_uses_the_cache(
    settings: Settings, *, fresh: bool, use_cache: bool, expected: bool
) -> None:
    pipeline = a_pipeline(settings)
    options = replace(a_run(fresh=fresh), use_cache=use_cache)

    submission = pipeline.submit(PARAGRAPH, options=options)

    with pipeline.context.database.read() as session:
        assert runs.find(session, submission.name).use_cache is expected


@pytest.mark.parametrize(
    "model_settings",
    [AWAY, ModelSettings(provider="local", model="tiny.gguf")],
    ids=["remote", "served"],
)
def test_another_run_reuses_the_completion(
    settings: Settings, model_settings: ModelSettings
) -> None:
    """A different threshold makes a new result from the same completion, recorded as a hit.

    The answers of a local GGUF model are cached, too.
    """
    pipeline = a_pipeline(settings, a_summary("rebuilt in 1856"), model_settings=model_settings)
    pipeline.analyze(PARAGRAPH)
    stricter = AnalysisOptions(confidence_threshold=0.9)

    again = pipeline.analyze(PARAGRAPH, options=a_run(analysis=stricter))

    assert len(pipeline.model.requests) == 1
    assert pipeline.job(again).status == "succeeded"
    rows = "SELECT json_agg(json_build_array(cache_hit, valid, quality) ORDER BY id)"
    assert pipeline.value(f"{rows} FROM model_calls") == [[False, True, 1], [True, True, 1]]


def test_an_invalid_answer_is_not_reused(settings: Settings) -> None:
    pipeline = a_pipeline(settings, *["no JSON"] * 4, a_summary("rebuilt in 1856"))
    failed = pipeline.analyze(PARAGRAPH)

    again = pipeline.analyze(PARAGRAPH)

    assert pipeline.job(failed).error_code == "invalid_answer"
    assert pipeline.job(again).status == "succeeded"
    assert len(pipeline.model.requests) == 5


def test_without_the_cache_the_same_question_is_asked_again(settings: Settings) -> None:
    off = with_settings(settings, "cache", enabled=False)
    pipeline = a_pipeline(off, a_summary("rebuilt in 1856"), repeat_last=True)
    for threshold in (0.1, 0.2):
        options = a_run(analysis=AnalysisOptions(confidence_threshold=threshold))
        pipeline.analyze(PARAGRAPH, options=options)

    assert len(pipeline.model.requests) == 2
    assert pipeline.value("SELECT count(*) FROM cached_completions") == 0
