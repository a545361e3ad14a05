"""Tests of the costs of calls to self-hosted servers: unknown, free, priced, or reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest

from chordwise import settings as settings_module
from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode
from chordwise.pipeline.diagnosis.doctor import check_model
from chordwise.pipeline.diagnosis.outcome import CheckStatus
from chordwise.pipeline.intake.submit import Submission
from chordwise.settings import ModelSettings, Settings
from tests.fakes.commands import output_of
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
    a_pipeline,
    a_run,
    with_models,
    with_settings,
)
from tests.peers.answering_server import AnsweringServer, serving

GATEWAY = "gateway"
PRICES = {"input_usd_per_million_tokens": "100", "output_usd_per_million_tokens": "200"}
NOTHING: Mapping[str, str] = MappingProxyType({})
COMPUTED_USD = Decimal("0.02")  # for the 100 and 50 tokens of the peer
COST_HEADER = "x-litellm-response-cost"


UPSTREAM = {"cost_details": {"upstream_inference_cost": 1}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """A pipeline whose model is a server on the loopback interface."""

    pipeline: Pipeline

    def analyze(self, text: str = PARAGRAPH, budget_usd: str | None = None) -> Submission:
        cap = None if budget_usd is None else Decimal(budget_usd)
        options = replace(a_run(fresh=True), model=GATEWAY, budget_usd=cap)
        return self.pipeline.analyze(text, options=options)

    def costs(self) -> list[tuple[object, ...]]:
        query = "SELECT cost_usd, cost_basis FROM model_calls ORDER BY started_at"
        return self.pipeline.rows(query)


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with serving() as server:
        yield server


def an_office(
    settings: Settings,
    server: AnsweringServer,
    model: Mapping[str, str] = NOTHING,
    budget: Mapping[str, object] = NOTHING,
) -> Office:
    options = {"provider": "openai", "model": "behind", "base_url": server.base_url}
    model_settings = ModelSettings.model_validate({**options, **model})
    limited = with_settings(settings, "budget", **budget)
    pipeline = a_pipeline(limited)
    known = pipeline.context.settings.model_copy(update={"models": {GATEWAY: model_settings}})
    return Office(pipeline=with_models(pipeline, known))


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize("provider", ["openai", "local"])
def test_the_cost_of_a_local_server_is_unknown(
    settings: Settings, server: AnsweringServer, provider: str
) -> None:
    """Requests without an answer are not billed."""
    office = an_office(settings, server, {"provider": provider})
    away = an_office(settings, server, {"base_url": "http://127.0.0.1:9/v1"})

    office.analyze()

    assert office.costs() == [(None, None)]
    assert office.pipeline.rows("SELECT calls, cost_usd, unpriced_calls FROM run_costs") == [
        (1, None, 1)
    ]
    assert office.pipeline.rows("SELECT cost_usd, unpriced_calls FROM model_costs_by_day") == [
        (None, 1)
    ]
    assert "1 call · 150 tokens · cost unknown" in output_of("runs", "latest").out
    away.analyze()
    assert away.costs()[1:] == [(Decimal(0), "not_billed")]


@pytest.mark.usefixtures("addressed")
def test_a_sum_has_the_number_of_omitted_calls(settings: Settings, server: AnsweringServer) -> None:
    """The server reports the cost of one answer and not of the other."""
    office = an_office(settings, server)
    options = replace(a_run(fresh=True), model=GATEWAY)
    submission = office.pipeline.submit(PARAGRAPH, f"{PARAGRAPH} Again.", options=options)
    first, second = office.pipeline.jobs(submission)
    office.pipeline.work_on(first.id)
    server.cost_headers = {COST_HEADER: "0.25"}

    office.pipeline.work_on(second.id)

    assert "$0.2500 and 1 call of unknown cost" in output_of("runs", "latest").out
    assert office.pipeline.rows(
        "SELECT cost_usd, unpriced_calls, reported_calls FROM run_costs"
    ) == [(Decimal("0.25"), 1, 1)]


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--model", GATEWAY, "--budget", "1"), {}),
        (("--model", GATEWAY), {"CHORDWISE_BUDGET__USD_PER_RUN": "1"}),
        (("--model", GATEWAY), {"CHORDWISE_BUDGET__USD_PER_DAY": "1"}),
        (("--budget", "1"), {"CHORDWISE_FALLBACK": json.dumps([GATEWAY])}),
        (
            ("--model", "auto", "--budget", "1"),
            {"CHORDWISE_TIERS__SMALL": "extractive", "CHORDWISE_TIERS__LARGE": GATEWAY},
        ),
    ],
)
def test_a_budget_refuses_an_unknown_price_before_any_call(
    server: AnsweringServer,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    house = {"provider": "openai", "model": "behind", "base_url": server.base_url}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({GATEWAY: house}))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Path("letter.txt").write_text(PARAGRAPH, "utf-8")

    said = output_of("submit", "letter.txt", *arguments, code=ExitCode.CONFIGURATION).in_one_line

    assert f"There is a budget, but the price is unknown for {GATEWAY}." in said
    assert 'price = "free"' in said
    assert "input_usd_per_million_tokens" in said
    assert "Run " not in said
    assert server.journal == []


def test_a_budget_stops_an_unpriced_model(settings: Settings, server: AnsweringServer) -> None:
    """The price was removed from the settings after the run had begun: the run pauses."""
    office = an_office(settings, server, PRICES)
    options = replace(a_run(), model=GATEWAY, budget_usd=Decimal(1))
    submission = office.pipeline.submit(PARAGRAPH, options=options)
    unpriced = an_office(settings, server)

    unpriced.pipeline.work(submission)

    assert unpriced.pipeline.job(submission).status == JobStatus.PAUSED
    assert server.journal == []


@pytest.mark.parametrize(
    ("model", "headers", "expected"),
    [
        ({"price": "free"}, {}, (Decimal(0), "free")),
        (PRICES, {}, (COMPUTED_USD, "settings")),
        ({"price": "free"}, {COST_HEADER: "0.125"}, (Decimal("0.125"), "reported")),
        (PRICES, {COST_HEADER: "0.125"}, (Decimal("0.125"), "reported")),
    ],
)
def test_a_budget_is_settled_with_the_configured_or_reported_cost(
    settings: Settings,
    server: AnsweringServer,
    model: dict[str, str],
    headers: dict[str, str],
    expected: tuple[Decimal, str],
) -> None:
    server.cost_headers = headers
    office = an_office(settings, server, model)

    submission = office.analyze(budget_usd="5")

    assert office.pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert office.costs() == [expected]
    account = "SELECT spent_usd, reserved_usd FROM budget_accounts WHERE run IS NOT NULL"
    assert office.pipeline.rows(account) == [(expected[0], 0)]


@pytest.mark.parametrize(
    ("headers", "usage", "usd"),
    [
        ({COST_HEADER: "0.0042"}, {}, "0.0042"),
        ({}, {"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, "0.95"),
        ({}, {"cost": 0.05, "is_byok": True, **UPSTREAM}, "1.05"),
        ({COST_HEADER: "0.3"}, {"cost": 0.2}, "0.3"),
    ],
)
def test_a_reported_cost_is_recorded_with_its_source(
    settings: Settings,
    server: AnsweringServer,
    headers: dict[str, str],
    usage: dict[str, object],
    usd: str,
) -> None:
    """LiteLLM sends it in a header, OpenRouter in the usage; it overrides configured prices."""
    server.cost_headers, server.cost_usage = headers, json.loads(json.dumps(usage))
    office = an_office(settings, server, PRICES)

    office.analyze()

    assert office.costs() == [(Decimal(usd), "reported")]


def test_an_invalid_reported_cost_is_ignored(settings: Settings, server: AnsweringServer) -> None:
    """If the user brings a key for the upstream provider, the reported fee is not the cost."""
    unknown = {"cost_details": {"upstream_inference_cost": None}}
    costs = ("-1", "nan", "inf", "1_0", "1e9", "٣", " ", "0.1, 0.2", "$1", "0x1")
    reports: list[tuple[str, dict[str, object]]] = [(usd, {"cost": usd}) for usd in costs]
    reports += [("", {"cost": cost}) for cost in (True, -0.5, "0.5", {"total": 0.5}, 10_000)]
    reports += [("", {"cost": 0, "is_byok": True})]
    reports += [("", {"cost": 0.01, "is_byok": True, **unknown})]
    office = an_office(settings, server, PRICES)

    for header, usage in reports:
        server.cost_headers = {COST_HEADER: header} if header and header.isascii() else {}
        server.cost_usage = json.loads(json.dumps(usage))
        office.analyze()

    assert office.costs() == [(COMPUTED_USD, "settings")] * len(reports)


def test_unknown_prices_count_as_reported(small_chunks: Settings, server: AnsweringServer) -> None:
    server.cost_headers = {COST_HEADER: "0.4"}
    office = an_office(small_chunks, server, budget={"allow_unknown_prices": True})

    submission = office.analyze(LONG, budget_usd="1")

    assert office.costs() == 3 * [(Decimal("0.4"), "reported")]
    assert spent(office) == Decimal("1.2")
    assert office.pipeline.job(submission).status == JobStatus.PAUSED


ZERO: list[tuple[dict[str, str], dict[str, JsonValue]]] = [
    ({COST_HEADER: "0"}, {}),
    ({}, {"cost": 0}),
    ({}, {"prompt_tokens": 0, "completion_tokens": 0}),
]


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize(("headers", "usage"), ZERO)
def test_a_budget_holds_against_a_server_that_reports_zero(
    small_chunks: Settings,
    server: AnsweringServer,
    headers: dict[str, str],
    usage: dict[str, JsonValue],
) -> None:
    server.cost_headers, server.cost_usage = headers, usage
    office = an_office(small_chunks, server, PRICES)

    submission = office.analyze(LONG, budget_usd="2.5")

    costs = office.costs()
    assert {basis for _, basis in costs} == {"estimated"}
    assert spent(office) == sum(Decimal(str(usd)) for usd, _ in costs) > Decimal("0.1")
    assert office.pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert f"{len(costs)} calls estimated (implausible report)" in output_of("runs", "latest").out


@pytest.mark.usefixtures("addressed")
def test_a_budget_counts_calls_of_unknown_cost(settings: Settings, server: AnsweringServer) -> None:
    office = an_office(settings, server, budget={"allow_unknown_prices": True})
    office.analyze(budget_usd="1")

    shown = output_of("runs", "latest").out
    document = json.loads(output_of("runs", "latest", "--json").out)

    assert "$0.00 of $1.00 spent by this run · $1.00 left · 1 call of unknown cost" in shown
    assert document["budgets"][0]["unpriced_calls"] == 1
    accounts = "SELECT unpriced_calls FROM budget_accounts ORDER BY scope"
    assert office.pipeline.rows(accounts) == [(1,), (1,)]


@pytest.mark.parametrize(
    ("budget", "verdict", "said"),
    [
        ("", CheckStatus.OK, "its price is unknown"),
        ("[budget]\nusd_per_run = 1\n", CheckStatus.WARN, "runs with a budget refuse it"),
        ("[budget]\nusd_per_day = 1\n", CheckStatus.WARN, "runs with a budget refuse it"),
        ("[profiles.bills]\nbudget_usd = 1\n", CheckStatus.WARN, "runs with a budget refuse it"),
        (
            "[budget]\nusd_per_day = 1\nallow_unknown_prices = true\n",
            CheckStatus.WARN,
            "only those of its calls whose cost the server reports",
        ),
    ],
)
def test_doctor_warns_of_an_unknown_price_if_there_is_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, verdict: CheckStatus, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    house = '[models.gateway]\nprovider = "openai"\nmodel = "m"\nbase_url = "http://localhost:1"\n'
    file = tmp_path / "chordwise.toml"

    file.write_text(budget + house, "utf-8")
    check = check_model(settings_module.load(), GATEWAY)
    file.write_text(f'{budget}{house}price = "free"\n', "utf-8")
    free = check_model(settings_module.load(), GATEWAY)

    assert check.status is verdict
    assert said in check.finding
    assert ('price = "free"' in check.hint) is (verdict is CheckStatus.WARN)
    assert free.status is CheckStatus.OK
    assert "price" not in free.hint


def spent(office: Office) -> object:
    return office.pipeline.value("SELECT spent_usd FROM budget_accounts WHERE run IS NOT NULL")
