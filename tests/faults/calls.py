"""I4 of the oracle: the provider's journal and the ledger agree, and no call is wasted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chordwise.llm.middleware.rate_limited import max_unstored_calls
from tests.fakes.configuration import CONCURRENCY
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster

_LEDGER = """
SELECT id::text, finished_at IS NOT NULL, error_code IS NULL FROM model_calls
WHERE NOT cache_hit"""


def ledger_is_journal(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Every request has a row, and every stored answer had a request."""
    rows = {str(row[0]): (bool(row[1]), bool(row[2])) for row in cluster.rows(_LEDGER)}
    requests = Counter(request.call_id for request in cluster.provider.requests)
    if unnamed := requests.pop(None, 0):
        yield f"{unnamed} requests have no id of a row of the ledger"
    for call_id, count in requests.items():
        if call_id not in rows:
            yield f"the request {call_id} has no row in the ledger"
        if count > 1:
            yield f"the row {call_id} has {count} requests"
    for call_id, (finished, answered) in rows.items():
        if finished and answered and call_id not in requests:
            yield f"the ledger has an answer {call_id} that was never asked for"


def unfinished_rows(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """Only a kill leaves an unfinished row: of a lost call, or of a prepared one."""
    unfinished = cluster.count("SELECT count(*) FROM model_calls WHERE finished_at IS NULL")
    allowed = cluster.members.abandoned * 2 * max_unstored_calls(CONCURRENCY)
    if unfinished > allowed:
        yield f"{unfinished} rows of the ledger have no end; {allowed} are allowed"


def extra_calls(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """No question is repeated more often than kills and planned retries explain."""
    extra = cluster.provider.extra_calls
    allowed = cluster.members.abandoned * max_unstored_calls(CONCURRENCY) + allowance.extra_calls
    if extra > allowed:
        yield f"{extra} questions were asked again; {allowed} are allowed"
