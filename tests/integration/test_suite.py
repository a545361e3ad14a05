"""Tests of suites: a model is measured on labelled documents beside the built-in model."""

from __future__ import annotations

import io
import json
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from chordwise.cli.commands.evaluate import side_by_side
from chordwise.domain.analysis import NO_LABEL
from chordwise.errors import ExitCode, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.learning import suite
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from tests.fakes.commands import run
from tests.fakes.generated_answers import a_field
from tests.fakes.learning import LABELS, a_learner, obeying, written
from tests.fakes.office_files import pdf, shown
from tests.fakes.pipeline import NOW, SCRIPTED, Pipeline, a_pipeline

CHOSEN = {"a": "invoice", "b": "invoice", "c": "letter"}
TRUE = {"a": "invoice", "b": "letter", "c": "letter"}
CHAIR = {"name": "chair", "price": 40}
ROWS = [CHAIR, CHAIR, {"name": "desk", "price": 9}]
SCHEMA = {
    "type": "object",
    "properties": {
        "total": {"type": "string", "evaluation_config": "number_tolerance"},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
            },
        },
    },
}


def a_suite(folder: Path, **entries: object) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    (folder / suite.FILE).write_text("\n".join(lines), "utf-8")
    return folder


def words(name: str) -> str:
    return f"{name} says: CHOOSE {CHOSEN[name]} 0.9 and nothing else."


def answered(pipeline: Pipeline, folder: Path, limit: int | None = None) -> list[Sequence[Row]]:
    def work(run_id: uuid.UUID) -> None:
        for job_id, of in pipeline.rows("SELECT id, run_id FROM jobs"):
            if of == run_id:
                pipeline.work_on(uuid.UUID(str(job_id)))

    settings = pipeline.context.settings
    parts = suite.read(settings, folder, limit)
    return [
        row
        for together in suite.evaluate_all(pipeline.context, parts, SCRIPTED, NOW, work)
        for row in together
    ]


def values(rows: Sequence[Row]) -> Mapping[tuple[str, str], float]:
    (evaluated,) = rows
    return {
        (measure.metric, measure.label): measure.value
        for measure in evaluated["measured"][0]["measures"]
    }


@pytest.mark.parametrize("layout", ["files", "records of texts", "records of paths"])
def test_both_models_answer_the_documents(settings: Settings, tmp_path: Path, layout: str) -> None:
    pipeline, folder = a_learner(settings), tmp_path / "letters"
    question = {"types": ["classification"], "labels": LABELS}
    if layout == "files":
        a_suite(folder, **question, documents="texts")
        written(folder / "gold.jsonl", *({"document": f"{n}.txt", "label": TRUE[n]} for n in TRUE))
    else:
        a_suite(folder, **question, layout="records", label="/truth/0")
        place = (lambda n: {"text": words(n)}) if "texts" in layout else path_of
        written(folder / "gold.jsonl", *({"id": n, "truth": [TRUE[n]], **place(n)} for n in TRUE))
    (folder / "texts").mkdir()
    for name in TRUE:
        (folder / "texts" / f"{name}.txt").write_text(words(name), "utf-8")

    scripted, built_in = answered(pipeline, folder)

    measures = values(scripted)
    assert measures["accuracy", ""] == pytest.approx(2 / 3)
    assert measures["calibration_error", ""] == pytest.approx(abs(0.9 - 2 / 3))
    assert {("grounded", ""), ("cost_usd", ""), ("seconds", "")} <= measures.keys()
    assert (scripted[0]["asked"], built_in[0]["asked"]) == (SCRIPTED, "extractive")
    stored = "SELECT run, provider, judged FROM evaluations ORDER BY id"
    assert pipeline.rows(stored) == [
        (scripted[0]["run"], "scripted", 3),
        (built_in[0]["run"], "extractive", 3),
    ]
    screen = Console(width=120, file=io.StringIO(), record=True)
    screen.print(*side_by_side([scripted, built_in]))
    shown = screen.export_text()
    assert "letters: classification" in shown
    assert "0.667 (0.208 – 0.939)" in shown


OUTSIDE = "../private.json"


PLACES: list[dict[str, object]] = [
    {"documents": "linked"},
    {"layout": "records", "label": "/label"},
    {"gold": OUTSIDE},
    {"schema": OUTSIDE},
]


def test_a_suite_names_only_what_is_in_its_folder(settings: Settings, tmp_path: Path) -> None:
    """A suite may come from elsewhere; other files of its user are not read, and not sent."""
    (tmp_path / "private.json").write_text("{}", "utf-8")
    question = {"types": ["classification"], "labels": LABELS}
    folder = a_suite(tmp_path / "suite", **question)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "documents").mkdir()
    (folder / "documents" / "a.txt").write_text(words("a"), "utf-8")
    written(folder / "gold.jsonl", {"id": 1, "label": "letter", "path": OUTSIDE})

    for places in PLACES:
        a_suite(folder, **question, **places)
        with pytest.raises(UsageError, match="outside of its folder"):
            suite.read(settings, folder)


def test_the_pages_of_facts_are_compared(settings: Settings, tmp_path: Path) -> None:
    folder = a_suite(
        tmp_path / "leases",
        types=["extraction"],
        instructions="signed, annual fee, landlord",
        dates="mdy",
        **{"rules.signed": "typed"},
    )
    (folder / "documents").mkdir()
    pages = [shown("Lease of March 1, 2003"), shown("annual fee: 500 EUR")]
    (folder / "documents" / "a.pdf").write_bytes(pdf(pages))
    truth = {"signed": "3/1/03", "annual fee": "500 EUR", "landlord": None}
    written(
        folder / "gold.jsonl",
        {"document": "a.pdf", "fields": truth, "pages": {"signed": 1, "annual fee": [1]}},
    )
    truths = {"signed": "March 1, 2003", "annual fee": "500 EUR", "landlord": None}
    fields = [a_field(item, value, 9) for item, value in truths.items()]
    pipeline = a_pipeline(settings, json.dumps({"fields": fields}), repeat_last=True)

    scripted, _ = answered(pipeline, folder)

    numbers = values(scripted)
    assert numbers["match", ""] == 1
    assert numbers["page_accuracy", ""] == 0.5
    assert numbers["page_accuracy", "annual fee"] == 0
    assert ("page_accuracy", "landlord") not in numbers


def path_of(name: str) -> dict[str, str]:
    return {"path": f"texts/{name}.txt"}


def test_a_limit_samples_documents_by_hash(settings: Settings, tmp_path: Path) -> None:
    pipeline, folder = a_learner(settings), tmp_path / "letters"
    a_suite(folder, types=["classification"], labels=LABELS, layout="records", label="/label")
    records = ({"id": n, "text": words(n), "label": TRUE[n]} for n in TRUE)
    written(folder / "gold.jsonl", *records)

    (part,) = suite.read(settings, folder, 2)
    scripted, _ = answered(pipeline, folder, 2)

    assert [document.name for document in part.documents] == ["a", "b"]
    assert scripted[0]["missing"] == []
    assert values(scripted)["accuracy", ""] == 0.5
    (fewer,) = suite.read(settings, folder, 1)
    assert [document.name for document in fewer.documents] == ["a"]


def test_documents_without_an_answer_are_wrong_and_named(
    settings: Settings, tmp_path: Path
) -> None:
    """A missing file, a scan without text, a failed answer and an invalid line stop nothing."""
    folder = a_suite(
        tmp_path / "letters",
        types=["classification"],
        labels=LABELS,
        layout="records",
        label="/label",
    )
    (folder / "scan.pdf").write_bytes(pdf([]))
    lines = [
        {"id": "a", "text": words("a"), "label": "invoice"},
        {"id": "mute", "text": "CHOOSE nothing at all.", "label": "letter"},
        {"path": "scan.pdf", "label": "letter"},
        {"path": "gone.pdf", "label": "letter"},
        {"id": "empty", "label": "letter"},
    ]
    written(folder / "gold.jsonl", *lines)
    with (folder / "gold.jsonl").open("a") as file:
        file.write("no JSON\n")

    def answer(request: CompletionRequest) -> str:
        return obeying(request) if "says" in request.task.text else "no JSON"

    scripted, built_in = answered(a_pipeline(settings, answer, repeat_last=True), folder)

    measures = {m.metric: m for m in scripted[0]["measured"][0]["measures"] if not m.label}
    assert (measures["accuracy"].value, measures["accuracy"].count) == (0.25, 4)
    reasons = {row["document"]: row["reason"] for row in scripted[0]["missing"]}
    assert reasons["mute"].startswith("failed: ")
    assert reasons["scan.pdf"].startswith("could not be read: ")
    assert reasons["gone.pdf"].startswith("could not be read: ")
    assert reasons["gold.jsonl, line 5"] == "has neither a text nor a path"
    assert "is not JSON" in reasons["gold.jsonl, line 6"]
    assert "mute" not in {row["document"] for row in built_in[0]["missing"]}
    screen = Console(width=140, file=io.StringIO(), record=True)
    screen.print(*side_by_side([scripted, built_in]))
    (heading,) = (line for line in screen.export_text().splitlines() if "Of" in line)
    assert heading.split() == [SCRIPTED, "Of", "extractive", "Of"]


def test_a_model_without_any_answer_is_wrong_about_every_document(
    settings: Settings, tmp_path: Path
) -> None:
    folder = a_suite(tmp_path / "bench", layout="extractbench", documents=".")
    wrapped = {"type": "json_schema", "json_schema": {"name": "bill", "schema": SCHEMA}}
    (folder / "bill-schema.json").write_text(json.dumps(wrapped), "utf-8")
    for name, truth in {"a": {"total": "1", "rows": ROWS}, "b": {"total": None}}.items():
        (folder / f"{name}.txt").write_text("Total: 1", "utf-8")
        (folder / f"{name}.gold.json").write_text(json.dumps(truth), "utf-8")
    (folder / "lost.gold.json").write_text('{"total": "2"}', "utf-8")
    (folder / "odd.txt").write_text("Total: 1", "utf-8")
    (folder / "odd.gold.json").write_text("{", "utf-8")

    scripted, _ = answered(a_pipeline(settings, "no JSON", repeat_last=True), folder)

    measures = values(scripted)
    assert measures["match", ""] == measures["accuracy", ""] == measures["leaf_f1", ""] == 0
    assert measures["leaf_f1", "/rows/price"] == 0
    reasons = {row["document"]: row["reason"] for row in scripted[0]["missing"]}
    assert reasons["lost"].startswith("could not be read: ")
    assert "is not JSON" in reasons["odd.gold.json"]
    assert reasons.keys() == {"a.txt", "b.txt", "lost", "odd.gold.json"}


def test_schemas_with_gold_beside_documents_are_parts(settings: Settings, tmp_path: Path) -> None:
    folder = a_suite(tmp_path / "bench", layout="extractbench", documents=".")
    bills = folder / "bills"
    bills.mkdir()
    (bills / "bill-schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    (bills / "a.txt").write_text("Two chairs for 40 each. Total: EUR 1,300.50", "utf-8")
    truth = {"total": "1300.5", "rows": ROWS}
    (bills / "a.gold.json").write_text(json.dumps(truth), "utf-8")
    schemas: list[object] = []

    def answer(request: CompletionRequest) -> str:
        schemas.append(request.task.options.schema)
        data = {"total": "EUR 1,300.50", "rows": ROWS[:1] * 3}
        return json.dumps({"data": data, "evidence": []})

    scripted, _ = answered(a_pipeline(settings, answer, repeat_last=True), folder)

    measures = values(scripted)
    assert scripted[0]["part"] == "bench/bills"
    assert measures["match", "/total"] == 1
    assert measures["row_recall", "/rows"] == pytest.approx(2 / 3)
    # Of the single values, those of the desk are wrong.
    assert measures["leaf_f1", ""] == pytest.approx(5 / 7)
    assert measures["leaf_f1", "/rows/price"] == pytest.approx(2 / 3)
    assert "evaluation_config" not in json.dumps(schemas[0])


@pytest.mark.usefixtures("addressed")
def test_an_invalid_suite_is_a_usage_error(settings: Settings, tmp_path: Path) -> None:
    folder = a_suite(tmp_path / "odd", layout="columns")
    empty = a_suite(tmp_path / "empty", layout="records")
    (empty / "gold.jsonl").write_text('{"id": "a", "text": "a"}\n', "utf-8")
    bench = a_suite(tmp_path / "bench", layout="extractbench", documents=".")
    (bench / "lost.gold.json").write_text("{}", "utf-8")

    with pytest.raises(UsageError, match="layout"):
        suite.read(settings, folder)
    with pytest.raises(UsageError, match="no documents with right answers"):
        suite.read(settings, empty)
    with pytest.raises(UsageError, match=r"lost\.gold\.json has no document"):
        suite.read(settings, bench)
    assert run(["evaluate", "latest", "--suite", str(folder)]) == ExitCode.USAGE
    assert run(["evaluate", "--model", "extractive"]) == ExitCode.USAGE
    assert a_pipeline(settings).value("SELECT count(*) FROM runs") == 0


def test_a_folder_of_a_public_corpus_needs_no_suite(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "clinc_oos"
    folder.mkdir()
    records = (("pay my bill", "banking"), ("how old is the sun", "out_of_scope"))
    lines = (json.dumps({"id": text, "text": text, "label": label}) for text, label in records)
    (folder / "labels.jsonl").write_text("\n".join(lines), "utf-8")

    (part,) = suite.read(settings, folder)

    assert "banking" in part.options.analysis.labels
    labels = {name: truth.label for name, truth in part.gold.truths.items()}
    assert labels == {"pay my bill": "banking", "how old is the sun": NO_LABEL}


@pytest.mark.parametrize("known", sorted(suite.OF_CORPORA.glob("*.toml")), ids=lambda p: p.stem)
def test_the_suites_of_corpora_can_be_read(known: Path) -> None:
    assert suite.SuiteSettings.model_validate(tomllib.loads(known.read_text("utf-8"))).types
