"""Four real processes share the limits of a provider that they know nothing of."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from llmock.pytest_plugin import LLMock
from pydantic import SecretStr

from tests.fakes.processes import Processes
from tests.peers.limiting_server import limiting

PROCESSES = 4
WARM_UP_SECONDS = 20.0
SECONDS = 60.0
PER_SECOND = 20.0
TOO_MANY_REQUESTS = 429

pytestmark = pytest.mark.nightly


def fleet(folder: Path, provider: str, base_url: str, broker_url: SecretStr) -> Counter[str]:
    """Let four processes ask for a minute; return what their questions came to."""
    processes = Processes(folder=folder, environment={})
    arguments = (provider, base_url, broker_url.get_secret_value(), str(SECONDS))
    started = [processes.start("tests.fakes.limited_caller", *arguments) for _ in range(PROCESSES)]
    try:
        codes = [process.wait(timeout=SECONDS + 90) for process in started]
    finally:
        processes.end_all()
    assert codes == [0] * PROCESSES, processes.logs()
    counts = [json.loads(file.read_text("utf-8")) for file in folder.glob("*.log")]
    return sum((Counter(count) for count in counts), Counter())


def test_unknown_limits_are_found_and_kept(tmp_path: Path, broker_url: SecretStr) -> None:
    """At least 90 % of what is allowed, fewer than 2 % refused after warm-up, nothing failed."""
    with limiting(PER_SECOND, burst=40, delay_seconds=0.2) as provider:
        begun_at = time.monotonic()

        outcomes = fleet(tmp_path, "openai", provider.base_url, broker_url)

    start, end = begun_at + WARM_UP_SECONDS, begun_at + SECONDS
    assert set(outcomes) <= {"answered"}
    assert provider.admission.rate(start, end) >= 0.9 * PER_SECOND
    assert provider.admission.refused_share(start, end) < 0.02


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_limits_told_in_headers_are_kept(
    tmp_path: Path, broker_url: SecretStr, llmock: LLMock, provider: str
) -> None:
    """An independent peer that tells its limits refuses next to nothing, and is used well."""
    llmock.limits(rpm=int(60 * PER_SECOND))

    outcomes = fleet(tmp_path, provider, llmock.base_url(provider), broker_url)

    refused = sum(record.status == TOO_MANY_REQUESTS for record in llmock.requests)
    assert set(outcomes) <= {"answered"}
    assert outcomes["answered"] >= 0.9 * PER_SECOND * SECONDS
    assert refused < 0.02 * outcomes["answered"]
