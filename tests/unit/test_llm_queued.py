"""Questions that wait their turn."""

from __future__ import annotations

import threading

import pytest

from chordwise.errors import ModelOverloadedError
from chordwise.llm.middleware.queued import Queued, Turn
from chordwise.llm.model import CompletionRequest
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import ScriptedModel

ASKERS = 6


def test_no_more_are_asked_at_once_than_there_are_turns() -> None:
    """Six threads share two turns: two are inside together, never three."""
    both_inside = threading.Barrier(2, timeout=10)
    inside: list[int] = []
    lock, most = threading.Lock(), [0]

    def answer(_request: CompletionRequest) -> str:
        with lock:
            inside.append(1)
            most[0] = max(most[0], len(inside))
        both_inside.wait()
        with lock:
            inside.pop()
        return "{}"

    turns = threading.Semaphore(2)
    model = ScriptedModel([answer], repeat_last=True)
    askers = [
        threading.Thread(target=Queued(model, turns).complete, args=(a_request(),))
        for _ in range(ASKERS)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(timeout=30)

    assert (most[0], len(model.requests)) == (2, ASKERS)


def test_a_failed_question_gives_its_turn_back() -> None:
    """An error goes up, and the next one is asked."""
    model = ScriptedModel([ModelOverloadedError("busy"), "{}"])
    queued = Queued(model, threading.Semaphore(1))

    with pytest.raises(ModelOverloadedError):
        queued.complete(a_request())

    assert queued.complete(a_request()).text == "{}"
    assert queued.profile == model.profile


def test_a_turn_is_kept_until_the_answer_is_stored() -> None:
    """Further questions of the same work need no second turn; others wait until it is closed."""
    turns = threading.Semaphore(1)
    turn = Turn(turns)
    queued = Queued(ScriptedModel(["{}"], repeat_last=True), turn)

    queued.complete(a_request())
    queued.complete(a_request())

    assert not turns.acquire(blocking=False)
    turn.close()
    turn.close()
    assert turns.acquire(blocking=False)
    assert not turns.acquire(blocking=False)


def test_a_failed_question_keeps_no_turn() -> None:
    """Whoever waits before asking again lets others ask meanwhile."""
    turns = threading.Semaphore(1)
    queued = Queued(ScriptedModel([ModelOverloadedError("busy")]), Turn(turns))

    with pytest.raises(ModelOverloadedError):
        queued.complete(a_request())

    assert turns.acquire(blocking=False)
