"""Tests of limiting concurrent questions to a number of slots."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chordwise.errors import ModelOverloadedError
from chordwise.llm.middleware.concurrency_limited import ConcurrencyLimited, Slots, Turn
from chordwise.llm.model import CompletionRequest
from tests.fakes.completion_requests import a_request
from tests.fakes.scripted_model import ScriptedModel

ASKERS = 6


def test_concurrent_questions_are_limited_to_the_slots() -> None:
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

    slots = threading.Semaphore(2)
    model = ScriptedModel([answer], repeat_last=True)
    limited = ConcurrencyLimited(model, slots)
    with ThreadPoolExecutor(ASKERS) as askers:
        list(askers.map(limited.complete, [a_request()] * ASKERS))

    assert (most[0], len(model.requests)) == (2, ASKERS)


def test_a_failed_question_releases_its_slot() -> None:
    model = ScriptedModel([ModelOverloadedError("busy"), "{}"])
    limited = ConcurrencyLimited(model, threading.Semaphore(1))

    with pytest.raises(ModelOverloadedError):
        limited.complete(a_request())

    assert limited.complete(a_request()).text == "{}"
    assert limited.profile == model.profile


def sending(slots: Slots, *answers: str | Exception) -> tuple[ConcurrencyLimited, Turn]:
    """Return a model that waits for a slot before each call, as `Metered` does."""
    turn = Turn(slots)
    replies = iter(answers)

    def answer(_request: CompletionRequest) -> str:
        turn.send()
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return ConcurrencyLimited(ScriptedModel([answer], repeat_last=True), turn), turn


def has_room(semaphore: threading.Semaphore) -> bool:
    return semaphore.acquire(blocking=False)


def test_an_answer_is_counted_until_it_is_stored() -> None:
    """Its slot is free for the next call, but the number of unstored answers is limited.

    Further questions of the same work do not wait again; while its answers are stored, the next
    request is prepared.
    """
    slots = Slots(1)
    limited, turn = sending(slots, "{}", "{}")
    limited.complete(a_request())
    limited.complete(a_request())
    assert has_room(slots.sent)
    assert not has_room(slots.asking)

    turn.finish()
    assert has_room(slots.asking)
    assert not has_room(slots.unstored)

    turn.close()
    turn.close()
    assert not has_room(slots.asking)
    assert has_room(slots.unstored)
    assert not has_room(slots.unstored)


def test_unstored_answers_may_exceed_the_slots_by_a_quarter() -> None:
    """A process that is killed loses at most this number of calls."""
    slots = Slots(8)

    assert sum(has_room(slots.sent) for _ in range(20)) == 8
    assert sum(has_room(slots.unstored) for _ in range(20)) == 10
    assert sum(has_room(slots.asking) for _ in range(20)) == 10


def test_a_question_that_waits_for_its_retry_has_no_slot() -> None:
    slots = Slots(1)
    limited, _ = sending(slots, ModelOverloadedError("busy"))

    with pytest.raises(ModelOverloadedError):
        limited.complete(a_request())

    assert has_room(slots.asking)
    assert has_room(slots.sent)
    assert has_room(slots.unstored)
