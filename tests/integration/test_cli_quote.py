"""`chordwise quote` over a real database: what it counts, what it rests on, what it leaves be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain import json_values
from chordwise.domain.tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ExitCode
from chordwise.llm.counting import count_request, counter_for
from chordwise.llm.providers.openai import OpenAIModel
from tests.fakes.pipeline import (
    LONG,
    SCRIPTED,
    a_run,
)
from tests.fakes.quoting import GPT, SHORT, Desk, line_of, typical


def test_a_profile_is_quoted_as_a_run_asks_it(desk: Desk, tmp_path: Path) -> None:
    """Types and instructions are the profile's; an option goes before its entry."""
    profile = '[profiles.contracts]\ntypes = ["extraction", "summary"]\ninstructions = "term"\n'
    (tmp_path / "chordwise.toml").write_text(profile, "utf-8")

    asked = desk.quote("--profile", "contracts", "--model", GPT, "--lane", "online")
    changed = desk.quote("--profile", "contracts", "-t", "sentiment", "--lane", "online")
    unknown, _, said = desk.call("--profile", "letters")

    lines = json_values.objects(asked["lines"])
    assert [line["analysis_type"] for line in lines] == ["extraction", "summary"]
    assert line_of(changed)["analysis_type"] == "sentiment"
    assert unknown == ExitCode.USAGE
    assert "Known: contracts." in said


def test_rows_are_quoted_as_documents(desk: Desk) -> None:
    """With a column of texts, each row of a table counts, and other files as ever."""
    (desk.folder / "reviews.csv").write_text("id,review\na,Fine.\nb,Poor.\n", "utf-8")

    by_row = desk.quote("--model", GPT, "--text-column", "review", "--id-column", "id")

    assert by_row["documents"] == 4
    assert desk.quote("--model", GPT)["documents"] == 3


def test_nothing_is_stored(desk: Desk) -> None:
    """Neither a document nor a run nor a call."""
    code, shown, _ = desk.call("--model", GPT)

    assert code == ExitCode.SUCCESS
    assert "Total, online: $" in shown
    assert "Total, batch: $" in shown
    assert [desk.count(table) for table in ("documents", "runs", "model_calls")] == [0, 0, 0]


def test_the_questions_are_those_that_a_run_asks(desk: Desk) -> None:
    """As many chunks, and as many syntheses, as the run has then."""
    (line,) = desk.estimate(LONG, SHORT).lines
    desk.pipeline.work(desk.pipeline.submit(LONG, SHORT))

    asked = [request.task for request in desk.pipeline.model.requests]
    joined = [task for task in asked if task.answers]
    assert line.questions == len(asked) - len(joined)
    assert round(line.syntheses.typical) == len(joined) == 1


def test_the_tokens_are_those_of_the_requests_that_a_run_sends(desk: Desk) -> None:
    """Of each question about a chunk, as its provider would get it."""
    settings = desk.pipeline.context.settings.model_named(SCRIPTED)
    (line,) = desk.estimate(SHORT, f"\n\n {SHORT}\n Again. \n").lines
    desk.pipeline.work(desk.pipeline.submit(SHORT, f"\n\n {SHORT}\n Again. \n"))

    counter, sent = counter_for(settings), OpenAIModel(settings, SecretStr("k"))
    counts = [
        count_request(counter, settings, sent.body(request))
        for request in desk.pipeline.model.requests
    ]
    assert line.questions == len(counts) == 2
    assert line.input_tokens.low == sum(counts)


@pytest.mark.parametrize(
    ("model", "is_exact", "remark"),
    [
        ("openai/gpt-5.4-mini", True, "Input is counted exactly, by o200k_base (toktok)."),
        (GPT, False, "Input is estimated, by o200k_base (toktok)."),
    ],
)
def test_a_quote_says_whether_it_counted_exactly(
    desk: Desk, model: str, *, is_exact: bool, remark: str
) -> None:
    """In words, and in JSON."""
    _, shown, _ = desk.call("--model", model)

    assert remark in " ".join(shown.split())
    assert line_of(desk.quote("--model", model))["counts_exactly"] is is_exact


def test_stored_results_are_free(desk: Desk) -> None:
    """What a run would reuse is not counted again, unless everything is to be asked afresh."""
    desk.pipeline.work(desk.pipeline.submit(SHORT))

    again = desk.estimate(SHORT, LONG)
    both = desk.estimate(SHORT, LONG, options=a_run(fresh=True))
    other = desk.estimate(SHORT, options=a_run(AnalysisType.SENTIMENT))

    assert (again.jobs, again.reused) == (2, 1)
    assert both.reused == other.reused == 0
    assert both.lines[0].questions == again.lines[0].questions + 1


def test_history_replaces_assumptions(desk: Desk) -> None:
    """After a few answers of the same kind their length is what is expected; others' is not."""
    texts = [f"{SHORT} It was number {number}." for number in range(6)]
    desk.pipeline.work(desk.pipeline.submit(*texts))
    asked = "UPDATE model_calls SET provider = 'openai', model = :model"
    desk.pipeline.execute(asked, model=SCRIPTED)
    lengths = desk.pipeline.value("SELECT avg(output_tokens)::float FROM model_calls")

    (known,) = desk.estimate("Another text.").lines
    (unknown,) = desk.estimate("Another text.", options=a_run(AnalysisType.REASONING)).lines

    assert (known.basis, known.observations) == ("history", 6)
    assert isinstance(lengths, float)
    assert known.output_tokens.typical == pytest.approx(lengths)
    assert unknown.basis == "assumed"


def test_what_cannot_be_read_is_named(desk: Desk) -> None:
    """It is not counted, and the exit code says that something is missing; twins count once."""
    (desk.folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    (desk.folder / "bridge-again.txt").write_text(SHORT, "utf-8")

    code, shown, _ = desk.call()

    assert code == ExitCode.INCOMPLETE
    assert "Not counted:" in shown
    assert "broken.pdf" in shown
    assert "1 duplicate not counted again." in shown


def test_a_model_that_is_not_there_is_refused(desk: Desk) -> None:
    """As `analyze` would refuse it."""
    code, _, said = desk.call("--model", "nonsense")

    assert code == ExitCode.CONFIGURATION
    assert "nonsense" in said
    assert SCRIPTED not in said


def test_votes_multiply_what_is_quoted(desk: Desk) -> None:
    """Questions, syntheses, tokens and costs three times; for the built-in model once."""
    once, thrice = desk.quote("--model", GPT), desk.quote("--model", GPT, "--votes", "3")
    built_in = line_of(desk.quote("--model", "extractive", "--votes", "3"))

    one, three = line_of(once), line_of(thrice)
    assert three["questions"] == 3 * int(str(one["questions"]))
    for name in ("syntheses", "input_tokens", "output_tokens"):
        assert typical(three[name]) == pytest.approx(3 * typical(one[name]))
    assert typical(thrice["total"]) == pytest.approx(3 * typical(once["total"]), rel=1e-3)
    assert built_in["questions"] == line_of(desk.quote("--model", "extractive"))["questions"]


def test_the_samples_are_those_that_a_run_asks(desk: Desk) -> None:
    """As many questions as there are rows in the ledger afterwards."""
    options = a_run(analysis=AnalysisOptions(votes=3))
    (line,) = desk.estimate(LONG, SHORT, options=options).lines
    desk.pipeline.work(desk.pipeline.submit(LONG, SHORT, options=options))

    assert line.questions + round(line.syntheses.typical) == desk.count("model_calls")


def test_critiques_are_quoted_and_revisions_at_a_share(desk: Desk) -> None:
    """One or two questions more for each document; for the built-in model none."""
    plain = desk.quote("--model", GPT)
    examined = desk.quote("--model", GPT, "--critique")
    built_in = line_of(desk.quote("--model", "extractive", "--critique"))

    critiques = json_values.as_object(line_of(examined)["critiques"])
    assert (critiques["low"], critiques["typical"], critiques["high"]) == (2, 2.5, 4)
    assert line_of(examined)["questions"] == line_of(plain)["questions"]
    for name in ("input_tokens", "output_tokens"):
        assert typical(line_of(examined)[name]) > typical(line_of(plain)[name])
    assert typical(examined["total"]) > typical(plain["total"])
    assert typical(built_in["critiques"]) == 0
