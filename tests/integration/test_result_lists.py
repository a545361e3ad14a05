"""Tests of lists of results: filters, search, order, pages, equivalent SQL, and indexes."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.runs import user_sql
from chordwise.relations import results
from chordwise.relations.relation import Row, Values, literal
from chordwise.relations.results import Mark, ResultOrder
from chordwise.settings import Settings
from chordwise.storage.database import driver
from chordwise.storage.sql_text import SEARCHED_CHARACTERS, words_of
from tests.fakes.many_documents import fill
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run, a_summary

HARBOUR = "The harbour of Lindau was rebuilt in 1856. It cost more than the town had planned."
LEASE = "The tenant's fee is 5 % of the rent, due at the first of May."
LETTER = "Dear Anna, the rent is late again. It's the third time: C:\\letters\\3."


def answering(request: CompletionRequest) -> str:
    """Answer confidently only about the lease, and quote the letter wrongly."""
    task, is_lease = request.task, "tenant" in request.task.text
    if task.analysis_type == AnalysisType.CLASSIFICATION:
        label, quote = ("lease", "due at the first") if is_lease else ("letter", "Dear Bernard")
        answer = {
            "primary_label": label,
            "secondary_label": None,
            "confidence": 0.9 if is_lease else 0.3,
            "features": [{"feature": "a word", "quote": quote}],
            "uncertainty_factors": [],
        }
        return json.dumps(answer)
    return a_summary(task.text[:20], topic="A breakwater of granite.")


@pytest.fixture
def answered(settings: Settings) -> Pipeline:
    """Return a pipeline with two runs: one summary, and two classifications."""
    pipeline = a_pipeline(settings, answering, repeat_last=True)
    labels = AnalysisOptions(labels=("lease", "letter"), votes=1)
    classified = replace(
        a_run(AnalysisType.CLASSIFICATION, analysis=labels), name="it's 5 %: run", save_as="post"
    )
    for options, contents in (
        (replace(a_run(), name="first"), {"harbour.txt": HARBOUR}),
        (classified, {"lease.txt": LEASE, "let_ter.txt": LETTER}),
    ):
        documents = [a_document(content, source) for source, content in contents.items()]
        pipeline.analyze(*documents, options=options)
    return pipeline


def listed(
    pipeline: Pipeline, values: Values, order: ResultOrder = ResultOrder.NEWEST
) -> list[str]:
    """Return the documents of a list, and check that its SQL has the same result."""
    database_url = pipeline.context.settings.database_url
    assert isinstance(database_url, SecretStr)
    with pipeline.context.database.read() as session:
        rows = results.listed(driver(session), values, order, limit=10)
        assert results.count_listed(driver(session), values, limit=10) == len(rows)
    with user_sql.run_query(database_url, results.listed_sql(values, order)) as answer:
        queried = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    assert queried == rows
    return [row["source"] for row in rows]


LISTS: tuple[tuple[Values, list[str]], ...] = (
    ({}, ["let_ter.txt", "lease.txt", "harbour.txt"]),
    ({"run": "it's 5 %: run"}, ["let_ter.txt", "lease.txt"]),
    ({"saved_as": "post", "label": "lease"}, ["lease.txt"]),
    ({"analysis_type": "summary"}, ["harbour.txt"]),
    ({"max_confidence": 0.5}, ["let_ter.txt"]),
    ({"grounded": False}, ["let_ter.txt"]),
    ({"grounded": True, "needs_review": False}, ["lease.txt", "harbour.txt"]),
    ({"needs_review": True}, ["let_ter.txt"]),
    ({"document": "T_T"}, ["let_ter.txt"]),
    ({"status": "partial"}, []),
    ({"words": "rent"}, ["let_ter.txt", "lease.txt"]),
    ({"words": "rent -anna"}, ["lease.txt"]),
    ({"words": '"third time" or granite'}, ["let_ter.txt", "harbour.txt"]),
    ({"words": "it's 5 %' :x \\"}, []),
)


def test_results_are_filtered_and_sorted(answered: Pipeline) -> None:
    for values, sources in LISTS:
        assert listed(answered, values) == sources, values
    oldest = ["harbour.txt", "lease.txt", "let_ter.txt"]
    assert listed(answered, {}, ResultOrder.OLDEST) == oldest
    surest = listed(answered, {"min_confidence": 0.5}, ResultOrder.MOST_CONFIDENT)
    assert surest == ["lease.txt", "harbour.txt"]


@pytest.mark.parametrize("order", ResultOrder)
def test_pages_have_each_result_once(answered: Pipeline, order: ResultOrder) -> None:
    answered.execute("UPDATE results SET confidence = 0.7 WHERE confidence > 0.5")
    read = list[Row]()

    with answered.context.database.read() as session:
        whole = results.listed(driver(session), {}, order, limit=10)
        after = None
        while page := results.listed(driver(session), {}, order, 1, after):
            read += page
            after = page[-1]["confidence"], page[-1]["result_id"]

    assert read == list(whole)
    assert len(read) == 3


_LARGE = {"documents", "intakes", "jobs", "results", "facts"}


def test_lists_of_many_documents_use_indexes(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    fill(pipeline, many=20_000)
    middle = "SELECT id FROM results ORDER BY id OFFSET 10000 LIMIT 1"
    later = 0.5, uuid.UUID(str(pipeline.value(middle)))
    lists: list[tuple[Values, ResultOrder]] = [
        *(({}, order) for order in ResultOrder),
        ({"needs_review": True}, ResultOrder.NEWEST),
        ({"grounded": False}, ResultOrder.NEWEST),
        *(({"words": words}, ResultOrder.NEWEST) for words in ("number 7777", "number", PHRASE)),
    ]

    for values, order in lists:
        for mark in (None, later):
            whole = tables_read_whole(pipeline, values, order, mark)
            assert not whole, (values, order, mark)

    # Every document has these words: an index finds them, and phrases are checked until a page is
    # full. A new run has no result yet.
    assert rows_read(pipeline, "documents", {"words": "number"}, "tsvector") == 0
    assert rows_read(pipeline, "documents", {"words": PHRASE}, "tsvector") <= 51
    begun = pipeline.submit()
    assert rows_read(pipeline, "results", {"run": begun.name}) < 1_000


PHRASE = '"doc number"'


def scans(
    pipeline: Pipeline,
    values: Values,
    order: ResultOrder = ResultOrder.NEWEST,
    after: Mark | None = None,
) -> list[JsonObject]:
    with pipeline.context.database.read() as session:
        statement, values = results.page(driver(session), values, order, 51, after)
        explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {literal(statement, values)}"
        whole: JsonValue = driver(session).execute(explain.encode()).fetchall()[0][0]
    nodes = [node for _, node in json_values.walk(whole) if isinstance(node, dict)]
    return [node for node in nodes if node.get("Relation Name") in _LARGE]


def tables_read_whole(
    pipeline: Pipeline, values: Values, order: ResultOrder, after: Mark | None
) -> list[str]:
    nodes = scans(pipeline, values, order, after)
    return [str(node["Relation Name"]) for node in nodes if node["Node Type"] == "Seq Scan"]


def rows_read(pipeline: Pipeline, table: str, values: Values, condition: str = "") -> float:
    read = 0.0
    for node in scans(pipeline, values):
        if node["Relation Name"] != table or condition not in str(node.get("Filter", "")):
            continue
        names = ("Actual Loops", "Actual Rows", "Rows Removed by Filter")
        loops, shown, left_out = (json_values.number(node.get(name)) or 0.0 for name in names)
        read += loops * (shown + left_out)
    return read


_WIDE = "\U00020000"


@pytest.mark.parametrize(
    "long",
    [
        "".join(f"{chr(0x20000 + n % 40000)}{_WIDE} " for n in range(SEARCHED_CHARACTERS)),
        "-".join(_WIDE * (n % 400 + 1) for n in range(1000)),
        " ".join(f"a{n}.example.com/b{n}" for n in range(20_000)),
    ],
    ids=["short words", "hyphens", "addresses"],
)
def test_a_text_with_too_many_words_is_taken_in(settings: Settings, long: str) -> None:
    pipeline = a_pipeline(settings)

    with pipeline.context.database.write() as session:
        words = session.execute(text(f"SELECT {words_of(':long')} IS NULL"), {"long": long})
        assert words.scalar_one() is False
    pipeline.submit(long)

    assert pipeline.value("SELECT count(*) FROM documents") == 1
