"""Metrics for Prometheus: the counters of model calls, and the server of `/metrics`.

A process with children, such as a worker, serves the counters of them all: each process keeps its
counters in a file of a common folder. The library is imported only if metrics are enabled.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from chordwise.settings import Settings, environment

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

_SECONDS = (0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300)


class CallCounters:
    """The counters of the model calls of this process; a registry that is none reads the files."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        from prometheus_client import Counter, Histogram  # noqa: PLC0415 - see the module

        model, counter = ("provider", "model"), partial(Counter, registry=registry)
        self.calls = counter("chordwise_calls", "Model calls that ended.", (*model, "outcome"))
        self.tokens = counter("chordwise_tokens", "Tokens of model calls.", (*model, "kind"))
        self.cost_usd = counter("chordwise_cost_usd", "US dollars, where they are known.", model)
        self.seconds = Histogram(
            "chordwise_call_seconds", "Duration.", model, registry=registry, buckets=_SECONDS
        )


counters: CallCounters | None = None
"""The counters of this process, if it has metrics."""


def label_of(provider: str, model: str) -> str:
    """Return the label of a model: its name, without the folder of a file on this machine."""
    return Path(model).name if provider == "local" else model


def join(name: str) -> None:
    """Count the calls of this process for the one that serves its metrics, if there is one.

    No other process that it serves has the same name.
    """
    global counters  # noqa: PLW0603 - one set of counters for each process
    folder = environment.metrics_folder()
    if folder is None:
        return
    from prometheus_client import values  # noqa: PLC0415 - see the module

    try:
        for file in (folder / f"counter_{name}.db", folder / f"histogram_{name}.db"):
            if not file.exists():  # its space is reserved: a full disk would end this process later
                file.write_bytes(bytes(2**20))
    except OSError as error:
        log.warning("metrics.not_counted", reason=str(error))
        return
    # The library would name the files by the process id, and keep those of ended processes.
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]
    counters = CallCounters(None)


def count_here(collector: Collector) -> CollectorRegistry:
    """Count the calls of this process alone; return the registry, with `collector`."""
    global counters  # noqa: PLW0603 - one set of counters for each process
    import prometheus_client  # noqa: PLC0415 - see the module

    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    counters = CallCounters(registry)
    return registry


def serve(settings: Settings, name: str, port: int, collector: Collector | None = None) -> None:
    """Serve the metrics of this process, its children, and `collector` in a thread.

    Does nothing if the port is 0. If the port or the home cannot be used, this is logged.
    """
    if not port:
        return
    import prometheus_client.multiprocess  # noqa: PLC0415 - see the module

    registry = prometheus_client.CollectorRegistry()
    folder = settings.home / "run" / f"metrics-{name}"
    try:
        prometheus_client.start_http_server(port, settings.metrics.address, registry)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        log.warning("metrics.not_served", port=port, reason=str(error))
        return
    log.info("metrics.served", address=settings.metrics.address, port=port)
    if collector is not None:
        registry.register(collector)
    prometheus_client.multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    environment.set_metrics_folder(folder)
    join(name)
