"""Tests of the cost of completions."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import NoReturn

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise import errors
from chordwise.llm.model import Completion, FinishReason, Usage
from chordwise.llm.prices import (
    BookedCost,
    CostBasis,
    FreePrice,
    ListPrice,
    booked_cost,
    booked_failure,
    max_input_tokens,
    price_of,
)
from chordwise.settings import ModelSettings
from tests.fakes.completion_requests import a_page, a_request


def completion(model: str, usage: Usage) -> Completion:
    return Completion(
        text="{}", finish_reason=FinishReason.STOP, usage=usage, provider="p", model=model
    )


def cost(settings: ModelSettings, usage: Usage, answered_by: str = "") -> Decimal | None:
    return price_of(settings).cost_usd(completion(answered_by or settings.model, usage))


FRESH = Usage(input_tokens=1_000, output_tokens=100)
CACHED = Usage(input_tokens=1_000, output_tokens=100, cached_input_tokens=1_000)
WRITTEN = Usage(input_tokens=1_000, output_tokens=100, cache_write_tokens=1_000)


def priced(input_usd: int | None, output_usd: int | None) -> ModelSettings:
    """Return the settings of a listed model with configured prices."""
    return ModelSettings(
        provider="openai",
        model="gpt-6.1-terra",
        input_usd_per_million_tokens=None if input_usd is None else Decimal(input_usd),
        output_usd_per_million_tokens=None if output_usd is None else Decimal(output_usd),
    )


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-6.1-terra"), ("anthropic", "claude-sonnet-5-5")]
)
def test_public_prices_are_known_and_cached_tokens_are_cheaper(provider: str, model: str) -> None:
    settings = ModelSettings.model_validate({"provider": provider, "model": model})

    costs = [cost(settings, usage) for usage in (CACHED, FRESH, WRITTEN)]

    cached, fresh, written = (amount or Decimal(0) for amount in costs)
    assert 0 < cached < fresh < written


def test_the_price_is_that_of_the_model_that_answered() -> None:
    """The name of a deployment has no price, but its model has."""
    settings = ModelSettings(provider="openai", model="our-deployment")

    assert cost(settings, FRESH) is None
    assert cost(settings, FRESH, answered_by="gpt-6.1-terra") is not None


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
@pytest.mark.parametrize("usd", [None, 1])
def test_unknown_usage_has_an_unknown_cost(usage: Usage, usd: int | None) -> None:
    assert cost(priced(usd, usd), usage) is None


def test_configured_prices_override_the_list() -> None:
    settings = priced(3, 20)

    assert cost(settings, FRESH) == cost(settings, CACHED) == Decimal("0.005")


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(provider="local", model="tiny.gguf"),
        ModelSettings(provider="extractive", model="textrank-1"),
        ModelSettings(
            provider="openai", model="qwen", base_url="http://localhost:11434/v1", price="free"
        ),
        ModelSettings(
            provider="local", model="q.gguf", base_url="http://gpu:8080/v1", price="free"
        ),
    ],
)
def test_the_built_in_server_and_models_set_as_free_cost_nothing(settings: ModelSettings) -> None:
    assert price_of(settings) == FreePrice()
    assert cost(settings, FRESH) == 0
    assert booked_cost(price_of(settings), completion("m", FRESH), 0).basis == "free"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "local"])
@pytest.mark.parametrize(
    "base_url",
    [
        "http://localhost:4000",
        "http://127.0.0.1:4000/v1",
        "http://[::1]:11434/v1",
        "http://localhost:1234/v1",
        "https://gateway.example.org/v1",
    ],
)
def test_the_price_of_a_self_hosted_server_is_unknown(provider: str, base_url: str) -> None:
    """A local address may be a gateway to a paid model."""
    settings = ModelSettings.model_validate(
        {"provider": provider, "model": "gpt-6.1-terra", "base_url": base_url}
    )
    price = price_of(settings)

    assert not price.is_known()
    assert price.max_usd(a_request()) is None
    assert booked_cost(price, completion("gpt-6.1-terra", FRESH), 1_000) == BookedCost(
        usd=None, basis=None
    )


@pytest.mark.parametrize(
    ("reported", "booked"),
    [("0.0042", "0.0042"), ("4.4999999999999996e-05", "0.000045"), ("1e-12", "1e-8")],
)
def test_the_cost_reported_by_the_server_is_booked(reported: str, booked: str) -> None:
    answer = replace(completion("m", FRESH), text="", reported_cost_usd=Decimal(reported))

    for settings in (OWN, LISTED, ModelSettings(provider="local", model="tiny.gguf")):
        cost = booked_cost(price_of(settings), answer, 0)
        assert cost == BookedCost(usd=Decimal(booked), basis=CostBasis.REPORTED)


PROMPT_TOKENS = 4_000
CLAIMS = [
    (Usage(input_tokens=0, output_tokens=0), None),
    (Usage(input_tokens=1, output_tokens=1), None),
    (Usage(input_tokens=4_000, output_tokens=1), None),
    (Usage(), Decimal(0)),
    (Usage(input_tokens=4_000, output_tokens=250), Decimal(0)),
    (Usage(input_tokens=4_000, output_tokens=250), Decimal("1e-9")),
]


@pytest.mark.parametrize(("usage", "reported"), CLAIMS)
@pytest.mark.parametrize("usd", [None, 3])
def test_a_report_far_below_the_length_of_the_texts_is_replaced_by_an_estimate(
    usage: Usage, reported: Decimal | None, usd: int | None
) -> None:
    """Otherwise a server that reports zero would turn off every budget."""
    price = price_of(priced(usd, usd))
    claim = replace(
        completion("gpt-6.1-terra", usage), text="word " * 200, reported_cost_usd=reported
    )
    honest = replace(claim, usage=Usage(input_tokens=PROMPT_TOKENS, output_tokens=250))

    assert booked_cost(price, claim, PROMPT_TOKENS) == BookedCost(
        usd=price.cost_usd(honest), basis=CostBasis.ESTIMATED
    )
    assert booked_cost(FreePrice(), claim, PROMPT_TOKENS).basis is not CostBasis.ESTIMATED


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=3_000, output_tokens=40, cached_input_tokens=3_000),
        Usage(input_tokens=1_300, output_tokens=40, cached_input_tokens=1_300),
        Usage(input_tokens=300, output_tokens=20),
    ],
)
@pytest.mark.parametrize("usd", [None, 3])
def test_cached_prompts_and_fewer_tokens_are_believed(usage: Usage, usd: int | None) -> None:
    """The same applies to a gateway that charges a tenth of the configured price."""
    price = price_of(priced(usd, usd))
    answer = replace(completion("gpt-6.1-terra", usage), text="word " * 200)
    usual = price.cost_usd(replace(answer, usage=Usage(input_tokens=4_000, output_tokens=250)))
    reported = replace(answer, reported_cost_usd=(usual or Decimal(0)) / 10)

    assert booked_cost(price, answer, PROMPT_TOKENS).usd == price.cost_usd(answer)
    assert booked_cost(price, reported, PROMPT_TOKENS).basis is CostBasis.REPORTED


@pytest.mark.parametrize(
    ("settings", "basis"),
    [
        (priced(None, None), "price_list"),
        (priced(0, 0), "settings"),
    ],
)
def test_a_computed_cost_names_the_source_of_its_price(settings: ModelSettings, basis: str) -> None:
    price = price_of(settings)

    assert booked_cost(price, completion(settings.model, FRESH), 1_000).basis == basis
    assert booked_failure(price, errors.RateLimitedError("too fast")).basis == "not_billed"
    assert booked_failure(price, errors.ModelOverloadedError("broken")).basis is None


OWN = ModelSettings(
    provider="openai",
    model="ours",
    input_usd_per_million_tokens=Decimal(4),
    cached_input_usd_per_million_tokens=Decimal(1),
    output_usd_per_million_tokens=Decimal(20),
)
LISTED = ModelSettings(provider="openai", model="gpt-6.1-terra")
# A server that does not state the tier, and a model with a listed price for priority.
ELSEWHERE = ModelSettings(
    provider="openai",
    model="gemini-3.8-flash-tts",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
)
USUAL_TIERS = ["", "default", "standard", "flex", "batch"]
ALL_TIERS = [*USUAL_TIERS, "priority", "fast", "scale"]


@pytest.mark.parametrize(
    ("whole", "read", "written", "usd"),
    [
        (1_000, 500, 300, "0.0028"),  # 200 at 4, 500 at 1, 300 at 5
        (100, 1_000, 1_000, "0.0001"),  # a server that counts wrongly
    ],
)
def test_prices_include_cached_tokens(whole: int, read: int, written: int, usd: str) -> None:
    usage = Usage(
        input_tokens=whole, output_tokens=0, cached_input_tokens=read, cache_write_tokens=written
    )

    assert cost(OWN, usage) == Decimal(usd)


@pytest.mark.parametrize("settings", [OWN, LISTED])
def test_an_absurd_usage_has_an_unknown_cost(settings: ModelSettings) -> None:
    assert cost(settings, Usage(input_tokens=10**12, output_tokens=10**12)) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.RateLimitedError("too fast"), 0),
        (errors.QuotaExceededError("no money"), 0),
        (errors.ModelAccessError("no key"), 0),
        (errors.ContextTooLongError("too long"), 0),
        (errors.ModelUnreachableError("no server"), 0),
        (errors.ModelTransportError("half an answer"), None),
        (errors.ModelOverloadedError("broken"), None),
        (errors.RefusedError("the filter read the prompt"), None),
    ],
)
def test_failures_are_free_if_no_model_ran(
    error: errors.ChordwiseError, expected: int | None
) -> None:
    assert price_of(OWN).failure_cost_usd(error) == expected
    assert price_of(LISTED).failure_cost_usd(error) == expected


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (OWN, True),
        (LISTED, True),
        (ModelSettings(provider="local", model="tiny.gguf"), True),
        (ModelSettings(provider="openai", model="our-deployment"), False),
        (
            ModelSettings(provider="openai", model="gpt-6.1-terra", base_url="https://x.example"),
            False,
        ),
    ],
)
def test_only_a_known_price_has_a_maximum_cost(settings: ModelSettings, *, known: bool) -> None:
    price = price_of(settings)

    assert price.is_known() is known
    assert (price.max_usd(a_request()) is not None) is known


@given(
    text=st.text(max_size=2_000) | st.integers(0, 400_000).map("a".__mul__),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    model_and_tier=st.one_of(
        # OpenAI is told the tier, so it never charges the priority price.
        st.tuples(st.just(LISTED), st.sampled_from(USUAL_TIERS)),
        st.tuples(
            st.sampled_from(
                [
                    OWN,
                    ELSEWHERE,
                    ModelSettings(provider="anthropic", model="claude-sonnet-5-5"),
                    # Above 100,000 prompt tokens it costs five times as much.
                    ModelSettings(provider="anthropic", model="claude-haiku-5-5"),
                ]
            ),
            st.sampled_from(ALL_TIERS),
        ),
    ),
)
def test_no_usage_of_a_request_costs_more_than_the_bound(
    text: str, shares: tuple[float, float, float, float], model_and_tier: tuple[ModelSettings, str]
) -> None:
    settings, service_tier = model_and_tier
    request = a_request(user=text)
    tokens = int(max_input_tokens(request) * shares[0])
    usage = Usage(
        input_tokens=tokens,
        output_tokens=int(request.max_output_tokens * shares[1]),
        cached_input_tokens=int(tokens * shares[2]),
        cache_write_tokens=int(tokens * shares[3]),
    )
    geo = "us" if settings.provider == "anthropic" else ""
    answer = replace(
        completion(settings.model, usage), service_tier=service_tier, inference_geo=geo
    )

    charged, most = price_of(settings).cost_usd(answer), price_of(settings).max_usd(request)

    assert charged is not None
    assert most is not None
    assert charged <= most


@pytest.mark.parametrize(
    ("geo", "factor"),
    [("", "1"), ("global", "1"), ("not_available", "1"), ("us", "1.1"), ("eu", "1.1")],
)
@pytest.mark.parametrize("tier", ["standard", "batch"])
def test_inference_in_one_region_costs_ten_percent_more(geo: str, factor: str, tier: str) -> None:
    """An Anthropic workspace can request it; the response states it."""
    settings = ModelSettings(provider="anthropic", model="claude-sonnet-5-5")
    usual = replace(completion(settings.model, FRESH), service_tier=tier)
    price = price_of(settings)

    cost_usd = price.cost_usd(usual)
    charged = price.cost_usd(replace(usual, inference_geo=geo))

    assert cost_usd is not None
    assert charged == cost_usd * Decimal(factor)


@pytest.mark.parametrize("tier", ["priority", "fast"])
def test_priority_costs_more_and_is_reserved_unless_excluded(tier: str) -> None:
    answer = completion(LISTED.model, FRESH)
    told = price_of(LISTED)
    untold = ListPrice(provider="openai", model=LISTED.model)

    usual, dearer = told.cost_usd(answer), told.cost_usd(replace(answer, service_tier=tier))
    least, most = told.max_usd(a_request()), untold.max_usd(a_request())

    assert usual is not None
    assert least is not None
    assert dearer == 2 * usual
    assert most == 2 * least


def test_the_list_is_asked_once_about_similar_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def calc_price(usage: genai_prices.Usage, model: str, **_: object) -> NoReturn:
        lengths.append(int(usage.input_tokens or 0))
        raise LookupError(model)

    monkeypatch.setattr(genai_prices, "calc_price", calc_price)
    requests = [a_request(user="x" * length) for length in range(5000, 5128)]
    price = ListPrice(provider="openai", model="asked-once", says_tier=True)

    assert {price.max_usd(request) for request in requests} == {None}

    assert len(set(lengths)) <= 3
    # With the prompt written to the cache, and without.
    assert len(lengths) == 2 * len(set(lengths))
    assert max(lengths) >= max_input_tokens(requests[-1])


def test_the_cost_of_an_image_is_reserved() -> None:
    """It depends on the pixels and is about twice the providers' own count."""
    shown = a_request(pictures=(a_page(width=1_109, height=1_568),))

    more = max_input_tokens(shown) - max_input_tokens(a_request())

    assert 2 * 1_109 * 1_568 / 750 < more < 10_000


@given(text=st.text(max_size=500))
def test_a_prompt_has_no_more_tokens_than_bytes(text: str) -> None:
    more = max_input_tokens(a_request(user=text + "ü")) - max_input_tokens(a_request(user=text))

    assert more == 2
