"""Tests of how much the first page of each list reads from a hundred thousand documents."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.settings import Settings
from tests.fakes.counting import recorded
from tests.fakes.many_documents import CALLS, fill
from tests.fakes.pipeline import Pipeline, a_pipeline
from tests.web.conftest import serving

LARGE = {"documents", "intakes", "jobs", "results", "facts", "model_calls", "chunks"}
# Blocks of 8 kB. A thousand results are counted, each by lookups in six indexes.
MAX_BLOCKS = 30_000
MAX_ROWS = 1_000
LISTS = (
    *("/runs", "/runs?status=open", "/runs/{run}", "/results", "/results?run={run}"),
    *("/results?sort=confidence", "/review", "/tables", "/documents/{document}"),
    *("/insight?days=365", "/inbox", "/schedules"),
)
OF_CALLS = ("latency", "tokens", "failures")


def test_the_first_page_of_each_list_uses_indexes(settings: Settings) -> None:
    """No large table is scanned, and the ledger is not read: its sums are loaded after the page."""
    pipeline = a_pipeline(settings)
    fill(pipeline, *CALLS)
    known = {
        "run": str(pipeline.value("SELECT name FROM runs")),
        "document": str(pipeline.value("SELECT min(id::text) FROM documents")),
    }

    with serving(settings) as served, httpx.Client(follow_redirects=True, timeout=60) as client:
        base = served.link.partition("/?")[0]
        client.get(served.link)
        for page in LISTS:
            scans, blocks = looked_at(pipeline, client, base + page.format(**known))
            whole = [scan["Relation Name"] for scan in scans if is_whole(scan)]
            assert not LARGE.intersection(map(str, whole)), page
            if not page.startswith("/documents"):
                assert "model_calls" not in {scan["Relation Name"] for scan in scans}, page
            assert blocks < MAX_BLOCKS, page

        # An index finds the days that are shown: eight of a hundred are read.
        for key in OF_CALLS:
            scans, _ = looked_at(pipeline, client, f"{base}/insight/figures/{key}?days=7")
            read = [scan for scan in scans if scan["Relation Name"] == "model_calls"]
            assert read, key
            for scan in read:
                assert rows_read(scan) < 60_000, (key, scan)


def looked_at(pipeline: Pipeline, client: httpx.Client, url: str) -> tuple[list[JsonObject], float]:
    """Return the table scans of a page, and the number of blocks that they read."""
    with recorded() as statements:
        assert client.get(url).status_code == 200, url
    scans, blocks = list[JsonObject](), 0.0
    with pipeline.context.database.read() as session:
        connection = session.connection()
        for statement, sent in statements:
            parameters = sent if isinstance(sent, Mapping) else {}
            if not statement.lstrip().startswith(("SELECT", "WITH")):
                connection.exec_driver_sql(statement, dict(parameters))
                continue
            explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
            plan: JsonValue = connection.exec_driver_sql(explain, dict(parameters)).scalar_one()
            nodes = [node for _, node in json_values.walk(plan) if isinstance(node, dict)]
            scans += [node for node in nodes if "Relation Name" in node]
            top = next(node for node in nodes if "Node Type" in node)
            blocks += sum(
                json_values.number(top[f"Shared {kind} Blocks"]) or 0 for kind in ("Hit", "Read")
            )
    return scans, blocks


def is_whole(scan: JsonObject) -> bool:
    """Return whether a scan reads a whole table: a sequential scan that no limit ends early."""
    return scan["Node Type"] == "Seq Scan" and rows_read(scan) > MAX_ROWS


def rows_read(scan: JsonObject) -> float:
    """Return how many rows a scan has read."""
    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    loops, *rows = (json_values.number(scan.get(name)) or 0.0 for name in ("Actual Loops", *names))
    return loops * sum(rows)
