"""Tests of `chordwise entities`: grouped values in SQL, and decisions that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chordwise.domain.analyses import extraction
from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ExitCode, ModelRequestError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.learning import entities as learning
from chordwise.pipeline.models.model_client import Models
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from tests.fakes.commands import output_of, type_in
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import SCRIPTED, Pipeline, a_pipeline
from tests.fakes.scripted_model import ScriptedModel
from tests.integration.test_answer_tables import invoices, reading, saved

pytestmark = pytest.mark.usefixtures("addressed")

ITEMS = AnalysisOptions(items=("parties: list", "customer"))
CONTRACTS = (
    ("ACME Corp.", "Widget Works Ltd", "Globex Inc."),
    ("Acme Corporation", "Bank of America", "GLOBEX, INC."),
    ("ACME CORP", "Bank of Armenia", "Globex Incorporated"),
    ("Fund II LP", "Fund III LP", "Initech LLC"),
)
COLUMN = "contracts.parties"


def parties_in(request: CompletionRequest) -> str:
    if "Two values of a column" in request.task.options.instructions:
        assert "parties: " in request.task.text  # the contexts
        return json.dumps({"data": {"verdict": verdict_on(request.task.text)}, "evidence": []})
    if request.task.options.schema is not None:
        return reading(request)
    fields: list[JsonObject] = []
    for line in request.task.text.splitlines():
        item, _, value = line.partition(": ")
        if item in extraction.items(request.task.options):
            fields.append(a_field(item, value, 9, quote=line))
    missing = {*extraction.items(request.task.options)} - {field["item"] for field in fields}
    return json.dumps({"fields": [*fields, *(a_field(item, None, 9) for item in missing)]})


def verdict_on(pair: str) -> str:
    return "same" if "Hansen" in pair else "different" if "Acme LLC" in pair else "unclear"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, parties_in, repeat_last=True)


def analyze(pipeline: Pipeline, *contracts: Sequence[str], start: int = 0) -> None:
    documents = {
        f"/files/contract-{number}.txt": f"No. {number}\n"
        f"parties: {first}\nparties: {second}\ncustomer: {customer}\n"
        for number, (first, second, customer) in enumerate(contracts, start)
    }
    saved(pipeline, "contracts", ITEMS, documents)


def entities(*arguments: str) -> Row:
    output: Row = json.loads(output_of("--debug", "entities", COLUMN, *arguments, "--json").out)
    return output


def groups(output: Row) -> list[list[str]]:
    return sorted(row["values"] for row in output["entities"])


def queried(statement: str) -> list[Row]:
    rows: list[Row] = json.loads(output_of("sql", statement, "--json").out)["rows"]
    return rows


ACME = ["ACME CORP", "ACME Corp.", "Acme Corporation"]


def test_values_are_grouped_in_sql(pipeline: Pipeline) -> None:
    """A list has a view of its values and entities, and other columns one of their entities."""
    analyze(pipeline, *CONTRACTS)
    invoices(pipeline)

    output = entities()
    for column in ("contracts.customer", "invoices.vendor", "invoices_line_items.what"):
        output_of("entities", column)

    assert output["kind"] == "organizations"
    assert [group in groups(output) for group in (ACME, ["Bank of America"], ["Fund II LP"])] == [
        *[True] * 3
    ]
    assert queried(
        "SELECT entity, count(*) AS n FROM answers.contracts_parties GROUP BY 1 HAVING count(*) > 1"
    ) == [{"entity": "Acme Corporation", "n": 3}]
    customers = "SELECT count(*) AS n FROM answers.contracts GROUP BY customer_entity ORDER BY 1"
    assert queried(customers) == [{"n": 1}, {"n": 3}]
    for question, number in (("is “ACME Corp.”", 3), ("is not “ACME CORP”", 1)):
        answer = json.loads(
            output_of("ask", f"count contracts where parties {question}", "--json").out
        )
        assert answer["rows"] == [{"documents": number}]
    lists = queried("SELECT parties_entity FROM answers.contracts WHERE document LIKE '%-0%'")
    assert lists == [{"parties_entity": ["Acme Corporation", "Widget Works Ltd"]}]
    rows = queried("SELECT what, what_entity FROM answers.invoices_line_items LIMIT 1")
    assert rows == [{"what": "bolt 0", "what_entity": "bolt 0"}]
    assert queried("SELECT count(*) AS n FROM answers.invoices_vendor") == [{"n": 12}]


def test_errors(pipeline: Pipeline) -> None:
    """A wrong column or value is named, with those that are similar."""
    analyze(pipeline, *CONTRACTS)
    messages = {
        ("nothing.parties",): "There is no table",
        ("contracts",): "is not TABLE.COLUMN",
        ("contracts.partys",): "has no column of texts",
        (COLUMN, "--merge", "ACME Corp.", "Unknown"): "is not a value of contracts.parties",
        (COLUMN, "--merge", "Fund II LP", "Fund II LP"): "is one value",
        (COLUMN, "--undo", "--review"): "Give only one of",
    }

    for arguments, message in messages.items():
        assert message in output_of("entities", *arguments, code=ExitCode.USAGE).in_one_line


def test_decisions_are_kept_for_new_documents_and_can_be_undone(pipeline: Pipeline) -> None:
    """A merge and a split hold for new values that join by rule, until they are undone."""
    analyze(pipeline, *CONTRACTS)
    entities("--merge", "Acme Corporation", "widget works ltd", "--author", "Ada")
    split = entities("--split", "Acme Corporation", "ACME CORP")
    assert [*ACME[1:], "Widget Works Ltd"] in groups(split)
    assert ["ACME CORP"] in groups(split)

    analyze(pipeline, ("WIDGET WORKS LIMITED", "Umbrella AG", "x"), start=9)
    later = entities()

    assert later["new"] == 2
    assert [*ACME[1:], "WIDGET WORKS LIMITED", "Widget Works Ltd"] in groups(later)
    entities("--undo")
    undone = entities("--undo", "--author", "Bob")
    assert ACME in groups(undone)
    assert ["WIDGET WORKS LIMITED", "Widget Works Ltd"] in groups(undone)
    history = queried("SELECT action, author, withdraws IS NULL AS counts FROM entity_decisions")
    assert [(row["action"], row["author"]) for row in history if not row["counts"]] == [
        ("split", None),
        ("merge", "Bob"),
    ]
    output_of("entities", COLUMN, "--undo", code=ExitCode.USAGE)


def test_entities_keep_their_ids_and_are_never_joined_by_new_values(pipeline: Pipeline) -> None:
    """A value that fits two entities is doubtful, and what a person decided is not asked again."""
    analyze(pipeline, ("Acme Corp.", "Acme LLC", "x"))
    before = {row["entity"]: row["entity_id"] for row in entities()["entities"]}

    analyze(pipeline, ("Acme", "Other Inc", "x"), start=5)
    output = entities()

    after = {row["entity"]: row["entity_id"] for row in output["entities"]}
    assert before.items() <= after.items()
    assert {(pair["value"], pair["other"]) for pair in output["doubtful"]} >= {
        ("Acme", "Acme Corp."),
        ("Acme", "Acme LLC"),
    }
    assert output["doubtful"][0]["contexts"][0]["quote"].startswith("parties: ")
    entities("--merge", "Acme", "Acme Corp.")
    assert entities("--split", "Acme", "Acme LLC")["doubtful"] == []


def test_the_table_can_be_extended_pruned_and_dropped(pipeline: Pipeline) -> None:
    """New columns, pruning and dropping work as before, and decisions survive."""
    analyze(pipeline, *CONTRACTS)
    entities("--merge", "Bank of America", "Bank of Armenia")
    more = AnalysisOptions(items=("parties: list", "city"))
    saved(pipeline, "contracts", more, {"/files/more.txt": "parties: Acme Corp\ncity: Rome\n"})

    output_of("tables", "contracts", "--prune")
    assert queried("SELECT count(*) AS n FROM answers.contracts_parties") == [{"n": 9}]
    output_of("tables", "contracts", "--drop")
    saved(pipeline, "contracts", ITEMS, {"/files/new.txt": "parties: Bank of Armenia\n"})

    assert ["Bank of America", "Bank of Armenia"] in groups(entities())


def test_another_kind_groups_anew(pipeline: Pipeline) -> None:
    """The kind is that of the column's name until another one is given, and is kept."""
    analyze(pipeline, ("Smith, John", "John Smith", "x"))
    assert len(entities()["entities"]) == 1
    output_of("entities", COLUMN, "--merge", "Smith, John", "John Smith")

    assert entities("--kind", "places")["new"] == 2
    assert entities()["kind"] == "places"
    assert entities()["new"] == 0


def test_a_model_decides_on_doubtful_pairs(pipeline: Pipeline) -> None:
    """Its decisions are kept like those of people, its calls are in the ledger.

    An error of the model is returned, and the pairs are left to people.
    """
    names = ("Hansen AG", "Acme LLC", "x"), ("Hansen SE", "Acme Inc.", "x")
    analyze(pipeline, *names, ("Jones AG", "Jones SE", "x"))
    doubtful = entities()["doubtful"]
    refusing = ScriptedModel([ModelRequestError("It is refused.")], repeat_last=True)
    models = Models(pipeline.context.settings, connected={SCRIPTED: refusing})
    with pipeline.context.database.read() as session:
        target = learning.find(session, COLUMN)
    failing = replace(pipeline.context, models=models)
    decided, error = learning.ask_model(failing, target, doubtful, SCRIPTED)
    assert (decided, type(error)) == (0, ModelRequestError)
    assert entities()["doubtful"] == doubtful
    asked_before = len(pipeline.model.requests)

    decided, error = learning.ask_model(pipeline.context, target, doubtful, SCRIPTED)

    assert (decided, error) == (len(doubtful) - 1, None)
    assert len(pipeline.model.requests) == asked_before + len(doubtful)
    assert [pair["value"] for pair in entities()["doubtful"]] == ["Jones AG"]
    assert ["Acme Inc."] in groups(entities())
    authors = queried("SELECT DISTINCT author FROM entity_decisions")
    profile = pipeline.model.profile
    assert authors == [{"author": f"{profile.provider}/{profile.model}"}]
    calls = queried("SELECT count(*) AS n FROM model_calls WHERE job_id IS NULL AND valid")
    assert calls == [{"n": len(doubtful)}]


@pytest.mark.parametrize(
    ("model", "limit", "message"),
    [
        ("local/absent.gguf", "1", "No model decides on doubtful pairs"),
        (
            "openai/gpt-5-mini",
            "0.000001",
            "--yes asks openai/gpt-5-mini about 1 pair for about $0.0",
        ),
    ],
)
def test_pairs_are_reviewed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, model: str, limit: str, message: str
) -> None:
    """They are left to people if the model cannot be used or costs more than the limit."""
    monkeypatch.setenv("CHORDWISE_BUDGET__CONFIRM_USD", limit)
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    analyze(pipeline, ("Acme LLC", "Acme Inc.", "x"))
    output = output_of("entities", COLUMN, "--model", model).in_one_line
    assert message in output
    assert "1 doubtful pair: chordwise entities contracts.parties --review" in output
    type_in(monkeypatch, "s")

    reviewed = output_of("entities", COLUMN, "--review", "--author", "Ada")

    assert "Acme Inc. contract-0.txt: parties: Acme Inc." in reviewed.in_one_line
    assert groups(entities()) == [["Acme Inc.", "Acme LLC"]]


def test_values_of_a_forgotten_document_are_forgotten(pipeline: Pipeline) -> None:
    """Values that others have are kept; the rest of an entity is grouped again."""
    analyze(pipeline, *CONTRACTS)
    entities("--merge", "Widget Works Ltd", "Bank of America", "--author", "Ada")
    entities("--merge", "Fund II LP", "Fund III LP", "--author", "Ada")

    output_of("forget", "/files/contract-0.txt", "--yes")

    held = (
        "SELECT count(*) FROM entity_values WHERE concat(value, joins, entity, doubts) LIKE :name"
    )
    for name, count in (("%ACME Corp.%", 0), ("%Widget%", 0), ("%Bank of Armenia%", 1)):
        assert pipeline.value(held, name=name) == count
    assert pipeline.value("SELECT count(*) FROM entity_decisions") == 1
    grouped = groups(entities())
    assert ["ACME CORP", "Acme Corporation"] in grouped
    assert ["Fund II LP", "Fund III LP"] in grouped
