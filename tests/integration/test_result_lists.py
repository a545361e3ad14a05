"""Tests of lists of results: filters, search, order, pages, equivalent SQL, and indexes."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, replace

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.runs import result_lists, user_sql
from chordwise.pipeline.runs.result_lists import ListedResult, ResultFilter, ResultOrder, RowMark
from chordwise.settings import Settings
from chordwise.storage.record import SEARCHED_CHARACTERS, words_of
from tests.fakes.many_documents import fill
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run, a_summary

HARBOUR = "The harbour of Lindau was rebuilt in 1856. It cost more than the town had planned."
LEASE = "The tenant's fee is 5 % of the rent, due at the first of May."
LETTER = "Dear Anna, the rent is late again. It's the third time: C:\\letters\\3."


def answering(request: CompletionRequest) -> str:
    """Answer confidently only about the lease, and quote the letter wrongly."""
    task, is_lease = request.task, "tenant" in request.task.text
    if task.analysis_type is AnalysisType.CLASSIFICATION:
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
    for options, named in (
        (replace(a_run(), name="first"), {"harbour.txt": HARBOUR}),
        (classified, {"lease.txt": LEASE, "let_ter.txt": LETTER}),
    ):
        documents = [a_document(content, source) for source, content in named.items()]
        pipeline.analyze(*documents, options=options)
    return pipeline


def listed(pipeline: Pipeline, wanted: ResultFilter) -> list[str]:
    """Return the documents of a list, and check that its SQL has the same result."""
    database_url = pipeline.context.settings.database_url
    assert isinstance(database_url, SecretStr)
    with pipeline.context.database.read() as session:
        found = result_lists.read(session, wanted, limit=10)
        assert result_lists.count(session, wanted, limit=10) == len(found)
    with user_sql.run_query(database_url, result_lists.as_sql(wanted)) as answer:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    assert rows == [asdict(each) for each in found]
    return [each.source for each in found]


_SUREST = ResultOrder.MOST_CONFIDENT
LISTS: tuple[tuple[ResultFilter, list[str]], ...] = (
    (ResultFilter(), ["let_ter.txt", "lease.txt", "harbour.txt"]),
    (ResultFilter(order=ResultOrder.OLDEST), ["harbour.txt", "lease.txt", "let_ter.txt"]),
    (ResultFilter(run="it's 5 %: run"), ["let_ter.txt", "lease.txt"]),
    (ResultFilter(saved_as="post", label="lease"), ["lease.txt"]),
    (ResultFilter(analysis_type=AnalysisType.SUMMARY), ["harbour.txt"]),
    (ResultFilter(min_confidence=0.5, order=_SUREST), ["lease.txt", "harbour.txt"]),
    (ResultFilter(max_confidence=0.5), ["let_ter.txt"]),
    (ResultFilter(grounded=False), ["let_ter.txt"]),
    (ResultFilter(grounded=True, needs_review=False), ["lease.txt", "harbour.txt"]),
    (ResultFilter(needs_review=True), ["let_ter.txt"]),
    (ResultFilter(document="T_T"), ["let_ter.txt"]),
    (ResultFilter(status="partial"), []),
    (ResultFilter(words="rent"), ["let_ter.txt", "lease.txt"]),
    (ResultFilter(words="rent -anna"), ["lease.txt"]),
    (ResultFilter(words='"third time" or granite'), ["let_ter.txt", "harbour.txt"]),
    (ResultFilter(words="it's 5 %' :x \\"), []),
)


def test_results_are_filtered_and_sorted(answered: Pipeline) -> None:
    for wanted, sources in LISTS:
        assert listed(answered, wanted) == sources, wanted


@pytest.mark.parametrize("order", ResultOrder)
def test_pages_have_each_result_once(answered: Pipeline, order: ResultOrder) -> None:
    answered.execute("UPDATE results SET confidence = 0.7 WHERE confidence > 0.5")
    wanted, read = ResultFilter(order=order), list[ListedResult]()

    with answered.context.database.read() as session:
        whole = result_lists.read(session, wanted, limit=10)
        after = None
        while page := result_lists.read(session, wanted, 1, after):
            read += page
            after = RowMark(page[-1].confidence, page[-1].result_id)

    assert read == list(whole)
    assert len(read) == 3


_LARGE = {"documents", "intakes", "jobs", "results", "facts"}


def test_lists_of_many_documents_use_indexes(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    fill(pipeline, many=20_000)
    middle = "SELECT id FROM results ORDER BY id OFFSET 10000 LIMIT 1"
    later = RowMark(0.5, uuid.UUID(str(pipeline.value(middle))))
    wanted = [
        *(ResultFilter(order=order) for order in ResultOrder),
        ResultFilter(needs_review=True),
        ResultFilter(grounded=False),
        ResultFilter(words="number 7777"),
        ResultFilter(words="number"),
        ResultFilter(words='"doc number"'),
    ]

    for each in wanted:
        for mark in (None, later):
            assert not tables_read_whole(pipeline, each, mark), (each, mark)

    # Every document has these words: an index finds them, and phrases are checked until a page is
    # full. A new run has no result yet.
    assert rows_read(pipeline, "documents", ResultFilter(words="number"), "tsvector") == 0
    phrase = ResultFilter(words='"doc number"')
    assert rows_read(pipeline, "documents", phrase, "tsvector") <= 51
    begun = pipeline.submit()
    assert rows_read(pipeline, "results", ResultFilter(run=begun.name)) < 1_000


def scans(
    pipeline: Pipeline, wanted: ResultFilter, after: RowMark | None = None
) -> list[JsonObject]:
    with pipeline.context.database.read() as session:
        page = result_lists.page(session, wanted, 51, after)
        assert page is not None
        explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {result_lists.literal_sql(page)}"
        whole: JsonValue = session.execute(text(explain)).scalar_one()
    nodes = [each for _, each in json_values.walk(whole) if isinstance(each, dict)]
    return [each for each in nodes if each.get("Relation Name") in _LARGE]


def tables_read_whole(pipeline: Pipeline, wanted: ResultFilter, after: RowMark | None) -> list[str]:
    found = scans(pipeline, wanted, after)
    return [str(each["Relation Name"]) for each in found if each["Node Type"] == "Seq Scan"]


def rows_read(pipeline: Pipeline, table: str, wanted: ResultFilter, condition: str = "") -> float:
    read = 0.0
    for each in scans(pipeline, wanted):
        if each["Relation Name"] != table or condition not in str(each.get("Filter", "")):
            continue
        rows = ("Actual Rows", "Rows Removed by Filter")
        loops, shown, left_out = (
            json_values.number(each.get(name)) or 0.0 for name in ("Actual Loops", *rows)
        )
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
