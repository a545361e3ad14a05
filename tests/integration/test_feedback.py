"""Tests of `chordwise feedback`, which stores remarks with the judged values and confidences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chordwise.errors import ExitCode
from chordwise.pipeline.learning.evaluation import evaluate
from chordwise.pipeline.learning.feedback import give_all, read
from chordwise.relations.results import ResultSelection
from tests.fakes.commands import output_of, run
from tests.fakes.counting import recorded
from tests.fakes.learning import a_scope, classified, extracted, written
from tests.fakes.past_results import into_history
from tests.fakes.pipeline import Pipeline

SAID = "SELECT path, verdict, judged, corrected, confidence FROM feedback ORDER BY created_at"
WHOLE = "SELECT is_right, expected, confidence FROM judgments WHERE part = 'result'"
pytestmark = pytest.mark.usefixtures("addressed")


def test_a_label_is_corrected(pipeline: Pipeline) -> None:
    classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("letter", 0.5)})

    code = run(
        [
            *("feedback", "latest", "--document", "a.txt", "--correct", "label=Invoice"),
            *("--note", "It has a sum.", "--author", "Ada"),
        ]
    )

    assert code == ExitCode.SUCCESS
    assert pipeline.rows(SAID) == [("/primary_label", "corrected", "letter", "invoice", 0.75)]
    assert pipeline.rows(WHOLE) == [(False, "invoice", 0.75)]
    assert pipeline.rows("SELECT note, author FROM feedback") == [("It has a sum.", "Ada")]


def test_a_job_is_approved_by_its_id_only_once(pipeline: Pipeline) -> None:
    job = pipeline.job(classified(pipeline, {"a.txt": ("letter", 0.75)}))
    _, again = (output_of("feedback", str(job.id), "--approve").err for _ in range(2))
    assert "0 remarks stored; 1 already stored." in again
    assert pipeline.rows(WHOLE) == [(True, "letter", 0.75)]

    assert run(["feedback", str(job.id), "--reject"]) == ExitCode.SUCCESS

    assert pipeline.rows(WHOLE) == [(False, None, 0.75)]
    assert [row[1] for row in pipeline.rows(SAID)] == ["approved", "rejected"]


def test_a_field_is_corrected_by_its_name_or_path(pipeline: Pipeline) -> None:
    """This does not judge the other fields; an approval of the whole result judges all."""
    extracted(pipeline, {"a.txt": {"buyer": ("Miller", 9), "price": ("12", 6)}})
    assert run(["feedback", "latest", "--approve"]) == ExitCode.SUCCESS

    code = run(["feedback", "latest", "--correct", "price=13", "--correct", "/fields/0=Smith"])

    assert code == ExitCode.SUCCESS
    assert [row[0:1] + row[2:] for row in pipeline.rows(SAID)][1:] == [
        ("/fields/1", ["12"], ["13"], 0.6),
        ("/fields/0", ["Miller"], ["Smith"], 0.9),
    ]
    assert pipeline.rows("SELECT part, path, is_right FROM judgments ORDER BY path") == [
        ("result", "", False),
        ("field", "/fields/0", False),
        ("field", "/fields/1", False),
    ]


def test_a_date_that_cannot_be_read_is_refused(pipeline: Pipeline) -> None:
    """It would be an empty cell in the table of answers."""
    extracted(pipeline, {"a.txt": {"effective date": ("May 3, 2025", 9), "notes": ("none", 9)}})

    printed = output_of(
        "feedback", "latest", "--correct", "effective date=03/04/2025", code=ExitCode.USAGE
    ).err

    assert "such as 2025-04-03" in printed
    for right in ("effective date=13/04/2025", "effective date=at once", "notes=03/04/2025"):
        assert run(["feedback", "latest", "--correct", right]) == ExitCode.SUCCESS
    assert pipeline.value("SELECT count(*) FROM feedback") == 3


def test_feedback_survives_a_new_answer_and_judges_it(pipeline: Pipeline) -> None:
    submission = classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("letter", 0.5)})
    run(["feedback", "latest", "--document", "a.txt", "--correct", "label=invoice"])
    run(["feedback", "latest", "--document", "b.txt", "--reject"])
    pipeline.execute(into_history())
    # Votes, a critique and a threshold do not change the question.
    others = {"confidence_threshold": 0.5, "votes": 5, "critique": True, "principles": ["Be so."]}
    changed = "UPDATE jobs SET options = CAST(options AS jsonb) || CAST(:others AS jsonb)"
    pipeline.execute(changed, others=json.dumps(others))
    pipeline.execute(
        "UPDATE results SET id = gen_random_uuid(), confidence = 0.9,"
        """ output = output || '{"primary_label": "invoice"}'"""
    )

    (evaluation,) = json.loads(output_of("evaluate", submission.name, "--json").out)["evaluations"]

    (measured,) = evaluation["measured"]
    accuracy = next(m for m in measured["measures"] if m["metric"] == "accuracy")
    # The right label of b.txt is unknown: the feedback only rejects one.
    assert (accuracy["value"], accuracy["count"], measured["unjudged"]) == (1.0, 1, 1)
    assert {row[2] for row in pipeline.rows(SAID)} == {"letter"}
    assert pipeline.rows(f"{WHOLE} ORDER BY confidence") == [
        (False, None, 0.5),
        (False, "invoice", 0.75),
        (True, "invoice", 0.9),
    ]


def test_feedback_is_read_once(pipeline: Pipeline) -> None:
    classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("letter", 0.5)})
    extracted(pipeline, {"c.txt": {"sum": ("12", 7)}})
    for (job_id,) in pipeline.rows("SELECT id FROM jobs"):
        assert run(["feedback", str(job_id), "--approve"]) == ExitCode.SUCCESS

    with recorded() as statements:
        evaluations = evaluate(pipeline.context.database, a_scope(pipeline))

    assert len(evaluations) == 2  # for two analysis types
    assert len([statement for statement, _ in statements if "FROM feedback" in statement]) == 1


def test_a_file_of_verdicts_takes_few_statements_each(pipeline: Pipeline, tmp_path: Path) -> None:
    names = [f"{number}.txt" for number in range(20)]
    extracted(pipeline, {name: {"sum": ("12", 7)} for name in names})
    lines = [{"document": name, "path": "sum", "value": "13"} for name in names]
    file = read(written(tmp_path / "checked.jsonl", *lines))

    with recorded() as statements, pipeline.context.database.write() as session:
        outcome = give_all(session, ResultSelection(), file)

    assert outcome == {"stored": 20, "known": 0, "unmatched": []}
    assert len(statements) <= 2 * len(names) + 16
    assert pipeline.rows("SELECT DISTINCT final_value FROM facts") == [("13",)]


def test_feedback_is_read_from_a_file(pipeline: Pipeline, tmp_path: Path) -> None:
    """The last line about a document applies."""
    classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("letter", 0.5)})
    file = tmp_path / "checked.csv"
    verdicts = "b.txt;rejected;\nb.txt;approved;\n" * 20
    file.write_text(
        f"document;verdict;value\na.txt;;invoice\n{verdicts}gone.txt;approved;\nb.txt;;novel\n"
    )

    printed = output_of("feedback", "--file", str(file), "--json", code=ExitCode.INCOMPLETE).out

    said = json.loads(printed)
    assert (said["stored"], said["known"]) == (41, 0)
    assert [(line["line"], line["document"]) for line in said["unmatched"]] == [
        (43, "gone.txt"),
        (44, "b.txt"),
    ]
    assert "invoice, letter, report" in said["unmatched"][1]["reason"]
    assert [row[1] for row in pipeline.rows(SAID)][1:] == ["rejected", "approved"] * 20
    assert pipeline.rows(f"{WHOLE} ORDER BY confidence") == [
        (True, "letter", 0.5),
        (False, "invoice", 0.75),
    ]


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("latest",), "Give one of --approve, --reject"),
    (("latest", "--approve", "--reject"), "cannot be used together"),
    (("latest", "--approve"), "2 results match: a.txt (classification), b.txt"),
    (("latest", "--document", "c", "--approve"), "There is no such result"),
    (("none", "--approve"), "There is no run “none”"),
    (("latest", "--document", "a", "--correct", "invoice"), "is not PATH=VALUE"),
    (("latest", "--document", "a", "--correct", "label=novel"), "not one of the labels"),
    (("latest", "--document", "a", "--correct", "/nothing=1"), "has no value at “/nothing”"),
    (("latest", "--document", "a", "--path", "label"), "--path needs"),
]


def test_invalid_feedback_is_refused(pipeline: Pipeline) -> None:
    classified(pipeline, {"a.txt": ("letter", 0.75), "b.txt": ("letter", 0.5)})
    for arguments, said in REFUSED:
        assert said in output_of("feedback", *arguments, code=ExitCode.USAGE).in_one_line
        assert pipeline.rows(SAID) == []


def test_feedback_is_withdrawn(pipeline: Pipeline) -> None:
    extracted(pipeline, {"a.txt": {"buyer": ("Miller", 9), "price": ("12", 6)}})
    for value in ("price=13", "price=14", "buyer=Smith"):
        assert run(["feedback", "latest", "--correct", value, "--author", "Ada"]) == 0
    prices = "SELECT final_value, verdict FROM facts WHERE item = 'price'"
    seen = [pipeline.rows(prices)]

    for _ in range(2):
        by_ben = ("--withdraw", "--path", "price", "--author", "Ben")
        assert run(["feedback", "latest", *by_ben]) == ExitCode.SUCCESS
        seen.append(pipeline.rows(prices))

    assert [rows[0] for rows in seen] == [("14", "corrected"), ("13", "corrected"), ("12", None)]
    assert pipeline.rows("SELECT path FROM judgments WHERE part = 'field'") == [("/fields/0",)]
    assert run(["feedback", "latest", "--withdraw", "--path", "price"]) == ExitCode.USAGE
    assert json.loads(output_of("feedback", "latest", "--withdraw", "--json").out)["withdrawn"] == 1
    assert pipeline.rows("SELECT verdict, author FROM feedback ORDER BY created_at")[3:] == [
        ("withdrawn", "Ben"),
        ("withdrawn", "Ben"),
        ("withdrawn", None),
    ]
    assert pipeline.value("SELECT corrected_output IS NULL FROM results")
