"""Tests of `chordwise quote` with a real database: counts, costs, and samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.cli.commands.quote import announce, sentences
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import Lane
from chordwise.errors import ExitCode
from chordwise.llm.provider import PROVIDERS
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.llm.token_counts import count_request
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.quoting import quote
from chordwise.pipeline.quoting.quote import Quote
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings
from tests.fakes.commands import Output, output_of
from tests.fakes.office_files import scan
from tests.fakes.pipeline import (
    LONG,
    SCRIPTED,
    SHORT,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    quoting_the_text,
    with_settings,
)
from tests.peers.answering_server import AnsweringServer, serving

pytestmark = pytest.mark.usefixtures("addressed")
GPT = "openai/gpt-6.1-terra"

FREE: JsonObject = {"low": 0, "typical": 0, "high": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A database, two documents in a folder, and the command."""

    pipeline: Pipeline
    folder: Path

    def call(self, *arguments: str, code: ExitCode = ExitCode.SUCCESS) -> Output:
        """Quote the folder."""
        return output_of("quote", str(self.folder), *arguments, code=code)

    def quote(self, *arguments: str) -> JsonObject:
        return json_values.as_object(json.loads(self.call("--json", *arguments).out))

    def count(self, table: str) -> object:
        return self.pipeline.value(f"SELECT count(*) FROM {table}")  # noqa: S608 - constant names

    def estimate(self, *texts: str, options: RunOptions | None = None) -> Quote:
        """Estimate texts with the questions that a run of the pipeline would ask."""
        return quote.estimate(self.pipeline.context, map(a_document, texts), options or a_run())


@pytest.fixture
def desk(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """Fill a folder, and let the command have no key for any provider."""
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "bridge.txt").write_text(SHORT, "utf-8")
    (folder / "harbour.txt").write_text(LONG, "utf-8")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    narrow = with_settings(settings, "pipeline", chunk_tokens=300)
    pipeline = a_pipeline(narrow, quoting_the_text, repeat_last=True)
    return Desk(pipeline=pipeline, folder=folder)


def test_the_size_and_the_number_of_chunks_are_stated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the setting, both documents are read as a whole."""
    monkeypatch.delenv("CHORDWISE_PIPELINE__CHUNK_TOKENS")
    whole = line_of(desk.quote("--model", GPT))
    said = desk.call("--model", GPT).in_one_line
    monkeypatch.setenv("CHORDWISE_PIPELINE__CHUNK_TOKENS", "300")
    cut = line_of(desk.quote("--model", GPT))

    assert (whole["chunks"], whole["chunk_tokens"], whole["questions"]) == (2, 12_000, 2)
    assert "2 chunks of at most 12,000 tokens, 2 questions" in said
    assert cut["chunk_tokens"] == 300
    assert cut["chunks"] == cut["questions"] != 2


def test_pages_of_scans_are_quoted_with_their_pictures(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is transcribed before its text is asked about; the quote itself asks no model."""
    monkeypatch.setenv("CHORDWISE_READERS__VISION", GPT)
    before = desk.quote("--model", GPT, "--lane", "online")
    for name, words in (("a.pdf", "One page"), ("b.pdf", "Another page")):
        (desk.folder / name).write_bytes(scan(words))

    after = desk.quote("--model", GPT, "--lane", "online")

    assert before["transcription"] is None
    pages = json_values.as_object(after["transcription"])
    assert (after["documents"], pages["pages"], pages["model"]) == (4, 2, GPT)
    assert 2 * 1_500 < typical(pages["input_tokens"]) < 2 * 4_000
    cost = typical(json_values.as_object(pages["cost"]))
    of_lines = sum(
        typical(json_values.as_object(line["costs"])["online"])
        for line in json_values.objects(after["lines"])
    )
    assert typical(after["total"]) == pytest.approx(cost + of_lines)
    assert "reads 2 pages of scans" in desk.call("--model", GPT).in_one_line


def line_of(quoted: JsonObject) -> JsonObject:
    (line,) = json_values.objects(quoted["lines"])
    return line


def typical(value: object) -> float:
    assert isinstance(value, dict)
    assert value["low"] <= value["typical"] <= value["high"]
    return float(value["typical"])


def test_a_profile_is_quoted_with_its_questions(desk: Desk, tmp_path: Path) -> None:
    """Types and instructions are those of the profile; an option overrides its entry."""
    profile = '[profiles.contracts]\ntypes = ["extraction", "summary"]\ninstructions = "term"\n'
    (tmp_path / "chordwise.toml").write_text(profile, "utf-8")

    shown_quote = desk.quote("--profile", "contracts", "--model", GPT, "--lane", "online")
    changed = desk.quote("--profile", "contracts", "-t", "sentiment", "--lane", "online")
    said = desk.call("--profile", "letters", code=ExitCode.USAGE).err

    lines = json_values.objects(shown_quote["lines"])
    assert [line["analysis_type"] for line in lines] == ["extraction", "summary"]
    assert line_of(changed)["analysis_type"] == "sentiment"
    assert "Known: contracts." in said


def test_rows_are_quoted_as_documents(desk: Desk) -> None:
    """With a column of texts each row of a table counts, and other files as usual."""
    (desk.folder / "reviews.csv").write_text("id,review\na,Fine.\nb,Poor.\n", "utf-8")

    by_row = desk.quote("--model", GPT, "--text-column", "review", "--id-column", "id")

    assert by_row["documents"] == 4
    assert desk.quote("--model", GPT)["documents"] == 3


def test_the_number_of_questions_is_that_of_a_run(desk: Desk) -> None:
    (line,) = desk.estimate(LONG, SHORT).lines
    desk.pipeline.analyze(LONG, SHORT)

    tasks = [request.task for request in desk.pipeline.model.requests]
    joined = [task for task in tasks if task.answers]
    assert line.questions == len(tasks) - len(joined)
    assert round(line.syntheses.typical) == len(joined) == 1


def test_the_number_of_tokens_is_that_of_the_requests_of_a_run(desk: Desk) -> None:
    """The tokens of each question about a chunk are counted as the provider would receive it."""
    settings = desk.pipeline.context.settings.model_named(SCRIPTED)
    (line,) = desk.estimate(SHORT, f"\n\n {SHORT}\n Again. \n").lines
    desk.pipeline.analyze(SHORT, f"\n\n {SHORT}\n Again. \n")

    counter = PROVIDERS["openai"].token_counter(settings)
    sent = OpenAIModel(settings, SecretStr("k"))
    requests = desk.pipeline.model.requests
    counts = [count_request(counter, sent.body(request)) for request in requests]
    assert line.questions == len(counts) == 2
    assert line.input_tokens.low == sum(counts)


def test_stored_results_are_free(desk: Desk) -> None:
    """Results that a run would reuse are not counted unless the quote is for a fresh run."""
    desk.pipeline.analyze(SHORT)

    again = desk.estimate(SHORT, LONG)
    both = desk.estimate(SHORT, LONG, options=a_run(fresh=True))
    other = desk.estimate(SHORT, options=a_run(AnalysisType.SENTIMENT))

    assert (again.jobs, again.reused) == (2, 1)
    assert both.reused == other.reused == 0
    assert both.lines[0].questions == again.lines[0].questions + 1


def test_cached_questions_are_free(desk: Desk) -> None:
    """Identically rendered questions are free; of a vote, the samples that are cached."""
    desk.pipeline.analyze(SHORT, LONG)
    stricter = AnalysisOptions(confidence_threshold=0.9)

    again = desk.estimate(SHORT, LONG, options=a_run(analysis=stricter))
    thrice = desk.estimate(SHORT, options=a_run(analysis=replace(stricter, votes=3)))
    fresh = desk.estimate(SHORT, options=a_run(analysis=stricter, fresh=True))

    (line,) = again.lines
    assert (again.reused, line.questions) == (0, 0)
    assert again.cached == desk.count("chunks")
    assert (thrice.cached, thrice.lines[0].questions) == (1, 2)
    assert (fresh.cached, fresh.lines[0].questions) == (0, 1)


def test_history_replaces_assumptions(desk: Desk) -> None:
    """After a few answers of the same kind, their length is the expected one."""
    texts = [f"{SHORT} It was number {number}." for number in range(6)]
    desk.pipeline.analyze(*texts)
    statement = "UPDATE model_calls SET provider = 'openai', model = :model"
    desk.pipeline.execute(statement, model=SCRIPTED)
    lengths = desk.pipeline.value("SELECT avg(output_tokens)::float FROM model_calls")

    (known,) = desk.estimate("Another text.").lines
    (unknown,) = desk.estimate("Another text.", options=a_run(AnalysisType.REASONING)).lines

    assert (known.basis, known.observations) == ("history", 6)
    assert isinstance(lengths, float)
    assert known.output_tokens.typical == pytest.approx(lengths)
    assert unknown.basis == "assumed"


def test_unreadable_files_are_named(desk: Desk) -> None:
    """They are not counted and the exit code reports them; duplicates count once."""
    (desk.folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    (desk.folder / "bridge-again.txt").write_text(SHORT, "utf-8")

    shown = desk.call(code=ExitCode.INCOMPLETE).out

    assert "Not included:" in shown
    assert "broken.pdf" in shown
    assert "Duplicates skipped: 1." in shown


def test_an_unknown_model_is_refused(desk: Desk) -> None:
    said = desk.call("--model", "nonsense", code=ExitCode.CONFIGURATION).err

    assert "nonsense" in said
    assert SCRIPTED not in said


def test_votes_multiply_and_critiques_increase_the_quote(desk: Desk) -> None:
    """Three votes triple the counts and costs; critiques add one or two for each document.

    Revisions are expected for a share of the critiques. The built-in model has neither votes nor
    critiques, and costs nothing.
    """
    once, thrice = desk.quote("--model", GPT), desk.quote("--model", GPT, "--votes", "3")
    examined = desk.quote("--model", GPT, "--critique")
    built_in = desk.quote("--model", "extractive", "--votes", "3", "--critique")

    one, three, criticized = line_of(once), line_of(thrice), line_of(examined)
    assert three["questions"] == 3 * int(str(one["questions"]))
    for name in ("syntheses", "input_tokens", "output_tokens"):
        assert typical(three[name]) == pytest.approx(3 * typical(one[name]))
    assert typical(thrice["total"]) == pytest.approx(3 * typical(once["total"]), rel=1e-3)
    critiques = json_values.as_object(criticized["critiques"])
    assert (critiques["low"], critiques["typical"], critiques["high"]) == (2, 2.5, 4)
    assert criticized["questions"] == one["questions"]
    for name in ("input_tokens", "output_tokens"):
        assert typical(criticized[name]) > typical(one[name])
    assert typical(examined["total"]) > typical(once["total"])
    free = desk.quote()
    assert line_of(built_in)["questions"] == line_of(free)["questions"]
    assert json_values.as_object(line_of(built_in)["critiques"]) == FREE
    assert free["total"] == FREE
    assert line_of(free)["costs"] == {"online": FREE}


def test_the_number_of_samples_is_that_of_a_run(desk: Desk) -> None:
    options = a_run(analysis=AnalysisOptions(votes=3))
    (line,) = desk.estimate(LONG, SHORT, options=options).lines
    desk.pipeline.analyze(LONG, SHORT, options=options)

    assert line.questions + round(line.syntheses.typical) == desk.count("model_calls")


def test_every_lane_of_the_provider_has_its_price(desk: Desk) -> None:
    """No key is needed to render, count and price prompts; slow lanes cost half.

    Nothing is stored.
    """
    quoted = desk.quote("--model", GPT)
    shown = desk.call("--model", GPT).in_one_line

    line = line_of(quoted)
    costs = json_values.as_object(line["costs"])
    assert (quoted["documents"], quoted["jobs"], quoted["reused"]) == (2, 2, 0)
    assert set(costs) == {"online", "flex", "batch"}
    assert typical(costs["online"]) > 0
    assert typical(costs["flex"]) == typical(costs["batch"])
    assert typical(costs["flex"]) == pytest.approx(typical(costs["online"]) / 2)
    assert quoted["total"] == costs["online"]
    assert (line["basis"], line["counts_exactly"]) == ("assumed", False)
    assert "Total, online: $" in shown
    assert "Total, batch: $" in shown
    assert "Input tokens are estimated by o200k_base (toktok)." in shown
    exact = desk.call("--model", "openai/gpt-5.4-mini").in_one_line
    assert "Input tokens are counted by o200k_base (toktok)." in exact
    assert [desk.count(table) for table in ("documents", "runs", "model_calls")] == [0, 0, 0]


def test_a_quote_for_a_lane_has_the_cost_of_a_run_in_it(desk: Desk) -> None:
    """The total and the text output are for that lane; JSON has all lanes."""
    for lane, other in (("batch", "online"), ("online", "batch")):
        quoted = desk.quote("--model", GPT, "--lane", lane)
        shown = desk.call("--model", GPT, "--lane", lane).out

        costs = json_values.as_object(line_of(quoted)["costs"])
        assert line_of(quoted)["lane"] == lane
        assert quoted["total"] == costs[lane] != costs[other]
        assert f"Total, {lane}: $" in shown
        assert f"Total, {other}" not in shown
        assert ("batch.spill_over_hours" in shown) is (lane == "batch")


def test_a_model_without_batches_is_quoted_online(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also applies to the batch lane, with a notice; `batch = true` changes it."""
    house = {"provider": "openai", "model": "x", "base_url": "https://models.example/v1"}
    prices = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 5}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | prices}))
    shown = desk.call("--model", "house", "--lane", "batch").in_one_line
    online = desk.quote("--model", "house", "--lane", "batch")

    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | prices | {"batch": True}}))
    batch = desk.quote("--model", "house", "--lane", "batch")

    assert "openai/x has no Batch API; it uses the online lane." in shown
    assert (line_of(online)["lane"], line_of(batch)["lane"]) == ("online", "batch")
    assert typical(batch["total"]) == pytest.approx(typical(online["total"]) / 2)


def test_flex_does_not_apply_in_the_batch_lane(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is asked as flex online is quoted as a batch there."""
    flex = {"provider": "openai", "model": "gpt-6.1-terra", "service_tier": "flex"}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"slow": flex}))

    lanes = [
        line_of(desk.quote("--model", "slow", "--lane", lane))["lane"]
        for lane in ("online", "batch")
    ]

    assert lanes == ["flex", "batch"]


def test_an_unknown_price_is_not_zero(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total is unknown, too, also for a local server; the quote says what to set."""
    hint = "The price of openai/x is unknown. Set input_usd_per_million_tokens"
    cases: list[tuple[JsonObject, str, JsonObject]] = [
        ({"base_url": "http://localhost:4000/v1"}, "online", {"online": None}),
        ({"batch": True}, "batch", {"online": None, "batch": None}),
        ({"price": "free"}, "online", {"online": FREE}),
    ]
    for more, lane, costs in cases:
        house = {"provider": "openai", "model": "x", "base_url": "https://models.example/v1"}
        monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({"house": house | more}))

        quoted = desk.quote("--model", "house", "--lane", lane)

        assert quoted["total"] == costs[lane]
        assert line_of(quoted)["costs"] == costs
        shown = desk.call("--model", "house", "--lane", lane).in_one_line
        unknown = costs[lane] is None
        assert (f"Total, {lane}: unknown" in shown, hint in shown) == (unknown, unknown)


def test_tiers_are_quoted_by_the_model_of_each_question(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thresholds that send every question to the small tier, only that tier has a line."""
    tiers = {"small": "openai/gpt-5.4-mini", "large": GPT}
    monkeypatch.setenv("CHORDWISE_TIERS", json.dumps(tiers))
    monkeypatch.setenv("CHORDWISE_ROUTING__MEDIUM_FROM", "1")
    monkeypatch.setenv("CHORDWISE_ROUTING__LARGE_FROM", "1")

    assert line_of(desk.quote("--model", "auto"))["model"] == tiers["small"]


def test_a_budget_is_compared_with_the_expected_cost(desk: Desk) -> None:
    """A budget below the expected cost causes a warning, one above the upper bound none."""
    total = desk.estimate(SHORT, options=RunOptions(types=(AnalysisType.SUMMARY,), model=GPT))
    assert total.total is not None

    for share, warning in (
        ("0.01", "will probably not suffice"),
        ("1.05", "may not suffice"),
        ("100", ""),
    ):
        said = list(sentences(total, total.total.typical * Decimal(share)))
        assert said[0].startswith("Expected cost: $")
        assert [sentence for sentence in said[1:] if warning in sentence] == said[1:]
        assert len(said) == (2 if warning else 1)


def test_the_quote_is_printed_before_a_run_with_a_budget(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed on standard error and does not read standard input."""
    context = desk.pipeline.context
    options = a_run()
    screen = Screen()

    announce(context, [str(desk.folder)], options, Decimal(5), screen)
    announce(context, ["-"], options, Decimal(5), screen)

    said = capsys.readouterr().err
    assert "Expected cost: $0.00. Budget: $5.00." in said
    assert "cost of standard input cannot be estimated" in said


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    """Serve a model `house` with a known price; as `slow` it is limited to one call a minute."""
    with serving() as server:
        model = {"provider": "openai", "model": "peer", "base_url": server.base_url}
        priced = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 5}
        slow = {**model, **priced, "requests_per_minute": 1}
        models = {"house": model | priced, "slow": slow}
        monkeypatch.setenv("CHORDWISE_MODELS", json.dumps(models))
        yield server


def test_a_sample_is_asked_and_paid_for(
    desk: Desk, house: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cost is announced first, and the quote uses the output of the sample.

    It is recorded in the ledger and paid from the daily budget.
    """
    monkeypatch.setenv("CHORDWISE_BUDGET__USD_PER_DAY", "1")
    house.cost_usage = {"prompt_tokens": 1_000}

    output = desk.call("--model", "house", "--sample", "2", "--json")

    line = line_of(json.loads(output.out))
    assert "Sending a sample of 2 questions. Cost: at most $" in output.err
    assert len(house.journal) == 2
    assert (line["basis"], line["observations"]) == ("sample", 2)
    paid = desk.pipeline.value("SELECT sum(cost_usd) FROM model_calls WHERE job_id IS NULL")
    assert paid == 2 * (1_000 * Decimal(1) + 50 * Decimal(5)) / 1_000_000
    assert desk.pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 1") == paid


def test_a_sample_for_the_batch_lane_is_announced_as_online(desk: Desk) -> None:
    """A quote does not wait a day for a batch, so the sample costs the online price."""
    quoter = desk.pipeline.context
    announced = []
    for lane in Lane:
        options = RunOptions(types=(AnalysisType.SUMMARY,), model=GPT, lane=lane)
        gathered = quote.gather(quoter, [a_document(LONG)], options, 2)
        announced.append(quote.expected_cost(quote.priced(quoter, gathered), gathered))

    assert announced[0] == announced[1] is not None


def test_a_sample_stays_within_budget_and_limits(
    desk: Desk, house: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without budget or permit no call is made, and the hint does not mention a run."""
    monkeypatch.setenv("CHORDWISE_LIMITS__MAX_WAIT_SECONDS", "1")
    limited = desk.call("--model", "slow", "--sample", "2", code=ExitCode.INCOMPLETE).err
    monkeypatch.setenv("CHORDWISE_BUDGET__USD_PER_DAY", "0.001")
    poor = desk.call("--model", "house", "--sample", "2", code=ExitCode.INCOMPLETE).err

    assert "peer" in limited
    assert "The day's budget of $0.001 does not cover" in poor
    assert "Quote without --sample" in poor
    assert house.journal == []


def test_answers_of_a_sample_are_reused(desk: Desk) -> None:
    """A run asks only the remaining questions; a second sample is free, a fresh one is not."""
    quoter, requests = desk.pipeline.context, desk.pipeline.model.requests
    whole = desk.estimate(LONG, SHORT).lines[0]
    gathered = quote.gather(quoter, map(a_document, (LONG, SHORT)), a_run(), 3)

    counts = []
    for fresh in (False, False, True):
        quote.ask_sample(quoter, gathered, fresh=fresh)
        counts.append(len(requests))
    desk.pipeline.analyze(LONG, SHORT)

    assert counts == [3, 3, 6]
    assert len(requests) == 6 + whole.questions - 3 + round(whole.syntheses.typical)
