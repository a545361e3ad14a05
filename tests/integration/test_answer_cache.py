"""Tests of the cache of completions: identical requests reach the provider once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.errors import AlreadyAskedError, ModelOverloadedError
from chordwise.llm.middleware.cached import Cached, Lookup, answer_settings
from chordwise.llm.middleware.metered import CallStart, Metered, call_start
from chordwise.llm.model import ChatModel, Completion
from chordwise.llm.prices import FreePrice
from chordwise.llm.provider import connect
from chordwise.pipeline.asking.check import INVALID
from chordwise.pipeline.jobs import dispatch
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
from tests.fakes.scripted_model import ScriptedModel
from tests.peers.answering_server import AnsweringServer, serving

MONTH = timedelta(days=30)
ABOUT = answer_settings(ModelSettings(provider="openai", model="peer"))
STORED = "SELECT count(*) FROM cached_completions"
EXPIRE = "UPDATE model_calls SET expires_at = clock_timestamp() - interval '1 second'"


@pytest.fixture
def peer() -> Iterator[AnsweringServer]:
    with serving(delay_seconds=0.5) as server:
        yield server


@dataclass(slots=True, kw_only=True)
class Caller:
    """One caller with its ledger, as in a process of its own."""

    database: Database
    max_age: timedelta = MONTH
    job_id: uuid.UUID | None = None
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(
            enter=GroupCommit(self.database.transaction, store_entries).commit,
            settings=Settings(),
            job_id=self.job_id,
            completions=CompletionStore(self.database, self.max_age),
        )

    def ask(self, model: ChatModel) -> Completion:
        metered = Metered(model, self.ledger, FreePrice())
        try:
            return Cached(metered, self.ledger, ABOUT, 60, pause).complete(a_request())
        finally:
            self.ledger.flush()

    def begin(self, question: str) -> uuid.UUID | None:
        """Begin a call; return `None` if another one asks the question."""
        try:
            return self.ledger.begin(a_start(question))
        except AlreadyAskedError:
            return None


def a_start(question: str) -> CallStart:
    return call_start(ScriptedModel([]).profile, replace(a_request(), question=question))


def a_completion(content: str = "{}") -> Completion:
    return ScriptedModel([]).completion(content)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def value(database: Database, query: str) -> object:
    with database.read() as session:
        stored: object = session.execute(text(query)).scalar_one()
        return stored


def test_fifty_equal_questions_make_one_request(database: Database, peer: AnsweringServer) -> None:
    model = connect(
        ModelSettings(provider="openai", model="peer", base_url=peer.base_url), SecretStr("")
    )
    start = threading.Barrier(50)

    def ask(_: int) -> str:
        caller = Caller(database=database)
        start.wait(30)
        return caller.ask(model).text

    with ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(ask, range(50)))

    assert len(answers) == 1
    assert len(peer.journal) == 1
    assert value(database, "SELECT count(*) FROM model_calls WHERE cache_hit") == 49
    assert value(database, "SELECT count(*) FROM model_calls WHERE NOT cache_hit") == 1


def test_no_lock_is_held_during_a_model_call(database: Database) -> None:
    seen: list[Completion | Lookup] = []
    busy: list[object] = []
    query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"

    def look(_: object) -> str:
        key = str(value(database, "SELECT question FROM model_calls"))
        seen.append(Caller(database=database).ledger.find(key))
        busy.append(value(database, query))
        return "{}"

    Caller(database=database).ask(ScriptedModel([look]))

    assert seen == [Lookup.ASKED]
    assert busy == [0]


def test_a_question_of_a_killed_worker_is_taken_over(database: Database) -> None:
    assert Caller(database=database).begin("k")
    others = [Caller(database=database) for _ in range(5)]

    at_first = [(caller.ledger.find("k"), caller.begin("k")) for caller in others]
    with database.write() as session:
        session.execute(text(EXPIRE))
    expired = [caller.ledger.find("k") for caller in others]
    afterwards = [caller.begin("k") is not None for caller in others]

    assert at_first == [(Lookup.ASKED, None)] * 5
    assert expired == [Lookup.FREE] * 5
    assert afterwards == [True] + [False] * 4


def test_the_new_owner_of_a_job_also_takes_over_its_question(settings: Settings) -> None:
    """Its lease shows that the previous worker is gone, so the answer is not waited for."""
    pipeline = a_pipeline(settings)
    database, job_id = pipeline.context.database, pipeline.job(pipeline.submit(PARAGRAPH)).id
    assert Caller(database=database, job_id=job_id).begin("k")

    owner = Caller(database=database, job_id=job_id)

    assert owner.ledger.find("k") is Lookup.FREE
    assert owner.begin("k")


def test_a_worker_that_lost_its_question_stores_nothing(database: Database) -> None:
    late, other = Caller(database=database), Caller(database=database)

    def taken_over(_: object) -> str:
        with database.write() as session:
            session.execute(text(EXPIRE))
        assert other.begin(str(value(database, "SELECT question FROM model_calls")))
        return "{}"

    late.ask(ScriptedModel([taken_over]))

    assert value(database, STORED) == 0
    assert value(database, "SELECT count(question) FROM model_calls") == 1


def test_threads_find_completions_and_callers_in_shared_statements(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_completions, "_GATHER_SECONDS", 0.2)
    Caller(database=database).ask(ScriptedModel(["known"]))
    known = str(value(database, "SELECT key FROM cached_completions"))
    assert Caller(database=database).begin("held")
    keys = ("new", known, "held") * 5
    completions = CompletionStore(database, MONTH)
    callers = [Caller(database=database) for _ in keys]
    for caller in callers:
        caller.ledger.completions = completions

    with recorded() as statements, ThreadPoolExecutor(len(keys)) as pool:
        answers = list(pool.map(lambda caller, key: caller.ledger.find(key), callers, keys))

    assert 1 <= len(statements) <= 3
    assert answers[::3] == [Lookup.FREE] * 5
    assert answers[1::3] == [a_completion("known")] * 5
    assert answers[2::3] == [Lookup.ASKED] * 5


def test_one_of_many_calls_in_a_group_asks_a_question(database: Database) -> None:
    ledger = Caller(database=database).ledger
    entries = []
    ledger.enter = lambda entry, _: entries.append(entry)
    for question in ("a", "b", "a", "b", "a"):
        ledger.begin(a_start(question))

    with database.transaction() as store:
        refusals = store_entries(store, entries)

    assert [refusal is None for refusal in refusals] == [True, True, False, False, False]


def test_after_a_failure_the_next_caller_asks_the_model(database: Database) -> None:
    """An expired entry is asked again, too."""
    with pytest.raises(ModelOverloadedError):
        Caller(database=database).ask(ScriptedModel([ModelOverloadedError("busy")]))

    assert value(database, "SELECT count(question) FROM model_calls") == 0
    assert Caller(database=database).ask(ScriptedModel(["first"])).text == "first"
    late = Caller(database=database, max_age=timedelta(0))
    assert late.ask(ScriptedModel(["second"])).text == "second"
    assert value(database, STORED) == 1


def test_an_invalid_completion_is_not_kept(database: Database) -> None:
    model = ScriptedModel(["no JSON", "{}"])
    first, second = Caller(database=database), Caller(database=database)

    invalid = first.ask(model)  # is stored before its check
    hit = second.ask(model)
    for caller, completion in ((first, invalid), (second, hit)):
        caller.ledger.check(completion, INVALID)

    assert (invalid.text, hit.text) == ("no JSON", "no JSON")
    assert value(database, STORED) == 0
    assert Caller(database=database).ask(model).text == "{}"


def test_the_cache_is_skipped_while_its_database_is_unavailable() -> None:
    away = Database(open_engine(SecretStr("postgresql://absent@127.0.0.1:9/nothing")))
    ledger = Caller(database=away).ledger
    model = Cached(ScriptedModel(["{}"]), ledger, ABOUT, 60, pause)

    completion = model.complete(a_request())

    away.close()
    assert completion.text == "{}"
    assert completion.cache_key == ""


def test_old_completions_are_deleted(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    for key, age in (("old", "31 days"), ("new", "29 days")):
        pipeline.execute(
            "INSERT INTO cached_completions (key, completion, created_at)"
            " VALUES (:key, '{}', now() - CAST(:age AS interval))",
            key=key,
            age=age,
        )

    dispatch.forget(pipeline.context)

    assert pipeline.value("SELECT string_agg(key, ' ') FROM cached_completions") == "new"


def test_a_cache_hit_is_recorded_in_the_ledger(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    database = pipeline.context.database
    caller, model = Caller(database=database, job_id=job.id), ScriptedModel(["{}"])
    caller.ask(model)

    hit = caller.ask(model)

    row = pipeline.value(
        "SELECT json_build_array(id, cache_hit, input_tokens, output_tokens, cost_usd, "
        "cost_basis, response_length, finish_reason, prompt_version, finished_at IS NOT NULL) "
        "FROM model_calls WHERE cache_hit"
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


def test_without_the_cache_the_same_question_is_asked_again(settings: Settings) -> None:
    """With it, only an invalid answer is not reused."""
    for enabled, script, calls in (
        (False, [a_summary("rebuilt in 1856")] * 2, 2),
        (True, [*["no JSON"] * 4, a_summary("rebuilt in 1856")], 5),
    ):
        chosen = with_settings(settings, "cache", enabled=enabled)
        pipeline = a_pipeline(chosen, *script)
        text = f"{PARAGRAPH} The cache is {enabled}."
        for threshold in (0.1, 0.2):
            options = a_run(analysis=AnalysisOptions(confidence_threshold=threshold))
            last = pipeline.analyze(text, options=options)

        assert len(pipeline.model.requests) == calls
        assert pipeline.job(last).status == "succeeded"
        assert pipeline.value(STORED) == enabled
