"""Deadlines that follow the measured speed of a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise.errors import ModelTimeoutError, ModelTransportError
from chordwise.llm.middleware.paced import MARGIN, OVERHEAD_SECONDS, Paced
from chordwise.llm.model import Completion, CompletionRequest, FinishReason, Timings, Usage
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import Line, ScriptedModel

LEAST, MOST = 5.0, 900.0
# 100 tokens of a prompt and 2 of an answer in a second.
SLOW = Timings(prompt_tokens=1_000, prompt_seconds=10.0, output_tokens=50, output_seconds=25.0)
PROMPT_TOKENS = 200
OUTPUT_TOKENS = 80


def answered(timings: Timings | None) -> Completion:
    """Return an answer for which the server took so long."""
    return Completion(
        text="{}",
        finish_reason=FinishReason.STOP,
        usage=Usage(),
        provider="local",
        model="m",
        timings=timings,
    )


def a_question(output_tokens: int = OUTPUT_TOKENS) -> CompletionRequest:
    return a_request(system="", user="a" * 4 * PROMPT_TOKENS, max_output_tokens=output_tokens)


def granted(*script: Line, requests: int | None = None, left: float | None = None) -> list[float]:
    """Ask as often as there are lines; return the time that each request had."""
    model = ScriptedModel(script, repeat_last=True)
    subject = Paced(model, LEAST, MOST)
    for _ in range(requests or len(script)):
        try:
            subject.complete(replace(a_question(), timeout_seconds=left))
        except ModelTransportError:
            continue
    return [request.timeout_seconds or 0.0 for request in model.requests]


def test_before_the_first_answer_a_request_has_all_the_time() -> None:
    assert granted(answered(SLOW)) == [MOST]
    assert granted(answered(SLOW), left=60.0) == [60.0]


def test_then_it_has_what_prompt_and_answer_need_at_the_measured_speed() -> None:
    """With a margin; 2 seconds to read and 40 to write here."""
    assert granted(answered(SLOW), requests=2)[1] == pytest.approx(
        MARGIN * (2.0 + 40.0) + OVERHEAD_SECONDS
    )


def test_it_never_has_less_than_the_settings_say_nor_more_than_is_left() -> None:
    fast = replace(SLOW, prompt_seconds=0.01, output_seconds=0.01)

    assert granted(answered(fast), requests=2)[1] == LEAST
    assert granted(answered(SLOW), requests=2, left=30.0) == [30.0, 30.0]
    assert granted(answered(fast), requests=2, left=3.0) == [3.0, 3.0]


def test_after_a_time_out_nothing_counts_that_was_measured_before() -> None:
    """The next request has all the time again, and so more than the one that timed out."""
    late = ModelTimeoutError("late", granted_seconds=84.0)

    assert granted(answered(SLOW), late, answered(SLOW))[2] == MOST


def test_another_failure_forgets_nothing() -> None:
    """A connection that breaks says nothing about the speed."""
    broken = ModelTransportError("broken")

    assert granted(answered(SLOW), broken, answered(SLOW))[2] == pytest.approx(
        84.0 + OVERHEAD_SECONDS
    )


@pytest.mark.parametrize(
    "timings", [None, Timings(prompt_tokens=0, prompt_seconds=0, output_tokens=0, output_seconds=0)]
)
def test_an_answer_without_measurements_changes_nothing(timings: Timings | None) -> None:
    """A server that says nothing, or answers from its cache, leaves the speed unknown."""
    assert granted(answered(timings), requests=2) == [MOST, MOST]
