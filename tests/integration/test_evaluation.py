"""Tests of `chordwise evaluate`, which compares stored results with the truth."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from openpyxl import load_workbook
from pydantic import SecretStr
from sqlalchemy import event

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ExitCode
from chordwise.pipeline.learning.evaluation import evaluate
from chordwise.pipeline.learning.gold import read
from chordwise.settings import Settings
from chordwise.storage.database import Database, open_engine
from tests.fakes.commands import output_of, run
from tests.fakes.learning import a_scope, classified, extracted, written
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run, a_summary

CHOICES = {
    "in/a.txt": ("invoice", 0.9),
    "in/b.txt": ("invoice", 0.8),
    "in/c.txt": ("letter", 0.7),
    "in/d.txt": ("report", 0.2),
}
TRUTH = (
    {"document": "a.txt", "label": "Invoice"},
    {"document": "in/b.txt", "label": "letter"},
    {"document": "c.txt", "label": "letter"},
    {"document": "gone.txt", "label": "report"},
)
pytestmark = pytest.mark.usefixtures("addressed")


def evaluated(
    *arguments: str, code: ExitCode = ExitCode.SUCCESS
) -> dict[tuple[str, str, str], dict[str, float]]:
    """Evaluate one analysis type; return the overall measures by metric, label and found."""
    (entry,) = json.loads(output_of("evaluate", *arguments, "--json", code=code).out)["evaluations"]
    whole = entry["measured"][0]
    assert whole["is_whole"]
    return {(m["metric"], m["label"], m["found"]): m for m in whole["measures"]}


def test_labels_are_compared_with_a_gold_file(pipeline: Pipeline, tmp_path: Path) -> None:
    classified(pipeline, CHOICES, threshold=0.75)
    gold = written(tmp_path / "gold.jsonl", *TRUTH)

    measures = evaluated("latest", "--gold", str(gold), code=ExitCode.INCOMPLETE)

    accuracy = measures["accuracy", "", ""]
    assert accuracy["value"] == pytest.approx(2 / 3)
    assert accuracy["count"] == 3
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert measures["confusion", "letter", "invoice"]["value"] == 1
    assert measures["precision", "invoice", ""]["value"] == 0.5
    assert measures["macro_f1", "", ""]["value"] == pytest.approx(2 / 3)
    assert measures["abstained", "", ""]["value"] == pytest.approx(1 / 3)
    assert measures["calibration_error", "", ""]["value"] == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    row = "SELECT judged, unjudged, missing, is_whole, gold_file, model FROM evaluations"
    assert pipeline.rows(row) == [(3, 1, 1, True, "gold.jsonl", "script-1")]
    said = output_of("evaluate", "latest", "--gold", str(gold), code=ExitCode.INCOMPLETE).out
    assert "gone.txt: no such document" in said
    assert "classification: 3 results, 1 without right answers" in said


def test_a_drop_in_quality_is_reported_and_exits_with_3(pipeline: Pipeline, tmp_path: Path) -> None:
    """A drop is a change whose bounds are below zero; the view has each label as well."""
    names = [f"{number}.txt" for number in range(20)]
    classified(pipeline, dict.fromkeys(names, ("letter", 0.9)))
    gold = tmp_path / "truth.jsonl"
    wrong = iter((1, 3, 12))

    def evaluate_again(code: ExitCode = ExitCode.SUCCESS) -> str:
        right = 20 - next(wrong)
        labels = ["letter"] * right + ["report"] * (20 - right)
        lines = zip(names, labels, strict=True)
        written(gold, *({"document": name, "label": label} for name, label in lines))
        return output_of("evaluate", "latest", "--gold", str(gold), "--json", code=code).out

    evaluate_again()
    evaluate_again()
    third = evaluate_again(ExitCode.INCOMPLETE)

    (drop,) = json.loads(third)["evaluations"][0]["drops"]
    assert (drop["metric"], drop["earlier_value"], drop["value"]) == ("accuracy", 0.85, 0.4)
    bounds = (drop["change_low"], drop["change_high"])
    assert bounds == pytest.approx((-0.6558, -0.1503), abs=1e-4)
    assert pipeline.rows(
        "SELECT metric, label FROM evaluation_changes WHERE has_dropped ORDER BY 1, 2"
    ) == [("accuracy", ""), ("precision", "letter")]


def test_fields_are_compared_one_by_one(pipeline: Pipeline, tmp_path: Path) -> None:
    extracted(
        pipeline,
        {
            "a.txt": {"buyer": ("ACME Corp.", 9), "price": ("12 EUR", 8)},
            "b.txt": {"buyer": ("Miller", 7), "price": (None, 6)},
            "c.txt": {"buyer": ("Smith", 3), "price": ("7", 9)},
        },
    )
    gold = tmp_path / "gold.csv"
    gold.write_text("document,buyer,price\na.txt,Acme Corp,12 EUR\nb.txt,Miller,\nc.txt,,-7\n")

    measures = evaluated("--gold", str(gold))

    assert measures["match", "buyer", ""]["value"] == pytest.approx(2 / 3)
    assert measures["exact_match", "buyer", ""]["value"] == pytest.approx(1 / 3)
    assert measures["match", "price", ""]["value"] == pytest.approx(2 / 3)
    assert measures["precision", "", ""]["value"] == pytest.approx(3 / 5)
    assert measures["recall", "", ""]["value"] == pytest.approx(3 / 4)
    assert measures["accuracy", "", ""]["value"] == pytest.approx(2 / 3)
    assert pipeline.rows(
        "SELECT path, confidence, is_right FROM judgments WHERE part = 'field'"
        " ORDER BY path, confidence"
    ) == [
        ("/fields/0", 0.3, False),
        ("/fields/0", 0.7, True),
        ("/fields/0", 0.9, True),
        ("/fields/1", 0.6, True),
        ("/fields/1", 0.8, True),
        ("/fields/1", 0.9, False),
    ]


def test_a_gold_file_is_compared_as_people_write_it(pipeline: Pipeline, tmp_path: Path) -> None:
    """Dates have the order of the others, lists are parted, and the output says how it compared.

    Without other dates, `--dates` says what the order is.
    """
    quoted = {
        "signed": ("March 1, 2003", 9),
        "governing law": ("the laws of Del.", 9),
        "parties": ("ACME, Incorporated", 9),
    }
    none = dict.fromkeys(quoted, (None, 9))
    other = {**none, "signed": ("May 30, 2004", 9)}
    extracted(pipeline, {"a.txt": quoted, "b.txt": other, "c.txt": none})
    gold = tmp_path / "gold.csv"
    gold.write_text("document,signed\na.txt,3/1/03\n")
    for dates, share in (((), 0), (("--dates", "mdy"), 1)):
        assert evaluated("--gold", str(gold), *dates)["match", "", ""]["value"] == share

    gold.write_text(
        "document,signed,governing law: contains,parties\n"
        'a.txt,3/1/03,Delaware | Del.,"ACME, Inc. (""Lessor""); (the ""Parties"")"\n'
        "b.txt,5/30/04,,\n"
        "gone.txt,5/31/04,,\n"
    )

    measures = evaluated("--gold", str(gold), code=ExitCode.INCOMPLETE)
    said = output_of("evaluate", "--gold", str(gold), code=ExitCode.INCOMPLETE).out

    assert measures["match", "", ""]["value"] == 1
    assert "extraction: 2 results, 1 without right answers" in said
    assert "Compared as a date: signed" in said
    assert "Compared by containment: governing law" in said
    assert "Compared as a name: parties" in said
    assert "gone.txt: no such document" in said

    refused = output_of("evaluate", "--dates", "mdy", code=ExitCode.USAGE)
    assert "--dates needs --gold" in refused.err


def test_an_exported_table_is_a_gold_file(pipeline: Pipeline, tmp_path: Path) -> None:
    """A file that people export and correct is read as it is, whether CSV or from a workbook."""
    values = {"governing law": ("Ohio", 9), "annual fee": ("$1,200", 9), "parties": ("Ada", 9)}
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=tuple(values)))
    deal = a_document(f"VALUES {json.dumps(values)}", "a.txt")
    pipeline.analyze(deal, options=replace(options, save_as="deals"))
    exported, of_workbook, gold = (
        tmp_path / name for name in ("deals.xlsx", "copied.csv", "deals.csv")
    )
    for output in (exported, gold):
        output_of("export", "answers.deals", "--output", str(output))
    with of_workbook.open("w", newline="") as file:
        csv.writer(file).writerows(load_workbook(exported).worksheets[0].values)

    for table in (of_workbook, gold):
        table.write_text(table.read_text().replace("Ohio", "Texas"))
        measures = evaluated("--gold", str(table))

        assert {item: measures["match", item, ""]["value"] for item in values} == {
            "governing law": 0,
            "annual fee": 1,
            "parties": 1,
        }


def test_a_field_of_no_question_is_named_and_not_judged(pipeline: Pipeline, tmp_path: Path) -> None:
    extracted(pipeline, {"a.txt": {"buyer": ("ACME Corp.", 9), "price": ("12 EUR", 8)}})
    extracted(pipeline, {"b.txt": {"date": ("1 May", 9)}})
    gold = tmp_path / "gold.csv"
    gold.write_text("document,Buyer,price,Notes\na.txt,Acme Corp,12 EUR,by Ada\nb.txt,Ada,,\n")

    printed = output_of("evaluate", "--gold", str(gold), "--json", code=ExitCode.INCOMPLETE).out

    (evaluation,) = json.loads(printed)["evaluations"]
    whole = evaluation["measured"][0]
    measures = {(m["metric"], m["label"]): m["value"] for m in whole["measures"]}
    assert evaluation["missing"] == [
        {"document": "Notes", "reason": "a field that no question asks for"}
    ]
    assert (whole["judged"], whole["unjudged"]) == (1, 1)
    assert (measures["accuracy", ""], measures["match", "buyer"]) == (1, 1)
    assert ("match", "Notes") not in measures


def test_evaluating_again_adds_only_to_the_history(pipeline: Pipeline, tmp_path: Path) -> None:
    classified(pipeline, CHOICES)
    gold = written(tmp_path / "gold.jsonl", *TRUTH[:3])
    evaluated("--gold", str(gold))
    written(gold, *TRUTH[:1], {"document": "b.txt", "label": "invoice"}, TRUTH[2])

    evaluated("--gold", str(gold))

    assert pipeline.rows(
        "SELECT value FROM evaluation_history WHERE metric = 'accuracy'"
        " AND is_whole ORDER BY evaluated_at"
    ) == [(pytest.approx(2 / 3),), (1,)]
    assert pipeline.rows("SELECT count(*), bool_and(is_right) FROM judgments") == [(3, True)]
    assert pipeline.value("SELECT count(DISTINCT gold_sha256) FROM evaluations") == 2


def test_a_document_is_found_by_hash_or_path(pipeline: Pipeline, tmp_path: Path) -> None:
    classified(pipeline, {f"{place}/a.txt": ("letter", 0.5) for place in ("x", "y", "z")})
    sha256 = pipeline.value("SELECT sha256 FROM documents WHERE source = 'x/a.txt'")
    truth = [{"document": name, "label": "letter"} for name in (sha256, "y/a.txt", "a.txt")]
    gold = written(tmp_path / "gold.jsonl", *truth)

    printed = output_of("evaluate", "--gold", str(gold), "--json", code=ExitCode.INCOMPLETE).out

    (evaluation,) = json.loads(printed)["evaluations"]
    assert evaluation["missing"][0]["document"] == "a.txt"
    assert "3 documents have this name" in evaluation["missing"][0]["reason"]
    assert (evaluation["measured"][0]["judged"], evaluation["measured"][0]["unjudged"]) == (2, 1)


def test_contradictory_lines_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    text = "It says: CHOOSE letter 0.5 and nothing else."
    copies = (a_document(text, name) for name in ("a.txt", "copy.txt"))
    pipeline.analyze(*copies, options=a_run(AnalysisType.CLASSIFICATION))
    same = [{"document": name, "label": "letter"} for name in ("a.txt", "copy.txt")]
    agreeing = written(tmp_path / "agreeing.jsonl", *same)
    other = written(tmp_path / "other.jsonl", same[0], {**same[1], "label": "report"})

    assert run(["evaluate", "--gold", str(agreeing)]) == ExitCode.SUCCESS
    said = output_of("evaluate", "--gold", str(other), code=ExitCode.INCOMPLETE).in_one_line

    assert "copy.txt: another line about the same content contradicts it" in said


def test_a_label_of_two_types_requires_the_option_type(pipeline: Pipeline, tmp_path: Path) -> None:
    classified(pipeline, CHOICES)
    pipeline.execute("UPDATE results SET analysis_type = 'sentiment' WHERE confidence < 0.75")
    gold = written(tmp_path / "gold.jsonl", *TRUTH[:2])

    printed = output_of("evaluate", "--gold", str(gold), code=ExitCode.USAGE).err

    assert "--type classification or --type sentiment" in printed
    assert run(["evaluate", "--gold", str(gold), "-t", "classification"]) == ExitCode.SUCCESS

    assert pipeline.rows("SELECT analysis_type, judged FROM evaluations") == [("classification", 2)]


def test_each_model_is_measured_if_several_answered(pipeline: Pipeline, tmp_path: Path) -> None:
    classified(pipeline, CHOICES)
    pipeline.execute("UPDATE results SET model = 'other' WHERE confidence = 0.8")
    gold = written(tmp_path / "gold.jsonl", *TRUTH[:3])

    assert "several models or prompts" in output_of("evaluate", "--gold", str(gold)).out
    assert pipeline.rows(
        "SELECT is_whole, model, count, value FROM evaluation_history WHERE metric = 'accuracy'"
        " ORDER BY is_whole DESC, model"
    ) == [(True, None, 3, pytest.approx(2 / 3)), (False, "other", 1, 0), (False, "script-1", 2, 1)]


INVALID_GOLD_FILES: list[tuple[str, str]] = [
    ('{"document": "a", "fields": {"b": NaN}}', "line 1 has characters that cannot be stored"),
    ('{"document": "a", "fields": {"b": 1e999}}', "or an invalid number"),
    ('{"document": "a.txt"}', "line 1: it has neither a label nor fields nor a summary"),
    ('{"label": "letter"}', "line 1: there is no “document”"),
    ('{"document": "a", "label": 7}', "line 1: “label” is not text"),
    ('{"document": "a", "lable": "b"}', "line 1: “lable” is not one of"),
    ('{"document": "a", "fields": []}', "line 1: “fields” must be an object"),
    ('{"document": "a", "fields": {"b": "c"}, "pages": {"d": 1}}', "line 1: “pages” must be"),
    (
        '{"document": "a", "fields": {"b": "c"}, "pages": {"b": [1, 0]}}',
        "“pages” of “b” must be page numbers",
    ),
    ('{"document": "a", "label": "b\\u0000"}', "line 1 has characters that cannot be stored"),
    ('{"document": "a", "label": "b"}\n\n{"document": "a", "label": "c"}', "line 3: “a” is"),
    ('{"document": "a"', "line 1 is not JSON"),
    ("", "it has no records"),
    ("document,label\na,b, c\n", "line 2 has more cells than the header"),  # a comma in a value
    ("document,label,label\na,b,c\n", "the header names “label” 2 times"),
    (
        '{"document": "other.txt", "label": "letter"}',
        "gold.jsonl has no right answers for any result",
    ),
]


def test_an_invalid_gold_file_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """Empty cells at the end are ignored."""
    classified(pipeline, {"a.txt": ("letter", 0.5)})
    for text, said in INVALID_GOLD_FILES:
        gold = tmp_path / ("gold.csv" if text.startswith("document,") else "gold.jsonl")
        gold.write_text(text, "utf-8")

        printed = output_of("evaluate", "--gold", str(gold), code=ExitCode.USAGE).in_one_line

        assert said in printed
        assert pipeline.value("SELECT count(*) FROM evaluations") == 0

    gold = tmp_path / "gold.csv"
    gold.write_text("document,label,,\na.txt,letter,,,\n", "utf-8")
    assert run(["evaluate", "--gold", str(gold)]) == ExitCode.SUCCESS


@pytest.mark.nightly
def test_no_transaction_is_open_during_the_computation(
    settings: Settings, database_url: SecretStr, tmp_path: Path
) -> None:
    """Long summaries take time, and a server may end idle transactions."""
    words = [f"word{number}" for number in range(2_000)]
    long = a_summary("CHOOSE letter", topic=" ".join(words))
    pipeline = a_pipeline(settings, long, repeat_last=True)
    names = [f"{number}.txt" for number in range(8)]
    pipeline.analyze(
        *(a_document(f"{name} says: CHOOSE letter and nothing else.", name) for name in names)
    )
    reference = " ".join(reversed(words))
    truth = ({"document": name, "summary": reference} for name in names)
    gold = read(written(tmp_path / "gold.jsonl", *truth))
    engine = open_engine(database_url)
    event.listen(engine, "connect", ending_idle_transactions)

    (evaluation,) = evaluate(Database(engine), replace(a_scope(pipeline), gold=gold))

    engine.dispose()
    values = {measure.metric: measure.value for measure in evaluation["measured"][0]["measures"]}
    assert values["rouge_1"] > 0.9
    assert values["rouge_l"] < 0.1


def ending_idle_transactions(connection: psycopg.Connection, _record: object) -> None:
    """Make the server end transactions that are idle for two seconds, less than the computation."""
    connection.execute("SET idle_in_transaction_session_timeout = '2s'")
    connection.commit()
