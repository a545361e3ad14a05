"""Tests of the oracle: it accepts a healthy history, and detects each kind of tampering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest
from psycopg import sql

from tests.fakes.past_results import into_history
from tests.faults import accounts, calls, leaks, leftovers, quiescence
from tests.faults.allowance import NOTHING_SPECIAL
from tests.faults.cluster import API_KEY, Cluster
from tests.faults.oracle import Invariant, find_violations

Tampering: TypeAlias = Callable[[Cluster], object]


def by(statement: str) -> Tampering:
    return lambda cluster: cluster.rows(f"{statement} RETURNING 1")


def by_log(text: Callable[[Cluster], str]) -> Tampering:
    def add(cluster: Cluster) -> None:
        with cluster.members.all[0].log.open("a", encoding="utf-8") as log:
            log.write(f"{text(cluster)}\n")

    return add


def by_message(cluster: Cluster) -> None:
    with cluster.broker.client() as client:
        client.lpush("chordwise:chordwise.chunks", "{}")


def by_repetition(cluster: Cluster) -> None:
    """Call the provider once more, and record the call in the ledger."""
    (row,) = cluster.rows(
        "INSERT INTO model_calls SELECT (jsonb_populate_record(c, jsonb_build_object("
        "'id', gen_random_uuid(), 'question', NULL))).* FROM model_calls AS c LIMIT 1"
        " RETURNING id::text"
    )
    known = cluster.provider.requests[0]
    cluster.provider.write_down(str(row[0]), known.prompt, known.authorization)


OUTBOX = """INSERT INTO outbox (id, task, reason, urgency, sends)
    VALUES (gen_random_uuid(), 'chordwise.synthesize', 'tampering', 1, 0)"""

CASES: dict[str, tuple[Invariant, Tampering]] = {
    "jobs are running": (accounts.end_states, by("UPDATE jobs SET status = 'running'")),
    "open chunks": (accounts.end_states, by("UPDATE jobs SET open_chunks = 1")),
    "a run is not finished": (accounts.end_states, by("UPDATE runs SET status = 'open'")),
    "does not balance": (accounts.end_states, by("UPDATE runs SET found_count = 5")),
    "number of results": (accounts.one_result_each, by("DELETE FROM results")),
    "was replaced": (accounts.one_result_each, by(into_history())),
    "gap or overlap": (
        accounts.whole_documents,
        by("UPDATE chunks SET start_char = start_char + 1 WHERE position = 1"),
    ),
    "not named": (accounts.whole_documents, by("UPDATE results SET failed_chunks = '[1]'")),
    "coverage": (accounts.whole_documents, by("UPDATE results SET coverage = 0.5")),
    "not in the text": (
        accounts.whole_documents,
        by("UPDATE facts SET quote = 'other' WHERE grounded"),
    ),
    "chunk's failure": (
        accounts.explained_failures,
        by("UPDATE chunks SET status = 'failed' WHERE position = 1"),
    ),
    "job's failure": (accounts.explained_failures, by("UPDATE jobs SET status = 'failed'")),
    "call's failure": (accounts.explained_failures, by("UPDATE model_calls SET error_code = 'x'")),
    "has no row": (
        calls.ledger_is_journal,
        by("UPDATE model_calls SET id = gen_random_uuid() WHERE stage = 'synthesize'"),
    ),
    "have no end": (calls.unfinished_rows, by("UPDATE model_calls SET finished_at = NULL")),
    "asked again": (calls.extra_calls, by_repetition),
    "the API key appears in the database": (
        leaks.planted_secrets,
        by(f"UPDATE documents SET title = '{API_KEY}'"),  # noqa: S608 - a constant of the tests
    ),
    "the database's password appears in": (
        leaks.planted_secrets,
        by_log(lambda cluster: cluster.database.password),
    ),
    "a document's text appears in": (
        leaks.text_of_documents,
        by_log(lambda cluster: cluster.documents.canary),
    ),
    "is gone or was changed": (
        leftovers.untouched_documents,
        lambda cluster: next(iter(cluster.documents.digests)).write_text("other", "utf-8"),
    ),
    "has a traceback": (leftovers.tracebacks, by_log(lambda _: "Traceback (most recent …")),
    "MB": (leftovers.memory, lambda cluster: setattr(cluster.members.all[0], "peak_bytes", 10**9)),
    "was left behind": (
        leftovers.temporary_files,
        lambda cluster: (cluster.temporary / "part").write_text("x", "utf-8"),
    ),
    "messages still wait": (quiescence.nothing_waits, by_message),
    "leases or outbox": (quiescence.nothing_waits, by(OUTBOX)),
    "changed the table jobs": (quiescence.redelivery_is_free, lambda _: None),
}


@contextmanager
def copied_database(cluster: Cluster) -> Iterator[None]:
    """Switch the cluster to a copy of its database inside the block."""
    original, copy = cluster.name, f"{cluster.name}_copy"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    with cluster.database.connect() as connection:
        connection.execute(create.format(sql.Identifier(copy), sql.Identifier(original)))
        cluster.name = copy
        yield
        cluster.name = original
        connection.execute(drop.format(sql.Identifier(copy)))


@pytest.mark.thorough
def test_the_oracle_detects_tampering(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no violation without a fault; then each invariant detects its tampering."""
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=6))
    cluster.wait_until_finished()
    assert find_violations(cluster) == []
    cluster.members.end()
    monkeypatch.setattr(quiescence, "_SETTLING_SECONDS", 0.1)

    complaints: dict[str, list[str]] = {}
    for words, (invariant, tamper) in CASES.items():
        with copied_database(cluster):
            tamper(cluster)
            if invariant is quiescence.redelivery_is_free:
                write_while_restoring(cluster, monkeypatch)
            complaints[words] = list(invariant(cluster, NOTHING_SPECIAL))

    assert [
        words for words, said in complaints.items() if not any(words in line for line in said)
    ] == []


def write_while_restoring(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Update a row to the same values when messages are redelivered."""
    monkeypatch.setattr(
        quiescence, "_restore", lambda _: cluster.rows("UPDATE jobs SET id = id RETURNING 1")
    )


@pytest.mark.thorough
def test_messages_of_a_killed_worker_are_redelivered(cluster: Cluster) -> None:
    """A message in `unacked` returns to its queue, regardless of its age."""
    worker = cluster.start_worker("broker.popped:hang:0; chunk.before_claim:hang:60:*")
    cluster.start_scheduler()
    cluster.submit(cluster.documents.write(chunks=6))
    cluster.wait_for("SELECT count(*) > 0 FROM chunks")
    worker.kill()
    held = quiescence._unacknowledged(cluster)
    assert held > 0

    quiescence._restore(cluster)

    assert quiescence._unacknowledged(cluster) == 0
    assert quiescence._queued(cluster) >= held
