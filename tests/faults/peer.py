"""llmock in place of the provider: an independent check of how its faults are handled."""

from __future__ import annotations

from collections.abc import Iterator

from llmock.pytest_plugin import LLMock

from tests.faults import accounts, calls
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.oracle import INVARIANTS, Invariant

_REQUESTS = "SELECT count(*) FROM model_calls WHERE NOT cache_hit"


def ask_the_peer(cluster: Cluster, llmock: LLMock) -> None:
    """Make processes that start from now on call llmock instead of the test provider."""
    file = cluster.folder / "chordwise.toml"
    ours = f"http://127.0.0.1:{cluster.to_provider.port}/v1"
    file.write_text(file.read_text("utf-8").replace(ours, llmock.base_url("openai")), "utf-8")


def invariants_beside(llmock: LLMock) -> tuple[tuple[str, Invariant], ...]:
    """Return the invariants of the oracle with llmock's journal and checks added.

    Its answers fit the schema and contain no quotes, so no fact can be grounded.
    """

    def verdict(_: Cluster, __: Allowance) -> Iterator[str]:
        for finding in llmock.verdict().errors:
            yield f"llmock finds {finding.code}: {finding.title}"

    def ledger(cluster: Cluster, _: Allowance) -> Iterator[str]:
        rows, requests = cluster.count(_REQUESTS), len(llmock.requests)
        if rows != requests:
            yield f"the ledger has {rows} rows, and llmock has seen {requests} requests"

    ours = {accounts.whole_documents, calls.ledger_is_journal}
    kept = (entry for entry in INVARIANTS if entry[1] not in ours)
    return (("I4", verdict), ("I4", ledger), *kept)
