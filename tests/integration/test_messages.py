"""The contract of messages: whatever is killed or lost, all work is done, and no job ends twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast

import pytest
from hypothesis import strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chordwise.errors import ModelAccessError, ModelOverloadedError, ServiceUnavailableError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import SliceClaims, analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize, synthesize_claimed
from chordwise.pipeline.recovery.recover import promise_missing, recover
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT, SYNTHESIZE, Messenger
from chordwise.settings import Settings
from tests.fakes.commits import unconfirmed
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
    a_pipeline,
    a_run,
    quoting_the_text,
    with_settings,
)
from tests.fakes.state_machines import run_machine

_ROUNDS = 12
_CHUNKS_AND_SYNTHESIS = "SELECT count(*) + 1 FROM chunks"
_IS_LEFT = """
SELECT EXISTS (SELECT FROM jobs WHERE finished_at IS NULL AND status <> 'paused')
    OR EXISTS (SELECT FROM outbox)
"""
COMMITS = {
    "a fan-out": "UPDATE jobs j SET attempts",
    "chunks": "INSERT INTO chunks",
    "a claim": "UPDATE chunks c SET status = 'running'",
    "a call": "INSERT INTO model_calls",
    "an end": "UPDATE chunks SET status",
    "a claimed synthesis": "SET status = 'synthesizing'",
    "a result": "WITH added AS",
}
"""Statements after which the response to the commit is lost, by what they store."""
Ids = Sequence[uuid.UUID]
_numbers = iter(range(1_000_000))


class Broker:
    """Takes messages like a messenger, until it fails; delivers, repeats and loses them."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Ids]] = []
        self.room: int | None = None

    def send(self, task: str, ids: Ids, *, is_nightly: bool = False) -> None:  # noqa: ARG002 - as sent
        if self.room is not None:
            if not self.room:
                raise ServiceUnavailableError("The broker cannot be reached.", "Start it.")
            self.room -= 1
        self.messages.append((task, ids))

    def start_chord(self, job_id: uuid.UUID, slices: Sequence[Ids], *, is_nightly: bool) -> None:
        """Send the slices of a chord, and its body, which may arrive too early."""
        for chunk_ids in slices:
            self.send(ANALYZE_SLICE, chunk_ids, is_nightly=is_nightly)
        self.send(SYNTHESIZE, [job_id], is_nightly=is_nightly)

    def is_idle(self) -> bool:
        return not self.messages


_TEXTS = strategies.sampled_from([PARAGRAPH, LONG])
_FAULTS = strategies.sampled_from(
    [
        "none",
        "dies",
        "dies before the synthesis",
        *(f"loses the response to {statement}" for statement in COMMITS),
        ModelOverloadedError("Busy."),
        ModelAccessError("The key is refused."),
    ]
)


class Messages(RuleBasedStateMachine):
    """Submits, kills, loses, repeats, postpones, pauses, cancels and recovers in any order."""

    def __init__(self, pipeline: Pipeline, broker: Broker) -> None:
        super().__init__()
        self.broker = broker
        self.pipeline = pipeline
        self.context = pipeline.context
        self.runs: list[uuid.UUID] = []
        self.errors: list[Exception] = []

    @initialize(text=_TEXTS)
    def start(self, text: str) -> None:
        self.pipeline.execute("TRUNCATE runs, documents, outbox CASCADE")
        self.broker.messages.clear()
        self.submit(text)

    def answer(self, request: CompletionRequest) -> str:
        """Answer as a model, or raise the next error."""
        if self.errors:
            raise self.errors.pop()
        return quoting_the_text(request)

    @rule(text=_TEXTS)
    def submit(self, text: str) -> None:
        content = f"{next(_numbers)}. {text}"
        self.runs.append(self.pipeline.submit(content, options=a_run()).run_id)

    @rule(waits=strategies.booleans(), room=strategies.none() | strategies.integers(0, 2))
    def send(self, room: int | None, *, waits: bool) -> None:
        if waits:
            self.wait()
        self.broker.room = room
        with suppress(ServiceUnavailableError):
            dispatch(self.context)
        self.broker.room = None

    def wait(self) -> None:
        """All times that something waits for come, but not the ends of leases."""
        self.pipeline.execute("UPDATE outbox SET due_at = due_at - interval '1 day'")
        self.pipeline.execute("UPDATE chunks SET due_at = due_at - interval '1 day'")
        self.pipeline.execute(
            "UPDATE jobs SET due_at = due_at - interval '1 day',"
            " last_progress_at = last_progress_at - interval '1 day'"
        )

    @precondition(lambda self: self.broker.messages)
    @rule(data=strategies.data(), is_repeated=strategies.booleans(), fault=_FAULTS)
    def deliver(
        self, data: strategies.DataObject, fault: Exception | str, *, is_repeated: bool
    ) -> None:
        """Deliver a message: its work succeeds, is postponed, pauses its run, or kills a worker."""
        position = data.draw(strategies.integers(0, len(self.broker.messages) - 1))
        task, ids = self.broker.messages.pop(position)
        if is_repeated:
            self.broker.messages.append((task, ids))
        self.errors = [fault] if isinstance(fault, Exception) else []
        statement = COMMITS.get(str(fault).removeprefix("loses the response to "))
        confirm = unconfirmed(self.pipeline, statement) if statement else lambda: False
        if fault == "dies":
            self.die(task, ids)
        else:
            self.work(task, ids, synthesizes=fault != "dies before the synthesis")
        confirm()

    def work(self, task: str, ids: Ids, *, synthesizes: bool = True) -> None:
        """Do the work of a message, and, unless the worker dies, the syntheses that follow."""
        claims = SliceClaims(self.context, ids, claims_syntheses=True)
        handlers: dict[str, Callable[[uuid.UUID], object]] = {
            FAN_OUT: partial(fan_out, self.context),
            ANALYZE_SLICE: partial(analyze_chunk, self.context, claims=claims),
            SYNTHESIZE: partial(synthesize, self.context),
        }
        for id_ in ids:
            with suppress(ServiceUnavailableError):
                handlers[task](id_)
        for lease, claimed in claims.syntheses if synthesizes else ():
            synthesize_claimed(self.context, lease, claimed)

    def die(self, task: str, ids: Ids) -> None:
        """Begin the work as a worker that is killed then."""
        stores = self.context.stores
        if task == FAN_OUT:
            stores.fan_outs.begin(ids[0])
        elif task == SYNTHESIZE:
            stores.chunks.claim_synthesis(ids[0], uuid.uuid4())
        else:
            stores.chunks.claim([(id_, uuid.uuid4()) for id_ in ids])

    @rule()
    def lose_messages(self) -> None:
        self.broker.messages.clear()

    @rule(times=strategies.integers(1, 2))
    def recover(self, times: int) -> None:
        self.pipeline.expire_leases()
        for _ in range(times):
            recover(self.context)

    @precondition(lambda self: self.runs)
    @rule(data=strategies.data(), cancels=strategies.booleans())
    def control(self, data: strategies.DataObject, *, cancels: bool) -> None:
        run_id = data.draw(strategies.sampled_from(self.runs))
        if cancels:
            run_control.cancel(self.context.database, run_id)
        else:
            run_control.retry(self.context, run_id)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """All work that waits has a message, and all work in progress a lease."""
        assert promise_missing(self.context) == 0
        unleased = "SELECT count(*) FROM {} WHERE status = '{}' AND lease_until IS NULL"
        assert self.pipeline.value(unleased.format("chunks", "running")) == 0
        assert self.pipeline.value(unleased.format("jobs", "synthesizing")) == 0

    @invariant()
    def no_chunk_is_paid_for_twice(self) -> None:
        paid = "SELECT count(*) FROM model_calls WHERE valid GROUP BY chunk_id, job_id, stage"
        twice = f"SELECT count(*) FROM ({paid} HAVING count(*) > 1 AND chunk_id IS NOT NULL) AS t"  # noqa: S608 - our own words
        assert self.pipeline.value(twice) == 0

    def teardown(self) -> None:
        """Everything comes to its end, in few rounds, once nothing fails any more."""
        self.errors.clear()
        for _ in range(_ROUNDS):
            if self.is_finished():
                break
            self.recover(times=1)
            self.send(room=None, waits=True)
            while self.broker.messages:
                self.work(*self.broker.messages.pop())
        assert self.is_finished()
        ended = "SELECT count(*) FROM jobs WHERE status IN ('succeeded', 'partial')"
        assert self.pipeline.value("SELECT count(*) FROM results") == self.pipeline.value(ended)
        assert self.pipeline.value("SELECT count(*) FROM result_history") == 0

    def is_finished(self) -> bool:
        """Return whether nothing waits or runs; a paused run waits for a person."""
        return self.pipeline.value(_IS_LEFT) is False


@pytest.mark.parametrize("examples", [6, pytest.param(200, marks=pytest.mark.nightly)])
def test_no_order_of_faults_loses_work_or_does_it_twice(settings: Settings, examples: int) -> None:
    narrow = with_settings(settings, "pipeline", chunk_tokens=600)
    narrow = with_settings(narrow, "worker", concurrency=2)
    broker = Broker()
    machines: list[Messages] = []

    def answer(request: CompletionRequest) -> str:
        return machines[-1].answer(request)

    pipeline = a_pipeline(narrow, answer, repeat_last=True)
    context = replace(pipeline.context, messenger=cast("Messenger", broker))

    def machine() -> Messages:
        machines.append(Messages(replace(pipeline, context=context), broker))
        return machines[-1]

    run_machine(machine, examples)


@pytest.mark.parametrize("statement", COMMITS.values(), ids=COMMITS.keys())
def test_each_lost_response_to_a_commit_changes_nothing(settings: Settings, statement: str) -> None:
    narrow = with_settings(settings, "pipeline", chunk_tokens=600)
    pipeline = a_pipeline(narrow, quoting_the_text, repeat_last=True)
    job = pipeline.job(pipeline.submit(LONG))
    is_lost = unconfirmed(pipeline, statement)

    pipeline.work_on(job.id)

    assert is_lost()
    assert pipeline.value("SELECT status FROM jobs") == "succeeded"
    assert pipeline.value("SELECT bool_and(attempts = 1) FROM chunks") is True
    assert pipeline.value("SELECT count(*) FROM results") == 1
    assert pipeline.value("SELECT count(*) FROM result_history") == 0
    calls = pipeline.value("SELECT count(*) FROM model_calls")
    assert calls == len(pipeline.model.requests) == pipeline.value(_CHUNKS_AND_SYNTHESIS)
