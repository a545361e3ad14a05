"""Tests of metrics and traces of real processes, from an input file to a scrape or a collector."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
import promql_parser
import psutil
import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from chordwise.llm.limits.shared_limits import PAUSES_KEY
from chordwise.pipeline.diagnosis.document_traces import ENDED
from chordwise.relations.relation import rows
from chordwise.storage.database import driver
from chordwise.web.access_control import hash_password
from tests.conftest import Servers
from tests.e2e.conftest import Stage, stage_at_work
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.processes import ROOT, wait_until
from tests.peers.answering_server import serving
from tests.peers.otlp_collector import OtlpCollector, attributes
from tests.peers.serving import free_port, serving_in_a_thread

pytestmark = pytest.mark.xdist_group("telemetry")

SECRETS = ("Ottilie", "Quark", "tenancy", "127.0.0.1")
TOKEN = "scrape-me"  # noqa: S105 - of a test
DOCUMENTS = 12
# Outcomes of calls that do not occur here.
CODES = {"cached"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """A stage at work, the addresses of its metrics, and the collector of its traces."""

    stage: Stage
    collector: OtlpCollector
    worker: str
    scheduler: str
    web: str

    def value(self, address: str, name: str, **labels: str) -> float:
        """Return the sum of the samples with these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(httpx.get(address, headers=HEADERS).text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def scraped(
    tmp_path_factory: pytest.TempPathFactory, servers: Servers, databases: Databases
) -> Iterator[Scraped]:
    """Analyze some documents with two processes of a worker."""
    folder = tmp_path_factory.mktemp("metrics")
    worker, scheduler, web, reader = (free_port() for _ in range(4))
    collector = OtlpCollector()
    more = f"""
[traces]
endpoint = "{collector.endpoint}"
share = 1.0

[metrics]
worker_port = {worker}
scheduler_port = {scheduler}
reader_port = {reader}
token = "{TOKEN}"

[web]
port = {web}
password_hash = "{hash_password("secret")}"
"""
    prices = "input_usd_per_million_tokens = 10\noutput_usd_per_million_tokens = 20"
    with serving(delay_seconds=0.2) as provider, serving_in_a_thread(collector):
        settings = configuration(provider.base_url, model=prices, more=more)
        settings = settings.replace("processes = 1", "processes = 2")
        with stage_at_work(folder, settings, provider, servers, databases) as stage:
            stage.processes.start("chordwise", "web")
            stage.processes.start("worker", "--queues", "read")
            documents = folder / "tenancy"
            documents.mkdir()
            for number in range(DOCUMENTS):
                text = f"Ottilie Quark pays {number} euros. The rent is due on the first. "
                (documents / f"Quark-{number}.txt").write_text(text, "utf-8")
            ports = (worker, scheduler, web, reader)
            addresses = [f"http://127.0.0.1:{port}/metrics" for port in ports]
            for port in ports:
                wait_until(partial(listens, port), 60, f"port {port} is open")
            stage.submit(str(documents))
            stage.wait_for("SELECT status = 'finished' FROM runs")
            yield Scraped(
                stage=stage,
                collector=collector,
                worker=addresses[0],
                scheduler=addresses[1],
                web=addresses[2],
            )


def listens(port: int) -> bool:
    """Return whether a process listens; it reads no figures yet, which it would keep."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_worker_counts_what_the_ledger_has(scraped: Scraped) -> None:
    """The figures are those of both processes of the worker."""
    calls = scraped.stage.count("SELECT count(*) FROM model_calls")
    tokens = scraped.stage.count("SELECT sum(output_tokens)::int FROM model_calls")
    usd = scraped.stage.value("SELECT sum(cost_usd)::float8 FROM model_calls")

    peer = {"provider": "openai", "model": "peer"}
    assert scraped.value(
        scraped.worker, "chordwise_calls_total", **peer, outcome="answered"
    ) == pytest.approx(calls)
    assert scraped.value(
        scraped.worker, "chordwise_tokens_total", **peer, kind="output"
    ) == pytest.approx(tokens)
    assert scraped.value(scraped.worker, "chordwise_cost_usd_total", **peer) == pytest.approx(usd)
    assert scraped.value(scraped.worker, "chordwise_call_seconds_count", **peer) == calls
    assert scraped.value(scraped.worker, "chordwise_call_seconds_sum", **peer) > 0.2 * DOCUMENTS
    files = scraped.stage.folder.glob("home/run/metrics-worker/counter_*.db")
    names = {file.name for file in files}
    assert names  # one of them may have made all calls
    assert names <= {"counter_worker.db", "counter_worker-2.db"}


def test_scheduler_and_pages_show_the_shared_figures(scraped: Scraped) -> None:
    with scraped.stage.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO incidents (kind, reason, count) VALUES ('rescue', 'lease_expired', 3)"
            " ON CONFLICT (kind, reason) DO UPDATE SET count = 3"
        )

    def is_current(address: str) -> bool:
        rescues = scraped.value(address, "chordwise_incidents_total", reason="lease_expired")
        return rescues == 3 and scraped.value(address, "chordwise_permits", **window) > 0

    window = {"model": "peer", "state": "window"}
    for address in (scraped.scheduler, scraped.web):
        wait_until(partial(is_current, address), 120, "the kept figures are read again")
        text = httpx.get(address, headers=HEADERS).text
        assert 'chordwise_queue_length{kind="analyze_slice"} 0.0' in text
        assert 'chordwise_queue_oldest_seconds{kind="inbox"} 0.0' in text
        assert 'chordwise_jobs{status="paused"} 0.0' in text
        assert 'chordwise_intakes{outcome="unreadable"} 0.0' in text
        assert 'chordwise_incidents_total{kind="lease_lost",reason="heartbeat"} 0.0' in text
        assert scraped.value(address, "chordwise_permits", model="peer", state="in_flight") == 0


def test_no_label_has_text_names_of_files_or_addresses(scraped: Scraped) -> None:
    for address in (scraped.worker, scraped.scheduler, scraped.web):
        text = httpx.get(address, headers=HEADERS).text

        assert not [secret for secret in SECRETS if secret.lower() in text.lower()]
        assert len(text.splitlines()) < 200


def test_the_token_of_the_scrapers_opens_the_metrics_of_the_pages_alone(scraped: Scraped) -> None:
    """A scraper may use any name for the host."""
    host = {"Host": "web:8484"}

    assert httpx.get(scraped.web, headers=HEADERS | host).status_code == httpx.codes.OK
    for credentials in ("Bearer wrong", f"Basic {TOKEN}", "Bearer"):
        refused = httpx.get(scraped.web, headers={"Authorization": credentials})
        assert refused.status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(scraped.web).headers["location"].startswith("/login")
    pages = scraped.web.replace("/metrics", "/runs")
    assert httpx.get(pages, headers=HEADERS).headers["location"].startswith("/login")


def expressions() -> dict[str, str]:
    """Return the expressions of alerts, dashboard and autoscaling by their names."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))
    board = json.loads((ROOT / "deploy/grafana/chordwise.json").read_text("utf-8"))
    alerts = {rule["alert"]: rule["expr"] for rule in rules["groups"][0]["rules"]}
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in board["panels"]
        for target in panel["targets"]
    }
    scaled = {
        name: manifest["spec"]["triggers"][0]["metadata"]["query"]
        for name in ("worker", "reader")
        for manifest in yaml.safe_load_all(
            (ROOT / f"deploy/kubernetes/base/{name}.yaml").read_text("utf-8")
        )
        if manifest["kind"] == "ScaledObject"
    }
    return alerts | panels | scaled


def test_dashboard_and_alerts_use_only_what_is_exported(scraped: Scraped) -> None:
    """They name only metrics, labels and values of labels that the processes export."""
    pause = {"model": "peer", "code": "model_access", "asks_again_at": "0"}
    address = scraped.stage.processes.environment["CHORDWISE_BROKER_URL"]
    with redis.Redis.from_url(address) as broker:
        broker.hset(PAUSES_KEY, "another-key/peer", json.dumps(pause))
        wait_until(lambda: scraped.value(scraped.web, "chordwise_pauses") == 1, 120, "a pause")
        broker.delete(PAUSES_KEY)
    samples = [
        sample
        for address in (scraped.worker, scraped.scheduler, scraped.web)
        for family in text_string_to_metric_families(httpx.get(address, headers=HEADERS).text)
        for sample in family.samples
    ]
    values: dict[tuple[str, str], set[str]] = {("up", "job"): set()}
    for sample in samples:
        for label, value in (sample.labels | {"__name__": sample.name}).items():
            values.setdefault((sample.name, label), set()).add(value)
    labels = {label for _, label in values}

    for name, expression in expressions().items():

        def check(node: promql_parser.Expr, name: str = name) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                assert node.name == "up" or (node.name, "__name__") in values, name
                for matcher in node.matchers.matchers:
                    known = values[str(node.name), matcher.name]
                    used = set(matcher.value.split("|")) if node.name != "up" else set()
                    assert used <= known | CODES, (name, used - known)
            if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
                assert set(node.modifier.labels) <= labels, name

        promql_parser.walk(promql_parser.parse(expression), check)


def mapping(stage: Stage, key: str, value: str, table: str) -> dict[str, object]:
    """Return the values of a table by their keys, which are ids without hyphens."""
    pairs = f"jsonb_object_agg(replace({key}, '-', ''), {value})"
    mapped = stage.value(f"SELECT {pairs} FROM {table}")  # noqa: S608 - constants
    assert isinstance(mapped, dict)
    return mapped


def test_each_document_has_one_trace_from_file_to_result(scraped: Scraped) -> None:
    """Documents whose traces the collector has refused at first are sent again."""
    collector, stage = scraped.collector, scraped.stage
    wait_until(lambda: len(collector.traces()) == DOCUMENTS, 60, "the traces")

    microseconds = "(extract(epoch FROM created_at) * 1e6)::bigint"
    intakes = mapping(stage, "id::text", microseconds, "intakes")
    calls = mapping(stage, "right(id::text, 17)", "response_id", "model_calls")
    received = collector.traces()
    assert received.keys() == intakes.keys()
    assert collector.refused
    for trace, spans in received.items():
        by_name = {span.name: span for span in spans.values()}
        assert by_name.keys() == {"document", "read", "summary", "chunk", "chat peer"}
        document, chat = by_name["document"], by_name["chat peer"]
        assert document.span_id == bytes.fromhex(trace)[8:]
        assert [span.name for span in spans.values() if not span.parent_span_id] == ["document"]
        for span in spans.values():
            assert not span.parent_span_id or span.parent_span_id in spans
            assert document.start_time_unix_nano <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= document.end_time_unix_nano
        assert document.start_time_unix_nano // 1000 == intakes[trace]
        assert chat.kind == chat.SPAN_KIND_CLIENT
        assert chat.parent_span_id == by_name["chunk"].span_id
        assert attributes(chat) == {
            "chordwise.stage": "analyze",
            "chordwise.attempt": 1,
            "chordwise.cost_usd": 0.002,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "peer",
            "gen_ai.output.type": "json",
            "gen_ai.response.id": calls[chat.span_id.hex()],
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 50,
        }


def test_no_span_has_text_names_of_files_or_addresses(scraped: Scraped) -> None:
    wait_until(lambda: len(scraped.collector.traces()) == DOCUMENTS, 60, "the traces")

    sent = b"".join([*scraped.collector.bodies, *scraped.collector.refused]).lower()

    assert not [secret for secret in SECRETS if secret.lower().encode() in sent]


def test_a_share_of_the_documents_is_the_same_in_each_process(scraped: Scraped) -> None:
    ids = {UUID(hex_) for hex_ in mapping(scraped.stage, "id::text", "source", "intakes")}
    with scraped.stage.engine.connect() as connection:
        values = {"since": datetime(2026, 1, 1, tzinfo=UTC), "limit": 99}
        sampled = {
            share: {
                row["intake_id"]
                for row in rows(driver(connection), ENDED, {**values, "share": share})
            }
            for share in (0.0, 0.4, 1.0)
        }

    assert sampled[0.0] == set()
    assert sampled[0.4] == {id_ for id_ in ids if id_.int % 2**32 < 0.4 * 2**32}
    assert sampled[1.0] == ids


def test_a_lost_process_keeps_its_counts_and_its_successor_adds_to_them(scraped: Scraped) -> None:
    before = scraped.value(scraped.worker, "chordwise_calls_total")
    siblings = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["cmdline"] or [])[-1:] == ["worker-2"]
        and str(scraped.stage.folder) in (process.info["environ"] or {}).get("CHORDWISE_HOME", "")
    ]
    assert len(siblings) == 1

    siblings[0].send_signal(signal.SIGKILL)
    siblings[0].wait(10)
    assert scraped.value(scraped.worker, "chordwise_calls_total") == before > 0

    scraped.stage.wait_for("SELECT count(*) = 1 FROM incidents WHERE kind = 'process_lost'")
    more = scraped.stage.folder / "more"
    more.mkdir()
    for number in range(DOCUMENTS):
        (more / f"{number}.txt").write_text(f"Another document, number {number}.", "utf-8")
    scraped.stage.submit(str(more))
    scraped.stage.wait_for("SELECT count(*) = 2 FROM runs WHERE status = 'finished'")
    calls = scraped.stage.count("SELECT count(*) FROM model_calls")
    assert scraped.value(scraped.worker, "chordwise_calls_total") == calls
