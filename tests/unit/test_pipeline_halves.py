"""A text that is too long for a model is asked about in halves, and white space never."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import grounding
from chordwise.domain.answers import Answer
from chordwise.errors import (
    ContextTooLongError,
    RefusedError,
)
from chordwise.llm.model import CompletionRequest
from tests.fakes.asking import GOOD, OFFSET, TEXT, asked
from tests.fakes.pipeline import quoting_the_text
from tests.fakes.scripted_model import Answer as Line
from tests.fakes.scripted_model import ScriptedModel


def limited_to(characters: int) -> Callable[[CompletionRequest], Line]:
    """Return a line that finds longer texts too long, and quotes the beginning of the others."""

    def answer(request: CompletionRequest) -> Line:
        if len(request.task.text) > characters:
            return ContextTooLongError("too long")
        return quoting_the_text(request)

    return answer


def spans(answer: Answer) -> Sequence[tuple[str, int, int]]:
    """Return quote, start and end of every finding."""
    return [
        (str(each["quote"]), int(str(each["start_char"])), int(str(each["end_char"])))
        for each in grounding.quotes(answer.output)
    ]


def test_a_text_that_is_too_long_is_asked_about_in_halves() -> None:
    """At sentences; the quotes keep their places in the document."""
    text = "".join(f"Sentence number {number} is here. " for number in range(8))
    model = ScriptedModel([limited_to(80)], repeat_last=True)

    answer = asked(model, text=text)

    texts = [request.task.text for request in model.requests]
    assert texts[0] == text.strip()
    assert [each for each in texts if len(each) <= 80] == [
        f"Sentence number {number} is here. Sentence number {number + 1} is here."
        for number in (0, 2, 4, 6)
    ]
    assert len(spans(answer)) == 4
    for quote, start, end in spans(answer):
        assert text[start - OFFSET : end - OFFSET] == quote


PARTS = st.lists(st.sampled_from(["One word. ", "Wörter\n\n", "no end ", "x" * 40, " "]))


@given(PARTS.map("".join).filter(str.strip), st.lists(st.booleans(), max_size=8))
def test_halves_cover_the_text(text: str, refusals: list[bool]) -> None:
    """Every word is asked about once, whatever the text looks like and wherever it is halved."""
    left, answered = refusals[:], list[str]()

    def line(request: CompletionRequest) -> Line:
        if len(request.task.text) > 1 and left and left.pop() and refusals.count(True) <= 3:
            return ContextTooLongError("too long")
        answered.append(request.task.text)
        return quoting_the_text(request)

    asked(ScriptedModel([line], repeat_last=True), text=text)

    assert "".join("".join(answered).split()) == "".join(text.split())


def test_a_text_is_halved_three_times_at_most() -> None:
    """A server that finds everything too long is not asked for ever."""
    model = ScriptedModel([ContextTooLongError("too long")], repeat_last=True)

    with pytest.raises(ContextTooLongError):
        asked(model, text=TEXT * 50)

    assert len(model.requests) == 4


def test_a_half_that_fails_is_not_left_out() -> None:
    """A chunk succeeds as a whole, or not at all: its coverage is that of its answer."""
    script: list[Line] = [ContextTooLongError("too long"), GOOD, RefusedError("no")]

    with pytest.raises(RefusedError):
        asked(ScriptedModel(script))


def test_white_space_around_a_text_is_not_asked_about() -> None:
    """Quotes keep their place all the same."""
    model = ScriptedModel([GOOD])

    answer = asked(model, text=f"\n\n   {TEXT}   ")

    assert model.requests[0].task.text == TEXT.strip()
    start = OFFSET + 5 + TEXT.index("rebuilt")
    assert spans(answer) == [("rebuilt in 1856", start, start + len("rebuilt in 1856"))]
