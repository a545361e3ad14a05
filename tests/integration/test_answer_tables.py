"""Tests of the schema `answers`, queried in plain SQL over contracts and invoices."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise import Client
from chordwise.cli.commands.tables import VIEW_COLUMNS
from chordwise.domain import json_values
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answer_tables import columns_for
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import ExitCode, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.exports import selection
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.intake import answer_tables
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from chordwise.storage import answer_tables as stored
from chordwise.storage.database import driver
from tests.fakes.commands import output_of, run
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import NOW, Pipeline, a_document, a_label, a_pipeline, a_run

pytestmark = pytest.mark.usefixtures("addressed")

ITEMS = ("governing law", "effective date", "parties", "annual fee", "notice period", "renewal")
LAWS = ("Delaware", "New York", "Delaware", "England")
INVOICE: JsonObject = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "description": "Who sends the invoice."},
        "issued": {"type": "string", "format": "date"},
        "total": {"type": ["number", "null"]},
        "paid": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "line_items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "what": {"type": "string"},
                    "quantity": {"type": "integer"},
                    "amount": {"type": "number"},
                },
            },
        },
    },
}


def a_contract(number: int) -> str:
    """Return a contract as lines of the form `Item: value`; every fourth one has no fee."""
    fee = "" if number % 4 == 3 else f"annual fee: US$ {1_000 * (number + 1):,}.50\n"
    return (
        f"AGREEMENT No. {number}\n"
        f"governing law: {LAWS[number % 4]}\n"
        f"effective date: March {number + 1}, 20{20 + number % 3}\n"
        f"parties: Ada {number} Ltd\nparties: Bob {number} Inc.\n{fee}"
        f"notice period: {30 * (1 + number % 2)} days\n"
    )


def an_invoice(number: int) -> str:
    rows: list[JsonValue] = [
        {"what": f"bolt {place}", "quantity": place + 1, "amount": 2.5 * (place + 1)}
        for place in range(number % 3 + 1)
    ]
    data: JsonObject = {
        "vendor": f"Vendor {number % 2}",
        "issued": f"2026-0{number % 6 + 1}-15",
        "total": None if number == 11 else sum(2.5 * (n + 1) for n in range(len(rows))),
        "paid": number % 2 == 0,
        "tags": ["urgent"] if number < 3 else [],
        "line_items": rows,
    }
    return f"INVOICE {number}\n{json.dumps(data)}\n"


def reading(request: CompletionRequest) -> str:
    text = request.task.text
    if request.task.options.schema is not None:
        whole = json.loads(text[text.index("{") : text.rindex("}") + 1])
        members = json_values.as_object(request.task.options.schema["properties"])
        data = {name: value for name, value in whole.items() if name in members}
        evidence = [{"path": "/vendor", "quote": data.get("vendor", ""), "confidence": 9}]
        return json.dumps({"data": data, "evidence": evidence})
    items = extraction.items(request.task.options)
    said = [line.partition(": ") for line in text.splitlines() if ": " in line]
    lines = [line for line in said if line[0] in items]
    fields = [a_field(item, value, 9, quote=f"{item}: {value}") for item, _, value in lines]
    present = {item for item, _, _ in lines}
    missing = [a_field(item, None, 9) for item in items if item not in present]
    return json.dumps({"fields": [*fields, *missing]})


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, reading, repeat_last=True)


def saved(
    pipeline: Pipeline,
    name: str,
    analysis: AnalysisOptions,
    documents: Mapping[str, str],
    *,
    fresh: bool = False,
) -> Submission:
    options = replace(a_run(AnalysisType.EXTRACTION, analysis=analysis, fresh=fresh), save_as=name)
    contents = (a_document(text, source) for source, text in documents.items())
    return pipeline.analyze(*contents, options=options)


def contracts(
    pipeline: Pipeline, items: tuple[str, ...] = ITEMS, *, fresh: bool = False
) -> Submission:
    documents = {f"/files/contract-{n:02}.txt": a_contract(n) for n in range(12)}
    analysis = AnalysisOptions(instructions=", ".join(items))
    return saved(pipeline, "contracts", analysis, documents, fresh=fresh)


def invoices(pipeline: Pipeline) -> Submission:
    documents = {f"/files/invoice-{n:02}.txt": an_invoice(n) for n in range(12)}
    return saved(pipeline, "invoices", AnalysisOptions(schema=INVOICE), documents)


@pytest.fixture
def filled_by(request: pytest.FixtureRequest) -> Callable[[Settings], None] | None:
    return fill if "filled" in request.fixturenames else None


def fill(settings: Settings) -> None:
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    invoices(pipeline)
    contracts(pipeline)


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    return pipeline


def test_questions_about_contracts(filled: Pipeline) -> None:
    rows = filled.rows

    assert rows("SELECT governing_law, count(*) FROM answers.contracts GROUP BY 1 ORDER BY 1") == [
        ("Delaware", 6),
        ("England", 3),
        ("New York", 3),
    ]
    assert rows(
        "SELECT document FROM answers.contracts WHERE effective_date >= DATE '2022-06-01' "
        "OR effective_date < DATE '2020-03-02' ORDER BY 1"
    ) == [("contract-00.txt",)]
    assert rows("SELECT sum(annual_fee), min(annual_fee_currency) FROM answers.contracts") == [
        (Decimal("54004.50"), "USD")
    ]
    assert rows("SELECT document FROM answers.contracts WHERE annual_fee IS NULL ORDER BY 1") == [
        ("contract-03.txt",),
        ("contract-07.txt",),
        ("contract-11.txt",),
    ]
    assert rows("SELECT document FROM answers.contracts WHERE 'Bob 7 Inc.' = ANY (parties)") == [
        ("contract-07.txt",)
    ]
    assert rows("SELECT count(*) FROM answers.contracts WHERE needs_review") == [(0,)]


def test_questions_about_invoices(filled: Pipeline, settings: Settings) -> None:
    """An export is ordered by document and row."""
    rows = filled.rows

    assert rows(
        "SELECT vendor, sum(total), bool_or(paid) FROM answers.invoices GROUP BY 1 ORDER BY 1"
    ) == [("Vendor 0", Decimal("50.0"), True), ("Vendor 1", Decimal("35.0"), False)]
    assert rows(
        "SELECT what, sum(amount), sum(quantity) FROM answers.invoices_line_items "
        "GROUP BY 1 ORDER BY 1"
    ) == [
        ("bolt 0", Decimal("30.0"), 12),
        ("bolt 1", Decimal("40.0"), 16),
        ("bolt 2", Decimal("30.0"), 12),
    ]
    assert rows(
        "SELECT row_index, amount FROM answers.invoices_line_items "
        "WHERE document = 'invoice-02.txt' ORDER BY row_index"
    ) == [(0, Decimal("2.5")), (1, Decimal("5.0")), (2, Decimal("7.5"))]
    assert rows(
        "SELECT issued, tags FROM answers.invoices WHERE tags IS NOT NULL ORDER BY 1 LIMIT 1"
    ) == [(date(2026, 1, 15), ["urgent"])]
    columns = Selection(name="answers.invoices_line_items", columns=("document", "row_index"))
    assert settings.database_url is not None
    with selection.opened(settings.database_url, columns) as table:
        exported = [tuple(row) for batch in table.batches for row in batch]
    assert exported == [(f"invoice-{n:02}.txt", row) for n in range(12) for row in range(n % 3 + 1)]


def test_each_value_has_its_evidence_in_adjacent_columns(filled: Pipeline) -> None:
    assert filled.value(
        "SELECT bool_and(governing_law_grounded AND substr(d.text, governing_law_start_char + 1, "
        "governing_law_end_char - governing_law_start_char) = governing_law_quote) "
        "FROM answers.contracts_evidence AS e JOIN documents AS d ON d.id = e.document_id"
    )
    assert filled.rows(
        "SELECT parties_quote FROM answers.contracts_evidence WHERE document LIKE '%-05%'"
    ) == [(["parties: Ada 5 Ltd", "parties: Bob 5 Inc."],)]


def test_a_declared_type_determines_the_column(pipeline: Pipeline) -> None:
    """The answers name the item without its type; a table in millions is stored in units.

    An array has a repeated text once; its evidence is in the same order, with its mentions.
    """
    options = AnalysisOptions(
        items=(
            *("worth: money", "begun: date", "party: list", "signed: yes/no", "staff: number"),
            *("begun dates", "total assets"),
        )
    )
    text = (
        "worth: EUR 5\nbegun: 2024-05-03\nsigned: Yes\nstaff: 12\n"
        "party: Ada Ltd\nparty: Bob Inc.\nparty: ADA  Ltd\n"
        "begun dates: 2024-05-03\nbegun dates: 3 May 2024\n"
        "Balance sheet ($ in millions)\ntotal assets: 1,234\n"
    )

    saved(pipeline, "typed", options, {"a.txt": text})

    day = date(2024, 5, 3)
    assert pipeline.rows(
        "SELECT worth, worth_currency, begun, party, signed, staff, begun_dates, total_assets,"
        " total_assets_currency FROM answers.typed"
    ) == [
        (
            *(Decimal(5), "EUR", day, ["Ada Ltd", "Bob Inc."], True, Decimal(12), [day]),
            *(Decimal(1_234_000_000), "USD"),
        )
    ]
    assert pipeline.rows("SELECT party_quote, party_mentions FROM answers.typed_evidence") == [
        (["party: Ada Ltd", "party: Bob Inc."], [2, 1])
    ]
    scaled = "SELECT value, scale FROM fact_quotes WHERE item = 'total assets'"
    assert pipeline.rows(scaled) == [("1,234", 1_000_000)]


def test_a_value_of_the_wrong_type_is_listed_as_unread(pipeline: Pipeline) -> None:
    """An empty cell alone would hide that the document contains a value."""
    fees = {
        "a.txt": "annual fee: as agreed\neffective date: 03/04/2020",
        "b.txt": "annual fee: 5 EUR",
        "c.txt": "annual fee: 7 EUR\nannual fee: as agreed",
    }
    saved(pipeline, "fees", AnalysisOptions(instructions="annual fee, effective date"), fees)

    assert pipeline.rows(
        "SELECT document, annual_fee, effective_date, unread FROM answers.fees ORDER BY 1"
    ) == [
        ("a.txt", None, None, ["annual_fee", "effective_date"]),
        ("b.txt", Decimal(5), None, None),
        ("c.txt", Decimal(7), None, ["annual_fee"]),
    ]


def test_every_view_and_column_of_a_table_has_a_comment(filled: Pipeline) -> None:
    saved(filled, "bills", *a_bill("a", "number", 5))
    saved(filled, "invoices", AnalysisOptions(schema=INVOICE), {"a.txt": an_invoice(11)})

    assert (
        filled.rows(
            """SELECT c.relname, a.attname FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0
        WHERE c.relnamespace = 'answers'::regnamespace
            AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)"""
        )
        == []
    )


def test_nothing_found_is_a_status(pipeline: Pipeline) -> None:
    """An answer without any value does not count as a plain success; its cells are silent.

    Those of a document without an answer are unread.
    """
    saved(
        pipeline, "empty", AnalysisOptions(instructions="price"), {"a.txt": "No judgment is given."}
    )

    shown = "SELECT status, needs_check, price, price_trust, needs_review FROM answers.empty"
    assert pipeline.rows(shown) == [("nothing found", 0, None, "silent", False)]
    assert pipeline.rows("SELECT item, value, grounded FROM facts") == [("price", None, None)]
    pipeline.execute("DELETE FROM facts")
    pipeline.execute("DELETE FROM results")
    pipeline.execute("UPDATE jobs SET status = 'failed'")
    assert [row[2:] for row in pipeline.rows(shown)] == [(None, "unread", True)]


def test_corrections_and_new_runs(filled: Pipeline) -> None:
    told = ("feedback", "latest", "--document", "contract-00.txt")
    assert run([*told, "--correct", "governing law=Texas"]) == ExitCode.SUCCESS
    assert run([*told, "--correct", "annual fee=EUR 9,000"]) == ExitCode.SUCCESS
    assert run([*told, "--correct", 'parties=["Ada 0 Ltd", "Carol"]']) == ExitCode.SUCCESS
    shown = (
        "SELECT governing_law, annual_fee, annual_fee_currency, parties "
        "FROM answers.contracts WHERE document = 'contract-00.txt'"
    )
    right = [("Texas", Decimal(9000), "EUR", ["Ada 0 Ltd", "Carol"])]
    assert filled.rows(shown) == right

    contracts(filled, fresh=True)

    assert filled.rows(shown) == right
    assert filled.value("SELECT count(*) FROM answers.contracts") == 12
    assert filled.rows(
        "SELECT item, value, corrected_value, final_value FROM fact_quotes "
        "WHERE verdict IS NOT NULL AND item <> 'parties' "
        "AND run = (SELECT name FROM runs ORDER BY id DESC LIMIT 1) ORDER BY 1"
    ) == [
        ("annual fee", "US$ 1,000.50", "EUR 9,000", "EUR 9,000"),
        ("governing law", "Delaware", "Texas", "Texas"),
    ]
    out = output_of("results", "--run", "latest", "--document", "contract-00.txt").out
    assert "corrected" in out
    assert "Texas" in out


def test_new_columns_are_added_and_old_ones_stay_until_pruning(filled: Pipeline) -> None:
    """A user's view on the table survives and prevents the removal of an old column."""
    filled.execute("CREATE VIEW own AS SELECT document, renewal FROM answers.contracts")

    contracts(filled, (*ITEMS[:5], "document title"))

    assert filled.value("SELECT count(*) FROM own") == 12
    names = [c["name"] for c in described(filled) if c["view"] == "contracts"]
    assert [name for name in names if not name.endswith("_trust")][-3:] == [
        *("notice_period", "renewal", "document_title")
    ]
    database = filled.context.database
    with pytest.raises(UsageError, match="Your views depend"), database.write() as session:
        answer_tables.prune(session, "contracts")
    filled.execute("DROP VIEW own")
    with database.write() as session:
        assert answer_tables.prune(session, "contracts") == ["renewal"]
    assert "renewal" not in [c["name"] for c in described(filled)]


def test_a_replaced_column_is_not_listed_as_unread(pipeline: Pipeline) -> None:
    shown = "SELECT document, total, total_text, unread FROM answers.bills ORDER BY 1"
    for name, kind, total in (("a", "number", 5), ("b", "string", "as agreed")):
        saved(pipeline, "bills", *a_bill(name, kind, total))

    assert pipeline.rows(shown) == [
        ("a.txt", Decimal(5), "5", None),
        ("b.txt", None, "as agreed", None),
    ]
    saved(pipeline, "bills", *a_bill("c", "number", 7))
    assert [row[3] for row in pipeline.rows(shown)] == [None, ["total"], None]


def a_bill(name: str, kind: str, total: JsonValue) -> tuple[AnalysisOptions, Mapping[str, str]]:
    members: JsonObject = {"vendor": {"type": "string"}, "total": {"type": kind}}
    schema: JsonObject = {"type": "object", "properties": members}
    data = json.dumps({"vendor": "", "total": total})
    return AnalysisOptions(schema=schema), {f"{name}.txt": f"BILL {data}"}


@pytest.mark.parametrize("save_as", ["", "invoices"])
def test_data_frames_have_the_columns_of_the_table(pipeline: Pipeline, save_as: str) -> None:
    repeated = replace(AnalysisOptions(schema=INVOICE), instructions="Again.")
    saved(pipeline, save_as, repeated, {"a.txt": an_invoice(11), "b.txt": an_invoice(0)})
    with Client() as client:
        table = client.run("latest").to_arrow()
        frame = client.run("latest").to_pandas()

    names = ["vendor", "issued", "total", "paid", "tags"]
    beside = [column for name in names for column in (name, f"{name}_trust")]
    assert table.column_names[-10:] == list(frame.columns)[-10:] == beside
    assert [str(table.schema.field(name).type) for name in names] == [
        *("string", "date32[day]", "double", "bool"),
        "list<item: string>",
    ]
    assert str(table.schema.field("unread").type) == "list<item: string>"
    assert sorted(table["total"].to_pylist(), key=str) == [2.5, None]
    assert table["tags"].to_pylist().count(None) == 1


def test_a_table_name_unlike_the_given_one_is_reported(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("price: 5 EUR")
    told = ["submit", str(file), "--type", "extraction", "--instructions", "price", "--save-as"]

    assert "--save-as is empty" in output_of(*told, " ", code=ExitCode.USAGE).err
    said = output_of(*told, "Prices 2026", "--model", "extractive").err
    assert "The answers of “Prices 2026” are in the table answers.prices_2026." in said
    assert pipeline.value("SELECT saved_as FROM runs") == "prices_2026"


def described(pipeline: Pipeline) -> list[Row]:
    with pipeline.context.database.read() as session:
        views = stored.view_names(stored.get(session, "contracts"))
        return VIEW_COLUMNS.read(driver(session), {"views": views})


def lists_of(*names: str) -> AnalysisOptions:
    rows: JsonObject = {
        "type": "array",
        "items": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
    return AnalysisOptions(schema={"type": "object", "properties": dict.fromkeys(names, rows)})


def test_the_tables_of_two_lists_never_have_one_name(pipeline: Pipeline) -> None:
    """PostgreSQL cuts long names, and would replace the view of a list by that of another."""
    table, name = "t" * 40, "items_of_the_statement_of_income"
    data = {f"{name}_now": [{"a": "now"}], f"{name}_before": [{"a": "before"}]}
    saved(pipeline, table, lists_of(*data), {"a.txt": f"DATA {json.dumps(data)}"})
    with pipeline.context.database.read() as session:
        views = stored.view_names(stored.get(session, table))

    assert len(views) == 4
    values = [pipeline.value(f"SELECT a FROM answers.{view}") for view in views[2:]]  # noqa: S608 - names of the test
    assert values == ["now", "before"]

    saved(pipeline, "bills", lists_of("items of May"), {})
    with pytest.raises(UsageError, match="another table"):
        saved(pipeline, "bills items", lists_of("of May"), {})
    with pytest.raises(UsageError, match="another table"):
        saved(pipeline, "bills items of may", AnalysisOptions(instructions="price"), {})


ODD: JsonObject = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "huge": {"type": "integer"},
        "open": {"type": "object"},
        "mixed": {"type": "array", "items": {"type": ["string", "object"]}},
        "evidence": {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
        "wide": {
            "type": "object",
            "properties": {
                "rows": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                }
            },
        },
        "wide_rows": {
            "type": "array",
            "items": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    },
}


def test_no_part_of_an_unusual_schema_is_lost(pipeline: Pipeline) -> None:
    """The evidence of a very wide one has fewer columns because PostgreSQL limits their number."""
    data: JsonObject = {
        "vendor": "Acme",
        "huge": 10**30,
        "open": {"k": [1]},
        "mixed": ["x", {"y": 1}],
        "evidence": [{"a": {"b": 2}}],
        "wide": {"rows": [{"a": "inner"}]},
        "wide_rows": [{"a": "outer"}],
    }
    members: JsonObject = {f"member {n}": {"type": "string"} for n in range(400)}
    many: JsonObject = {"type": "object", "properties": {"vendor": {"type": "string"}, **members}}
    document = {"a.txt": 'DATA {"vendor": "Acme", "member 7": "x"}'}

    saved(pipeline, "odd", AnalysisOptions(schema=ODD), {"a.txt": f"DATA {json.dumps(data)}"})
    saved(pipeline, "wide", AnalysisOptions(schema=many), document)

    assert pipeline.rows("SELECT huge, open, mixed, unread FROM answers.odd") == [
        (Decimal(10**30), {"k": [1]}, ["x", {"y": 1}], None)
    ]
    assert pipeline.rows("SELECT a FROM answers.odd_wide_rows") == [("inner",)]
    assert pipeline.rows("SELECT a FROM answers.odd_wide_rows_2") == [("outer",)]
    assert pipeline.value("SELECT vendor_value FROM answers.odd_evidence") == "Acme"
    assert pipeline.rows("SELECT row_index, a FROM answers.odd_evidence_2") == [(0, {"b": 2})]
    assert pipeline.rows("SELECT vendor, member_7 FROM answers.wide") == [("Acme", "x")]
    assert pipeline.value("SELECT member_7_grounded IS NULL FROM answers.wide_evidence")


def test_every_element_of_a_list_is_a_row(pipeline: Pipeline) -> None:
    line: JsonObject = {"type": "object", "properties": {"a": {"type": "string"}}}
    order: JsonObject = {
        "type": ["object", "null"],
        "properties": {
            "no": {"type": "string"},
            "open": {"type": "object"},
            "s.lines": {"type": "array", "items": line},
        },
    }
    schema: JsonObject = {
        "type": "object",
        "properties": {"vendor": {"type": "string"}, "orders": {"type": "array", "items": order}},
    }
    orders: list[JsonValue] = [
        {},
        {"s.lines": [{"a": "x"}, {}]},
        {"open": {}},
        {"s.lines": []},
        {"no": "5"},
        None,
    ]
    document = {"a.txt": f"DATA {json.dumps({'vendor': '', 'orders': orders})}"}
    saved(pipeline, "odd", AnalysisOptions(schema=schema), document)

    assert pipeline.rows("SELECT row_index, no FROM answers.odd_orders ORDER BY 1") == [
        *((row, None) for row in range(4)),
        (4, "5"),
        (5, None),
    ]
    assert pipeline.rows(
        "SELECT parent_row, row_index, a FROM answers.odd_orders_s_lines ORDER BY 2"
    ) == [(1, 0, "x"), (1, 1, None)]


def test_other_analysis_types_have_additional_columns(settings: Settings) -> None:
    mood: JsonObject = {"label": "mixed", "score": -0.25, "emotions": [], "sentences": []}
    written = {
        AnalysisType.CLASSIFICATION: a_label("license", 0.9, None),
        AnalysisType.SENTIMENT: json.dumps({**mood, "confidence": 0.5}),
    }

    def answering(request: CompletionRequest) -> str:
        return written.get(request.task.analysis_type) or reading(request)

    pipeline = a_pipeline(settings, answering, repeat_last=True)
    options = a_run(
        AnalysisType.CLASSIFICATION,
        AnalysisType.EXTRACTION,
        AnalysisType.SENTIMENT,
        analysis=AnalysisOptions(instructions="parties", labels=("license", "lease")),
    )
    pipeline.analyze("parties: Ada", options=replace(options, save_as="mixed"))

    query = "SELECT parties, label, sentiment, sentiment_score FROM answers.mixed"
    assert pipeline.rows(query) == [(["Ada"], "license", "mixed", Decimal("-0.25"))]


def test_results_of_many_documents_are_a_table(filled: Pipeline) -> None:
    """Each document has a line; `--needs-check` selects those with values to check."""
    filled.execute("UPDATE facts SET doubts = '{no quote}' WHERE value = 'Ada 5 Ltd'")
    filled.execute(
        "UPDATE results SET needs_review = true FROM facts "
        "WHERE facts.job_id = results.job_id AND facts.doubts IS NOT NULL"
    )
    run_name = str(filled.value("SELECT name FROM runs WHERE saved_as = 'contracts'"))

    told = output_of("results", "--run", run_name)
    to_check = output_of("results", "--run", run_name, "--needs-check").out
    both = output_of("results", "--run", run_name, "--limit", "12").out

    assert told.out.count("contract-") == 10
    assert "Showing 10 of 12 results; for more: `chordwise web`" in told.err
    assert "? Ada 5 Ltd" in told.out
    assert "? to check  ∅ not mentioned" in told.out
    assert both.count("contract-") == 12
    assert "contract-05.txt · extraction · needs review" in to_check  # one document is in full
    assert "contract-04" not in to_check


@pytest.mark.usefixtures("filled")
def test_the_command_lists_tables_that_read_only_users_can_query() -> None:

    listed = output_of("tables", "invoices").out
    lines = output_of("sql", "--csv", "SELECT what, amount FROM answers.invoices_line_items").out
    rows = list(csv.reader(lines.splitlines()))
    columns = json.loads(output_of("tables", "--json").out)["tables"]["invoices"]

    assert "Who sends the invoice." in listed
    assert "issued" in listed
    assert len(rows) == 1 + 24
    total = {"name": "total", "type": "numeric", "description": "Asked for: total"}
    assert {"view": "invoices", **total} in columns
    questions = [line.split("→ ")[1] for line in listed.splitlines() if "→ SELECT" in line]
    assert len(questions) > 3
    for question in questions:
        assert run(["sql", question]) == ExitCode.SUCCESS
    assert "sum(" not in listed  # its amounts have no column with their currency
    of_contracts = output_of("tables", "contracts").in_one_line
    by_currency = "SELECT annual_fee_currency, sum(annual_fee) FROM answers.contracts GROUP BY 1"
    assert by_currency in of_contracts
    said = output_of("tables", "invoicse", code=ExitCode.USAGE).err
    assert "Similar: invoices, contracts. `chordwise tables` lists the tables." in said
    assert run(["tables", "invoices", "--drop"]) == ExitCode.SUCCESS
    assert run(["sql", "TABLE answers.invoices"]) == ExitCode.USAGE


def test_a_run_without_a_name_creates_no_table(pipeline: Pipeline) -> None:
    """A name that no table can have is rejected before anything is stored."""
    options: RunOptions = a_run(AnalysisType.EXTRACTION)
    open_run(pipeline.context, options, NOW).close()

    with pytest.raises(UsageError, match="A table cannot be named"):
        open_run(pipeline.context, replace(options, name="another", save_as="合同"), NOW)

    assert pipeline.value("SELECT count(*) FROM answer_tables") == 0
    assert pipeline.value("SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize("fields", [145, 146, pytest.param(500, marks=pytest.mark.nightly)])
def test_a_table_of_any_width_has_its_evidence(settings: Settings, fields: int) -> None:
    """PostgreSQL allows 1,600 columns; a wide table has fewer ones for each value."""
    properties = {f"field {number}": {"type": "string"} for number in range(fields)}
    schema = json_values.as_object({"type": "object", "properties": properties})
    columns = columns_for([AnalysisType.EXTRACTION], AnalysisOptions(schema=schema))
    pipeline = a_pipeline(settings)

    with pipeline.context.database.write() as session:
        stored.renew(session, "wide", AnalysisType.EXTRACTION, columns)

    shown = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'wide_evidence'"
    assert pipeline.value(shown) == 5 + fields * (11 if fields == 145 else 3)
