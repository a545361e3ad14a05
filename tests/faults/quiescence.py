"""I7 of the oracle: nothing waits, redelivered messages cost nothing, and new work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event

import redis
from pydantic import SecretStr

from chordwise import settings as settings_module
from chordwise.pipeline.runtime import messages
from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster

_PREFIX = "chordwise:"
_UNACKED = f"{_PREFIX}unacked"
_SETTLING_SECONDS = 20.0
_MAX_MESSAGES = 100_000
# Older than any message that a worker with a wrong clock may have recorded.
_ANY_AGE_SECONDS = -10_000_000
# Tables that recovery changes in the meantime.
_UNCOUNTED_TABLES = ("alembic_version", "incidents")

_BUSY = """
SELECT (SELECT count(*) FROM outbox)
    + (SELECT count(*) FROM chunks WHERE lease_until > now() OR status = 'running')
    + (SELECT count(*) FROM jobs WHERE lease_until > now() OR status = 'synthesizing')"""

_OWED = "SELECT count(*) FROM deliveries WHERE status = 'pending'"

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"


def nothing_waits(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Queues and outbox are empty, and there are no leases."""
    if not _settles(cluster, lambda: _waiting(cluster) == 0):
        yield f"{_queued(cluster)} messages still wait in the broker"
        yield f"{cluster.count(_BUSY)} leases or outbox messages are left"
    for role in ("worker", "scheduler"):
        if not cluster.members.alive(role):
            yield f"no {role} is alive at the end: the experiment has to leave one"


def redelivery_is_free(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Messages of killed workers, redelivered now, cause no call and no write, and disappear."""
    cluster.redelivered = _unacknowledged(cluster)
    before, requests = _steady_contents(cluster), len(cluster.provider.requests)
    _restore(cluster)
    if not _settles(cluster, lambda: _waiting(cluster) + _unacknowledged(cluster) == 0):
        yield f"{_queued(cluster)} delivered messages wait, {_unacknowledged(cluster)} are held"
    after = _contents(cluster)
    for table in before:
        if before[table] != after[table]:
            yield f"a message for finished work has changed the table {table}"
    if (extra := len(cluster.provider.requests) - requests) > 0:
        yield f"messages for finished work have cost {extra} calls"


def canary_goes_through(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """A new document is processed at once."""
    if not all(cluster.members.alive(role) for role in ("worker", "scheduler")):
        return
    run_id = cluster.submit(cluster.documents.write(chunks=1))
    query = f"SELECT status = 'finished' FROM runs WHERE id = '{run_id}'"  # noqa: S608 - an id of the experiment
    try:
        wait_until(lambda: cluster.value(query) is True, allowance.canary_seconds, "the canary")
    except AssertionError:
        yield f"a new document is not answered within {allowance.canary_seconds:g} s"


def _waiting(cluster: Cluster) -> int:
    return _queued(cluster) + cluster.count(_BUSY)


def _queued(cluster: Cluster) -> int:
    """Return the number of messages in all queues of all priorities."""
    with cluster.broker.client() as client:
        return sum(
            _length(client, key)
            for queue in (messages.CONTROL_QUEUE, messages.CHUNK_QUEUE)
            for key in client.scan_iter(match=f"{_PREFIX}{queue}*")
        )


def _length(client: redis.Redis, key: bytes) -> int:
    return int(client.llen(key)) if client.type(key) == b"list" else 0


def _unacknowledged(cluster: Cluster) -> int:
    with cluster.broker.client() as client:
        return int(client.hlen(_UNACKED))


def _contents(cluster: Cluster) -> dict[str, object]:
    """Return a digest of each table, which also differs after an update without a change."""
    tables = [str(row[0]) for row in cluster.rows(_TABLES)]
    return {
        table: cluster.value(
            "SELECT md5(coalesce(string_agg(concat_ws(' ', t.xmin, t.ctid, t), ' '"  # noqa: S608 - names of Chordwise's tables
            f" ORDER BY t.ctid), '')) FROM \"{table}\" AS t"
        )
        for table in tables
        if table not in _UNCOUNTED_TABLES
    }


def _steady_contents(cluster: Cluster) -> dict[str, object]:
    """Return the contents once nothing changes any more.

    A frozen process finishes its ledger rows late, and the scheduler later notifies at a run's end.
    """
    contents = [_contents(cluster)]

    def is_steady() -> bool:
        owed = cluster.count(_OWED)  # first, so that calls in between are noticed
        contents.append(_contents(cluster))
        return contents[-1] == contents[-2] and not owed

    _settles(cluster, is_steady, every_seconds=1.0)
    return contents[-1]


def _restore(cluster: Cluster) -> None:
    """Restore messages at once, as kombu does after the visibility timeout."""
    broker_url = SecretStr(cluster.broker.valkey.url())
    app = messages.open_app(settings_module.load(broker_url=broker_url))
    with app.connection_for_write() as connection:
        quality_of_service = connection.default_channel.qos
        quality_of_service.visibility_timeout = _ANY_AGE_SECONDS
        quality_of_service.restore_visible(num=_MAX_MESSAGES, interval=1)
    app.close()


def _settles(
    cluster: Cluster, condition: Callable[[], bool], every_seconds: float | None = None
) -> bool:
    def looked() -> bool:
        if every_seconds:
            Event().wait(every_seconds)
        return condition()

    try:
        wait_until(looked, _SETTLING_SECONDS, f"quiet in {cluster.name}")
    except AssertionError:
        return False
    return True
