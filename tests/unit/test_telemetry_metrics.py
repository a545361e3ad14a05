"""Tests of the counters of calls and of the figures that are kept for a while."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from pydantic import SecretStr

from chordwise.errors import ServiceUnavailableError
from chordwise.llm.middleware.metered import CallOutcome, count_call
from chordwise.pipeline.diagnosis import shared_figures
from chordwise.settings import Settings, environment
from chordwise.settings.sections import MetricsSettings
from chordwise.telemetry import metrics


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Count the calls of this process during the test."""
    monkeypatch.setattr(metrics, "counters", None)
    return metrics.count_here(CollectorRegistry())


def test_the_parts_of_a_call_are_counted_if_they_are_known(registry: CollectorRegistry) -> None:
    answered = CallOutcome(input_tokens=10, cost_usd=Decimal("0.25"))

    for _ in range(2):
        count_call("openai", "m", answered)
    count_call("openai", "m", CallOutcome(error_code="rate_limited", latency_ms=1_500))
    count_call("openai", "m", CallOutcome(refused=True))
    count_call("openai", "m", None)

    model = {"provider": "openai", "model": "m"}
    value = registry.get_sample_value
    assert value("chordwise_calls_total", {**model, "outcome": "answered"}) == 2
    assert value("chordwise_calls_total", {**model, "outcome": "rate_limited"}) == 1
    assert value("chordwise_calls_total", {**model, "outcome": "refused"}) == 1
    assert value("chordwise_calls_total", {**model, "outcome": "cached"}) == 1
    assert value("chordwise_tokens_total", {**model, "kind": "input"}) == 20
    assert value("chordwise_tokens_total", {**model, "kind": "output"}) == 0
    assert value("chordwise_cost_usd_total", model) == 0.5
    assert value("chordwise_call_seconds_sum", model) == 1.5


def test_a_label_of_a_model_has_no_folder(registry: CollectorRegistry) -> None:
    count_call("local", "/srv/ottilie/tiny.gguf", CallOutcome())
    count_call("openai", "openai/gpt-oss-20b", CallOutcome())

    models = {sample.labels["model"] for family in registry.collect() for sample in family.samples}
    assert models == {"tiny.gguf", "openai/gpt-oss-20b"}


def test_a_process_whose_port_is_taken_works_without_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "counters", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        settings = Settings(home=tmp_path, metrics=MetricsSettings(worker_port=port))

        metrics.serve(settings, "worker", port)

    assert environment.metrics_folder() is None


def test_several_scrapers_cost_one_read_and_a_slow_read_is_repeated_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Figures are kept for 5 seconds, or 1,000 times as long as it took to read them."""
    now, reads, seconds = [100.0], [0], [0.001]

    def read() -> Sequence[Metric]:
        reads[0] += 1
        now[0] += seconds[0]
        return (Metric("chordwise_x", "", "gauge"),)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = shared_figures.Kept(read)

    assert [len(kept.current()) for _ in range(3)] == [1, 1, 1]
    assert reads == [1]
    now[0] += 5
    seconds[0] = 0.1
    kept.current()
    now[0] += 99
    kept.current()
    assert reads == [2]
    now[0] += 1
    kept.current()
    assert reads == [3]


def test_figures_that_cannot_be_read_are_left_out() -> None:
    def read() -> Sequence[Metric]:
        raise ServiceUnavailableError("The database is away.")

    assert not shared_figures.Kept(read).current()


def test_the_token_of_the_scrapers_is_hidden() -> None:
    settings = Settings(metrics=MetricsSettings(token=SecretStr("hidden-one")))

    assert "hidden-one" not in repr(settings)
