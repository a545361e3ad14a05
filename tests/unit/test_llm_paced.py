"""Tests of deadlines that follow the measured speed of a server."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from chordwise.errors import ModelTimeoutError, ModelTransportError
from chordwise.llm.middleware.paced import MARGIN, OVERHEAD_SECONDS, Paced
from chordwise.llm.model import Completion, Timings
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import Line, ScriptedModel

MIN_SECONDS, MAX_SECONDS = 5.0, 900.0
# 100 tokens of a prompt and 2 tokens of an answer per second.
SLOW = Timings(prompt_tokens=1_000, prompt_seconds=10.0, output_tokens=50, output_seconds=25.0)
FAST = replace(SLOW, prompt_seconds=0.01, output_seconds=0.01)
UNMEASURED = Timings(prompt_tokens=0, prompt_seconds=0, output_tokens=0, output_seconds=0)
# A prompt of 200 tokens and an answer of 80.
QUESTION = a_request(system="", user="a" * 4 * 200, max_output_tokens=80)
NEEDED = MARGIN * (2.0 + 40.0) + OVERHEAD_SECONDS
LATE, BROKEN = ModelTimeoutError("late", granted_seconds=84.0), ModelTransportError("broken")


def answered(timings: Timings | None) -> Completion:
    return replace(ScriptedModel([]).completion("{}"), timings=timings)


@pytest.mark.parametrize(
    ("script", "left", "granted"),
    [
        ([answered(SLOW)], 60.0, [60.0]),
        # With a margin: 2 seconds to read and 40 to write.
        ([answered(SLOW)] * 2, None, [MAX_SECONDS, NEEDED]),
        # Never less than the configured minimum, nor more than the remaining time.
        ([answered(FAST)] * 2, None, [MAX_SECONDS, MIN_SECONDS]),
        ([answered(SLOW)] * 2, 30.0, [30.0, 30.0]),
        ([answered(FAST)] * 2, 3.0, [3.0, 3.0]),
        # After a timeout, earlier measurements are ignored.
        ([answered(SLOW), LATE, answered(SLOW)], None, [MAX_SECONDS, NEEDED, MAX_SECONDS]),
        # A broken connection does not change the measured speed.
        ([answered(SLOW), BROKEN, answered(SLOW)], None, [MAX_SECONDS, NEEDED, NEEDED]),
        # Without timings, or with those of the server's cache, the speed stays unknown.
        ([answered(None)] * 2, None, [MAX_SECONDS, MAX_SECONDS]),
        ([answered(UNMEASURED)] * 2, None, [MAX_SECONDS, MAX_SECONDS]),
    ],
)
def test_the_deadline_follows_from_the_measured_speed(
    script: list[Line], left: float | None, granted: list[float]
) -> None:
    model = ScriptedModel(script)
    subject = Paced(model, MIN_SECONDS, MAX_SECONDS)

    for _ in script:
        with contextlib.suppress(ModelTransportError):
            subject.complete(replace(QUESTION, timeout_seconds=left))

    assert [request.timeout_seconds for request in model.requests] == pytest.approx(granted)
