"""Tests of classifying the error responses of providers, with real response bodies."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise import errors
from chordwise.domain.json_values import JsonValue
from chordwise.llm.exchange import MAX_BELIEVED_SECONDS, read_fault, retry_after_seconds
from chordwise.llm.providers import anthropic, openai
from chordwise.llm.transport import JsonResponse


def openai_body(message: str, kind: str | None = None, code: JsonValue = None) -> JsonValue:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic_body(kind: str, message: str = "", error_code: str = "") -> JsonValue:
    details: JsonValue = {"error_code": error_code} if error_code else None
    error: JsonValue = {"type": kind, "message": message, "details": details}
    return {"type": "error", "error": error, "request_id": "req_1"}


def kind_of(
    module: str, status: int, body: JsonValue, headers: dict[str, str] | None = None
) -> type[errors.ModelError]:
    tables = {"openai": openai, "anthropic": anthropic}[module]
    fault = read_fault(JsonResponse(status=status, headers=headers or {}, body=body))
    return fault.kind(tables.CODES, tables.PHRASES)


OUT_OF_QUOTA = "You exceeded your current quota, please check your plan and billing details."
INVALID = "invalid_request_error"
LITELLM = "litellm.{}Error: OpenAIException - {}"
OPENAI: dict[type[errors.ModelError], list[tuple[int, JsonValue]]] = {
    errors.RateLimitedError: [
        (429, openai_body("Slow down", "requests", "rate_limit_exceeded")),
        (200, {"error": {"message": "upstream", "code": 429}}),
        (429, openai_body(OUT_OF_QUOTA, None, 429)),  # Gemini, per minute
    ],
    errors.QuotaExceededError: [
        (429, openai_body("No money", "insufficient_quota", "insufficient_quota")),
        (429, openai_body("x", "insufficient_quota", "credit_balance_exhausted")),
        (429, openai_body("x", "y", "project_spend_limit_exceeded")),
        (402, openai_body("pay")),
        (422, openai_body("Budget has been exceeded!", "budget_exceeded", "422")),
        (429, openai_body(LITELLM.format("RateLimit", OUT_OF_QUOTA), "x", "429")),
    ],
    errors.ContextTooLongError: [
        (429, openai_body("Request too large for gpt-6: Limit 1, Requested 2")),
        (400, openai_body("too long", None, "context_length_exceeded")),
        (400, openai_body("x", "exceed_context_size_error", 400)),
        (400, openai_body("This model's maximum context length is 8", "BadRequestError", 400)),
        (413, None),
        (400, openai_body("litellm.ContextWindowExceededError: BedrockException - x", None, "400")),
    ],
    errors.RefusedError: [
        (400, openai_body("filtered", None, "content_filter")),
        (400, openai_body(LITELLM.format("ContentPolicyViolation", "x"), None, "400")),
    ],
    errors.ModelRequestError: [
        (400, openai_body("Invalid schema", INVALID)),
        (400, {"error": "'response_format.type' must be 'json_schema'"}),
        (422, {"detail": [{"msg": "field required"}]}),
        (418, "teapot"),
    ],
    errors.ModelAccessError: [
        (401, openai_body("Incorrect API key", INVALID, "x")),
        (404, openai_body("no such model", "NotFoundError", 404)),
        (404, {"error": "model not found, try pulling it first"}),
        (400, openai_body("No connected db.", "no_db_connection", "400")),
        (400, openai_body("/chat/completions: Invalid model name passed in model=x.", None, "400")),
    ],
    errors.ModelOverloadedError: [
        (408, None),
        (409, None),
        (498, openai_body("x", None, "capacity_exceeded")),
        (500, [{"error": {"message": "x", "code": 500}}]),
        (502, None),
        (503, openai_body("Loading model", "unavailable_error", 503)),
        (200, {"error": {"message": "upstream", "code": 502}}),
        (503, openai_body("Service Unavailable", "no_db_connection", "503")),
        (429, openai_body("Try again", "all_deployments_in_cooldown", "429")),
    ],
    errors.InvalidAnswerError: [
        (500, openai_body("does not match the expected peg-native format"))
    ],
}
ANTHROPIC: dict[type[errors.ModelError], list[tuple[int, JsonValue]]] = {
    errors.RateLimitedError: [
        (429, anthropic_body("rate_limit_error")),
        (429, anthropic_body("rate_limit_error", "", "ramp_limit_exceeded")),
    ],
    errors.QuotaExceededError: [
        (429, anthropic_body("rate_limit_error", "", "enforced_spend_limit_reached")),
        (429, anthropic_body("rate_limit_error", "", "contract_spend_limit_reached")),
        (400, anthropic_body(INVALID, "You have reached your specified API usage limits")),
        (400, anthropic_body(INVALID, "Your credit balance is too low")),
        (402, anthropic_body("billing_error")),
    ],
    errors.ContextTooLongError: [
        (400, anthropic_body(INVALID, "prompt is too long: 9 tokens > 8 maximum")),
        (413, anthropic_body("request_too_large")),
    ],
    errors.ModelRequestError: [
        (400, anthropic_body(INVALID, "temperature: Extra inputs are not permitted")),
    ],
    errors.ModelAccessError: [
        (401, anthropic_body("authentication_error")),
        (403, anthropic_body("permission_error")),
        (404, anthropic_body("not_found_error", "model: claude-x")),
    ],
    errors.ModelOverloadedError: [
        (500, anthropic_body("api_error")),
        (504, anthropic_body("timeout_error")),
        (529, anthropic_body("overloaded_error")),
        (529, None),
    ],
}


@pytest.mark.parametrize(
    ("provider", "status", "body", "kind"),
    [
        (provider, status, body, kind)
        for provider, kinds in (("openai", OPENAI), ("anthropic", ANTHROPIC))
        for kind, answers in kinds.items()
        for status, body in answers
    ],
)
def test_error_responses_are_classified(
    provider: str, status: int, body: JsonValue, kind: type[errors.ModelError]
) -> None:
    """The body outweighs the status, in each of the formats of servers.

    At Anthropic, the error code outweighs the type.
    """
    assert kind_of(provider, status, body) is kind


@pytest.mark.parametrize(
    ("status", "should_retry", "kind"),
    [
        (400, "true", errors.ModelOverloadedError),
        (429, "false", errors.QuotaExceededError),
        (500, "false", errors.ModelRequestError),
        (401, "false", errors.ModelAccessError),
        (500, "perhaps", errors.ModelOverloadedError),
    ],
)
def test_the_retry_header_outweighs_the_status(
    status: int, should_retry: str, kind: type[errors.ModelError]
) -> None:
    """`x-should-retry` says whether the same request may succeed later."""
    assert kind_of("openai", status, None, {"x-should-retry": should_retry}) is kind


def test_the_message_names_the_error_and_hides_the_document() -> None:
    body = openai_body("Rejected: the quick brown fox jumps over the lazy dog", None, "odd\n")
    fault = read_fault(JsonResponse(status=400, headers={}, body=body))

    error = fault.error(
        errors.ModelRequestError, "openai/gpt", ["the quick brown fox jumps over the lazy dog"]
    )

    assert error.what == (
        "openai/gpt rejects the request (HTTP 400, odd): “(not shown: it repeats the request)”."
    )


def test_the_delay_survives_pickling() -> None:
    """Celery sends errors between processes."""
    response = JsonResponse(status=429, headers={"retry-after": "9"}, body=None, excerpt="busy")
    error = read_fault(response).error(errors.RateLimitedError, "openai/gpt", [])

    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - bytes of our own

    assert copied.retry_after_seconds == 9.0
    assert copied.what == "openai/gpt takes no more requests for now (HTTP 429): “busy”."


@pytest.mark.parametrize(
    ("status", "code", "is_about_key"),
    [
        (401, "invalid_api_key", True),
        (402, "", True),
        (407, "", True),
        (429, "insufficient_quota", True),
        (403, "", False),
        (404, "model_not_found", False),
    ],
)
def test_an_access_error_concerns_the_key_or_a_single_model(
    status: int, code: str, *, is_about_key: bool
) -> None:
    body = openai_body("No.", None, code)
    fault = read_fault(JsonResponse(status=status, headers={}, body=body))

    error = fault.error(fault.kind(openai.CODES, openai.PHRASES), "openai/m", ())

    assert isinstance(error, errors.PausingError)
    assert error.is_about_key is is_about_key
    assert pickle.loads(pickle.dumps(error)).is_about_key is is_about_key  # noqa: S301 - our own bytes


NOON = 1_795_521_600.0  # Tue, 24 Nov 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0.0),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 09:00:10 GMT",
                "date": "Tue, 24 Nov 2026 09:00:00 GMT",
            },
            10.0,
        ),
        ({"retry-after": "99999999999"}, MAX_BELIEVED_SECONDS),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"llm_provider-retry-after": "7"}, 7.0),
        ({"llm_provider-retry-after-ms": "1500", "llm_provider-retry-after": "7"}, 1.5),
        ({"llm_provider-retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "5", "llm_provider-retry-after": "7"}, 5.0),
        ({"retry-after": "tomorrow", "llm_provider-retry-after": "7"}, 7.0),
    ],
)
def test_each_form_of_retry_after_is_parsed(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, wall_clock=lambda: NOON) == seconds


@given(st.text(), st.text(), st.text())
def test_any_header_is_a_bounded_delay_or_none(seconds: str, milliseconds: str, date: str) -> None:
    headers = {"retry-after": seconds, "retry-after-ms": milliseconds, "date": date}

    delay = retry_after_seconds(headers)

    assert delay is None or 0 <= delay <= MAX_BELIEVED_SECONDS
