"""Tests of every statement in the documentation, run as a read-only user."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ModelRequestError, RefusedError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.learning import certification, evaluation
from chordwise.pipeline.learning.certification import Bounds
from chordwise.pipeline.runs import user_sql
from chordwise.settings import Settings
from tests.fakes.generated_answers import a_field
from tests.fakes.learning import a_scope, say
from tests.fakes.pipeline import (
    AN_UNREAD_SCAN,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
    with_settings,
)
from tests.fakes.scripted_model import Answer

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = """
day analysis_type results partial needing_review mean_confidence mean_quality
source item final_value number currency date quote page place start_char end_char
day provider model calls input_tokens output_tokens cost_usd unpriced_calls
day model calls refusals refusal_share errors invalid_answers mean_quality
started_at model stage latency_ms p95_latency_ms source
what state error_code times example hint
source analysis_type status coverage character_count uncovered
source analysis_type model prompt_version newest_prompt_version created_at
run status intakes_found accepted duplicate intakes_balance jobs_planned succeeded partial
    failed jobs_balance
run source analysis_type status confidence quality coverage missing_rows review_reason
schedule due_at status error_message run accepted succeeded failed
run source analysis_type agreement confidence calls cost_usd
evaluated_at run analysis_type model metric value low high count
source analysis_type path expected found confidence judged_by
analysis_type part model claimed_from claims mean_claimed share_right
source analysis_type confidence calibrated_confidence acceptable
run profile name verdict accepted checks population error_bound more_checks
source item value reasons doubt blocks_certificate
day cache_hits cache_saved_usd routed_questions routing_saved_usd
day what error_code failures
run source analysis_type label grounded confidence
experiment variant documents valid grounded quality cost_usd latency_ms
run call_id position source version feedback_ids
source analysis_type item right_value judged quote start_char verdict author said_at
"""
"""The columns of each statement of the cookbook; an indented line continues the one above."""
STATEMENT = re.compile(r"```sql\n(.*?)```", re.DOTALL)
QUESTION = re.compile(r"(?m)^## (\d+)\. (.+\?)$")

SURE = "The bridge was opened in May 1902, and carts crossed it on the same day."
UNSURE = "Somebody may have seen the bridge before, but nobody remembers when."
DECLINED = "A text that the model does not want to read."
LONG = "".join(
    f"{year}: the council voted on the harbour and adjourned. " for year in range(1700, 1900)
)
BROKEN = "1799: the council"
OTHERS = {
    AnalysisType.CLASSIFICATION: {
        "primary_label": "report",
        "secondary_label": None,
        "confidence": 0.9,
        "features": [{"feature": "a date", "quote": "May 1902"}],
        "uncertainty_factors": [],
    },
    AnalysisType.EXTRACTION: {
        "fields": [
            a_field(item, value, 9)
            for item, value in (
                ("governing law", "laws of Texas"),
                ("effective date", "May 1, 2024"),
                ("annual fee", "500 EUR"),
            )
        ]
    },
}
CONTRACT = "The laws of Texas govern it, from May 1, 2024 on. The fee is 500 EUR a year."


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The result of a statement."""

    columns: list[str]
    rows: list[dict[str, object]]

    def row_of(self, column: str, value: object) -> dict[str, object]:
        (match,) = [row for row in self.rows if row[column] == value]
        return match


class Reader:
    """Runs the statements of the cookbook, by the number of their question."""

    def __init__(self, address: SecretStr) -> None:
        self._address = address

    def ask(self, statement: str) -> Table:
        with user_sql.run_query(self._address, statement) as answer:
            columns = list(answer.columns)
            rows = [dict(zip(columns, row, strict=True)) for row in answer.rows]
        return Table(columns=columns, rows=rows)

    def question(self, number: int) -> Table:
        return self.ask(cookbook()[number - 1])


def statements(name: str) -> list[str]:
    return [str(statement) for statement in STATEMENT.findall((ROOT / name).read_text("utf-8"))]


def cookbook() -> list[str]:
    return statements("docs/sql-cookbook.md")


def answering(request: CompletionRequest) -> Answer:
    text = request.task.text
    if DECLINED in text:
        return RefusedError("The model declined to answer.")
    if BROKEN in text:
        return ModelRequestError("The provider rejects this part.")
    if UNSURE in text:
        return a_summary("A sentence that stands nowhere.", confidence=3)
    if request.task.analysis_type in OTHERS:
        return json.dumps(OTHERS[request.task.analysis_type])
    return quoting_the_text(request)


def fill(pipeline: Pipeline) -> None:
    options = a_run(analysis=AnalysisOptions(confidence_threshold=0.5))
    texts = {"sure": SURE, "unsure": UNSURE, "declined": DECLINED, "long": LONG}
    documents = [a_document(text, f"{source}.txt") for source, text in texts.items()]
    pipeline.analyze(*documents, AN_UNREAD_SCAN, options=options)
    pipeline.execute(
        "UPDATE model_calls SET latency_ms = 9000 WHERE id = (SELECT min(id::text) FROM model_calls"
        " WHERE stage = 'synthesize')::uuid"
    )
    pipeline.execute(
        'INSERT INTO prompt_versions (version, sha256, system, "user")'
        " VALUES ('summary.analyze@3', 'newer', 'system', 'user')"
    )
    pipeline.execute(
        "INSERT INTO schedules (id, name, origin, cron, time_zone, run, folder, catch_up,"
        " expires_after_hours) VALUES (gen_random_uuid(), 'nightly', 'database', '0 2 * * *',"
        " 'UTC', 'submit letters', '/srv', 'once', 22)"
    )
    pipeline.execute(
        "INSERT INTO schedule_runs"
        " (id, schedule_id, schedule, run, due_at, trigger, status, expires_at)"
        " SELECT gen_random_uuid(), id, name, run, now(), 'clock', 'incomplete', now()"
        " FROM schedules"
    )
    experiment(pipeline)
    pipeline.execute("UPDATE results SET agreement = 0.6 WHERE confidence < 0.5")
    pipeline.execute("UPDATE runs SET schedule_run_id = (SELECT id FROM schedule_runs)")
    learn(pipeline)


def experiment(pipeline: Pipeline) -> None:
    pipeline.execute(
        "INSERT INTO experiments (id, name, profile, outcome, control, share, paired, risk,"
        " max_invalid, max_cost, max_latency) VALUES"
        " (gen_random_uuid(), 'shorter', 'letters', 'right', '{}', 0.5, 0, 0.05, 0.05, 0.5, 1)"
    )
    pipeline.execute(
        "INSERT INTO experiment_documents (intake_id, experiment_id, document_id, variant, paired)"
        " SELECT i.id, e.id, i.document_id, 'control', FALSE"
        " FROM intakes AS i CROSS JOIN experiments AS e WHERE i.outcome = 'accepted'"
    )


def learn(pipeline: Pipeline) -> None:
    database = pipeline.context.database
    say(pipeline, "approved", ["sure.txt"])
    say(pipeline, "rejected", ["unsure.txt"], path="/main_topic")
    pipeline.execute(
        "INSERT INTO learned_examples"
        " (id, document_id, analysis_type, version, feedback_ids, text, answer)"
        " SELECT gen_random_uuid(), document_id, analysis_type, 1, ARRAY[id], 'text', '{}'"
        " FROM feedback WHERE verdict = 'approved'"
    )
    pipeline.execute(
        "UPDATE model_calls SET examples = (SELECT jsonb_agg(id) FROM learned_examples)"
        " WHERE stage = 'analyze'"
    )
    evaluation.evaluate(database, a_scope(pipeline))
    certification.certify(database, a_scope(pipeline, "latest"), Bounds())


@pytest.fixture
def pipeline(small_chunks: Settings) -> Pipeline:
    return a_pipeline(small_chunks, answering, repeat_last=True)


@pytest.fixture
def filled_by() -> Callable[[Settings], None]:
    """Fill the database once for all questions."""
    return fill_as_small


def fill_as_small(settings: Settings) -> None:
    narrow = with_settings(settings, "pipeline", chunk_tokens=800)
    fill(a_pipeline(narrow, answering, repeat_last=True))


@pytest.fixture
def reader(database_url: SecretStr) -> Reader:
    return Reader(database_url)


def test_each_question_has_one_statement() -> None:
    text = (ROOT / "docs/sql-cookbook.md").read_text("utf-8")

    numbers = [int(number) for number, _ in QUESTION.findall(text)]
    sections = QUESTION.split(text)[3::3]

    assert numbers == list(range(1, len(cookbook()) + 1))
    assert [section.count("```sql") for section in sections] == [1] * len(numbers)
    assert len(numbers) > 10


def test_every_statement_returns_rows_with_its_columns(reader: Reader) -> None:
    expected = [line.split() for line in COLUMNS.replace("\n    ", " ").strip().split("\n")]
    tables = [reader.question(number) for number in range(1, len(cookbook()) + 1)]

    assert [table.columns for table in tables] == expected
    assert [number for number, table in enumerate(tables, start=1) if not table.rows] == []


def test_the_statement_of_the_readme(pipeline: Pipeline, database_url: SecretStr) -> None:
    items = AnalysisOptions(instructions="governing law, effective date, annual fee")
    options = a_run(AnalysisType.EXTRACTION, analysis=items)
    pipeline.analyze(CONTRACT, options=replace(options, save_as="contracts"))

    (statement,) = statements("README.md")
    (row,) = Reader(database_url).ask(statement).rows

    assert (row["governing_law"], row["annual_fee_currency"]) == ("laws of Texas", "EUR")
    assert (row["count"], row["sum"]) == (1, 500)


def test_the_statement_about_classifications(pipeline: Pipeline, database_url: SecretStr) -> None:
    pipeline.analyze(SURE, options=a_run(AnalysisType.CLASSIFICATION))

    asking = Reader(database_url)
    answers = [asking.ask(statement).rows for statement in statements("docs/analyses.md")]

    assert [row["label"] for rows in answers for row in rows if "label" in row] == ["report"]


def test_results_and_facts(reader: Reader) -> None:
    """Questions 1 and 2: counts by type and day, and quotes that occur in their documents."""
    by_day, answer = reader.question(1), reader.question(2)

    (day,) = by_day.rows
    assert (day["results"], day["partial"], day["needing_review"]) == (3, 1, 2)
    assert {row["source"] for row in answer.rows} == {"sure.txt", "long.txt"}
    assert answer.row_of("source", "sure.txt")["quote"] == SURE[:40].rpartition(" ")[0]


def test_calls_and_their_failures(reader: Reader) -> None:
    """Questions 3 to 6: cost, refusals, slow calls, and classes of failures."""
    cost, quality, slow, failed = (reader.question(number) for number in (3, 4, 5, 6))

    assert cost.rows[0]["calls"] == quality.rows[0]["calls"]
    assert quality.rows[0]["refusals"] == 1
    assert quality.rows[0]["errors"] == 2
    assert slow.row_of("latency_ms", 9000)["source"] == "long.txt"
    assert {row["error_code"] for row in failed.rows} == {"needs_ocr", "refused", "model_request"}
    assert failed.row_of("what", "intake")["hint"] == "Run it through OCR."


def test_missing_stale_and_doubtful_results(reader: Reader) -> None:
    """Questions 7 to 10: coverage, newer prompts, the account, and the review queue."""
    covered, stale, account, doubtful = (reader.question(number) for number in (7, 8, 9, 10))

    uncovered = covered.row_of("source", "long.txt")["uncovered"]
    assert isinstance(uncovered, list)
    assert [part["error_code"] for part in uncovered] == ["model_request"]
    assert {row["source"] for row in stale.rows} == {"sure.txt", "unsure.txt"}
    assert stale.rows[0]["newest_prompt_version"] == "summary.analyze@3"
    assert account.rows[0]["intakes_balance"] is account.rows[0]["jobs_balance"] is True
    assert {row["source"] for row in doubtful.rows} == {"unsure.txt", "long.txt"}


def test_the_quality_of_results(reader: Reader) -> None:
    """Questions 13 to 16: accuracy, errors, calibration, and results without a calibration."""
    history, wrong, curve, results = (reader.question(number) for number in (13, 14, 15, 16))

    accuracy = history.row_of("metric", "accuracy")
    assert (accuracy["value"], accuracy["count"]) == (0.5, 2)
    assert wrong.row_of("source", "unsure.txt")["judged_by"] == "feedback"
    assert [(row["claims"], row["share_right"]) for row in curve.rows] == [(1, 0), (1, 1)]
    assert {row["calibrated_confidence"] for row in results.rows} == {None}


def test_the_review_queue_and_classes_of_failures(reader: Reader) -> None:
    """Questions 18 to 20: answers to review, of which one is partial, and classes of failures."""
    queued, _, failed = (reader.question(number) for number in (18, 19, 20))

    assert {row["source"] for row in queued.rows} == {"unsure.txt", "long.txt"}
    row = queued.row_of("source", "unsure.txt")
    assert (row["item"], row["doubt"]) == (None, Decimal("0.9250"))
    assert row["reasons"] == [
        "1 of 1 quotes are not in the text: “A sentence that stands nowhere.”.",
        "The confidence 0.30 is below 0.5.",
    ]
    classes = {(row["what"], row["error_code"]): row["failures"] for row in failed.rows}
    assert classes["intake", "needs_ocr"] == 1
    assert classes["call", "refused"] == classes["chunk", "refused"] == 1


def test_scheduled_runs(reader: Reader) -> None:
    (row,) = reader.question(11).rows

    assert (row["schedule"], row["status"], row["accepted"]) == ("nightly", "incomplete", 4)
    assert (row["succeeded"], row["failed"]) == (2, 1)


def test_samples_that_disagree(reader: Reader) -> None:
    (row,) = reader.question(12).rows

    assert (row["source"], row["agreement"], row["calls"]) == ("unsure.txt", 0.6, 1)


def test_the_objections_of_a_critique(reader: Reader, pipeline: Pipeline) -> None:
    pipeline.execute(
        """UPDATE results SET critique = '{"outcome": "kept", "violations":
        [{"path": "/main_topic", "problem": "Too short."}, {"path": "/a", "problem": "b"}]}'
        WHERE confidence < 0.5"""
    )

    answer = reader.ask(statements("docs/models.md")[-1])

    assert answer.columns == ["document_id", "path", "problem"]
    assert answer.row_of("path", "/main_topic")["problem"] == "Too short."
    assert len(answer.rows) == 2
